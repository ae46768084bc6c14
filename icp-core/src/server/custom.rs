//! Resources that custom resource definitions make.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::Value;

use super::ApiServer;
use crate::api::Status;
use crate::api::resources::CUSTOM_RESOURCE_DEFINITIONS;
use crate::api::table::{ResourceInfo, from_crd};

/// The served versions of a definition as rows of the resource table; none while it is deleted.
pub(super) fn resources_of(definition: &Value) -> Vec<Arc<ResourceInfo>> {
    if definition.pointer("/metadata/deletionTimestamp").is_some() {
        return Vec::new();
    }
    from_crd(definition).into_iter().map(Arc::new).collect()
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
