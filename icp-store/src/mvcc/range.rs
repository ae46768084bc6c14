//! Reads.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use icp_core::storage::{
    KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, SortBy, SortOrder, StorageError,
};

use super::history::History;
use super::{Mvcc, Version};

impl Mvcc {
    /// Reads a range; `newest` is the newest revision that the reader may see and what revision 0 means.
    ///
    /// The order of steps is etcd's (`server/etcdserver/txn/range.go`): a limit without order or filter cuts the scan,
    /// otherwise everything is fetched, filtered, ordered and then cut. A `sort_by` other than the key without an order
    /// means ascending. `count` is the number of keys in the range whatever filters and limit are.
    ///
    /// # Errors
    /// [`StorageError::FutureRevision`] above `newest`, [`StorageError::Compacted`] below the compacted revision.
    pub fn range(&self, request: &RangeRequest, newest: Revision) -> Result<RangeResponse, StorageError> {
        self.check_revision(request.revision, newest)?;
        let revision = if request.revision <= 0 { newest } else { request.revision };
        if request.count_only {
            let count = self.scan(&request.range, revision).count() as i64;
            return Ok(RangeResponse { revision: newest, count, ..RangeResponse::default() });
        }
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let cut_scan = limit > 0 && !filtered && request.sort_order == SortOrder::None;

        let mut found: Vec<&Arc<Version>> = Vec::new();
        let mut count = 0_i64;
        for kv in self.scan(&request.range, revision) {
            count += 1;
            if (!cut_scan || found.len() <= limit) && passes(request, kv) {
                found.push(kv);
            }
        }
        sort(&mut found, request);
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let kvs = found
            .into_iter()
            .map(|kv| {
                let mut kv = KeyValue::clone(kv);
                if request.keys_only {
                    kv.value = Bytes::new();
                }
                kv
            })
            .collect();
        Ok(RangeResponse { revision: newest, kvs, more, count })
    }

    /// Whether a read at `revision` (0: newest) is possible.
    pub(super) fn check_revision(&self, revision: Revision, newest: Revision) -> Result<(), StorageError> {
        if revision > newest {
            return Err(StorageError::FutureRevision { requested: revision, current: newest });
        }
        if revision > 0 && revision < self.compacted {
            return Err(StorageError::Compacted { compacted: self.compacted });
        }
        Ok(())
    }

    /// The versions of the keys of `range` that a read at `revision` sees, in key order.
    pub(super) fn scan(&self, range: &KeyRange, revision: Revision) -> impl Iterator<Item = &Arc<Version>> {
        // One of the two halves is always empty; chaining keeps the single-key read at one look-up.
        let (one, many) = match &range.end {
            None => (self.keys.get(&range.start), None),
            Some(end) if end.is_empty() => (None, Some((Bound::Included(&range.start), Bound::Unbounded))),
            Some(end) if *end > range.start => {
                (None, Some((Bound::Included(&range.start), Bound::Excluded(end))))
            }
            Some(_) => (None, None),
        };
        let many = many.into_iter().flat_map(|bounds| self.keys.range::<Bytes, _>(bounds).map(|(_, h)| h));
        one.into_iter().chain(many).filter_map(move |history: &History| history.at(revision))
    }
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |min: Revision, max: Revision, of: Revision| (min == 0 || of >= min) && (max == 0 || of <= max);
    within(request.min_mod_revision, request.max_mod_revision, kv.mod_revision)
        && within(request.min_create_revision, request.max_create_revision, kv.create_revision)
}

fn sort(found: &mut [&Arc<Version>], request: &RangeRequest) {
    // A stable sort of what is in key order already, so that ties stand in key order in both directions.
    let descend = request.sort_order == SortOrder::Descend;
    let by = |a: &&Arc<Version>, b: &&Arc<Version>| {
        let order = match request.sort_by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Version => a.version.cmp(&b.version),
            SortBy::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortBy::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if descend { order.reverse() } else { order }
    };
    match (request.sort_by, request.sort_order) {
        (SortBy::Key, SortOrder::None | SortOrder::Ascend) => {}
        (SortBy::Key, SortOrder::Descend) => found.reverse(),
        _ => found.sort_by(by),
    }
}
