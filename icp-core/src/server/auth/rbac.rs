//! Role-based access control: rules, evaluated (`plugin/pkg/auth/authorizer/rbac`).
//!
//! ```
//! use icp_core::server::auth::rbac::{Attributes, Rule};
//! let rule = Rule { verbs: vec!["get".into()], api_groups: vec!["".into()], resources: vec!["pods/log".into()],
//!     ..Rule::default() };
//! let mut ask = Attributes { verb: "get", resource: "pods", subresource: "log", ..Attributes::default() };
//! assert!(rule.allows(&ask));
//! ask.subresource = "";
//! assert!(!rule.allows(&ask));
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::UserInfo;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The verb.
    pub verb: &'a str,
    /// The API group.
    pub group: &'a str,
    /// The resource; empty for a path that is no resource.
    pub resource: &'a str,
    /// The subresource.
    pub subresource: &'a str,
    /// The namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// The name of the object.
    pub name: &'a str,
    /// The path, where `resource` is empty.
    pub path: &'a str,
}

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The verbs; `*` is all.
    pub verbs: Vec<String>,
    /// The API groups; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// The resources, `resource/subresource`, `*/subresource` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The names; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are no resources; a `*` at the end matches any rest.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|l| l == "*" || l == item)
}

impl Rule {
    /// Whether the rule allows it.
    #[must_use]
    pub fn allows(&self, ask: &Attributes<'_>) -> bool {
        if !has(&self.verbs, ask.verb) {
            return false;
        }
        if ask.resource.is_empty() {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => ask.path.starts_with(prefix),
                None => url == ask.path,
            });
        }
        let full = if ask.subresource.is_empty() {
            String::from(ask.resource)
        } else {
            format!("{}/{}", ask.resource, ask.subresource)
        };
        let any = format!("*/{}", ask.subresource);
        has(&self.api_groups, ask.group)
            && self
                .resources
                .iter()
                .any(|r| r == "*" || *r == full || (!ask.subresource.is_empty() && *r == any))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == ask.name))
    }

    /// The single rights that the rule consists of: one verb, one group, one resource, one name each.
    fn single(&self) -> Vec<Self> {
        let mut rules = Vec::new();
        for verb in &self.verbs {
            let one = |r: Self| Self { verbs: alloc::vec![verb.clone()], ..r };
            for url in &self.non_resource_urls {
                rules.push(one(Self { non_resource_urls: alloc::vec![url.clone()], ..Self::default() }));
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let base = Self {
                        api_groups: alloc::vec![group.clone()],
                        resources: alloc::vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        rules.push(one(base));
                    } else {
                        for name in &self.resource_names {
                            let resource_names = alloc::vec![name.clone()];
                            rules.push(one(Self { resource_names, ..base.clone() }));
                        }
                    }
                }
            }
        }
        rules
    }

    /// Whether this rule grants at least one single right (see [`uncovered`]).
    fn covers_single(&self, right: &Self) -> bool {
        let all = |mine: &[String], theirs: &[String]| theirs.iter().all(|t| has(mine, t));
        let resources = right.resources.iter().all(|r| {
            let sub = r.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has(&self.resources, r) || sub.is_some_and(|sub| self.resources.contains(&sub))
        });
        let names = self.resource_names.is_empty()
            || (!right.resource_names.is_empty()
                && right.resource_names.iter().all(|n| self.resource_names.contains(n)));
        let urls = right.non_resource_urls.iter().all(|u| {
            self.non_resource_urls.iter().any(|m| match m.strip_suffix('*') {
                Some(prefix) => u.starts_with(prefix),
                None => m == u,
            })
        });
        all(&self.verbs, &right.verbs)
            && all(&self.api_groups, &right.api_groups)
            && resources
            && names
            && urls
            && (right.non_resource_urls.is_empty() || !self.non_resource_urls.is_empty())
    }
}

/// The rights in `wanted` that `owned` does not grant: what an escalation check refuses
/// (`rbac/validation.Covers`).
#[must_use]
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let rights = wanted.iter().flat_map(Rule::single);
    rights.filter(|right| !owned.iter().any(|o| o.covers_single(right))).collect()
}

/// Whether the subjects of a binding (`namespace` empty for a cluster role binding) name the user.
#[must_use]
pub fn binds(binding: &Value, user: &UserInfo) -> bool {
    let subjects = binding.get("subjects").and_then(Value::as_array);
    subjects.into_iter().flatten().any(|subject| {
        let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or("");
        match text("kind") {
            "User" => text("name") == user.name,
            "Group" => user.in_group(text("name")),
            "ServiceAccount" => {
                let own = binding.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
                let namespace = match text("namespace") {
                    "" => own,
                    other => other,
                };
                user.name == format!("system:serviceaccount:{namespace}:{}", text("name"))
            }
            _ => false,
        }
    })
}

/// The rules of a role.
#[must_use]
pub fn rules(role: &Value) -> Vec<Rule> {
    role.get("rules").and_then(|r| Vec::<Rule>::deserialize(r).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use serde_json::json;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).into()).collect();
        Rule { verbs: own(verbs), api_groups: own(groups), resources: own(resources), ..Rule::default() }
    }

    #[test]
    fn escalation_finds_what_is_not_owned() {
        let owned = [rule(&["get", "list"], &[""], &["pods", "*/status"])];
        assert!(uncovered(&owned, &[rule(&["get"], &[""], &["pods", "nodes/status"])]).is_empty());
        let missing = uncovered(&owned, &[rule(&["get", "delete"], &[""], &["pods"])]);
        assert_eq!(missing, [rule(&["delete"], &[""], &["pods"])]);
        assert_eq!(uncovered(&owned, &[rule(&["*"], &["*"], &["*"])]).len(), 1);
        let named = Rule { resource_names: vec!["a".into()], ..rule(&["get"], &[""], &["secrets"]) };
        assert_eq!(uncovered(core::slice::from_ref(&named), &[rule(&["get"], &[""], &["secrets"])]).len(), 1);
        assert!(uncovered(&[rule(&["get"], &[""], &["secrets"])], &[named]).is_empty());
    }

    #[test]
    fn names_and_paths_narrow() {
        let named = Rule { resource_names: vec!["a".into()], ..rule(&["get"], &[""], &["secrets"]) };
        let ask = Attributes { verb: "get", resource: "secrets", name: "a", ..Attributes::default() };
        assert!(named.allows(&ask));
        assert!(!named.allows(&Attributes { name: "b", ..ask }));
        let health = Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/healthz/*".into(), "/version".into()],
            ..Rule::default()
        };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        assert!(health.allows(&path("/healthz/etcd")) && health.allows(&path("/version")));
        assert!(!health.allows(&path("/versions")));
    }

    #[test]
    fn subjects_are_users_groups_and_accounts() {
        let binding = json!({"metadata":{"namespace":"a"},"subjects":[
            {"kind":"ServiceAccount","name":"bot"},{"kind":"Group","name":"g"},{"kind":"User","name":"u"}]});
        assert!(binds(&binding, &UserInfo::service_account("a", "bot", "")));
        assert!(!binds(&binding, &UserInfo::service_account("b", "bot", "")));
        assert!(binds(&binding, &UserInfo::new("x", &["g"])));
        assert!(!binds(&binding, &UserInfo::new("x", &["h"])));
    }
}
