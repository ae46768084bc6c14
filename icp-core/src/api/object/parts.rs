//! The parts of an object outside its metadata, read when somebody looks at them.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Index, IndexMut};

use bytes::Bytes;
use once_cell::race::OnceBox;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

type Name = Cow<'static, str>;

/// One part: a value, or its text.
enum Part {
    Value(Value),
    Text { json: Bytes, value: OnceBox<Value> },
}

/// The parts of an [`Object`](super::Object) outside its metadata (`spec`, `status`, `data`, ...), in order of their names:
/// a map of JSON values.
///
/// Where an object was read from bytes that can be shared ([`Object::from_json`](super::Object::from_json)), a part stays text
/// until somebody looks at it, and [`Object::view`](super::Object::view) reads the fields that it wants from the text.
///
/// ```
/// use icp_core::api::Parts;
/// let mut parts = Parts::new();
/// parts.insert("spec".into(), serde_json::json!({"replicas": 1}));
/// parts["spec"]["replicas"] = 2.into();
/// assert_eq!(parts.get("spec").unwrap()["replicas"], 2);
/// assert!(parts.get("status").is_none());
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Parts(Vec<(Name, Part)>);

/// Names that most objects have need no room of their own.
fn name(text: String) -> Name {
    match text.as_str() {
        "spec" => Cow::Borrowed("spec"),
        "status" => Cow::Borrowed("status"),
        "data" => Cow::Borrowed("data"),
        _ => Cow::Owned(text),
    }
}

impl Part {
    fn value(&self) -> &Value {
        match self {
            Self::Value(value) => value,
            // What stands here was read once as JSON; what is nested deeper than a reader goes reads as nothing.
            Self::Text { json, value } => {
                value.get_or_init(|| Box::new(serde_json::from_slice(json).unwrap_or_default()))
            }
        }
    }

    fn value_mut(&mut self) -> &mut Value {
        if matches!(self, Self::Text { .. }) {
            *self = Self::Value(self.value().clone());
        }
        match self {
            Self::Value(value) => value,
            Self::Text { .. } => unreachable!("a text was made a value"),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            text @ Self::Text { .. } => text.value().clone(),
        }
    }
}

impl Clone for Part {
    fn clone(&self) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.clone()),
            Self::Text { json, .. } => Self::Text { json: json.clone(), value: OnceBox::new() },
        }
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text { json, .. }, Self::Text { json: other, .. }) if json == other => true,
            _ => self.value() == other.value(),
        }
    }
}

