//! The machine.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use icp_core::api::labels::Selector;
use icp_core::api::{Gvr, Object, resources};
use icp_core::base::{Duration, Machine, Rng, Time, TimingWheel};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, Delta, EventNote, EventRecorder, EventType, Informer,
    LeaderElector, ListOptions, ObjectKey, Reply, RequestId, RequestIds, Term, block_of,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::asking::Asking;
use super::metrics::Metrics;
use super::requests::{self, Outcome};
use super::{Effect, Event, SchedulerConfig};
use crate::framework::Waiter;
use crate::model::{Claim, Node, Pod, StorageCapacity, StorageClass, Volume, VolumeSource};
use crate::plugins::Preparation;
use crate::queue::{ClusterEvent, Queue, QueueSizes};
use crate::{Preemption, Scheduler, SchedulerBuilder, TieBreak, Unschedulable};

/// What must be listed before the first decision.
const NEEDS: [Gvr; 3] = [resources::NODES, resources::PODS, resources::NAMESPACES];
/// What is followed as well: things that select pods, for default spreading.
const SELECTORS: [(Gvr, &str); 4] = [
    (resources::SERVICES, "Service"),
    (resources::REPLICATION_CONTROLLERS, "ReplicationController"),
    (resources::REPLICA_SETS, "ReplicaSet"),
    (resources::STATEFUL_SETS, "StatefulSet"),
];
/// And storage.
const STORAGE: [Gvr; 6] = [
    resources::PERSISTENT_VOLUME_CLAIMS,
    resources::PERSISTENT_VOLUMES,
    resources::STORAGE_CLASSES,
    Gvr::new("storage.k8s.io", "v1", "csinodes"),
    Gvr::new("storage.k8s.io", "v1", "csidrivers"),
    Gvr::new("storage.k8s.io", "v1", "csistoragecapacities"),
];
/// A request without an answer counts as failed with unknown outcome.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before a pod is read again to learn what became of its binding.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Conditions and Events under way at once, beyond which conditions are dropped: the next attempt writes them.
const NOTES_IN_FLIGHT_MAX: usize = 256;
/// The same for Events, which wait then: bindings must not wait for them.
const EVENTS_IN_FLIGHT_MAX: usize = 32;
/// Events that wait; further ones are dropped.
const EVENTS_WAITING_MAX: usize = 1 << 17;

/// An Event that was not sent yet.
#[derive(Clone, Debug)]
pub(super) struct Told {
    at: Time,
    about: Arc<Object>,
    note: EventNote,
}

/// What must be done before a pod is bound.
#[derive(Clone, Debug)]
pub(super) struct Preparing {
    pub(super) pod: Pod,
    pub(super) node: String,
    /// Requests without an answer.
    pub(super) open: BTreeSet<RequestId>,
}

/// A write that decides about a pod.
#[derive(Clone, Debug)]
pub(super) enum Flight {
    /// A binding was sent.
    Bind { pod: Pod, node: String },
    /// An extender was told to bind.
    Delegate { pod: Pod, node: String, extender: usize },
    /// What became of a binding is being read.
    Read { pod: Pod, node: String },
    /// It is read at the end of a pause.
    ReadLater { pod: Pod, node: String },
    /// Something is being done that the pod's binding needs.
    Prepare { pod: Pod },
    /// A pod is being evicted for this one.
    Evict { preemptor: ObjectKey },
}

/// kube-scheduler: informers, the queue of pods, decisions, bindings.
///
/// A pod that was placed weighs on its node at once (it is *assumed*); when the binding is refused, that is taken
/// back and the pod tries again after a pause. When the outcome of a binding is unknown, the pod stays assumed until
/// it was read. With leader election, everything that was observed starts anew with each leadership, and no binding
/// is sent while [`LeaderElector::leading`] says no.
pub struct SchedulerMachine {
    pub(super) config: SchedulerConfig,
    pub(super) rng: Rng,
    pub(super) ids: RequestIds,
    pub(super) scheduler: Scheduler,
    pub(super) queue: Queue,
    pub(super) informers: BTreeMap<Gvr, Informer>,
    pub(super) informer_of: BTreeMap<u64, Gvr>,
    pub(super) elector: Option<LeaderElector>,
    /// By profile.
    pub(super) recorders: BTreeMap<String, EventRecorder>,
    pub(super) running: bool,
    pub(super) term: Option<Term>,
    pub(super) flights: BTreeMap<RequestId, Flight>,
    pub(super) timers: TimingWheel<RequestId>,
    /// Pods that have a node, and wait for what must be done before they are bound.
    pub(super) preparing: BTreeMap<RequestId, Preparing>,
    /// Pods that have a node, and wait for a plugin's leave.
    pub(super) waiters: BTreeMap<ObjectKey, Waiter>,
    /// Pods for whose nodes plugins keep reservations.
    pub(super) reserved: BTreeMap<ObjectKey, (Pod, String)>,
    /// The decision that waits for extenders.
    pub(super) asking: Option<Asking>,
    pub(super) metrics: Metrics,
    /// Events and conditions, whose answers do not matter.
    pub(super) notes_open: BTreeSet<RequestId>,
    pub(super) events_waiting: VecDeque<Told>,
    /// More pods can be decided on at once.
    pub(super) more: Option<Time>,
}

