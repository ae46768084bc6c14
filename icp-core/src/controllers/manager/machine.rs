//! The machine.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::execute::{Role, Run, Verdict, judge, namespace_ends, stand_in};
use super::{Effect, Event};
use crate::api::{Gvr, resources};
use crate::base::{Backoff, Duration, Machine, Rng, Time, TimingWheel};
use crate::client::{
    ApiError, ClientEffect, ClientEvent, Delta, EventRecorder, Informer, LeaderElector, ListOptions,
    ObjectKey, Reply, RequestId, RequestIds, Term, WorkQueue, block_of,
};
use crate::controllers::{Action, Cache, Controller, ManagerConfig, Note, support};

/// Pauses between plans of a key that fails (client-go `DefaultControllerRateLimiter`).
const RETRY_INITIAL: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);
/// Pauses between tries of a request whose outcome is unknown.
const AGAIN_INITIAL: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Tries of a request whose outcome stays unknown, before the plan is given up behind a barrier.
const TRIES_MAX: u32 = 8;
/// A request without an answer counts as failed with unknown outcome.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The cache need not show what was written after this long (`ExpectationsTimeout` upstream).
const EXPECT_TIMEOUT: Duration = Duration::from_secs(300);
/// Plans of one key in a row that all had steps, before the key is slowed down.
const STREAK_MAX: u32 = 20;
/// Requests in flight for plans; and for Events, beyond which they are dropped.
const IN_FLIGHT_MAX: usize = 512;
const EVENTS_IN_FLIGHT_MAX: usize = 64;

struct Slot {
    controller: Box<dyn Controller>,
    /// What must be synced before the first plan.
    needs: Vec<Gvr>,
    /// Whether it is; once it is, it stays so until the informers start anew.
    synced: bool,
    optional: Vec<Gvr>,
    queue: WorkQueue<ObjectKey>,
    streaks: BTreeMap<ObjectKey, u32>,
    rng: Rng,
    recorder: EventRecorder,
}

struct Flight {
    slot: usize,
    key: ObjectKey,
    action: Action,
    role: Role,
    tries: u32,
    backoff: Backoff,
    /// It waits for its next try.
    parked: bool,
}

/// Runs controllers over shared informers.
///
/// It follows each resource once for all controllers, keeps one work queue per controller, executes each plan step by
/// step, and plans a key again only when the cache shows what the last plan wrote, so that a late watch never makes
/// it create something twice. A request whose outcome is unknown is repeated as it was: creations carry
/// names that the client chose, so that a repetition meets `AlreadyExists`.
///
/// With leader election, informers start anew with each leadership, because what was seen before may be older than
/// the writes of the leader before; requests are made only while [`LeaderElector::leading`] says so.
pub struct Manager {
    config: ManagerConfig,
    rng: Rng,
    ids: RequestIds,
    slots: Vec<Slot>,
    cache: Cache,
    informer_of: BTreeMap<u64, Gvr>,
    elector: Option<LeaderElector>,
    running: bool,
    term: Option<Term>,
    runs: BTreeMap<(usize, ObjectKey), Run>,
    /// Runs whose requests are answered and that wait for the cache.
    waiting: BTreeSet<(usize, ObjectKey)>,
    flights: BTreeMap<RequestId, Flight>,
    /// When a parked request is tried again, or an unanswered one is given up.
    timers: TimingWheel<RequestId>,
    events_open: BTreeSet<RequestId>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("controllers", &self.slots.len())
            .field("runs", &self.runs.len())
            .field("flights", &self.flights.len())
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// A manager with all built-in controllers that `config` asks for.
    #[must_use]
    pub fn new(config: ManagerConfig, rng: Rng) -> Self {
        let controllers = config.controllers();
        let mut manager = Self::with_controllers(config, rng, Vec::new());
        for controller in controllers {
            manager.add(controller);
        }
        manager
    }

    /// A manager with these controllers alone.
    #[must_use]
    pub fn with_controllers(config: ManagerConfig, rng: Rng, controllers: Vec<Box<dyn Controller>>) -> Self {
        let elector = config.leader_election.clone().map(|c| LeaderElector::new(c, rng.child("elector")));
        let mut manager = Self {
            config,
            rng,
            ids: RequestIds::new(),
            slots: Vec::new(),
            cache: Cache::default(),
            informer_of: BTreeMap::new(),
            elector,
            running: false,
            term: None,
            runs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            flights: BTreeMap::new(),
            timers: TimingWheel::new(),
            events_open: BTreeSet::new(),
        };
        for controller in controllers {
            manager.add(controller);
        }
        manager
    }

