//! How many pods each ReplicaSet should have.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::plan::{Spec, Strategy};
use super::replica_sets::{PodsOf, Rs};
use crate::controllers::support::PodPhase;

/// The ReplicaSets of a Deployment.
#[derive(Debug)]
pub(super) struct Sets {
    pub(super) new: Option<Rs>,
    /// By age, oldest first.
    pub(super) old: Vec<Rs>,
}

impl Sets {
    pub(super) fn all(&self) -> Vec<&Rs> {
        self.old.iter().chain(&self.new).collect()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Rs> {
        self.old.iter_mut().chain(&mut self.new)
    }

    fn replicas(&self) -> i64 {
        self.all().iter().map(|r| r.replicas).sum()
    }

    /// A set with pods was made for another size of the Deployment (`isScalingEvent`).
    pub(super) fn is_scaling(&self, spec: &Spec) -> bool {
        self.all().iter().any(|r| r.replicas > 0 && r.desired_replicas().is_some_and(|n| n != spec.replicas))
    }
}

/// The size that the new set may grow to now (`NewRSNewReplicas`).
pub(super) fn new_size(spec: &Spec, all_replicas: i64, new_replicas: i64) -> i64 {
    match spec.strategy {
        Strategy::Recreate => spec.replicas,
        Strategy::RollingUpdate { .. } => {
            let max_total = spec.replicas + spec.max_surge();
            if all_replicas >= max_total {
                return new_replicas;
            }
            let up = (max_total - all_replicas).min(spec.replicas - new_replicas);
            new_replicas + up
        }
    }
}

/// One round of a rolling update; true if a set was scaled.
pub(super) fn rolling(spec: &Spec, sets: &mut Sets) -> bool {
    let all_replicas = sets.replicas();
    let Some(new) = &mut sets.new else { return false };
    let (desired, max) = (spec.replicas, spec.replicas + spec.max_surge());
    let size = if new.replicas > desired { desired } else { new_size(spec, all_replicas, new.replicas) };
    if size != new.replicas {
        new.scale(size, desired, max);
        return true;
    }
    if sets.old.iter().all(|r| r.replicas == 0) {
        return false;
    }
    let min_available = desired - spec.max_unavailable();
    let (new_replicas, new_available) = (new.replicas, new.available);
    let max_scaled_down = all_replicas - min_available - (new_replicas - new_available);
    if max_scaled_down <= 0 {
        return false;
    }
    let mut scaled = 0;
    // Pods that are not available go first: they keep nobody from being served.
    for rs in sets.old.iter_mut().filter(|r| r.replicas > 0 && r.replicas != r.available) {
        let down = (max_scaled_down - scaled).min(rs.replicas - rs.available);
        if down <= 0 {
            continue;
        }
        rs.scale(rs.replicas - down, desired, max);
        scaled += down;
    }
    let available: i64 = sets.all().iter().map(|r| r.available).sum();
    let mut room = available - min_available;
    for rs in sets.old.iter_mut().filter(|r| r.replicas > 0) {
        let down = rs.replicas.min(room);
        if down <= 0 {
            break;
        }
        rs.scale(rs.replicas - down, desired, max);
        room -= down;
        scaled += down;
    }
    scaled > 0
}

/// Scales all old sets to zero; true if there was one to scale.
pub(super) fn scale_old_to_zero(spec: &Spec, sets: &mut Sets) -> bool {
    let max = spec.replicas + spec.max_surge();
    let mut scaled = false;
    for rs in sets.old.iter_mut().filter(|r| r.replicas > 0) {
        rs.scale(0, spec.replicas, max);
        scaled = true;
    }
    scaled
}

/// Whether a pod that is not of the new set still runs.
pub(super) fn old_pods_running(sets: &Sets, pods: &PodsOf) -> bool {
    if sets.old.iter().any(|r| r.status_replicas > 0) {
        return true;
    }
    let new_uid = sets.new.as_ref().map(|r| r.object.metadata.uid.as_str());
    pods.iter().any(|(uid, pods)| {
        Some(uid.as_str()) != new_uid && pods.iter().any(|p| !PodPhase::of(p).is_finished())
    })
}

/// The Deployment was scaled, or is paused: its size is shared among the sets in proportion (`scale`).
pub(super) fn proportional(spec: &Spec, sets: &mut Sets) {
    let (desired, max) = (spec.replicas, spec.replicas + spec.max_surge());
    let active = sets.all().iter().filter(|r| r.replicas > 0).count();
    if active <= 1 {
        let latest = sets.old.iter_mut().chain(&mut sets.new).rev_active_or_latest(active);
        if let Some(rs) = latest.filter(|r| r.replicas != desired || r.desired_replicas() != Some(desired)) {
            rs.scale(desired, desired, max);
        }
        return;
    }
    let saturated = sets.new.as_ref().is_some_and(|r| {
        r.replicas == desired && r.desired_replicas() == Some(desired) && r.available == desired
    });
    if saturated {
        scale_old_to_zero(spec, sets);
        return;
    }
    let Strategy::RollingUpdate { .. } = spec.strategy else { return };
    let allowed = if desired > 0 { max } else { 0 };
    let to_add = allowed - sets.replicas();
    let mut active: Vec<&mut Rs> = sets.all_mut().filter(|r| r.replicas > 0).collect();
    // The largest set takes what rounding leaves over; among equals the newer when growing, the older when shrinking.
    if to_add > 0 {
        active.sort_by(|a, b| (Reverse(a.replicas), b.created()).cmp(&(Reverse(b.replicas), a.created())));
    } else {
        active.sort_by(|a, b| (Reverse(a.replicas), a.created()).cmp(&(Reverse(b.replicas), b.created())));
    }
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for rs in &active {
        let share = if to_add == 0 || to_add == added {
            0
        } else if to_add > 0 {
            fraction(spec, rs).min(to_add - added)
        } else {
            fraction(spec, rs).max(to_add - added)
        };
        added += share;
        sizes.push(rs.replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (rs, size) in active.into_iter().zip(sizes) {
        rs.scale(size, desired, max);
    }
}

/// How much the set must grow to keep its share of the Deployment (`getReplicaSetFraction`).
fn fraction(spec: &Spec, rs: &Rs) -> i64 {
    if spec.replicas == 0 {
        return -rs.replicas;
    }
    let Some(before) = rs.max_replicas().filter(|n| *n > 0) else { return 0 };
    let size = (rs.replicas * (spec.replicas + spec.max_surge())) as f64 / before as f64;
    libm::round(size) as i64 - rs.replicas
}

/// Picks the one set that takes the whole size.
trait ActiveOrLatest<'a> {
    /// The set with pods, if one of them has any, else the new one, else the youngest.
    fn rev_active_or_latest(self, active: usize) -> Option<&'a mut Rs>;
}

impl<'a, I: DoubleEndedIterator<Item = &'a mut Rs>> ActiveOrLatest<'a> for I {
    fn rev_active_or_latest(self, active: usize) -> Option<&'a mut Rs> {
        let mut newest_first = self.rev();
        if active == 1 { newest_first.find(|r| r.replicas > 0) } else { newest_first.next() }
    }
}
