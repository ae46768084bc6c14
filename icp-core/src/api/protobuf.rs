//! Reads the protobuf form of objects (`application/vnd.kubernetes.protobuf`) into their JSON form.
//!
//! Clients generated from the Go types send it by default. The format is that of `k8s.io/api/*/generated.proto` inside
//! the envelope of `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`: the magic `k8s\0`, then a `runtime.Unknown`
//! that names the kind and holds the object's bytes. Field numbers come from a table beside that of the schemas.
//!
//! Go writes fields that are no pointers even when they are zero; in JSON those are absent. So a zero is dropped here,
//! except where the field is a pointer and zero says something.
//!
//! ```
//! use icp_core::api::protobuf;
//! // A ConfigMap "a": Unknown { typeMeta: { v1, ConfigMap }, raw: { metadata: { name: "a" } } }
//! let mut body = b"k8s\0".to_vec();
//! body.extend(b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01a");
//! let object = protobuf::to_json(&body)?;
//! assert_eq!(object, serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }));
//! # Ok::<(), protobuf::ProtobufError>(())
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::Gvk;
use super::schema::{Schema, Shape};
use crate::base::Time;
use crate::base::limits::JSON_DEPTH_MAX;

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// It does not begin with the magic.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes are no protobuf message of this type.
    #[error("proto: {0} is malformed")]
    Malformed(String),
    /// The kind has no protobuf form here.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// The kind.
        kind: String,
        /// The group and version.
        version: String,
    },
    /// The raw bytes are encoded in a way that is not known.
    #[error("unsupported content encoding {0:?}")]
    Encoding(String),
    /// Messages lie deeper in each other than JSON may.
    #[error("exceeded max depth")]
    Depth,
}

/// One field as it stands on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The next field and its number; `None` at the end, an inner `None` if the bytes are malformed.
    fn next(&mut self) -> Option<Option<(u64, Wire<'a>)>> {
        (!self.0.is_empty()).then(|| {
            let key = self.varint()?;
            let wire = match key & 7 {
                0 => Wire::Varint(self.varint()?),
                1 => Wire::Fixed(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
                2 => {
                    let len = usize::try_from(self.varint()?).ok()?;
                    Wire::Bytes(self.take(len)?)
                }
                5 => Wire::Fixed(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
                _ => return None,
            };
            Some((key >> 3, wire))
        })
    }
}

fn malformed(what: &str) -> ProtobufError {
    ProtobufError::Malformed(what.to_string())
}

/// All fields of a message.
fn fields<'a>(bytes: &'a [u8], what: &str) -> Result<Vec<(u64, Wire<'a>)>, ProtobufError> {
    let (mut reader, mut out) = (Reader(bytes), Vec::new());
    while let Some(field) = reader.next() {
        out.push(field.ok_or_else(|| malformed(what))?);
    }
    Ok(out)
}

fn text(wire: &Wire<'_>, what: &str) -> Result<String, ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => {
            core::str::from_utf8(bytes).map(ToString::to_string).map_err(|_| malformed(what))
        }
        _ => Err(malformed(what)),
    }
}

fn bytes<'a>(wire: &Wire<'a>, what: &str) -> Result<&'a [u8], ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(malformed(what)),
    }
}

/// Reads an enveloped object.
///
/// # Errors
/// [`ProtobufError`], whose text is the one that the real server answers with where it has one.
pub fn to_json(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), [].as_slice());
    for (number, wire) in fields(body, "Unknown")? {
        match number {
            1 => {
                for (number, wire) in fields(bytes(&wire, "TypeMeta")?, "TypeMeta")? {
                    match number {
                        1 => version = text(&wire, "apiVersion")?,
                        2 => kind = text(&wire, "kind")?,
                        _ => {}
                    }
                }
            }
            2 => raw = bytes(&wire, "raw")?,
            3 => match text(&wire, "contentEncoding")?.as_str() {
                "" => {}
                other => return Err(ProtobufError::Encoding(other.to_string())),
            },
            _ => {}
        }
    }
    let schema = schema_of(&version, &kind)
        .ok_or_else(|| ProtobufError::Kind { kind: kind.clone(), version: version.clone() })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    if let Value::Object(rest) = message(schema, raw, 0)? {
        object.extend(rest);
    }
    Ok(Value::Object(object))
}

