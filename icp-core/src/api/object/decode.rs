//! Objects are read in one pass: a derived reader with flattened fields would hold every value a second time first.

use alloc::string::String;
use core::fmt;
use core::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Object, ObjectMeta};

/// The name of a field: one that is known, or another.
enum Name {
    Known(usize, &'static str),
    Other(String),
}

/// Reads the name of a field without keeping the known ones.
struct Names(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Names {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Name, D::Error> {
        d.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Names {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        let known = self.0.iter().enumerate().find(|(_, known)| **known == name);
        Ok(known.map_or_else(|| Name::Other(name.into()), |(at, known)| Name::Known(at, known)))
    }
}

/// Which of the known fields came, so that none comes twice.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    fn once<E: Error>(&mut self, at: usize, name: &'static str) -> Result<(), E> {
        let bit = 1 << at;
        if self.0 & bit != 0 {
            return Err(E::duplicate_field(name));
        }
        self.0 |= bit;
        Ok(())
    }
}

/// Reads a struct; lean, without the fields that say who manages what.
struct Fields<T> {
    lean: bool,
    of: PhantomData<T>,
}

impl<T> Fields<T> {
    const fn new(lean: bool) -> Self {
        Self { lean, of: PhantomData }
    }
}

/// An object without `metadata.managedFields`, which can be most of it.
///
/// ```
/// use icp_core::api::LeanObject;
/// let text = r#"{"kind":"Pod","metadata":{"name":"web","managedFields":[{"manager":"m"}],"future":1}}"#;
/// let LeanObject(pod) = serde_json::from_str(text).unwrap();
/// assert_eq!(serde_json::to_string(&pod).unwrap(), r#"{"kind":"Pod","metadata":{"name":"web","future":1}}"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeanObject(pub Object);

/// A struct that is read field by field.
trait Struct: Default {
    const KNOWN: &'static [&'static str];
    /// What is left out where it is read lean.
    const LEFT_OUT: Option<&'static str> = None;

    fn known<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
        lean: bool,
    ) -> Result<(), A::Error>;

    fn other(&mut self, name: String, value: Value);
}

impl<'de, T: Struct> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut out, mut seen) = (T::default(), Seen::default());
        while let Some(name) = map.next_key_seed(Names(T::KNOWN))? {
            match name {
                Name::Known(at, name) => {
                    seen.once(at, name)?;
                    out.known(name, &mut map, self.lean)?;
                }
                Name::Other(name) if self.lean && T::LEFT_OUT == Some(name.as_str()) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Name::Other(name) => {
                    let value = map.next_value()?;
                    out.other(name, value);
                }
            }
        }
        Ok(out)
    }
}

/// The value, or the default where it is `null`.
fn nullable<'de, A: MapAccess<'de>, T: Default + Deserialize<'de>>(map: &mut A) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

impl Struct for Object {
    const KNOWN: &'static [&'static str] = &["apiVersion", "kind", "metadata"];

    fn known<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
        lean: bool,
    ) -> Result<(), A::Error> {
        match name {
            "apiVersion" => self.api_version = map.next_value()?,
            "kind" => self.kind = map.next_value()?,
            _ => self.metadata = map.next_value_seed(Fields::new(lean))?,
        }
        Ok(())
    }

    fn other(&mut self, name: String, value: Value) {
        self.rest.insert(name, value);
    }
}

impl ObjectMeta {
    /// The fields of `metadata` that it has of its own; all others are in `rest`.
    pub(crate) const FIELDS: &'static [&'static str] = &[
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
    ];
}

impl Struct for ObjectMeta {
    const KNOWN: &'static [&'static str] = Self::FIELDS;
    const LEFT_OUT: Option<&'static str> = Some("managedFields");

    fn known<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
        _lean: bool,
    ) -> Result<(), A::Error> {
        match name {
            "name" => self.name = map.next_value()?,
            "generateName" => self.generate_name = map.next_value()?,
            "namespace" => self.namespace = map.next_value()?,
            "uid" => self.uid = map.next_value()?,
            "resourceVersion" => self.resource_version = map.next_value()?,
            "generation" => self.generation = map.next_value()?,
            "creationTimestamp" => self.creation_timestamp = map.next_value()?,
            "deletionTimestamp" => self.deletion_timestamp = map.next_value()?,
            "deletionGracePeriodSeconds" => self.deletion_grace_period_seconds = map.next_value()?,
            "labels" => self.labels = nullable(map)?,
            "annotations" => self.annotations = nullable(map)?,
            "ownerReferences" => self.owner_references = nullable(map)?,
            _ => self.finalizers = nullable(map)?,
        }
        Ok(())
    }

    fn other(&mut self, name: String, value: Value) {
        self.rest.insert(name, value);
    }
}

