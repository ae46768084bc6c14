//! A file of etcd as the entries of our log.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::{AlarmKind, KeyValue, Revision};
use prost::Message;

use super::{ALARM, FINISHED_COMPACT, KEY, LEASE, META, SCHEDULED_COMPACT, read_revision_key};
use crate::etcd::bolt::{BoltError, Reader, Source};
use crate::etcd::convert;
use crate::etcd::proto as pb;
use crate::mvcc::{Change, Commit, Version};
use crate::store::Entry;

/// What was read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The newest revision.
    pub revision: Revision,
    /// The revision up to which history is compacted; 0 if none is.
    pub compacted: Revision,
    /// Versions that were taken, deletions included.
    pub versions: u64,
    /// Keys that exist at the newest revision.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
}

/// Reads a file of etcd and hands out the entries that make an empty store equal to it, in order.
///
/// A compaction that etcd had only scheduled is completed. Users and roles are not taken: a file with authentication
/// switched on is refused, since what was protected would be open to all.
///
/// # Errors
/// [`BoltError`]; its variant `Refused` also if the file is no etcd's or if its history has a gap.
pub fn import<S: Source + ?Sized>(
    source: &S,
    take: &mut dyn FnMut(Entry) -> Result<(), String>,
) -> Result<Imported, BoltError> {
    let reader = Reader::open(source)?;
    let mut compacted = 0;
    reader.for_each(META, |key, value| {
        if key == FINISHED_COMPACT || key == SCHEDULED_COMPACT {
            let (revision, _, _) = read_revision_key(value).ok_or_else(|| refused("meta: not a revision"))?;
            compacted = compacted.max(revision);
        }
        Ok(())
    })?;
    reader.for_each(b"auth", |key, value| match (key, value) {
        (b"authEnabled", [1]) => Err(refused("authentication is on, and users and roles are not supported")),
        _ => Ok(()),
    })?;
    let mut import = Import {
        take,
        compacted,
        revision: compacted.max(1),
        commit: Vec::new(),
        base: Some(BTreeMap::new()),
        live: BTreeMap::new(),
        versions: 0,
    };
    import.entry(Entry::Restore { compacted })?;
    let leases = import.leases(&reader)?;
    reader.for_each(KEY, |key, value| import.version(key, value))?;
    import.seal_base()?;
    import.seal_commit()?;
    import.alarms(&reader)?;
    let (revision, versions) = (import.revision, import.versions);
    let keys = import.live.len() as u64;
    Ok(Imported { revision, compacted, versions, keys, leases })
}

fn refused(detail: impl ToString) -> BoltError {
    BoltError::Refused(detail.to_string())
}

struct Import<'t> {
    take: &'t mut dyn FnMut(Entry) -> Result<(), String>,
    compacted: Revision,
    /// The newest revision that was seen.
    revision: Revision,
    /// The changes of that revision so far.
    commit: Vec<Change>,
    /// The newest version of each key at the compacted revision, until the first revision after it is seen.
    base: Option<BTreeMap<Bytes, Version>>,
    /// The keys that exist.
    live: BTreeMap<Bytes, ()>,
    versions: u64,
}

impl Import<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), BoltError> {
        (self.take)(entry).map_err(BoltError::Refused)
    }

    fn leases<S: Source + ?Sized>(&mut self, reader: &Reader<'_, S>) -> Result<u64, BoltError> {
        let mut leases = 0;
        reader.for_each(LEASE, |_, value| {
            let lease = pb::StoredLease::decode(value).map_err(|e| refused(alloc::format!("lease: {e}")))?;
            leases += 1;
            self.entry(Entry::LeaseGrant { id: lease.id, ttl_secs: lease.ttl })
        })?;
        Ok(leases)
    }

    fn alarms<S: Source + ?Sized>(&mut self, reader: &Reader<'_, S>) -> Result<(), BoltError> {
        // etcd notes an alarm for each member; there is one member now.
        let mut raised: Vec<AlarmKind> = Vec::new();
        reader.for_each(ALARM, |key, _| {
            let alarm = pb::AlarmMember::decode(key).map_err(|e| refused(alloc::format!("alarm: {e}")))?;
            raised.extend(convert::alarm(alarm.alarm).filter(|kind| !raised.contains(kind)));
            Ok(())
        })?;
        raised.into_iter().try_for_each(|kind| self.entry(Entry::Alarm { kind, raised: true }))
    }

    fn version(&mut self, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
        let (main, sub, tombstone) = read_revision_key(key).ok_or_else(|| refused("key: not a revision"))?;
        let kv = pb::KeyValue::decode(value).map_err(|e| refused(alloc::format!("revision {main}: {e}")))?;
        let kv = match tombstone {
            true => KeyValue { key: kv.key, mod_revision: main, ..KeyValue::default() },
            false => convert::kv(kv),
        };
        let whole = !kv.key.is_empty() && kv.mod_revision == main && (tombstone || kv.version > 0);
        let sub = u32::try_from(sub).ok().filter(|_| whole);
        let sub = sub.ok_or_else(|| refused(alloc::format!("revision {main}: not a version of a key")))?;
        let version = Version { kv, sub };
        if main <= self.compacted {
            if let Some(base) = &mut self.base {
                base.insert(version.kv.key.clone(), version);
            }
            return Ok(());
        }
        self.seal_base()?;
        if main != self.revision || self.commit.is_empty() {
            self.seal_commit()?;
            if self.revision.checked_add(1) != Some(main) {
                return Err(refused(alloc::format!("revision {main} follows {}", self.revision)));
            }
            self.revision = main;
        }
        self.count(&version);
        self.commit.push(Change { kv: Arc::new(version), prev: None });
        Ok(())
    }

    fn count(&mut self, version: &Version) {
        self.versions += 1;
        if version.kv.version == 0 {
            self.live.remove(&version.kv.key);
        } else {
            self.live.insert(version.kv.key.clone(), ());
        }
    }

    /// Hands out the keys as they were at the compacted revision.
    fn seal_base(&mut self) -> Result<(), BoltError> {
        let Some(base) = self.base.take() else { return Ok(()) };
        let mut last: Vec<Arc<Version>> = Vec::new();
        for version in base.into_values().filter(|v| v.kv.version > 0) {
            self.count(&version);
            let version = Arc::new(version);
            if version.kv.mod_revision == self.compacted {
                last.push(version.clone());
            }
            self.entry(Entry::Base(version))?;
        }
        // A watch may begin at the compacted revision itself.
        last.sort_unstable_by_key(|v| v.sub);
        if !last.is_empty() {
            let changes = last.into_iter().map(|kv| Change { kv, prev: None }).collect();
            self.entry(Entry::Commit(Arc::new(Commit { revision: self.compacted, changes })))?;
        }
        Ok(())
    }

    fn seal_commit(&mut self) -> Result<(), BoltError> {
        if self.commit.is_empty() {
            return Ok(());
        }
        let changes = core::mem::take(&mut self.commit).into();
        self.entry(Entry::Commit(Arc::new(Commit { revision: self.revision, changes })))
    }
}
