//! Resources that are known only at run time.

use alloc::string::String;

use serde_json::Value;

use crate::api::{Gvr, Object};
use crate::controllers::ResourceKind;

/// The resource that a custom resource definition defines, in its storage version, once it is established.
pub(crate) fn custom_resource(definition: &Object) -> Option<ResourceKind> {
    let versions = definition.at("/spec/versions")?.as_array()?;
    let version = versions.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)))?;
    let text = |pointer: &str| Some(definition.str_at(pointer)).filter(|s| !s.is_empty()).map(String::from);
    let gvr = Gvr {
        group: text("/spec/group")?.into(),
        version: String::from(version.get("name")?.as_str()?).into(),
        resource: text("/spec/names/plural")?.into(),
    };
    Some(ResourceKind {
        gvr,
        kind: text("/spec/names/kind")?,
        namespaced: definition.str_at("/spec/scope") == "Namespaced",
    })
}