    /// Adds a controller; before [`Event::Start`].
    pub fn add(&mut self, controller: Box<dyn Controller>) {
        let rng = self.rng.child(controller.name());
        self.slots.push(Slot {
            needs: controller.watches(),
            synced: false,
            optional: controller.watches_optionally(),
            queue: WorkQueue::new(RETRY_INITIAL, RETRY_MAX),
            streaks: BTreeMap::new(),
            recorder: EventRecorder::new(controller.name(), &self.config.instance, rng.child("events")),
            rng,
            controller,
        });
    }

    /// The observed state.
    #[must_use]
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Whether every controller's resources were listed completely.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.slots.iter().flat_map(|s| &s.needs).all(|gvr| self.cache.synced(gvr))
    }

    /// Whether nothing is under way and no key is ready: the observed state is as the controllers want it.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.runs.is_empty() && self.slots.iter().all(|s| !s.queue.is_ready())
    }

    /// The leadership, if this manager may act at `now`; always without leader election.
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
        for informer in self.cache.informers.values_mut() {
            informer.stop(out);
        }
        self.cache = Cache::default();
        self.informer_of.clear();
        self.runs.clear();
        self.waiting.clear();
        self.flights.clear();
        self.timers = TimingWheel::new();
        self.events_open.clear();
        for slot in &mut self.slots {
            slot.queue.clear();
            slot.synced = false;
            slot.controller.reset();
            slot.streaks.clear();
        }
    }

    fn follow_all(&mut self, now: Time, out: &mut Vec<Effect>) {
        let wanted: BTreeSet<Gvr> =
            self.slots.iter().flat_map(|s| s.needs.iter().chain(&s.optional)).cloned().collect();
        for gvr in wanted {
            self.follow(now, &gvr, out);
        }
        for slot in &mut self.slots {
            slot.controller.first_keys().into_iter().for_each(|key| slot.queue.add(key));
        }
    }

    fn follow(&mut self, now: Time, gvr: &Gvr, out: &mut Vec<Effect>) {
        if self.cache.informers.contains_key(gvr) {
            return;
        }
        let rng = self.rng.child("informers").child(&gvr.path(None));
        let mut informer = Informer::new(gvr.clone(), ListOptions::default()).with_rng(rng);
        for slot in &self.slots {
            for (_, name, values_of) in slot.controller.indices().into_iter().filter(|(g, ..)| g == gvr) {
                informer.add_index(name, values_of);
            }
        }
        informer.start(now, &mut self.ids, out);
        self.informer_of.insert(informer.block(), gvr.clone());
        self.cache.informers.insert(gvr.clone(), informer);
    }

    fn on_client(&mut self, now: Time, event: ClientEvent, out: &mut Vec<Effect>) {
        if let Some(elector) = self.elector.as_mut().filter(|e| e.expects(&event)) {
            elector.on(now, &event, out);
            return;
        }
        let (ClientEvent::Reply { id, .. }
        | ClientEvent::Watch { id, .. }
        | ClientEvent::WatchClosed { id, .. }) = &event;
        if let Some(gvr) = self.informer_of.get(&block_of(*id)).cloned() {
            self.on_watched(now, &gvr, &event, out);
        } else if let ClientEvent::Reply { id, result } = event
            && !self.events_open.remove(&id)
        {
            self.on_answer(now, id, &result, out);
        }
    }

    fn on_watched(&mut self, now: Time, gvr: &Gvr, event: &ClientEvent, out: &mut Vec<Effect>) {
        let Some(informer) = self.cache.informers.get_mut(gvr) else { return };
        let deltas = informer.on(now, event, out);
        let mut keys = Vec::new();
        for delta in &deltas {
            for slot in &mut self.slots {
                if slot.needs.contains(gvr) || slot.optional.contains(gvr) {
                    slot.controller.concerns(now, &self.cache, gvr, delta, &mut keys);
                    keys.drain(..).for_each(|key| slot.queue.add(key));
                }
            }
            if *gvr == resources::CUSTOM_RESOURCE_DEFINITIONS {
                self.follow_custom(now, delta, out);
            }
        }
    }

    /// Follows a custom resource for the controllers that watch every kind.
    fn follow_custom(&mut self, now: Time, delta: &Delta, out: &mut Vec<Effect>) {
        let Some(kind) = support::custom_resource(delta.object()) else { return };
        if matches!(delta, Delta::Deleted(_)) {
            if let Some(mut informer) = self.cache.informers.remove(&kind.gvr) {
                self.informer_of.remove(&informer.block());
                informer.stop(out);
            }
            return;
        }
        let watchers =
            self.slots.iter_mut().filter(|s| s.optional.contains(&resources::CUSTOM_RESOURCE_DEFINITIONS));
        for slot in watchers {
            if !slot.optional.contains(&kind.gvr) {
                slot.optional.push(kind.gvr.clone());
            }
        }
        self.follow(now, &kind.gvr, out);
    }

    fn on_answer(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.remove(&id).filter(|f| !f.parked) else { return };
        self.timers.cancel(&id);
        let Flight { slot: at, key, action, role, tries, backoff, .. } = flight;
        let Some(slot) = self.slots.get_mut(at) else { return };
        let verdict = judge(&action, role, tries, answer);
        if role == Role::Action && !matches!(verdict, Verdict::Again) {
            slot.controller.answered(now, &key, &action.request, answer);
        }
        let Some(run) = self.runs.get_mut(&(at, key.clone())) else { return };
        match verdict {
            Verdict::Done(expect) => {
                run.open -= 1;
                run.expects.extend(expect);
                if let Some(note) = action.success.filter(|_| role == Role::Action) {
                    self.tell(now, at, &note, out);
                }
            }
            Verdict::Failed(expect) => {
                run.open -= 1;
                run.failed = true;
                run.expects.extend(expect);
                if let (Some(note), Err(e)) = (action.failure, answer)
                    && !namespace_ends(e)
                {
                    self.tell(now, at, &with_error(note, e), out);
                }
            }
            Verdict::Catch { ours } => {
                run.failed |= !ours && !action.tolerate.contains(&crate::api::reason::ALREADY_EXISTS);
                let action = stand_in(&action, Role::Catch);
                self.send(now, at, &key, action, Role::Catch, out);
            }
            Verdict::Again if tries >= TRIES_MAX && role == Role::Action => {
                run.failed = true;
                if let (Some(note), Err(e)) = (action.failure.clone(), answer) {
                    self.tell(now, at, &with_error(note, e), out);
                }
                let action = stand_in(&action, Role::Barrier);
                self.send(now, at, &key, action, Role::Barrier, out);
            }
            Verdict::Again => {
                let mut backoff = backoff;
                let due = now + backoff.next_delay_jittered(0.5, &mut slot.rng);
                self.timers.set(id, due);
                self.flights.insert(id, Flight { slot: at, key, action, role, tries, backoff, parked: true });
                return;
            }
        }
        self.advance(now, at, &key, out);
    }

    fn send(
        &mut self,
        now: Time,
        slot: usize,
        key: &ObjectKey,
        action: Action,
        role: Role,
        out: &mut Vec<Effect>,
    ) {
        let id = self.ids.next_id();
        out.push(ClientEffect::Request { id, request: action.request.clone() }.into());
        let backoff = Backoff::new(AGAIN_INITIAL, AGAIN_MAX);
        self.timers.set(id, now + ANSWER_TIMEOUT);
        self.flights
            .insert(id, Flight { slot, key: key.clone(), action, role, tries: 1, backoff, parked: false });
    }

    fn on_timer(&mut self, now: Time, id: RequestId, out: &mut Vec<Effect>) {
        match self.flights.remove(&id) {
            Some(flight) if flight.parked => {
                let id = self.ids.next_id();
                out.push(ClientEffect::Request { id, request: flight.action.request.clone() }.into());
                self.timers.set(id, now + ANSWER_TIMEOUT);
                self.flights.insert(id, Flight { parked: false, tries: flight.tries + 1, ..flight });
            }
            Some(flight) => {
                self.flights.insert(id, flight);
                self.on_answer(now, id, &Err(ApiError::Unreachable("no answer in time".into())), out);
            }
            None => {}
        }
    }

    fn tell(&mut self, now: Time, slot: usize, note: &Note, out: &mut Vec<Effect>) {
        if self.events_open.len() >= EVENTS_IN_FLIGHT_MAX {
            return;
        }
        let Some(slot) = self.slots.get_mut(slot) else { return };
        if let Some(request) = slot.recorder.record(now, &note.about, &note.note) {
            let id = self.ids.next_id();
            self.events_open.insert(id);
            out.push(ClientEffect::Request { id, request }.into());
        }
    }

    /// Goes on with a run whose open requests may all be answered.
    fn advance(&mut self, now: Time, slot: usize, key: &ObjectKey, out: &mut Vec<Effect>) {
        let id = (slot, key.clone());
        let Some(run) = self.runs.get_mut(&id).filter(|r| r.open == 0) else { return };
        if run.failed {
            run.steps.clear();
        }
        match run.steps.pop_front() {
            Some(step) => {
                run.open = step.len();
                for action in step {
                    self.send(now, slot, key, action, Role::Action, out);
                }
            }
            None => {
                run.give_up = Some(now + EXPECT_TIMEOUT);
                self.waiting.insert(id);
            }
        }
    }

    /// Ends the runs whose writes the cache shows.
    fn settle(&mut self, now: Time) {
        let ready: Vec<(usize, ObjectKey)> = self
            .waiting
            .iter()
            .filter(|id| {
                self.runs.get(*id).is_none_or(|run| {
                    run.give_up.is_some_and(|due| due <= now)
                        || run.expects.iter().all(|e| e.holds(&self.cache))
                })
            })
            .cloned()
            .collect();
        for id in ready {
            self.waiting.remove(&id);
            let (Some(run), (at, key)) = (self.runs.remove(&id), id) else { continue };
            let Some(slot) = self.slots.get_mut(at) else { continue };
            let streak = slot.streaks.entry(key.clone()).or_default();
            *streak = streak.saturating_add(1);
            if run.failed || *streak > STREAK_MAX {
                slot.queue.retry(key.clone(), now);
            } else {
                slot.queue.forget(&key);
                slot.queue.add(key.clone());
            }
            if let Some(due) = run.again_at {
                slot.queue.add_at(key.clone(), due);
            }
            slot.queue.done(&key);
        }
    }

    /// Plans keys that are ready, as long as there is room for requests.
    fn pump(&mut self, now: Time, out: &mut Vec<Effect>) {
        for at in 0..self.slots.len() {
            while let Some(slot) = self.slots.get_mut(at) {
                if self.flights.len() >= IN_FLIGHT_MAX || !slot.synced {
                    break;
                }
                let Some(key) = slot.queue.pop(now) else { break };
                let plan = slot.controller.plan(now, &self.cache, &key, &mut slot.rng);
                if plan.steps.is_empty() {
                    slot.streaks.remove(&key);
                    slot.queue.forget(&key);
                    if let Some(due) = plan.again_at {
                        // A plan without steps that is due at once would be made for ever.
                        slot.queue.add_at(key.clone(), due.max(now + RETRY_INITIAL));
                    }
                    slot.queue.done(&key);
                } else {
                    let steps = VecDeque::from(plan.steps);
                    let run = Run { steps, again_at: plan.again_at, ..Run::default() };
                    self.runs.insert((at, key.clone()), run);
                    self.advance(now, at, &key, out);
                }
                for note in &plan.notes {
                    self.tell(now, at, note, out);
                }
            }
        }
    }

    fn work(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.follow_leadership(now, out);
        if self.term.is_some() {
            for slot in self.slots.iter_mut().filter(|s| !s.synced) {
                slot.synced = slot.needs.iter().all(|gvr| self.cache.synced(gvr));
            }
            self.settle(now);
            self.pump(now, out);
        }
    }
}

