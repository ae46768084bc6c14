//! Discovery documents: the legacy lists and the aggregated form (`apidiscovery.k8s.io/v2`, KEP-3352).
//!
//! ```
//! use icp_core::api::{discovery, table};
//! let apps = discovery::group(table::builtin(), "apps").unwrap();
//! assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
//! ```

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::Gvk;
use super::table::{ResourceInfo, SubresourceInfo};

/// `GET /api`: `APIVersions`. `address` is `host:port` of this server.
#[must_use]
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// How far a version is from being stable: general availability first, then beta, then alpha, newest first
/// (`version.CompareKubeAwareVersionStrings`).
fn rank(version: &str) -> (u8, i64, i64) {
    let number = |s: &str| s.parse::<i64>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (3, 0, 0) };
    for (stage, word) in [(1, "beta"), (2, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return match (number(major), number(minor)) {
                (Some(a), Some(b)) => (stage, -a, -b),
                _ => (3, 0, 0),
            };
        }
    }
    number(rest).map_or((3, 0, 0), |n| (0, -n, 0))
}

/// The groups in order of appearance, each with its versions, the preferred first.
fn groups(resources: &[Arc<ResourceInfo>]) -> Vec<(&str, Vec<&str>)> {
    let mut out: Vec<(&str, Vec<&str>)> = Vec::new();
    for info in resources {
        let (group, version) = (info.gvr.group.as_ref(), info.gvr.version.as_ref());
        match out.iter_mut().find(|(g, _)| *g == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => out.push((group, alloc::vec![version])),
        }
    }
    for (_, versions) in &mut out {
        versions.sort_by_key(|v| rank(v));
    }
    out
}

fn api_group(name: &str, versions: &[&str]) -> Value {
    let entry = |v: &&str| json!({ "groupVersion": group_version(name, v), "version": v });
    json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

/// `GET /apis`: `APIGroupList`.
#[must_use]
pub fn group_list(resources: &[Arc<ResourceInfo>]) -> Value {
    let groups: Vec<Value> = groups(resources)
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| api_group(name, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `GET /apis/GROUP`: `APIGroup`; `None` if nothing is in the group.
#[must_use]
pub fn group(resources: &[Arc<ResourceInfo>], group: &str) -> Option<Value> {
    let all = groups(resources);
    let (name, versions) = all.iter().find(|(name, _)| *name == group && !name.is_empty())?;
    let mut value = api_group(name, versions);
    if let Some(map) = value.as_object_mut() {
        map.insert("kind".into(), "APIGroup".into());
        map.insert("apiVersion".into(), "v1".into());
    }
    Some(value)
}

/// FNV-1a in hexadecimal: an opaque tag that changes when what is stored changes shape.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn storage_version_hash(info: &ResourceInfo) -> String {
    use base64::Engine as _;
    let gvk = &info.storage_gvk;
    let text = format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind);
    base64::engine::general_purpose::STANDARD.encode(hash(&text).to_be_bytes())
}

fn sub_entry(info: &ResourceInfo, sub: &SubresourceInfo) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), format!("{}/{}", info.gvr.resource, sub.name).into());
    map.insert("singularName".into(), "".into());
    map.insert("namespaced".into(), info.namespaced.into());
    if sub.gvk.group != info.gvr.group || sub.gvk.version != info.gvr.version {
        if !sub.gvk.group.is_empty() {
            map.insert("group".into(), sub.gvk.group.clone().into());
        }
        map.insert("version".into(), sub.gvk.version.clone().into());
    }
    map.insert("kind".into(), sub.gvk.kind.clone().into());
    map.insert("verbs".into(), sub.verbs.clone().into());
    Value::Object(map)
}

/// `GET /api/v1` and `/apis/GROUP/VERSION`: `APIResourceList`; `None` if nothing is in the group-version.
#[must_use]
pub fn resource_list(resources: &[Arc<ResourceInfo>], group: &str, version: &str) -> Option<Value> {
    let mut entries = Vec::new();
    for info in resources.iter().filter(|i| i.gvr.group == group && i.gvr.version == version) {
        let mut map = Map::new();
        map.insert("name".into(), info.gvr.resource.clone().into());
        map.insert("singularName".into(), info.singular.clone().into());
        map.insert("namespaced".into(), info.namespaced.into());
        map.insert("kind".into(), info.kind.clone().into());
        map.insert("verbs".into(), info.verbs.clone().into());
        if !info.short_names.is_empty() {
            map.insert("shortNames".into(), info.short_names.clone().into());
        }
        if !info.categories.is_empty() {
            map.insert("categories".into(), info.categories.clone().into());
        }
        if info.has_verb("list") {
            map.insert("storageVersionHash".into(), storage_version_hash(info).into());
        }
        entries.push(Value::Object(map));
        entries.extend(info.subresources.iter().map(|sub| sub_entry(info, sub)));
    }
    (!entries.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version(group, version),
            "resources": entries,
        })
    })
}

fn response_kind(gvk: &Gvk) -> Value {
    json!({ "group": gvk.group, "version": gvk.version, "kind": gvk.kind })
}

