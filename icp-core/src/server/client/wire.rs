//! Requests as HTTP messages, and answers read back.
//!
//! Objects of lists and watches are read without `metadata.managedFields`: those who follow a resource do not look at them,
//! and an update without them leaves them as they are.
//!
//! ```
//! use icp_core::api::resources;
//! use icp_core::client::{ApiRequest, ListOptions, Operation};
//! use icp_core::server::client::wire;
//! let list = ListOptions { label_selector: "app=web".into(), ..ListOptions::default() };
//! let request = ApiRequest::collection(&resources::PODS, "default", Operation::List(list));
//! let http = wire::encode(&request).unwrap();
//! assert_eq!(http.uri().to_string(), "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb");
//! ```

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use http::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{LeanObject, Object, Status};
use crate::client::{
    ApiError, ApiRequest, DeleteOptions, EventStream, ListOptions, Operation, Propagation, Reply, WatchEvent,
    WatchKind,
};

/// Longest line of a watch, in bytes; the largest object and its frame are shorter.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Appends `text` to `out`, percent-encoded as a query value or path segment (RFC 3986 unreserved characters stay).
pub fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        percent_encode(value, &mut self.0);
    }

    fn list(&mut self, options: &ListOptions, watch: bool) {
        list_pairs(options, watch, |key, value| self.add(key, value));
    }
}

/// The keys and values by which a query says `options`.
pub(super) fn list_pairs(options: &ListOptions, watch: bool, mut add: impl FnMut(&str, &str)) {
    if !options.label_selector.is_empty() {
        add("labelSelector", &options.label_selector);
    }
    if !options.field_selector.is_empty() {
        add("fieldSelector", &options.field_selector);
    }
    if let Some(version) = &options.resource_version {
        add("resourceVersion", version);
    }
    if watch {
        add("watch", "true");
        if options.allow_bookmarks {
            add("allowWatchBookmarks", "true");
        }
        if options.timeout_seconds > 0 {
            add("timeoutSeconds", &options.timeout_seconds.to_string());
        }
        return;
    }
    if options.limit > 0 {
        add("limit", &options.limit.to_string());
    }
    if let Some(token) = &options.continue_token {
        add("continue", token);
    }
}

pub(super) fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
    let Some(map) = body.as_object_mut() else { return body };
    if let Some(seconds) = options.grace_period_seconds {
        map.insert("gracePeriodSeconds".into(), seconds.into());
    }
    if options.uid.is_some() || options.resource_version.is_some() {
        let mut pre = serde_json::Map::new();
        if let Some(uid) = &options.uid {
            pre.insert("uid".into(), uid.as_str().into());
        }
        if let Some(version) = &options.resource_version {
            pre.insert("resourceVersion".into(), version.as_str().into());
        }
        map.insert("preconditions".into(), pre.into());
    }
    if let Some(propagation) = options.propagation {
        let policy = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        map.insert("propagationPolicy".into(), policy.into());
    }
    body
}

/// The HTTP message of a request; its URI has neither scheme nor host.
///
/// # Errors
/// [`ApiError::Decode`] if a name cannot stand in a URI or a body cannot be written as JSON.
pub fn encode(request: &ApiRequest) -> Result<Request<Bytes>, ApiError> {
    let mut path = request.gvr.path(request.namespace.as_deref());
    for part in [request.name.as_deref(), request.subresource].into_iter().flatten() {
        path.push('/');
        percent_encode(part, &mut path);
    }
    let mut query = Query::default();
    let mut content_type = "application/json";
    let json = |value: &dyn erased::Json| value.encode();
    let (method, body) = match &request.op {
        Operation::Get => (Method::GET, Bytes::new()),
        Operation::List(options) => {
            query.list(options, false);
            (Method::GET, Bytes::new())
        }
        Operation::Watch(options) => {
            query.list(options, true);
            (Method::GET, Bytes::new())
        }
        Operation::Create(object) => (Method::POST, json(&**object)?),
        Operation::Update(object) => (Method::PUT, json(&**object)?),
        Operation::Patch { kind, body, field_manager, force } => {
            content_type = kind.content_type();
            if let Some(manager) = field_manager {
                query.add("fieldManager", manager);
            }
            if *force {
                query.add("force", "true");
            }
            (Method::PATCH, json(body)?)
        }
        Operation::Delete(options) => (Method::DELETE, json(&delete_body(options))?),
        Operation::DeleteCollection(options, list) => {
            query.list(list, false);
            (Method::DELETE, json(&delete_body(options))?)
        }
    };
    path.push_str(&query.0);
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::ACCEPT, "application/json")
        .body(body)
        .map_err(|e| ApiError::Decode(format!("the request does not make a URI: {e}")))
}

