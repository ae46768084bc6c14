//! Snapshots as etcd makes them: what a store holds, as a file of etcd's own, both ways.
//!
//! [`export`] turns a [`StoreSnapshot`] into the file that `etcdctl snapshot status` and `restore` take and a real etcd
//! serves; [`import`] reads such a file, or the `member/snap/db` of an etcd that was stopped, into the [`Entry`]s that
//! give our store the same keys, revisions and leases; [`restore`] writes these to the directory of a
//! [`Disk`](crate::Disk). The layout is that of etcd 3.4 (`mvcc/kvstore.go`, `mvcc/revision.go`, `lease/lessor.go`).
//!
//! ```
//! use icp_core::storage::{Op, PutRequest, Storage, Txn};
//! use icp_store::{Config, Memory, Store, etcd::snapshot};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Memory::new();
//! let put = Op::Put(PutRequest::new("k", "v"));
//! store.txn(Txn { success: vec![put], ..Txn::default() }).await?;
//!
//! let (mut file, mut bytes) = (snapshot::export(store.snapshot().await?, 1), Vec::new());
//! while file.next(&mut bytes) {}
//!
//! let mut again = Store::new(Config::default());
//! let read = snapshot::import(&bytes[..], &mut |entry| {
//!     again.replay(icp_core::base::Time::ZERO, &entry).map_err(|e| e.to_string())
//! });
//! assert_eq!(read.unwrap().keys, 1);
//! assert_eq!(again.visible(), store.revision());
//! # Ok::<(), icp_core::storage::StorageError>(()) }).unwrap();
//! ```

mod export;
mod import;
mod restore;

#[cfg(test)]
mod tests;

pub use export::export;
pub use import::{Imported, import};
pub use restore::{RestoreError, restore};

#[cfg(doc)]
use crate::store::Entry;
#[cfg(doc)]
use icp_core::storage::StoreSnapshot;

const KEY: &[u8] = b"key";
const META: &[u8] = b"meta";
const LEASE: &[u8] = b"lease";
const ALARM: &[u8] = b"alarm";
const CONSISTENT_INDEX: &[u8] = b"consistent_index";
const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";

/// The key of a version in the bucket `key`: its revision, `_`, its place in the transaction, and `t` for a tombstone.
fn revision_key(main: i64, sub: i64, tombstone: bool, out: &mut alloc::vec::Vec<u8>) {
    out.extend_from_slice(&main.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&sub.to_be_bytes());
    if tombstone {
        out.push(b't');
    }
}

/// The revision and the place of such a key, and whether it is a tombstone.
fn read_revision_key(key: &[u8]) -> Option<(i64, i64, bool)> {
    let main = i64::from_be_bytes(*key.first_chunk()?);
    let sub = i64::from_be_bytes(*key.get(9..)?.first_chunk()?);
    let tombstone = match key.get(17..)? {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    (key.get(8) == Some(&b'_') && main > 0 && sub >= 0).then_some((main, sub, tombstone))
}
