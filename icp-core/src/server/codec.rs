//! Objects as bytes: how they are stored, and how a stored object is sent without being parsed.
//!
//! A stored object is JSON that begins with `apiVersion`, `kind` and `metadata` in this order and carries no
//! resourceVersion: the version is the revision of its key. Sending it means to insert the number.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Map, Value};

use crate::api::{Object, Status};
use crate::client::WatchKind;
use crate::storage::Revision;

fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing a JSON value into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// The stored form of an object.
///
/// ```
/// use icp_core::server::codec;
/// let object = serde_json::json!({"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"3"}});
/// let stored = codec::encode(&object);
/// assert_eq!(&stored[..], br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#);
/// assert_eq!(
///     &codec::with_revision(&stored, 7)[..],
///     br#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"7","name":"a"}}"#,
/// );
/// ```
#[must_use]
pub fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(512);
    let Value::Object(map) = object else {
        write(&mut out, object);
        return out.into();
    };
    out.push(b'{');
    for (i, field) in ["apiVersion", "kind"].iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(&mut out, field);
        out.push(b':');
        write(&mut out, map.get(*field).unwrap_or(&Value::String(String::new())));
    }
    out.extend_from_slice(b",\"metadata\":{");
    let mut first = true;
    for (key, value) in map.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if key == "resourceVersion" {
            continue;
        }
        if !core::mem::take(&mut first) {
            out.push(b',');
        }
        write(&mut out, key);
        out.push(b':');
        write(&mut out, value);
    }
    out.push(b'}');
    for (key, value) in map {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            write(&mut out, key);
            out.push(b':');
            write(&mut out, value);
        }
    }
    out.push(b'}');
    out.into()
}

/// Where the first field of the metadata stands in an object that [`encode`] wrote.
fn metadata_offset(stored: &[u8]) -> Option<usize> {
    let mut rest = stored;
    for prefix in [&b"{\"apiVersion\":\""[..], &b",\"kind\":\""[..]] {
        rest = rest.strip_prefix(prefix)?;
        let end = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
        rest = rest.get(end..)?.strip_prefix(b"\"")?;
    }
    let rest = rest.strip_prefix(b",\"metadata\":{")?;
    Some(stored.len() - rest.len())
}

/// A stored object with its resourceVersion.
#[must_use]
pub fn with_revision(stored: &[u8], revision: Revision) -> Bytes {
    let Some((head, tail)) = metadata_offset(stored).and_then(|at| stored.split_at_checked(at)) else {
        // Not written by this server: parse it.
        let mut object: Value = serde_json::from_slice(stored).unwrap_or(Value::Null);
        set_revision(&mut object, revision);
        return serde_json::to_vec(&object).unwrap_or_default().into();
    };
    let mut out = BytesMut::with_capacity(stored.len() + 40);
    out.put_slice(head);
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
    out.put_slice(tail);
    out.freeze()
}

/// Sets `metadata.resourceVersion`.
pub fn set_revision(object: &mut Value, revision: Revision) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

/// The metadata of an object, made if it is missing; `None` if the value is no object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// A text in the metadata, or the empty text.
#[must_use]
pub fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// A stored object, parsed, with its resourceVersion.
///
/// # Errors
/// A 500 if the stored bytes are no JSON.
pub fn decode(stored: &[u8], revision: Revision) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(stored)
        .map_err(|e| super::failure::internal(format!("a stored object is not JSON: {e}")))?;
    set_revision(&mut object, revision);
    Ok(object)
}

/// A stored object with its resourceVersion, as a client reads it, and without `metadata.managedFields` if it is to be lean,
/// as in lists and watches; `None` if it cannot be read. Its parts share the stored bytes.
#[must_use]
pub fn object(stored: &Bytes, revision: Revision, lean: bool) -> Option<Object> {
    let mut object = Object::from_json(stored, lean).ok()?;
    object.metadata.resource_version = revision.to_string();
    Some(object)
}

/// The line of a watch, with its line end.
#[must_use]
pub fn watch_frame(kind: WatchKind, object: &[u8]) -> Bytes {
    let head: &[u8] = match kind {
        WatchKind::Added => b"{\"type\":\"ADDED\",\"object\":",
        WatchKind::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
        WatchKind::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        WatchKind::Bookmark => b"{\"type\":\"BOOKMARK\",\"object\":",
    };
    let mut out = BytesMut::with_capacity(head.len() + object.len() + 2);
    out.put_slice(head);
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

/// The line that ends a watch with an error.
#[must_use]
pub fn error_frame(status: &Status) -> Bytes {
    let mut out = b"{\"type\":\"ERROR\",\"object\":".to_vec();
    write(&mut out, status);
    out.extend_from_slice(b"}\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn metadata_may_be_empty_and_foreign_objects_are_parsed() {
        let stored = encode(&json!({"kind":"K","apiVersion":"g/v1"}));
        let sent: Value = serde_json::from_slice(&with_revision(&stored, 5)).unwrap();
        assert_eq!(sent, json!({"apiVersion":"g/v1","kind":"K","metadata":{"resourceVersion":"5"}}));
        let foreign = br#"{"kind":"K","apiVersion":"v1","metadata":{"name":"x"}}"#;
        let sent: Value = serde_json::from_slice(&with_revision(foreign, 5)).unwrap();
        assert_eq!(sent["metadata"], json!({"name":"x","resourceVersion":"5"}));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Inserting the number says the same as parsing, setting and writing.
        #[test]
        fn insertion_equals_parsing(name in ".{0,12}", kind in "[A-Za-z\"\\\\]{0,6}", data in ".{0,20}", rev in 1_i64..i64::MAX) {
            let object = json!({"apiVersion":"v1","kind":kind,"metadata":{"name":name,"labels":{"a":"b"}},"data":{"k":data}});
            let mut want = object.clone();
            set_revision(&mut want, rev);
            let got: Value = serde_json::from_slice(&with_revision(&encode(&object), rev)).unwrap();
            prop_assert_eq!(got, want);
        }
    }
}
