//! Claims, volumes and storage classes, as far as placement goes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::labels::{Op, Requirement, Selector};
use icp_core::api::{Object, Quantity};
use icp_core::client::ObjectKey;
use serde_json::Value;

use super::NodeTerm;

/// The annotation that says that a claim's binding is complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation by which the scheduler asks for a volume for a node.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The volume that it names; empty if none.
    pub volume: String,
    /// The binding is complete.
    pub bound: bool,
    /// The storage class; empty if none.
    pub class: String,
    /// How many bytes it asks for.
    pub bytes: i64,
    /// The access modes that it asks for.
    pub modes: BTreeSet<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// Which volumes it takes; `None` for any.
    pub selector: Option<Selector>,
    /// The node that a volume was asked for.
    pub selected_node: String,
    /// It was lost with its volume.
    pub lost: bool,
    /// Deletion was asked for.
    pub terminating: bool,
    /// The uids of its owners.
    pub owners: BTreeSet<String>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its labels: zone and region may stand there.
    pub labels: BTreeMap<String, String>,
    /// The storage class; empty if none.
    pub class: String,
    /// How many bytes it has.
    pub bytes: i64,
    /// The access modes that it offers.
    pub modes: BTreeSet<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// The nodes that reach it; `None` for all.
    pub nodes: Option<Vec<NodeTerm>>,
    /// The claim that it is kept for.
    pub claim: Option<ObjectKey>,
    /// It can be taken: it is neither bound nor going.
    pub available: bool,
    /// The driver and the handle, of volumes of drivers.
    pub csi: Option<(String, String)>,
}

/// A StorageClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageClass {
    /// What makes volumes of this class.
    pub provisioner: String,
    /// A volume is made or bound when a pod that wants it has a node (`WaitForFirstConsumer`).
    pub waits: bool,
    /// Where volumes can be made; `None` for everywhere.
    pub topologies: Option<Vec<NodeTerm>>,
}

/// A CSIStorageCapacity: storage in which volumes of a class can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageCapacity {
    /// The storage class.
    pub class: String,
    /// The nodes that reach it; `None` for none.
    pub nodes: Option<Selector>,
    /// How many bytes are free, if that is known.
    pub bytes: Option<i64>,
    /// The largest volume that can be made, if that is known.
    pub volume_max: Option<i64>,
}

impl StorageCapacity {
    /// Reads a storage.k8s.io/v1 CSIStorageCapacity. A selector that is not valid matches nothing.
    #[must_use]
    pub fn from_object(object: &Object) -> Self {
        let amount = |p: &str| object.at(p).and_then(|v| Quantity::from_value(v).ok()).map(Quantity::value);
        let topology = object.at("/nodeTopology").filter(|v| !v.is_null());
        Self {
            class: object.str_at("/storageClassName").into(),
            nodes: topology.map(|v| Selector::from_label_selector(v).unwrap_or_else(|_| Selector::nothing())),
            bytes: amount("/capacity"),
            volume_max: amount("/maximumVolumeSize"),
        }
    }

    /// The largest volume that finds room, if that is known.
    #[must_use]
    pub const fn largest(&self) -> Option<i64> {
        if self.volume_max.is_some() { self.volume_max } else { self.bytes }
    }
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| Some(v.as_str()?.into()))
}

fn bytes(object: &Object, pointer: &str) -> i64 {
    object.at(pointer).and_then(|v| Quantity::from_value(v).ok()).map_or(0, Quantity::value)
}

fn mode(object: &Object) -> String {
    match object.str_at("/spec/volumeMode") {
        "" => "Filesystem".into(),
        mode => mode.into(),
    }
}

fn requirements(list: Option<&Value>, values: &str) -> Option<Vec<Requirement>> {
    let each = list.and_then(Value::as_array).into_iter().flatten().map(|r| {
        let text = |name: &str| r.get(name).and_then(Value::as_str).unwrap_or("");
        let op = match text("operator") {
            "" | "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            "Gt" => Op::Gt,
            "Lt" => Op::Lt,
            _ => return None,
        };
        Requirement::new(text("key"), op, texts(r.get(values)).collect()).ok()
    });
    each.collect()
}

/// Terms; one that is not valid matches nothing.
fn terms(list: Option<&Value>, labels: &str, values: &str) -> Option<Vec<NodeTerm>> {
    let list = list?.as_array()?;
    Some(
        list.iter()
            .map(|t| NodeTerm {
                labels: requirements(t.get(labels), values).unwrap_or_default(),
                names: requirements(t.get("matchFields"), values).unwrap_or_default(),
            })
            .collect(),
    )
}

impl Claim {
    /// Reads a v1 PersistentVolumeClaim.
    #[must_use]
    pub fn from_object(object: &Object) -> Self {
        let meta = &object.metadata;
        let selector = object.at("/spec/selector").filter(|v| !v.is_null());
        Self {
            volume: object.str_at("/spec/volumeName").into(),
            bound: meta.annotations.contains_key(BIND_COMPLETED),
            class: object.str_at("/spec/storageClassName").into(),
            bytes: bytes(object, "/spec/resources/requests/storage"),
            modes: texts(object.at("/spec/accessModes")).collect(),
            volume_mode: mode(object),
            selector: selector
                .map(|v| Selector::from_label_selector(v).unwrap_or_else(|_| Selector::nothing())),
            selected_node: meta.annotations.get(SELECTED_NODE).cloned().unwrap_or_default(),
            lost: object.str_at("/status/phase") == "Lost",
            terminating: object.is_terminating(),
            owners: meta.owner_references.iter().map(|o| o.uid.clone()).collect(),
        }
    }

    /// Whether its volume is there.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.bound
    }
}

impl Volume {
    /// Reads a v1 PersistentVolume.
    #[must_use]
    pub fn from_object(object: &Object) -> Self {
        let claim = object.at("/spec/claimRef").filter(|v| !v.is_null());
        let phase = object.str_at("/status/phase");
        let csi = object.at("/spec/csi").is_some();
        Self {
            labels: object.metadata.labels.clone(),
            class: object.str_at("/spec/storageClassName").into(),
            bytes: bytes(object, "/spec/capacity/storage"),
            modes: texts(object.at("/spec/accessModes")).collect(),
            volume_mode: mode(object),
            nodes: terms(
                object.at("/spec/nodeAffinity/required/nodeSelectorTerms"),
                "matchExpressions",
                "values",
            ),
            claim: claim.map(|_| {
                ObjectKey::new(
                    object.str_at("/spec/claimRef/namespace"),
                    object.str_at("/spec/claimRef/name"),
                )
            }),
            available: matches!(phase, "" | "Available" | "Pending") && !object.is_terminating(),
            csi: csi.then(|| {
                (object.str_at("/spec/csi/driver").into(), object.str_at("/spec/csi/volumeHandle").into())
            }),
        }
    }
}

impl StorageClass {
    /// Reads a v1 StorageClass.
    #[must_use]
    pub fn from_object(object: &Object) -> Self {
        Self {
            provisioner: object.str_at("/provisioner").into(),
            waits: object.str_at("/volumeBindingMode") == "WaitForFirstConsumer",
            topologies: terms(object.at("/allowedTopologies"), "matchLabelExpressions", "values")
                .filter(|t| !t.is_empty()),
        }
    }
}
