//! How many pods the controller of a pod is to have.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use serde_json::Value;

use super::Owner;
use crate::api::{Gvr, Object, OwnerReference, reason, resources, table};
use crate::client::{ApiError, ObjectKey, Reply};
use crate::controllers::support::{int_at, is_kind, owner_resource};
use crate::controllers::{Action, Cache, ResourceKind};

/// How many pods a controller is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The uid of the controller; of the Deployment where the pods name one of its ReplicaSets.
    pub uid: String,
    /// `spec.replicas`.
    pub replicas: i64,
}

/// The resources that have replicas and are watched, with the kind of their objects.
pub(super) const WORKLOADS: &[(Gvr, &str)] = &[
    (resources::REPLICATION_CONTROLLERS, "ReplicationController"),
    (resources::REPLICA_SETS, "ReplicaSet"),
    (resources::DEPLOYMENTS, "Deployment"),
    (resources::STATEFUL_SETS, "StatefulSet"),
];

/// The replicas that a workload asks for; the default is one.
pub(super) fn replicas(object: &Object) -> i64 {
    int_at(object, "/spec/replicas").unwrap_or(1)
}

/// Where the number of an owner's pods stands.
pub(super) enum Lookup {
    /// In what is watched.
    Known(Owner),
    /// In the scale subresource of this object.
    At(ObjectKey, Gvr),
}

fn is_workload(reference: &OwnerReference, kind: &str) -> bool {
    match kind {
        "ReplicationController" => is_kind(reference, "", kind),
        "StatefulSet" => is_kind(reference, "apps", kind),
        _ => is_kind(reference, "apps", kind) || is_kind(reference, "extensions", kind),
    }
}

/// Looks up the controller that a pod of `namespace` names.
pub(super) fn look_up(
    known: &[ResourceKind],
    cache: &Cache,
    reference: &OwnerReference,
    namespace: &str,
) -> Lookup {
    let found = |gvr: &Gvr, reference: &OwnerReference| -> Option<Arc<Object>> {
        let object = cache.store(gvr).get(namespace, &reference.name)?;
        (object.metadata.uid == reference.uid).then(|| Arc::clone(object))
    };
    if let Some((gvr, _)) = WORKLOADS.iter().find(|(_, kind)| is_workload(reference, kind)) {
        let Some(object) = found(gvr, reference) else { return Lookup::Known(Owner::Missing) };
        // A ReplicaSet counts for itself if its Deployment is gone, or it belongs to another kind.
        let above = object
            .controller()
            .filter(|above| object.kind == "ReplicaSet" && is_workload(above, "Deployment"))
            .and_then(|above| found(&resources::DEPLOYMENTS, above));
        let object = above.unwrap_or(object);
        let scale = Scale { uid: object.metadata.uid.clone(), replicas: replicas(&object) };
        return Lookup::Known(Owner::Scaled(scale));
    }
    let unknown = |why| Lookup::Known(Owner::Unknown(why));
    let Some(kind) = owner_resource(known, cache, reference).filter(|k| k.namespaced && is_served(cache, k))
    else {
        let OwnerReference { kind, api_version, .. } = reference;
        return unknown(format!("no matches for kind {kind:?} in version {api_version:?}"));
    };
    if !has_scale(cache, &kind) {
        let Gvr { group, resource, .. } = &kind.gvr;
        let dot = if group.is_empty() { "" } else { "." };
        return unknown(format!("{resource}{dot}{group} does not implement the scale subresource"));
    }
    Lookup::At(ObjectKey::new(namespace, &reference.name), kind.gvr)
}

/// The version of a custom resource that its definition holds.
fn custom_version<'c>(cache: &'c Cache, gvr: &Gvr) -> Option<&'c Value> {
    let name = format!("{}.{}", gvr.resource, gvr.group);
    let definition = cache.store(&resources::CUSTOM_RESOURCE_DEFINITIONS).get("", &name)?;
    let versions = definition.at("/spec/versions")?.as_array()?;
    versions.iter().find(|v| v.get("name").is_some_and(|n| n == &*gvr.version))
}

fn built_in(kind: &ResourceKind) -> Option<&'static Arc<table::ResourceInfo>> {
    let Gvr { group, version, resource } = &kind.gvr;
    table::find(group, version, resource)
}

fn is_served(cache: &Cache, kind: &ResourceKind) -> bool {
    let served = |v: &Value| v.get("served") == Some(&Value::Bool(true));
    built_in(kind).is_some() || custom_version(cache, &kind.gvr).is_some_and(served)
}

fn has_scale(cache: &Cache, kind: &ResourceKind) -> bool {
    match built_in(kind) {
        Some(info) => info.subresource("scale").is_some(),
        None => custom_version(cache, &kind.gvr)
            .and_then(|v| v.pointer("/subresources/scale"))
            .is_some_and(|s| !s.is_null()),
    }
}

/// Asks for the scale subresource of an object.
pub(super) fn ask(key: &ObjectKey, gvr: &Gvr) -> Action {
    Action::get(gvr, key).at_subresource("scale").tolerating(&[reason::NOT_FOUND])
}

/// What the server said about the scale of an object.
pub(super) fn answer(answer: &Result<Reply, ApiError>) -> Owner {
    match answer {
        Ok(Reply::Object(scale)) => Owner::Scaled(Scale {
            uid: scale.metadata.uid.clone(),
            replicas: int_at(scale, "/spec/replicas").unwrap_or(0),
        }),
        Ok(_) => Owner::Unknown("the scale subresource answered without a Scale".into()),
        Err(e) if e.is(reason::NOT_FOUND) => Owner::Missing,
        Err(ApiError::Status(status)) => Owner::Unknown(status.message.clone()),
        Err(e) => Owner::Unknown(e.to_string()),
    }
}
