//! Media types of answers and bodies.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request};

use super::failure;
use crate::api::schema::BodyFormat;
use crate::api::{Status, protobuf};
use crate::client::PatchKind;

/// What the client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Accept {
    /// Objects as JSON.
    #[default]
    Json,
    /// Objects as YAML (every JSON text is one).
    Yaml,
    /// `metav1.Table`.
    Table,
    /// `metav1.PartialObjectMetadata`, and its list.
    Partial,
}

impl Accept {
    /// The media type of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Yaml => "application/yaml",
            _ => "application/json",
        }
    }
}

fn header(headers: &HeaderMap, name: &http::HeaderName) -> String {
    let texts: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    texts.join(",")
}

/// The first media type of the `Accept` header that the server can write.
///
/// ```
/// use icp_core::server::negotiate::{Accept, accept};
/// let mut headers = http::HeaderMap::new();
/// let value = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// headers.insert("accept", value.parse().unwrap());
/// assert_eq!(accept(&headers).unwrap(), Accept::Table);
/// ```
///
/// # Errors
/// A 406 if there is none.
pub fn accept(headers: &HeaderMap) -> Result<Accept, Status> {
    let text = header(headers, &ACCEPT);
    if text.trim().is_empty() {
        return Ok(Accept::Json);
    }
    for clause in text.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let base = match parts.next().unwrap_or("") {
            "application/json" | "application/*" | "*/*" => Accept::Json,
            "application/yaml" => Accept::Yaml,
            _ => continue,
        };
        let param = |name: &str| {
            clause.split(';').skip(1).find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='))
        };
        match (param("as"), param("g"), param("v")) {
            (None, ..) => return Ok(base),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => return Ok(Accept::Table),
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) => {
                return Ok(Accept::Partial);
            }
            _ => {}
        }
    }
    Err(failure::not_acceptable())
}

/// Whether the client prefers the aggregated discovery document (`apidiscovery.k8s.io/v2`).
#[must_use]
pub fn accepts_aggregated_discovery(headers: &HeaderMap) -> bool {
    let text = header(headers, &ACCEPT);
    let has = |clause: &str, p: &str| clause.split(';').any(|q| q.trim() == p);
    text.split(',').any(|clause| {
        has(clause, "g=apidiscovery.k8s.io") && has(clause, "v=v2") && has(clause, "as=APIGroupDiscoveryList")
    })
}

fn content_type(headers: &HeaderMap) -> String {
    let text = header(headers, &CONTENT_TYPE);
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The format of a body that holds an object.
///
/// # Errors
/// A 415 if the server does not read it.
pub fn body_format(headers: &HeaderMap) -> Result<BodyFormat, Status> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        _ => Err(failure::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Turns a body in protobuf into one in JSON, which all that follows reads.
///
/// # Errors
/// A 400 if the body is malformed or of a kind without protobuf form.
pub fn from_protobuf(request: Request<Bytes>) -> Result<Request<Bytes>, Status> {
    if content_type(request.headers()) != protobuf::CONTENT_TYPE || request.body().is_empty() {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let object = protobuf::to_json(&body).map_err(|e| failure::bad_request(e.to_string()))?;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Request::from_parts(parts, serde_json::to_vec(&object).unwrap_or_default().into()))
}

/// The language of a patch.
///
/// # Errors
/// A 415 if the server does not know it.
pub fn patch_kind(headers: &HeaderMap) -> Result<PatchKind, Status> {
    match content_type(headers).as_str() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(failure::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Accept, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        accept(&headers)
    }

    #[test]
    fn what_cannot_be_written_falls_through() {
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json").unwrap(), Accept::Json);
        assert_eq!(of("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(of("application/json;as=Table;v=v9;g=meta.k8s.io, */*").unwrap(), Accept::Json);
        assert_eq!(
            of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json").unwrap(),
            Accept::Partial
        );
    }
}
