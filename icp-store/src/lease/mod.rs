//! Leases: keys that end when nobody renews them (`etcd server/lease/lessor.go`).
//!
//! The time is an input. A lease that has run out is reported by [`Leases::expired`]; it stays, with its keys, until
//! it is revoked, but can no longer be renewed, as in etcd.
//!
//! Renewals are not logged, so that a lease begins with its full time to live again after a restart. What is left of a
//! lease that lives long without a renewal is logged from time to time ([`Leases::due_checkpoints`]), and only the first
//! renewal after that is logged too: a restart never ends a lease earlier than its last renewal promised.
//!
//! ```
//! use icp_core::base::{Duration, Time};
//! use icp_store::lease::Leases;
//!
//! let mut leases = Leases::new(2, 0);
//! leases.grant(Time::ZERO, 7, 10)?;
//! assert_eq!(leases.deadline(), Some(Time::from_secs(10)));
//! leases.keep_alive(Time::from_secs(9), 7)?;
//! assert!(leases.expired(Time::from_secs(18)).is_empty());
//! assert_eq!(leases.expired(Time::from_secs(19)), [7]);
//! # Ok::<(), icp_core::storage::StorageError>(())
//! ```

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::base::{Duration, Time, TimingWheel};
use icp_core::storage::{LeaseId, LeaseStatus, LeaseTtl, StorageError, StoredLease};

use crate::mvcc::{Change, invalid};

/// Longest time to live, in seconds (`lease.MaxLeaseTTL`).
pub const TTL_SECS_MAX: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    ttl_secs: i64,
    expiry: Time,
    /// What is left was logged, and no renewal since.
    checkpointed: bool,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// Whole seconds until it ends, rounded up.
    fn left_secs(&self, now: Time) -> i64 {
        let left = self.expiry.since(now);
        i64::try_from(left.as_secs() + u64::from(left.subsec_nanos() > 0)).unwrap_or(TTL_SECS_MAX)
    }
}

/// A renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The lease.
    pub lease: LeaseTtl,
    /// A checkpoint was logged before: the renewal must be logged as one too.
    pub log: bool,
}

/// All leases.
#[derive(Debug)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    timers: TimingWheel<LeaseId>,
    checkpoints: TimingWheel<LeaseId>,
    ttl_secs_min: i64,
    checkpoint_interval_secs: i64,
}

impl Leases {
    /// No leases; shorter times to live than `ttl_secs_min` seconds are lengthened to it. Leases that live longer than
    /// `checkpoint_interval_secs` seconds without a renewal get a checkpoint that often; 0 for never.
    #[must_use]
    pub const fn new(ttl_secs_min: i64, checkpoint_interval_secs: i64) -> Self {
        Self {
            by_id: BTreeMap::new(),
            timers: TimingWheel::new(),
            checkpoints: TimingWheel::new(),
            ttl_secs_min,
            checkpoint_interval_secs,
        }
    }

    /// Whether there is a lease `id`.
    #[must_use]
    pub fn exists(&self, id: LeaseId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The ids of all leases, in order.
    pub fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.by_id.keys().copied()
    }

    /// Grants a lease and answers with the time to live that it got.
    ///
    /// # Errors
    /// [`StorageError::LeaseExists`] if the id is taken, [`StorageError::Invalid`] if the id is not positive or the
    /// time to live above [`TTL_SECS_MAX`].
    pub fn grant(&mut self, now: Time, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        if id == 0 {
            return Err(StorageError::LeaseNotFound(id));
        }
        if ttl_secs > TTL_SECS_MAX {
            return Err(invalid("lease.ttl", "too large lease TTL"));
        }
        if self.by_id.contains_key(&id) {
            return Err(StorageError::LeaseExists(id));
        }
        let ttl_secs = ttl_secs.max(self.ttl_secs_min);
        let expiry = now + seconds(ttl_secs);
        self.by_id.insert(id, Lease { ttl_secs, expiry, checkpointed: false, keys: BTreeSet::new() });
        self.timers.set(id, expiry);
        self.schedule(now, id, ttl_secs);
        Ok(LeaseTtl { id, ttl_secs })
    }

