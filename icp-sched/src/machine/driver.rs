//! The machine.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use icp_core::api::Gvr;
use icp_core::base::{Duration, Machine, Rng, Time, TimingWheel};
use icp_core::client::{
    ClientEvent, EventRecorder, Informer, LeaderElector, ObjectKey, RequestId, RequestIds, Term, block_of,
};

use super::asking::Asking;
use super::bargaining::Bargain;
use super::binding::{Flight, Preparing};
use super::decision::Kept;
use super::gangs::Cohort;
use super::metrics::Metrics;
use super::noting::Told;
use super::{Effect, Event, SchedulerConfig};
use crate::framework::{Stopwatch, Timings, Waiter};
use crate::gang::Gangs;
use crate::model::Pod;
use crate::queue::{Queue, QueueSizes};
use crate::{Scheduler, SchedulerBuilder, TieBreak};

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
    pub(super) gangs: Gangs,
    /// Gangs that have nodes, and some of whose pods wait for a plugin's leave.
    pub(super) cohorts: BTreeMap<ObjectKey, Cohort>,
    /// Groups whose pods are told at some time what they wait for.
    pub(super) patience: TimingWheel<ObjectKey>,
    /// Conditions of groups that are being written, and whether they say that the group is scheduled.
    pub(super) telling: BTreeMap<RequestId, (ObjectKey, bool)>,
    /// The decision that waits for extenders.
    pub(super) asking: Option<Asking>,
    /// The preemption that waits for extenders.
    pub(super) bargain: Option<Bargain>,
    pub(super) metrics: Metrics,
    pub(super) timings: Option<Arc<Timings>>,
    /// Events and conditions, whose answers do not matter.
    pub(super) notes_open: BTreeSet<RequestId>,
    /// Pods that were seen to change after they were given a node, and are not seen on it yet.
    pub(super) outdated: BTreeSet<ObjectKey>,
    pub(super) events_waiting: VecDeque<Told>,
    /// More pods can be decided on at once.
    pub(super) more: Option<Time>,
    pub(super) decisions: Kept,
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
            gangs: Gangs::new(Duration::MAX),
            cohorts: BTreeMap::new(),
            patience: TimingWheel::new(),
            telling: BTreeMap::new(),
            asking: None,
            bargain: None,
            metrics: Metrics::default(),
            timings: None,
            notes_open: BTreeSet::new(),
            outdated: BTreeSet::new(),
            events_waiting: VecDeque::new(),
            more: None,
            decisions: None,
        }
    }

    /// Counts what decisions and plugins take, by this clock. Each plugin is measured in every tenth decision, and there
    /// only if it is asked: what is kept from one decision to the next asks no plugin.
    #[must_use]
    pub fn with_stopwatch(mut self, clock: Arc<dyn Stopwatch>) -> Self {
        self.timings = Some(self.scheduler.measure(clock));
        self
    }

    /// The scheduler with what was observed.
    #[must_use]
    pub const fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What was counted, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let binding = self.flights.values().filter(|f| f.is_binding()).count() + self.preparing.len();
        self.metrics.render(&self.scheduler, &self.queue, binding, self.timings.as_deref())
    }

    /// How many pods wait, and for what.
    #[must_use]
    pub fn queue_sizes(&self) -> QueueSizes {
        self.queue.sizes()
    }

    /// Whether no decision or binding is under way and no pod is ready.
    #[must_use]
    pub fn idle(&self, now: Time) -> bool {
        self.flights.is_empty() && !self.waits_for_extender() && !self.queue.is_ready(now)
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
        self.bargain = None;
        self.timers = TimingWheel::new();
        self.preparing.clear();
        self.waiters.clear();
        for (pod, node) in core::mem::take(&mut self.reserved).into_values() {
            self.scheduler.unreserve(&pod, &node);
        }
        self.gangs = Gangs::new(Duration::MAX);
        self.cohorts.clear();
        self.patience = TimingWheel::new();
        self.telling.clear();
        self.notes_open.clear();
        self.outdated.clear();
        self.events_waiting.clear();
        self.more = None;
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
            && !self.note_ended(now, *id, result, out)
        {
            self.on_answer(now, *id, result, out);
        }
    }

    fn work(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.follow_leadership(now, out);
        if self.term.is_some() {
            self.settle_gangs(now, out);
            self.pump(now, out);
        }
    }
}

impl Machine for SchedulerMachine {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        self.new_input();
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
            Event::Bound { id, result } => {
                self.follow_leadership(now, out);
                self.shell_bound(now, id, result, out);
            }
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
        self.new_input();
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
        while let Some(group) = self.patience.pop(now) {
            self.patience_ended(now, &group, out);
        }
        self.work(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let elector = self.elector.as_ref().and_then(LeaderElector::deadline);
        let informers = self.informers.values().filter_map(Informer::deadline).min();
        // A pod that is due waits for room, for extenders or for what is listed, not for the clock.
        let may = self.term.is_some()
            && !self.waits_for_extender()
            && self.flights.len() < self.config.bindings_max
            && self.synced();
        let queue = self.queue.deadline().filter(|_| may);
        [elector, informers, self.timers.deadline(), self.patience.deadline(), queue, self.more]
            .into_iter()
            .flatten()
            .min()
    }
}
