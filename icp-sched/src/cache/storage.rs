//! Claims, volumes and storage classes that are known.

use alloc::collections::BTreeMap;
use alloc::string::String;

use icp_core::client::ObjectKey;

use crate::model::{Claim, StorageClass, Volume};

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
}
