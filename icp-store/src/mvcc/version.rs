//! A version of a key in the store.

use alloc::sync::Arc;
use core::ops::Deref;

use icp_core::storage::{KeyValue, StoredVersion};

/// A version as it is kept and shared: what readers see of it, and its place in its transaction, which only hashes and
/// copies of the store need. The place lies where an [`Arc`] of the [`KeyValue`] alone would be padding.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Version {
    /// What readers see.
    pub kv: KeyValue,
    /// The place among the changes of the transaction, from 0 on (etcd's `sub` revision).
    pub sub: u32,
}

impl Version {
    /// Version number `sub` of a transaction's changes.
    pub(super) fn new(kv: KeyValue, sub: usize) -> Arc<Self> {
        Arc::new(Self { kv, sub: u32::try_from(sub).unwrap_or(u32::MAX) })
    }

    /// Whether it is a tombstone.
    #[must_use]
    pub const fn is_delete(&self) -> bool {
        self.kv.version == 0
    }

    /// The same for the port.
    #[must_use]
    pub fn stored(&self) -> StoredVersion {
        StoredVersion { kv: self.kv.clone(), sub: self.sub }
    }
}

impl Deref for Version {
    type Target = KeyValue;

    fn deref(&self) -> &KeyValue {
        &self.kv
    }
}
