//! The invariants that are checked after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use icp_core::api::{Quantity, table};
use icp_core::client::{ApiError, ApiRequest, Operation, Reply, WatchEvent, WatchKind};
use icp_core::sim::Counts;
use icp_store::mvcc::Commit;
use serde_json::Value;

use super::message::{Component, Seen, Stamp};
use super::truth::{Change, Filter, Truth, digest, text};

/// The prefix of pods.
pub const PODS: &str = "/registry/pods/";
/// The prefix of nodes.
pub const NODES: &str = "/registry/nodes/";
/// The prefix of Services.
pub const SERVICES: &str = "/registry/services/";
/// The prefix of namespaces.
pub const NAMESPACES: &str = "/registry/namespaces/";
/// The prefix of deployments.
pub const DEPLOYMENTS: &str = "/registry/apps/deployments/";
/// The prefix of ReplicaSets.
pub const REPLICA_SETS: &str = "/registry/apps/replicasets/";

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check says so.
    pub check: &'static str,
    /// What it saw.
    pub detail: String,
}

struct Watch {
    prefix: String,
    filter: Filter,
    /// Up to which revision it has been told everything.
    told: i64,
}

#[derive(Default)]
struct Load {
    cpu: i64,
    memory: i64,
    pods: i64,
}

/// What all checks need to know.
#[derive(Default)]
pub struct Checks {
    truth: Truth,
    made: Counts,
    violation: Option<Violation>,
    acknowledged: i64,
    watches: BTreeMap<u64, Watch>,
    loads: BTreeMap<String, Load>,
    /// What a pod counts for, by uid.
    counted: BTreeMap<String, (String, i64, i64)>,
    bound: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
    service_addresses: BTreeMap<String, String>,
    uids: BTreeSet<String>,
    terms: BTreeMap<Component, u32>,
    /// Writes by resource since the last call of [`Checks::take_writes`], but for heartbeats.
    writes: Vec<String>,
}

impl Checks {
    /// What the store holds.
    #[must_use]
    pub const fn truth(&self) -> &Truth {
        &self.truth
    }

    /// How many checks were made, by kind.
    #[must_use]
    pub const fn made(&self) -> &Counts {
        &self.made
    }