fn with_error(mut note: Note, error: &ApiError) -> Note {
    let text: String = match error {
        ApiError::Status(status) => status.message.clone(),
        other => other.to_string(),
    };
    note.note.note = format!("{}{text}", note.note.note);
    note
}

impl Machine for Manager {
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
            Event::Client(event) => {
                self.follow_leadership(now, out);
                self.on_client(now, event, out);
            }
        }
        self.work(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        if let Some(elector) = &mut self.elector {
            elector.wake(now, out);
        }
        self.follow_leadership(now, out);
        for informer in self.cache.informers.values_mut() {
            informer.wake(now, out);
        }
        while let Some(id) = self.timers.pop(now) {
            self.on_timer(now, id, out);
        }
        self.work(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let elector = self.elector.as_ref().and_then(LeaderElector::deadline);
        let informers = self.cache.informers.values().filter_map(Informer::deadline).min();
        let waiting = self.waiting.iter().filter_map(|id| self.runs.get(id)?.give_up).min();
        // A key that is due waits for its resources to be listed, not for the clock.
        let room = self.flights.len() < IN_FLIGHT_MAX;
        let queues = self.slots.iter().filter(|s| room && s.synced).filter_map(|s| s.queue.deadline()).min();
        [elector, informers, waiting, self.timers.deadline(), queues].into_iter().flatten().min()
    }
}
