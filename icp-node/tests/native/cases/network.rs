//! Probes, forwarded ports, the port to the cluster's network.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use icp_node::backend::native::{NetworkError, PodNetwork};
use icp_node::runtime::{
    HttpGet, Network, Outcome, PodUid, ProbeOutcome, Runtime, RuntimeError, RuntimeOp, SandboxSpec,
};

use super::{Case, cases};
use crate::lab::{Lab, Node, read_until, script};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![probes, forwarded_ports, the_network_is_asked]
}

async fn probe(node: &Node, op: RuntimeOp) -> ProbeOutcome {
    match node.call("p", op).await.unwrap() {
        Outcome::Probe(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

async fn probes(lab: Lab) {
    if !lab.is_root() {
        // The loopback interface of the suite's own network is down there until somebody puts it up.
        let _ = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    }
    let node = lab.node().await;
    node.sandbox_with("p", |s| s.network = Network::Host).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!("mkdir /www; echo hello > /www/index.html; httpd -f -p 127.0.0.1:{free} -h /www");
    node.start("p", "c", script(&text)).await.unwrap();
    let tcp = |port| RuntimeOp::TcpConnect { host: None, port, timeout: Duration::from_secs(2) };
    for _ in 0..200 {
        if probe(&node, tcp(free)).await.success {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(probe(&node, tcp(free)).await.success);
    let refused = probe(&node, tcp(1)).await;
    assert!(!refused.success && refused.message.contains("refused"), "{refused:?}");
    let get = |path: &str| {
        RuntimeOp::HttpGet(Arc::new(HttpGet {
            host: None,
            port: free,
            path: path.into(),
            https: false,
            headers: vec![("X-Test".into(), "1".into())],
            timeout: Duration::from_secs(2),
        }))
    };
    let good = probe(&node, get("/")).await;
    assert!(good.success && good.message.contains("hello"), "{good:?}");
    let bad = probe(&node, get("/none")).await;
    assert_eq!((bad.success, bad.message.as_str()), (false, "HTTP probe failed with statuscode: 404"));
    assert!(!probe(&node, get("/a b")).await.success);
    node.remove("p").await;
}

async fn forwarded_ports(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("nc -ll -p 8080 -e cat")).await.unwrap();
    let pod = PodUid::from("p");
    let mut duplex = None;
    for _ in 0..200 {
        duplex = node.runtime.port_forward(&pod, 8080).await.ok();
        if duplex.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let Some(mut duplex) = duplex else { panic!("{}", node.log("p", "c").await) };
    duplex.write.write(Bytes::from_static(b"there and back\n")).await.unwrap();
    assert_eq!(read_until(&mut duplex.read, "\n").await, "there and back\n");
    let closed = node.runtime.port_forward(&pod, 8081).await;
    assert!(matches!(closed, Err(RuntimeError::Unavailable { .. })));
    assert!(matches!(
        node.runtime.port_forward(&PodUid::from("q"), 1).await,
        Err(RuntimeError::NotFound { .. })
    ));
    node.remove("p").await;
}

#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<String>>,
    fail: bool,
}

#[async_trait]
impl PodNetwork for Recorder {
    async fn attach(
        &self,
        pod: &PodUid,
        netns: &Path,
        spec: &SandboxSpec,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        assert!(
            netns.exists()
                && std::fs::read_link(netns).unwrap() != std::fs::read_link("/proc/self/ns/net").unwrap()
        );
        self.calls.lock().unwrap().push(format!("attach {pod} {}", spec.name));
        if self.fail {
            return Err(NetworkError { message: "no address left".into() });
        }
        Ok(vec!["10.1.2.3".parse().unwrap()])
    }

    async fn detach(&self, pod: &PodUid, netns: Option<&Path>) -> Result<(), NetworkError> {
        self.calls.lock().unwrap().push(format!("detach {pod} {}", netns.is_some_and(Path::exists)));
        Ok(())
    }
}

async fn the_network_is_asked(lab: Lab) {
    let recorder = Arc::new(Recorder::default());
    let mut config = lab.config(&lab.fresh());
    config.network = recorder.clone();
    let node = Node::with(config).await;
    node.sandbox("p").await;
    node.sandbox("p").await;
    assert_eq!(node.list().await[0].sandbox.as_ref().unwrap().ips, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    node.sandbox_with("h", |s| s.network = Network::Host).await;
    node.remove("h").await;
    node.remove("p").await;
    assert_eq!(*recorder.calls.lock().unwrap(), ["attach p p", "detach p true"]);
    let recorder = Arc::new(Recorder { fail: true, ..Recorder::default() });
    let mut config = lab.config(&lab.fresh());
    config.network = recorder.clone();
    let node = Node::with(config).await;
    let spec = SandboxSpec { name: "p".into(), ..SandboxSpec::default() };
    let failed = node.call("p", RuntimeOp::CreateSandbox(spec.into())).await;
    assert_eq!(failed, Err(RuntimeError::Sandbox { message: "no address left".into() }));
    assert_eq!(*recorder.calls.lock().unwrap(), ["attach p p", "detach p true"]);
    node.remove("p").await;
}
