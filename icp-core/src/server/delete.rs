//! Delete and delete of collections.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::context::Context;
use super::input::Input;
use super::plan::{self, DeleteOptions, Deletion};
use super::store::Commit;
use super::{Body, codec, custom, failure, options};
use crate::api::{FieldError, Gvk, Status};
use crate::storage::Revision;

/// Most tries of a deletion that somebody else gets ahead of.
const TRIES_MAX: usize = 16;

/// Kinds whose deletion answers with the object and not with a `Status` (`ReturnDeletedObject` upstream).
const RETURNS_OBJECT: &[&str] = &[
    "Pod",
    "PodTemplate",
    "ServiceAccount",
    "Service",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ResourceQuota",
    "StorageClass",
    "CSINode",
    "CSIDriver",
    "VolumeAttachment",
];

/// How a deletion went.
pub(super) enum Deleted {
    /// The object is gone; this was it.
    Gone(Bytes, Revision),
    /// It is marked, and stays until its finalizers are gone or its grace period is over.
    Marked(Bytes, Revision),
}

impl Context {
    /// The options in the body, and those in the query where the body says nothing.
    pub(super) fn delete_options(&self, body: &Input) -> Result<DeleteOptions, Status> {
        let value = self.decode_other(body, &Gvk::new("meta.k8s.io", "v1", "DeleteOptions"))?;
        let text = |p: &str| value.pointer(p).and_then(Value::as_str).map(ToString::to_string);
        let query = |k: &str| Some(self.query.text(k).to_string()).filter(|v| !v.is_empty());
        let orphan = value
            .get("orphanDependents")
            .and_then(Value::as_bool)
            .or_else(|| self.query.get("orphanDependents").map(|_| self.query.flag("orphanDependents")));
        let propagation = text("/propagationPolicy").or_else(|| query("propagationPolicy"));
        let mut errors = Vec::new();
        if let Some(policy) = &propagation {
            const FIELD: &str = "propagationPolicy";
            const POLICIES: &[&str] = &["Foreground", "Background", "Orphan"];
            if orphan.is_some() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(FIELD, policy.as_str(), detail));
            }
            if !POLICIES.contains(&policy.as_str()) {
                let allowed = [POLICIES, &["nil"]].concat();
                errors.push(FieldError::not_supported(FIELD, policy.as_str(), &allowed));
            }
        }
        options::refuse("DeleteOptions", &errors)?;
        let all = value.pointer("/dryRun/0").and_then(Value::as_str) == Some("All");
        Ok(DeleteOptions {
            grace_secs: match value.get("gracePeriodSeconds").and_then(Value::as_i64) {
                Some(secs) => Some(secs),
                None => self.query.number("gracePeriodSeconds")?,
            },
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation: propagation
                .or_else(|| orphan.map(|o| if o { "Orphan" } else { "Background" }.to_string())),
            dry_run: self.dry_run || all,
        })
    }

    pub(super) async fn delete(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let options = self.delete_options(body)?;
        let name = self.request.name.clone();
        match self.remove(&name, &options).await? {
            Deleted::Marked(stored, revision) => self.respond_stored(200, &stored, revision),
            Deleted::Gone(stored, revision) if RETURNS_OBJECT.contains(&self.info.kind.as_str()) => {
                self.respond_stored(200, &stored, revision)
            }
            Deleted::Gone(stored, revision) => {
                let object = codec::decode(&stored, revision)?;
                Ok(self.respond_deleted(&name, codec::meta_str(&object, "uid")))
            }
        }
    }

    /// Deletes one object of the request's collection.
    pub(super) async fn remove(&self, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
        let info = &self.info;
        let protected = info.kind == "Namespace" && matches!(name, "default" | "kube-system" | "kube-public");
        if protected {
            return Err(failure::forbidden(info, name, "this namespace may not be deleted"));
        }
        let key = info.key(self.namespace(), name);
        for _ in 0..TRIES_MAX {
            let Some(kv) = self.server.kv(&key).await? else { return Err(failure::not_found(info, name)) };
            let mut old = codec::decode(&kv.value, kv.mod_revision)?;
            super::version::from_storage(info, &mut old);
            let is_definition = info.gvr == crate::api::resources::CUSTOM_RESOURCE_DEFINITIONS;
            if is_definition {
                custom::hold(&mut old, self.now);
            }
            match plan::delete(info, &old, options, self.now)? {
                Deletion::Keep => {
                    if is_definition && !options.dry_run {
                        self.server.clean(name).await?;
                    }
                    return Ok(Deleted::Marked(kv.value, kv.mod_revision));
                }
                Deletion::Remove => {
                    if options.dry_run {
                        return Ok(Deleted::Gone(kv.value, kv.mod_revision));
                    }
                    let extra = self.release(&old);
                    let commit = self.server.commit_delete(&key, kv.mod_revision, extra).await?;
                    if let Commit::Done(revision) = commit {
                        if info.is_custom() {
                            self.server.settle(info).await?;
                        }
                        return Ok(Deleted::Gone(kv.value, revision));
                    }
                }
                Deletion::Mark(mut new) => {
                    super::version::to_storage(info, &mut new);
                    let stored = codec::encode(&new);
                    if options.dry_run {
                        return Ok(Deleted::Marked(stored, kv.mod_revision));
                    }
                    let commit = self
                        .server
                        .commit_update(&key, kv.mod_revision, stored.clone(), super::store::Extra::default())
                        .await?;
                    if let Commit::Done(revision) = commit {
                        if is_definition {
                            self.server.clean(name).await?;
                        }
                        return Ok(Deleted::Marked(stored, revision));
                    }
                }
            }
        }
        Err(failure::conflict(info, name, failure::MODIFIED))
    }

    pub(super) async fn delete_collection(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let options = self.delete_options(body)?;
        let filter = self.filter()?;
        let page = self.page(&filter).await?;
        let mut items: Vec<Value> = Vec::with_capacity(page.items.len());
        for (kv, _) in page.items {
            let object = codec::decode(&kv.value, kv.mod_revision)?;
            let name: String = codec::meta_str(&object, "name").into();
            // The collection may span namespaces.
            let mut one =
                Self::internal(&self.server, &self.info, codec::meta_str(&object, "namespace"), &name);
            one.now = self.now;
            match one.remove(&name, &options).await {
                Ok(_) => items.push(object),
                Err(status)
                    if status.code == 404 || (status.code == 403 && self.info.kind == "Namespace") => {}
                Err(status) => return Err(status),
            }
        }
        let list = json!({
            "kind": self.info.list_kind, "apiVersion": self.info.api_version(),
            "metadata": { "resourceVersion": page.revision.to_string() }, "items": items,
        });
        Ok(self.respond_value(200, &list))
    }
}
