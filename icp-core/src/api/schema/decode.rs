//! From bytes to a value, strictly.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::DeserializeSeed;
use serde::de::value::MapDeserializer;
use serde_json::Value;

use super::Schema;
use super::reader::{Context, Seed};
use crate::api::table::ResourceInfo;
use crate::api::{Object, Status, reason};

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`.
    Json,
    /// `application/yaml`; needs the feature `server`.
    Yaml,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value, without unknown fields.
    pub value: Value,
    /// Messages such as `unknown field "spec.foo"`, for `fieldValidation` Strict and Warn.
    pub unknown_fields: Vec<String>,
    /// Messages such as `duplicate field "spec.foo"`.
    pub duplicate_fields: Vec<String>,
}

impl Decoded {
    /// What `fieldValidation=Strict` refuses and `Warn` warns of: all messages, or nothing.
    #[must_use]
    pub fn strict_errors(&self) -> Vec<String> {
        self.duplicate_fields.iter().chain(&self.unknown_fields).cloned().collect()
    }

    /// The 400 of `fieldValidation=Strict`, if there is something to refuse.
    #[must_use]
    pub fn strict_status(&self, info: &ResourceInfo) -> Option<Status> {
        let messages = self.strict_errors();
        let error = DecodeError::Type(format!("strict decoding error: {}", messages.join(", ")));
        (!messages.is_empty()).then(|| error.to_status(info))
    }
}

/// Why a body could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not JSON or YAML at all.
    #[error("{0}")]
    Syntax(String),
    /// A value has a type that its field cannot hold.
    #[error("{0}")]
    Type(String),
    /// The document is nested deeper than [`crate::base::limits::JSON_DEPTH_MAX`].
    #[error("exceeded max depth")]
    Depth,
    /// The format needs a feature that this build does not have.
    #[error("the body is in a format that this build does not read")]
    Unsupported,
}

impl DecodeError {
    /// The 400 that tells it.
    #[must_use]
    pub fn to_status(&self, info: &ResourceInfo) -> Status {
        let ResourceInfo { kind, gvr, .. } = info;
        let text = format!("{kind} in version {:?} cannot be handled as a {kind}: {self}", gvr.version);
        Status::failure(400, reason::BAD_REQUEST, text)
    }
}

/// Decodes an object of a resource: unknown fields are dropped and reported, duplicates are reported (the last
/// one counts), types are checked, quantities and times become canonical.
///
/// ```
/// use icp_core::api::{schema::{BodyFormat, decode}, table};
/// let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"replicas":2,"foo":{}}}"#;
/// let decoded = decode(table::find("apps", "v1", "deployments").unwrap(), body, BodyFormat::Json).unwrap();
/// assert_eq!(decoded.unknown_fields, [r#"unknown field "spec.foo""#]);
/// assert_eq!(decoded.duplicate_fields, [r#"duplicate field "spec.replicas""#]);
/// assert_eq!(decoded.value["spec"], serde_json::json!({"replicas": 2}));
/// ```
///
/// # Errors
/// If the text cannot be parsed or a value has the wrong type.
pub fn decode(info: &ResourceInfo, body: &[u8], format: BodyFormat) -> Result<Decoded, DecodeError> {
    decode_with(info.schema(), &info.kind, body, format)
}

/// Decodes by any schema; `kind` is the name that messages begin with.
///
/// # Errors
/// If the text cannot be parsed or a value has the wrong type.
pub fn decode_with(
    schema: Schema<'_>,
    kind: &str,
    body: &[u8],
    format: BodyFormat,
) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(kind);
    let seed = Seed { context: &mut context, schema, root: true };
    let read: Result<Value, String> = match format {
        BodyFormat::Json => {
            let mut de = serde_json::Deserializer::from_slice(body);
            seed.deserialize(&mut de).and_then(|v| de.end().map(|()| v)).map_err(|e| e.to_string())
        }
        BodyFormat::Yaml => yaml(seed, body)?,
    };
    finish(context, read)
}

/// Decodes a value that is already parsed, such as the outcome of a patch.
///
/// # Errors
/// If a value has the wrong type.
pub fn decode_value(info: &ResourceInfo, value: Value) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(&info.kind);
    let seed = Seed { context: &mut context, schema: info.schema(), root: true };
    let read = seed.deserialize(value).map_err(|e| e.to_string());
    finish(context, read)
}

