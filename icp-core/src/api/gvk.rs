//! Names of kinds and resources.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// Group, version and kind: `apps/v1`, `Deployment`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version.
    pub version: Cow<'static, str>,
    /// The kind, in CamelCase.
    pub kind: Cow<'static, str>,
}

/// Group, version and resource: `apps/v1`, `deployments`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvr {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version.
    pub version: Cow<'static, str>,
    /// The resource: the plural in lower case.
    pub resource: Cow<'static, str>,
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { alloc::format!("{group}/{version}") }
}

impl Gvk {
    /// A kind known at compile time.
    #[must_use]
    pub const fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    /// The kind that an object's `apiVersion` and `kind` name.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: String::from(group).into(),
            version: String::from(version).into(),
            kind: String::from(kind).into(),
        }
    }

    /// `group/version`, or `version` in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl Gvr {
    /// A resource known at compile time.
    #[must_use]
    pub const fn new(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            resource: Cow::Borrowed(resource),
        }
    }

    /// `group/version`, or `version` in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The path of the collection: `/api/v1/namespaces/NS/pods`.
    ///
    /// ```
    /// use icp_core::api::resources;
    /// assert_eq!(resources::DEPLOYMENTS.path(Some("default")), "/apis/apps/v1/namespaces/default/deployments");
    /// assert_eq!(resources::NODES.path(None), "/api/v1/nodes");
    /// ```
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let (version, resource) = (self.api_version(), &self.resource);
        match namespace {
            Some(ns) => alloc::format!("{root}/{version}/namespaces/{ns}/{resource}"),
            None => alloc::format!("{root}/{version}/{resource}"),
        }
    }
}

impl fmt::Display for Gvr {
    /// `resource.group`, as upstream messages name a resource.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}
