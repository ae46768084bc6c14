//! The versions of one key.

use alloc::sync::Arc;

use icp_core::storage::Revision;
use smallvec::{SmallVec, smallvec};

use super::Version;

/// The versions of one key, oldest first; revisions never decrease. Most keys have one.
#[derive(Debug)]
pub(super) struct History(SmallVec<[Arc<Version>; 1]>);

impl History {
    pub(super) fn new(first: Arc<Version>) -> Self {
        Self(smallvec![first])
    }

    pub(super) fn push(&mut self, kv: Arc<Version>) {
        self.0.push(kv);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest version, unless it is a tombstone.
    pub(super) fn live(&self) -> Option<&Arc<Version>> {
        self.0.last().filter(|kv| kv.version > 0)
    }

    /// The version that a read at `revision` sees.
    pub(super) fn at(&self, revision: Revision) -> Option<&Arc<Version>> {
        // The newest version answers nearly every read.
        let newest = self.0.last()?;
        if newest.mod_revision <= revision {
            return self.live();
        }
        let after = self.0.partition_point(|kv| kv.mod_revision <= revision);
        self.0.get(after.checked_sub(1)?).filter(|kv| kv.version > 0)
    }

    /// Drops the versions that no read at or above `compacted` sees and returns their bytes.
    pub(super) fn compact(&mut self, compacted: Revision) -> u64 {
        let after = self.0.partition_point(|kv| kv.mod_revision <= compacted);
        let Some(kept) = after.checked_sub(1) else { return 0 };
        let gone = if self.0.get(kept).is_some_and(|kv| kv.version > 0) { kept } else { after };
        let bytes = self.0.drain(..gone).map(|kv| (kv.key.len() + kv.value.len()) as u64).sum();
        if self.0.len() <= 1 {
            self.0.shrink_to_fit();
        }
        bytes
    }
}
