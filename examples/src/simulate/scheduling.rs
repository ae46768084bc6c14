//! The scheduler of a master, and what is known beside it: the cluster as the scheduler was told of it, kept in the plainest
//! way, and its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use icp_core::api::{Gvr, Object, Quantity, resources};
use icp_core::base::{Duration, Rng, Time};
use icp_core::client::{
    ClientEffect, ClientEvent, LeaderElectorConfig, ObjectKey, Operation, Reply, RequestId, WatchKind,
};
use icp_sched::machine::{Decision, NoNode, SchedulerConfig};
use serde_json::{Value, json};

use super::message::Seen;
use super::mutant::Mutant;

pub use icp_sched::machine::{
    Effect as SchedulerEffect, Event as SchedulerEvent, SchedulerMachine as Scheduler,
};

/// No victim whose budget is exhausted, if there is another way.
pub const BUDGETS: &str = "budget kept by preemption";
/// Each pod without a node is in one place of the scheduler.
pub const LOST: &str = "no pod lost";
/// Of a gang, no pod or enough of them have a node.
pub const SPLIT: &str = "gang all or nothing";
/// A pod for which there is room gets it, whoever else comes.
pub const STARVED: &str = "no pod starves";

/// A pod for which there is room all the time gets it within this: the longest pause of the queue, twice.
const ROOM_MAX: Duration = Duration::from_secs(20);
/// So many less or equally important pods that came later may take room that would have done for a pod.
const OVERTAKEN_MAX: usize = 20;

/// A scheduler that seeks leadership as `election` says.
#[must_use]
pub fn scheduler(election: LeaderElectorConfig, rng: Rng) -> Scheduler {
    let instance = election.identity.clone();
    let config = SchedulerConfig { instance, leader_election: Some(election), ..SchedulerConfig::default() };
    let mut scheduler = Scheduler::new(config, rng);
    scheduler.keep_decisions();
    scheduler
}

/// Processor in thousandths, memory in bytes, pods.
type Load = [i64; 3];