impl fmt::Debug for SchedulerMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerMachine")
            .field("scheduler", &self.scheduler)
            .field("queue", &self.queue.sizes())
            .field("flights", &self.flights.len())
            .finish_non_exhaustive()
    }
}

impl SchedulerMachine {
    /// A machine with the default plugins; ties are drawn from `rng`.
    #[must_use]
    pub fn new(config: SchedulerConfig, rng: Rng) -> Self {
        let builder = Scheduler::builder().named(&config.scheduler_name);
        let builder = builder.ties(TieBreak::Seeded(rng.child("ties")));
        Self::with_scheduler(config, builder, rng)
    }

    /// A machine with a scheduler of one's own: pods that ask for one of its profiles are placed, others are left
    /// alone.
    #[must_use]
    pub fn with_scheduler(config: SchedulerConfig, builder: SchedulerBuilder, rng: Rng) -> Self {
        let elector = config.leader_election.clone().map(|c| LeaderElector::new(c, rng.child("elector")));
        let scheduler = builder.build();
        let recorder = |(at, name): (usize, &str)| {
            let draws = if at == 0 { rng.child("events") } else { rng.child("events").child(name) };
            (name.into(), EventRecorder::new(name, &config.instance, draws))
        };
        let recorders = scheduler.profiles().enumerate().map(recorder).collect();
        Self {
            queue: Queue::new(config.backoff_initial, config.backoff_max),
            config,
            rng,
            ids: RequestIds::new(),
            scheduler,
            informers: BTreeMap::new(),
            informer_of: BTreeMap::new(),
            elector,
            recorders,
            running: false,
            term: None,
            flights: BTreeMap::new(),
            timers: TimingWheel::new(),
            preparing: BTreeMap::new(),
            waiters: BTreeMap::new(),
            reserved: BTreeMap::new(),
            asking: None,
            metrics: Metrics::default(),
            notes_open: BTreeSet::new(),
            events_waiting: VecDeque::new(),
            more: None,
        }
    }

