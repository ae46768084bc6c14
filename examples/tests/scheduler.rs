//! The machine under a host against the real API server, in this process, with the rights of kube-scheduler.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use icp_core::api::{Gvr, Object, resources};
use icp_core::base::Rng;
use icp_core::client::{ApiRequest, Client, LeaderElectorConfig, ListOptions, Operation, PatchKind, Reply};
use icp_core::server::{ApiServer, InProcessClient, Options, UserInfo};
use icp_core::shell::host::Host;
use icp_core::shell::{SystemClock, SystemEntropy};
use icp_sched::machine::{Event, SchedulerConfig, SchedulerMachine};
use serde_json::{Value, json};

async fn create(client: &dyn Client, gvr: &Gvr, namespace: &str, object: Value) {
    let object: Object = serde_json::from_value(object).unwrap();
    let request = ApiRequest::collection(gvr, namespace, Operation::Create(Arc::new(object)));
    client.request(request).await.unwrap();
}

async fn list(client: &dyn Client, gvr: &Gvr) -> Vec<Arc<Object>> {
    let request = ApiRequest::collection(gvr, "", Operation::List(ListOptions::default()));
    match client.request(request).await.unwrap() {
        Reply::List { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

fn pod(name: &str, cpu: &str, class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"priorityClassName": class, "containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}}]}})
}

/// Polls until `done` holds, at most 20 s.
async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    #[expect(clippy::disallowed_methods, reason = "a test that polls with a deadline")]
    let end = Instant::now() + Duration::from_secs(20);
    while !done().await {
        #[expect(clippy::disallowed_methods, reason = "a test that polls with a deadline")]
        let late = Instant::now() > end;
        assert!(!late, "{what}");
        #[expect(clippy::disallowed_methods, reason = "a test that polls with a deadline")]
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn pods_get_nodes_from_the_real_api_server() {
    let server = ApiServer::builder(Arc::new(icp_store::Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(1))
        .entropy(SystemEntropy::new())
        .options(Options::default())
        .build();
    let admin: Arc<dyn Client> = Arc::new(InProcessClient::new(server.clone()));
    let user = UserInfo { name: "system:kube-scheduler".into(), ..UserInfo::default() };
    let ours: Arc<dyn Client> = Arc::new(InProcessClient::new(server).as_user(user));

    until("the namespace default is there", || async {
        list(&*admin, &resources::NAMESPACES).await.iter().any(|n| n.metadata.name == "default")
    })
    .await;
    let election = LeaderElectorConfig::new("kube-system", "kube-scheduler", "test_1");
    let config = SchedulerConfig { leader_election: Some(election), ..SchedulerConfig::default() };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let host = Host::new(SchedulerMachine::new(config, Rng::new(1)), ours).stop_when(stopped);
    let mailbox = host.mailbox();
    #[expect(clippy::disallowed_methods, reason = "a test owns its runtime")]
    let task = tokio::spawn(host.run(|effect, _| effect.try_into().ok()));
    assert!(mailbox.send(Event::Start).await);

    create(
        &*admin,
        &resources::NODES,
        "",
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w1"},
        "status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
        "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}}),
    )
    .await;
    create(&*admin, &resources::PODS, "default", pod("a", "1500m", "")).await;
    let admin: &dyn Client = &*admin;
    let pods = || list(admin, const { &resources::PODS });
    let find = |pods: Vec<Arc<Object>>, name: &str| pods.into_iter().find(|p| p.metadata.name == name);
    let bound = |name: &'static str| async move {
        find(pods().await, name).is_some_and(|p| p.str_at("/spec/nodeName") == "w1")
    };
    let condition = |p: &Object, field: &str| {
        let list = p.at("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let ours = list.into_iter().find(|c| c.get("type") == Some(&json!("PodScheduled")));
        ours.and_then(|c| Some(c.get(field)?.as_str()?.to_string())).unwrap_or_default()
    };
    // A new node is not ready until its agent says so; then the node lifecycle controller takes the taint away.
    until("the pod waits for a ready node", || async {
        find(pods().await, "a")
            .is_some_and(|p| condition(&p, "message").contains("node.kubernetes.io/not-ready"))
    })
    .await;
    let body = json!({"spec": {"taints": null}});
    let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
    admin.request(ApiRequest::object(&resources::NODES, "", "w1", op)).await.unwrap();
    until("a is bound", || bound("a")).await;

    create(admin, &resources::PODS, "default", pod("b", "1", "")).await;
    until("b is told that there is no room", || async {
        find(pods().await, "b").is_some_and(|p| {
            condition(&p, "message").starts_with("0/1 nodes are available: 1 Insufficient cpu.")
        })
    })
    .await;
    let a = find(pods().await, "a").unwrap();
    assert_eq!(condition(&a, "status"), "True", "{a:?}");

    let high = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 100});
    create(admin, &resources::PRIORITY_CLASSES, "", high).await;
    create(admin, &resources::PODS, "default", pod("c", "1", "high")).await;
    until("c takes the place of a", || async {
        let gone = find(pods().await, "a").is_none_or(|p| p.is_terminating());
        let c = find(pods().await, "c");
        gone && c.is_some_and(|p| {
            p.str_at("/status/nominatedNodeName") == "w1" || p.str_at("/spec/nodeName") == "w1"
        })
    })
    .await;
    let told = |reason: &'static str| async move {
        list(admin, const { &resources::EVENTS }).await.iter().any(|e| e.str_at("/reason") == reason)
    };
    for reason in ["Scheduled", "FailedScheduling", "Preempted"] {
        until(reason, || told(reason)).await;
    }
    stop.send_replace(true);
    task.await.unwrap();
}
