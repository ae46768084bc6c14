//! Resources that custom resource definitions make, and their end: a definition that is deleted stays until its objects
//! are gone (`apiextensions-apiserver/pkg/controller/finalizer`).

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;

use serde_json::{Value, json};

use super::context::Context;
use super::plan::DeleteOptions;
use super::write::Change;
use super::{ApiServer, codec, store};
use crate::api::resources::CUSTOM_RESOURCE_DEFINITIONS;
use crate::api::table::{ResourceInfo, from_crd};
use crate::api::{Status, set_at};
use crate::base::Time;
use crate::storage::{KeyRange, RangeRequest};

/// The finalizer that holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A step that may lead to further deletions.
type Steps<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;

fn is_terminating(definition: &Value) -> bool {
    definition.pointer("/metadata/deletionTimestamp").is_some()
}

/// The served versions of a definition as rows of the resource table; while it is deleted, nothing is created.
pub(super) fn resources_of(definition: &Value) -> Vec<Arc<ResourceInfo>> {
    let mut all = from_crd(definition);
    if is_terminating(definition) {
        all.iter_mut().for_each(|info| info.verbs.retain(|verb| verb != "create"));
    }
    all.into_iter().map(Arc::new).collect()
}

/// Any version of a definition, served or not.
fn any_version(definition: &Value) -> Option<Arc<ResourceInfo>> {
    let mut definition = definition.clone();
    let versions = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    versions.into_iter().flatten().for_each(|v| set_at(v, &["served"], true));
    from_crd(&definition).into_iter().next().map(Arc::new)
}

/// Adds the finalizer and the condition of a definition that is about to be deleted.
pub(super) fn hold(definition: &mut Value, now: Time) {
    if is_terminating(definition) {
        return;
    }
    let list = |v: &Value, p: &str| v.pointer(p).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut finalizers = list(definition, "/metadata/finalizers");
    if !finalizers.iter().any(|f| f.as_str() == Some(CLEANUP)) {
        finalizers.push(CLEANUP.into());
    }
    set_at(definition, &["metadata", "finalizers"], finalizers);
    let mut conditions = list(definition, "/status/conditions");
    conditions.retain(|c| c.get("type").and_then(Value::as_str) != Some("Terminating"));
    conditions.push(json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": now.to_rfc3339(),
    }));
    set_at(definition, &["status", "conditions"], conditions);
}

/// The definition without the finalizer, if it is deleted.
fn release(definition: &Value) -> Value {
    let mut new = definition.clone();
    let finalizers = new.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
    if let Some(finalizers) = finalizers.filter(|_| is_terminating(definition)) {
        finalizers.retain(|f| f.as_str() != Some(CLEANUP));
    }
    new
}

impl ApiServer {
    /// A custom resource; its definition has the name `PLURAL.GROUP`.
    pub(super) async fn custom_resource(
        &self,
        group: &str,
        version: &str,
        resource: &str,
    ) -> Result<Option<Arc<ResourceInfo>>, Status> {
        if group.is_empty() {
            return Ok(None);
        }
        let name = format!("{resource}.{group}");
        let Some(definition) = self.object(&CUSTOM_RESOURCE_DEFINITIONS, "", &name).await? else {
            return Ok(None);
        };
        Ok(resources_of(&definition).into_iter().find(|i| i.gvr.version == version))
    }

    /// Deletes the objects of a definition that is deleted, and the definition once they are gone.
    pub(super) fn clean<'a>(&'a self, name: &'a str) -> Steps<'a> {
        Box::pin(async move {
            let definition = self.object(&CUSTOM_RESOURCE_DEFINITIONS, "", name).await?;
            let Some(info) = definition.filter(is_terminating).as_ref().and_then(any_version) else {
                return Ok(());
            };
            let range = RangeRequest::new(KeyRange::prefix(info.key_prefix(None).into_bytes()));
            for kv in self.storage().range(range).await?.kvs {
                let object = codec::decode(&kv.value, kv.mod_revision)?;
                let (namespace, name) =
                    (codec::meta_str(&object, "namespace"), codec::meta_str(&object, "name"));
                let context = Context::internal(self, &info, namespace, name);
                match context.remove(name, &DeleteOptions::default()).await {
                    Err(status) if status.code != 404 => return Err(status),
                    _ => {}
                }
            }
            self.settle(&info).await
        })
    }

    /// Lets a deleted definition go if no object of it is left; called whenever one has gone.
    pub(super) fn settle<'a>(&'a self, info: &'a ResourceInfo) -> Steps<'a> {
        Box::pin(async move {
            let name = format!("{}.{}", info.gvr.resource, info.gvr.group);
            let definition = self.object(&CUSTOM_RESOURCE_DEFINITIONS, "", &name).await?;
            if !definition.is_some_and(|d| is_terminating(&d)) {
                return Ok(());
            }
            let mut range = RangeRequest::new(KeyRange::prefix(info.key_prefix(None).into_bytes())).limit(1);
            range.keys_only = true;
            if !self.storage().range(range).await?.kvs.is_empty() {
                return Ok(());
            }
            let Some(definitions) = store::builtin(&CUSTOM_RESOURCE_DEFINITIONS) else { return Ok(()) };
            let mut context = Context::internal(self, definitions, "", &name);
            match context.change(&Change::With(Box::new(|old| Ok(release(old))))).await {
                Err(status) if status.code != 404 => Err(status),
                _ => Ok(()),
            }
        })
    }

    /// All custom resources.
    pub(super) async fn custom_resources(&self) -> Result<Vec<Arc<ResourceInfo>>, Status> {
        let definitions = self.objects(&CUSTOM_RESOURCE_DEFINITIONS, None).await?;
        Ok(definitions.iter().flat_map(resources_of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_share_their_storage() {
        let definition = json!({"metadata":{"name":"crontabs.stable.example.com"},"spec":{
            "group":"stable.example.com","scope":"Namespaced",
            "names":{"plural":"crontabs","kind":"CronTab","shortNames":["ct"]},
            "versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}}},
                        {"name":"v1beta1","served":true,"storage":false},{"name":"v0","served":false}]}});
        let infos = resources_of(&definition);
        assert_eq!(infos.len(), 2);
        assert_eq!(infos[0].key("a", "b"), infos[1].key("a", "b"));
        assert_eq!(infos[1].storage_gvk.version, "v1");
        assert!(infos[0].strategy.status && !infos[1].strategy.status);
        assert_eq!((infos[0].list_kind.as_str(), infos[0].singular.as_str()), ("CronTabList", "crontab"));
    }
}
