//! The wanted end: what must be so when everything works.

use std::collections::BTreeMap;

use icp_core::base::Time;
use icp_core::sim::{HostId, World};
use serde_json::Value;

use super::check::{Checks, DEPLOYMENTS, NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICES};
use super::host::Host;
use super::message::Payload;
use super::store::HostDisk;
use super::truth::text;

/// What a saved trace shows of the store.
pub const SHOWN: [(&str, &str); 6] = [
    (NAMESPACES, "namespace"),
    (NODES, "node"),
    (DEPLOYMENTS, "deployment"),
    (REPLICA_SETS, "replicaset"),
    (PODS, "pod"),
    (SERVICES, "service"),
];

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn ready(value: &Value) -> bool {
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

/// What is not as it should be: the check that says so, and why; `None` if all is well.
#[must_use]
pub fn missing(
    world: &World<Host, HostDisk, Payload>,
    checks: &Checks,
    masters: &[HostId],
    nodes: &[HostId],
) -> Option<(&'static str, String)> {
    let owners: Vec<&str> = masters
        .iter()
        .filter(|h| world.host(**h).and_then(Host::master).is_some_and(super::master::MasterHost::owns))
        .map(|h| world.name(*h))
        .collect();
    if owners.len() != 1 {
        return Some(("one owner of the address", format!("the address is on {owners:?}")));
    }
    objects(checks)
        .or_else(|| orphans(checks))
        .or_else(|| leaders(world, masters))
        .or_else(|| caches(world, checks, masters))
        .or_else(|| zombies(world, checks, nodes))
}

fn objects(checks: &Checks) -> Option<(&'static str, String)> {
    let truth = checks.truth();
    let wrong = |what: String| Some(("converges", what));
    for (key, item) in truth.items(NODES) {
        if !ready(&item.value) {
            return wrong(format!("node {key} is not ready"));
        }
        if item.value.pointer("/spec/taints").and_then(Value::as_array).is_some_and(|t| !t.is_empty()) {
            return wrong(format!("node {key} has taints"));
        }
    }
    for (prefix, kind) in SHOWN {
        for (key, item) in truth.items(prefix) {
            if item.value.pointer("/metadata/deletionTimestamp").is_some() {
                return wrong(format!("{kind} {key} is still to be deleted"));
            }
        }
    }
    for (key, item) in truth.items(DEPLOYMENTS) {
        let v = &item.value;
        let want = v.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        let have = [
            number(v, "/status/replicas"),
            number(v, "/status/updatedReplicas"),
            number(v, "/status/readyReplicas"),
            number(v, "/status/availableReplicas"),
        ];
        if have.iter().any(|h| *h != want)
            || number(v, "/status/observedGeneration") < number(v, "/metadata/generation")
        {
            return wrong(format!(
                "deployment {key} wants {want}, has (all, updated, ready, available) {have:?}"
            ));
        }
    }
    for (key, item) in truth.items(REPLICA_SETS) {
        let want = item.value.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        let uid = text(&item.value, "/metadata/uid");
        let have = truth.items(PODS).filter(|(_, p)| owned_by(&p.value, uid) && running(&p.value)).count();
        if i64::try_from(have).ok() != Some(want) {
            return wrong(format!("replicaset {key} wants {want}, has {have} running pods"));
        }
    }
    endpoints(checks)
}

fn running(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && ready(pod)
}

fn owned_by(value: &Value, uid: &str) -> bool {
    let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|o| text(o, "/uid") == uid)
}

/// Every Service leads to the ready pods that it selects, and to nothing else.
fn endpoints(checks: &Checks) -> Option<(&'static str, String)> {
    let truth = checks.truth();
    for (key, item) in truth.items(SERVICES) {
        let Some(selector) = item.value.pointer("/spec/selector").and_then(Value::as_object) else {
            continue;
        };
        let (namespace, name) = key.split_once('/')?;
        let mut want: Vec<&str> = truth
            .items(PODS)
            .filter(|(_, p)| text(&p.value, "/metadata/namespace") == namespace && running(&p.value))
            .filter(|(_, p)| {
                let labels = p.value.pointer("/metadata/labels");
                selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
            })
            .map(|(_, p)| text(&p.value, "/status/podIP"))
            .collect();
        let slices = truth.items("/registry/discovery.k8s.io/endpointslices/").filter(|(_, s)| {
            text(&s.value, "/metadata/namespace") == namespace
                && text(&s.value, "/metadata/labels/kubernetes.io~1service-name") == name
        });
        let mut have: Vec<&str> = slices
            .flat_map(|(_, s)| s.value.pointer("/endpoints").and_then(Value::as_array).into_iter().flatten())
            .filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool) == Some(true))
            .map(|e| text(e, "/addresses/0"))
            .collect();
        want.sort_unstable();
        have.sort_unstable();
        if want != have {
            return Some(("converges", format!("service {key} leads to {have:?} instead of {want:?}")));
        }
    }
    None
}

