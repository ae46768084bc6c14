//! One pass from a deserializer to a value: prunes, checks types, finds duplicates, makes texts canonical.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DecodeError, Schema, Shape};
use crate::api::Quantity;
use crate::base::Time;
use crate::base::limits::JSON_DEPTH_MAX;

/// Most messages about unknown or duplicate fields; more than that nobody reads.
const MESSAGES_MAX: usize = 100;

enum Segment<'s> {
    /// A field of the object of this schema.
    Field(String, Schema<'s>),
    Key(String),
    Index(usize),
}

/// What is gathered on the way.
pub(super) struct Context<'s> {
    path: Vec<Segment<'s>>,
    kind: &'s str,
    pub(super) unknown: Vec<String>,
    pub(super) duplicate: Vec<String>,
    pub(super) error: Option<DecodeError>,
}

impl<'s> Context<'s> {
    pub(super) const fn new(kind: &'s str) -> Self {
        Self { path: Vec::new(), kind, unknown: Vec::new(), duplicate: Vec::new(), error: None }
    }

    /// `spec.containers[0].name`.
    fn path_of(&self, last: &str) -> String {
        let mut out = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name, _) | Segment::Key(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Segment::Index(i) => out.push_str(&format!("[{i}]")),
            }
        }
        if !out.is_empty() {
            out.push('.');
        }
        out + last
    }

    fn unknown(&mut self, name: &str) {
        if self.unknown.len() < MESSAGES_MAX {
            let path = self.path_of(name);
            self.unknown.push(format!("unknown field {path:?}"));
        }
    }

    fn duplicate(&mut self, name: &str) {
        if self.duplicate.len() < MESSAGES_MAX {
            let path = self.path_of(name);
            self.duplicate.push(format!("duplicate field {path:?}"));
        }
    }

    /// The message of Go's decoder: the innermost struct, the path of fields, and the Go type.
    fn mismatch<E: serde::de::Error>(&mut self, got: &str, schema: Schema<'_>) -> E {
        let mut owner = String::new();
        let mut fields: Vec<&str> = Vec::new();
        for segment in &self.path {
            if let Segment::Field(name, of) = segment {
                owner = of.type_name().rsplit('.').next().unwrap_or_default().to_string();
                fields.push(name);
            }
        }
        let wanted = schema.type_name();
        let place = if fields.is_empty() {
            format!("value of type {}", self.kind)
        } else {
            format!("struct field {owner}.{} of type {wanted}", fields.join("."))
        };
        self.fail(DecodeError::Type(format!("json: cannot unmarshal {got} into Go {place}")))
    }

    fn fail<E: serde::de::Error>(&mut self, error: DecodeError) -> E {
        let text = error.to_string();
        self.error = Some(error);
        E::custom(text)
    }
}

/// Reads one value of a schema.
pub(super) struct Seed<'c, 's> {
    pub(super) context: &'c mut Context<'s>,
    pub(super) schema: Schema<'s>,
    pub(super) root: bool,
}

/// Whether types are checked here: custom resources are checked by validation, with other messages.
fn checked(schema: Schema<'_>) -> bool {
    matches!(schema, Schema::Builtin(_))
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        if self.context.path.len() > JSON_DEPTH_MAX {
            return Err(self.context.fail(DecodeError::Depth));
        }
        d.deserialize_any(self)
    }
}

impl Seed<'_, '_> {
    fn scalar<E: serde::de::Error>(self, got: &str, value: Value) -> Result<Value, E> {
        let fits = match (self.schema.shape(), &value) {
            (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) => true,
            (Shape::Integer { bits }, Value::Number(n)) => {
                n.as_i64().is_some_and(|n| bits == 64 || i32::try_from(n).is_ok())
            }
            (Shape::Number, Value::Number(_)) => true,
            (Shape::IntOrString, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Shape::Quantity, Value::Number(_)) => {
                return match Quantity::from_value(&value) {
                    Ok(q) => Ok(q.to_string().into()),
                    Err(e) => Err(self.context.fail(DecodeError::Type(e.to_string()))),
                };
            }
            _ => !checked(self.schema),
        };
        if fits { Ok(value) } else { Err(self.context.mismatch(got, self.schema)) }
    }

