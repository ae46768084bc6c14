//! Resources that are known only at run time.

use alloc::string::String;

use serde_json::Value;

use crate::api::{Gvr, Object, OwnerReference, resources};
use crate::controllers::{Cache, ResourceKind};

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

/// The resource of an owner, in the version that the reference names: one of `known`, or a custom one.
pub(crate) fn owner_resource(
    known: &[ResourceKind],
    cache: &Cache,
    owner: &OwnerReference,
) -> Option<ResourceKind> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let of_group = |r: &ResourceKind| r.kind == owner.kind && r.gvr.group == group;
    let custom = cache.store(&resources::CUSTOM_RESOURCE_DEFINITIONS);
    let mut kind = known
        .iter()
        .find(|r| of_group(r))
        .cloned()
        .or_else(|| custom.iter().filter_map(|d| custom_resource(d)).find(of_group))?;
    // The object is the same in whatever version the reference names.
    if kind.gvr.version != version {
        kind.gvr.version = String::from(version).into();
    }
    Some(kind)
}
