//! One request on its way: what it asks, who asks, and how the answer is written.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, USER_AGENT, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Direct;
use super::input::Input;
use super::negotiate::Accept;
use super::{ApiServer, Body, Query, RequestInfo, UserInfo, codec, failure, negotiate, options};
use crate::api::printer::{self, IncludeObject};
use crate::api::schema::{BodyFormat, DecodeError, Decoded, Schema, decode, decode_object, decode_with};
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, Gvk, Object, Status, apply, invalid, set_at};
use crate::base::Time;
use crate::client::{PatchKind, Reply};
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

/// The beginning of a body, for messages: as text if it may be JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const BYTES_MAX: usize = 30;
    let head = body.get(..BYTES_MAX).unwrap_or(body);
    let dots = if body.len() > BYTES_MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned() + dots,
        Some(_) => head.iter().map(|b| alloc::format!("{b:02x}")).collect::<String>() + dots,
    }
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
    /// The client is in this process and wants values instead of bytes.
    pub(super) direct: bool,
}

impl Context {
    pub(super) fn new(
        server: ApiServer,
        info: Arc<ResourceInfo>,
        request: RequestInfo,
        query: Query,
        headers: HeaderMap,
        user: UserInfo,
        direct: bool,
    ) -> Result<Self, Status> {
        let apply = negotiate::patch_kind(&headers) == Ok(PatchKind::Apply);
        let options = options::write(request.verb, &query, apply)?;
        Ok(Self {
            accept: negotiate::accept(&headers)?,
            now: server.now(),
            server,
            info,
            request,
            query,
            headers,
            user,
            dry_run: options.dry_run,
            field_validation: options.field_validation,
            warnings: Vec::new(),
            direct,
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
            direct: false,
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
    pub(super) fn decode(&mut self, body: &Input) -> Result<Value, Status> {
        let format = negotiate::body_format(&self.headers)?;
        let read = match body {
            Input::Object(object) => decode_object(self.info.schema(), &self.info.kind, object).ok(),
            Input::Bytes(_) => None,
        };
        let decoded = match read {
            Some(decoded) => decoded,
            None => {
                // A fault is told in the words for bytes.
                let body = body.bytes();
                decode(&self.info, &body, format).map_err(|e| self.undecodable(&body, format, &e))?
            }
        };
        self.check_kind(&decoded.value)?;
        let object = self.check_fields(decoded).map_err(|why| self.unreadable(&why))?;
        let object = self.with_kind(object);
        if self.request.verb == "update" {
            self.check_name(&object)?;
        }
        Ok(object)
    }

    /// The 400 for a body that cannot be read (`transformDecodeError` upstream).
    fn undecodable(&self, body: &[u8], format: BodyFormat, error: &DecodeError) -> Status {
        let other = decode_with(Schema::Any, "", body, format).ok();
        if let Some(Err(status)) = other.map(|d| self.check_kind(&d.value)) {
            // Of another kind, and therefore full of odd fields: the kind is the fault to tell.
            return status;
        }
        let why = match error {
            DecodeError::Syntax(text) if text.starts_with("EOF") => "unexpected end of JSON input".into(),
            DecodeError::Syntax(_) | DecodeError::Depth => error.to_string(),
            _ => return error.to_status(&self.info),
        };
        let what = match format {
            BodyFormat::Json => "couldn't get version/kind; json parse error",
            BodyFormat::Yaml => "error converting YAML to JSON",
        };
        failure::bad_request(alloc::format!(
            "the object provided is unrecognized (must be of type {}): {what}: {why} ({})",
            self.info.kind,
            summary(body)
        ))
    }

    /// Reads the body as an object of another kind (a subresource's), leniently. An empty body is an empty object.
    pub(super) fn decode_other(&self, body: &Input, gvk: &Gvk) -> Result<Value, Status> {
        if let Input::Object(object) = body
            && let Ok(decoded) = decode_object(Schema::of(gvk), &gvk.kind, object)
        {
            return Ok(decoded.value);
        }
        let format = negotiate::body_format(&self.headers).unwrap_or(BodyFormat::Json);
        let body = body.bytes();
        if body.is_empty() {
            return Ok(json!({}));
        }
        let refuse = |why: String| {
            let Gvk { kind, version, .. } = gvk;
            let text = alloc::format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}");
            failure::bad_request(text)
        };
        let decoded =
            decode_with(Schema::of(gvk), &gvk.kind, &body, format).map_err(|e| refuse(e.to_string()))?;
        match decoded.value {
            value @ Value::Object(_) => Ok(value),
            _ => Err(refuse("it is not an object".into())),
        }
    }

    /// Warns of unknown and duplicate fields, or refuses them with the text of the strict decoder.
    pub(super) fn check_fields(&mut self, decoded: Decoded) -> Result<Value, String> {
        let faults = decoded.strict_errors();
        match self.field_validation {
            FieldValidation::Strict if !faults.is_empty() => {
                return Err(alloc::format!("strict decoding error: {}", faults.join(", ")));
            }
            FieldValidation::Warn => self.warnings.extend(faults),
            _ => {}
        }
        Ok(decoded.value)
    }

    /// The 400 for a body of the right kind that cannot be read.
    pub(super) fn unreadable(&self, why: &str) -> Status {
        let (kind, version) = (&self.info.kind, &self.info.gvr.version);
        failure::bad_request(alloc::format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    }

    /// An object that says its kind and version.
    pub(super) fn with_kind(&self, mut object: Value) -> Value {
        set_at(&mut object, &["apiVersion"], self.info.api_version());
        set_at(&mut object, &["kind"], self.info.kind.as_str());
        object
    }

    /// Whether an object says that it is of the request's kind and version; what it does not say, the path says.
    pub(super) fn check_kind(&self, object: &Value) -> Result<(), Status> {
        let expected = self.info.gvk();
        if !object.is_object() {
            let text = "couldn't get version/kind; json parse error: json: cannot unmarshal the value into an object";
            return Err(failure::bad_request(alloc::format!(
                "the object provided is unrecognized (must be of type {}): {text}",
                expected.kind
            )));
        }
        let text = |field| object.get(field).and_then(Value::as_str).unwrap_or("");
        let mut got = Gvk::of(text("apiVersion"), text("kind"));
        if got.kind.is_empty() {
            got.kind = expected.kind.clone();
        }
        if got.version.is_empty() {
            (got.group, got.version) = (expected.group.clone(), expected.version.clone());
        }
        if got == expected {
            return Ok(());
        }
        let (api_version, wanted) = (got.api_version(), self.info.api_version());
        if self.info.is_custom() {
            if api_version == wanted {
                let detail = alloc::format!("must be {}", expected.kind);
                let error = FieldError::invalid("kind", got.kind, detail);
                return Err(invalid(&self.info, codec::meta_str(object, "name"), &[error]));
            }
        } else {
            let unfit = |why: String| {
                let text = alloc::format!(
                    "{} in version {:?} cannot be handled as a {}",
                    got.kind,
                    got.version,
                    expected.kind
                );
                Err(failure::bad_request(alloc::format!("{text}: {why}")))
            };
            if matches!(Schema::of(&got), Schema::Any) {
                return unfit(alloc::format!(
                    "no kind {:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                    got.kind
                ));
            }
            if got.kind != expected.kind {
                let package = match expected.group.split('.').next() {
                    None | Some("") => "core",
                    Some(first) => first,
                };
                return unfit(alloc::format!(
                    "converting ({}.{}) to ({package}.{}): unknown conversion",
                    got.version,
                    got.kind,
                    expected.kind
                ));
            }
        }
        Err(failure::bad_request(alloc::format!(
            "the API version in the data ({api_version}) does not match the expected API version ({wanted})"
        )))
    }

    /// Whether a replacing object has the name and namespace of the path (`checkName` upstream).
    fn check_name(&self, object: &Value) -> Result<(), Status> {
        let (name, namespace) = (codec::meta_str(object, "name"), codec::meta_str(object, "namespace"));
        let asked = &self.request.name;
        if name.is_empty() {
            return Err(failure::bad_request(alloc::format!(
                "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
            )));
        }
        if name != asked {
            return Err(failure::bad_request(alloc::format!(
                "the name of the object ({name}) does not match the name on the URL ({asked})"
            )));
        }
        let asked = self.namespace();
        if !asked.is_empty() && !namespace.is_empty() && namespace != asked {
            return Err(failure::bad_request(alloc::format!(
                "the namespace of the object ({namespace}) does not match the namespace on the request ({asked})"
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

    /// A success without an object.
    pub(super) fn respond_status(&self, status: Status) -> Response<Body> {
        if self.direct {
            return Response::new(Body::direct(Direct::Reply(Reply::Status(status))));
        }
        self.respond_bytes(status.code, serde_json::to_vec(&status).unwrap_or_default())
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
        if self.direct
            && let Some(object) = self.stored_object(stored, revision)
        {
            return Ok(Response::new(Body::direct(Direct::Reply(Reply::Object(Arc::new(object))))));
        }
        if matches!(self.accept, Accept::Json | Accept::Yaml) && self.stored_form() {
            return Ok(self.respond_bytes(code, codec::with_revision(stored, revision)));
        }
        let mut object = codec::decode(stored, revision)?;
        super::version::from_storage(&self.info, &mut object);
        Ok(self.respond_object(code, &object))
    }

    /// A stored object of the request's version; `None` if it cannot be read.
    fn stored_object(&self, stored: &Bytes, revision: Revision) -> Option<Object> {
        if self.stored_form() {
            return codec::object(stored, revision, false);
        }
        let mut object = codec::decode(stored, revision).ok()?;
        super::version::from_storage(&self.info, &mut object);
        Object::from_value(object).ok()
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
        self.respond_status(status)
    }
}
