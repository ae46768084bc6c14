//! `icp-kubelet`: the node agent on one machine, with the native runtime and the pod network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use icp_core::api::resources;
use icp_core::client::{ApiRequest, Client, Operation, Reply};
use icp_core::shell::{listener, tls};
use icp_net::backend::calico::{NodeNetwork, NodeNetworkConfig};
use icp_net::calico::cni::HostPort;
use icp_net::service::Protocol;
use icp_node::agent::{Kubelet, KubeletConfig, NodeCondition, NodeInfo};
use icp_node::api::{Guard, NodeApi};
use icp_node::backend::native::{Limits, NativeConfig, NativeRuntime, NetworkError, PodNetwork};
use icp_node::runtime::{PodUid, PortMapping, SandboxSpec};
use icp_node::shell::Agent;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop, stopped};
use crate::pki::PkiDir;

/// What a node agent is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// The node's name; it shows the certificates `node-NAME` and `kubelet-NAME`.
    pub node: String,
    /// The node's address.
    pub ip: IpAddr,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// What the machine has, as quantities.
    pub capacity: BTreeMap<String, String>,
    /// Where pods, images and addresses are kept.
    pub root: PathBuf,
    /// The program that the runtime runs as its helper.
    pub helper: PathBuf,
    /// Images to load at the start: docker-archive or OCI layout.
    pub images: Vec<PathBuf>,
    /// The addresses of cluster DNS.
    pub cluster_dns: Vec<String>,
    /// Seconds between heartbeats.
    pub heartbeat_secs: u64,
}

const API_PORT: u16 = 10_250;
/// Between two looks for the node's part of the pod network.
const NETWORK_EVERY: Duration = Duration::from_millis(300);

/// The pod network of Calico's way as the runtime wants it.
struct CalicoNetwork(Arc<NodeNetwork>);

fn host_port(mapping: &PortMapping) -> Result<HostPort, NetworkError> {
    let protocol = match mapping.protocol.as_str() {
        "" | "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => return Err(NetworkError { message: format!("hostPort: no protocol {other:?}") }),
    };
    Ok(HostPort { ip: mapping.host_ip, protocol, port: mapping.host_port, pod_port: mapping.container_port })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, icp_net::backend::calico::NodeNetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| NetworkError { message: e.to_string() })?;
    done.map_err(|e| NetworkError { message: e.to_string() })
}

#[async_trait]
impl PodNetwork for CalicoNetwork {
    async fn attach(
        &self,
        pod: &PodUid,
        netns: &Path,
        spec: &SandboxSpec,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let ports =
            spec.ports.iter().filter(|p| p.host_port != 0).map(host_port).collect::<Result<Vec<_>, _>>()?;
        let (network, pod, netns) = (self.0.clone(), pod.to_string(), netns.to_path_buf());
        blocking(move || {
            let addresses = network.attach(&pod, &netns)?;
            if !ports.is_empty() {
                network.set_host_ports(&pod, &ports)?;
            }
            Ok(addresses)
        })
        .await
    }

    async fn detach(&self, pod: &PodUid, _netns: Option<&Path>) -> Result<(), NetworkError> {
        let (network, pod) = (self.0.clone(), pod.to_string());
        blocking(move || network.detach(&pod)).await
    }
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

/// What the machine says of itself.
fn node_info() -> NodeInfo {
    let release = line("/etc/os-release");
    let os = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    NodeInfo {
        machine_id: line("/etc/machine-id"),
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        os_image: os.trim_matches('"').to_string(),
        container_runtime_version: format!("native://{}", env!("CARGO_PKG_VERSION")),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            other => other.into(),
        },
        ..NodeInfo::default()
    }
}

/// Where pods of this machine get their control groups: beside the group of the machine's own programs, if it has one.
fn cgroup_parent(own: &str) -> Option<String> {
    let memory =
        own.lines().find(|l| l.contains(":memory:")).or_else(|| own.lines().find(|l| l.starts_with("0::")));
    let machine = memory?.rsplit(':').next()?.strip_suffix("/system")?;
    Some(format!("{}/kubepods", machine.trim_start_matches('/')))
}