fn aggregated_resource(info: &ResourceInfo) -> Value {
    let mut map = Map::new();
    map.insert("resource".into(), info.gvr.resource.clone().into());
    map.insert("responseKind".into(), response_kind(&info.gvk()));
    map.insert("scope".into(), if info.namespaced { "Namespaced" } else { "Cluster" }.into());
    map.insert("singularResource".into(), info.singular.clone().into());
    map.insert("verbs".into(), info.verbs.clone().into());
    if !info.short_names.is_empty() {
        map.insert("shortNames".into(), info.short_names.clone().into());
    }
    if !info.categories.is_empty() {
        map.insert("categories".into(), info.categories.clone().into());
    }
    let subs: Vec<Value> = info
        .subresources
        .iter()
        .map(|s| json!({ "subresource": s.name, "responseKind": response_kind(&s.gvk), "verbs": s.verbs }))
        .collect();
    if !subs.is_empty() {
        map.insert("subresources".into(), subs.into());
    }
    Value::Object(map)
}

/// `GET /api` (`core`) and `/apis` (all others) as `APIGroupDiscoveryList`.
#[must_use]
pub fn aggregated(resources: &[Arc<ResourceInfo>], core: bool) -> Value {
    let mut items = Vec::new();
    for (group, versions) in groups(resources).iter().filter(|(name, _)| name.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|version| {
                let of = resources.iter().filter(|i| i.gvr.group == *group && i.gvr.version == *version);
                json!({
                    "version": version,
                    "freshness": "Current",
                    "resources": of.map(|i| aggregated_resource(i)).collect::<Vec<_>>(),
                })
            })
            .collect();
        let metadata = if core { json!({}) } else { json!({ "name": group }) };
        items.push(json!({ "metadata": metadata, "versions": versions }));
    }
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;
    use expect_test::expect;

    #[test]
    fn versions_are_ordered_as_kube_does() {
        let mut v = alloc::vec!["v1alpha1", "v2", "v1", "v1beta2", "v1beta1", "v10", "foo"];
        v.sort_by_key(|v| rank(v));
        assert_eq!(v, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }

    #[test]
    fn apps_resource_list() {
        let list = resource_list(table::builtin(), "apps", "v1").unwrap();
        let line = |r: &Value| {
            let text = |k: &str| r.get(k).map(|v| format!(" {v}")).unwrap_or_default();
            format!(
                "{}{}{}{}{}{}\n",
                r["name"].as_str().unwrap(),
                text("kind"),
                text("group"),
                text("version"),
                text("shortNames"),
                text("verbs")
            )
        };
        let lines: String = list["resources"].as_array().unwrap().iter().map(line).collect();
        expect![[r#"
            controllerrevisions "ControllerRevision" ["create","delete","deletecollection","get","list","patch","update","watch"]
            daemonsets "DaemonSet" ["ds"] ["create","delete","deletecollection","get","list","patch","update","watch"]
            daemonsets/status "DaemonSet" ["get","patch","update"]
            deployments "Deployment" ["deploy"] ["create","delete","deletecollection","get","list","patch","update","watch"]
            deployments/scale "Scale" "autoscaling" "v1" ["get","patch","update"]
            deployments/status "Deployment" ["get","patch","update"]
            replicasets "ReplicaSet" ["rs"] ["create","delete","deletecollection","get","list","patch","update","watch"]
            replicasets/scale "Scale" "autoscaling" "v1" ["get","patch","update"]
            replicasets/status "ReplicaSet" ["get","patch","update"]
            statefulsets "StatefulSet" ["sts"] ["create","delete","deletecollection","get","list","patch","update","watch"]
            statefulsets/scale "Scale" "autoscaling" "v1" ["get","patch","update"]
            statefulsets/status "StatefulSet" ["get","patch","update"]
        "#]]
        .assert_eq(&lines);
        assert!(resource_list(table::builtin(), "apps", "v2").is_none());
    }

    #[test]
    fn groups_in_order_of_priority() {
        let list = group_list(table::builtin());
        let names: String = list["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| format!("{} ", g["preferredVersion"]["groupVersion"].as_str().unwrap()))
            .collect();
        expect!["apiregistration.k8s.io/v1 apps/v1 events.k8s.io/v1 authentication.k8s.io/v1 authorization.k8s.io/v1 autoscaling/v2 batch/v1 certificates.k8s.io/v1 networking.k8s.io/v1 policy/v1 rbac.authorization.k8s.io/v1 storage.k8s.io/v1 admissionregistration.k8s.io/v1 apiextensions.k8s.io/v1 scheduling.k8s.io/v1 coordination.k8s.io/v1 node.k8s.io/v1 discovery.k8s.io/v1 flowcontrol.apiserver.k8s.io/v1 resource.k8s.io/v1 "].assert_eq(&names);
    }

    #[test]
    fn aggregated_has_the_same_resources() {
        for core in [true, false] {
            let doc = aggregated(table::builtin(), core);
            let count: usize = doc["items"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|g| g["versions"].as_array().unwrap())
                .map(|v| v["resources"].as_array().unwrap().len())
                .sum();
            assert_eq!(count, table::builtin().iter().filter(|i| i.gvr.group.is_empty() == core).count());
        }
        let core = aggregated(table::builtin(), true);
        let pods = &core["items"][0]["versions"][0]["resources"][9];
        assert_eq!(pods["resource"], "pods");
        assert_eq!(pods["subresources"][3]["responseKind"]["kind"], "Eviction");
    }
}
