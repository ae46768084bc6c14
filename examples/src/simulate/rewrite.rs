//! What broken shells of the store do to transactions.

use icp_core::storage::{Compare, DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Txn};
use icp_store::Store;
use serde_json::{Value, json};

use super::mutant::Mutant;

/// The transaction as a broken shell passes it on.
#[must_use]
pub fn txn(mutant: Mutant, mut txn: Txn, store: &Store) -> Txn {
    match mutant {
        Mutant::DyingNamespace => {
            // A write to the namespace itself is conditional still.
            let itself = |key: &[u8]| txn.success.iter().any(|op| matches!(op, Op::Put(p) if p.key == key));
            let other =
                |c: &Compare| c.range.start.starts_with(b"/registry/namespaces/") && !itself(&c.range.start);
            let compare = txn.compare.iter().filter(|c| !other(c)).cloned().collect();
            txn.compare = compare;
        }
        _ => {
            for op in &mut txn.success {
                rewrite(mutant, op, store);
            }
        }
    }
    txn
}

fn rewrite(mutant: Mutant, op: &mut Op, store: &Store) {
    let Op::Put(put) = op else { return };
    let Ok(mut new) = serde_json::from_slice::<Value>(&put.value) else { return };
    let old = stored(store, put);
    let kind = new.get("kind").and_then(Value::as_str).unwrap_or("").to_string();
    let text = |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or("").to_string();
    let changed = match (mutant, kind.as_str()) {
        (Mutant::Rebind, "Pod") => {
            let bound = old.as_ref().map(|o| text(o, "/spec/nodeName")).unwrap_or_default();
            !bound.is_empty() && set(&mut new, "/spec", "nodeName", json!("elsewhere"))
        }
        (Mutant::SameUid, "Pod") => {
            set(&mut new, "/metadata", "uid", json!("00000000-0000-4000-8000-000000000000"))
        }
        (Mutant::SameClusterIp, "Service") => {
            text(&new, "/spec/clusterIP") != "None"
                && text(&new, "/metadata/namespace") != "default"
                && set(&mut new, "/spec", "clusterIP", json!("10.96.7.7"))
        }
        (Mutant::Undelete, "Pod") => {
            let dying = old.as_ref().is_some_and(|o| o.pointer("/metadata/deletionTimestamp").is_some());
            dying && remove(&mut new, "/metadata", "deletionTimestamp")
        }
        (Mutant::FlipSelector, "ReplicaSet") => {
            let generation =
                old.as_ref().and_then(|o| o.pointer("/metadata/generation")).and_then(Value::as_i64);
            let flipped =
                old.is_some() && set(&mut new, "/spec/selector/matchLabels", "flipped", json!("yes"));
            if flipped {
                set(&mut new, "/metadata", "generation", json!(generation.unwrap_or(0) + 1));
            }
            flipped
        }
        (Mutant::Generation, "Deployment") => match &old {
            Some(old) if old.get("spec") == new.get("spec") => {
                let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                set(&mut new, "/metadata", "generation", json!(generation + 1))
            }
            _ => false,
        },
        (Mutant::Unfinalize, _) => {
            let held = |v: &Value| {
                v.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
            };
            if old.as_ref().is_some_and(|o| held(o) && o.pointer("/metadata/deletionTimestamp").is_some()) {
                let range = KeyRange::key(put.key.clone());
                *op = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
                return;
            }
            false
        }
        _ => false,
    };
    if changed {
        put.value = serde_json::to_vec(&new).unwrap_or_default().into();
    }
}

fn stored(store: &Store, put: &PutRequest) -> Option<Value> {
    let got = store.range(&RangeRequest::new(KeyRange::key(put.key.clone()))).ok()?;
    serde_json::from_slice(&got.kvs.first()?.value).ok()
}

fn set(object: &mut Value, parent: &str, field: &str, value: Value) -> bool {
    match object.pointer_mut(parent).and_then(Value::as_object_mut) {
        Some(map) => map.insert(field.into(), value.clone()) != Some(value),
        None => false,
    }
}

fn remove(object: &mut Value, parent: &str, field: &str) -> bool {
    object.pointer_mut(parent).and_then(Value::as_object_mut).is_some_and(|map| map.remove(field).is_some())
}
