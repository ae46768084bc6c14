//! Paths that are no resources: discovery, OpenAPI, version, health.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{ApiServer, Body, Query, RequestInfo, failure, negotiate};
use crate::api::table::{self, ResourceInfo};
use crate::api::{Status, discovery, openapi};
use crate::storage::{KeyRange, RangeRequest};

/// The version of Kubernetes whose API this server speaks.
pub(super) const KUBERNETES: (&str, &str, &str) = ("1", "37", "v1.37.0");

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn plain(text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The page for a path that nobody serves (`http.NotFound` upstream).
pub(super) fn no_such_page() -> Response<Body> {
    let mut response = plain("404 page not found\n");
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn json_response(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A document with its hash as ETag; 304 if the client has it.
fn tagged(headers: &HeaderMap, value: &Value, content_type: &'static str) -> Response<Body> {
    tagged_bytes(headers, serde_json::to_vec(value).unwrap_or_default(), content_type)
}

fn tagged_bytes(headers: &HeaderMap, body: Vec<u8>, content_type: &'static str) -> Response<Body> {
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    let tag = format!("\"{}\"", B64.encode(digest.as_ref()));
    let mut response = if headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(body))
    };
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    out.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(ETAG, tag);
    }
    response
}

impl ApiServer {
    pub(super) async fn nonresource(
        &self,
        headers: &HeaderMap,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        if !matches!(info.verb, "get" | "head") {
            return Err(failure::method_not_allowed());
        }
        let parts: Vec<&str> = info.path.split('/').filter(|p| !p.is_empty()).collect();
        match *parts.as_slice() {
            [] => Ok(json_response(&json!({ "paths": self.paths().await? }))),
            ["version"] => Ok(json_response(&version())),
            ["healthz" | "livez" | "readyz"] => self.health(&info.path, query).await,
            ["healthz" | "livez" | "readyz", check] => self.health_check(check).await,
            ["api" | "apis"] => self.roots(headers, info.path.trim_matches('/') == "api").await,
            ["apis", group] => {
                let found = discovery::group(&self.resources().await?, group);
                Ok(found.map_or_else(no_such_page, |v| json_response(&v)))
            }
            ["api", version] => self.resource_list("", version).await,
            ["apis", group, version] => self.resource_list(group, version).await,
            ["openapi", "v2"] => {
                let document = openapi::v2::document(&self.resources().await?);
                let [asked, answer] = openapi::v2::PROTOBUF;
                let accepts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
                Ok(if accepts.flat_map(|v| v.split(',')).any(|v| v.trim() == asked) {
                    tagged_bytes(headers, openapi::v2::protobuf(&document), answer)
                } else {
                    tagged(headers, &document, "application/json")
                })
            }
            ["openapi", "v3"] => {
                Ok(tagged(headers, &openapi::index(&self.resources().await?), "application/json"))
            }
            ["openapi", "v3", "api", version] => self.openapi(headers, "", version).await,
            ["openapi", "v3", "apis", group, version] => self.openapi(headers, group, version).await,
            [".well-known", "openid-configuration"] => Ok(json_response(&self.openid_configuration())),
            ["openid", "v1", "jwks"] => match self.token_key() {
                Some(key) => Ok(json_response(&key.jwks())),
                None => Err(failure::no_such_path()),
            },
            _ => Ok(no_such_page()),
        }
    }

    /// Every resource that is served: the built-in ones and those of custom resource definitions.
    pub(super) async fn resources(&self) -> Result<Vec<Arc<ResourceInfo>>, Status> {
        let mut all = table::builtin().to_vec();
        all.extend(self.custom_resources().await?);
        Ok(all)
    }

    async fn paths(&self) -> Result<Vec<String>, Status> {
        let mut paths: Vec<String> =
            ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
                .iter()
                .map(ToString::to_string)
                .collect();
        for info in self.resources().await? {
            paths.push(format!("/{}", openapi::group_version_path(&info.gvr.group, &info.gvr.version)));
        }
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    async fn roots(&self, headers: &HeaderMap, core: bool) -> Result<Response<Body>, Status> {
        let resources = self.resources().await?;
        if negotiate::accepts_aggregated_discovery(headers) {
            return Ok(tagged(headers, &discovery::aggregated(&resources, core), AGGREGATED));
        }
        let options = &self.0.options;
        let address = options.advertise_addresses.first().map_or_else(
            || format!("127.0.0.1:{}", options.secure_port),
            |ip| core::net::SocketAddr::new(*ip, options.secure_port).to_string(),
        );
        let value = if core { discovery::api_versions(&address) } else { discovery::group_list(&resources) };
        Ok(tagged(headers, &value, "application/json"))
    }

    async fn resource_list(&self, group: &str, version: &str) -> Result<Response<Body>, Status> {
        let list = discovery::resource_list(&self.resources().await?, group, version);
        Ok(list.map_or_else(no_such_page, |v| json_response(&v)))
    }

    async fn openapi(
        &self,
        headers: &HeaderMap,
        group: &str,
        version: &str,
    ) -> Result<Response<Body>, Status> {
        let mut resources = self.resources().await?;
        resources.retain(|i| i.gvr.group == group && i.gvr.version == version);
        if resources.is_empty() {
            return Ok(no_such_page());
        }
        Ok(tagged(headers, &openapi::document(group, version, &resources), "application/json"))
    }

    async fn health(&self, path: &str, query: &Query) -> Result<Response<Body>, Status> {
        let name = path.trim_matches('/');
        let mut lines = String::new();
        let mut ok = true;
        for check in ["ping", "etcd"] {
            let good = self.health_check(check).await.is_ok();
            ok &= good;
            let (sign, word) = if good { ('+', "ok") } else { ('-', "failed: reason withheld") };
            lines.push_str(&format!("[{sign}]{check} {word}\n"));
        }
        if ok && !query.flag("verbose") {
            return Ok(plain("ok"));
        }
        lines.push_str(&format!("{name} check {}\n", if ok { "passed" } else { "failed" }));
        let mut response = plain(lines.into_bytes());
        if !ok {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        Ok(response)
    }

    async fn health_check(&self, check: &str) -> Result<Response<Body>, Status> {
        match check {
            "ping" => Ok(plain("ok")),
            "etcd" => {
                self.storage().range(RangeRequest::new(KeyRange::key("/registry/health"))).await?;
                Ok(plain("ok"))
            }
            _ => Err(failure::no_such_path()),
        }
    }

    fn openid_configuration(&self) -> Value {
        let issuer = &self.0.options.issuer;
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// `version.Info`.
fn version() -> Value {
    let (major, minor, git) = KUBERNETES;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("{git}+icp"), "gitCommit": "",
        "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor,
        "gitTreeState": "clean", "buildDate": "2026-11-24T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": platform(),
    })
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}
