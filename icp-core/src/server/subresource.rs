//! Subresources that read or write a part of an object: status, scale, binding, finalize, approval, token.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use http::{Request, Response};
use serde_json::{Value, json};

use super::context::Context;
use super::input::Input;
use super::write::Change;
use super::{Body, codec, failure};
use crate::api::labels::Selector;
use crate::api::{FieldError, Gvk, Status, invalid, patch, set_at};
use crate::client::PatchKind;

/// Shortest life of a requested token, in seconds (`TokenRequest` validation upstream).
const TOKEN_SECS_MIN: i64 = 600;
/// Life of a token whose request names none, in seconds.
const TOKEN_SECS_DEFAULT: i64 = 3_600;
/// Longest life of a token, in seconds.
const TOKEN_SECS_MAX: i64 = 86_400;

/// A selector as `Scale` tells it: a `LabelSelector`, or the plain labels of a ReplicationController.
fn selector_text(selector: &Value) -> String {
    let is_plain = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let parsed = if is_plain {
        Selector::from_label_selector(&json!({ "matchLabels": selector }))
    } else {
        Selector::from_label_selector(selector)
    };
    parsed.map(|s| s.to_string()).unwrap_or_default()
}

/// The JSON pointer of a path such as `.spec.replicas`.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

impl Context {
    pub(super) async fn subresource(mut self, request: Request<Input>) -> Result<Response<Body>, Status> {
        let body = request.body().clone();
        let (kind, sub, verb) = (self.info.kind.clone(), self.request.subresource.clone(), self.request.verb);
        match (kind.as_str(), sub.as_str(), verb) {
            (_, "scale", "get") => {
                let scale = self.scale_of(&self.current().await?)?;
                Ok(self.respond_value(200, &scale))
            }
            (_, "scale", _) => self.write_scale(&body).await,
            (_, "status" | "approval" | "ephemeralcontainers" | "resize", "get") => self.get().await,
            (_, "status", "update") => self.update(&body).await,
            (_, "status", "patch") => self.patch(&body).await,
            ("Namespace", "finalize", "update") => self.finalize(&body).await,
            ("CertificateSigningRequest", "approval", "update" | "patch") => self.approve(&body).await,
            ("Pod", "ephemeralcontainers" | "resize", "update" | "patch") => self.part_of_pod(&body).await,
            ("Pod", "binding", "create") => self.bind(&body).await,
            ("Pod", "eviction", "create") => self.evict(&body).await,
            ("ServiceAccount", "token", "create") => self.token(&body).await,
            ("Pod", "log" | "exec" | "attach" | "portforward" | "proxy", _)
            | ("Node" | "Service", "proxy", _) => self.forward(request.map(Input::into_bytes)).await,
            _ => Err(failure::method_not_allowed()),
        }
    }

    /// The object that the subresource belongs to.
    pub(super) async fn current(&self) -> Result<Value, Status> {
        match self.server.kv(&self.key()).await? {
            Some(kv) => {
                let mut object = codec::decode(&kv.value, kv.mod_revision)?;
                super::version::from_storage(&self.info, &mut object);
                Ok(object)
            }
            None => Err(failure::not_found(&self.info, &self.request.name)),
        }
    }

