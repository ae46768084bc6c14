//! Histories: of a scheduler against the real API server in this process, and what `sched-replay` says of files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use examples::daemon::{Access, scheduler};
use examples::sched_replay::replay_file;
use icp_core::api::{Gvr, Object, resources};
use icp_core::base::Rng;
use icp_core::client::{ApiRequest, Client, ListOptions, Operation, Reply};
use icp_core::server::{ApiServer, InProcessClient, Options, UserInfo};
use icp_core::shell::{SystemClock, SystemEntropy};
use serde_json::{Value, json};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../icp-sched/tests/data/history-1.jsonl");

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("icp-sched-replay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_replayed_whole_zipped_torn_and_damaged() {
    let dir = Dir::new("files");
    let whole = replay_file(Path::new(COMMITTED), None, 10).unwrap();
    assert!(whole.is_equal() && !whole.torn);
    let bytes = std::fs::read(COMMITTED).unwrap();
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(&bytes).unwrap();
    assert_eq!(replay_file(&dir.write("zipped", &zip.finish().unwrap()), None, 10).unwrap(), whole);
    let torn = replay_file(&dir.write("torn", &bytes[..bytes.len() - 5]), None, 10).unwrap();
    assert!(torn.torn && torn.is_equal() && torn.lines + 1 == whole.lines);
    let mut damaged = bytes.clone();
    let line = bytes.iter().position(|b| *b == b'\n').unwrap() + 3;
    damaged[line] = b'\n';
    let path = dir.write("damaged", &damaged);
    let error = replay_file(&path, None, 10).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line 2: ", path.display())), "{error}");
    for (name, bytes, words) in [
        ("empty", &b""[..], "the history is empty"),
        ("text", b"hello\n", "line 1: this is no history of icp-sched"),
    ] {
        let path = dir.write(name, bytes);
        let error = replay_file(&path, None, 10).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {words}", path.display()));
    }
    let missing = dir.0.join("missing");
    assert!(
        replay_file(&missing, None, 10).unwrap_err().to_string().starts_with(&missing.display().to_string())
    );
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    let packing = "profiles:\n- pluginConfig:\n  - name: NodeResourcesFit\n    args:\n      scoringStrategy:\n        type: MostAllocated\n        resources: [{name: cpu, weight: 1}]\n";
    let other = dir.write("packing.yaml", format!("{head}{packing}").as_bytes());
    let report = replay_file(Path::new(COMMITTED), Some(&other), 3).unwrap();
    assert!(report.elsewhere > 0 && report.differences.len() == 3 && report.misplaced == 0, "{report:#?}");
    let wrong = dir.write("wrong.yaml", format!("{head}parallelism: -1\n").as_bytes());
    let error = replay_file(Path::new(COMMITTED), Some(&wrong), 3).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: parallelism: ", wrong.display())), "{error}");
}

async fn create(client: &dyn Client, gvr: &Gvr, namespace: &str, object: Value) {
    let object: Object = serde_json::from_value(object).unwrap();
    let request = ApiRequest::collection(gvr, namespace, Operation::Create(Arc::new(object)));
    client.request(request).await.unwrap();
}

async fn pods(client: &dyn Client) -> Vec<Arc<Object>> {
    let op = Operation::List(ListOptions::default());
    match client.request(ApiRequest::collection(&resources::PODS, "", op)).await.unwrap() {
        Reply::List { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

/// Polls until `done` holds, at most 20 s.
async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_scheduler_of_the_real_api_server_is_recorded() {
    let dir = Dir::new("live");
    let server = ApiServer::builder(Arc::new(icp_store::Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(1))
        .entropy(SystemEntropy::new())
        .options(Options::default())
        .build();
    let admin: Arc<dyn Client> = Arc::new(InProcessClient::new(server.clone()));
    let user = UserInfo { name: "system:kube-scheduler".into(), ..UserInfo::default() };
    let ours: Arc<dyn Client> = Arc::new(InProcessClient::new(server).as_user(user));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let history = dir.0.join("history.jsonl");
    let config = scheduler::Config {
        access: Access { endpoints: Vec::new(), pki: PathBuf::new() },
        identity: "test".into(),
        leader_election: true,
        configuration: None,
        listen_metrics: None,
        record: Some(history.clone()),
    };
    let task = tokio::spawn(async move {
        scheduler::drive(&config, 7, ours, stopped).await.unwrap();
        // Nothing that was recorded is written over.
        let (_, stopped) = tokio::sync::watch::channel(false);
        let ours: Arc<dyn Client> = Arc::new(InProcessClient::new(
            ApiServer::builder(Arc::new(icp_store::Memory::new())).clock(SystemClock).build(),
        ));
        scheduler::drive(&config, 8, ours, stopped).await.unwrap_err()
    });
    let namespace = || async {
        let op = Operation::Get;
        admin.request(ApiRequest::object(&resources::NAMESPACES, "", "default", op)).await.is_ok()
    };
    until("the namespace default is there", namespace).await;
    for n in 0..3 {
        let room = json!({"cpu": "2", "memory": "4Gi", "pods": "110"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("w{n}")},
            "status": {"capacity": room, "allocatable": room}});
        create(&*admin, &resources::NODES, "", node).await;
    }
    for n in 0..20 {
        // Nobody takes the taint of new nodes away here.
        let spec = json!({"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "i:1",
            "resources": {"requests": {"cpu": if n == 7 { "3" } else { "100m" }}}}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{n}"), "namespace": "default"}, "spec": spec});
        create(&*admin, &resources::PODS, "default", pod).await;
    }
    let bound = || async {
        pods(&*admin).await.iter().filter(|p| !p.str_at("/spec/nodeName").is_empty()).count() == 19
    };
    until("all are bound but the one that is too large", bound).await;
    stop.send_replace(true);
    let error = task.await.unwrap().to_string();
    assert!(error.starts_with(&format!("creating the history {}: ", history.display())), "{error}");
    let report = replay_file(&history, None, 10).unwrap();
    assert!(report.is_equal() && report.decisions >= 20, "{report:#?}");
    let text = std::fs::read_to_string(&history).unwrap();
    for pod in pods(&*admin).await {
        let node = pod.str_at("/spec/nodeName");
        let decided = json!({"node": node, "pod": format!("default/{}", pod.metadata.name)}).to_string();
        assert_eq!(text.contains(&decided), !node.is_empty(), "{decided}");
    }
    assert!(text.contains("0/3 nodes are available: 3 Insufficient cpu."), "the reasons are there, too");
}