    /// Gives a lease its full time to live again.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`] if there is none or if it has run out.
    pub fn keep_alive(&mut self, now: Time, id: LeaseId) -> Result<Renewed, StorageError> {
        match self.by_id.get_mut(&id) {
            Some(lease) if lease.expiry > now => {
                let ttl_secs = lease.ttl_secs;
                lease.expiry = now + seconds(ttl_secs);
                self.timers.set(id, lease.expiry);
                let log = core::mem::take(&mut lease.checkpointed);
                self.schedule(now, id, ttl_secs);
                Ok(Renewed { lease: LeaseTtl { id, ttl_secs }, log })
            }
            _ => Err(StorageError::LeaseNotFound(id)),
        }
    }

    fn schedule(&mut self, now: Time, id: LeaseId, left_secs: i64) {
        let interval = self.checkpoint_interval_secs;
        if interval > 0 && left_secs > interval {
            self.checkpoints.set(id, now + seconds(interval));
        }
    }

    /// The leases whose checkpoint is due at `now`, with the seconds that are left of them, rounded up. They count as
    /// logged.
    pub fn due_checkpoints(&mut self, now: Time) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        while let Some(id) = self.checkpoints.pop(now) {
            let Some(lease) = self.by_id.get_mut(&id).filter(|l| l.expiry > now) else { continue };
            lease.checkpointed = true;
            let left_secs = lease.left_secs(now);
            due.push((id, left_secs));
            self.schedule(now, id, left_secs);
        }
        due
    }

    /// The leases of which a checkpoint is logged that no renewal has followed, with the seconds that are left of them.
    pub fn checkpointed(&self, now: Time) -> impl Iterator<Item = (LeaseId, i64)> {
        self.by_id.iter().filter(|(_, l)| l.checkpointed).map(move |(id, l)| (*id, l.left_secs(now)))
    }

    /// Sets what is left of a lease, as a checkpoint says; never more than a renewal gives.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`].
    pub fn checkpoint(&mut self, now: Time, id: LeaseId, left_secs: i64) -> Result<(), StorageError> {
        let lease = self.by_id.get_mut(&id).ok_or(StorageError::LeaseNotFound(id))?;
        let left_secs = left_secs.clamp(0, lease.ttl_secs);
        lease.expiry = now + seconds(left_secs);
        lease.checkpointed = left_secs < lease.ttl_secs;
        self.timers.set(id, lease.expiry);
        self.checkpoints.cancel(&id);
        self.schedule(now, id, left_secs);
        Ok(())
    }

    /// Ends a lease and returns its keys, in order.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`].
    pub fn revoke(&mut self, id: LeaseId) -> Result<BTreeSet<Bytes>, StorageError> {
        let lease = self.by_id.remove(&id).ok_or(StorageError::LeaseNotFound(id))?;
        self.timers.cancel(&id);
        self.checkpoints.cancel(&id);
        Ok(lease.keys)
    }

    /// The leases that have run out at `now`; each is reported once and must be revoked.
    pub fn expired(&mut self, now: Time) -> Vec<LeaseId> {
        self.timers.expire(now)
    }

    /// When the next lease runs out or the next checkpoint is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.timers.deadline().into_iter().chain(self.checkpoints.deadline()).min()
    }

    /// What is known of one lease.
    #[must_use]
    pub fn info(&self, now: Time, id: LeaseId) -> Option<LeaseStatus> {
        let lease = self.by_id.get(&id)?;
        Some(LeaseStatus {
            id,
            ttl_secs: i64::try_from(lease.expiry.since(now).as_secs()).unwrap_or(TTL_SECS_MAX),
            granted_ttl_secs: lease.ttl_secs,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// The times of all leases, in order, without their keys.
    pub fn times(&self, now: Time) -> impl Iterator<Item = StoredLease> {
        self.by_id.iter().map(move |(id, lease)| StoredLease {
            id: *id,
            granted_ttl_secs: lease.ttl_secs,
            ttl_secs: i64::try_from(lease.expiry.since(now).as_secs()).unwrap_or(TTL_SECS_MAX),
        })
    }

    /// Follows a change: the key leaves the lease of the version before and joins the lease of the new one.
    pub fn follow(&mut self, change: &Change) {
        let key = &change.kv.key;
        if let Some(prev) = &change.prev
            && prev.lease != 0
            && let Some(lease) = self.by_id.get_mut(&prev.lease)
        {
            lease.keys.remove(key);
        }
        if change.kv.lease != 0
            && let Some(lease) = self.by_id.get_mut(&change.kv.lease)
        {
            lease.keys.insert(key.clone());
        }
    }

    /// Binds a key that is restored from a snapshot.
    pub fn bind(&mut self, id: LeaseId, key: Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key);
        }
    }
}

