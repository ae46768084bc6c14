//! Claims, volumes and storage classes that are known.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use icp_core::client::ObjectKey;

use crate::model::{Claim, StorageCapacity, StorageClass, Volume};

/// What is known of storage.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// PersistentVolumeClaims.
    pub claims: BTreeMap<ObjectKey, Claim>,
    /// PersistentVolumes, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// StorageClasses, by name.
    pub classes: BTreeMap<String, StorageClass>,
    /// How many volumes of a driver a node takes (CSINode), by node and driver.
    pub limits: BTreeMap<(String, String), i64>,
    /// How much storage there is for new volumes, where drivers say so (CSIStorageCapacity).
    pub capacities: BTreeMap<ObjectKey, StorageCapacity>,
    /// Drivers that keep count of their storage (CSIDriver with `spec.storageCapacity`).
    pub capacity_drivers: BTreeSet<String>,
}
