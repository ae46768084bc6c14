//! The routes of one machine.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::{Object, resources};
use icp_core::base::{Backoff, Duration, Machine, Time};
use icp_core::client::{
    ApiRequest, ClientEffect, ClientEvent, Delta, Informer, ListOptions, Operation, PatchKind, RequestId,
    RequestIds,
};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::plan::{NodeFacts, RouteEntry, Wanted, masquerade, route_changes, wanted};
use super::{Changes, Config, Effect, Event, Failure, Observed};
use crate::rules::{Family, sync};

const RETRY_INITIAL: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Between two attempts to write the condition.
const REPORT_PAUSE: Duration = Duration::from_secs(5);
/// The condition, and what calico/node says in it (`node/pkg/lifecycle/startup`).
const CONDITION: &str = "NetworkUnavailable";
/// Most problems that the condition's message names.
const PROBLEMS_NAMED_MAX: usize = 5;

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first complete list.
    Listing,
    /// Nothing, or the time of the next try.
    Idle,
    /// The kernel's state.
    Observing,
    /// The outcome of changes.
    Applying,
}

/// Follows Nodes and keeps the routes, the masquerade rules and the forwarding of one machine.
///
/// It writes nothing before Nodes were listed. Each time they change in what matters, after [`Event::Disturbed`],
/// after a failure and every [`Config::resync`] it reads the kernel's state, and writes what differs.
#[derive(Debug)]
pub struct RouteMachine {
    config: Config,
    ids: RequestIds,
    informer: Informer,
    nodes: BTreeMap<String, NodeFacts>,
    wanted: Wanted,
    phase: Phase,
    started: bool,
    generation: u64,
    /// The kernel's state may not be what is wanted.
    dirty: bool,
    due: Option<Time>,
    backoff: Backoff,
    applied: bool,
    failures: Vec<Failure>,
    announced: Option<Vec<IpNet>>,
    /// The patch of the condition that is under way.
    reporting: Option<RequestId>,
    report_due: Option<Time>,
}

