//! Admission: what the server adds to an object, and what it refuses, before it is validated.
//!
//! The order is that of `pkg/kubeapiserver/options/plugins.go` upstream: `LimitRanger`, `ServiceAccount`,
//! `TaintNodesByCondition`, `Priority`, `DefaultTolerationSeconds`, `DefaultStorageClass`. `NamespaceLifecycle` is part of the transaction
//! that creates an object (see `Context::insert`), so that it cannot be raced.

mod limits;
mod pod;

use alloc::string::{String, ToString};

use serde_json::{Value, json};

use super::context::Context;
use super::{codec, failure};
use crate::api::resources::{LIMIT_RANGES, PRIORITY_CLASSES, SERVICE_ACCOUNTS, STORAGE_CLASSES};
use crate::api::{Status, set_at};

/// Marks the default storage class.
const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

impl Context {
    /// Admits an object that is to be created (`old` is `None`) or replaced.
    pub(super) async fn admit(&mut self, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let group = self.info.gvr.group.to_string();
        match (group.as_str(), self.info.kind.as_str()) {
            ("", "Pod") if old.is_none() => self.admit_pod(object).await,
            ("", "Node") if old.is_none() => {
                pod::taint_new_node(object);
                Ok(())
            }
            ("scheduling.k8s.io", "PodGroup") if old.is_none() => {
                let class = self.priority_class(object).await?;
                pod::set_priority_value(object, class.as_ref(), "pod group")
                    .map_err(|why| failure::forbidden(&self.info, codec::meta_str(object, "name"), &why))
            }
            ("scheduling.k8s.io", "PodGroup") => {
                let kept = old.and_then(|o| o.pointer("/spec/priority"));
                if let Some(kept) = kept.filter(|_| object.pointer("/spec/priority").is_none()) {
                    set_at(object, &["spec", "priority"], kept.clone());
                }
                Ok(())
            }
            ("", "PersistentVolumeClaim") if old.is_none() => {
                self.default_storage_class(object).await?;
                let ranges = self.server.objects(&LIMIT_RANGES, Some(self.namespace())).await?;
                self.within_limits(object, &limits::claim_faults(object, &ranges))
            }
            ("rbac.authorization.k8s.io", kind) => {
                plan_identity(self, object);
                self.server.check_escalation(&self.user, kind, object).await
            }
            ("certificates.k8s.io", "CertificateSigningRequest") if old.is_none() => {
                let user = self.user.to_value();
                for field in ["username", "groups", "uid", "extra"] {
                    match user.get(field) {
                        Some(value) => set_at(object, &["spec", field], value.clone()),
                        None => {
                            object.get_mut("spec").and_then(Value::as_object_mut).map(|m| m.remove(field));
                        }
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sets what of the status the server itself decides; after the strategy, which keeps clients from it.
    pub(super) fn decide_status(&self, object: &mut Value) {
        if self.info.kind == "CustomResourceDefinition" && self.info.gvr.group == "apiextensions.k8s.io" {
            pod::establish(object, self.now);
        }
    }

    async fn admit_pod(&self, object: &mut Value) -> Result<(), Status> {
        let mirror = object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get("kubernetes.io/config.mirror"))
            .is_some();
        let ranges = self.server.objects(&LIMIT_RANGES, Some(self.namespace())).await?;
        limits::set_defaults(object, &ranges);
        if !mirror {
            self.service_account(object).await?;
        }
        self.priority(object).await?;
        pod::default_tolerations(object);
        self.within_limits(object, &limits::pod_faults(object, &ranges))
    }

    fn within_limits(&self, object: &Value, faults: &[String]) -> Result<(), Status> {
        if faults.is_empty() {
            return Ok(());
        }
        Err(failure::forbidden(&self.info, codec::meta_str(object, "name"), &limits::together(faults)))
    }

    async fn service_account(&self, object: &mut Value) -> Result<(), Status> {
        let name = pod::service_account_name(object);
        let account = self.server.object(&SERVICE_ACCOUNTS, self.namespace(), &name).await?;
        if account.is_none() && self.server.options().require_service_accounts {
            let pod = codec::meta_str(object, "name");
            let why = alloc::format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                self.namespace()
            );
            return Err(failure::forbidden(&self.info, pod, &why));
        }
        let suffix = super::api_server::lock(&self.server.0.rng).name_suffix(5);
        pod::mount_token(object, account.as_ref(), &suffix);
        Ok(())
    }

    async fn priority(&self, object: &mut Value) -> Result<(), Status> {
        let class = self.priority_class(object).await?;
        pod::set_priority(object, class.as_ref())
            .map_err(|why| failure::forbidden(&self.info, codec::meta_str(object, "name"), &why))
    }

    /// The class that a pod or a pod group names, else the one that is the default.
    async fn priority_class(&self, object: &Value) -> Result<Option<Value>, Status> {
        let named = object.pointer("/spec/priorityClassName").and_then(Value::as_str).unwrap_or("");
        if named.is_empty() {
            let classes = self.server.objects(&PRIORITY_CLASSES, None).await?;
            // The lowest of several defaults counts.
            let value = |c: &Value| c.get("value").and_then(Value::as_i64).unwrap_or(0);
            let defaults = classes.into_iter().filter(|c| c.get("globalDefault") == Some(&Value::Bool(true)));
            Ok(defaults.min_by_key(value))
        } else {
            let found = self.server.object(&PRIORITY_CLASSES, "", named).await?;
            if found.is_none() {
                let why = alloc::format!("no PriorityClass with name {named} was found");
                return Err(failure::forbidden(&self.info, codec::meta_str(object, "name"), &why));
            }
            Ok(found)
        }
    }

    async fn default_storage_class(&self, object: &mut Value) -> Result<(), Status> {
        if object.pointer("/spec/storageClassName").is_some() {
            return Ok(());
        }
        let classes = self.server.objects(&STORAGE_CLASSES, None).await?;
        let is_default = |c: &&Value| {
            let of = c.pointer("/metadata/annotations").and_then(|a| a.get(DEFAULT_STORAGE_CLASS));
            of.and_then(Value::as_str) == Some("true")
        };
        // The newest of several defaults counts.
        let newest =
            classes.iter().filter(is_default).max_by_key(|c| codec::meta_str(c, "creationTimestamp"));
        if let Some(class) = newest {
            set_at(object, &["spec", "storageClassName"], codec::meta_str(class, "name"));
        }
        Ok(())
    }
}

/// Gives a role its namespace before its rights are looked at.
fn plan_identity(context: &Context, object: &mut Value) {
    if context.info.namespaced && codec::meta_str(object, "namespace").is_empty() {
        let namespace = context.namespace().into();
        codec::metadata_mut(object).map(|m| m.insert("namespace".into(), namespace));
    }
    let missing = object.get("rules").is_none() && context.info.kind.ends_with("Role");
    if missing {
        set_at(object, &["rules"], json!([]));
    }
}
