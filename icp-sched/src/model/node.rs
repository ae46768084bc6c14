//! Nodes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::api::{Object, Quantity};

use super::raw;
use super::{ModelError, Resources, Taint};

/// A container image that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its names, with tag or digest.
    pub names: Vec<String>,
    /// Its size, in bytes.
    pub bytes: i64,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The taints, in the order of the object.
    pub taints: Vec<Taint>,
    /// No new pods (`kubectl cordon`).
    pub unschedulable: bool,
    /// What pods may ask for in all.
    pub allocatable: Resources,
    /// How many pods there may be.
    pub pods_max: i64,
    /// The images that the node holds.
    pub images: Vec<Image>,
    /// What its kubelet declares that it can do (`status.declaredFeatures`).
    pub features: BTreeSet<String>,
}

impl Node {
    /// A node of so much CPU (thousandths), memory (bytes) and room for so many pods, labelled with its name.
    #[must_use]
    pub fn new(name: &str, cpu: i64, memory: i64, pods_max: i64) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::from([("kubernetes.io/hostname".into(), name.into())]),
            allocatable: Resources { cpu, memory, ..Resources::default() },
            pods_max,
            ..Self::default()
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Reads a v1 Node.
    ///
    /// # Errors
    /// If `spec` or `status` does not have the form of a node's.
    pub fn from_object(object: &Object) -> Result<Self, ModelError> {
        let fail = |part: &'static str| {
            move |e: serde_json::Error| ModelError::Decode {
                object: object.key(),
                part,
                message: e.to_string(),
            }
        };
        let spec: raw::NodeSpec = object.view("spec").map_err(fail("spec"))?;
        let status: raw::NodeStatus = object.view("status").map_err(fail("status"))?;
        let images = status.images.into_iter().map(|i| Image { names: i.names, bytes: i.size_bytes });
        Ok(Self {
            name: object.metadata.name.clone(),
            labels: object.metadata.labels.clone(),
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            allocatable: Resources::of(&status.allocatable),
            pods_max: status.allocatable.get("pods").copied().map_or(0, Quantity::value),
            images: images.collect(),
            features: status.declared_features.into_iter().collect(),
        })
    }
}
