//! The scheduler's daemon with an extender on a socket of loopback, against the real API server in this process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "a test that owns its runtime and polls with a deadline")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use examples::daemon::extender::Extenders;
use examples::daemon::scheduler::{Config, drive};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use icp_core::api::{Gvr, Object, resources};
use icp_core::base::Rng;
use icp_core::client::{ApiRequest, Client, Operation, Reply};
use icp_core::server::{ApiServer, Clock as _, InProcessClient, Options};
use icp_core::shell::pki::{Authority, Identity};
use icp_core::shell::{SystemClock, SystemEntropy, tls};
use icp_sched::config::{Registry, SchedulerConfiguration};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Leaves out `w0`, and likes `w2` best.
fn opinion(path: &str, body: &Value) -> Value {
    match path {
        "/api/filter" => {
            let names = body["NodeNames"].as_array().unwrap().iter().filter(|n| *n != "w0");
            json!({"NodeNames": names.collect::<Vec<_>>(), "FailedNodes": {"w0": "not this one"}})
        }
        "/api/prioritize" => json!([{"Host": "w1", "Score": 1}, {"Host": "w2", "Score": 10}]),
        other => json!({"Error": format!("unknown {other}")}),
    }
}

type Paths = Arc<Mutex<Vec<String>>>;

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, paths: Paths) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (paths, tls) = (Arc::clone(&paths), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => answer(stream, paths).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, paths).await;
                    }
                }
            }
        });
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, paths: Paths) {
    let service = service_fn(move |request: Request<Incoming>| {
        let paths = Arc::clone(&paths);
        async move {
            let path = request.uri().path().to_string();
            assert_eq!(request.headers()["content-type"], "application/json");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = opinion(&path, &serde_json::from_slice(&body).unwrap());
            paths.lock().unwrap().push(path);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    });
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn create(client: &dyn Client, gvr: &Gvr, namespace: &str, object: Value) -> bool {
    let object: Object = serde_json::from_value(object).unwrap();
    let request = ApiRequest::collection(gvr, namespace, Operation::Create(Arc::new(object)));
    client.request(request).await.is_ok()
}

#[tokio::test]
async fn an_extender_on_a_socket_decides() {
    decides("http", None, "").await;
}

/// The authority of the extender, and whom it lets in.
struct Trust {
    authority: Authority,
    client: Identity,
}

impl Trust {
    fn new() -> Self {
        let now = SystemClock.now();
        let authority = Authority::generate("extenders", now).unwrap();
        let client = authority.client("scheduler", &[], now).unwrap();
        Self { authority, client }
    }

    /// A server for 127.0.0.1 that lets nobody else in.
    fn acceptor(&self) -> TlsAcceptor {
        let serving = self.authority.serving("extender", &["127.0.0.1"], SystemClock.now()).unwrap();
        let config = tls::server_mutual(&serving, self.authority.certificate_pem()).unwrap();
        TlsAcceptor::from(config)
    }

    fn inline(&self) -> String {
        let data = |pem: &str| BASE64_STANDARD.encode(pem);
        format!(
            "certData: {}, keyData: {}, caData: {}",
            data(&self.client.certificate_pem),
            data(&self.client.key_pem),
            data(self.authority.certificate_pem())
        )
    }
}

#[tokio::test]
async fn an_extender_behind_tls_decides() {
    let trust = Trust::new();
    let more = format!("  enableHTTPS: true\n  tlsConfig: {{{}}}\n", trust.inline());
    decides("https", Some(trust.acceptor()), &more).await;
}

async fn decides(scheme: &str, tls: Option<TlsAcceptor>, more: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let paths = Arc::default();
    let serving = tokio::spawn(serve(listener, tls, Arc::clone(&paths)));
    let dir = std::env::temp_dir().join(format!("icp-scheduler-extender-{scheme}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("scheduler.yaml");
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         leaderElection: {{leaderElect: false}}\nextenders:\n- urlPrefix: {scheme}://127.0.0.1:{port}/api\n  \
         filterVerb: filter\n  prioritizeVerb: prioritize\n  weight: 100\n  nodeCacheCapable: true\n{more}"
    );
    std::fs::write(&file, text).unwrap();

    let server = ApiServer::builder(Arc::new(icp_store::Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(1))
        .entropy(SystemEntropy::new())
        .options(Options::default())
        .build();
    let client: Arc<dyn Client> = Arc::new(InProcessClient::new(server));
    let config = Config { listen_metrics: None, ..Config::of_file(&file) };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ours = Arc::clone(&client);
    let daemon = tokio::spawn(async move { drive(&config, 1, ours, stopped).await.unwrap() });
    let end = Instant::now() + Duration::from_secs(20);
    for name in ["w0", "w1", "w2"] {
        let room = json!({"cpu": "2", "memory": "4Gi", "pods": "110"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"capacity": room, "allocatable": room}});
        assert!(create(&*client, &resources::NODES, "", node).await);
        // A new node is not ready until its agent says so; here nobody does.
        let body = json!({"spec": {"taints": null}});
        let kind = icp_core::client::PatchKind::Merge;
        let op = Operation::Patch { kind, body, field_manager: None, force: false };
        client.request(ApiRequest::object(&resources::NODES, "", name, op)).await.unwrap();
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    // The namespace comes a little after the server.
    while !create(&*client, &resources::PODS, "default", pod.clone()).await {
        assert!(Instant::now() < end, "the pod is created");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    loop {
        let request = ApiRequest::object(&resources::PODS, "default", "p", Operation::Get);
        let Reply::Object(pod) = client.request(request).await.unwrap() else { panic!("a pod") };
        match pod.str_at("/spec/nodeName") {
            "" => assert!(Instant::now() < end, "{pod:?}"),
            node => {
                assert_eq!(node, "w2");
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*paths.lock().unwrap(), ["/api/filter", "/api/prioritize"]);
    stop.send_replace(true);
    daemon.await.unwrap();
    serving.abort();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn who_does_not_answer_is_told_of() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let post = |url: String, timeout| async move {
        icp_core::shell::post::json(&url, b"{}".to_vec(), Duration::from_millis(timeout)).await.unwrap_err()
    };
    let error = post(format!("http://127.0.0.1:{port}/x"), 50).await;
    assert!(error.ends_with("no answer in 50ms"), "{error}");
    drop(silent);
    let error = post(format!("http://127.0.0.1:{port}/x"), 5_000).await;
    assert!(error.contains("refused"), "{error}");
    let error = post("ftp://127.0.0.1/x".into(), 5_000).await;
    assert!(error.contains("does not begin with http://"), "{error}");
}

/// Asks an extender as a configuration says: the status code, or why there is none.
async fn asked(url: &str, more: &str) -> Result<u16, String> {
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nextenders:\n- urlPrefix: {url}\n  \
         filterVerb: filter\n{more}"
    );
    let registry = Registry::default();
    let config = SchedulerConfiguration::from_yaml(&text, &registry).map_err(|e| e.to_string())?;
    config.scheduler(&registry).map_err(|e| e.to_string())?;
    let extenders = Extenders::of(&config.extenders, Path::new("f")).map_err(|e| e.to_string())?;
    let url = config.extenders[0].url("filter");
    let body = json!({"NodeNames": []}).to_string().into_bytes();
    let answer = extenders.post(0, &url, body, Duration::from_secs(5)).await;
    answer.map(|(code, _)| code)
}

#[tokio::test]
async fn what_the_configuration_says_of_tls_holds() {
    let (trust, other) = (Trust::new(), Trust::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/api", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(serve(listener, Some(trust.acceptor()), Arc::default()));
    let dir = std::env::temp_dir().join(format!("icp-scheduler-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, pem: &str| {
        let path = dir.join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ca, cert, key) = (
        file("ca.pem", trust.authority.certificate_pem()),
        file("cert.pem", &trust.client.certificate_pem),
        file("key.pem", &trust.client.key_pem),
    );
    let own = format!("certFile: {cert}, keyFile: {key}");
    let tls = |more: String| format!("  tlsConfig: {{{more}}}\n");
    let b64 = |pem: &str| BASE64_STANDARD.encode(pem);
    for good in [
        tls(format!("{own}, caFile: {ca}")),
        // What is inline comes before files.
        tls(format!("{own}, caFile: /nonexistent, caData: {}", b64(trust.authority.certificate_pem()))),
        tls(format!("{own}, insecure: true")),
        format!("  enableHTTPS: true\n{}", tls(own.clone())),
        tls(format!("{own}, caFile: {ca}, serverName: 127.0.0.1")),
    ] {
        assert_eq!(asked(&url, &good).await, Ok(200), "{good}");
    }
    for (bad, want) in [
        (
            tls(format!("{own}, caData: {}", b64(other.authority.certificate_pem()))),
            "invalid peer certificate",
        ),
        // The server hangs up on who shows no certificate, and does not say so in a way that always arrives.
        (tls(format!("caFile: {ca}")), "Post "),
        (tls(format!("{own}, caFile: {ca}, serverName: other.example")), "invalid peer certificate"),
        (
            tls(format!("{own}, caFile: {ca}, insecure: true")),
            "extenders[0].tlsConfig.insecure: Invalid value: true: specifying a root certificates file with the insecure \
             flag is not allowed",
        ),
        (tls("caFile: /nonexistent".into()), "extenders[0].tlsConfig.caFile: /nonexistent: No such file"),
        (tls("caData: '***'".into()), "extenders[0].tlsConfig.caData: Invalid symbol"),
        (tls(format!("caFile: {key}")), "extenders[0].tlsConfig: unable to load root certificates"),
    ] {
        let error = asked(&url, &bad).await.unwrap_err();
        assert!(error.contains(want), "{bad}: {error}");
    }
    for (url, want) in [
        (
            "ftp://x",
            "extenders[0].urlPrefix: Invalid value: \"ftp://x\": must begin with http:// or https://",
        ),
        ("'http:///x'", "must begin with http:// or https:// and name a host"),
        ("'https://a b/x'", "must begin with http:// or https:// and name a host"),
        ("''", "must begin with http:// or https:// and name a host"),
    ] {
        let error = asked(url, "").await.unwrap_err();
        assert!(error.contains(want), "{url}: {error}");
    }
    serving.abort();
    std::fs::remove_dir_all(&dir).unwrap();
}
