//! Objects that no sane client sends: they are refused with the field, or the pod stays with a reason; nothing panics.

use icp_core::api::Object;
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::model::{Claim, Node, Pod, StorageCapacity, StorageClass, Volume};
use icp_sched::{Scheduler, TieBreak};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Amounts: usual, negative, huge, and nonsense.
fn amount() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!("1"),
        json!("500m"),
        json!("2Gi"),
        json!("0"),
        json!("-1"),
        json!("-9223372036854775808"),
        json!("9e18"),
        json!("9223372036854775807"),
        json!("100E"),
        json!("1n"),
        json!(7),
        json!(-3),
        json!(""),
        json!("x"),
        json!(null),
        json!({}),
        json!("1e-9"),
        json!("8Ei"),
    ])
}

fn resources() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "cpu",
        "memory",
        "ephemeral-storage",
        "pods",
        "example.com/gpu",
        "hugepages-2Mi",
        "nonsense",
        "",
        "/",
        "a/b/c",
    ]);
    prop::collection::btree_map(name, amount(), 0..5)
        .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.into(), v)).collect()))
}

fn labels() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "app",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "rack",
        "",
        "-",
    ]);
    let value = prop::sample::select(vec!["web", "a", "b", "", "5", "-9999999999999999999"]);
    prop_oneof![
        4 => prop::collection::btree_map(key, value, 0..4)
            .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.into(), v.into())).collect())),
        1 => Just(Value::Null),
    ]
}

fn selector() -> impl Strategy<Value = Value> {
    let op = prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Like", ""]);
    let values = prop::collection::vec(prop::sample::select(vec!["web", "a", "5", "x y"]), 0..3);
    let key = prop::sample::select(vec!["app", "rack", "", "metadata.name"]);
    let expression = (key, op, values).prop_map(|(k, o, v)| json!({"key": k, "operator": o, "values": v}));
    (labels(), prop::collection::vec(expression, 0..3))
        .prop_map(|(l, e)| json!({"matchLabels": l, "matchExpressions": e}))
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack", "nowhere", ""])
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        Just(json!(1e300)),
        Just(Value::Null),
    ]
}

fn spread() -> impl Strategy<Value = Value> {
    let when = prop::sample::select(vec!["DoNotSchedule", "ScheduleAnyway", "Perhaps"]);
    (number(), key(), when, selector(), number(), prop::sample::select(vec!["Honor", "Ignore", "?"])).prop_map(
        |(skew, key, when, selector, min, policy)| {
            json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector,
                "minDomains": min, "nodeAffinityPolicy": policy, "nodeTaintsPolicy": policy, "matchLabelKeys": ["app", ""]})
        },
    )
}

fn term() -> impl Strategy<Value = Value> {
    (key(), selector(), prop::option::of(selector())).prop_map(|(key, selector, namespaces)| {
        json!({"topologyKey": key, "labelSelector": selector, "namespaceSelector": namespaces, "namespaces": ["d", ""],
            "matchLabelKeys": ["app"], "mismatchLabelKeys": ["app"]})
    })
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn affinity() -> impl Strategy<Value = Value> {
    let terms = || prop::collection::vec(term(), 0..3);
    let weighted = (number(), term()).prop_map(|(w, t)| json!({"weight": w, "podAffinityTerm": t})).boxed();
    let weighted = || prop::collection::vec(weighted.clone(), 0..2);
    let node = prop::collection::vec(selector(), 0..3);
    let preferred = (number(), selector()).prop_map(|(w, s)| json!({"weight": w, "preference": s}));
    (terms(), terms(), weighted(), weighted(), node, prop::collection::vec(preferred, 0..2)).prop_map(
        |(with, without, rather, rather_not, nodes, preferred)| {
            json!({"podAffinity": {REQUIRED: with, PREFERRED: rather}, "podAntiAffinity": {REQUIRED: without, PREFERRED: rather_not},
                "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": nodes}, PREFERRED: preferred}})
        },
    )
}

fn claim_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["c0", "c1", "gone", ""])
}

fn pod() -> impl Strategy<Value = Value> {
    let container = (resources(), number()).prop_map(|(r, port)| {
        json!({"name": "c", "image": ":/", "resources": {"requests": r}, "ports": [{"hostPort": port}]})
    })
    .boxed();
    let containers = || prop::collection::vec(container.clone(), 0..3);
    let volume = claim_name().prop_map(|c| json!({"name": "v", "persistentVolumeClaim": {"claimName": c}}));
    let toleration =
        prop::sample::select(vec![json!({}), json!({"operator": "Exists"}), json!({"effect": "Never"})]);
    let parts = (labels(), containers(), containers(), resources(), prop::option::weighted(0.6, affinity()));
    let rest = (
        prop::collection::vec(spread(), 0..3),
        prop::collection::vec(volume, 0..3),
        number(),
        labels(),
        prop::collection::vec(toleration, 0..2),
        any::<bool>(),
    );
    (parts, rest).prop_map(|((labels, init, containers, overhead, affinity), (spread, volumes, priority, node, tolerations, many))| {
        let spread: Vec<Value> = if many { spread.iter().cycle().take(spread.len() * 40).cloned().collect() } else { spread };
        json!({"metadata": {"labels": labels}, "spec": {"initContainers": init, "containers": containers, "overhead": overhead,
            "affinity": affinity, "topologySpreadConstraints": spread, "volumes": volumes, "priority": priority,
            "nodeSelector": node, "tolerations": tolerations, "resources": {"requests": overhead}}})
    })
}

