//! Volumes of a pod, as far as they matter for where it runs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

/// A volume that binds a pod to places, or that places have few of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum VolumeSource {
    /// A claim of the pod's namespace.
    Claim {
        /// The name of the PersistentVolumeClaim.
        name: String,
        /// It is made for this pod (`ephemeral`), so that its owner must be the pod.
        ephemeral: bool,
    },
    /// A disk that one node at a time writes (GCE PD, AWS EBS, iSCSI, RBD): two pods conflict on one node unless
    /// both read only.
    Exclusive {
        /// What identifies the disk.
        id: String,
        /// It is only read.
        read_only: bool,
        /// Readers may share it.
        shares_reads: bool,
    },
    /// A volume of a driver, inline in the pod.
    Csi {
        /// The driver.
        driver: String,
    },
}

/// The volumes that matter, of a pod of that name (`k8s.io/api/core/v1.Volume`).
pub(super) fn of(volumes: &[Value], pod: &str) -> Vec<VolumeSource> {
    let mut found: Vec<VolumeSource> = volumes.iter().filter_map(|v| source(v, pod)).collect();
    found.sort();
    found.dedup();
    found
}

fn source(volume: &Value, pod: &str) -> Option<VolumeSource> {
    let text = |p: &str| volume.pointer(p).and_then(Value::as_str).unwrap_or("");
    let flag = |p: &str| volume.pointer(p).and_then(Value::as_bool).unwrap_or(false);
    if volume.get("persistentVolumeClaim").is_some() {
        return Some(VolumeSource::Claim {
            name: text("/persistentVolumeClaim/claimName").into(),
            ephemeral: false,
        });
    }
    if volume.get("ephemeral").is_some() {
        return Some(VolumeSource::Claim { name: format!("{pod}-{}", text("/name")), ephemeral: true });
    }
    if volume.get("csi").is_some() {
        return Some(VolumeSource::Csi { driver: text("/csi/driver").into() });
    }
    let exclusive =
        |id: String, read_only, shares_reads| Some(VolumeSource::Exclusive { id, read_only, shares_reads });
    if volume.get("gcePersistentDisk").is_some() {
        let id = format!("gce/{}", text("/gcePersistentDisk/pdName"));
        return exclusive(id, flag("/gcePersistentDisk/readOnly"), true);
    }
    if volume.get("awsElasticBlockStore").is_some() {
        return exclusive(format!("aws/{}", text("/awsElasticBlockStore/volumeID")), false, false);
    }
    if volume.get("iscsi").is_some() {
        return exclusive(format!("iscsi/{}", text("/iscsi/iqn")), flag("/iscsi/readOnly"), true);
    }
    None
}