fn seconds(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_ran_out_cannot_be_renewed_but_still_exists() {
        let mut leases = Leases::new(2, 0);
        assert_eq!(leases.grant(Time::ZERO, 1, 0).unwrap().ttl_secs, 2);
        assert_eq!(leases.keep_alive(Time::from_secs(2), 1), Err(StorageError::LeaseNotFound(1)));
        assert!(leases.exists(1));
        assert_eq!(leases.expired(Time::from_secs(2)), [1]);
        leases.revoke(1).unwrap();
        assert_eq!(leases.revoke(1), Err(StorageError::LeaseNotFound(1)));
    }

    #[test]
    fn grants_are_checked() {
        let mut leases = Leases::new(2, 0);
        leases.grant(Time::ZERO, 1, 60).unwrap();
        assert_eq!(leases.grant(Time::ZERO, 1, 60), Err(StorageError::LeaseExists(1)));
        assert!(matches!(leases.grant(Time::ZERO, 2, TTL_SECS_MAX + 1), Err(StorageError::Invalid { .. })));
    }

    #[test]
    fn long_leases_get_checkpoints_and_the_renewal_after_one_is_logged() {
        let at = Time::from_secs;
        let mut leases = Leases::new(2, 300);
        leases.grant(at(0), 1, 1_000).unwrap();
        leases.grant(at(0), 2, 300).unwrap();
        assert_eq!(leases.deadline(), Some(at(300)));
        assert!(!leases.keep_alive(at(200), 1).unwrap().log);
        assert!(leases.due_checkpoints(at(499)).is_empty(), "the renewal put it off");
        assert_eq!(leases.due_checkpoints(at(500)), [(1, 700)]);
        assert_eq!(leases.due_checkpoints(at(800)), [(1, 400)]);
        assert_eq!(leases.checkpointed(at(850)).collect::<Vec<_>>(), [(1, 350)]);
        assert_eq!(leases.due_checkpoints(at(1_100)), [(1, 100)], "the last one: the rest is short");
        assert!(leases.due_checkpoints(at(1_199)).is_empty());
        assert!(leases.keep_alive(at(1_199), 1).unwrap().log);
        assert!(!leases.keep_alive(at(1_200), 1).unwrap().log);
        leases.revoke(1).unwrap();
        assert!(leases.due_checkpoints(at(9_999)).is_empty());
    }

    #[test]
    fn a_checkpoint_shortens_what_is_left_and_never_lengthens_it() {
        let mut leases = Leases::new(2, 0);
        leases.grant(Time::ZERO, 1, 60).unwrap();
        leases.checkpoint(Time::ZERO, 1, 10).unwrap();
        assert_eq!(leases.info(Time::ZERO, 1).unwrap().ttl_secs, 10);
        leases.checkpoint(Time::ZERO, 1, 1_000).unwrap();
        assert_eq!(leases.info(Time::ZERO, 1).unwrap().ttl_secs, 60);
    }
}