impl RouteMachine {
    /// A machine that was not started yet; it starts at its first wake.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ids: RequestIds::new(),
            informer: Informer::new(resources::NODES, ListOptions::default()),
            nodes: BTreeMap::new(),
            wanted: Wanted::default(),
            phase: Phase::Listing,
            started: false,
            generation: 0,
            dirty: true,
            due: None,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            applied: false,
            failures: Vec::new(),
            announced: None,
            reporting: None,
            report_due: None,
        }
    }

    /// Whether the kernel holds what was last observed of Nodes, as far as is known.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.applied && self.phase == Phase::Idle && !self.dirty && self.failures.is_empty()
    }

    /// What cannot be done: what is wrong with Nodes, and what the kernel refused last.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.wanted.problems.iter().chain(self.failures.iter().map(|f| &f.why)).map(String::as_str)
    }

    /// The routes as they should be.
    #[must_use]
    pub const fn routes(&self) -> &BTreeSet<RouteEntry> {
        &self.wanted.routes
    }

    fn observe(&mut self, deltas: &[Delta], out: &mut Vec<Effect>) {
        let mut changed = false;
        for delta in deltas {
            let node: &Object = delta.object();
            let name = &node.metadata.name;
            let facts = match delta {
                Delta::Deleted(_) => None,
                _ => Some(NodeFacts::of(node)),
            };
            changed |= self.nodes.get(name) != facts.as_ref();
            match facts {
                Some(facts) => self.nodes.insert(name.clone(), facts),
                None => self.nodes.remove(name),
            };
        }
        let first = self.phase == Phase::Listing && self.informer.synced();
        if first {
            self.phase = Phase::Idle;
        }
        if !(first || changed && self.phase != Phase::Listing) {
            return;
        }
        let wanted = wanted(&self.config.node, &self.nodes);
        if first || wanted.routes != self.wanted.routes {
            self.dirty = true;
            self.due = None;
        }
        self.wanted = wanted;
        if self.announced.as_ref() != Some(&self.wanted.pod_networks) {
            self.announced = Some(self.wanted.pod_networks.clone());
            out.push(Effect::PodNetworks(self.wanted.pod_networks.clone()));
        }
    }

    /// Does what can be done now.
    fn step(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.phase == Phase::Idle && self.dirty && self.due.is_none_or(|due| due <= now) {
            self.phase = Phase::Observing;
            self.generation += 1;
            self.due = None;
            self.dirty = false;
            let tables = masquerade(&self.config).into_iter().map(|table| table.id).collect();
            out.push(Effect::Observe { generation: self.generation, tables });
        }
        self.report(now, out);
    }

    fn on_observed(&mut self, now: Time, mut found: Observed, out: &mut Vec<Effect>) {
        let (delete, add) = route_changes(&self.wanted.routes, &found.routes);
        let mut changes = Changes { delete, add, ..Changes::default() };
        let families =
            self.config.pod_networks.iter().chain(self.wanted.routes.iter().map(|r| &r.destination));
        let families = families.map(|net| if net.addr().is_ipv6() { Family::Ip6 } else { Family::Ip });
        changes.forward = families.filter(|family| !found.forwarding.contains(family)).collect();
        for table in masquerade(&self.config) {
            let there = found.tables.remove(&table.id).flatten();
            let has_rules = table.chains.values().any(|chain| !chain.rules.is_empty());
            // A table that would do nothing is not made, but one that is there is emptied.
            if has_rules || there.is_some() {
                changes.batch.changes.extend(sync(&table, there.as_ref()).changes);
            }
        }
        if changes.is_empty() {
            self.done(now, Vec::new());
        } else {
            self.phase = Phase::Applying;
            self.generation += 1;
            out.push(Effect::Apply { generation: self.generation, changes });
        }
    }

    fn done(&mut self, now: Time, failures: Vec<Failure>) {
        self.phase = Phase::Idle;
        self.applied |= !failures.iter().any(Failure::is_fatal);
        if failures.is_empty() {
            self.backoff.reset();
            if !self.dirty {
                self.due = Some(now + self.config.resync);
            }
        } else {
            self.dirty = true;
            self.due = Some(now + self.backoff.next_delay());
        }
        self.failures = failures;
    }

    /// The condition as it should be: status, reason, message.
    fn condition(&self) -> Option<(&'static str, &'static str, String)> {
        let mut problems: Vec<&str> = self.problems().take(PROBLEMS_NAMED_MAX + 1).collect();
        if problems.len() > PROBLEMS_NAMED_MAX {
            problems.truncate(PROBLEMS_NAMED_MAX);
            problems.push("and more");
        }
        // Traffic to some nodes may be amiss; as long as the node's own pods have a network it is not unavailable.
        if self.failures.iter().any(Failure::is_fatal) {
            Some(("True", "CalicoIsDown", problems.join("; ")))
        } else if self.applied {
            let mut message = String::from("Calico is running on this node");
            if !problems.is_empty() {
                message = message + "; " + &problems.join("; ");
            }
            Some(("False", "CalicoIsUp", message))
        } else {
            None
        }
    }

    fn report(&mut self, now: Time, out: &mut Vec<Effect>) {
        if !self.config.report_condition
            || self.reporting.is_some()
            || self.report_due.is_some_and(|d| d > now)
        {
            return;
        }
        self.report_due = None;
        let Some(node) = self.informer.get("", &self.config.node) else { return };
        let Some((status, reason, message)) = self.condition() else { return };
        let conditions = node.at("/status/conditions").and_then(Value::as_array);
        let text = |c: &Value, field: &str| c.get(field).and_then(Value::as_str).map(String::from);
        let old = conditions.into_iter().flatten().find(|c| text(c, "type").as_deref() == Some(CONDITION));
        let old_status = old.and_then(|c| text(c, "status"));
        let same = |field, value: &str| old.and_then(|c| text(c, field)).as_deref() == Some(value);
        if same("status", status) && same("reason", reason) && same("message", &message) {
            return;
        }
        let since =
            old.filter(|_| old_status.as_deref() == Some(status)).and_then(|c| text(c, "lastTransitionTime"));
        let body = json!({"status": {"conditions": [{
            "type": CONDITION, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now.to_rfc3339(),
            "lastTransitionTime": since.unwrap_or_else(|| now.to_rfc3339()),
        }]}});
        let op = Operation::Patch { kind: PatchKind::Strategic, body, field_manager: None, force: false };
        let request = ApiRequest::object(&resources::NODES, "", &self.config.node, op).sub("status");
        let id = self.ids.next_id();
        self.reporting = Some(id);
        out.push(ClientEffect::Request { id, request }.into());
    }

    fn on_client(&mut self, now: Time, event: &ClientEvent, out: &mut Vec<Effect>) {
        if let ClientEvent::Reply { id, .. } = event
            && self.reporting == Some(*id)
        {
            // Whatever came of it: what the informer then shows counts.
            self.reporting = None;
            self.report_due = Some(now + REPORT_PAUSE);
            return;
        }
        let deltas = self.informer.on(now, event, out);
        self.observe(&deltas, out);
    }
}

impl Machine for RouteMachine {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        let awaited =
            |machine: &Self, phase, generation| machine.phase == phase && machine.generation == generation;
        match event {
            Event::Client(event) => self.on_client(now, &event, out),
            Event::Observed { generation, result } if awaited(self, Phase::Observing, generation) => {
                match result {
                    Ok(found) => self.on_observed(now, found, out),
                    Err(e) => self.done(now, Vec::from([Failure { route: None, why: e.0 }])),
                }
            }
            Event::Applied { generation, failures } if awaited(self, Phase::Applying, generation) => {
                self.done(now, failures);
            }
            Event::Disturbed => {
                self.dirty = true;
                self.due = None;
            }
            Event::Observed { .. } | Event::Applied { .. } => return,
        }
        self.step(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        if !self.started {
            self.started = true;
            self.informer.start(now, &mut self.ids, out);
        }
        self.informer.wake(now, out);
        if self.phase == Phase::Idle && self.due.is_some_and(|due| due <= now) {
            self.dirty = true;
        }
        self.step(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let own = self.due.filter(|_| self.phase == Phase::Idle);
        let start = (!self.started).then_some(Time::ZERO);
        [own, start, self.report_due, self.informer.deadline()].into_iter().flatten().min()
    }
}
