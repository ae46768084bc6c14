use alloc::string::{String, ToString};
use alloc::sync::Arc;

use icp_core::api::Object;
use serde_json::json;

use super::*;
use crate::Scheduler;
use crate::model::{Claim, Node, Pod, StorageCapacity, StorageClass, Volume};
use crate::plugins::Shape;

fn object(value: serde_json::Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, volumes: serde_json::Value) -> Pod {
    Pod::from_object(&object(json!({"metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [], "volumes": volumes}})))
    .unwrap()
}

fn with_claim(name: &str, claim: &str) -> Pod {
    pod(name, json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]))
}

fn scheduler() -> Scheduler {
    let mut s = Scheduler::default();
    for (name, zone) in [("n0", "a"), ("n1", "b")] {
        let node = Node::new(name, 1000, 1 << 30, 10).with_label("topology.kubernetes.io/zone", zone);
        s.cluster_mut().set_node(node);
    }
    s
}

fn claim(s: &mut Scheduler, name: &str, spec: serde_json::Value, bound: bool) {
    let mut o = object(json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec}));
    if bound {
        o.metadata.annotations.insert("pv.kubernetes.io/bind-completed".into(), "yes".into());
    }
    let key = ObjectKey::of(&o);
    s.cluster_mut().storage_mut().claims.insert(key, Claim::from_object(&o));
}

fn volume(s: &mut Scheduler, name: &str, spec: serde_json::Value, labels: serde_json::Value) {
    let o = object(json!({"metadata": {"name": name, "labels": labels}, "spec": spec}));
    s.cluster_mut().storage_mut().volumes.insert(name.into(), Volume::from_object(&o));
}

fn class(s: &mut Scheduler, name: &str, rest: serde_json::Value) {
    let mut value = json!({"metadata": {"name": name}});
    value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    s.cluster_mut().storage_mut().classes.insert(name.into(), StorageClass::from_object(&object(value)));
}

fn placed(s: &mut Scheduler, p: &Pod) -> Result<String, String> {
    s.schedule(p).map(|p| p.name).map_err(|e| e.to_string())
}

#[test]
fn claims_that_nobody_can_use() {
    let mut s = scheduler();
    let p = with_claim("p", "c");
    let none = |why: &str| Err(alloc::format!("0/2 nodes are available: {why}."));
    assert_eq!(placed(&mut s, &p), none("persistentvolumeclaim \"c\" not found"));
    claim(&mut s, "c", json!({}), false);
    assert_eq!(placed(&mut s, &p), none("pod has unbound immediate PersistentVolumeClaims"));
    claim(&mut s, "c", json!({"volumeName": "pv"}), true);
    assert_eq!(
        placed(&mut s, &p),
        none("2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
    );
}

#[test]
fn volumes_pull_pods_to_their_place() {
    let mut s = scheduler();
    claim(&mut s, "c", json!({"volumeName": "pv"}), true);
    let on_n1 = json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
        [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}});
    volume(&mut s, "pv", json!({"nodeAffinity": on_n1}), json!({}));
    assert_eq!(placed(&mut s, &with_claim("p", "c")).as_deref(), Ok("n1"));
    volume(&mut s, "pv", json!({}), json!({"topology.kubernetes.io/zone": "x__a"}));
    assert_eq!(placed(&mut s, &with_claim("p", "c")).as_deref(), Ok("n0"));
}