    /// `autoscaling/v1 Scale` of an object.
    fn scale_of(&self, object: &Value) -> Result<Value, Status> {
        let meta =
            |field: &str| object.pointer(&format!("/metadata/{field}")).cloned().unwrap_or(Value::Null);
        let number = |p: &str| object.pointer(p).and_then(Value::as_i64);
        let (wanted, current, selector) = match &self.info.scale_paths {
            None => {
                let selector = object.pointer("/spec/selector").map(selector_text).unwrap_or_default();
                (number("/spec/replicas").unwrap_or(0), number("/status/replicas"), selector)
            }
            Some(paths) => {
                let path = &paths.spec_replicas;
                let wanted = number(&pointer(path)).ok_or_else(|| {
                    failure::internal(format!("the spec replicas field {path:?} does not exist"))
                })?;
                let selector = object.pointer(&pointer(&paths.label_selector)).and_then(Value::as_str);
                (wanted, number(&pointer(&paths.status_replicas)), selector.unwrap_or("").into())
            }
        };
        Ok(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
                "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp"),
            },
            "spec": { "replicas": wanted },
            "status": { "replicas": current.unwrap_or(0), "selector": selector },
        }))
    }

    async fn write_scale(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let scale = if self.request.verb == "patch" {
            let before = self.scale_of(&self.current().await?)?;
            match self.decode_patch(body)? {
                Change::Patch(PatchKind::Json, p) => patch::json(&before, &p).map_err(|e| e.to_status())?,
                Change::Patch(_, p) => {
                    let mut scale = before;
                    patch::merge(&mut scale, &p);
                    if p.pointer("/metadata/resourceVersion").is_none() {
                        // A patch that names no version is tried again on whatever is newest.
                        codec::metadata_mut(&mut scale).map(|m| m.remove("resourceVersion"));
                    }
                    scale
                }
                _ => {
                    return Err(failure::unsupported_media_type(
                        "application/json-patch+json, application/merge-patch+json",
                    ));
                }
            }
        } else {
            self.decode_other(body, &Gvk::new("autoscaling", "v1", "Scale"))?
        };
        let Some(replicas) = scale.pointer("/spec/replicas").map_or(Some(0), Value::as_i64) else {
            return Err(failure::bad_request("spec.replicas: must be a whole number"));
        };
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(invalid(&self.info, &self.request.name, &[error]));
        }
        let version = codec::meta_str(&scale, "resourceVersion").to_string();
        let path = match &self.info.scale_paths {
            Some(paths) => paths.spec_replicas.clone(),
            None => ".spec.replicas".into(),
        };
        let change = Change::With(Box::new(move |old| {
            let mut new = old.clone();
            let path: Vec<&str> = path.split('.').skip(1).collect();
            set_at(&mut new, &path, replicas);
            if !version.is_empty() {
                set_at(&mut new, &["metadata", "resourceVersion"], version.as_str());
            }
            Ok(new)
        }));
        // Admission and generations are those of the object.
        let written = self.change(&change).await?;
        let object = codec::decode(&written.stored, written.revision)?;
        Ok(self.respond_value(200, &self.scale_of(&object)?))
    }

    /// Replaces `spec.finalizers` of a namespace; without any, and marked for deletion, it goes.
    async fn finalize(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let object = self.decode(body)?;
        let finalizers = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
        let version = codec::meta_str(&object, "resourceVersion").to_string();
        let change = Change::With(Box::new(move |old| {
            let mut new = old.clone();
            set_at(&mut new, &["spec", "finalizers"], finalizers.clone());
            if !version.is_empty() {
                set_at(&mut new, &["metadata", "resourceVersion"], version.as_str());
            }
            Ok(new)
        }));
        let written = self.change(&change).await?;
        self.respond_written(&written)
    }

    /// Approval writes the conditions of a request and nothing else.
    async fn approve(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let conditions = |object: &Value| object.pointer("/status/conditions").cloned();
        let change = if self.request.verb == "patch" {
            let Change::Patch(kind, p) = self.decode_patch(body)? else {
                return Err(failure::unsupported_media_type("application/merge-patch+json"));
            };
            let info = self.info.clone();
            Change::With(Box::new(move |old| {
                let patched = patch::apply(&info, kind, old, &p).map_err(|e| e.to_status())?;
                let mut new = old.clone();
                set_at(&mut new, &["status", "conditions"], conditions(&patched).unwrap_or(Value::Null));
                Ok(new)
            }))
        } else {
            let object = self.decode(body)?;
            Change::With(Box::new(move |old| {
                let mut new = old.clone();
                set_at(&mut new, &["status", "conditions"], conditions(&object).unwrap_or(Value::Null));
                Ok(new)
            }))
        };
        self.request.subresource = "status".into();
        let written = self.change(&change).await?;
        self.respond_written(&written)
    }

    /// Ephemeral containers and resources are written through a subresource of their own.
    async fn part_of_pod(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let ephemeral = self.request.subresource == "ephemeralcontainers";
        let keep = move |old: &Value, wanted: &Value| {
            let mut new = old.clone();
            if ephemeral {
                if let Some(list) = wanted.pointer("/spec/ephemeralContainers") {
                    set_at(&mut new, &["spec", "ephemeralContainers"], list.clone());
                }
                return new;
            }
            let wanted = wanted.pointer("/spec/containers").and_then(Value::as_array);
            let wanted: Vec<&Value> = wanted.into_iter().flatten().collect();
            let own = new.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
            for container in own.into_iter().flatten() {
                if let Some(w) = wanted.iter().find(|w| w.get("name") == container.get("name")) {
                    set_at(
                        container,
                        &["resources"],
                        w.get("resources").cloned().unwrap_or_else(|| json!({})),
                    );
                }
            }
            new
        };
        let change = if self.request.verb == "patch" {
            let Change::Patch(kind, p) = self.decode_patch(body)? else {
                return Err(failure::unsupported_media_type("application/strategic-merge-patch+json"));
            };
            let info = self.info.clone();
            Change::With(Box::new(move |old| {
                let patched = patch::apply(&info, kind, old, &p).map_err(|e| e.to_status())?;
                Ok(keep(old, &patched))
            }))
        } else {
            let object = self.decode(body)?;
            Change::With(Box::new(move |old| Ok(keep(old, &object))))
        };
        let written = self.change(&change).await?;
        self.respond_written(&written)
    }

    /// Signs a token for a service account (KEP-1205).
    async fn token(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let mut request =
            self.decode_other(body, &Gvk::new("authentication.k8s.io", "v1", "TokenRequest"))?;
        let account = self.current().await?;
        let asked = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
        let secs = asked.unwrap_or(TOKEN_SECS_DEFAULT);
        if secs < TOKEN_SECS_MIN {
            let error = FieldError::invalid(
                "spec.expirationSeconds",
                secs,
                "may not specify a duration less than 10 minutes",
            );
            return Err(invalid(&self.info, &self.request.name, &[error]));
        }
        let secs = secs.min(TOKEN_SECS_MAX);
        let audiences = match request.pointer("/spec/audiences").and_then(Value::as_array) {
            Some(list) if !list.is_empty() => list.clone(),
            _ => alloc::vec![self.server.options().issuer.as_str().into()],
        };
        let namespace = self.namespace().to_string();
        let mut private = json!({
            "namespace": namespace,
            "serviceaccount": { "name": self.request.name, "uid": codec::meta_str(&account, "uid") },
        });
        if let Some(bound) = request.pointer("/spec/boundObjectRef").filter(|b| !b.is_null()) {
            let text = |f: &str| bound.get(f).and_then(Value::as_str).unwrap_or("");
            let (gvr, field) = match text("kind") {
                "Pod" => (crate::api::resources::PODS, "pod"),
                "Secret" => (crate::api::resources::SECRETS, "secret"),
                "Node" => (crate::api::resources::NODES, "node"),
                other => {
                    return Err(failure::bad_request(format!(
                        "cannot bind token for serviceaccount to object of type {other:?}"
                    )));
                }
            };
            let info = super::store::builtin(&gvr).ok_or_else(failure::no_such_path)?;
            let object = self.server.object(&gvr, &namespace, text("name")).await?;
            let object = object.ok_or_else(|| failure::not_found(info, text("name")))?;
            let uid = codec::meta_str(&object, "uid");
            if !text("uid").is_empty() && text("uid") != uid {
                let why = format!(
                    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                    text("uid")
                );
                return Err(failure::conflict(info, text("name"), &why));
            }
            set_at(&mut private, &[field], json!({ "name": text("name"), "uid": uid }));
        }
        let now = self.now.as_secs();
        let claims = json!({
            "iss": self.server.options().issuer, "aud": audiences, "iat": now, "nbf": now, "exp": now + secs,
            "jti": self.server.token_id(),
            "sub": format!("system:serviceaccount:{namespace}:{}", self.request.name),
            "kubernetes.io": private,
        });
        let key = self.server.token_key().ok_or_else(|| failure::internal("no key to sign tokens with"))?;
        let token = key.sign(&claims).map_err(|e| failure::internal(e.to_string()))?;
        set_at(&mut request, &["kind"], "TokenRequest");
        set_at(&mut request, &["apiVersion"], "authentication.k8s.io/v1");
        set_at(&mut request, &["metadata"], json!({ "name": self.request.name, "namespace": namespace }));
        set_at(&mut request, &["spec", "audiences"], audiences);
        set_at(&mut request, &["spec", "expirationSeconds"], secs);
        let expires = crate::base::Time::from_secs(now + secs);
        set_at(
            &mut request,
            &["status"],
            json!({ "token": token, "expirationTimestamp": expires.to_rfc3339() }),
        );
        Ok(self.respond_value(201, &request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_tells_the_whole_selector() {
        let both = json!({
            "matchLabels": { "b": "2", "a": "1" },
            "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["x", "y"] }],
        });
        assert_eq!(selector_text(&both), "a=1,b=2,tier in (x,y)");
        assert_eq!(selector_text(&json!({ "app": "web" })), "app=web");
        assert_eq!(selector_text(&json!({})), "");
    }
}
