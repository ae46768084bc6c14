//! Leases: keys that end when nobody renews them (`etcd server/lease/lessor.go`).
//!
//! The time is an input. A lease that has run out is reported by [`Leases::expired`]; it stays, with its keys, until
//! it is revoked, but can no longer be renewed, as in etcd.
//!
//! ```
//! use icp_core::base::{Duration, Time};
//! use icp_store::lease::Leases;
//!
//! let mut leases = Leases::new(2);
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
use icp_core::storage::{LeaseId, LeaseStatus, LeaseTtl, StorageError};

use crate::mvcc::{Change, invalid};

/// Longest time to live, in seconds (`lease.MaxLeaseTTL`).
pub const TTL_SECS_MAX: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    ttl_secs: i64,
    expiry: Time,
    keys: BTreeSet<Bytes>,
}

/// All leases.
#[derive(Debug)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    timers: TimingWheel<LeaseId>,
    ttl_secs_min: i64,
}

impl Leases {
    /// No leases; shorter times to live than `ttl_secs_min` seconds are lengthened to it.
    #[must_use]
    pub const fn new(ttl_secs_min: i64) -> Self {
        Self { by_id: BTreeMap::new(), timers: TimingWheel::new(), ttl_secs_min }
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
        self.by_id.insert(id, Lease { ttl_secs, expiry, keys: BTreeSet::new() });
        self.timers.set(id, expiry);
        Ok(LeaseTtl { id, ttl_secs })
    }

    /// Gives a lease its full time to live again.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`] if there is none or if it has run out.
    pub fn keep_alive(&mut self, now: Time, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        match self.by_id.get_mut(&id) {
            Some(lease) if lease.expiry > now => {
                lease.expiry = now + seconds(lease.ttl_secs);
                self.timers.set(id, lease.expiry);
                Ok(LeaseTtl { id, ttl_secs: lease.ttl_secs })
            }
            _ => Err(StorageError::LeaseNotFound(id)),
        }
    }

    /// Sets what is left of a lease, as a checkpoint says; never more than a renewal gives.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`].
    pub fn checkpoint(&mut self, now: Time, id: LeaseId, left_secs: i64) -> Result<(), StorageError> {
        let lease = self.by_id.get_mut(&id).ok_or(StorageError::LeaseNotFound(id))?;
        lease.expiry = now + seconds(left_secs.clamp(0, lease.ttl_secs));
        self.timers.set(id, lease.expiry);
        Ok(())
    }

    /// Ends a lease and returns its keys, in order.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`].
    pub fn revoke(&mut self, id: LeaseId) -> Result<BTreeSet<Bytes>, StorageError> {
        let lease = self.by_id.remove(&id).ok_or(StorageError::LeaseNotFound(id))?;
        self.timers.cancel(&id);
        Ok(lease.keys)
    }

    /// The leases that have run out at `now`; each is reported once and must be revoked.
    pub fn expired(&mut self, now: Time) -> Vec<LeaseId> {
        self.timers.expire(now)
    }

    /// When the next lease runs out.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.timers.deadline()
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
        let mut leases = Leases::new(2);
        assert_eq!(leases.grant(Time::ZERO, 1, 0).unwrap().ttl_secs, 2);
        assert_eq!(leases.keep_alive(Time::from_secs(2), 1), Err(StorageError::LeaseNotFound(1)));
        assert!(leases.exists(1));
        assert_eq!(leases.expired(Time::from_secs(2)), [1]);
        leases.revoke(1).unwrap();
        assert_eq!(leases.revoke(1), Err(StorageError::LeaseNotFound(1)));
    }

    #[test]
    fn grants_are_checked() {
        let mut leases = Leases::new(2);
        leases.grant(Time::ZERO, 1, 60).unwrap();
        assert_eq!(leases.grant(Time::ZERO, 1, 60), Err(StorageError::LeaseExists(1)));
        assert!(matches!(leases.grant(Time::ZERO, 2, TTL_SECS_MAX + 1), Err(StorageError::Invalid { .. })));
    }

    #[test]
    fn a_checkpoint_shortens_what_is_left_and_never_lengthens_it() {
        let mut leases = Leases::new(2);
        leases.grant(Time::ZERO, 1, 60).unwrap();
        leases.checkpoint(Time::ZERO, 1, 10).unwrap();
        assert_eq!(leases.info(Time::ZERO, 1).unwrap().ttl_secs, 10);
        leases.checkpoint(Time::ZERO, 1, 1_000).unwrap();
        assert_eq!(leases.info(Time::ZERO, 1).unwrap().ttl_secs, 60);
    }
}
