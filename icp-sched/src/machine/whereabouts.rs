//! Where a pod stands.

use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::binding::Flight;
use super::driver::SchedulerMachine;

impl SchedulerMachine {
    /// Where a pod stands: one place for each pod that is to be placed, `placed` for one that has its node, and none for a
    /// pod that is not known. A pod in no place, or in two, is a fault of the machine; simulators look for that.
    ///
    /// The places of the queue are `active`, `backoff`, `unschedulable` and `gated`; a pod that is being placed is with
    /// `extenders`, at `permit`, `preparing` or `binding`.
    #[must_use]
    pub fn whereabouts(&self, key: &ObjectKey) -> Vec<&'static str> {
        let mut places = Vec::new();
        if self.queue.get(key).is_some() {
            places.extend(self.queue.place(key));
        }
        let asking = self.asking.as_ref().map(|a| a.pod());
        let bargain = self.bargain.as_ref().map(|b| b.pod());
        places.extend([asking, bargain].into_iter().flatten().filter(|p| p.key == *key).map(|_| "extenders"));
        if self.waiters.contains_key(key) || self.cohorts.values().any(|c| c.holds(key)) {
            places.push("permit");
        }
        places.extend(self.preparing.values().filter(|p| p.pod.key == *key).map(|_| "preparing"));
        let binding = |flight: &&Flight| match flight {
            Flight::Bind { pod, .. }
            | Flight::Shell { pod, .. }
            | Flight::Delegate { pod, .. }
            | Flight::Read { pod, .. }
            | Flight::ReadLater { pod, .. } => pod.key == *key,
            Flight::Prepare { .. } | Flight::Evict { .. } => false,
        };
        places.extend(self.flights.values().filter(binding).map(|_| "binding"));
        if self.queue.get(key).is_none() && places.is_empty() && self.scheduler.cluster().pod(key).is_some() {
            places.push("placed");
        }
        places
    }
}
