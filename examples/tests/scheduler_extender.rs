//! The scheduler's daemon with an extender on a socket of loopback, against the real API server in this process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "a test that owns its runtime and polls with a deadline")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
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
use icp_core::server::{ApiServer, InProcessClient, Options};
use icp_core::shell::{SystemClock, SystemEntropy};
use serde_json::{Value, json};
use tokio::net::TcpListener;

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

async fn serve(listener: TcpListener, paths: Arc<Mutex<Vec<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let paths = Arc::clone(&paths);
        tokio::spawn(async move {
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
        });
    }
}

async fn create(client: &dyn Client, gvr: &Gvr, namespace: &str, object: Value) -> bool {
    let object: Object = serde_json::from_value(object).unwrap();
    let request = ApiRequest::collection(gvr, namespace, Operation::Create(Arc::new(object)));
    client.request(request).await.is_ok()
}

#[tokio::test]
async fn an_extender_on_a_socket_decides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let paths = Arc::default();
    let serving = tokio::spawn(serve(listener, Arc::clone(&paths)));
    let dir = std::env::temp_dir().join(format!("icp-scheduler-extender-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("scheduler.yaml");
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         leaderElection: {{leaderElect: false}}\nextenders:\n- urlPrefix: http://127.0.0.1:{port}/api\n  \
         filterVerb: filter\n  prioritizeVerb: prioritize\n  weight: 100\n  nodeCacheCapable: true\n"
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
    let error = post("https://127.0.0.1/x".into(), 5_000).await;
    assert!(error.contains("does not begin with http://"), "{error}");
}