fn add(a: Load, b: Load) -> Load {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn minus(a: Load, b: Load) -> Load {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn fits(wanted: Load, free: Load) -> bool {
    wanted.iter().zip(free).all(|(w, f)| *w <= f)
}

struct Room {
    all: Load,
    /// It takes no pods, or only some.
    closed: bool,
}

struct Seat {
    uid: String,
    labels: BTreeMap<String, String>,
    priority: i64,
    load: Load,
    created: String,
    started: String,
    /// The node that the API server knows.
    node: String,
    nominated: String,
    /// The PodGroup.
    group: String,
    gated: bool,
    /// It wants no node any more, and takes none when it ended.
    leaving: bool,
    ended: bool,
}

struct Budget {
    namespace: String,
    labels: BTreeMap<String, String>,
    allowed: i64,
}

/// What the scheduler of a master was told, what it decided, and whether that keeps the rules.
#[derive(Default)]
pub struct Observer {
    asked: BTreeMap<RequestId, Gvr>,
    nodes: BTreeMap<String, Room>,
    pods: BTreeMap<ObjectKey, Seat>,
    budgets: BTreeMap<ObjectKey, Budget>,
    /// Nodes that were chosen and not yet told back.
    placed: BTreeMap<ObjectKey, String>,
    /// Room that is kept for pods.
    kept: BTreeMap<ObjectKey, String>,
    /// How many of a PodGroup must run together.
    groups: BTreeMap<ObjectKey, u64>,
    /// PodGroups of which a pod was deleted or could not be bound, or that were found split: anything may be bound of them.
    spoilt: BTreeSet<ObjectKey>,
    /// Bindings without an answer.
    bindings: BTreeMap<RequestId, ObjectKey>,
    listed: bool,
    /// Since when there is room for a pod, by uid.
    room_since: BTreeMap<String, Time>,
    /// How many took room that would have done, by uid.
    overtaken: BTreeMap<String, usize>,
}

const FOLLOWED: [Gvr; 4] =
    [resources::NODES, resources::PODS, resources::POD_DISRUPTION_BUDGETS, resources::POD_GROUPS];

impl Observer {
    /// The scheduler wants something.
    pub fn asked(&mut self, effect: &SchedulerEffect) {
        match effect {
            SchedulerEffect::Led(None) => *self = Self::default(),
            SchedulerEffect::Client(
                ClientEffect::Request { id, request } | ClientEffect::Watch { id, request },
            ) if matches!(request.op, Operation::List(_) | Operation::Watch(_))
                && FOLLOWED.contains(&request.gvr) =>
            {
                self.asked.insert(*id, request.gvr.clone());
            }
            SchedulerEffect::Client(ClientEffect::Request { id, request })
                if request.subresource == Some("binding") =>
            {
                let (namespace, name) = (request.namespace.as_deref(), request.name.as_deref());
                let pod = ObjectKey::new(namespace.unwrap_or(""), name.unwrap_or(""));
                self.bindings.insert(*id, pod);
            }
            SchedulerEffect::Client(ClientEffect::CloseWatch { id }) => {
                self.asked.remove(id);
            }
            _ => {}
        }
    }

    /// The scheduler is told something.
    pub fn told(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Reply { id, result } => {
                if let Some(pod) = self.bindings.remove(id)
                    && result.is_err()
                {
                    self.spoil(&pod);
                }
                let Some(gvr) = self.asked.remove(id) else { return };
                let Ok(Reply::List { items, .. }) = result else { return };
                if gvr == resources::NODES {
                    self.nodes.clear();
                } else if gvr == resources::PODS {
                    // Who is gone meanwhile was deleted.
                    let before: Vec<ObjectKey> = self.pods.keys().cloned().collect();
                    before.iter().for_each(|pod| self.spoil(pod));
                    self.pods.clear();
                } else if gvr == resources::POD_GROUPS {
                    self.groups.clear();
                } else {
                    self.budgets.clear();
                }
                items.iter().for_each(|object| self.set(&gvr, object));
                if gvr == resources::PODS && !std::mem::replace(&mut self.listed, true) {
                    // What another leader left behind, in the middle of its work.
                    let bound: Vec<ObjectKey> = self
                        .pods
                        .iter()
                        .filter(|(_, p)| !p.node.is_empty())
                        .map(|(key, _)| key.clone())
                        .collect();
                    bound.iter().for_each(|pod| self.spoil(pod));
                }
                let pods = &self.pods;
                self.placed.retain(|key, _| pods.contains_key(key));
                self.kept.retain(|key, _| pods.contains_key(key));
            }
            ClientEvent::Watch { id, event } => {
                let Some(gvr) = self.asked.get(id).cloned() else { return };
                match event.kind {
                    WatchKind::Added | WatchKind::Modified => self.set(&gvr, &event.object),
                    WatchKind::Deleted => self.gone(&gvr, &ObjectKey::of(&event.object)),
                    WatchKind::Bookmark => {}
                }
            }
            ClientEvent::WatchClosed { id, .. } => {
                self.asked.remove(id);
            }
            _ => {}
        }
    }

    fn set(&mut self, gvr: &Gvr, object: &Arc<Object>) {
        let key = ObjectKey::of(object);
        if *gvr == resources::NODES {
            self.nodes.insert(key.name, room(object));
        } else if *gvr == resources::PODS {
            let seat = seat(object);
            let other = self.pods.get(&key).is_some_and(|old| old.uid != seat.uid);
            if other || !seat.node.is_empty() || seat.ended {
                self.placed.remove(&key);
                self.kept.remove(&key);
            }
            let leaving = seat.leaving;
            self.pods.insert(key.clone(), seat);
            if leaving || other {
                self.spoil(&key);
            }
        } else if *gvr == resources::POD_GROUPS {
            let min = object.at("/spec/schedulingPolicy/gang/minCount").and_then(Value::as_u64);
            self.groups.insert(key, min.unwrap_or(0));
        } else {
            let labels = object.at("/spec/selector/matchLabels").cloned().unwrap_or_default();
            let allowed = object.at("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
            let labels = serde_json::from_value(labels).unwrap_or_default();
            self.budgets.insert(key.clone(), Budget { namespace: key.namespace, labels, allowed });
        }
    }

    fn gone(&mut self, gvr: &Gvr, key: &ObjectKey) {
        if *gvr == resources::NODES {
            self.nodes.remove(&key.name);
        } else if *gvr == resources::POD_GROUPS {
            self.groups.remove(key);
        } else if *gvr == resources::PODS {
            self.spoil(key);
            self.pods.remove(key);
            self.placed.remove(key);
            self.kept.remove(key);
        } else {
            self.budgets.remove(key);
        }
    }

    /// Something happened to a pod after which its gang need not be whole.
    fn spoil(&mut self, pod: &ObjectKey) {
        if let Some(seat) = self.pods.get(pod).filter(|p| !p.group.is_empty()) {
            self.spoilt.insert(ObjectKey::new(&pod.namespace, &seat.group));
        }
    }

    /// Where a pod weighs.
    fn node_of<'a>(&'a self, key: &ObjectKey, pod: &'a Seat) -> &'a str {
        if pod.node.is_empty() { self.placed.get(key).map_or("", String::as_str) } else { &pod.node }
    }

    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Seat)> {
        self.pods.iter().filter(move |(key, pod)| !pod.ended && self.node_of(key, pod) == node)
    }

    /// What is free on a node for a pod, beside the room that is kept for others as important.
    fn free(&self, node: &str, room: &Room, pod: &ObjectKey, priority: i64) -> Load {
        let taken = self.on(node).fold([0; 3], |sum, (_, p)| add(sum, p.load));
        let kept = self.pods.iter().filter(|(key, p)| {
            let here = self.kept.get(*key).is_some_and(|n| n == node) || p.nominated == node;
            here && *key != pod && p.priority >= priority && self.node_of(key, p).is_empty()
        });
        let kept = kept.fold([0; 3], |sum, (_, p)| add(sum, p.load));
        minus(room.all, add(taken, kept))
    }

    /// The less important pods of a node, and whether a budget forbids to evict each: budgets go to the most important first.
    fn lower<'a>(&'a self, node: &'a str, priority: i64) -> Vec<(&'a ObjectKey, &'a Seat, bool)> {
        let mut lower: Vec<_> = self.on(node).filter(|(_, p)| p.priority < priority).collect();
        // A pod that did not start yet comes last.
        lower.sort_by_key(|(key, p)| (-p.priority, p.started.is_empty(), p.started.clone(), (*key).clone()));
        let mut left: Vec<(&Budget, i64)> = self.budgets.values().map(|b| (b, b.allowed)).collect();
        let each = lower.into_iter().map(|(key, pod)| {
            let mut forbidden = false;
            for (budget, left) in &mut left {
                let covers = budget.namespace == key.namespace
                    && !budget.labels.is_empty()
                    && budget.labels.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
                if covers {
                    *left -= 1;
                    forbidden |= *left < 0;
                }
            }
            (key, pod, forbidden)
        });
        each.collect()
    }

    /// The scheduler decided, on the last that it was told.
    pub fn decided(&mut self, decisions: &[Decision], seen: &mut Vec<Seen>) {
        // With more than one, the cluster was another for the second: what that one saw is not known here.
        if let [Decision { pod, result }] = decisions {
            match result {
                Ok(node) => self.overtakes(pod, node, seen),
                Err(none) if !none.victims.is_empty() => self.budgets_kept(pod, none, seen),
                Err(_) => {}
            }
        }
        for Decision { pod, result } in decisions {
            match result {
                Ok(node) => {
                    self.placed.insert(pod.clone(), node.clone());
                    self.kept.remove(pod);
                }
                Err(none) => {
                    self.placed.remove(pod);
                    match none.nominated.as_deref() {
                        Some("") => drop(self.kept.remove(pod)),
                        Some(node) => drop(self.kept.insert(pod.clone(), node.into())),
                        None => {}
                    }
                }
            }
        }
    }

    fn budgets_kept(&self, key: &ObjectKey, none: &NoNode, seen: &mut Vec<Seen>) {
        let Some(pod) = self.pods.get(key) else { return };
        seen.push(Seen::Checked("preemption"));
        let node = none.nominated.as_deref().unwrap_or("");
        let lower = self.lower(node, pod.priority);
        let broken: Vec<String> = lower
            .iter()
            .filter(|(key, _, forbidden)| *forbidden && none.victims.contains(key))
            .map(|(key, ..)| key.to_string())
            .collect();
        let other = self.nodes.iter().filter(|(_, room)| !room.closed).find(|(name, room)| {
            let free = self.free(name, room, key, pod.priority);
            let lower = self.lower(name, pod.priority);
            let allowed: Vec<Load> = lower.iter().filter(|(.., no)| !no).map(|(_, p, _)| p.load).collect();
            let most = allowed.iter().fold(free, |sum, load| add(sum, *load));
            // A node that does without evictions was rejected for what is not known here.
            !allowed.is_empty() && !fits(pod.load, free) && fits(pod.load, most)
        });
        match other {
            Some((other, _)) if !broken.is_empty() => {
                let what = format!(
                    "for {key} {broken:?} of {node} are evicted against their budgets, though {other} would do without"
                );
                seen.push(Seen::Wrong(BUDGETS, what));
            }
            None if !broken.is_empty() => {
                seen.push(Seen::Checked("budget broken where there is no other way"))
            }
            _ if self.nodes.keys().any(|n| self.lower(n, pod.priority).iter().any(|(.., no)| *no)) => {
                seen.push(Seen::Checked(BUDGETS));
            }
            _ => {}
        }
    }

    fn waits(&self, key: &ObjectKey, pod: &Seat) -> bool {
        !pod.gated && !pod.leaving && self.node_of(key, pod).is_empty()
    }

    fn overtakes(&mut self, by: &ObjectKey, node: &str, seen: &mut Vec<Seen>) {
        let Some(winner) = self.pods.get(by) else { return };
        let Some(room) = self.nodes.get(node).filter(|room| !room.closed) else { return };
        let late: Vec<(String, ObjectKey)> = self
            .pods
            .iter()
            .filter(|(key, p)| *key != by && p.group.is_empty() && self.waits(key, p))
            .filter(|(_, p)| p.priority >= winner.priority && p.created < winner.created)
            .filter(|(key, p)| fits(p.load, self.free(node, room, key, p.priority)))
            .map(|(key, p)| (p.uid.clone(), key.clone()))
            .collect();
        for (uid, key) in late {
            seen.push(Seen::Checked("pod overtaken by a later one"));
            let times = self.overtaken.entry(uid).or_default();
            *times += 1;
            if *times > OVERTAKEN_MAX {
                let what =
                    format!("{key} waits, and {times} pods that came later took room that would have done");
                seen.push(Seen::Wrong(STARVED, what));
            }
        }
    }

    /// Looks at all pods that wait, while the scheduler leads and has listed everything.
    pub fn look(&mut self, now: Time, scheduler: &Scheduler, seen: &mut Vec<Seen>) {
        for (key, pod) in self.pods.iter().filter(|(_, p)| p.node.is_empty() && !p.leaving) {
            let places = scheduler.whereabouts(key);
            match places.as_slice() {
                ["active" | "backoff" | "unschedulable" | "gated"] => {
                    seen.push(Seen::Checked("pod found waiting in the queue"));
                }
                [_] => {}
                _ => {
                    let what = format!("{key} ({}) is in {places:?} of the scheduler", pod.uid);
                    seen.push(Seen::Wrong(LOST, what));
                }
            }
            seen.push(Seen::Checked(LOST));
        }
        for (group, min) in
            self.groups.iter().filter(|(group, min)| **min > 0 && !self.spoilt.contains(group))
        {
            let members = self.pods.iter().filter(|(key, p)| {
                key.namespace == group.namespace && p.group == group.name && !self.node_of(key, p).is_empty()
            });
            let placed = members.count() as u64;
            seen.push(if placed == 0 || placed >= *min {
                Seen::Checked(if placed > 0 { SPLIT } else { "gang waits" })
            } else {
                Seen::Wrong(SPLIT, format!("{placed} pods of {group} have a node, and {min} must"))
            });
        }
        let mut room_since = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        // A pod of a gang waits for the others.
        for (key, pod) in self.pods.iter().filter(|(key, p)| p.group.is_empty() && self.waits(key, p)) {
            waiting.insert(pod.uid.clone());
            seen.push(Seen::Checked(STARVED));
            let has_room = self
                .nodes
                .iter()
                .any(|(name, room)| !room.closed && fits(pod.load, self.free(name, room, key, i64::MIN)));
            if !has_room {
                continue;
            }
            seen.push(Seen::Checked("room for a pod that waits"));
            let since = self.room_since.get(&pod.uid).copied().unwrap_or(now);
            if now.since(since) > ROOM_MAX {
                let secs = now.since(since).as_secs();
                let what = format!(
                    "there is room for {key} since {secs} s, but it waits in {:?}",
                    scheduler.whereabouts(key)
                );
                seen.push(Seen::Wrong(STARVED, what));
            }
            room_since.insert(pod.uid.clone(), since);
        }
        self.room_since = room_since;
        self.overtaken.retain(|uid, _| waiting.contains(uid));
    }
}