/// Nothing is left whose owner is gone.
fn orphans(checks: &Checks) -> Option<(&'static str, String)> {
    let truth = checks.truth();
    let owners = [DEPLOYMENTS, REPLICA_SETS, SERVICES, NODES, PODS];
    let live: std::collections::BTreeSet<&str> = owners
        .into_iter()
        .flat_map(|p| truth.items(p))
        .map(|(_, i)| text(&i.value, "/metadata/uid"))
        .collect();
    for prefix in [REPLICA_SETS, PODS, "/registry/discovery.k8s.io/endpointslices/"] {
        for (key, item) in truth.items(prefix) {
            let of = item.value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            let mut of = of.into_iter().flatten().map(|o| text(o, "/uid")).peekable();
            if of.peek().is_some() && of.all(|uid| !live.contains(uid)) {
                return Some(("no orphan", format!("{prefix}{key}: its owner is gone")));
            }
        }
    }
    None
}

fn leaders(world: &World<Host, HostDisk, Payload>, masters: &[HostId]) -> Option<(&'static str, String)> {
    let up = masters.iter().filter_map(|h| Some((world.host(*h)?.master()?, world.local(*h))));
    let (mut managers, mut schedulers) = (0, 0);
    for (master, now) in up {
        managers += usize::from(master.manager().leading(now).is_some());
        schedulers += usize::from(master.scheduler().leading(now).is_some());
    }
    let fine = managers == 1 && schedulers == 1;
    (!fine).then(|| ("converges", format!("{managers} controller managers and {schedulers} schedulers lead")))
}

/// What the leading manager has seen is what the store holds.
fn caches(
    world: &World<Host, HostDisk, Payload>,
    checks: &Checks,
    masters: &[HostId],
) -> Option<(&'static str, String)> {
    for host in masters {
        let Some(master) = world.host(*host).and_then(Host::master) else { continue };
        if master.manager().leading(world.local(*host)).is_none() {
            continue;
        }
        use icp_core::api::resources as r;
        for (gvr, prefix) in [
            (&r::PODS, PODS),
            (&r::REPLICA_SETS, REPLICA_SETS),
            (&r::DEPLOYMENTS, DEPLOYMENTS),
            (&r::SERVICES, SERVICES),
            (&r::NAMESPACES, NAMESPACES),
        ] {
            let cached: BTreeMap<String, String> = master
                .manager()
                .cache()
                .store(gvr)
                .iter()
                .map(|o| (o.key(), o.metadata.resource_version.clone()))
                .collect();
            let stored: BTreeMap<String, String> =
                checks.truth().items(prefix).map(|(k, i)| (k.clone(), i.revision.to_string())).collect();
            if cached != stored {
                return Some((
                    "converges",
                    format!("the manager's {} differ from the store's", gvr.resource),
                ));
            }
        }
    }
    None
}

/// No container runs whose pod is gone.
fn zombies(
    world: &World<Host, HostDisk, Payload>,
    checks: &Checks,
    nodes: &[HostId],
) -> Option<(&'static str, String)> {
    let pods: std::collections::BTreeSet<&str> =
        checks.truth().items(PODS).map(|(_, p)| text(&p.value, "/metadata/uid")).collect();
    for host in nodes {
        let Some(node) = world.host(*host).and_then(Host::node) else { continue };
        for (uid, _) in node.node().runtime().addresses() {
            if !pods.contains(uid.as_str()) {
                return Some(("no zombie", format!("{} runs pod {uid}, which is gone", world.name(*host))));
            }
        }
    }
    None
}

/// A host in a line.
#[must_use]
pub fn describe(host: Option<&Host>, now: Time) -> String {
    match host {
        None => "is off".into(),
        Some(Host::Store(store)) => format!("store at revision {}", store.store().visible()),
        Some(Host::Master(master)) => format!(
            "master{}, manager {}, scheduler {}, {} requests",
            if master.owns() { " with the address" } else { "" },
            master.manager().leading(now).map_or("follows".into(), |t| format!("leads in term {}", t.0)),
            master.scheduler().leading(now).map_or("follows".into(), |t| format!("leads in term {}", t.0)),
            master.tasks(),
        ),
        Some(Host::Node(node)) => format!("node with {} containers", node.node().runtime().running()),
        Some(Host::User(_)) => "user".into(),
    }
}

/// An object in a line.
#[must_use]
pub fn summary(prefix: &str, value: &Value) -> String {
    let dying = if value.pointer("/metadata/deletionTimestamp").is_some() { " dying" } else { "" };
    let rest = match prefix {
        PODS => format!(
            "{} on {:?} {}{}",
            text(value, "/status/phase"),
            text(value, "/spec/nodeName"),
            text(value, "/status/podIP"),
            if ready(value) { " ready" } else { "" }
        ),
        DEPLOYMENTS | REPLICA_SETS => format!(
            "wants {}, has {}, ready {}, available {}",
            number(value, "/spec/replicas"),
            number(value, "/status/replicas"),
            number(value, "/status/readyReplicas"),
            number(value, "/status/availableReplicas")
        ),
        NODES => format!("ready {}", ready(value)),
        SERVICES => text(value, "/spec/clusterIP").into(),
        _ => text(value, "/status/phase").into(),
    };
    rest + dying
}
