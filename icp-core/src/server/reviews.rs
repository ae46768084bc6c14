//! Questions: who am I, may I, is this token good; and the `bindings` collection.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use http::Response;
use serde_json::{Value, json};

use super::auth::rbac::Attributes;
use super::context::Context;
use super::input::Input;
use super::{Body, UserInfo, codec, failure};
use crate::api::resources::PODS;
use crate::api::{Status, set_at};

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(ToString::to_string).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

impl Context {
    pub(super) async fn review(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let kind = self.info.kind.clone();
        let mut review = self.decode(body)?;
        if review.get("metadata").is_none() {
            set_at(&mut review, &["metadata"], json!({}));
        }
        let status = match kind.as_str() {
            "SelfSubjectReview" => json!({ "userInfo": self.user.to_value() }),
            "TokenReview" => self.token_review(&review).await,
            "SelfSubjectAccessReview" => {
                let user = self.user.clone();
                self.access(&user, &review).await?
            }
            "SubjectAccessReview" | "LocalSubjectAccessReview" => {
                if kind == "LocalSubjectAccessReview"
                    && text(&review, "/spec/resourceAttributes/namespace") != self.namespace()
                {
                    return Err(failure::bad_request(
                        "spec.resourceAttributes.namespace: must match metadata.namespace",
                    ));
                }
                let user = UserInfo {
                    name: text(&review, "/spec/user").to_string(),
                    uid: text(&review, "/spec/uid").to_string(),
                    groups: texts(review.pointer("/spec/groups")),
                    ..UserInfo::default()
                };
                self.access(&user, &review).await?
            }
            "SelfSubjectRulesReview" => self.rules_review(&review).await?,
            "Binding" => {
                let name = codec::meta_str(&review, "name").to_string();
                let pods = super::store::builtin(&PODS).ok_or_else(failure::no_such_path)?;
                let mut context = Self::internal(&self.server, pods, self.namespace(), &name);
                context.headers = self.headers.clone();
                return context.bind(body).await;
            }
            other => return Err(failure::internal(alloc::format!("{other} is not answered"))),
        };
        set_at(&mut review, &["status"], status);
        Ok(self.respond_object(201, &review))
    }

    async fn access(&self, user: &UserInfo, review: &Value) -> Result<Value, Status> {
        let at = |field: &str| text(review, &alloc::format!("/spec/resourceAttributes/{field}")).to_string();
        let path = text(review, "/spec/nonResourceAttributes/path");
        let found = if path.is_empty() {
            if review.pointer("/spec/resourceAttributes").is_none() {
                return Err(failure::bad_request(
                    "spec.resourceAttributes: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                ));
            }
            let (verb, group, resource, subresource) =
                (at("verb"), at("group"), at("resource"), at("subresource"));
            let (namespace, name) = (at("namespace"), at("name"));
            let ask = Attributes {
                verb: &verb,
                group: &group,
                resource: &resource,
                subresource: &subresource,
                namespace: &namespace,
                name: &name,
                path: "",
            };
            self.server.allowed(user, &ask).await?
        } else {
            let verb = text(review, "/spec/nonResourceAttributes/verb");
            self.server.allowed(user, &Attributes { verb, path, ..Attributes::default() }).await?
        };
        Ok(match found {
            Some(why) if why.is_empty() => json!({ "allowed": true }),
            Some(why) => json!({ "allowed": true, "reason": why }),
            None => json!({ "allowed": false }),
        })
    }

    async fn token_review(&self, review: &Value) -> Value {
        let mut audiences = texts(review.pointer("/spec/audiences"));
        if audiences.is_empty() {
            audiences.push(self.server.options().issuer.clone());
        }
        match self.server.verify_token(text(review, "/spec/token"), &audiences).await {
            Some((user, claims)) => json!({
                "authenticated": true, "user": user.to_value(), "audiences": claims.audiences,
            }),
            None => json!({ "authenticated": false, "error": "invalid bearer token" }),
        }
    }

    async fn rules_review(&self, review: &Value) -> Result<Value, Status> {
        let namespace = text(review, "/spec/namespace");
        let mut rules: Vec<super::auth::rbac::Rule> = self
            .server
            .grants(&self.user, namespace)
            .await?
            .into_iter()
            .flat_map(|(_, rules)| rules)
            .collect();
        if self.user.in_group("system:masters") || !self.server.options().rbac {
            let all = || alloc::vec![String::from("*")];
            rules.push(super::auth::rbac::Rule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..super::auth::rbac::Rule::default()
            });
            rules.push(super::auth::rbac::Rule {
                verbs: all(),
                non_resource_urls: all(),
                ..super::auth::rbac::Rule::default()
            });
        }
        let (paths, resources): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|r| !r.non_resource_urls.is_empty());
        Ok(json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false }))
    }
}