mod erased {
    use super::{ApiError, Bytes, ToString, Value};
    use crate::api::Object;

    /// What a request body is made of.
    pub(super) trait Json {
        fn encode(&self) -> Result<Bytes, ApiError>;
    }

    impl Json for Object {
        fn encode(&self) -> Result<Bytes, ApiError> {
            serde_json::to_vec(self).map(Bytes::from).map_err(|e| ApiError::Decode(e.to_string()))
        }
    }

    impl Json for Value {
        fn encode(&self) -> Result<Bytes, ApiError> {
            serde_json::to_vec(self).map(Bytes::from).map_err(|e| ApiError::Decode(e.to_string()))
        }
    }
}

/// The error that an unsuccessful answer tells.
#[must_use]
pub fn decode_failure(code: u16, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Status>(body) {
        Ok(mut status) if status.kind == "Status" => {
            status.code = code;
            ApiError::Status(status)
        }
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(256).collect();
            let reason = match code {
                401 => crate::api::reason::UNAUTHORIZED,
                403 => crate::api::reason::FORBIDDEN,
                404 => crate::api::reason::NOT_FOUND,
                429 => crate::api::reason::TOO_MANY_REQUESTS,
                503 => crate::api::reason::SERVICE_UNAVAILABLE,
                _ => crate::api::reason::INTERNAL_ERROR,
            };
            ApiError::Status(Status::failure(code, reason, format!("HTTP {code}: {text}")))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListBody {
    api_version: String,
    kind: String,
    metadata: ListMeta,
    items: Option<Vec<LeanObject>>,
}

fn nonsense(e: &serde_json::Error) -> ApiError {
    ApiError::Decode(e.to_string())
}

/// Reads the answer to `request`.
///
/// # Errors
/// The server's [`Status`] for any code of 400 or above; [`ApiError::Decode`] if the body is not what the request
/// asked for.
pub fn decode(request: &ApiRequest, code: u16, body: &[u8]) -> Result<Reply, ApiError> {
    if code >= 400 {
        return Err(decode_failure(code, body));
    }
    if matches!(request.op, Operation::List(_)) {
        let list: ListBody = serde_json::from_slice(body).map_err(|e| nonsense(&e))?;
        // Items of built-in kinds come without apiVersion and kind.
        let kind = list.kind.strip_suffix("List").unwrap_or(&list.kind);
        let items = list.items.unwrap_or_default().into_iter().map(|LeanObject(mut item)| {
            if item.kind.is_empty() {
                item.kind = kind.to_string();
                item.api_version.clone_from(&list.api_version);
            }
            Arc::new(item)
        });
        return Ok(Reply::List {
            items: items.collect(),
            resource_version: list.metadata.resource_version,
            continue_token: Some(list.metadata.continue_token).filter(|t| !t.is_empty()),
        });
    }
    let object: Object = serde_json::from_slice(body).map_err(|e| nonsense(&e))?;
    if object.kind == "Status" && object.api_version == "v1" {
        return serde_json::from_slice(body).map(Reply::Status).map_err(|e| nonsense(&e));
    }
    Ok(Reply::Object(Arc::new(object)))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

/// Reads one line of a watch. `Ok(None)` for an event type that is not known.
///
/// # Errors
/// The server's [`Status`] for an `ERROR` event; [`ApiError::Decode`] for a line that is no event.
pub fn decode_event(line: &[u8]) -> Result<Option<WatchEvent>, ApiError> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|e| nonsense(&e))?;
    let kind = match line.kind {
        "ADDED" => WatchKind::Added,
        "MODIFIED" => WatchKind::Modified,
        "DELETED" => WatchKind::Deleted,
        "BOOKMARK" => WatchKind::Bookmark,
        "ERROR" => {
            let status: Status = serde_json::from_str(line.object.get()).map_err(|e| nonsense(&e))?;
            return Err(ApiError::Status(status));
        }
        _ => return Ok(None),
    };
    let LeanObject(object) = serde_json::from_str(line.object.get()).map_err(|e| nonsense(&e))?;
    Ok(Some(WatchEvent { kind, object: Arc::new(object) }))
}

struct Lines {
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        loop {
            let rest = self.buffer.get(self.start..)?;
            let len = rest.iter().position(|b| *b == b'\n')?;
            let line = rest.get(..len).unwrap_or_default();
            self.start += len + 1;
            let event = if line.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { decode_event(line) };
            if let Some(event) = event.transpose() {
                return Some(event);
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() + chunk.len() > LINE_BYTES_MAX {
            return Err(ApiError::Decode(format!("a watch event is longer than {LINE_BYTES_MAX} bytes")));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }
}

/// The events of a watch, given the chunks of the response body. The stream ends after the first error.
pub fn events<S>(chunks: S) -> EventStream
where
    S: Stream<Item = Result<Vec<u8>, ApiError>> + Send + 'static,
{
    let state = (Box::pin(chunks), Lines { buffer: Vec::new(), start: 0 }, false);
    Box::pin(futures_util::stream::unfold(state, |(mut chunks, mut lines, done)| async move {
        if done {
            return None;
        }
        loop {
            let item = match lines.next() {
                Some(item) => item,
                None => match chunks.next().await? {
                    Ok(chunk) => match lines.push(&chunk) {
                        Ok(()) => continue,
                        Err(e) => Err(e),
                    },
                    Err(e) => Err(e),
                },
            };
            let failed = item.is_err();
            return Some((item, (chunks, lines, failed)));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources;

    #[test]
    fn deletes_carry_their_options() {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some("u".into()),
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let request = ApiRequest::object(&resources::PODS, "a b", "web", Operation::Delete(options));
        assert!(encode(&request).is_err(), "a namespace with a blank is no URI");
        let request = ApiRequest { namespace: Some("a".into()), ..request };
        let http = encode(&request).unwrap();
        assert_eq!(http.uri().path(), "/api/v1/namespaces/a/pods/web");
        let body: Value = serde_json::from_slice(http.body()).unwrap();
        assert_eq!(body["preconditions"]["uid"], "u");
        assert_eq!(body["propagationPolicy"], "Foreground");
        assert_eq!(body["gracePeriodSeconds"], 0);
    }

    #[test]
    fn lists_of_real_servers_name_their_kind_once() {
        let body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
        let request = ApiRequest::collection(&resources::PODS, "", Operation::List(ListOptions::default()));
        let Reply::List { items, resource_version, continue_token } = decode(&request, 200, body).unwrap()
        else {
            panic!("not a list")
        };
        assert_eq!((items[0].kind.as_str(), resource_version.as_str(), continue_token), ("Pod", "7", None));
    }

    #[test]
    fn events_are_cut_at_line_ends_wherever_chunks_are() {
        let text = br#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a"}}}
{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","status":"Failure"}}
"#;
        for size in [1, 7, 64, 4096] {
            let chunks: Vec<_> = text.chunks(size).map(|c| Ok(c.to_vec())).collect();
            let mut events = events(futures_util::stream::iter(chunks));
            let mut got = Vec::new();
            let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
            while let core::task::Poll::Ready(Some(e)) = events.as_mut().poll_next(&mut cx) {
                got.push(e);
            }
            assert_eq!(got.len(), 2);
            assert_eq!(got[0].as_ref().unwrap().object.metadata.name, "a");
            assert!(got[1].as_ref().unwrap_err().is("Expired"));
        }
    }
}
