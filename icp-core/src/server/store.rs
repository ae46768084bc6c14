//! Objects in the store: keys, reads, and the transactions of writes.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::Value;

use super::api_server::{NamespaceState, lock};
use super::{ApiServer, codec};
use crate::api::resources::NAMESPACES;
use crate::api::table::{self, ResourceInfo};
use crate::api::{Gvr, Status};
use crate::storage::{
    Compare, DeleteRangeRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest, RangeRequest, Revision, Txn,
};

/// Most namespaces whose state is remembered.
const NAMESPACES_MAX: usize = 10_000;

/// What a write does besides writing its object, in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    /// Further conditions.
    pub(super) compare: Vec<Compare>,
    /// Further writes.
    pub(super) ops: Vec<Op>,
}

impl Extra {
    /// Puts a key that must not exist.
    pub(super) fn claim(&mut self, key: &str, value: impl Into<Bytes>) {
        self.compare.push(Compare::mod_revision(key.to_string().into_bytes(), 0));
        self.ops.push(Op::Put(PutRequest::new(key.to_string().into_bytes(), value)));
    }

    /// Deletes a key.
    pub(super) fn release(&mut self, key: &str) {
        let range = KeyRange::key(key.to_string().into_bytes());
        self.ops.push(Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
    }
}

/// How a conditional write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// It is done, at this revision.
    Done(Revision),
    /// A condition did not hold; the object and its namespace as they are.
    Refused {
        /// The object's key.
        object: Option<KeyValue>,
        /// The namespace's key, where the write depends on it.
        namespace: Option<KeyValue>,
    },
}

fn read(key: Bytes) -> Op {
    Op::Range(RangeRequest::new(KeyRange::key(key)))
}

fn first(response: Option<&OpResponse>) -> Option<KeyValue> {
    match response {
        Some(OpResponse::Range(range)) => range.kvs.first().cloned(),
        _ => None,
    }
}

impl ApiServer {
    /// The stored bytes of a key.
    pub(super) async fn kv(&self, key: &str) -> Result<Option<KeyValue>, Status> {
        let range = RangeRequest::new(KeyRange::key(key.to_string().into_bytes()));
        Ok(self.storage().range(range).await?.kvs.into_iter().next())
    }

    /// A built-in object, as stored.
    pub(super) async fn object(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let Some(info) = table::find(&gvr.group, &gvr.version, &gvr.resource) else { return Ok(None) };
        match self.kv(&info.key(namespace, name)).await? {
            Some(kv) => codec::decode(&kv.value, kv.mod_revision).map(Some),
            None => Ok(None),
        }
    }

    /// All objects of a built-in resource, as stored.
    pub(super) async fn objects(&self, gvr: &Gvr, namespace: Option<&str>) -> Result<Vec<Value>, Status> {
        let Some(info) = table::find(&gvr.group, &gvr.version, &gvr.resource) else { return Ok(Vec::new()) };
        let range = RangeRequest::new(KeyRange::prefix(info.key_prefix(namespace).into_bytes()));
        let kvs = self.storage().range(range).await?.kvs;
        kvs.iter().map(|kv| codec::decode(&kv.value, kv.mod_revision)).collect()
    }

    /// What is known of a namespace; `None` if there is none.
    pub(super) async fn namespace(&self, name: &str) -> Result<Option<NamespaceState>, Status> {
        if let Some(state) = lock(&self.0.namespaces).get(name) {
            return Ok(Some(*state));
        }
        let kv = self.kv(&namespace_key(name)).await?;
        Ok(self.learn_namespace(name, kv.as_ref()))
    }

    /// Remembers a namespace as it was read.
    pub(super) fn learn_namespace(&self, name: &str, kv: Option<&KeyValue>) -> Option<NamespaceState> {
        let mut known = lock(&self.0.namespaces);
        let Some(kv) = kv else {
            known.remove(name);
            return None;
        };
        let object: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        let terminating = object.pointer("/metadata/deletionTimestamp").is_some()
            || object.pointer("/status/phase").and_then(Value::as_str) == Some("Terminating");
        let state = NamespaceState { revision: kv.mod_revision, terminating };
        if known.len() >= NAMESPACES_MAX {
            known.clear();
        }
        known.insert(name.to_string(), state);
        Some(state)
    }

    /// Creates a key that must not exist, in a namespace that must not have changed since it was looked at.
    pub(super) async fn commit_create(
        &self,
        key: &str,
        value: Bytes,
        namespace: Option<(&str, Revision)>,
        extra: Extra,
    ) -> Result<Commit, Status> {
        let object = Bytes::from(key.to_string().into_bytes());
        let mut compare = alloc::vec![Compare::mod_revision(object.clone(), 0)];
        let mut failure = alloc::vec![read(object.clone())];
        if let Some((name, revision)) = namespace {
            let key = Bytes::from(namespace_key(name).into_bytes());
            compare.push(Compare::mod_revision(key.clone(), revision));
            failure.push(read(key));
        }
        compare.extend(extra.compare);
        let mut success = alloc::vec![Op::Put(PutRequest::new(object, value))];
        success.extend(extra.ops);
        self.commit(Txn { compare, success, failure }).await
    }

    /// Replaces the version `revision` of a key.
    pub(super) async fn commit_update(
        &self,
        key: &str,
        revision: Revision,
        value: Bytes,
        extra: Extra,
    ) -> Result<Commit, Status> {
        let key = Bytes::from(key.to_string().into_bytes());
        let mut compare = alloc::vec![Compare::mod_revision(key.clone(), revision)];
        compare.extend(extra.compare);
        let mut success = alloc::vec![Op::Put(PutRequest::new(key.clone(), value))];
        success.extend(extra.ops);
        self.commit(Txn { compare, success, failure: alloc::vec![read(key)] }).await
    }

    /// Deletes the version `revision` of a key.
    pub(super) async fn commit_delete(
        &self,
        key: &str,
        revision: Revision,
        extra: Extra,
    ) -> Result<Commit, Status> {
        let key = Bytes::from(key.to_string().into_bytes());
        let mut compare = alloc::vec![Compare::mod_revision(key.clone(), revision)];
        compare.extend(extra.compare);
        let range = KeyRange::key(key.clone());
        let mut success = alloc::vec![Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false })];
        success.extend(extra.ops);
        self.commit(Txn { compare, success, failure: alloc::vec![read(key)] }).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, Status> {
        let response = self.storage().txn(txn).await?;
        if response.succeeded {
            return Ok(Commit::Done(response.revision));
        }
        let mut responses = response.responses.iter();
        Ok(Commit::Refused { object: first(responses.next()), namespace: first(responses.next()) })
    }

    /// The store's revision now.
    pub(super) async fn revision(&self, info: &ResourceInfo) -> Result<Revision, Status> {
        let mut range =
            RangeRequest::new(KeyRange::prefix(info.storage_prefix.clone().into_bytes())).limit(1);
        range.count_only = true;
        Ok(self.storage().range(range).await?.revision)
    }
}

/// The storage key of a namespace.
pub(super) fn namespace_key(name: &str) -> alloc::string::String {
    builtin(&NAMESPACES).map(|info| info.key("", name)).unwrap_or_default()
}

/// The table's row of a built-in resource.
pub(super) fn builtin(gvr: &Gvr) -> Option<&'static Arc<ResourceInfo>> {
    table::find(&gvr.group, &gvr.version, &gvr.resource)
}
