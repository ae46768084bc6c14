//! Pods that have a node, and wait for a plugin's leave or are bound by a plugin.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use icp_core::client::{ApiRequest, ObjectKey, RequestId};

use super::{Reason, Rejected};
use crate::model::Pod;

/// What a plugin says of a pod that is about to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It goes on.
    Allow,
    /// It does not get this node.
    Reject(Rejected),
    /// It waits for leave, and is rejected when that does not come in time; no longer than 15 minutes.
    Wait(Duration),
}

/// What a plugin makes of binding a pod.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is made to be sent at once, never kept")]
pub enum Bind {
    /// It leaves that to others.
    Skip,
    /// The pod is bound when this request succeeds.
    Request(ApiRequest),
    /// A shell binds the pod: it is asked by [`Effect::Bind`](crate::machine::Effect::Bind), and answers with
    /// [`Event::Bound`](crate::machine::Event::Bound). When no answer comes in time, the pod is read to learn what became
    /// of it.
    Shell(Duration),
}

/// A pod that waits for leave.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) pod: Pod,
    pub(crate) node: String,
    /// The plugins that it waits for, with their timers.
    pub(crate) pending: BTreeMap<&'static str, (RequestId, Duration)>,
    pub(crate) since: Time,
}

/// The pods that wait for leave, as a plugin sees them.
#[derive(Debug)]
pub struct WaitingPods<'a> {
    waiters: &'a BTreeMap<ObjectKey, Waiter>,
    pub(crate) allowed: BTreeSet<ObjectKey>,
    pub(crate) rejected: Vec<(ObjectKey, Reason)>,
}

impl<'a> WaitingPods<'a> {
    pub(crate) const fn new(waiters: &'a BTreeMap<ObjectKey, Waiter>) -> Self {
        Self { waiters, allowed: BTreeSet::new(), rejected: Vec::new() }
    }

    /// The pods with their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a Pod, &'a str)> {
        self.waiters.values().map(|w| (&w.pod, w.node.as_str()))
    }

    /// Lets a pod go, as far as the plugin that is asked is concerned.
    pub fn allow(&mut self, pod: &ObjectKey) {
        self.allowed.insert(pod.clone());
    }

    /// Takes a pod's node away.
    pub fn reject(&mut self, pod: &ObjectKey, reason: impl Into<Reason>) {
        self.rejected.push((pod.clone(), reason.into()));
    }
}