/// Decodes an object that was never text, by any schema, as [`decode_with`] decodes what it would be written as.
///
/// ```
/// use icp_core::api::{Gvk, Object, schema::{Schema, decode_object}};
/// let binding = Object::new("v1", "Binding", "default", "web");
/// let decoded = decode_object(Schema::of(&Gvk::new("", "v1", "Binding")), "Binding", &binding).unwrap();
/// assert_eq!(decoded.value, serde_json::to_value(&binding).unwrap());
/// ```
///
/// # Errors
/// If a value has the wrong type.
pub fn decode_object(schema: Schema<'_>, kind: &str, object: &Object) -> Result<Decoded, DecodeError> {
    let metadata = serde_json::to_value(&object.metadata).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    let (api_version, named) = (Value::from(object.api_version.as_str()), Value::from(object.kind.as_str()));
    let named = [("apiVersion", &api_version), ("kind", &named)];
    let named = named.into_iter().filter(|(_, text)| text.as_str() != Some(""));
    let rest = object.rest.iter();
    let fields = MapDeserializer::new(named.chain([("metadata", &metadata)]).chain(rest));
    let mut context = Context::new(kind);
    let seed = Seed { context: &mut context, schema, root: true };
    let read = seed.deserialize(fields).map_err(|e: serde_json::Error| e.to_string());
    finish(context, read)
}

fn finish(context: Context<'_>, read: Result<Value, String>) -> Result<Decoded, DecodeError> {
    match read {
        Ok(value) => {
            Ok(Decoded { value, unknown_fields: context.unknown, duplicate_fields: context.duplicate })
        }
        Err(text) if text.contains("recursion limit") => Err(DecodeError::Depth),
        Err(text) => Err(context.error.unwrap_or(DecodeError::Syntax(text))),
    }
}

#[cfg(feature = "server")]
fn yaml(seed: Seed<'_, '_>, body: &[u8]) -> Result<Result<Value, String>, DecodeError> {
    use serde_saphyr::options::DuplicateKeyPolicy;
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let read =
        serde_saphyr::with_deserializer_from_slice_with_options(body, options, |de| seed.deserialize(de));
    Ok(read.map_err(|e| e.to_string()))
}

#[cfg(not(feature = "server"))]
fn yaml(_seed: Seed<'_, '_>, _body: &[u8]) -> Result<Result<Value, String>, DecodeError> {
    Err(DecodeError::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;
    use serde_json::json;

    fn pod(body: &str) -> Result<Decoded, DecodeError> {
        decode(table::find("", "v1", "pods").unwrap(), body.as_bytes(), BodyFormat::Json)
    }

    #[test]
    fn go_like_type_errors() {
        for (body, want) in [
            (
                r#"{"spec":{"containers":"x"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                r#"{"metadata":{"labels":{"a":1}}}"#,
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"spec":{"priority":99999999999}}"#,
                "json: cannot unmarshal number 99999999999 into Go struct field PodSpec.spec.priority of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"many"}}}]}}"#,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            ("[]", "json: cannot unmarshal array into Go value of type Pod"),
        ] {
            assert_eq!(pod(body).unwrap_err().to_string(), want);
        }
        assert!(matches!(pod("{").unwrap_err(), DecodeError::Syntax(_)));
        assert!(matches!(pod("{} x").unwrap_err(), DecodeError::Syntax(_)));
        let deep = format!("{{\"spec\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(pod(&deep).is_err());
        let status = pod(r#"{"spec":1}"#).unwrap_err().to_status(table::find("", "v1", "pods").unwrap());
        assert!(status.message.starts_with("Pod in version \"v1\" cannot be handled as a Pod: json:"));
    }

    #[test]
    fn pruning_and_canonical_texts() {
        let got = pod(
            r#"{"metadata":{"creationTimestamp":null,"labels":{},"annotations":{"a":null}},
            "spec":{"containers":[{"name":"a","x":1,"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}],
            "nodeSelector":null,"volumes":[{"emptyDir":{},"name":"v"}]},"status":{"startTime":"2026-01-01T01:00:00+01:00"}}"#,
        )
        .unwrap();
        assert_eq!(got.unknown_fields, ["unknown field \"spec.containers[0].x\""]);
        assert_eq!(
            got.value,
            json!({"metadata":{"annotations":{"a":""}},
            "spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}],
            "volumes":[{"emptyDir":{},"name":"v"}]},"status":{"startTime":"2026-01-01T00:00:00Z"}})
        );
        assert_eq!(
            decode_value(table::find("", "v1", "pods").unwrap(), got.value.clone()).unwrap().value,
            got.value
        );
    }

    #[cfg(feature = "server")]
    #[test]
    fn yaml_bodies() {
        let info = table::find("", "v1", "configmaps").unwrap();
        let got =
            decode(info, b"kind: ConfigMap\ndata:\n  a: \"1\"\n  a: b\nfoo: 1\n", BodyFormat::Yaml).unwrap();
        assert_eq!(got.value, json!({"kind":"ConfigMap","data":{"a":"b"}}));
        assert_eq!(got.strict_errors(), ["duplicate field \"data.a\"", "unknown field \"foo\""]);
        let status = got.strict_status(info).unwrap();
        assert_eq!(
            status.message,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"foo\""
        );
        assert!(decode(info, b"data:\n  a: 1\n", BodyFormat::Yaml).is_err());
    }
}