/// Kinds of the machinery (`DeleteOptions`) are spoken in every group.
fn schema_of(version: &str, kind: &str) -> Option<Schema<'static>> {
    let known = |gvk: &Gvk| Some(Schema::of(gvk)).filter(|s| !matches!(s, Schema::Any));
    let gvk = Gvk::of(version, kind);
    known(&gvk).or_else(|| known(&Gvk::of("meta.k8s.io/v1", kind)))
}

/// Whether the JSON form leaves this value out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn message(schema: Schema<'_>, raw: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > JSON_DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let mut object = Map::new();
    let what = schema.type_name();
    for (number, wire) in fields(raw, &what)? {
        if let Some(field) = schema.numbered(number, 0) {
            put(&mut object, field.name, field.schema, field.zero_is_a_value, &wire, depth)?;
        } else if schema.inlines(number) {
            // A struct that Go embeds: a message here, fields of the outer object in JSON.
            for (inner, wire) in fields(bytes(&wire, &what)?, &what)? {
                if let Some(field) = schema.numbered(number, inner) {
                    put(&mut object, field.name, field.schema, field.zero_is_a_value, &wire, depth)?;
                }
            }
        }
    }
    Ok(Value::Object(object))
}

fn put(
    object: &mut Map<String, Value>,
    name: &str,
    schema: Schema<'_>,
    zero_is_a_value: bool,
    wire: &Wire<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match schema.shape() {
        Shape::List if schema.items().shape() != Shape::Any || matches!(wire, Wire::Bytes(_)) => {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                items(list, name, schema.items(), wire, depth)?;
            }
        }
        Shape::Map => {
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                let (mut key, mut value) = (String::new(), None);
                let values = schema.field("").unwrap_or(Schema::Any);
                for (number, wire) in fields(bytes(wire, name)?, name)? {
                    match number {
                        1 => key = text(&wire, name)?,
                        2 => value = Some(map_value(values, name, &wire, depth)?),
                        _ => {}
                    }
                }
                map.insert(key, value.unwrap_or_else(|| json!("")));
            }
        }
        _ => {
            let value = scalar(schema, name, wire, depth)?;
            if zero_is_a_value && !value.is_null() || !is_zero(&value) {
                object.insert(name.to_string(), value);
            }
        }
    }
    Ok(())
}

/// A value of a map; a list there is a message that holds it (`ExtraValue`).
fn map_value(schema: Schema<'_>, name: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    if schema.shape() != Shape::List {
        return scalar(schema, name, wire, depth);
    }
    let mut list = Vec::new();
    for (_, wire) in fields(bytes(wire, name)?, name)? {
        items(&mut list, name, schema.items(), &wire, depth)?;
    }
    Ok(Value::Array(list))
}

/// One item, or many numbers packed into one field.
fn items(
    list: &mut Vec<Value>,
    name: &str,
    schema: Schema<'_>,
    wire: &Wire<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if let (Shape::Integer { .. } | Shape::Bool, Wire::Bytes(packed)) = (schema.shape(), wire) {
        let mut reader = Reader(packed);
        while !reader.0.is_empty() {
            let number = reader.varint().ok_or_else(|| malformed(name))?;
            list.push(scalar(schema, name, &Wire::Varint(number), depth)?);
        }
        return Ok(());
    }
    list.push(scalar(schema, name, wire, depth)?);
    Ok(())
}

fn scalar(schema: Schema<'_>, name: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let fault = || malformed(name);
    Ok(match (schema.shape(), wire) {
        (Shape::String, _) => text(wire, name)?.into(),
        (Shape::Bytes, Wire::Bytes(raw)) => base64::engine::general_purpose::STANDARD.encode(raw).into(),
        (Shape::Integer { .. }, Wire::Varint(n)) => n.cast_signed().into(),
        (Shape::Number, Wire::Fixed(n)) => {
            serde_json::Number::from_f64(f64::from_bits(*n)).map_or(Value::Null, Value::Number)
        }
        (Shape::Bool, Wire::Varint(n)) => (*n != 0).into(),
        (Shape::Time { micro }, Wire::Bytes(raw)) => time(raw, micro).ok_or_else(fault)?,
        (Shape::Quantity, Wire::Bytes(raw)) => match fields(raw, name)?.first() {
            Some((1, wire)) => text(wire, name)?.into(),
            _ => "0".into(),
        },
        (Shape::IntOrString, Wire::Bytes(raw)) => {
            let (mut is_text, mut number, mut string) = (false, 0, String::new());
            for (field, wire) in fields(raw, name)? {
                match (field, wire) {
                    (1, Wire::Varint(n)) => is_text = n == 1,
                    (2, Wire::Varint(n)) => number = n.cast_signed(),
                    (3, wire) => string = text(&wire, name)?,
                    _ => {}
                }
            }
            if is_text { string.into() } else { number.into() }
        }
        // FieldsV1, RawExtension, JSON: the text of the value in a message.
        (Shape::Any, Wire::Bytes(raw)) => match fields(raw, name)?.first() {
            Some((1, Wire::Bytes(raw))) => serde_json::from_slice(raw).map_err(|_| fault())?,
            _ => Value::Null,
        },
        (Shape::Object, Wire::Bytes(raw)) => message(schema, raw, depth + 1)?,
        _ => return Err(fault()),
    })
}