/// What a broken shell tells the scheduler instead, if anything.
#[must_use]
pub fn broken(mutant: Option<Mutant>, mut event: ClientEvent) -> Option<ClientEvent> {
    let lavish = |object: &mut Arc<Object>| {
        if object.at("/spec/minAvailable").is_some() {
            Arc::make_mut(object).rest.insert("status".into(), json!({ "disruptionsAllowed": 100 }));
        }
    };
    let alone = |object: &mut Arc<Object>| {
        if object.at("/spec/schedulingPolicy/gang").is_some() {
            let policy = json!({ "schedulingPolicy": { "gang": { "minCount": 1 } } });
            Arc::make_mut(object).rest.insert("spec".into(), policy);
        }
    };
    match (mutant, &mut event) {
        (Some(Mutant::SplitGang), ClientEvent::Reply { result: Ok(Reply::List { items, .. }), .. }) => {
            items.iter_mut().for_each(alone);
        }
        (Some(Mutant::SplitGang), ClientEvent::Watch { event, .. }) => alone(&mut event.object),
        (Some(Mutant::BlindBudgets), ClientEvent::Reply { result: Ok(Reply::List { items, .. }), .. }) => {
            items.iter_mut().for_each(lavish);
        }
        (Some(Mutant::BlindBudgets), ClientEvent::Watch { event, .. }) => lavish(&mut event.object),
        (Some(Mutant::LosePod), ClientEvent::Watch { event, .. }) if event.object.kind == "Pod" => {
            let one_in_eight = event.object.metadata.uid.bytes().fold(0_u8, u8::wrapping_add) % 8 == 0;
            if one_in_eight && event.object.str_at("/spec/nodeName").is_empty() {
                return None;
            }
        }
        (Some(Mutant::Hoard), ClientEvent::Watch { event, .. })
            if event.object.kind == "Pod"
                && (event.kind == WatchKind::Deleted
                    || event.object.metadata.deletion_timestamp.is_some()) =>
        {
            return None;
        }
        _ => {}
    }
    Some(event)
}

