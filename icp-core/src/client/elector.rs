//! Leader election over a Lease.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, IdBlock, Operation, Reply, RequestId, RequestIds,
};
use crate::api::{Object, reason, resources};
use crate::base::{Duration, Rng, Time};

/// How a [`LeaderElector`] behaves; the defaults are those of kube-controller-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElectorConfig {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who this candidate is: unique per process start, such as `hostname_uuid`.
    pub identity: String,
    /// How long others wait, after they last saw the Lease change, before they take it.
    pub lease_duration: Duration,
    /// How long after its last renewal a leader gives up by itself; less than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often the Lease is looked at or renewed; less than `renew_deadline`.
    pub retry_period: Duration,
}

impl LeaderElectorConfig {
    /// The Lease `namespace/name` with 15 s, 10 s and 2 s.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The fencing number of a leadership: `spec.leaseTransitions` of the Lease. It grows whenever another identity
/// becomes the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<Value>,
    renew_time: Option<Value>,
    lease_transitions: Option<u64>,
}

#[derive(Debug)]
enum State {
    Idle,
    Waiting { due: Time },
    Reading { id: RequestId, sent: Time },
    Writing { id: RequestId, sent: Time, term: Term },
    Releasing,
}

/// Acquires and renews a Lease, as client-go's `tools/leaderelection` does.
///
/// # Fencing
/// [`LeaderElector::leading`] is true from the answer to a successful write of the Lease until `renew_deadline`
/// after that write was *sent*. Others take the Lease `lease_duration` after they *saw* it change, which is later
/// than it was sent; so with clocks of equal rate, at least `lease_duration - renew_deadline` (5 s) lie between
/// the last moment of one leader and the first of the next. A leader's write is fenced in three ways: the shell
/// asks `leading(now)` when it sends the write, and bounds the time a request may take by that margin; every
/// update and deletion carries the resourceVersion or uid that it was computed from, so that one that comes late
/// meets a conflict; every creation carries a name chosen by the client, so that a repetition meets
/// `AlreadyExists`. The term tells the leaderships apart in records.
///
/// ```
/// use icp_core::base::{Rng, Time};
/// use icp_core::client::{ClientEffect, LeaderElector, LeaderElectorConfig, RequestIds};
/// let config = LeaderElectorConfig::new("kube-system", "kube-controller-manager", "m1_5c0a");
/// let mut elector = LeaderElector::new(config, Rng::new(1));
/// let mut out = Vec::<ClientEffect>::new();
/// elector.start(Time::ZERO, &mut RequestIds::new(), &mut out);
/// assert_eq!(out.len(), 1); // reads the Lease
/// assert_eq!(elector.leading(Time::ZERO), None);
/// ```
#[derive(Debug)]
pub struct LeaderElector {
    config: LeaderElectorConfig,
    ids: IdBlock,
    rng: Rng,
    state: State,
    /// The Lease as last seen, and when it was first seen so.
    observed: Option<(Arc<Object>, Time)>,
    /// The term and the end of the leadership.
    held: Option<(Term, Time)>,
}

