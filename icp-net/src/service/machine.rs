//! The proxy of one node.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use icp_core::api::{Object, resources};
use icp_core::base::{Backoff, Duration, Machine, Time};
use icp_core::client::{ClientEvent, Delta, Informer, ListOptions, ObjectKey, RequestIds};

use super::config::Config;
use super::event::BackendError;
use super::model::{SERVICE_NAME_LABEL, Service, Slice};
use super::state::{FamilyState, Observed, StaleFlows};
use super::{Effect, Event};
use crate::rules::{Batch, Family, Snapshot, Table, TableId};

const RETRY_INITIAL: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first complete lists.
    Listing,
    /// Nothing, or the time of the next try.
    Idle,
    /// The tables, read back.
    Observing,
    /// The outcome of changes.
    Applying,
}

/// kube-proxy as a machine: Services and EndpointSlices in, changes to packet filter tables out.
///
/// It writes nothing before both resources were listed. Then it reads the tables back once, and from then on only
/// writes what changed; one batch is under way at a time, and what changes meanwhile goes into the next. After a batch
/// that failed, after [`Event::Disturbed`] and every [`Config::resync`] the tables are read again and mended: what
/// agrees is not written.
#[derive(Debug)]
pub struct ProxyMachine {
    config: Config,
    ids: RequestIds,
    services: Informer,
    slices: Informer,
    observed: Observed,
    families: Vec<FamilyState>,
    started: bool,
    phase: Phase,
    generation: u64,
    /// The kernel's state is unknown, or was long not looked at.
    resync: bool,
    due: Option<Time>,
    backoff: Backoff,
    applied: bool,
    last_error: Option<BackendError>,
}

