//! An authenticated user.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

/// Who a request is from (`authentication.k8s.io/v1 UserInfo`).
///
/// A shell that has authenticated the peer puts it into the request's extensions; a request that comes through no
/// shell is from the server's in-process user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The name.
    pub name: String,
    /// Unique over time; empty if the authenticator knows none.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// More that the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user by name and groups, as a client certificate tells them; `system:authenticated` is added.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Who may do everything: a member of `system:masters`.
    #[must_use]
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &["system:masters"])
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: alloc::vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let group = format!("system:serviceaccounts:{namespace}");
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.into(),
            ..Self::new("", &["system:serviceaccounts", &group])
        }
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The user as `SelfSubjectReview` and `TokenReview` show it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "username": self.name, "groups": self.groups });
        if let Some(map) = value.as_object_mut() {
            if !self.uid.is_empty() {
                map.insert("uid".into(), self.uid.as_str().into());
            }
            if !self.extra.is_empty() {
                map.insert("extra".into(), json!(self.extra));
            }
        }
        value
    }
}
