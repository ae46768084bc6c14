//! One object of any kind, with nothing lost.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Gvk, Gvr};
use crate::base::Time;

mod decode;
mod parts;

pub use decode::LeanObject;
pub use parts::Parts;

/// An object of any kind: typed metadata, everything else as it came.
///
/// A component decodes once, at its informer, and reads the parts it needs with [`Object::view`].
///
/// ```
/// use icp_core::api::Object;
/// let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"nodeName":"w1","future":1}}"#;
/// let pod: Object = serde_json::from_str(text).unwrap();
/// assert_eq!(pod.at("/spec/nodeName").and_then(|v| v.as_str()), Some("w1"));
/// assert_eq!(serde_json::to_value(&pod).unwrap()["spec"]["future"], 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// `group/version`, or `version` in the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The metadata.
    pub metadata: ObjectMeta,
    /// All other fields: `spec`, `status`, `data`, and so on.
    #[serde(flatten)]
    pub rest: Parts,
}

/// `metav1.ObjectMeta`, with unknown fields kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The prefix of a name that the server completes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// The namespace; empty for a cluster-scoped object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Unique over space and time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The version of the object, opaque to clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of the desired state.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// When the object was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    /// When deletion was asked for, plus the grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    /// Seconds between the request and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the object depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// What must be done before the object may go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `group/version` of the owner.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether the owner manages this object; at most one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether foreground deletion of the owner waits for this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Writes one field of an object, and makes the objects on the way to it that are missing or `null`.
///
/// A value on the way that is no object stays as it is and nothing is written: validation names such a value, and a
/// write must not hide it.
///
/// ```
/// use icp_core::api::set_at;
/// let mut pod = serde_json::json!({"metadata":{"name":"web"},"spec":null,"status":"odd"});
/// set_at(&mut pod, &["spec", "nodeName"], "w1");
/// set_at(&mut pod, &["status", "phase"], "Pending");
/// assert_eq!(pod, serde_json::json!({"metadata":{"name":"web"},"spec":{"nodeName":"w1"},"status":"odd"}));
/// ```
pub fn set_at(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let Some((last, way)) = path.split_last() else { return };
    let mut at = object;
    for field in way {
        let Some(map) = object_at(at) else { return };
        at = map.entry(*field).or_insert(Value::Null);
    }
    if let Some(map) = object_at(at) {
        map.insert((*last).into(), value.into());
    }
}

/// The fields of an object, or of a `null` that becomes one.
fn object_at(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

impl Object {
    /// An object of a kind with a name, and nothing else.
    #[must_use]
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            metadata: ObjectMeta { name: name.into(), namespace: namespace.into(), ..ObjectMeta::default() },
            rest: Parts::new(),
        }
    }

    /// Reads an object from a value, whose parts outside metadata are moved and not copied.
    ///
    /// ```
    /// use icp_core::api::Object;
    /// let value = serde_json::json!({"kind":"Pod","metadata":{"name":"web"},"spec":{"future":1}});
    /// let pod = Object::from_value(value.clone()).unwrap();
    /// assert_eq!(serde_json::to_value(pod).unwrap(), value);
    /// ```
    ///
    /// # Errors
    /// If it is no object, or its metadata does not have the shape of metadata.
    pub fn from_value(value: Value) -> Result<Self, serde_json::Error> {
        let Value::Object(mut rest) = value else { return Self::deserialize(value) };
        let mut text = |name: &str| rest.remove(name).map_or(Ok(String::new()), String::deserialize);
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let metadata =
            rest.remove("metadata").map_or_else(|| Ok(ObjectMeta::default()), ObjectMeta::deserialize)?;
        Ok(Self { api_version, kind, metadata, rest: rest.into() })
    }

    /// Reads an object from its JSON text, of which the parts outside metadata share the buffer until somebody looks at
    /// them; `lean`, without `metadata.managedFields`.
    ///
    /// ```
    /// use icp_core::api::Object;
    /// let text = r#"{"kind":"Pod","metadata":{"name":"web"},"spec":{"future":1}}"#;
    /// let pod = Object::from_json(&text.into(), true).unwrap();
    /// assert_eq!(serde_json::to_string(&pod).unwrap(), text);
    /// ```
    ///
    /// # Errors
    /// If the text is no JSON object, or its metadata does not have the shape of metadata.
    pub fn from_json(text: &Bytes, lean: bool) -> Result<Self, serde_json::Error> {
        decode::read_shared(text, lean)
    }

    /// The kind of the object.
    #[must_use]
    pub fn gvk(&self) -> Gvk {
        Gvk::of(&self.api_version, &self.kind)
    }

    /// `namespace/name`, or `name` for a cluster-scoped object.
    #[must_use]
    pub fn key(&self) -> String {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        if namespace.is_empty() { name.clone() } else { alloc::format!("{namespace}/{name}") }
    }

    /// The value at a JSON pointer outside metadata, such as `/spec/replicas`.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let path = pointer.strip_prefix('/')?;
        let (first, tail) = path.split_once('/').unwrap_or((path, ""));
        let value = self.rest.get(first)?;
        if tail.is_empty() { Some(value) } else { value.pointer(&pointer[first.len() + 1..]) }
    }

    /// The text at a JSON pointer, or the empty string.
    #[must_use]
    pub fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The part `field` (`spec`, `status`, ...) decoded as `T`; a missing part decodes as `null`, then as `{}`.
    ///
    /// # Errors
    /// If the part does not have the shape of `T`.
    pub fn view<T: DeserializeOwned>(&self, field: &str) -> Result<T, serde_json::Error> {
        self.rest.view(field)
    }

    /// The JSON text of a part, if the object was read by [`Object::from_json`] and the part was not changed since. Parts
    /// with the same text are equal.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&[u8]> {
        self.rest.text(field)
    }

    /// The owner that manages this object.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.metadata.owner_references.iter().find(|o| o.controller == Some(true))
    }

    /// Whether deletion was asked for.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// An owner reference to this object, as its controller.
    #[must_use]
    pub fn controller_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Where the object lives, given its resource.
    #[must_use]
    pub fn path(&self, gvr: &Gvr) -> String {
        let ns = &self.metadata.namespace;
        let collection = gvr.path((!ns.is_empty()).then_some(ns));
        alloc::format!("{collection}/{}", self.metadata.name)
    }
}
