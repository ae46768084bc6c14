//! A store's snapshot as a file of etcd.

use alloc::boxed::Box;
use alloc::vec::Vec;

use icp_core::storage::{StoreSnapshot, StoredVersion};
use prost::Message;

use super::{ALARM, CONSISTENT_INDEX, FINISHED_COMPACT, KEY, LEASE, META, SCHEDULED_COMPACT, revision_key};
use crate::etcd::bolt::{Bucket, File, Records};
use crate::etcd::convert;
use crate::etcd::proto as pb;

/// Plans the file of a snapshot. Alarms are noted as those of the member `member_id`.
///
/// The buckets of members, users and roles are empty: `etcdctl snapshot restore` makes the member, and there are no
/// users.
#[must_use]
pub fn export(snapshot: StoreSnapshot, member_id: u64) -> File {
    let mut meta = alloc::vec![(CONSISTENT_INDEX.to_vec(), 0_u64.to_be_bytes().to_vec())];
    if snapshot.compacted > 0 {
        let mut revision = Vec::new();
        revision_key(snapshot.compacted, 0, false, &mut revision);
        meta.push((FINISHED_COMPACT.to_vec(), revision.clone()));
        meta.push((SCHEDULED_COMPACT.to_vec(), revision));
    }
    let leases = snapshot.leases.iter().map(|lease| {
        let stored = pb::StoredLease { id: lease.id, ttl: lease.granted_ttl_secs, remaining_ttl: 0 };
        (lease.id.to_be_bytes().to_vec(), stored.encode_to_vec())
    });
    let leases: Vec<(Vec<u8>, Vec<u8>)> = leases.collect();
    let alarms = snapshot.alarms.iter().filter_map(|alarm| {
        let alarm = pb::AlarmMember { member_id, alarm: convert::alarm_to(*alarm)? };
        Some((alarm.encode_to_vec(), Vec::new()))
    });
    let mut alarms: Vec<(Vec<u8>, Vec<u8>)> = alarms.collect();
    alarms.sort_unstable();
    let versions = Versions(snapshot.versions.collect());
    let bucket = |name, records: Box<dyn Records>| Bucket { name, records };
    let empty = |name| bucket(name, Box::<Vec<(Vec<u8>, Vec<u8>)>>::default());
    File::new(alloc::vec![
        bucket(ALARM, Box::new(alarms)),
        empty(b"auth"),
        empty(b"authRoles"),
        empty(b"authUsers"),
        empty(b"cluster"),
        bucket(KEY, Box::new(versions)),
        bucket(LEASE, Box::new(leases)),
        empty(b"members"),
        empty(b"members_removed"),
        bucket(META, Box::new(meta)),
    ])
}

/// The versions of all keys; they share keys and values with the store.
struct Versions(Vec<StoredVersion>);

impl Versions {
    /// What etcd has in its file of a version: of a tombstone the key alone.
    fn stored(&self, index: usize) -> pb::KeyValue {
        match self.0.get(index) {
            Some(version) if version.is_delete() => {
                pb::KeyValue { key: version.kv.key.clone(), ..pb::KeyValue::default() }
            }
            Some(version) => convert::kv_to(version.kv.clone()),
            None => pb::KeyValue::default(),
        }
    }
}

impl Records for Versions {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize, out: &mut Vec<u8>) {
        if let Some(version) = self.0.get(index) {
            revision_key(version.kv.mod_revision, i64::from(version.sub), version.is_delete(), out);
        }
    }

    fn value_bytes(&self, index: usize) -> usize {
        self.stored(index).encoded_len()
    }

    fn value(&self, index: usize, out: &mut Vec<u8>) {
        // A vector grows as needed, so that encoding cannot fail.
        let _ = self.stored(index).encode(out);
    }
}