/// `metav1.Time`: seconds and nanoseconds; all absent is no time at all.
fn time(raw: &[u8], micro: bool) -> Option<Value> {
    let (mut seconds, mut nanos) = (None, 0);
    for (number, wire) in fields(raw, "Time").ok()? {
        match (number, wire) {
            (1, Wire::Varint(n)) => seconds = Some(n.cast_signed()),
            (2, Wire::Varint(n)) => nanos = i64::try_from(n).ok()?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Some(Value::Null) };
    let time = Time::from_micros(seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)?);
    Some(if micro { time.to_rfc3339_micros().into() } else { time.to_rfc3339().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = alloc::vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn varint(number: u8, value: u8) -> Vec<u8> {
        alloc::vec![number << 3, value]
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn zeros_are_dropped_where_json_has_none() {
        let template = field(1, &field(11, &[field(1, b"k"), field(2, b"v")].concat()));
        let spec = [varint(1, 0), field(3, &template), varint(5, 0)].concat();
        let object = to_json(&envelope("apps/v1", "Deployment", &field(2, &spec))).unwrap();
        assert_eq!(
            object,
            json!({ "apiVersion": "apps/v1", "kind": "Deployment",
                    "spec": { "replicas": 0, "template": { "metadata": { "labels": { "k": "v" } } } } })
        );
    }

    #[test]
    fn embedded_structs_are_flat_in_json() {
        // Volume { name: "v", volumeSource: { emptyDir: { medium: "Memory" } } }; Probe { handler: { httpGet } }
        let source = field(2, &field(1, b"Memory"));
        let volume = [field(1, b"v"), field(2, &field(2, &source[2..]))].concat();
        let port = [varint(1, 1), varint(2, 0), field(3, b"web")].concat();
        let probe = [field(1, &field(2, &field(2, &port))), varint(2, 3)].concat();
        let container = [field(1, b"c"), field(10, &probe)].concat();
        let spec = [field(1, &volume), field(2, &container)].concat();
        let object = to_json(&envelope("v1", "Pod", &field(2, &spec))).unwrap();
        assert_eq!(object["spec"]["volumes"][0], json!({ "name": "v", "emptyDir": { "medium": "Memory" } }));
        let probe = &object["spec"]["containers"][0]["livenessProbe"];
        assert_eq!(*probe, json!({ "httpGet": { "port": "web" }, "initialDelaySeconds": 3 }));
    }

    #[test]
    fn options_of_the_machinery_are_spoken_in_every_group() {
        let object = to_json(&envelope("policy/v1", "DeleteOptions", &varint(1, 0))).unwrap();
        assert_eq!(object["gracePeriodSeconds"], 0);
        assert!(matches!(to_json(&envelope("v1", "Nonsense", b"")), Err(ProtobufError::Kind { .. })));
        assert_eq!(to_json(b"{}"), Err(ProtobufError::Magic));
    }

    #[test]
    fn the_common_kinds_have_numbers() {
        for kind in ["Pod", "Service", "ConfigMap", "Secret", "Node", "Namespace", "ServiceAccount", "Event"]
        {
            let schema = Schema::of(&Gvk::new("", "v1", kind));
            assert_eq!(schema.numbered(1, 0).map(|f| f.name), Some("metadata"), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(raw in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
            let (version, kind) =
                [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Service"), ("batch/v1", "CronJob")][kind];
            let mut body = MAGIC.to_vec();
            let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
            body.extend(field(1, &meta));
            body.extend([0x12, u8::try_from(raw.len() & 0x7f).unwrap() | 0x80, u8::try_from(raw.len() >> 7).unwrap()]);
            body.extend(&raw);
            if let Ok(value) = to_json(&body) {
                prop_assert_eq!(&value["kind"], kind);
            }
            let _ = to_json(&raw);
        }
    }
}
