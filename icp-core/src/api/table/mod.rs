//! The one table of resources that routing, discovery, decoding, validation and printing read.
//!
//! Built-in kinds stand in [`builtin`]; a custom resource definition adds [`ResourceInfo`] values of the same
//! shape with [`SchemaSource::Custom`].
//!
//! ```
//! use icp_core::api::table;
//! let deployments = table::find("apps", "v1", "deployments").unwrap();
//! assert_eq!(deployments.kind, "Deployment");
//! assert!(deployments.subresource("scale").is_some());
//! assert_eq!(deployments.storage_prefix, "/registry/apps/deployments/");
//! ```

mod crd;
mod rows;
pub mod strategy;

pub use crd::from_crd;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use once_cell::race::OnceBox;
use serde_json::Value;

use super::schema::Schema;
use super::{Gvk, Gvr};

/// Everything the API server must know about one resource of one version.
#[derive(Clone, Debug)]
pub struct ResourceInfo {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// The kind of one object.
    pub kind: String,
    /// The kind of a list.
    pub list_kind: String,
    /// The singular in lower case.
    pub singular: String,
    /// What kubectl accepts instead of the plural.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The verbs that the resource supports, sorted.
    pub verbs: Vec<String>,
    /// The subresources, sorted by name.
    pub subresources: Vec<SubresourceInfo>,
    /// The prefix of the storage keys, with a `/` at the end: `/registry/pods/`, `/registry/apps/deployments/`.
    /// Versions and groups that share objects (events; autoscaling v1 and v2) share it.
    pub storage_prefix: String,
    /// The kind that is stored; differs from [`ResourceInfo::gvk`] where versions share objects.
    pub storage_gvk: Gvk,
    /// Where the schema stands.
    pub schema: SchemaSource,
    /// How writes treat fields that the server owns.
    pub strategy: Strategy,
    /// `additionalPrinterColumns` of a custom resource; empty for built-in ones, whose columns are in code.
    pub printer_columns: Vec<Value>,
    /// `selectableFields` of a custom resource, without the leading dot.
    pub selectable_fields: Vec<String>,
    /// Where a custom resource keeps what its `scale` subresource shows; without, where built-in ones do.
    pub scale_paths: Option<ScalePaths>,
}

/// `spec.versions[].subresources.scale` of a definition; paths are of the form `.spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalePaths {
    /// `specReplicasPath`.
    pub spec_replicas: String,
    /// `statusReplicasPath`.
    pub status_replicas: String,
    /// `labelSelectorPath`, of a selector in its text form; may be empty.
    pub label_selector: String,
}

/// Where a resource's schema stands.
#[derive(Clone, Debug)]
pub enum SchemaSource {
    /// In the built-in table, at this place.
    Builtin(Schema<'static>),
    /// An OpenAPI v3 structural schema (`spec.versions[].schema.openAPIV3Schema`).
    Custom(Arc<Value>),
}

/// One subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// `status`, `scale`, ...
    pub name: String,
    /// The kind that requests and answers speak.
    pub gvk: Gvk,
    /// The verbs that it supports, sorted.
    pub verbs: Vec<String>,
}

/// How writes treat fields that the server owns (`registry/rest` strategies upstream).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent rule of the resource")]
pub struct Strategy {
    /// The resource has a `status` that only the `status` subresource writes.
    pub status: bool,
    /// `metadata.generation` starts at 1 and counts changes outside metadata and status.
    pub generation: bool,
    /// A PUT of an object that does not exist creates it.
    pub create_on_update: bool,
    /// A PUT must carry a resourceVersion.
    pub conditional_update: bool,
    /// Deletion passes through a grace period (pods).
    pub graceful: bool,
}

impl ResourceInfo {
    /// Group, version and kind of one object.
    #[must_use]
    pub fn gvk(&self) -> Gvk {
        Gvk {
            group: self.gvr.group.clone(),
            version: self.gvr.version.clone(),
            kind: self.kind.clone().into(),
        }
    }

    /// `group/version`, or `version` in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.gvr.api_version()
    }

    /// `resource.group`, as messages name it (`deployments.apps`, `pods`).
    #[must_use]
    pub fn group_resource(&self) -> String {
        self.gvr.to_string()
    }

    /// `Kind.group`, as messages of invalid objects name it (`Deployment.apps`, `Pod`).
    #[must_use]
    pub fn group_kind(&self) -> String {
        if self.gvr.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.gvr.group)
        }
    }

    /// Whether the resource supports a verb.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// A subresource by name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&SubresourceInfo> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The storage key of one object; `namespace` is ignored for cluster-scoped resources.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.storage_prefix)
        } else {
            format!("{}{name}", self.storage_prefix)
        }
    }

    /// The prefix of the storage keys of a collection; `None` and the empty namespace mean all namespaces.
    #[must_use]
    pub fn key_prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(ns) if self.namespaced && !ns.is_empty() => format!("{}{ns}/", self.storage_prefix),
            _ => self.storage_prefix.clone(),
        }
    }

    /// The schema of one object.
    #[must_use]
    pub fn schema(&self) -> Schema<'_> {
        match &self.schema {
            SchemaSource::Builtin(schema) => *schema,
            SchemaSource::Custom(value) => Schema::Open(value),
        }
    }

    /// Whether the resource comes from a custom resource definition.
    #[must_use]
    pub fn is_custom(&self) -> bool {
        matches!(self.schema, SchemaSource::Custom(_))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|w| !w.is_empty()).map(ToString::to_string).collect()
}