fn quantity(value: Option<&Value>) -> Option<Quantity> {
    value.and_then(Value::as_str)?.parse().ok()
}

fn room(node: &Object) -> Room {
    let of = |name: &str| quantity(node.at(&format!("/status/allocatable/{name}")));
    let all = [
        of("cpu").map_or(0, |q| q.millis()),
        of("memory").map_or(0, |q| q.value()),
        of("pods").map_or(0, |q| q.value()),
    ];
    let taints = node.at("/spec/taints").and_then(Value::as_array);
    let mut taints = taints.into_iter().flatten();
    let tainted = taints.any(|t| t.get("effect").and_then(Value::as_str) != Some("PreferNoSchedule"));
    let closed = tainted || node.at("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
    Room { all, closed }
}

fn seat(pod: &Object) -> Seat {
    let containers = pod.at("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let mut load = [0, 0, 1];
    for container in containers {
        let of = |name: &str| quantity(container.pointer(&format!("/resources/requests/{name}")));
        load[0] += of("cpu").map_or(0, |q| q.millis());
        load[1] += of("memory").map_or(0, |q| q.value());
    }
    let ended = matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed");
    let gates = pod.at("/spec/schedulingGates").and_then(Value::as_array);
    Seat {
        uid: pod.metadata.uid.clone(),
        labels: pod.metadata.labels.clone(),
        priority: pod.at("/spec/priority").and_then(Value::as_i64).unwrap_or(0),
        load,
        created: pod.metadata.creation_timestamp.map(|t| t.to_rfc3339()).unwrap_or_default(),
        started: pod.str_at("/status/startTime").into(),
        node: pod.str_at("/spec/nodeName").into(),
        nominated: pod.str_at("/status/nominatedNodeName").into(),
        group: pod.str_at("/spec/schedulingGroup/podGroupName").into(),
        gated: gates.is_some_and(|g| !g.is_empty()),
        leaving: ended || pod.metadata.deletion_timestamp.is_some(),
        ended,
    }
}