/// Waits for the part of the pod network that the controllers give this node, and follows it.
async fn learn_pod_network(client: Arc<dyn Client>, node: String, network: Arc<NodeNetwork>) {
    let mut known: Vec<IpNet> = Vec::new();
    loop {
        let request = ApiRequest::object(&resources::NODES, "", &node, Operation::Get);
        if let Ok(Reply::Object(object)) = client.request(request).await {
            let cidrs = object.at("/spec/podCIDRs").and_then(|c| c.as_array().cloned()).unwrap_or_default();
            let nets: Vec<IpNet> = cidrs.iter().filter_map(|c| c.as_str()?.parse().ok()).collect();
            if !nets.is_empty() && nets != known {
                match network.set_pod_networks(&nets) {
                    Ok(()) => known = nets,
                    Err(e) => eprintln!("kubelet: pod network {nets:?}: {e}"),
                }
            }
        }
        let pause = if known.is_empty() { NETWORK_EVERY } else { Duration::from_secs(10) };
        tokio::time::sleep(pause).await;
    }
}

/// Runs until `stop`; pods run on, and are found again at the next start.
///
/// # Errors
/// If a directory, an image, the address or a certificate cannot be had.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let fail = |what: String| move |e: String| DaemonError::Io { what, source: std::io::Error::other(e) };
    let pki = PkiDir::open(&config.access.pki);
    let client = config.access.client(&format!("node-{}", config.node), "kubelet")?;
    let network = NodeNetworkConfig::new(&config.node, config.root.join("network"));
    let network = Arc::new(NodeNetwork::new(network).map_err(|e| fail("pod network".into())(e.to_string()))?);

    let mut native = NativeConfig::new(config.root.join("runtime"), Arc::new(CalicoNetwork(network.clone())));
    native.helper.clone_from(&config.helper);
    native.host_ips = vec![config.ip];
    if let Some(parent) = cgroup_parent(&line("/proc/self/cgroup")) {
        native.cgroup_parent = parent;
    }
    let runtime = NativeRuntime::new(native).await.map_err(|e| fail("runtime".into())(e.to_string()))?;
    for image in &config.images {
        let names = runtime.load_image(image).await;
        let names = names.map_err(|e| fail(format!("image {}", image.display()))(e.to_string()))?;
        eprintln!("kubelet: loaded {}", names.join(", "));
    }

    let mut kubelet = KubeletConfig::new(&config.node, config.ip);
    kubelet.labels.extend(config.labels.clone());
    kubelet.capacity.extend(config.capacity.clone());
    kubelet.info = node_info();
    kubelet.heartbeat = Duration::from_secs(config.heartbeat_secs);
    kubelet.facts.cluster_dns.clone_from(&config.cluster_dns);
    if let Limits::Unavailable(reason) = runtime.limits() {
        kubelet.conditions.push(NodeCondition {
            kind: "ResourceLimitsUnavailable".into(),
            holds: true,
            reason: "NoControlGroups".into(),
            message: format!("limits of containers are not enforced: {reason}"),
        });
    }
    let runtime = Arc::new(runtime);
    let agent = Agent::new(Kubelet::new(kubelet), runtime.clone(), client.clone(), stop.clone());
    let api = NodeApi::new(Arc::new(agent.handle()), runtime);
    let tls = tls::server_mutual(&pki.identity(&format!("kubelet-{}", config.node))?, &pki.ca_pem()?)?;
    let socket = super::listen(SocketAddr::new(config.ip, API_PORT)).await?;
    let serving =
        listener::serve(socket, Guard::new(api), Some(tls), listener::Limits::default(), stop.clone());
    let learning = learn_pod_network(client, config.node.clone(), network);
    tokio::select! {
        done = serving => done.map_err(DaemonError::io("serving")),
        () = agent.run() => Ok(()),
        () = learning => Ok(()),
        () = stopped(stop) => Ok(()),
    }
}
