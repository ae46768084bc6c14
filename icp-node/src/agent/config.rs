//! What a node agent is told at its start.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::base::Duration;
use serde_json::Value;

use crate::resolve::NodeFacts;
use crate::status::parse_quantity;

/// A condition of the node beside the usual four, such as one that tells of a missing privilege.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCondition {
    /// The type.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// `status.nodeInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's uuid.
    pub system_uuid: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// Such as `native://0.1.0`.
    pub container_runtime_version: String,
    /// Such as `v1.37.0`.
    pub kubelet_version: String,
    /// `linux`.
    pub operating_system: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
}

impl Default for NodeInfo {
    fn default() -> Self {
        Self {
            machine_id: String::new(),
            system_uuid: String::new(),
            boot_id: String::new(),
            kernel_version: String::new(),
            os_image: String::new(),
            container_runtime_version: alloc::format!("memory://{}", env!("CARGO_PKG_VERSION")),
            kubelet_version: "v1.37.0".into(),
            operating_system: "linux".into(),
            architecture: "amd64".into(),
        }
    }
}

/// What a node agent is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeletConfig {
    /// The node's name, addresses and resolver configuration.
    pub facts: NodeFacts,
    /// Labels of the node's object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the node's object.
    pub annotations: BTreeMap<String, String>,
    /// Taints of a node that registers for the first time, as they stand in `spec.taints`.
    pub taints: Vec<Value>,
    /// `spec.podCIDR` of a node that registers for the first time; empty to leave it to a controller.
    pub pod_cidr: String,
    /// What the machine has, as quantities: `cpu`, `memory`, `pods`, `ephemeral-storage`.
    pub capacity: BTreeMap<String, String>,
    /// What of it is kept from pods, as quantities.
    pub reserved: BTreeMap<String, String>,
    /// `status.nodeInfo`.
    pub info: NodeInfo,
    /// The port of the agent's HTTP API.
    pub api_port: u16,
    /// Conditions beside the usual four.
    pub conditions: Vec<NodeCondition>,
    /// Follow services and tell containers of them by environment variables.
    pub service_links: bool,
    /// Between renewals of the Lease.
    pub heartbeat: Duration,
    /// Seconds that the Lease holds.
    pub lease_seconds: u32,
    /// Between reports of an unchanged node status.
    pub report_every: Duration,
    /// The root of the agent's random choices (jitter, names of events).
    pub seed: u64,
}

impl KubeletConfig {
    /// A node with 4 cores, 8 GiB and 110 pods, the usual times and no labels but its own.
    #[must_use]
    pub fn new(name: &str, ip: IpAddr) -> Self {
        let capacity = [("cpu", "4"), ("memory", "8Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")];
        let labels = [
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", "amd64"),
        ];
        let own = |list: &[(&str, &str)]| {
            list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>()
        };
        let mut seed = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self {
            facts: NodeFacts {
                name: name.into(),
                ips: alloc::vec![ip],
                cluster_domain: "cluster.local".into(),
                ..NodeFacts::default()
            },
            labels: own(&labels),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            pod_cidr: String::new(),
            capacity: own(&capacity),
            reserved: BTreeMap::new(),
            info: NodeInfo::default(),
            api_port: 10250,
            conditions: Vec::new(),
            service_links: true,
            heartbeat: Duration::from_secs(10),
            lease_seconds: 40,
            report_every: Duration::from_secs(300),
            seed,
        }
    }

    /// What pods may use: capacity less what is reserved, in thousandths of each resource's unit. A quantity that
    /// cannot be parsed counts as nothing.
    #[must_use]
    pub fn allocatable_millis(&self) -> BTreeMap<String, i64> {
        let millis = |text: &String| {
            parse_quantity(&crate::pod::QuantityText::Text(text.clone())).map_or(0, |q| q.millis())
        };
        let of = |(name, text): (&String, &String)| {
            let kept = self.reserved.get(name).map_or(0, millis);
            (name.clone(), millis(text).saturating_sub(kept).max(0))
        };
        self.capacity.iter().map(of).collect()
    }
}