impl<'de, T: Struct> DeserializeSeed<'de> for Fields<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_map(self)
    }
}

/// Reads an object whose parts outside metadata stay text.
struct Shared<'b> {
    text: &'b Bytes,
    lean: bool,
}

/// Reads an object from its text; see [`Object::from_json`].
pub(super) fn read_shared(text: &Bytes, lean: bool) -> Result<Object, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_slice(text);
    let object = de.deserialize_map(Shared { text, lean })?;
    de.end()?;
    Ok(object)
}

impl<'de> Visitor<'de> for Shared<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let (mut out, mut seen) = (Object::default(), Seen::default());
        while let Some(name) = map.next_key_seed(Names(Object::KNOWN))? {
            match name {
                Name::Known(at, name) => {
                    seen.once(at, name)?;
                    out.known(name, &mut map, self.lean)?;
                }
                Name::Other(name) => {
                    let part = map.next_value::<&RawValue>()?.get().as_bytes();
                    let at = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
                    let within = at.map(|at| at..at + part.len()).filter(|r| r.end <= self.text.len());
                    let json = match within {
                        Some(range) => self.text.slice(range),
                        None => Bytes::copy_from_slice(part),
                    };
                    out.rest.put_text(name, json);
                }
            }
        }
        Ok(out)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Fields::new(false).deserialize(d)
    }
}

impl<'de> Deserialize<'de> for LeanObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Fields::new(true).deserialize(d).map(Self)
    }
}

impl<'de> Deserialize<'de> for ObjectMeta {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Fields::new(false).deserialize(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use serde_json::json;

    #[test]
    fn nothing_is_lost_and_null_is_nothing() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": { "a": [1, null] }, "future": "x",
            "metadata": {
                "name": "n", "generateName": "g", "namespace": "s", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:01Z",
                "deletionGracePeriodSeconds": 0, "labels": { "a": "b" }, "annotations": { "c": "d" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "x", "controller": true }],
                "finalizers": ["f"], "managedFields": [{ "manager": "m" }],
            },
        });
        let object: Object = serde_json::from_str(&value.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&object).unwrap(), value);
        assert_eq!(Object::deserialize(&value).unwrap(), object, "from a value as from text");
        let empty = r#"{"metadata":{"labels":null,"annotations":null,"ownerReferences":null,"finalizers":null,
            "creationTimestamp":null}}"#;
        assert_eq!(serde_json::from_str::<Object>(empty).unwrap(), Object::default());
    }

    #[test]
    fn shared_text_reads_as_the_same_object() {
        for text in [
            r#"{"kind":"Pod","metadata":{"name":"n","managedFields":[1]},"spec":{"b":1,"a":[null]},"status":null,"x":"y"}"#,
            r#"{"apiVersion":"v1","data":{}}"#,
        ] {
            let shared = |lean| Object::from_json(&Bytes::from_static(text.as_bytes()), lean).unwrap();
            let LeanObject(lean) = serde_json::from_str(text).unwrap();
            assert_eq!((shared(false), shared(true)), (serde_json::from_str(text).unwrap(), lean));
            assert_eq!(
                shared(false).at("/spec/a/0"),
                serde_json::from_str::<Object>(text).unwrap().at("/spec/a/0")
            );
        }
        for bad in ["[]", "{", r#"{"spec":}"#, r#"{"kind":1}"#, "{} x", r#"{"kind":"a","kind":"b"}"#] {
            assert!(Object::from_json(&Bytes::from_static(bad.as_bytes()), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lean_object_lacks_its_managers_alone() {
        let text =
            r#"{"managedFields":1,"metadata":{"name":"n","managedFields":[{"fieldsV1":{"f:a":{}}}],"x":2}}"#;
        let LeanObject(lean) = serde_json::from_str(text).unwrap();
        let mut whole: Object = serde_json::from_str(text).unwrap();
        assert_ne!(lean, whole);
        whole.metadata.rest.remove("managedFields");
        assert_eq!(lean, whole);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let error = |text: &str| serde_json::from_str::<Object>(text).unwrap_err().to_string();
        assert!(error(r#"{"kind":"a","kind":"b"}"#).starts_with("duplicate field `kind`"));
        assert!(error(r#"{"metadata":{"name":1}}"#).contains("expected a string"));
        assert!(error("[]").contains("expected an object"));
        assert!(error(r#"{"metadata":null}"#).contains("expected an object"));
    }
}