impl ProxyMachine {
    /// A proxy that was not started yet; it starts at its first wake, or by [`ProxyMachine::start`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        let families = config.families.iter().filter(|f| **f != Family::Inet);
        Self {
            families: families.map(|f| FamilyState::new(&config, *f == Family::Ip6)).collect(),
            ids: RequestIds::new(),
            services: Informer::new(resources::SERVICES, ListOptions::default()),
            slices: Informer::new(resources::ENDPOINT_SLICES, ListOptions::default()),
            observed: Observed::default(),
            started: false,
            phase: Phase::Listing,
            generation: 0,
            resync: true,
            due: None,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            applied: false,
            last_error: None,
            config,
        }
    }

    /// Begins to follow Services and EndpointSlices, unless it does so already.
    pub fn start(&mut self, now: Time, out: &mut Vec<Effect>) {
        if core::mem::replace(&mut self.started, true) {
            return;
        }
        self.services.start(now, &mut self.ids, out);
        self.slices.start(now, &mut self.ids, out);
    }

    /// Whether the kernel holds what was last observed of the API server, as far as is known.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.applied && self.phase == Phase::Idle && !self.resync && self.last_error.is_none()
    }

    /// Why the last attempt failed, if it did.
    #[must_use]
    pub const fn last_error(&self) -> Option<&BackendError> {
        self.last_error.as_ref()
    }

    /// The tables as they should be.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        self.families.iter().map(|f| f.table(&self.config)).collect()
    }

    /// How many services, service classes and elements all families have together.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let each = self.families.iter().map(FamilyState::counts);
        each.fold((0, 0, 0), |all, one| (all.0 + one.0, all.1 + one.1, all.2 + one.2))
    }

    /// Takes a change of a Service or EndpointSlice as an informer reports it.
    ///
    /// For callers that follow the resources themselves; [`Machine::on`] does it with [`Event::Client`].
    fn observe(&mut self, delta: &Delta) {
        let object = delta.object();
        if object.kind == "EndpointSlice" || object.metadata.labels.contains_key(SERVICE_NAME_LABEL) {
            if let Delta::Updated { old, new } = delta
                && old.metadata.labels.get(SERVICE_NAME_LABEL) != new.metadata.labels.get(SERVICE_NAME_LABEL)
            {
                self.slice(old, false);
            }
            self.slice(object, !matches!(delta, Delta::Deleted(_)));
        } else {
            self.service(object, !matches!(delta, Delta::Deleted(_)));
        }
    }

    fn service(&mut self, object: &Object, present: bool) {
        let key = ObjectKey::new(&object.metadata.namespace, &object.metadata.name);
        let service = if present { Service::of(object) } else { None };
        if self.observed.services.get(&key) == service.as_ref() {
            return;
        }
        match service {
            Some(service) => self.observed.services.insert(key.clone(), service),
            None => self.observed.services.remove(&key),
        };
        self.families.iter_mut().for_each(|f| f.touch(&key));
    }

    fn slice(&mut self, object: &Object, present: bool) {
        let Some(service) = object.metadata.labels.get(SERVICE_NAME_LABEL) else { return };
        let key = ObjectKey::new(&object.metadata.namespace, service);
        let slices = self.observed.slices.entry(key.clone()).or_default();
        let slice = present.then(|| Slice::of(object, &self.config.node));
        let name = &object.metadata.name;
        if slices.get(name) == slice.as_ref() {
            return;
        }
        match slice {
            Some(slice) => slices.insert(name.clone(), slice),
            None => slices.remove(name),
        };
        if slices.is_empty() {
            self.observed.slices.remove(&key);
        }
        if self.observed.services.contains_key(&key) {
            self.families.iter_mut().for_each(|f| f.touch(&key));
        }
    }

    /// Does what can be done now.
    fn step(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.phase == Phase::Listing && self.services.synced() && self.slices.synced() {
            self.phase = Phase::Idle;
        }
        if self.phase != Phase::Idle {
            return;
        }
        if self.resync {
            if self.due.is_none_or(|due| due <= now) {
                self.phase = Phase::Observing;
                self.generation += 1;
                self.due = None;
                self.resync = false;
                let tables = self.families.iter().map(|f| f.id().clone()).collect();
                out.push(Effect::Observe { generation: self.generation, tables });
            }
        } else if self.families.iter().any(FamilyState::is_dirty) {
            let mut batch = Batch::new();
            let mut stale = Vec::new();
            for family in self.families.iter_mut().filter(|f| f.is_dirty()) {
                let (changes, flows) = family.delta(&self.config, &self.observed);
                batch.changes.extend(changes.changes);
                stale.extend(flows);
            }
            self.apply(now, batch, stale, out);
        }
    }

    fn apply(&mut self, now: Time, batch: Batch, stale: Vec<StaleFlows>, out: &mut Vec<Effect>) {
        if batch.is_empty() {
            self.done(now);
        } else {
            self.phase = Phase::Applying;
            self.generation += 1;
            out.push(Effect::Apply { generation: self.generation, batch });
        }
        // Behind the changes, so that no packet makes a stale flow anew.
        if !stale.is_empty() {
            out.push(Effect::ForgetFlows(stale));
        }
    }

    fn done(&mut self, now: Time) {
        self.phase = Phase::Idle;
        self.applied = true;
        self.last_error = None;
        self.backoff.reset();
        if self.due.is_none() && !self.resync {
            self.due = Some(now + self.config.resync);
        }
    }

    fn failed(&mut self, now: Time, error: BackendError) {
        self.phase = Phase::Idle;
        self.last_error = Some(error);
        self.resync = true;
        self.due = Some(now + self.backoff.next_delay());
    }

    fn on_observed(
        &mut self,
        now: Time,
        mut tables: BTreeMap<TableId, Option<Snapshot>>,
        out: &mut Vec<Effect>,
    ) {
        let mut batch = Batch::new();
        let mut stale = Vec::new();
        for family in &mut self.families {
            let snapshot = tables.remove(family.id()).flatten();
            let (changes, flows) = family.resync(&self.config, &self.observed, snapshot.as_ref());
            batch.changes.extend(changes.changes);
            stale.extend(flows);
        }
        self.apply(now, batch, stale, out);
    }

    fn on_client(&mut self, now: Time, event: &ClientEvent, out: &mut Vec<Effect>) {
        let mut deltas = self.services.on(now, event, out);
        deltas.extend(self.slices.on(now, event, out));
        deltas.iter().for_each(|d| self.observe(d));
    }
}

impl Machine for ProxyMachine {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Client(event) => self.on_client(now, &event, out),
            Event::Observed { generation, result } if self.is_awaited(Phase::Observing, generation) => {
                match result {
                    Ok(tables) => self.on_observed(now, tables, out),
                    Err(e) => self.failed(now, e),
                }
            }
            Event::Applied { generation, result } if self.is_awaited(Phase::Applying, generation) => {
                match result {
                    Ok(()) => self.done(now),
                    Err(e) => self.failed(now, e),
                }
            }
            Event::Disturbed => {
                self.resync = true;
                self.due = None;
            }
            Event::Observed { .. } | Event::Applied { .. } => return,
        }
        self.step(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.start(now, out);
        self.services.wake(now, out);
        self.slices.wake(now, out);
        if self.phase == Phase::Idle && self.due.is_some_and(|due| due <= now) {
            self.resync = true;
        }
        self.step(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let own = self.due.filter(|_| self.phase == Phase::Idle);
        let start = (!self.started).then_some(Time::ZERO);
        [own, start, self.services.deadline(), self.slices.deadline()].into_iter().flatten().min()
    }
}

impl ProxyMachine {
    fn is_awaited(&self, phase: Phase, generation: u64) -> bool {
        self.phase == phase && self.generation == generation
    }
}
