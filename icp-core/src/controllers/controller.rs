//! What a controller is.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Plan;
use crate::api::Gvr;
use crate::base::{Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, IndexFn, Informer, ObjectKey, Reply, Store};

/// The observed state: one store per watched resource.
#[derive(Debug, Default)]
pub struct Cache {
    pub(super) informers: BTreeMap<Gvr, Informer>,
    nothing: Store,
}

impl Cache {
    /// The objects of a resource; empty if it is not watched.
    #[must_use]
    pub fn store(&self, gvr: &Gvr) -> &Store {
        self.informers.get(gvr).map_or(&self.nothing, Informer::store)
    }

    /// The resources that are watched, and whether the server knows them.
    pub fn resources(&self) -> impl Iterator<Item = (&Gvr, bool)> {
        self.informers.iter().map(|(gvr, informer)| (gvr, !informer.missing()))
    }

    /// Whether every watched resource was listed completely once, but for those that the server does not know.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.informers.values().all(|i| i.synced() || i.missing())
    }

    /// The same for one resource; true if it is not watched.
    #[must_use]
    pub fn settled_for(&self, gvr: &Gvr) -> bool {
        self.informers.get(gvr).is_none_or(|i| i.synced() || i.missing())
    }

    /// Whether a list of the resource was complete once.
    #[must_use]
    pub fn synced(&self, gvr: &Gvr) -> bool {
        self.informers.get(gvr).is_some_and(Informer::synced)
    }
}

/// Brings one aspect of the cluster from its observed state to its desired state.
///
/// The manager calls [`Controller::plan`] for a key when something that concerns the key changed, when a plan asked
/// for it, and after each plan that had steps; never while an earlier plan of the key is under way, and never
/// before the cache shows what that plan wrote.
pub trait Controller: Send {
    /// The name, as upstream's Events name the controller: `replicaset-controller`.
    fn name(&self) -> &'static str;

    /// What must be listed completely before the first plan.
    fn watches(&self) -> Vec<Gvr>;

    /// What is watched as well, if the server knows it.
    fn watches_optionally(&self) -> Vec<Gvr> {
        Vec::new()
    }

    /// Indices that the controller reads.
    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        Vec::new()
    }

    /// Keys that want a plan as soon as the resources are listed, whatever they hold.
    fn first_keys(&self) -> Vec<ObjectKey> {
        Vec::new()
    }

    /// Forgets what was observed: everything is listed anew, as additions.
    fn reset(&mut self) {}

    /// Appends the keys that a change concerns. The cache shows the state after the change.
    fn concerns(&mut self, now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>);

    /// Says what to do about `key`.
    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, rng: &mut Rng) -> Plan;

    /// Learns the answer to an action of a plan of `key`.
    fn answered(
        &mut self,
        _now: Time,
        _key: &ObjectKey,
        _request: &ApiRequest,
        _answer: &Result<Reply, ApiError>,
    ) {
    }
}