fn static_gvk(group_version: &'static str, kind: &'static str) -> Gvk {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    Gvk::new(group, version, kind)
}

fn subresource(row: &rows::Row, name: &str) -> SubresourceInfo {
    if name == "proxy" {
        return SubresourceInfo {
            name: name.into(),
            gvk: Gvk::of("v1", &format!("{}ProxyOptions", row.kind)),
            verbs: words("create,delete,get,patch,update"),
        };
    }
    let found = rows::SUBRESOURCES.iter().find(|s| s.0 == name);
    let (_, gv, kind, verbs) = found.copied().unwrap_or((name, "", "", ""));
    let gvk = if kind.is_empty() { static_gvk(row.group_version, row.kind) } else { static_gvk(gv, kind) };
    SubresourceInfo { name: name.into(), gvk, verbs: words(verbs) }
}

fn info(row: &rows::Row) -> ResourceInfo {
    let gvk = static_gvk(row.group_version, row.kind);
    let (group, version) = row.group_version.split_once('/').unwrap_or(("", row.group_version));
    let flag = |f: char| row.flags.contains(f);
    // Events of both groups are one set of objects, and so are the autoscalers of both versions.
    let (storage, storage_gvk) = match (group, row.resource) {
        ("events.k8s.io", "events") => ("events".to_string(), Gvk::new("", "v1", "Event")),
        ("autoscaling", r) => {
            (format!("autoscaling/{r}"), Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler"))
        }
        ("", r) => (r.to_string(), gvk.clone()),
        (g, r) => (format!("{g}/{r}"), gvk.clone()),
    };
    ResourceInfo {
        gvr: Gvr::new(group, version, row.resource),
        kind: row.kind.into(),
        list_kind: format!("{}List", row.kind),
        singular: row.kind.to_ascii_lowercase(),
        short_names: words(row.short_names),
        categories: words(row.categories),
        namespaced: flag('N'),
        verbs: words(row.verbs),
        subresources: row
            .subresources
            .split(',')
            .filter(|s| !s.is_empty())
            .map(|s| subresource(row, s))
            .collect(),
        storage_prefix: format!("/registry/{storage}/"),
        storage_gvk,
        schema: SchemaSource::Builtin(Schema::of(&gvk)),
        strategy: Strategy {
            status: flag('S'),
            generation: flag('G'),
            create_on_update: flag('C'),
            conditional_update: flag('R'),
            graceful: flag('T'),
        },
        printer_columns: Vec::new(),
        selectable_fields: Vec::new(),
        scale_paths: None,
    }
}

/// Every built-in resource, in the order of discovery.
#[must_use]
pub fn builtin() -> &'static [Arc<ResourceInfo>] {
    static TABLE: OnceBox<Vec<Arc<ResourceInfo>>> = OnceBox::new();
    TABLE.get_or_init(|| Box::new(rows::ROWS.iter().map(|r| Arc::new(info(r))).collect()))
}

/// A built-in resource by its plural.
#[must_use]
pub fn find(group: &str, version: &str, resource: &str) -> Option<&'static Arc<ResourceInfo>> {
    builtin().iter().find(|i| i.gvr.resource == resource && i.gvr.group == group && i.gvr.version == version)
}

/// A built-in resource by its kind.
#[must_use]
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<ResourceInfo>> {
    builtin().iter().find(|i| i.kind == kind && i.gvr.group == group && i.gvr.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for i in builtin() {
            assert!(i.verbs.is_sorted(), "{}", i.gvr);
            assert!(i.subresources.is_sorted_by(|a, b| a.name < b.name), "{}", i.gvr);
            assert!(i.subresources.iter().all(|s| !s.verbs.is_empty()), "{}", i.gvr);
            assert_eq!(i.strategy.status, i.subresource("status").is_some(), "{}", i.gvr);
        }
    }

    #[test]
    fn shared_objects_share_keys() {
        let core = find("", "v1", "events").unwrap();
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(core.key("a", "b"), events.key("a", "b"));
        assert_eq!(find("", "v1", "nodes").unwrap().key("ignored", "n"), "/registry/nodes/n");
        assert_eq!(core.key_prefix(Some("a")), "/registry/events/a/");
    }
}