    /// The scheduler with what was observed.
    #[must_use]
    pub const fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What was counted, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.render(&self.scheduler, &self.queue)
    }

    /// How many pods wait, and for what.
    #[must_use]
    pub fn queue_sizes(&self) -> QueueSizes {
        self.queue.sizes()
    }

    /// Whether what decisions need was listed completely.
    #[must_use]
    pub fn synced(&self) -> bool {
        let known = |i: &Informer| i.synced() || i.missing();
        NEEDS.iter().all(|gvr| self.informers.get(gvr).is_some_and(Informer::synced))
            && self.informers.values().all(known)
    }

    /// Whether no decision or binding is under way and no pod is ready.
    #[must_use]
    pub fn idle(&self, now: Time) -> bool {
        self.flights.is_empty() && self.asking.is_none() && !self.queue.is_ready(now)
    }

    /// The leadership, if this machine may act at `now`; always without leader election.
    #[must_use]
    pub fn leading(&self, now: Time) -> Option<Term> {
        match &self.elector {
            Some(elector) => elector.leading(now),
            None => self.running.then_some(Term(0)),
        }
    }

    fn follow_leadership(&mut self, now: Time, out: &mut Vec<Effect>) {
        let term = self.leading(now).filter(|_| self.running);
        if term == self.term {
            return;
        }
        if self.term.is_some() {
            self.drop_all(out);
        }
        self.term = term;
        if self.elector.is_some() {
            out.push(Effect::Led(term));
        }
        if term.is_some() {
            self.follow_all(now, out);
        }
    }

    fn drop_all(&mut self, out: &mut Vec<Effect>) {
        for informer in self.informers.values_mut() {
            informer.stop(out);
        }
        self.informers.clear();
        self.informer_of.clear();
        self.scheduler.reset();
        self.queue = Queue::new(self.config.backoff_initial, self.config.backoff_max);
        self.flights.clear();
        self.asking = None;
        self.timers = TimingWheel::new();
        self.preparing.clear();
        self.waiters.clear();
        for (pod, node) in core::mem::take(&mut self.reserved).into_values() {
            self.scheduler.unreserve(&pod, &node);
        }
        self.notes_open.clear();
        self.events_waiting.clear();
        self.more = None;
    }

    fn follow_all(&mut self, now: Time, out: &mut Vec<Effect>) {
        for gvr in NEEDS
            .into_iter()
            .chain(SELECTORS.map(|(gvr, _)| gvr))
            .chain([resources::POD_DISRUPTION_BUDGETS])
            .chain(STORAGE)
        {
            let rng = self.rng.child("informers").child(&gvr.path(None));
            let mut informer = Informer::new(gvr.clone(), ListOptions::default()).with_rng(rng);
            informer.start(now, &mut self.ids, out);
            self.informer_of.insert(informer.block(), gvr.clone());
            self.informers.insert(gvr, informer);
        }
    }

    fn on_client(&mut self, now: Time, event: &ClientEvent, out: &mut Vec<Effect>) {
        if let Some(elector) = self.elector.as_mut().filter(|e| e.expects(event)) {
            elector.on(now, event, out);
            return;
        }
        let (ClientEvent::Reply { id, .. }
        | ClientEvent::Watch { id, .. }
        | ClientEvent::WatchClosed { id, .. }) = event
        else {
            return;
        };
        if let Some(gvr) = self.informer_of.get(&block_of(*id)).cloned() {
            let Some(informer) = self.informers.get_mut(&gvr) else { return };
            for delta in informer.on(now, event, out) {
                self.on_delta(now, &gvr, &delta, out);
            }
        } else if let ClientEvent::Reply { id, result } = event
            && !self.note_ended(now, *id, out)
        {
            self.on_answer(now, *id, result, out);
        }
    }

    fn on_delta(&mut self, now: Time, gvr: &Gvr, delta: &Delta, out: &mut Vec<Effect>) {
        match gvr.resource.as_ref() {
            "pods" => self.on_pod(now, delta, out),
            "nodes" => self.on_node(now, delta),
            "namespaces" => {
                let meta = &delta.object().metadata;
                let cluster = self.scheduler.cluster_mut();
                if matches!(delta, Delta::Deleted(_)) {
                    cluster.remove_namespace(&meta.name);
                } else if cluster.namespace(&meta.name) != Some(&meta.labels) {
                    cluster.set_namespace(&meta.name, meta.labels.clone());
                    self.happened(now, ClusterEvent::NamespaceChanged);
                }
            }
            "poddisruptionbudgets" => {
                let object = delta.object();
                let budget =
                    (!matches!(delta, Delta::Deleted(_))).then(|| requests::budget(object)).flatten();
                self.scheduler.set_budget(ObjectKey::of(object), budget);
            }
            "persistentvolumeclaims"
            | "persistentvolumes"
            | "storageclasses"
            | "csinodes"
            | "csidrivers"
            | "csistoragecapacities" => self.on_storage(now, gvr, delta, out),
            _ => self.on_selector(now, gvr, delta),
        }
    }

    fn on_storage(&mut self, now: Time, gvr: &Gvr, delta: &Delta, out: &mut Vec<Effect>) {
        let object = delta.object();
        let gone = matches!(delta, Delta::Deleted(_));
        let name = object.metadata.name.clone();
        let storage = self.scheduler.cluster_mut().storage_mut();
        match gvr.resource.as_ref() {
            "persistentvolumeclaims" => {
                let claim = Claim::from_object(object);
                let key = ObjectKey::of(object);
                if gone {
                    storage.claims.remove(&key)
                } else {
                    storage.claims.insert(key, claim)
                };
            }
            "persistentvolumes" => {
                let volume = Volume::from_object(object);
                if gone {
                    storage.volumes.remove(&name)
                } else {
                    storage.volumes.insert(name, volume)
                };
            }
            "storageclasses" => {
                let class = StorageClass::from_object(object);
                if gone {
                    storage.classes.remove(&name)
                } else {
                    storage.classes.insert(name, class)
                };
            }
            "csidrivers" => {
                let counts = object.at("/spec/storageCapacity").and_then(Value::as_bool) == Some(true);
                if counts && !gone {
                    storage.capacity_drivers.insert(name);
                } else {
                    storage.capacity_drivers.remove(&name);
                }
            }
            "csistoragecapacities" => {
                let key = ObjectKey::of(object);
                if gone {
                    storage.capacities.remove(&key);
                } else {
                    storage.capacities.insert(key, StorageCapacity::from_object(object));
                }
            }
            _ => {
                storage.limits.retain(|(node, _), _| *node != name);
                if !gone {
                    storage.limits.extend(requests::limits(object));
                }
            }
        }
        self.bind_prepared(now, out);
        self.happened(now, ClusterEvent::StorageChanged);
    }

    fn on_selector(&mut self, now: Time, gvr: &Gvr, delta: &Delta) {
        let Some((_, kind)) = SELECTORS.into_iter().find(|(g, _)| g == gvr) else { return };
        let object = delta.object();
        let meta = &object.metadata;
        let raw = object.at("/spec/selector").filter(|_| !matches!(delta, Delta::Deleted(_)));
        let pairs = raw.and_then(|v| BTreeMap::<String, String>::deserialize(v).ok());
        let cluster = self.scheduler.cluster_mut();
        let changed = match kind {
            "Service" => cluster.set_service(&meta.namespace, &meta.name, pairs),
            "ReplicationController" => {
                let selector = pairs.and_then(|p| Selector::from_map(&p).ok());
                cluster.set_controller(&meta.namespace, kind, &meta.name, selector)
            }
            _ => {
                let selector = raw.and_then(|v| Selector::from_label_selector(v).ok());
                cluster.set_controller(&meta.namespace, kind, &meta.name, selector)
            }
        };
        if changed {
            self.happened(now, ClusterEvent::SelectorChanged);
        }
    }

    fn on_node(&mut self, now: Time, delta: &Delta) {
        let object = delta.object();
        let name = &object.metadata.name;
        let old = self.scheduler.cluster().node_id(name).and_then(|id| self.scheduler.node(id)).cloned();
        // A node that cannot be read has no room for anything.
        let new = if matches!(delta, Delta::Deleted(_)) { None } else { Node::from_object(object).ok() };
        match (old, new) {
            (None, Some(node)) => {
                self.scheduler.cluster_mut().set_node(node);
                self.happened(now, ClusterEvent::NodeAdded);
            }
            (Some(old), Some(new)) if old != new => {
                let changed = [
                    (old.labels != new.labels, ClusterEvent::NodeLabels),
                    (
                        old.taints != new.taints || old.unschedulable != new.unschedulable,
                        ClusterEvent::NodeTaints,
                    ),
                    (
                        old.allocatable != new.allocatable || old.pods_max != new.pods_max,
                        ClusterEvent::NodeAllocatable,
                    ),
                    (old.features != new.features, ClusterEvent::NodeFeatures),
                ];
                self.scheduler.cluster_mut().set_node(new);
                for (_, event) in changed.into_iter().filter(|(is, _)| *is) {
                    self.happened(now, event);
                }
            }
            (Some(_), None) => {
                self.scheduler.cluster_mut().remove_node(name);
                self.happened(now, ClusterEvent::NodeRemoved);
            }
            _ => {}
        }
    }

    fn on_pod(&mut self, now: Time, delta: &Delta, out: &mut Vec<Effect>) {
        let object = delta.object();
        let key = ObjectKey::of(object);
        let (pod, fault) = match Pod::from_object(object) {
            Ok(pod) => (pod, None),
            Err(e) => (Pod::opaque(object), Some(e.to_string())),
        };
        if matches!(delta, Delta::Deleted(_)) || pod.ended {
            self.queue.remove(&key);
            self.release(&key, &pod.uid);
            let seat = self.scheduler.nominated_node(&key).is_some();
            self.scheduler.clear_nomination(&key);
            if self.scheduler.cluster_mut().remove_pod(&key).is_some() || seat {
                self.happened(now, ClusterEvent::PodRemoved);
            }
        } else if pod.node.is_some() {
            self.placed(now, &pod);
            self.queue.remove(&key);
            self.scheduler.clear_nomination(&key);
            self.on_bound(now, pod);
        } else if self.scheduler.profile(&pod.scheduler_name).is_some() {
            self.on_pending(now, pod, fault, object, out);
        }
    }

    fn on_bound(&mut self, now: Time, pod: Pod) {
        let cluster = self.scheduler.cluster_mut();
        let old = cluster.pod(&pod.key).filter(|p| p.node == pod.node).map(|p| p.spec.clone());
        let confirmed = cluster.is_assumed(&pod.key);
        let new = pod.spec.clone();
        cluster.set_pod(pod);
        let event = match old {
            Some(old) if old == new && !confirmed => return,
            Some(old) if !old.terminating && new.terminating => ClusterEvent::PodRemoved,
            Some(old) if old != new => ClusterEvent::PodChanged,
            _ => ClusterEvent::PodBound,
        };
        self.happened(now, event);
    }

    fn on_pending(
        &mut self,
        now: Time,
        mut pod: Pod,
        fault: Option<String>,
        object: &Arc<Object>,
        out: &mut Vec<Effect>,
    ) {
        let assumed = self.scheduler.cluster().pod(&pod.key);
        let known = assumed.or_else(|| self.queue.get(&pod.key));
        if known.is_some_and(|p| p.uid != pod.uid) {
            // Another pod of that name: the one before is gone.
            self.queue.remove(&pod.key);
            self.release(&pod.key, "");
            self.scheduler.clear_nomination(&pod.key);
            if self.scheduler.cluster_mut().remove_pod(&pod.key).is_some() {
                self.happened(now, ClusterEvent::PodRemoved);
            }
        }
        if pod.spec.terminating {
            self.queue.remove(&pod.key);
            self.scheduler.clear_nomination(&pod.key);
            return;
        }
        if self.scheduler.cluster().is_assumed(&pod.key) && self.queue.get(&pod.key).is_none() {
            // It is bound; what is seen here is older.
            return;
        }
        if let Some(message) = fault {
            self.queue.remove(&pod.key);
            self.tell(
                now,
                object,
                EventType::Warning,
                "FailedScheduling",
                "Scheduling",
                message.clone(),
                out,
            );
            self.note(now, requests::not_scheduled(now, object, "SchedulerError", &message, None), out);
            return;
        }
        if let Some(node) = &pod.nominated_node
            && !self.scheduler.cluster().is_assumed(&pod.key)
        {
            self.scheduler.nominate(pod.clone(), node);
        }
        let profile = self.scheduler.profile(&pod.scheduler_name);
        if profile.is_some_and(|p| !self.scheduler.minds_gates(p)) {
            pod.gates.clear();
        }
        if let Some(spec) = self.scheduler.cluster().canonical(&pod.spec) {
            pod.spec = Arc::clone(spec);
        }
        self.enqueue(now, pod);
    }

    /// Decides on pods that are ready, as long as there is room for bindings.
    fn pump(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.more = None;
        if self.asking.is_some() || self.leading(now).is_none() || !self.synced() {
            return;
        }
        for _ in 0..self.config.decisions_max {
            if self.flights.len() >= self.config.bindings_max {
                return;
            }
            let Some(pod) = self.queue.pop(now) else { return };
            self.place(now, pod, out);
            if self.asking.is_some() {
                return;
            }
        }
        if self.flights.len() < self.config.bindings_max && self.queue.is_ready(now) {
            self.more = Some(now);
        }
    }

    fn place(&mut self, now: Time, pod: Pod, out: &mut Vec<Effect>) {
        if self.ask_extenders(now, &pod, out) {
            return;
        }
        match self.scheduler.schedule(&pod) {
            Ok(placement) => {
                self.scheduler.assume(pod.clone(), placement.node);
                self.reserve(now, pod, placement.name, out);
            }
            Err(none) => self.nowhere(now, &pod, none, out),
        }
    }

    /// No node will do: room is made, or the pod waits until something happens.
    pub(super) fn nowhere(&mut self, now: Time, pod: &Pod, none: Unschedulable, out: &mut Vec<Effect>) {
        if self.object(&pod.key).is_none() {
            self.queue.remove(&pod.key);
            return;
        }
        let (mut message, mut nominated) = (none.message.clone(), None);
        if let Some(node) = self.scheduler.post_filter(pod, &none) {
            self.scheduler.nominate(pod.clone(), &node);
            nominated = Some(node);
        } else {
            match self.scheduler.preempt(pod, &none) {
                Ok(preemption) => {
                    self.metrics.preempted(preemption.victims.len());
                    self.make_room(now, pod, &preemption, out);
                    nominated = Some(preemption.name);
                }
                Err(why) => {
                    if !why.is_empty() {
                        self.metrics.preemption_tried();
                        message = format!("{message} {why}");
                    }
                    if none.preemptable == 0 {
                        // Room that was kept is of no use.
                        self.scheduler.clear_nomination(&pod.key);
                        nominated = Some(String::new());
                    }
                }
            }
        }
        self.unschedulable(now, pod, none.plugins, message, nominated.as_deref(), out);
    }

    /// Tells of a pod that found no node, and lets it wait until something happens that matters to these plugins.
    pub(super) fn unschedulable(
        &mut self,
        now: Time,
        pod: &Pod,
        plugins: BTreeSet<&'static str>,
        message: String,
        nominated: Option<&str>,
        out: &mut Vec<Effect>,
    ) {
        self.attempted(now, pod, "unschedulable");
        self.queue.unschedulable(now, &pod.key, plugins);
        self.metrics.incoming("unschedulable", "ScheduleAttemptFailure", 1);
        let Some(object) = self.object(&pod.key) else { return };
        self.note(now, requests::not_scheduled(now, &object, "Unschedulable", &message, nominated), out);
        self.tell(now, &object, EventType::Warning, "FailedScheduling", "Scheduling", message, out);
    }

    pub(super) fn bind(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        if !self.delegate(now, &pod, &node, out) {
            self.bind_here(now, pod, node, out);
        }
    }

    /// Binds whatever extenders there are.
    pub(super) fn bind_here(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        let request = requests::binding(&pod, &node);
        self.send(now, request, Flight::Bind { pod, node }, out);
    }

    /// Asks for the pod's volumes and for what plugins want done; it is bound when all of that is done.
    pub(super) fn prepare(
        &mut self,
        now: Time,
        pod: Pod,
        node: String,
        todo: &[Preparation],
        wanted: Vec<ApiRequest>,
        out: &mut Vec<Effect>,
    ) {
        let mut requests = wanted;
        for preparation in todo {
            let (Preparation::Keep { claim, .. } | Preparation::Provision { claim }) = preparation;
            let gvr = &resources::PERSISTENT_VOLUME_CLAIMS;
            let Some(object) = self.informers.get(gvr).and_then(|i| i.store().get_key(claim)).cloned() else {
                continue;
            };
            requests.push(match preparation {
                Preparation::Keep { volume, .. } => requests::keep(volume, &object),
                Preparation::Provision { .. } => requests::provision(&object, &node),
            });
        }
        let mut open = BTreeSet::new();
        for request in requests {
            open.insert(self.send(now, request, Flight::Prepare { pod: pod.clone() }, out));
        }
        let id = self.ids.next_id();
        self.timers.set(id, now + self.config.volumes_timeout);
        self.preparing.insert(id, Preparing { pod, node, open });
    }

    /// Binds the pods for which all is done.
    fn bind_prepared(&mut self, now: Time, out: &mut Vec<Effect>) {
        let cluster = self.scheduler.cluster();
        let ready = |p: &Preparing| {
            p.open.is_empty()
                && p.pod.spec.volumes.iter().all(|v| match v {
                    VolumeSource::Claim { name, .. } => {
                        let key = ObjectKey::new(&p.pod.key.namespace, name);
                        cluster.storage().claims.get(&key).is_some_and(Claim::is_bound)
                    }
                    _ => true,
                })
        };
        let ready = self.preparing.iter().filter(|(_, p)| ready(p));
        let ids: Vec<RequestId> = ready.map(|(id, _)| *id).collect();
        for id in ids {
            self.timers.cancel(&id);
            if let Some(Preparing { pod, node, .. }) = self.preparing.remove(&id)
                && self.leading(now).is_some()
                && self.scheduler.cluster().is_assumed(&pod.key)
            {
                self.bind(now, pod, node, out);
            }
        }
    }

    /// What must be done before a pod is bound cannot be done on its node.
    fn give_up_preparing(&mut self, now: Time, pod: &Pod) {
        let ids = self.preparing.iter().filter(|(_, p)| p.pod.key == pod.key && p.pod.uid == pod.uid);
        let ids: Vec<RequestId> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            self.timers.cancel(&id);
            self.preparing.remove(&id);
            self.take_back(now, pod);
            self.try_again(now, pod);
        }
    }

    /// Evicts the victims, and keeps the room for the pod.
    fn make_room(&mut self, now: Time, pod: &Pod, preemption: &Preemption, out: &mut Vec<Effect>) {
        for victim in &preemption.victims {
            if let Some(object) = self.object(&victim.key) {
                let scheduler =
                    self.scheduler.profile(&pod.scheduler_name).unwrap_or(&self.config.scheduler_name);
                let note = requests::disrupted(now, &object, scheduler);
                self.note(now, note, out);
                let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.name);
                self.tell(now, &object, EventType::Normal, "Preempted", "Preempting", message, out);
            }
            let request = requests::evict(victim);
            self.send(now, request, Flight::Evict { preemptor: pod.key.clone() }, out);
        }
        for key in self.scheduler.outranked(pod, &preemption.name) {
            self.scheduler.clear_nomination(&key);
            if let Some(object) = self.object(&key) {
                self.note(now, Some(requests::no_nomination(&object)), out);
            }
        }
        self.scheduler.nominate(pod.clone(), &preemption.name);
    }

    pub(super) fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.informers.get(&resources::PODS)?.store().get_key(key).cloned()
    }

    pub(super) fn send(
        &mut self,
        now: Time,
        request: ApiRequest,
        flight: Flight,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = self.ids.next_id();
        out.push(ClientEffect::Request { id, request }.into());
        self.timers.set(id, now + ANSWER_TIMEOUT);
        self.flights.insert(id, flight);
        id
    }

    fn on_answer(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.timers.cancel(&id);
        match flight {
            Flight::Bind { pod, node } => self.on_binding(now, pod, node, answer, out),
            Flight::Read { pod, node } => match (requests::outcome(answer), answer) {
                (Outcome::Bound, Ok(Reply::Object(object))) if object.metadata.uid == pod.uid => {
                    if object.str_at("/spec/nodeName").is_empty() {
                        self.take_back(now, &pod);
                        self.try_again(now, &pod);
                    } else {
                        self.bound(now, &pod, &node, out);
                    }
                }
                (Outcome::Bound | Outcome::Gone, _) => {
                    self.take_back(now, &pod);
                    self.queue.remove(&pod.key);
                }
                _ => {
                    let id = self.ids.next_id();
                    self.timers.set(id, now + READ_AGAIN);
                    self.flights.insert(id, Flight::ReadLater { pod, node });
                }
            },
            Flight::Prepare { pod } => {
                if requests::outcome(answer) == Outcome::Bound {
                    self.preparing.values_mut().for_each(|p| {
                        p.open.remove(&id);
                    });
                    self.bind_prepared(now, out);
                } else {
                    self.give_up_preparing(now, &pod);
                }
            }
            Flight::Evict { preemptor } => {
                if !matches!(requests::outcome(answer), Outcome::Bound | Outcome::Gone) {
                    // The room is not made; the pod looks for another way after its pause.
                    self.scheduler.clear_nomination(&preemptor);
                    self.queue.retry(now, &preemptor);
                }
            }
            later @ (Flight::ReadLater { .. } | Flight::Delegate { .. }) => {
                self.flights.insert(id, later);
            }
        }
    }

    fn on_binding(
        &mut self,
        now: Time,
        pod: Pod,
        node: String,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        match requests::outcome(answer) {
            Outcome::Bound => self.bound(now, &pod, &node, out),
            Outcome::Gone => {
                self.take_back(now, &pod);
                if self.queue.get(&pod.key).is_some_and(|p| p.uid == pod.uid) {
                    self.queue.remove(&pod.key);
                }
            }
            Outcome::Refused => {
                self.take_back(now, &pod);
                let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                self.erred(now, &pod, format!("running Bind plugin \"DefaultBinder\": {why}"), out);
            }
            Outcome::Unknown => {
                let request = requests::read(&pod.key);
                self.send(now, request, Flight::Read { pod, node }, out);
            }
        }
    }

    pub(super) fn bound(&mut self, now: Time, pod: &Pod, node: &str, out: &mut Vec<Effect>) {
        self.placed(now, pod);
        if self.queue.get(&pod.key).is_some_and(|p| p.uid == pod.uid) {
            self.queue.remove(&pod.key);
        }
        if let Some(object) = self.object(&pod.key) {
            let message = format!("Successfully assigned {} to {node}", pod.key);
            self.tell(now, &object, EventType::Normal, "Scheduled", "Binding", message, out);
        }
    }

    /// The pod is not on the node that it was assumed to be on.
    pub(super) fn take_back(&mut self, now: Time, pod: &Pod) {
        self.release(&pod.key, &pod.uid);
        let ours = self.scheduler.cluster().pod(&pod.key).is_some_and(|p| p.uid == pod.uid);
        if ours && self.scheduler.forget(&pod.key) {
            self.happened(now, ClusterEvent::PodRemoved);
        }
    }

    fn on_timer(&mut self, now: Time, id: RequestId, out: &mut Vec<Effect>) {
        if self.note_ended(now, id, out) {
            return;
        }
        if let Some(pod) = self.preparing.get(&id).map(|p| p.pod.clone()) {
            self.give_up_preparing(now, &pod);
            return;
        }
        if self.permit_timed_out(now, id, out) {
            return;
        }
        if self.extender_answered(now, id, Err("no answer in time".into()), out) {
            return;
        }
        match self.flights.remove(&id) {
            Some(Flight::ReadLater { pod, node }) => {
                let request = requests::read(&pod.key);
                self.send(now, request, Flight::Read { pod, node }, out);
            }
            Some(flight) => {
                self.flights.insert(id, flight);
                self.on_answer(now, id, &Err(ApiError::Unreachable("no answer in time".into())), out);
            }
            None => {}
        }
    }

    /// Writes a condition.
    pub(super) fn note(&mut self, now: Time, request: Option<ApiRequest>, out: &mut Vec<Effect>) {
        if let Some(request) = request.filter(|_| self.notes_open.len() < NOTES_IN_FLIGHT_MAX) {
            self.send_note(now, request, out);
        }
    }

    fn send_note(&mut self, now: Time, request: ApiRequest, out: &mut Vec<Effect>) {
        let id = self.ids.next_id();
        self.notes_open.insert(id);
        self.timers.set(id, now + ANSWER_TIMEOUT);
        out.push(ClientEffect::Request { id, request }.into());
    }

    /// Whether the request was a condition or an Event; then it is over, and one that waits is sent.
    fn note_ended(&mut self, now: Time, id: RequestId, out: &mut Vec<Effect>) -> bool {
        if !self.notes_open.remove(&id) {
            return false;
        }
        self.timers.cancel(&id);
        self.send_events(now, out);
        true
    }

    fn send_events(&mut self, now: Time, out: &mut Vec<Effect>) {
        while self.notes_open.len() < EVENTS_IN_FLIGHT_MAX {
            let Some(Told { at, about, note }) = self.events_waiting.pop_front() else { return };
            let name = about.str_at("/spec/schedulerName");
            let profile = self.scheduler.profile(name).or_else(|| self.scheduler.profiles().next());
            let recorder = profile.and_then(|p| self.recorders.get_mut(p));
            if let Some(request) = recorder.and_then(|r| r.record(at, &about, &note)) {
                self.send_note(now, request, out);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an Event, at its few call sites")]
    pub(super) fn tell(
        &mut self,
        now: Time,
        about: &Arc<Object>,
        kind: EventType,
        reason: &'static str,
        action: &'static str,
        note: String,
        out: &mut Vec<Effect>,
    ) {
        if self.events_waiting.len() < EVENTS_WAITING_MAX {
            let note = EventNote { kind, reason, action, note };
            self.events_waiting.push_back(Told { at: now, about: Arc::clone(about), note });
        }
        self.send_events(now, out);
    }

    fn work(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.follow_leadership(now, out);
        if self.term.is_some() {
            self.pump(now, out);
        }
    }
}

impl Machine for SchedulerMachine {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Start if !self.running => {
                self.running = true;
                if let Some(elector) = &mut self.elector {
                    elector.start(now, &mut self.ids, out);
                }
            }
            Event::Start => {}
            Event::Stop => {
                self.running = false;
                self.follow_leadership(now, out);
                if let Some(elector) = &mut self.elector {
                    elector.stop(now, out);
                }
            }
            Event::Scrape => {
                out.push(Effect::Metrics(self.metrics()));
                return;
            }
            Event::Allow { pod, plugin } => self.allow(now, &pod, &plugin, out),
            Event::Reject { pod, plugin, reason } => self.refuse(now, &pod, &plugin, reason, out),
            Event::Extender { id, answer } => {
                self.follow_leadership(now, out);
                self.extender_answered(now, id, answer, out);
            }
            Event::Client(event) => {
                self.follow_leadership(now, out);
                self.on_client(now, &event, out);
            }
        }
        self.work(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        if let Some(elector) = &mut self.elector {
            elector.wake(now, out);
        }
        self.follow_leadership(now, out);
        for informer in self.informers.values_mut() {
            informer.wake(now, out);
        }
        while let Some(id) = self.timers.pop(now) {
            self.on_timer(now, id, out);
        }
        self.work(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let elector = self.elector.as_ref().and_then(LeaderElector::deadline);
        let informers = self.informers.values().filter_map(Informer::deadline).min();
        // A pod that is due waits for room, for extenders or for what is listed, not for the clock.
        let may = self.term.is_some()
            && self.asking.is_none()
            && self.flights.len() < self.config.bindings_max
            && self.synced();
        let queue = self.queue.deadline().filter(|_| may);
        [elector, informers, self.timers.deadline(), queue, self.more].into_iter().flatten().min()
    }
}