impl LeaderElector {
    /// A candidate that has not started.
    #[must_use]
    pub fn new(config: LeaderElectorConfig, rng: Rng) -> Self {
        let ids = RequestIds::new().block();
        Self { config, ids, rng, state: State::Idle, observed: None, held: None }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &LeaderElectorConfig {
        &self.config
    }

    /// The term, if this candidate may act as the leader at `now`.
    #[must_use]
    pub fn leading(&self, now: Time) -> Option<Term> {
        self.held.filter(|(_, until)| now < *until).map(|(term, _)| term)
    }

    /// The identity that the Lease last named; empty if none.
    #[must_use]
    pub fn holder(&self) -> String {
        self.observed
            .as_ref()
            .map(|(lease, _)| spec_of(lease).holder_identity.unwrap_or_default())
            .unwrap_or_default()
    }

    /// Whether `event` answers this elector.
    #[must_use]
    pub fn expects(&self, event: &ClientEvent) -> bool {
        matches!(event, ClientEvent::Reply { id, .. } if !matches!(self.state, State::Idle) && self.ids.owns(*id))
    }

    /// Begins to seek leadership. The elector takes a block of `ids` of its own.
    pub fn start<E: From<ClientEffect>>(&mut self, now: Time, ids: &mut RequestIds, out: &mut Vec<E>) {
        self.ids = ids.block();
        self.read(now, out);
    }

    /// Gives leadership up, so that others need not wait; the caller has stopped writing before.
    pub fn stop<E: From<ClientEffect>>(&mut self, now: Time, out: &mut Vec<E>) {
        let leading = self.leading(now).is_some();
        self.held = None;
        self.state = State::Idle;
        let Some((lease, _)) = self.observed.as_ref().filter(|_| leading) else { return };
        let mut lease = Object::clone(lease);
        let spec = lease.rest.get_or_insert_with("spec", || Value::Object(Map::new()));
        if let Value::Object(spec) = spec {
            spec.insert("holderIdentity".into(), json!(""));
            spec.insert("leaseDurationSeconds".into(), json!(1));
            spec.insert("renewTime".into(), json!(now.to_rfc3339_micros()));
        }
        let id = self.ids.next_id();
        out.push(
            ClientEffect::Request { id, request: self.request(Operation::Update(Arc::new(lease))) }.into(),
        );
        self.state = State::Releasing;
    }

    /// Takes an event; one that is not for this elector changes nothing.
    pub fn on<E: From<ClientEffect>>(&mut self, now: Time, event: &ClientEvent, out: &mut Vec<E>) {
        let ClientEvent::Reply { id, result } = event else { return };
        match self.state {
            State::Reading { id: mine, .. } if *id == mine => self.on_read(now, result, out),
            State::Writing { id: mine, sent, term } if *id == mine => {
                self.on_written(now, sent, term, result)
            }
            _ => {}
        }
    }

    /// Looks again, or renews, once [`LeaderElector::deadline`] has passed.
    pub fn wake<E: From<ClientEffect>>(&mut self, now: Time, out: &mut Vec<E>) {
        if self.held.is_some_and(|(_, until)| until <= now) {
            self.held = None;
        }
        match self.state {
            State::Waiting { due } if due <= now => {
                let fresh = self.held.is_some().then(|| self.observed.clone()).flatten();
                match fresh {
                    // The leader renews what it wrote, without reading it first.
                    Some((lease, _)) => self.write(now, Some(&lease), out),
                    None => self.read(now, out),
                }
            }
            // No answer in time: the request counts as failed, whatever comes later.
            State::Reading { sent, .. } | State::Writing { sent, .. }
                if sent + self.config.renew_deadline <= now =>
            {
                self.read(now, out);
            }
            _ => {}
        }
    }

    /// When [`LeaderElector::wake`] should be called: for the next look, or for the end of the leadership.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let next = match self.state {
            State::Waiting { due } => Some(due),
            State::Reading { sent, .. } | State::Writing { sent, .. } => {
                Some(sent + self.config.renew_deadline)
            }
            State::Idle | State::Releasing => None,
        };
        [next, self.held.map(|(_, until)| until)].into_iter().flatten().min()
    }

    fn request(&self, op: Operation) -> ApiRequest {
        match op {
            Operation::Create(_) => ApiRequest::collection(&resources::LEASES, &self.config.namespace, op),
            _ => ApiRequest::object(&resources::LEASES, &self.config.namespace, &self.config.name, op),
        }
    }

    fn read<E: From<ClientEffect>>(&mut self, now: Time, out: &mut Vec<E>) {
        let id = self.ids.next_id();
        self.state = State::Reading { id, sent: now };
        out.push(ClientEffect::Request { id, request: self.request(Operation::Get) }.into());
    }

    fn pause(&mut self, now: Time) {
        // Candidates spread out; the leader keeps its rhythm.
        let jitter = if self.held.is_some() { 0.0 } else { 1.2 * self.rng.fraction() };
        let due = now + self.config.retry_period + self.config.retry_period.mul_f64(jitter);
        self.state = State::Waiting { due };
    }

    fn on_read<E: From<ClientEffect>>(
        &mut self,
        now: Time,
        result: &Result<Reply, ApiError>,
        out: &mut Vec<E>,
    ) {
        match result {
            Ok(Reply::Object(lease)) => {
                self.observe(now, lease);
                if self.may_take(now) {
                    self.write(now, Some(&Arc::clone(lease)), out)
                } else {
                    self.pause(now)
                }
            }
            Err(e) if e.is(reason::NOT_FOUND) => {
                self.observed = None;
                self.write(now, None, out);
            }
            _ => self.pause(now),
        }
    }

    fn on_written(&mut self, now: Time, sent: Time, term: Term, result: &Result<Reply, ApiError>) {
        if let Ok(Reply::Object(lease)) = result {
            self.observe(now, lease);
            self.held = Some((term, sent + self.config.renew_deadline));
        } else if self.held.is_some() {
            // Somebody else wrote it, or the outcome is unknown: the leader reads before it writes again. A
            // candidate reads anyway, and keeps the time since when it knows the holder.
            self.observed = None;
        }
        self.pause(now);
    }

    fn observe(&mut self, now: Time, lease: &Arc<Object>) {
        let same = self.observed.as_ref().is_some_and(|(seen, _)| {
            seen.metadata.uid == lease.metadata.uid
                && seen.metadata.resource_version == lease.metadata.resource_version
        });
        if !same {
            self.observed = Some((Arc::clone(lease), now));
        }
    }

    fn may_take(&self, now: Time) -> bool {
        let Some((lease, since)) = &self.observed else { return true };
        let spec = spec_of(lease);
        let holder = spec.holder_identity.unwrap_or_default();
        let duration = spec.lease_duration_seconds.map_or(self.config.lease_duration, Duration::from_secs);
        holder.is_empty() || holder == self.config.identity || *since + duration <= now
    }

    fn write<E: From<ClientEffect>>(&mut self, now: Time, lease: Option<&Arc<Object>>, out: &mut Vec<E>) {
        let old = lease.map(|l| spec_of(l)).unwrap_or_default();
        let holder = old.holder_identity.unwrap_or_default();
        let same = lease.is_some() && holder == self.config.identity;
        let transitions = match (lease, same) {
            (None, _) => 0,
            (Some(_), true) => old.lease_transitions.unwrap_or(0),
            (Some(_), false) => old.lease_transitions.unwrap_or(0).saturating_add(1),
        };
        let stamp = json!(now.to_rfc3339_micros());
        let acquired = old.acquire_time.filter(|_| same).unwrap_or_else(|| stamp.clone());
        let mut next = lease.map_or_else(
            || {
                let LeaderElectorConfig { namespace, name, .. } = &self.config;
                Object::new("coordination.k8s.io/v1", "Lease", namespace, name)
            },
            |l| Object::clone(l),
        );
        let spec = next.rest.get_or_insert_with("spec", || Value::Object(Map::new()));
        if !spec.is_object() {
            *spec = Value::Object(Map::new());
        }
        if let Value::Object(spec) = spec {
            spec.insert("holderIdentity".into(), json!(self.config.identity));
            spec.insert("leaseDurationSeconds".into(), json!(self.config.lease_duration.as_secs().max(1)));
            spec.insert("acquireTime".into(), acquired);
            spec.insert("renewTime".into(), stamp);
            spec.insert("leaseTransitions".into(), json!(transitions));
        }
        let next = Arc::new(next);
        let op = if lease.is_some() { Operation::Update(next) } else { Operation::Create(next) };
        let id = self.ids.next_id();
        self.state = State::Writing { id, sent: now, term: Term(transitions) };
        out.push(ClientEffect::Request { id, request: self.request(op) }.into());
    }
}

fn spec_of(lease: &Object) -> LeaseSpec {
    lease.view("spec").unwrap_or_default()
}

#[cfg(test)]
mod tests;