fn node() -> impl Strategy<Value = Value> {
    let taint = prop::sample::select(vec![
        json!({}),
        json!({"key": "a", "effect": "NoSchedule"}),
        json!({"effect": "?"}),
    ]);
    let image = (number()).prop_map(|n| json!({"names": [":", ":latest", ""], "sizeBytes": n}));
    (labels(), resources(), prop::collection::vec(taint, 0..2), prop::collection::vec(image, 0..2)).prop_map(
        |(labels, room, taints, images)| {
            json!({"metadata": {"labels": labels}, "spec": {"taints": taints}, "status": {"allocatable": room, "images": images}})
        },
    )
}

/// A claim, a volume and a class that name each other, themselves, or nobody.
fn storage() -> impl Strategy<Value = (Value, Value, Value, Value)> {
    let class = || prop::sample::select(vec!["s", "gone", ""]);
    let volume = prop::sample::select(vec!["v", "gone", ""]);
    let bound = any::<bool>();
    let claim = (volume, class(), amount(), bound).prop_map(|(v, s, a, bound)| {
        let annotations = if bound { json!({"pv.kubernetes.io/bind-completed": "yes"}) } else { json!({}) };
        json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": v, "storageClassName": s,
            "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": a}}}})
    });
    let volume = (claim_name(), class(), amount(), selector()).prop_map(|(c, s, a, terms)| {
        json!({"spec": {"claimRef": {"name": c, "namespace": "d"}, "storageClassName": s, "capacity": {"storage": a},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [terms, {}]}}, "csi": {"driver": "x"}}})
    });
    let class =
        (prop::sample::select(vec!["x", "", "kubernetes.io/no-provisioner"]), any::<bool>(), selector())
            .prop_map(|(p, waits, terms)| {
                let mode = if waits { "WaitForFirstConsumer" } else { "Immediate" };
                json!({"provisioner": p, "volumeBindingMode": mode, "allowedTopologies": [terms, {}, 5]})
            });
    let capacity = (amount(), amount(), selector())
        .prop_map(|(a, max, nodes)| json!({"storageClassName": "s", "capacity": a, "maximumVolumeSize": max, "nodeTopology": nodes}));
    (claim, volume, class, capacity)
}

/// The object of that name; `None` if the generic part is malformed already.
fn object(mut value: Value, name: &str) -> Option<Object> {
    let meta = value.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    for (field, text) in [("name", name), ("namespace", "d"), ("uid", name)] {
        meta.insert(field.into(), text.into());
    }
    serde_json::from_value(value).ok()
}

/// `ICP_DEEP=N` tries N cases.
#[expect(clippy::disallowed_methods, reason = "a test that is asked for by a variable")]
fn cases() -> u32 {
    std::env::var("ICP_DEEP").ok().and_then(|v| v.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn nothing_panics_and_every_refusal_has_a_reason(
        nodes in prop::collection::vec(node(), 0..5),
        pods in prop::collection::vec(pod(), 1..8),
        storage in storage(),
        percentage in 0..=100_u8,
    ) {
        let ties = TieBreak::Seeded(Rng::new(1));
        let mut s = Scheduler::builder().ties(ties.clone()).percentage_of_nodes(percentage).build();
        let mut slow = Scheduler::builder().ties(ties).exhaustive().build();
        for s in [&mut s, &mut slow] {
            for (i, node) in nodes.iter().enumerate() {
                match object(node.clone(), &format!("n{i}")).map(|o| Node::from_object(&o)) {
                    Some(Ok(node)) => {
                        s.cluster_mut().set_node(node);
                    }
                    Some(Err(e)) => prop_assert!(e.to_string().contains(&format!("n{i}: ")), "{e}"),
                    None => {}
                }
            }
            let (claim, volume, class, capacity) = &storage;
            let known = s.cluster_mut().storage_mut();
            for name in ["c0", "c1"] {
                known.claims.extend(object(claim.clone(), name).map(|o| (ObjectKey::of(&o), Claim::from_object(&o))));
            }
            known.volumes.extend(object(volume.clone(), "v").map(|o| ("v".into(), Volume::from_object(&o))));
            known.classes.extend(object(class.clone(), "s").map(|o| ("s".into(), StorageClass::from_object(&o))));
            known.capacities.extend(object(capacity.clone(), "k").map(|o| (ObjectKey::of(&o), StorageCapacity::from_object(&o))));
            known.capacity_drivers.insert("x".into());
            known.limits.insert(("n0".into(), "x".into()), i64::MIN);
        }
        for (i, pod) in pods.iter().enumerate() {
            let Some(object) = object(pod.clone(), &format!("p{i}")) else { continue };
            let pod = match Pod::from_object(&object) {
                Ok(pod) => pod,
                Err(e) => {
                    prop_assert!(e.to_string().contains(&format!("p{i}: ")), "{e}");
                    Pod::opaque(&object)
                }
            };
            let explanation = s.explain(&pod);
            match (s.schedule(&pod), slow.schedule(&pod)) {
                (Ok(placement), Ok(same)) => {
                    prop_assert_eq!(&placement.name, &same.name);
                    prop_assert!(explanation.best().contains(&placement.name.as_str()));
                    s.assume(pod.clone(), placement.node);
                    slow.assume(pod, same.node);
                }
                (Err(none), Err(same)) => {
                    prop_assert!(!none.message.is_empty());
                    prop_assert_eq!(&none.message, &same.message);
                    prop_assert_eq!(s.preempt(&pod, &none).map(|p| p.name), slow.preempt(&pod, &same).map(|p| p.name));
                }
                (a, b) => prop_assert!(false, "{a:?} is not {b:?}"),
            }
        }
    }
}
