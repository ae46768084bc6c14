//! What happened, revision by revision.

use std::collections::BTreeMap;

use icp_core::storage::{
    Event, EventKind, KeyRange, KeyValue, RangeRequest, Revision, Storage, StorageError,
};

use super::model::State;
use super::{Violation, violation};

/// The state at every revision. It is read back by reads in the past, and so not from any watch or answer that it is
/// held against.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The states at revision 1, 2, and so on.
    states: Vec<State>,
    /// The highest revision that was compacted.
    pub compacted: Revision,
}

impl Truth {
    pub fn new() -> Self {
        Self { states: vec![State::default()], compacted: 0 }
    }

    pub fn last(&self) -> Revision {
        self.states.len() as Revision
    }

    pub fn at(&self, revision: Revision) -> Option<&State> {
        self.states.get(usize::try_from(revision - 1).ok()?)
    }

    /// Reads the revisions that came since; call it before they are compacted.
    pub async fn extend(&mut self, store: &dyn Storage) -> Result<(), StorageError> {
        let newest = store.range(RangeRequest::new(KeyRange::key("?"))).await?.revision;
        for revision in self.last() + 1..=newest {
            let read = store.range(RangeRequest::new(KeyRange::prefix("")).at(revision)).await?;
            let kvs = read.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
            self.states.push(State { revision, kvs });
        }
        Ok(())
    }

    /// The events of one revision by key, with the versions before.
    pub fn events(&self, revision: Revision) -> BTreeMap<Vec<u8>, Event> {
        let (Some(before), Some(after)) = (self.at(revision - 1), self.at(revision)) else {
            return BTreeMap::new();
        };
        let mut events = BTreeMap::new();
        for kv in after.kvs.values().filter(|kv| kv.mod_revision == revision) {
            let prev_kv = before.kvs.get(&kv.key).cloned();
            events.insert(kv.key.to_vec(), Event { kind: EventKind::Put, kv: kv.clone(), prev_kv });
        }
        for old in before.kvs.values().filter(|kv| !after.kvs.contains_key(&kv.key)) {
            let kv = KeyValue { key: old.key.clone(), mod_revision: revision, ..KeyValue::default() };
            let event = Event { kind: EventKind::Delete, kv, prev_kv: Some(old.clone()) };
            events.insert(old.key.to_vec(), event);
        }
        events
    }

    /// Each revision changes something, and what it does not change it keeps.
    pub fn check(&self) -> Result<(), Violation> {
        for revision in 2..=self.last() {
            let changed = self.events(revision);
            if changed.is_empty() {
                return violation("one revision a write", format!("revision {revision} changes nothing"));
            }
            let (Some(before), Some(after)) = (self.at(revision - 1), self.at(revision)) else { continue };
            for (key, kv) in &after.kvs {
                if !changed.contains_key(&key[..]) && before.kvs.get(key) != Some(kv) {
                    return violation("history", format!("revision {revision}: {kv:?} came without a write"));
                }
            }
        }
        Ok(())
    }
}
