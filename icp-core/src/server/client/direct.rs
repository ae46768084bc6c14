//! Requests of a client in the same process without their HTTP messages.
//!
//! A request becomes here what [`wire`](super::wire) and the server's reading of its message would make of it; where
//! that is more than moving texts, there is no direct way.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::super::input::Input;
use super::super::{Query, RequestInfo};
use super::wire;
use crate::api::{Object, ObjectMeta};
use crate::client::{ApiRequest, ListOptions, Operation};

/// Deepest nesting of an object that is handed over as it is; deeper ones are left to the reader of bytes.
const DEPTH_MAX: usize = 32;
/// Longest that a character becomes in JSON, in bytes.
const ESCAPE_BYTES: usize = 6;
/// Longest that a number or a literal becomes in JSON with its separators, in bytes.
const SCALAR_BYTES: usize = 32;

/// A request, read.
#[derive(Debug)]
pub(in crate::server) struct Plain {
    pub(in crate::server) info: RequestInfo,
    pub(in crate::server) query: Query,
    pub(in crate::server) headers: HeaderMap,
    pub(in crate::server) input: Input,
}

/// Whether a part of a path means itself.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

/// At most how many bytes the value is as JSON; `None` if it is nested too deeply.
fn bytes_at_most(value: &Value, depth: usize) -> Option<usize> {
    let deeper = depth.checked_sub(1)?;
    Some(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR_BYTES,
        Value::String(text) => text.len() * ESCAPE_BYTES + SCALAR_BYTES,
        Value::Array(list) => {
            list.iter().try_fold(SCALAR_BYTES, |sum, v| Some(sum + bytes_at_most(v, deeper)?))?
        }
        Value::Object(map) => map.iter().try_fold(SCALAR_BYTES, |sum, (k, v)| {
            Some(sum + k.len() * ESCAPE_BYTES + SCALAR_BYTES + bytes_at_most(v, deeper)?)
        })?,
    })
}

/// Whether an object is surely accepted as a body of at most `bytes_max`, and says nothing twice.
fn is_plain_object(object: &Object, bytes_max: usize) -> bool {
    let meta = &object.metadata;
    let once = ["apiVersion", "kind", "metadata"].iter().all(|name| !object.rest.contains_key(name))
        && (meta.rest.is_empty() || ObjectMeta::FIELDS.iter().all(|name| !meta.rest.contains_key(*name)));
    let texts =
        [&object.api_version, &object.kind, &meta.name, &meta.generate_name, &meta.namespace, &meta.uid];
    let texts = texts.into_iter().map(String::len).sum::<usize>() + meta.resource_version.len();
    let pairs = meta.labels.iter().chain(&meta.annotations).map(|(k, v)| k.len() + v.len() + SCALAR_BYTES);
    let owners = meta
        .owner_references
        .iter()
        .map(|o| o.api_version.len() + o.kind.len() + o.name.len() + o.uid.len() + 8 * SCALAR_BYTES);
    let finalizers = meta.finalizers.iter().map(|f| f.len() + SCALAR_BYTES);
    let head = texts + pairs.chain(owners).chain(finalizers).sum::<usize>() + 20 * SCALAR_BYTES;
    let extra = meta.rest.iter().map(|(k, v)| (k.as_str(), v));
    let rest = object.rest.iter().chain(extra).try_fold(head * ESCAPE_BYTES, |sum, (k, v)| {
        Some(sum + k.len() * ESCAPE_BYTES + SCALAR_BYTES + bytes_at_most(v, DEPTH_MAX)?)
    });
    once && rest.is_some_and(|bytes| bytes <= bytes_max)
}

fn pairs(options: &ListOptions, watch: bool) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    wire::list_pairs(options, watch, |key, value| pairs.push((key.to_string(), value.to_string())));
    pairs
}

/// The request as the server would read it from its HTTP message; `None` if it must be written as one.
pub(in crate::server) fn read(request: &ApiRequest, body_bytes_max: usize) -> Option<Plain> {
    let gvr = &request.gvr;
    let resource = gvr.resource.as_ref();
    // Paths below `namespaces` and `watch` are read in a way of their own.
    let plain = is_plain(resource)
        && !matches!(resource, "namespaces" | "watch")
        && is_plain(&gvr.version)
        && (gvr.group.is_empty() || is_plain(&gvr.group))
        && request.namespace.as_deref().is_none_or(is_plain)
        && request.name.as_deref().is_none_or(|name| !name.is_empty());
    // Bytes of pods and what nodes and services forward are never values.
    let forwarded = |sub| matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy");
    if !plain || request.subresource.is_some_and(|sub| !is_plain(sub) || forwarded(sub)) {
        return None;
    }
    let (named, sub) = (request.name.is_some(), request.subresource.is_some());
    let mut headers = HeaderMap::new();
    let object =
        |object: &Arc<Object>| is_plain_object(object, body_bytes_max).then(|| Input::Object(object.clone()));
    let bytes = |value: &Value| {
        let bytes = serde_json::to_vec(value).ok().filter(|bytes| bytes.len() <= body_bytes_max)?;
        Some(Input::Bytes(bytes.into()))
    };
    let none = Input::Bytes(Bytes::new());
    let (verb, query, input) = match &request.op {
        Operation::Get if named => ("get", Vec::new(), none),
        Operation::List(options) if !named && !sub => ("list", pairs(options, false), none),
        Operation::Watch(options) if !named && !sub => ("watch", pairs(options, true), none),
        Operation::Create(new) if named == sub => ("create", Vec::new(), object(new)?),
        Operation::Update(new) if named => ("update", Vec::new(), object(new)?),
        Operation::Patch { kind, body, field_manager, force } if named => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.content_type()));
            let manager = field_manager.iter().map(|m| ("fieldManager".to_string(), m.clone()));
            let force = force.then(|| ("force".to_string(), "true".to_string()));
            ("patch", manager.chain(force).collect(), bytes(body)?)
        }
        Operation::Delete(options) if named && !sub => {
            ("delete", Vec::new(), bytes(&wire::delete_body(options))?)
        }
        _ => return None,
    };
    let info = RequestInfo {
        is_resource: true,
        verb,
        path: String::new(),
        group: gvr.group.to_string(),
        version: gvr.version.to_string(),
        namespace: request.namespace.clone().unwrap_or_default(),
        resource: resource.to_string(),
        name: request.name.clone().unwrap_or_default(),
        subresource: request.subresource.unwrap_or_default().to_string(),
        tail: String::new(),
    };
    Some(Plain { info, query: Query::from_pairs(query), headers, input })
}
