//! Asks the roles in the store what a user may do.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::auth::rbac::{self, Attributes, Rule};
use super::{ApiServer, UserInfo};
use crate::api::{Gvr, Status, reason};

const CLUSTER_ROLES: Gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "clusterroles");
const CLUSTER_ROLE_BINDINGS: Gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
const ROLES: Gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "roles");
const ROLE_BINDINGS: Gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "rolebindings");

/// Paths that everybody may read.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

fn forbidden(user: &UserInfo, ask: &Attributes<'_>) -> Status {
    let who = format!("User {:?} cannot {}", user.name, ask.verb);
    if ask.resource.is_empty() {
        let message = format!("forbidden: {who} path {:?}", ask.path);
        return Status::failure(403, reason::FORBIDDEN, message);
    }
    let resource = match ask.subresource {
        "" => ask.resource.to_string(),
        sub => format!("{}/{sub}", ask.resource),
    };
    let what = if ask.group.is_empty() {
        ask.resource.to_string()
    } else {
        format!("{}.{}", ask.resource, ask.group)
    };
    let named = if ask.name.is_empty() { String::new() } else { format!(" {:?}", ask.name) };
    let scope = match ask.namespace {
        "" => "at the cluster scope".to_string(),
        ns => format!("in the namespace {ns:?}"),
    };
    let message = format!(
        "{what}{named} is forbidden: {who} resource {resource:?} in API group {:?} {scope}",
        ask.group
    );
    Status {
        details: Some(crate::api::StatusDetails {
            name: ask.name.into(),
            group: ask.group.into(),
            kind: ask.resource.into(),
            ..crate::api::StatusDetails::default()
        }),
        ..Status::failure(403, reason::FORBIDDEN, message)
    }
}

impl ApiServer {
    /// Whether the user may do it, and by which role.
    pub(super) async fn allowed(
        &self,
        user: &UserInfo,
        ask: &Attributes<'_>,
    ) -> Result<Option<String>, Status> {
        if user.in_group("system:masters") {
            return Ok(Some(String::new()));
        }
        if ask.resource.is_empty() && (PUBLIC.contains(&ask.path) || is_health(ask.path)) && ask.verb == "get"
        {
            return Ok(Some(String::new()));
        }
        if !self.0.options.rbac && !user.in_group("system:unauthenticated") {
            return Ok(Some(String::new()));
        }
        for (why, rules) in self.grants(user, ask.namespace).await? {
            if rules.iter().any(|r| r.allows(ask)) {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    /// Like [`ApiServer::allowed`], as a 403.
    pub(super) async fn require(&self, user: &UserInfo, ask: &Attributes<'_>) -> Result<(), Status> {
        match self.allowed(user, ask).await? {
            Some(_) => Ok(()),
            None => Err(forbidden(user, ask)),
        }
    }

    /// The rules that bindings give the user, cluster-wide and in one namespace, each with the reason.
    pub(super) async fn grants(
        &self,
        user: &UserInfo,
        namespace: &str,
    ) -> Result<Vec<(String, Vec<Rule>)>, Status> {
        let mut grants = Vec::new();
        let mut bindings = self.objects(&CLUSTER_ROLE_BINDINGS, None).await?;
        if !namespace.is_empty() {
            bindings.extend(self.objects(&ROLE_BINDINGS, Some(namespace)).await?);
        }
        for binding in bindings.iter().filter(|b| rbac::binds(b, user)) {
            let own = super::codec::meta_str(binding, "namespace");
            if let Some(role) = self.role(binding, own).await? {
                let kind = binding.get("kind").and_then(Value::as_str).unwrap_or_default();
                let name = super::codec::meta_str(binding, "name");
                let reference = format!(
                    "{} {:?}",
                    binding.pointer("/roleRef/kind").and_then(Value::as_str).unwrap_or_default(),
                    super::codec::meta_str(&role, "name")
                );
                let scoped = if own.is_empty() { name.to_string() } else { format!("{name}/{own}") };
                let why = format!("RBAC: allowed by {kind} {scoped:?} of {reference}");
                grants.push((why, rbac::rules(&role)));
            }
        }
        Ok(grants)
    }

    /// The role that a binding refers to.
    async fn role(&self, binding: &Value, namespace: &str) -> Result<Option<Value>, Status> {
        let text = |p| binding.pointer(p).and_then(Value::as_str).unwrap_or_default();
        match text("/roleRef/kind") {
            "ClusterRole" => self.object(&CLUSTER_ROLES, "", text("/roleRef/name")).await,
            "Role" => self.object(&ROLES, namespace, text("/roleRef/name")).await,
            _ => Ok(None),
        }
    }

    /// Refuses a role or binding that gives more than its writer has (`escalate` and `bind` are the way around).
    pub(super) async fn check_escalation(
        &self,
        user: &UserInfo,
        kind: &str,
        object: &Value,
    ) -> Result<(), Status> {
        if user.in_group("system:masters") || !self.0.options.rbac {
            return Ok(());
        }
        let namespace = super::codec::meta_str(object, "namespace");
        let (wanted, verb, resource, name) = match kind {
            "Role" | "ClusterRole" => {
                let resource = if kind == "Role" { "roles" } else { "clusterroles" };
                (rbac::rules(object), "escalate", resource, super::codec::meta_str(object, "name"))
            }
            "RoleBinding" | "ClusterRoleBinding" => {
                let role = self.role(object, namespace).await?;
                let name = object.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or_default();
                let cluster = object.pointer("/roleRef/kind").and_then(Value::as_str) == Some("ClusterRole");
                let resource = if cluster { "clusterroles" } else { "roles" };
                (role.as_ref().map(rbac::rules).unwrap_or_default(), "bind", resource, name)
            }
            _ => return Ok(()),
        };
        let group = "rbac.authorization.k8s.io";
        let ask = Attributes { verb, group, resource, namespace, name, ..Attributes::default() };
        if self.allowed(user, &ask).await?.is_some() {
            return Ok(());
        }
        let owned: Vec<Rule> =
            self.grants(user, namespace).await?.into_iter().flat_map(|(_, rules)| rules).collect();
        let missing = rbac::uncovered(&owned, &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> =
            missing.iter().map(|r| serde_json::to_string(r).unwrap_or_default()).collect();
        let message = format!(
            "{resource}.{group} {name:?} is forbidden: user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            list.join("\n")
        );
        Err(Status::failure(403, reason::FORBIDDEN, message))
    }
}

fn is_health(path: &str) -> bool {
    ["/healthz/", "/livez/", "/readyz/"].iter().any(|p| path.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_words_of_upstream() {
        let user = UserInfo::new("eve", &[]);
        let ask = Attributes {
            verb: "get",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            namespace: "a",
            name: "web",
            path: "",
        };
        assert_eq!(
            forbidden(&user, &ask).message,
            r#"deployments.apps "web" is forbidden: User "eve" cannot get resource "deployments/scale" in API group "apps" in the namespace "a""#
        );
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::default() };
        assert_eq!(forbidden(&user, &path).message, r#"forbidden: User "eve" cannot get path "/metrics""#);
    }
}
