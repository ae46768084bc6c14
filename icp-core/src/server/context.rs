//! One request on its way: what it asks, who asks, and how the answer is written.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, USER_AGENT, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::negotiate::Accept;
use super::{ApiServer, Body, Query, RequestInfo, UserInfo, codec, failure, negotiate};
use crate::api::printer::{self, IncludeObject};
use crate::api::schema::{BodyFormat, Decoded, decode};
use crate::api::table::ResourceInfo;
use crate::api::{Status, apply};
use crate::base::Time;
use crate::storage::Revision;

/// Most warnings of one response.
const WARNINGS_MAX: usize = 64;

/// What the client wants done about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// One request for a resource.
pub(super) struct Context {
    pub(super) server: ApiServer,
    pub(super) info: Arc<ResourceInfo>,
    pub(super) request: RequestInfo,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) user: UserInfo,
    pub(super) accept: Accept,
    pub(super) now: Time,
    pub(super) dry_run: bool,
    pub(super) field_validation: FieldValidation,
    pub(super) warnings: Vec<String>,
}

impl Context {
    pub(super) fn new(
        server: ApiServer,
        info: Arc<ResourceInfo>,
        request: RequestInfo,
        query: Query,
        headers: HeaderMap,
        user: UserInfo,
    ) -> Result<Self, Status> {
        let dry_run = match query.all("dryRun").find(|v| !v.is_empty()) {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(failure::bad_request(alloc::format!(
                    "invalid dryRun value {other:?}: supported values: \"All\""
                )));
            }
        };
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(failure::bad_request(alloc::format!(
                    "invalid fieldValidation value {other:?}: supported values: Ignore, Warn, Strict"
                )));
            }
        };
        Ok(Self {
            accept: negotiate::accept(&headers)?,
            now: server.now(),
            server,
            info,
            request,
            query,
            headers,
            user,
            dry_run,
            field_validation,
            warnings: Vec::new(),
        })
    }

    /// A request of the server itself, as its administrator.
    pub(super) fn internal(
        server: &ApiServer,
        info: &Arc<ResourceInfo>,
        namespace: &str,
        name: &str,
    ) -> Self {
        Self {
            server: server.clone(),
            info: info.clone(),
            request: RequestInfo {
                is_resource: true,
                namespace: namespace.into(),
                name: name.into(),
                ..RequestInfo::default()
            },
            query: Query::default(),
            headers: HeaderMap::new(),
            user: UserInfo::admin(),
            accept: Accept::Json,
            now: server.now(),
            dry_run: false,
            field_validation: FieldValidation::Ignore,
            warnings: Vec::new(),
        }
    }

    /// The namespace that keys stand in; empty for cluster-scoped resources.
    pub(super) fn namespace(&self) -> &str {
        if self.info.namespaced { &self.request.namespace } else { "" }
    }

    pub(super) fn key(&self) -> String {
        self.info.key(self.namespace(), &self.request.name)
    }

    /// Who writes, for managed fields: the query's `fieldManager`, or the first part of the user agent.
    pub(super) fn manager(&self) -> String {
        let agent = self.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        match self.query.text("fieldManager") {
            "" => agent.split('/').next().unwrap_or("unknown").chars().take(128).collect(),
            manager => manager.to_string(),
        }
    }

    pub(super) fn track(&self, live: Option<&Value>, new: &mut Value) {
        let (name, subresource) = (self.manager(), self.request.subresource.as_str());
        let subresource = if matches!(subresource, "status" | "scale") { subresource } else { "" };
        apply::track_update(
            &self.info,
            live,
            new,
            apply::Manager { name: &name, subresource, now: self.now },
        );
    }

    /// Reads the body as an object of the resource.
    pub(super) fn decode(&mut self, body: &[u8]) -> Result<Value, Status> {
        let format = negotiate::body_format(&self.headers)?;
        if body.is_empty() {
            return Err(failure::bad_request("unable to decode an empty body"));
        }
        let decoded = decode(&self.info, body, format).map_err(|e| e.to_status(&self.info))?;
        let object = self.check_fields(decoded)?;
        self.check_kind(&object, &self.info.api_version(), &self.info.kind)?;
        Ok(object)
    }

    /// Reads the body as an object of another kind (a subresource's), leniently.
    pub(super) fn decode_other(&self, body: &[u8], kind: &str) -> Result<Value, Status> {
        let schema = crate::api::schema::Schema::Any;
        let format = negotiate::body_format(&self.headers).unwrap_or(BodyFormat::Json);
        if body.is_empty() {
            return Ok(json!({}));
        }
        crate::api::schema::decode_with(schema, kind, body, format)
            .map(|d| d.value)
            .map_err(|e| failure::bad_request(alloc::format!("{kind}: {e}")))
    }

    pub(super) fn check_fields(&mut self, decoded: Decoded) -> Result<Value, Status> {
        let mut faults = decoded.unknown_fields;
        faults.extend(decoded.duplicate_fields);
        match self.field_validation {
            FieldValidation::Strict if !faults.is_empty() => {
                return Err(failure::bad_request(alloc::format!(
                    "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                    self.info.kind,
                    self.info.gvr.version,
                    self.info.kind,
                    faults.join(", ")
                )));
            }
            FieldValidation::Warn => self.warnings.extend(faults),
            _ => {}
        }
        Ok(decoded.value)
    }

    fn check_kind(&self, object: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
        let text = |field| object.get(field).and_then(Value::as_str).unwrap_or("");
        let (got_version, got_kind) = (text("apiVersion"), text("kind"));
        if got_kind.is_empty() && got_version.is_empty() {
            return Ok(());
        }
        if got_kind != kind {
            return Err(failure::bad_request(alloc::format!(
                "{got_kind} in version {got_version:?} cannot be handled as a {kind}: the object provided is unrecognized (must be of type {kind})"
            )));
        }
        if got_version != api_version {
            return Err(failure::bad_request(alloc::format!(
                "the API version in the data ({got_version}) does not match the expected API version ({api_version})"
            )));
        }
        Ok(())
    }

    fn warnings(&self, headers: &mut HeaderMap) {
        for text in self.warnings.iter().take(WARNINGS_MAX) {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&alloc::format!("299 - \"{quoted}\"")) {
                headers.append(WARNING, value);
            }
        }
    }

    pub(super) fn respond_bytes(&self, code: u16, body: impl Into<Body>) -> Response<Body> {
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.accept.content_type()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        self.warnings(headers);
        response
    }

    pub(super) fn respond_value(&self, code: u16, value: &Value) -> Response<Body> {
        self.respond_bytes(code, serde_json::to_vec(value).unwrap_or_default())
    }

    /// Whether objects are sent as they are stored.
    pub(super) fn stored_form(&self) -> bool {
        self.info.storage_gvk == self.info.gvk()
    }

    /// What tables carry of each object (`?includeObject=`).
    pub(super) fn include_object(&self) -> IncludeObject {
        match self.query.text("includeObject") {
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        }
    }

    /// A stored object in the form that the client wants.
    pub(super) fn respond_stored(
        &self,
        code: u16,
        stored: &Bytes,
        revision: Revision,
    ) -> Result<Response<Body>, Status> {
        if matches!(self.accept, Accept::Json | Accept::Yaml) && self.stored_form() {
            return Ok(self.respond_bytes(code, codec::with_revision(stored, revision)));
        }
        let mut object = codec::decode(stored, revision)?;
        super::version::from_storage(&self.info, &mut object);
        Ok(self.respond_object(code, &object))
    }

    /// An object of the request's version in the form that the client wants.
    pub(super) fn respond_object(&self, code: u16, object: &Value) -> Response<Body> {
        let value = self.shape(object);
        self.respond_value(code, value.as_ref().unwrap_or(object))
    }

    /// The table or partial metadata of an object, if the client wants one of them.
    fn shape(&self, object: &Value) -> Option<Value> {
        match self.accept {
            Accept::Json | Accept::Yaml => None,
            Accept::Partial => Some(printer::partial_metadata(object)),
            Accept::Table => {
                let meta = json!({ "resourceVersion": codec::meta_str(object, "resourceVersion") });
                Some(printer::table(&self.info, &[object], meta, self.now, self.include_object(), true))
            }
        }
    }

    /// The 200 that says that a deletion is done.
    pub(super) fn respond_deleted(&self, name: &str, uid: &str) -> Response<Body> {
        let status = Status {
            details: Some(crate::api::StatusDetails {
                name: name.into(),
                group: self.info.gvr.group.to_string(),
                kind: self.info.gvr.resource.to_string(),
                uid: uid.into(),
                ..crate::api::StatusDetails::default()
            }),
            ..Status::default()
        };
        self.respond_bytes(200, serde_json::to_vec(&status).unwrap_or_default())
    }
}