#[test]
fn volumes_are_found_or_made_for_the_node() {
    let mut s = scheduler();
    class(
        &mut s,
        "local",
        json!({"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    let ask = json!({"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    claim(&mut s, "c", ask, false);
    let p = with_claim("p", "c");
    assert!(
        placed(&mut s, &p)
            .unwrap_err()
            .contains("2 node(s) didn't find available persistent volumes to bind")
    );
    for (name, size, node) in [("small", "1Mi", "n0"), ("large", "9Gi", "n1"), ("right", "2Gi", "n1")] {
        let there = json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
        let spec = json!({"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "nodeAffinity": there});
        volume(&mut s, name, spec, json!({}));
    }
    assert_eq!(placed(&mut s, &p).as_deref(), Ok("n1"));
    let n1 = s.cluster().node_id("n1").and_then(|id| s.cluster().node(id)).cloned().unwrap();
    let keep = Preparation::Keep { volume: "right".into(), claim: ObjectKey::new("d", "c") };
    assert_eq!(preparations(s.cluster(), &p.spec, &n1), Ok(alloc::vec![keep]));
    class(
        &mut s,
        "made",
        json!({"provisioner": "x.example.com", "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["a"]}]}]}),
    );
    claim(&mut s, "c", json!({"storageClassName": "made"}), false);
    assert_eq!(placed(&mut s, &p).as_deref(), Ok("n0"));
}

#[test]
fn one_writer_one_pod_and_no_more_than_the_driver_takes() {
    let mut s = scheduler();
    let disk = |name: &str, read: bool| {
        pod(name, json!([{"name": "v", "gcePersistentDisk": {"pdName": "d", "readOnly": read}}]))
    };
    let n0 = s.cluster().node_id("n0").unwrap();
    s.assume(disk("a", false), n0);
    assert_eq!(placed(&mut s, &disk("b", true)).as_deref(), Ok("n1"));
    s.cluster_mut().remove_pod(&ObjectKey::new("d", "a"));
    s.assume(disk("a", true), n0);
    assert!(
        s.explain(&disk("b", true))
            .nodes
            .iter()
            .all(|n| matches!(n.verdict, crate::framework::Verdict::Feasible { .. }))
    );

    claim(&mut s, "once", json!({"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}), true);
    volume(&mut s, "pv", json!({"csi": {"driver": "x", "volumeHandle": "h"}}), json!({}));
    s.assume(with_claim("c", "once"), n0);
    assert!(placed(&mut s, &with_claim("d", "once")).unwrap_err().contains("ReadWriteOncePod"));

    s.cluster_mut().storage_mut().limits.insert(("n0".into(), "x".into()), 1);
    claim(&mut s, "more", json!({"volumeName": "pv2"}), true);
    volume(&mut s, "pv2", json!({"csi": {"driver": "x", "volumeHandle": "h2"}}), json!({}));
    assert_eq!(placed(&mut s, &with_claim("e", "more")).as_deref(), Ok("n1"));
    let inline = pod("f", json!([{"name": "v", "csi": {"driver": "x"}}]));
    assert_eq!(placed(&mut s, &inline).as_deref(), Ok("n1"));
    assert_eq!(Arc::strong_count(&inline.spec), 1);
}

#[test]
fn drivers_that_count_their_storage() {
    let mut s = scheduler();
    class(
        &mut s,
        "lvm",
        json!({"provisioner": "lvm.example.com", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    let ask = json!({"storageClassName": "lvm", "resources": {"requests": {"storage": "4Gi"}}});
    claim(&mut s, "c", ask, false);
    let p = with_claim("p", "c");
    let free = |s: &mut Scheduler, zone: &str, bytes: &str, max: Option<&str>| {
        let mut value = json!({"metadata": {"name": zone, "namespace": "d"}, "storageClassName": "lvm", "capacity": bytes,
            "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": zone}}});
        if let Some(max) = max {
            value["maximumVolumeSize"] = json!(max);
        }
        let o = object(value);
        s.cluster_mut().storage_mut().capacities.insert(ObjectKey::of(&o), StorageCapacity::from_object(&o));
    };
    free(&mut s, "a", "1Gi", None);
    free(&mut s, "b", "8Gi", None);
    // Nobody keeps count: the first node will do.
    assert_eq!(placed(&mut s, &p).as_deref(), Ok("n0"));
    s.cluster_mut().storage_mut().capacity_drivers.insert("lvm.example.com".into());
    assert_eq!(placed(&mut s, &p).as_deref(), Ok("n1"));
    free(&mut s, "b", "8Gi", Some("2Gi"));
    let why = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    assert_eq!(placed(&mut s, &p), Err(why.into()));

    free(&mut s, "a", "16Gi", None);
    free(&mut s, "b", "5Gi", None);
    // 25 % of one and 80 % of the other.
    for (shape, want) in [([(0, 0), (100, 10)], [25, 80]), ([(0, 10), (100, 0)], [75, 20])] {
        let plugin = VolumeBinding::scoring(Shape::new(&shape));
        let cycle = crate::framework::Cycle { pod: &p.spec, cluster: s.cluster(), node_name: None };
        let nodes = ["n0", "n1"].map(|n| s.cluster().node_id(n).unwrap());
        assert_eq!(crate::framework::Plugin::score(&plugin, &cycle, &nodes), Some(want.into()));
    }
}
