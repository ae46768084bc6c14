//! Resources that custom resource definitions make.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::Value;

use super::ApiServer;
use crate::api::resources::CUSTOM_RESOURCE_DEFINITIONS;
use crate::api::table::{ResourceInfo, SchemaSource, Strategy, SubresourceInfo};
use crate::api::{Gvk, Gvr, Status};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(ToString::to_string).collect()
}

/// The served versions of a definition as rows of the resource table.
pub(super) fn resources_of(definition: &Value) -> Vec<Arc<ResourceInfo>> {
    let text = |p: &str| definition.pointer(p).and_then(Value::as_str).unwrap_or("").to_string();
    let (group, plural, kind) = (text("/spec/group"), text("/spec/names/plural"), text("/spec/names/kind"));
    if definition.pointer("/metadata/deletionTimestamp").is_some() {
        return Vec::new();
    }
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let versions: Vec<&Value> = versions.into_iter().flatten().collect();
    let name_of = |v: &Value| v.get("name").and_then(Value::as_str).unwrap_or("").to_string();
    let storage = versions.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let storage_version = storage.map(|v| name_of(v)).unwrap_or_default();
    let storage_gvk = Gvk::of(&format!("{group}/{storage_version}"), &kind);
    let served = versions.iter().filter(|v| v.get("served") != Some(&Value::Bool(false)));
    let info = |version: &&Value| {
        let name = name_of(version);
        let gvk = Gvk::of(&format!("{group}/{name}"), &kind);
        let has = |sub: &str| version.pointer(&format!("/subresources/{sub}")).is_some();
        let verbs = ["get", "patch", "update"].map(String::from).to_vec();
        let mut subresources = Vec::new();
        if has("scale") {
            let gvk = Gvk::new("autoscaling", "v1", "Scale");
            subresources.push(SubresourceInfo { name: "scale".into(), gvk, verbs: verbs.clone() });
        }
        if has("status") {
            subresources.push(SubresourceInfo { name: "status".into(), gvk: gvk.clone(), verbs });
        }
        let open = serde_json::json!({ "x-kubernetes-preserve-unknown-fields": true, "type": "object" });
        let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or(open);
        let list_kind = match text("/spec/names/listKind") {
            own if own.is_empty() => format!("{kind}List"),
            own => own,
        };
        let singular = match text("/spec/names/singular") {
            own if own.is_empty() => kind.to_lowercase(),
            own => own,
        };
        Arc::new(ResourceInfo {
            gvr: Gvr { group: group.clone().into(), version: name.into(), resource: plural.clone().into() },
            kind: kind.clone(),
            list_kind,
            singular,
            short_names: texts(definition.pointer("/spec/names/shortNames")),
            categories: texts(definition.pointer("/spec/names/categories")),
            namespaced: text("/spec/scope") == "Namespaced",
            verbs: VERBS.iter().map(ToString::to_string).collect(),
            strategy: Strategy {
                status: has("status"),
                generation: true,
                conditional_update: true,
                ..Strategy::default()
            },
            subresources,
            storage_prefix: format!("/registry/{group}/{plural}/"),
            storage_gvk: storage_gvk.clone(),
            schema: SchemaSource::Custom(Arc::new(schema)),
        })
    };
    served.map(info).collect()
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
