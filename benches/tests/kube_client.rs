//! A controller's tests as they are written elsewhere, with a server that needs no cluster: `kube::Client` on the
//! API server in this process, with typed objects.
#![expect(clippy::expect_used, reason = "test code outside of a test function")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, pin_mut};
use icp_core::base::Rng;
use icp_core::server::{ApiServer, Options};
use icp_core::shell::SystemClock;
use icp_store::Memory;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client};
use serde_json::json;

/// How long a test waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn client() -> Client {
    let options = Options { bookmark_every: icp_core::base::Duration::from_millis(50), ..Options::default() };
    let api = ApiServer::builder(Arc::new(Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(7))
        .options(options)
        .build();
    Client::new(api, "default")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".into(), value.into())])),
        ..ConfigMap::default()
    }
}

async fn next<K>(events: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin)) -> WatchEvent<K> {
    tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("more")
        .expect("an event")
}

#[tokio::test]
async fn objects_live_and_die() {
    let client = client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(maps.get("a").await.unwrap(), made);
    assert_eq!(maps.get_opt("b").await.unwrap(), None);

    let again = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    let kube::Error::Api(status) = again else { panic!("{again}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(status.message, r#"configmaps "a" already exists"#);

    // A replace with the version that was read succeeds once.
    let mut newer = made.clone();
    newer.data = Some(BTreeMap::from([("key".into(), "2".into())]));
    let replaced = maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, made.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &newer).await.unwrap_err();
    let kube::Error::Api(status) = stale else { panic!("{stale}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));

    let patch = Patch::Merge(json!({ "metadata": { "labels": { "tier": "web" } }, "data": { "key": "3" } }));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap().get("key").map(String::as_str), Some("3"));
    maps.create(&PostParams::default(), &config_map("b", "1")).await.unwrap();
    let found = maps.list(&ListParams::default().labels("tier=web")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(maps.list(&ListParams::default().fields("metadata.name=b")).await.unwrap().items.len(), 1);
    let page = maps.list(&ListParams::default().limit(1)).await.unwrap();
    let rest = ListParams::default().limit(1).continue_token(&page.metadata.continue_.unwrap());
    assert_ne!(maps.list(&rest).await.unwrap().items.first(), page.items.first());
    assert_eq!(maps.list_metadata(&ListParams::default()).await.unwrap().items.len(), 2);

    let gone = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(gone.right().expect("a status").code, 200);
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
}

#[tokio::test]
async fn defaults_and_subresources_are_those_of_a_cluster() {
    let client = client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop: Namespace = serde_json::from_value(json!({ "metadata": { "name": "shop" } })).unwrap();
    let shop = namespaces.create(&PostParams::default(), &shop).await.unwrap();
    assert_eq!(shop.status.unwrap().phase.as_deref(), Some("Active"));

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shop");
    let web: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "web:1" }] },
            },
        },
    }))
    .unwrap();
    let web = deployments.create(&PostParams::default(), &web).await.unwrap();
    assert_eq!(web.metadata.generation, Some(1));
    let spec = web.spec;
    assert_eq!((spec.replicas, spec.revision_history_limit), (Some(1), Some(10)));
    assert_eq!(spec.strategy.unwrap().type_.as_deref(), Some("RollingUpdate"));

    let scale = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    deployments.patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    let status =
        Patch::Merge(json!({ "spec": { "replicas": 9 }, "status": { "readyReplicas": 2, "replicas": 3 } }));
    let web = deployments.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(web.spec.replicas, Some(3), "a status patch leaves the spec alone");
    assert_eq!(web.status.unwrap().ready_replicas, Some(2));
    assert_eq!(web.metadata.generation, Some(2));

    let strategic = Patch::Strategic(json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "c", "env": [{ "name": "A", "value": "1" }] },
    ] } } } }));
    let web = deployments.patch("web", &PatchParams::default(), &strategic).await.unwrap();
    let containers = web.spec.template.spec.unwrap().containers;
    assert_eq!(containers.len(), 1);
    assert_eq!(containers.first().and_then(|c| c.image.as_deref()), Some("web:1"));

    let pods: Api<Pod> = Api::namespaced(client, "shop");
    let bad: Pod = serde_json::from_value(json!({
        "metadata": { "name": "Bad_Name" }, "spec": { "containers": [] },
    }))
    .unwrap();
    let error = pods.create(&PostParams::default(), &bad).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let fields: Vec<String> = status.details.unwrap().causes.into_iter().map(|c| c.field).collect();
    assert!(
        fields.contains(&"metadata.name".into()) && fields.contains(&"spec.containers".into()),
        "{fields:?}"
    );
}