impl Parts {
    /// No parts.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many parts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.as_ref().cmp(name))
    }

    fn part(&self, name: &str) -> Option<&Part> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, part)| part)
    }

    fn put(&mut self, name: Name, part: Part) -> Option<Part> {
        match self.place(&name) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| core::mem::replace(old, part)),
            Err(at) => {
                self.0.insert(at, (name, part));
                None
            }
        }
    }

    /// Adds a part as its JSON text, which must be valid.
    pub(super) fn put_text(&mut self, of: String, json: Bytes) {
        self.put(name(of), Part::Text { json, value: OnceBox::new() });
    }

    pub(super) fn text(&self, name: &str) -> Option<&[u8]> {
        match self.part(name) {
            Some(Part::Text { json, .. }) => Some(json),
            _ => None,
        }
    }

    /// The part of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.part(name).map(Part::value)
    }

    /// The part of that name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.place(name).ok()?;
        self.0.get_mut(at).map(|(_, part)| part.value_mut())
    }

    /// Whether there is a part of that name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.part(name).is_some()
    }

    /// Sets a part and returns what it was.
    pub fn insert(&mut self, name: String, value: Value) -> Option<Value> {
        self.put(self::name(name), Part::Value(value)).map(Part::into_value)
    }

    /// Removes a part and returns it.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.place(name).ok()?;
        Some(self.0.remove(at).1.into_value())
    }

    /// The part of that name, which is made by `value` if it is missing.
    pub fn get_or_insert_with(&mut self, name: &str, value: impl FnOnce() -> Value) -> &mut Value {
        let at = match self.place(name) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (self::name(name.into()), Part::Value(value())));
                at
            }
        };
        match self.0.get_mut(at) {
            Some((_, part)) => part.value_mut(),
            None => unreachable!("the part stands there"),
        }
    }

    /// All parts, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, part)| (name.as_ref(), part.value()))
    }

    /// A part read as `T`, from its text if that was not read yet; a missing part and `null` are `{}`.
    pub(super) fn view<T: DeserializeOwned>(&self, name: &str) -> Result<T, serde_json::Error> {
        match self.part(name) {
            Some(Part::Text { json, value }) if value.get().is_none() && &json[..] != b"null" => {
                serde_json::from_slice(json)
            }
            Some(part) if !part.value().is_null() => T::deserialize(part.value()),
            _ => T::deserialize(Value::Object(Map::new())),
        }
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl Index<&str> for Parts {
    type Output = Value;

    /// The part of that name, or `null`.
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl IndexMut<&str> for Parts {
    /// The part of that name, which is made as `null` if it is missing.
    fn index_mut(&mut self, name: &str) -> &mut Value {
        self.get_or_insert_with(name, || Value::Null)
    }
}

impl Extend<(String, Value)> for Parts {
    fn extend<I: IntoIterator<Item = (String, Value)>>(&mut self, parts: I) {
        for (name, value) in parts {
            self.insert(name, value);
        }
    }
}

impl From<Map<String, Value>> for Parts {
    fn from(map: Map<String, Value>) -> Self {
        Self(map.into_iter().map(|(text, value)| (name(text), Part::Value(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct View {
        a: i64,
    }

    fn text(parts: &mut Parts, name: &str, json: &str) {
        parts.put_text(name.into(), Bytes::copy_from_slice(json.as_bytes()));
    }

    #[test]
    fn a_part_reads_the_same_as_text_and_as_value() {
        for json in ["null", r#"{"a":1,"b":[{}]}"#, "{}", r#"{"a":"x"}"#, "7"] {
            let (mut texts, mut values) = (Parts::new(), Parts::new());
            text(&mut texts, "spec", json);
            values.insert("spec".into(), serde_json::from_str(json).unwrap());
            let [a, b] = [&texts, &values].map(|p| p.view::<View>("spec").map_err(|_| ()));
            assert_eq!(a, b, "{json}");
            assert_eq!(texts, values);
            assert_eq!(texts.view::<View>("spec").map_err(|_| ()), b, "after a look, too");
        }
        assert_eq!(Parts::new().view::<View>("spec").unwrap(), View::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is done to them, parts are a map of values.
        #[test]
        fn parts_are_a_map(ops in prop::collection::vec((0..7_u8, 0..4_u8, 0..9_i64), 0..30)) {
            let (mut parts, mut map) = (Parts::new(), Map::new());
            for (op, name, n) in ops {
                let (name, value) = (["spec", "status", "a", "z"][usize::from(name)], json!({ "a": n }));
                match op {
                    0 => prop_assert_eq!(parts.insert(name.into(), value.clone()), map.insert(name.into(), value)),
                    1 => {
                        text(&mut parts, name, &value.to_string());
                        map.insert(name.into(), value);
                    }
                    2 => prop_assert_eq!(parts.remove(name), map.remove(name)),
                    3 => prop_assert_eq!(parts.get_mut(name).map(|v| v.take()), map.get_mut(name).map(Value::take)),
                    4 => {
                        parts[name] = value.clone();
                        map.insert(name.into(), value);
                    }
                    5 => parts = parts.clone(),
                    _ => {
                        parts.get_or_insert_with(name, || value.clone());
                        map.entry(name).or_insert(value);
                    }
                }
                prop_assert_eq!(parts.get(name), map.get(name));
                prop_assert_eq!((parts.len(), parts.is_empty()), (map.len(), map.is_empty()));
            }
            prop_assert_eq!(serde_json::to_value(&parts).unwrap(), Value::Object(map.clone()));
            prop_assert!(parts.iter().eq(map.iter().map(|(k, v)| (k.as_str(), v))));
            prop_assert_eq!(&parts, &Parts::from(map.clone()));
            prop_assert_eq!(format!("{parts:?}"), format!("{:?}", Parts::from(map)));
        }
    }
}
