//! What a request asks for: its path, verb and query (`apiserver/pkg/endpoints/request/requestinfo.go`).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use http::Method;

use super::failure;
use crate::api::Status;

/// A parsed path and verb.
///
/// ```
/// use icp_core::server::RequestInfo;
/// let info = RequestInfo::parse(&http::Method::GET, "/apis/apps/v1/namespaces/a/deployments/web/scale", false);
/// assert_eq!((info.group.as_str(), info.resource.as_str()), ("apps", "deployments"));
/// assert_eq!((info.name.as_str(), info.subresource.as_str(), info.verb), ("web", "scale", "get"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource; if not, only `path` and `verb` mean something.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the
    /// method in lower case.
    pub verb: &'static str,
    /// The path.
    pub path: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace; empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// The resource.
    pub resource: String,
    /// The name of the object; empty for the collection.
    pub name: String,
    /// The subresource; empty for the object itself.
    pub subresource: String,
    /// What follows the subresource (`proxy/…`), with its leading `/`.
    pub tail: String,
}

/// Decodes `%XX`, and `+` as a blank where `plus` says so; malformed escapes stay as they are.
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (b, hex(i + 1), hex(i + 2)) {
            (b'%', Some(hi), Some(lo)) => {
                out.push((hi * 16 + lo) as u8);
                i += 3;
                continue;
            }
            (b'+', _, _) if plus => out.push(b' '),
            _ => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl RequestInfo {
    /// Parses a request line; `watch` says whether the query asks for a watch.
    #[must_use]
    pub fn parse(method: &Method, path: &str, watch: bool) -> Self {
        let mut info = Self { path: path.to_string(), verb: plain_verb(method), ..Self::default() };
        let mut parts = path.split('/').filter(|p| !p.is_empty()).map(|p| percent_decode(p, false));
        match parts.next().as_deref() {
            Some("api") => {}
            Some("apis") => match parts.next() {
                Some(group) => info.group = group,
                None => return info,
            },
            _ => return info,
        }
        let Some(version) = parts.next() else { return info };
        info.version = version;
        let Some(mut resource) = parts.next() else { return info };
        // `/watch/` is the old way to say `?watch=true`.
        let old_watch = resource == "watch" && method == Method::GET;
        if old_watch {
            match parts.next() {
                Some(next) => resource = next,
                None => return info,
            }
        }
        info.is_resource = true;
        if resource == "namespaces" {
            let Some(name) = parts.next() else {
                info.resource = resource;
                return info.with_verb(method, watch || old_watch);
            };
            info.namespace.clone_from(&name);
            match parts.next() {
                // Under a namespace stands a resource, but for the namespace's own subresources.
                Some(next) if !matches!(next.as_str(), "status" | "finalize") => resource = next,
                sub => {
                    info.resource = resource;
                    info.name = name;
                    info.subresource = sub.unwrap_or_default();
                    return info.with_verb(method, watch || old_watch);
                }
            }
        }
        info.resource = resource;
        info.name = parts.next().unwrap_or_default();
        info.subresource = parts.next().unwrap_or_default();
        if info.subresource == "proxy" {
            // The tail goes on as it came: its escapes are the target's.
            let segments = path.trim_start_matches('/').split('/');
            let depth = if info.group.is_empty() { 2 } else { 3 };
            let skip = depth + if info.namespace.is_empty() { 3 } else { 5 };
            for segment in segments.skip(skip) {
                info.tail.push('/');
                info.tail.push_str(segment);
            }
        } else if parts.next().is_some() {
            info.is_resource = false;
        }
        info.with_verb(method, watch || old_watch)
    }

    fn with_verb(mut self, method: &Method, watch: bool) -> Self {
        self.verb = match *method {
            Method::GET | Method::HEAD if watch && self.subresource.is_empty() => "watch",
            Method::GET | Method::HEAD if self.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        self
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// The query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=b&c=d`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pair = |p: &str| {
            let (key, value) = p.split_once('=').unwrap_or((p, ""));
            (percent_decode(key, true), percent_decode(value, true))
        };
        Self(text.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The query of these keys and values.
    pub(super) const fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The first value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All keys and values, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The first value of a key, or the empty text.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// A truth value as Go's conversion reads it: absent, `false` and `0` are false, all else is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v, "false" | "0" | "False" | "f" | "F" | "FALSE"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// A 400 that names the key, if the value is no number.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| failure::bad_request(alloc::format!("{key}: {text:?} is not a whole number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> RequestInfo {
        RequestInfo::parse(&Method::GET, path, false)
    }

    #[test]
    fn namespaces_are_resources_and_scopes() {
        let i = get("/api/v1/namespaces");
        assert_eq!((i.resource.as_str(), i.verb, i.namespace.as_str()), ("namespaces", "list", ""));
        let i = get("/api/v1/namespaces/a");
        assert_eq!((i.resource.as_str(), i.name.as_str(), i.namespace.as_str()), ("namespaces", "a", "a"));
        let i = RequestInfo::parse(&Method::PUT, "/api/v1/namespaces/a/finalize", false);
        assert_eq!((i.subresource.as_str(), i.verb), ("finalize", "update"));
        let i = get("/api/v1/namespaces/a/pods/p/log");
        assert_eq!((i.resource.as_str(), i.name.as_str(), i.subresource.as_str()), ("pods", "p", "log"));
    }

    #[test]
    fn the_proxy_tail_is_kept_as_it_came() {
        let i = get("/api/v1/namespaces/a/services/http:web:80/proxy/x%2Fy/z");
        assert_eq!((i.name.as_str(), i.tail.as_str()), ("http:web:80", "/x%2Fy/z"));
        assert_eq!(get("/api/v1/nodes/n/proxy/metrics").tail, "/metrics");
        assert!(!get("/api/v1/namespaces/a/pods/p/log/more").is_resource);
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in ["/", "/version", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "/openapi/v3/api/v1"]
        {
            assert!(!get(path).is_resource, "{path}");
        }
    }

    #[test]
    fn queries_decode() {
        let q = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5&dryRun=All&bad=%zz");
        assert_eq!(q.text("labelSelector"), "a=b,c in (d)");
        assert!(q.flag("watch"));
        assert_eq!(q.number("limit").unwrap(), Some(5));
        assert!(q.number("dryRun").is_err());
        assert_eq!(q.text("bad"), "%zz");
    }
}