    fn text<E: serde::de::Error>(self, s: Cow<'_, str>) -> Result<Value, E> {
        let shape = self.schema.shape();
        match shape {
            Shape::Any | Shape::String | Shape::IntOrString => {}
            Shape::Bytes => {
                if let Err(e) = base64::engine::general_purpose::STANDARD.decode(s.as_bytes()) {
                    let at = match e {
                        base64::DecodeError::InvalidByte(at, _) => at,
                        _ => s.len(),
                    };
                    let error = DecodeError::Type(format!("illegal base64 data at input byte {at}"));
                    return Err(self.context.fail(error));
                }
            }
            Shape::Time { micro } => match s.parse::<Time>() {
                Ok(t) => return Ok(if micro { t.to_rfc3339_micros() } else { t.to_rfc3339() }.into()),
                Err(_) => {
                    let error = DecodeError::Type(format!(
                        "parsing time {s:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {s:?} as \"2006\""
                    ));
                    return Err(self.context.fail(error));
                }
            },
            Shape::Quantity => match s.parse::<Quantity>() {
                Ok(q) => return Ok(q.to_string().into()),
                Err(e) => return Err(self.context.fail(DecodeError::Type(e.to_string()))),
            },
            _ if checked(self.schema) => return Err(self.context.mismatch("string", self.schema)),
            _ => {}
        }
        Ok(Value::String(s.into_owned()))
    }

    /// What a null means here, as Go's decoder and its `omitempty` have it: `None` drops the field.
    fn null(schema: Schema<'_>, in_map: bool) -> Option<Value> {
        match (schema, schema.shape()) {
            (Schema::Builtin(_), Shape::String) if in_map => Some(Value::String(String::new())),
            (Schema::Builtin(_), _) => None,
            _ => Some(Value::Null),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<Value, E> {
        self.scalar("bool", Value::Bool(v))
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Value, E> {
        let fits = matches!(self.schema.shape(), Shape::Integer { .. });
        let got = if fits { format!("number {v}") } else { "number".into() };
        self.scalar(&got, v.into())
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
        let fits = matches!(self.schema.shape(), Shape::Integer { .. });
        let got = if fits { format!("number {v}") } else { "number".into() };
        self.scalar(&got, v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        let fits = matches!(self.schema.shape(), Shape::Integer { .. });
        let got = if fits { format!("number {v}") } else { "number".into() };
        self.scalar(&got, v.into())
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Value, E> {
        self.text(Cow::Borrowed(v))
    }

    fn visit_string<E: serde::de::Error>(self, v: String) -> Result<Value, E> {
        self.text(Cow::Owned(v))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let items = match self.schema.shape() {
            Shape::List => self.schema.items(),
            Shape::Any => Schema::Any,
            _ if checked(self.schema) => return Err(self.context.mismatch("array", self.schema)),
            _ => Schema::Any,
        };
        let mut out = Vec::new();
        loop {
            self.context.path.push(Segment::Index(out.len()));
            let next = seq.next_element_seed(Seed { context: self.context, schema: items, root: false });
            self.context.path.pop();
            match next? {
                Some(Value::Null) => match (items, items.shape()) {
                    (Schema::Builtin(_), Shape::Object) => out.push(Value::Object(Map::new())),
                    (Schema::Builtin(_), Shape::String) => out.push(Value::String(String::new())),
                    _ => out.push(Value::Null),
                },
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let shape = self.schema.shape();
        if checked(self.schema) && !matches!(shape, Shape::Object | Shape::Map | Shape::Any) {
            return Err(self.context.mismatch("object", self.schema));
        }
        let embedded = self.root || self.schema.embedded();
        let mut out = Map::new();
        let mut dropped: Vec<String> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            if out.contains_key(&key) || dropped.contains(&key) {
                self.context.duplicate(&key);
            }
            let sub = match shape {
                Shape::Object if embedded => self.schema.root_field(&key),
                Shape::Object | Shape::Map => self.schema.field(&key),
                _ => Some(Schema::Any),
            };
            let Some(sub) = sub.or_else(|| self.schema.keeps_unknown().then_some(Schema::Any)) else {
                self.context.unknown(&key);
                access.next_value::<IgnoredAny>()?;
                dropped.push(key);
                continue;
            };
            self.context.path.push(match shape {
                Shape::Object => Segment::Field(key.clone(), self.schema),
                _ => Segment::Key(key.clone()),
            });
            let value = access.next_value_seed(Seed { context: self.context, schema: sub, root: false });
            self.context.path.pop();
            let value = value?;
            let empty = match &value {
                Value::Array(list) => list.is_empty() && sub.shape() == Shape::List,
                Value::Object(map) => map.is_empty() && sub.shape() == Shape::Map,
                _ => false,
            };
            let value = if value.is_null() { Self::null(sub, shape == Shape::Map) } else { Some(value) };
            // Go's `omitempty`: an empty list or map of a built-in kind does not exist.
            let omitted = empty && shape == Shape::Object && checked(sub) && !self.schema.requires(&key);
            match value.filter(|_| !omitted) {
                Some(value) => drop(out.insert(key, value)),
                None => {
                    out.remove(&key);
                    dropped.push(key);
                }
            }
            if out.len() + dropped.len() > usize::from(u16::MAX) {
                return Err(A::Error::custom("an object has too many fields"));
            }
        }
        Ok(Value::Object(out))
    }
}
