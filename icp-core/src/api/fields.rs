//! Field selectors.
//!
//! Every resource can be selected by `metadata.name` and, in namespaces, `metadata.namespace`; some by more
//! (`pkg/apis/*/v1/conversion.go` upstream).
//!
//! ```
//! use icp_core::api::{fields::FieldSelector, table};
//! let pods = table::find("", "v1", "pods").unwrap();
//! let s = FieldSelector::parse(pods, "spec.nodeName=w1,status.phase!=Failed").unwrap();
//! assert!(s.matches(&serde_json::json!({"spec":{"nodeName":"w1"},"status":{"phase":"Running"}})));
//! assert_eq!(FieldSelector::parse(pods, "spec.foo=1").unwrap_err().code, 400);
//! ```

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::table::ResourceInfo;
use super::{Status, reason};

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The label of the field, such as `spec.nodeName`.
    pub field: String,
    /// The value.
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// A field selector: all terms hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

/// The fields beside name and namespace, by resource.
fn supported(info: &ResourceInfo) -> &'static [&'static str] {
    match (info.gvr.group.as_ref(), info.gvr.resource.as_ref()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("certificates.k8s.io", "clustertrustbundles") => &["spec.signerName"],
        ("certificates.k8s.io", "podcertificaterequests") => {
            &["spec.signerName", "spec.podName", "spec.nodeName"]
        }
        ("resource.k8s.io", "resourceslices") => &["spec.nodeName", "spec.driver"],
        ("networking.k8s.io", "ipaddresses") => &["spec.parentRef"],
        _ => &[],
    }
}

fn bad_request(message: String) -> Status {
    Status::failure(400, reason::BAD_REQUEST, message)
}

/// Splits at commas that no backslash guards.
fn split(text: &str) -> Vec<String> {
    let mut out = alloc::vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => out.push(String::new()),
            _ => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

/// Takes the backslashes away, or says which one guards nothing.
fn unescape(text: &str) -> Result<String, char> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ (',' | '=' | '\\')) => out.push(c),
                other => return Err(other.unwrap_or('\\')),
            },
            ',' | '=' => return Err(c),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl FieldSelector {
    /// Parses the text form for a resource: `spec.nodeName=w1,status.phase!=Failed`.
    ///
    /// # Errors
    /// A 400 if the text is malformed or names a field that the resource cannot be selected by.
    pub fn parse(info: &ResourceInfo, text: &str) -> Result<Self, Status> {
        // A built-in kind without fields of its own goes by the rule for all: name and namespace, whatever its scope.
        let by_default = !info.is_custom() && supported(info).is_empty();
        let mut terms = Vec::new();
        for part in split(text).iter().filter(|p| !p.is_empty()) {
            let at = part.find('=').ok_or_else(|| {
                bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            let (left, right) = part.split_at(at);
            let (field, negated) = match left.strip_suffix('!') {
                Some(field) => (field, true),
                None => (left, false),
            };
            let right = right.strip_prefix("==").or_else(|| right.strip_prefix('=')).unwrap_or(right);
            let value = unescape(right).map_err(|c| {
                bad_request(format!("invalid field selector: invalid value: unescaped or unknown '{c}'"))
            })?;
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && (info.namespaced || by_default))
                || supported(info).contains(&field)
                || info.selectable_fields.iter().any(|s| s == field);
            if !known {
                let text = if by_default {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                };
                return Err(bad_request(text));
            }
            terms.push(FieldTerm { field: field.into(), value, negated });
        }
        Ok(Self { terms })
    }

    /// Whether an object fulfils the selector.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|t| (field_text(object, &t.field) == t.value) != t.negated)
    }

    /// The name that the selector pins, if it does.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.terms.iter().find(|t| t.field == "metadata.name" && !t.negated).map(|t| t.value.as_str())
    }
}

/// What a field shows to selectors.
fn field_text<'v>(object: &'v Value, field: &str) -> Cow<'v, str> {
    let at = |path: &str| path.split('.').try_fold(object, |v, name| v.get(name));
    let text = |v: Option<&'v Value>| -> Cow<'v, str> {
        match v {
            Some(Value::String(s)) => Cow::Borrowed(s),
            Some(Value::Bool(b)) => Cow::Borrowed(if *b { "true" } else { "false" }),
            Some(Value::Number(n)) => Cow::Owned(format!("{n}")),
            _ => Cow::Borrowed(""),
        }
    };
    match field {
        "spec.unschedulable" | "spec.hostNetwork" if at(field).is_none() => Cow::Borrowed("false"),
        "status.replicas" | "status.successful" => {
            let value = at(if field == "status.successful" { "status.succeeded" } else { field });
            value.map_or(Cow::Borrowed("0"), |v| text(Some(v)))
        }
        "source" => {
            let component = text(at("source.component"));
            if component.is_empty() { text(at("reportingComponent")) } else { component }
        }
        "reportingController" => {
            let new = text(at("reportingController"));
            if new.is_empty() { text(at("reportingComponent")) } else { new }
        }
        "status.podIPs" => {
            let ips = at(field).and_then(Value::as_array).into_iter().flatten();
            let ips: Vec<&str> = ips.filter_map(|ip| ip.get("ip")?.as_str()).collect();
            Cow::Owned(ips.join(","))
        }
        // Events are stored in the form of the core group.
        f if f.starts_with("regarding.") && object.get("regarding").is_none() => {
            text(at(&f.replacen("regarding", "involvedObject", 1)))
        }
        f => text(at(f)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;
    use serde_json::json;

    #[test]
    fn terms() {
        let pods = table::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata":{"name":"a","namespace":"n"},"spec":{"nodeName":"w1"},"status":{"phase":"Running"}});
        for (text, want) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,metadata.namespace=n", true),
            ("spec.nodeName=", false),
            ("status.phase!=Running", false),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.hostNetwork=false", true),
        ] {
            assert_eq!(FieldSelector::parse(pods, text).unwrap().matches(&pod), want, "{text}");
        }
        assert_eq!(FieldSelector::parse(pods, "metadata.name=a").unwrap().name(), Some("a"));
        assert_eq!(FieldSelector::parse(pods, "metadata.name=a\\,b").unwrap().name(), Some("a,b"));
        assert_eq!(FieldSelector::parse(pods, "x=1").unwrap_err().message, "field label not supported: x");
        assert!(FieldSelector::parse(pods, "nothing").is_err());
        let nodes = table::find("", "v1", "nodes").unwrap();
        assert!(FieldSelector::parse(nodes, "metadata.namespace=x").is_err());
        assert!(FieldSelector::parse(nodes, "spec.unschedulable=false").unwrap().matches(&json!({})));
    }
}