#[tokio::test]
async fn configurations_are_applied() {
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    let apply = |manager: &str, force: bool| {
        let params = PatchParams::apply(manager);
        if force { params.force() } else { params }
    };
    let mine = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "key": "1", "old": "1" },
    }));
    maps.patch("a", &apply("mine", false), &mine).await.unwrap();
    let theirs = Patch::Apply(json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "key": "2" } }));
    let conflict = maps.patch("a", &apply("theirs", false), &theirs).await.unwrap_err();
    let kube::Error::Api(status) = conflict else { panic!("{conflict}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, r#"Apply failed with 1 conflict: conflict with "mine": .data.key"#);
    let forced = maps.patch("a", &apply("theirs", true), &theirs).await.unwrap();
    let managers: Vec<String> =
        forced.metadata.managed_fields.unwrap().into_iter().filter_map(|m| m.manager).collect();
    assert_eq!(managers, ["mine", "theirs"]);
    // What its only owner no longer says goes.
    let less = Patch::Apply(json!({ "apiVersion": "v1", "kind": "ConfigMap" }));
    let left = maps.patch("a", &apply("mine", false), &less).await.unwrap();
    assert_eq!(left.data.unwrap(), BTreeMap::from([("key".to_string(), "2".to_string())]));
}

#[tokio::test]
async fn a_watch_tells_changes_and_bookmarks() {
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let only = WatchParams::default().labels("watched=yes");
    let events = maps.watch(&only, &version).await.unwrap();
    pin_mut!(events);

    let mut seen = config_map("seen", "1");
    seen.metadata.labels = Some(BTreeMap::from([("watched".into(), "yes".into())]));
    maps.create(&PostParams::default(), &config_map("unseen", "1")).await.unwrap();
    maps.create(&PostParams::default(), &seen).await.unwrap();
    let change = Patch::Merge(json!({ "data": { "key": "2" } }));
    let changed = maps.patch("seen", &PatchParams::default(), &change).await.unwrap();
    // Who no longer matches is gone for the watcher.
    let relabel = Patch::Merge(json!({ "metadata": { "labels": { "watched": "no" } } }));
    let relabelled = maps.patch("seen", &PatchParams::default(), &relabel).await.unwrap();

    let (mut told, mut last_bookmark) = (Vec::new(), None);
    while told.len() < 3 || last_bookmark.is_none() {
        match next(&mut events).await {
            WatchEvent::Added(m) => told.push(("added", m.metadata.resource_version)),
            WatchEvent::Modified(m) => told.push(("modified", m.metadata.resource_version)),
            WatchEvent::Deleted(m) => told.push(("deleted", m.metadata.resource_version)),
            WatchEvent::Bookmark(b) => last_bookmark = Some(b.metadata.resource_version),
            WatchEvent::Error(e) => panic!("{e:?}"),
        }
    }
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["added", "modified", "deleted"]);
    assert_eq!(told.get(1).unwrap().1, changed.metadata.resource_version);
    assert_eq!(told.get(2).unwrap().1, relabelled.metadata.resource_version);

    // A watch from a bookmark misses nothing and repeats nothing.
    let from = last_bookmark.unwrap();
    let made = maps.create(&PostParams::default(), &config_map("later", "1")).await.unwrap();
    let events = maps.watch(&WatchParams::default(), &from).await.unwrap();
    pin_mut!(events);
    loop {
        match next(&mut events).await {
            WatchEvent::Added(m) if m.metadata.name == made.metadata.name => break,
            // The bookmark may be older than the last change of the other object.
            WatchEvent::Modified(_) | WatchEvent::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
    }
    let events = maps.watch(&WatchParams::default().initial_events(), "0").await.unwrap();
    pin_mut!(events);
    let mut names = Vec::new();
    loop {
        match next(&mut events).await {
            WatchEvent::Added(m) => names.push(m.metadata.name.unwrap()),
            WatchEvent::Bookmark(b) if b.metadata.annotations.contains_key("k8s.io/initial-events-end") => {
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["a", "b"]);
}