    /// The first rule that was broken.
    #[must_use]
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Takes what was written since the last call, but for heartbeats and Events.
    pub fn take_writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.writes)
    }

    /// Counts a check, and keeps what it found if it is the first.
    pub fn check(&mut self, check: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        self.made.add(check);
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { check, detail: detail() });
        }
    }

    /// Takes what a host saw.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Committed { commit, stamp } => self.commit(&commit, stamp),
            Seen::Recovered { commits, compacted, revision } => self.recovered(&commits, compacted, revision),
            Seen::Acknowledged(revision) => self.acknowledged = self.acknowledged.max(revision),
            Seen::Read { acknowledged, revision } => {
                self.check("read is fresh", revision >= acknowledged, || {
                    format!("a read saw revision {revision} after {acknowledged} was acknowledged")
                });
            }
            Seen::Answered { request, result } => self.answered(&request, &result),
            Seen::WatchOpened { watch, request } => self.opened(watch, &request),
            Seen::Watched { watch, event } => self.watched(watch, &event),
            Seen::WatchOver { watch } => {
                self.watches.remove(&watch);
            }
            Seen::Checked(check) => self.made.add(check),
            Seen::Wrong(check, what) => self.check(check, false, || what),
        }
    }

    // ---- the store ------------------------------------------------------------------------------------------

    fn recovered(&mut self, commits: &[Arc<Commit>], compacted: i64, revision: i64) {
        let (head, acknowledged) = (self.truth.head(), self.acknowledged);
        self.check("acknowledged write survives", revision >= acknowledged.max(head), || {
            format!("the store came back at revision {revision}; {acknowledged} was acknowledged, {head} was shown")
        });
        for commit in commits.iter().filter(|c| c.revision > compacted) {
            match self.truth.digest(commit.revision) {
                Some(known) => {
                    let same = known == digest(commit);
                    self.check("acknowledged write survives", same, || {
                        format!("revision {} holds something else than before", commit.revision)
                    });
                }
                // It was on the disk when the store died, before anybody was told.
                None => self.commit(commit, Stamp::default()),
            }
        }
    }

    fn commit(&mut self, commit: &Commit, stamp: Stamp) {
        let head = self.truth.head();
        self.check("revisions increase by one", head == 0 || commit.revision == head + 1, || {
            format!("revision {} follows {head}", commit.revision)
        });
        if stamp.term > 0 {
            let newest = self.terms.entry(stamp.component).or_default();
            *newest = (*newest).max(stamp.term);
            let newest = *newest;
            self.check("terms in order", stamp.term == newest, || {
                format!(
                    "revision {}: a write of the {} of host {} in term {} took effect after one of term {}: {}",
                    commit.revision,
                    stamp.component.name(),
                    stamp.host,
                    stamp.term - 1,
                    newest - 1,
                    commit.changes.first().map_or_else(String::new, |c| String::from_utf8_lossy(&c.kv.key).into()),
                )
            });
        }
        for (prefix, change) in self.truth.apply(commit) {
            self.changed(&prefix, &change);
        }
    }

    fn changed(&mut self, prefix: &str, change: &Change) {
        let quiet = prefix.contains("/leases/")
            || prefix.contains("/events/")
            || prefix == NODES
                && without_heartbeat(change.old.as_deref()) == without_heartbeat(change.new.as_deref());
        if !quiet {
            self.writes.push(format!("{prefix}{}", change.key));
        }
        self.metadata(prefix, change);
        match prefix {
            PODS => self.pod(change),
            SERVICES => self.service(change),
            _ => {}
        }
    }

    fn metadata(&mut self, prefix: &str, change: &Change) {
        let Change { revision, key, old, new } = change;
        let empty = Value::Null;
        let (was, is) = (old.as_deref().unwrap_or(&empty), new.as_deref().unwrap_or(&empty));
        let at = || format!("{prefix}{key} at revision {revision}");
        match (old, new) {
            (None, Some(_)) => {
                let uid = text(is, "/metadata/uid").to_string();
                let fresh = uid.is_empty() || self.uids.insert(uid.clone());
                self.check("uid unique", fresh, || format!("{}: uid {uid} was used before", at()));
                if let Some((namespace, _)) = key.split_once('/') {
                    let dying = match self.truth.get(NAMESPACES, namespace) {
                        Some(ns) => ns.value.pointer("/metadata/deletionTimestamp").is_some(),
                        None => true,
                    };
                    self.check("dying namespace closed", !dying, || {
                        format!("{}: created in a namespace that ends", at())
                    });
                }
            }
            (Some(_), Some(_)) => {
                let same = text(was, "/metadata/uid") == text(is, "/metadata/uid");
                self.check("uid unique", same, || format!("{}: the uid changed", at()));
                if let Some(before) = was.pointer("/metadata/deletionTimestamp").and_then(Value::as_str) {
                    let after = is.pointer("/metadata/deletionTimestamp").and_then(Value::as_str);
                    // RFC 3339 in UTC: the order of the texts is that of the times.
                    let kept = after.is_some_and(|after| after <= before);
                    self.check("deletion final", kept, || format!("{}: {before} became {after:?}", at()));
                }
                let counts = matches!(prefix, DEPLOYMENTS | REPLICA_SETS);
                if counts {
                    let number =
                        |v: &Value| v.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                    let deleted = was.pointer("/metadata/deletionTimestamp")
                        != is.pointer("/metadata/deletionTimestamp");
                    let spec = was.get("spec") != is.get("spec");
                    let right = number(is) - number(was) == i64::from(spec || deleted);
                    self.check("generation counts", right, || {
                        format!(
                            "{}: generation {} after {}, spec changed: {spec}",
                            at(),
                            number(is),
                            number(was)
                        )
                    });
                }
                for pointer in ["/spec/selector/matchLabels", "/spec/clusterIP"] {
                    let before = was.pointer(pointer).filter(|_| prefix != PODS);
                    if let Some(before) = before.filter(|_| counts || prefix == SERVICES) {
                        let kept = is.pointer(pointer) == Some(before);
                        self.check("immutable field kept", kept, || format!("{}: {pointer} changed", at()));
                    }
                }
            }
            (Some(_), None) => {
                let held = was
                    .pointer("/metadata/finalizers")
                    .and_then(Value::as_array)
                    .is_some_and(|f| f.len() > 1);
                let sole = was
                    .pointer("/metadata/finalizers")
                    .and_then(Value::as_array)
                    .is_some_and(|f| f.len() == 1);
                // The last finalizer goes with the object, in one write, and only once its deletion was asked for.
                let asked = was.pointer("/metadata/deletionTimestamp").is_some();
                let fine = !held && (!sole || asked && self.last_finalizer_may_go(prefix, was));
                self.check("finalizers kept", fine, || format!("{}: removed with finalizers", at()));
            }
            (None, None) => {}
        }
    }

    /// `foregroundDeletion` may go only when no dependent that blocks is left.
    fn last_finalizer_may_go(&self, _prefix: &str, was: &Value) -> bool {
        let finalizer = was.pointer("/metadata/finalizers/0").and_then(Value::as_str).unwrap_or("");
        if finalizer != "foregroundDeletion" {
            return true;
        }
        let uid = text(was, "/metadata/uid");
        [PODS, REPLICA_SETS].into_iter().flat_map(|p| self.truth.items(p)).all(|(_, item)| {
            let owners = item.value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            !owners.into_iter().flatten().any(|o| {
                text(o, "/uid") == uid && o.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true)
            })
        })
    }

    fn pod(&mut self, change: &Change) {
        let Change { revision, key, old, new } = change;
        let value = new.as_ref().or(old.as_ref());
        let Some(value) = value else { return };
        let uid = text(value, "/metadata/uid").to_string();
        let node = text(value, "/spec/nodeName").to_string();
        let bound = self.bound.get(&uid).cloned().unwrap_or_default();
        if !bound.is_empty() {
            self.check("pod bound once", bound == node, || {
                format!("pod {key} at revision {revision}: bound to {bound:?}, then to {node:?}")
            });
        } else if !node.is_empty() {
            self.bound.insert(uid.clone(), node.clone());
        }
        let over = new.is_none() || matches!(text(value, "/status/phase"), "Succeeded" | "Failed");
        self.load(&uid, &node, value, over, &format!("pod {key} at revision {revision}"));
        self.address(&uid, key, value, over);
    }

    fn load(&mut self, uid: &str, node: &str, value: &Value, over: bool, what: &str) {
        let counted = self.counted.contains_key(uid);
        if over || node.is_empty() {
            if let Some((node, cpu, memory)) = self.counted.remove(uid)
                && let Some(load) = self.loads.get_mut(&node)
            {
                load.cpu -= cpu;
                load.memory -= memory;
                load.pods -= 1;
            }
            return;
        }
        if counted {
            return;
        }
        let (cpu, memory) = (requests(value, "cpu").0, requests(value, "memory").1);
        self.counted.insert(uid.into(), (node.into(), cpu, memory));
        let load = self.loads.entry(node.into()).or_default();
        load.cpu += cpu;
        load.memory += memory;
        load.pods += 1;
        let Some(item) = self.truth.get(NODES, node) else { return };
        let (cpu, memory, pods) = (
            quantity(&item.value, "/status/allocatable/cpu").0,
            quantity(&item.value, "/status/allocatable/memory").1,
            quantity(&item.value, "/status/allocatable/pods").1,
        );
        let fits = load.cpu <= cpu && load.memory <= memory && load.pods <= pods;
        let detail = format!(
            "{what}: node {node} has {}m of {cpu}m cpu, {} of {memory} bytes, {} of {pods} pods",
            load.cpu, load.memory, load.pods
        );
        self.check("node not overcommitted", fits, || detail);
    }

    fn address(&mut self, uid: &str, key: &str, value: &Value, over: bool) {
        let ip = text(value, "/status/podIP");
        let live = !over
            && !ip.is_empty()
            && value.pointer("/metadata/deletionTimestamp").is_none()
            && value.pointer("/spec/hostNetwork").and_then(Value::as_bool) != Some(true);
        if !live {
            self.addresses.retain(|_, owner| owner != uid);
            return;
        }
        if self.addresses.get(ip).is_some_and(|owner| owner == uid) {
            return;
        }
        self.addresses.retain(|_, owner| owner != uid);
        let other = self.addresses.insert(ip.into(), uid.into());
        self.check("address unique", other.is_none(), || {
            format!("pod {key} has {ip}, as has another live pod")
        });
    }

    fn service(&mut self, change: &Change) {
        let key = &change.key;
        self.service_addresses.retain(|_, owner| owner != key);
        let Some(value) = &change.new else { return };
        let ip = text(value, "/spec/clusterIP");
        let ports = value.pointer("/spec/ports").and_then(Value::as_array);
        let ports =
            ports.into_iter().flatten().filter_map(|p| p.get("nodePort")?.as_u64()).filter(|p| *p > 0);
        let mut addresses: Vec<String> = ports.map(|p| format!("port {p}")).collect();
        if !ip.is_empty() && ip != "None" {
            addresses.push(ip.into());
        }
        for address in addresses {
            let other = self.service_addresses.insert(address.clone(), key.clone());
            let detail = || format!("service {key} has {address}, as has {other:?}");
            self.check("service address unique", other.is_none(), detail);
        }
    }

    // ---- clients --------------------------------------------------------------------------------------------

    fn answered(&mut self, request: &ApiRequest, result: &Result<Reply, ApiError>) {
        let Some(prefix) = prefix_of(request) else { return };
        match (&request.op, result) {
            (Operation::List(options), Ok(Reply::List { items, resource_version, continue_token }))
                if continue_token.is_none()
                    && options.continue_token.is_none()
                    && options.label_selector.is_empty() =>
            {
                let namespace = request.namespace.as_deref().unwrap_or("");
                let Some(filter) = Filter::parse(namespace, &options.field_selector) else { return };
                let revision: i64 = resource_version.parse().unwrap_or(0);
                // What was changed since is not compared.
                let last = self.truth.changes(&prefix).last().map_or(0, |c| c.revision);
                let stored = self.truth.items(&prefix).filter(|(_, i)| filter.matches(&i.value)).count();
                if last <= revision {
                    let same = stored == items.len()
                        && items.iter().all(|o| {
                            let known = self.truth.get(&prefix, &o.key());
                            known.is_some_and(|i| i.revision.to_string() == o.metadata.resource_version)
                        });
                    self.check("list true", same, || {
                        format!(
                            "a list of {prefix} at {revision} has {} objects, the store {stored}",
                            items.len()
                        )
                    });
                }
            }
            (
                Operation::Create(_) | Operation::Update(_) | Operation::Patch { .. },
                Ok(Reply::Object(object)),
            ) if request.subresource.is_none() => {
                let revision: i64 = object.metadata.resource_version.parse().unwrap_or(0);
                let known = self.truth.head() >= revision && self.truth.digest(revision).is_some();
                self.check("acknowledged write survives", known, || {
                    format!(
                        "{} was acknowledged at revision {revision}, which the store does not have",
                        object.key()
                    )
                });
            }
            _ => {}
        }
    }

    fn opened(&mut self, watch: u64, request: &ApiRequest) {
        let (Some(prefix), Operation::Watch(options)) = (prefix_of(request), &request.op) else { return };
        let namespace = request.namespace.as_deref().unwrap_or("");
        let filter =
            Filter::parse(namespace, &options.field_selector).filter(|_| options.label_selector.is_empty());
        let from = options.resource_version.as_deref().and_then(|v| v.parse::<i64>().ok()).filter(|v| *v > 0);
        if let (Some(filter), Some(told)) = (filter, from) {
            self.watches.insert(watch, Watch { prefix, filter, told });
        }
    }

    fn watched(&mut self, watch: u64, event: &WatchEvent) {
        let Some(known) = self.watches.get_mut(&watch) else { return };
        let revision: i64 = event.object.metadata.resource_version.parse().unwrap_or(0);
        let (told, prefix) = (known.told, known.prefix.clone());
        known.told = told.max(revision);
        let changes = self.truth.changes(&prefix);
        let start = changes.partition_point(|c| c.revision <= told);
        let next = changes.get(start..).unwrap_or_default().iter().find_map(|c| {
            let kind = known.filter.kind(c)?;
            Some((c.revision, kind, c.key.clone()))
        });
        if event.kind == WatchKind::Bookmark {
            let head = self.truth.head();
            let skipped = next.filter(|(at, ..)| *at <= revision);
            self.check("bookmark true", skipped.is_none() && revision <= head, || {
                format!("a bookmark of {prefix} promises {revision} after {told}, but there is {skipped:?}, head {head}")
            });
            return;
        }
        let key = event.object.key();
        self.check("watch in order", revision > told, || {
            format!("a watch of {prefix} told of {key} at {revision} after {told}")
        });
        let right = next
            .as_ref()
            .is_some_and(|(at, kind, name)| *at == revision && *kind == event.kind && *name == key);
        self.check("watch complete", right, || {
            format!(
                "a watch of {prefix} after {told}: {:?} {key} at {revision}, but next is {next:?}",
                event.kind
            )
        });
    }
}

/// A node without what its regular report changes.
fn without_heartbeat(node: Option<&Value>) -> Option<Value> {
    let mut node = node?.clone();
    if let Some(meta) = node.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    // Images are told with the regular report.
    if let Some(status) = node.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("images");
    }
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
    Some(node)
}

fn prefix_of(request: &ApiRequest) -> Option<String> {
    let gvr = &request.gvr;
    table::find(&gvr.group, &gvr.version, &gvr.resource).map(|i| i.storage_prefix.clone())
}

/// In thousandths and in units.
fn quantity(value: &Value, pointer: &str) -> (i64, i64) {
    let quantity = value.pointer(pointer).and_then(Value::as_str).and_then(|t| t.parse::<Quantity>().ok());
    quantity.map_or((0, 0), |q| (q.millis(), q.value()))
}

fn requests(pod: &Value, resource: &str) -> (i64, i64) {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let each =
        containers.into_iter().flatten().map(|c| quantity(c, &format!("/resources/requests/{resource}")));
    each.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}
