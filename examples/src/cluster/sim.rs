//! `--mode sim`: API servers, TLS, store and clock are real; nodes are simulated machines with the full node logic.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use icp_core::client::Client;
use icp_core::server::{ApiServer, InProcessClient, UserInfo};
use icp_node::agent::{Kubelet, KubeletConfig};
use icp_node::backend::memory::{Fleet, FleetEvent, MemoryRuntime, SimNode, SimRules};
use icp_node::shell::SimNodes;
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api::Api;
use super::options::Options;
use super::report::Report;
use super::{ClusterError, Manifest, StateDir, apply_manifests, check};
use crate::daemon::apiserver::{self, Store};
use crate::daemon::{Access, DaemonError, controller_manager, scheduler};
use crate::pki::{PkiDir, PkiPlan, private};

/// Where pod networks of nodes are cut from.
pub(crate) const POD_NETWORK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 10));
/// Where ClusterIPs come from.
pub(crate) const SERVICE_NETWORK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16));
/// How long a silent node is borne in a cluster of this program.
pub(crate) const NODE_GRACE_SECS: u64 = 8;

/// A simulated cluster that runs.
pub struct SimCluster {
    /// The API, as an administrator.
    pub api: Api,
    nodes: SimNodes,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    state: StateDir,
}

impl std::fmt::Debug for SimCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimCluster").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The name of worker `i`, counted from 1.
#[must_use]
pub fn worker(i: u16) -> String {
    format!("worker-{i}")
}

/// The labels that the nodes of a cluster of this program carry: ICP's roles.
pub(crate) fn role_labels(config: &mut KubeletConfig, i: u16) {
    let mut role = |name: &str| {
        config.labels.insert(format!("node-role.kubernetes.io/{name}"), String::new());
        config.labels.insert(name.to_string(), "true".into());
    };
    role("worker");
    match i {
        1 => role("proxy"),
        2 => role("management"),
        _ => {}
    }
    config.labels.insert("topology.kubernetes.io/zone".into(), format!("zone-{}", (i - 1) % 3 + 1));
    config.labels.insert("topology.kubernetes.io/region".into(), "lab".into());
}

fn sim_node(i: u16) -> Result<SimNode, DaemonError> {
    let [hi, lo] = i.to_be_bytes();
    let mut config = KubeletConfig::new(&worker(i), IpAddr::from([10, 78, hi, lo]));
    role_labels(&mut config, i);
    config.heartbeat = Duration::from_secs(2);
    // The simulated network gives each node a /24 of its own below 10.128.0.0/10, as the node's podCIDR is.
    let pods = Ipv4Net::new(Ipv4Addr::from(0x0a80_0000 + (u32::from(i) << 8)), 24)
        .map_err(|e| DaemonError::Field { field: "nodes", detail: e.to_string() })?;
    config.pod_cidr = pods.to_string();
    config.facts.cluster_dns = vec!["10.96.0.10".into()];
    Ok(SimNode::new(Kubelet::new(config), MemoryRuntime::new(SimRules::default(), pods.into())))
}

impl SimCluster {
    /// Brings the cluster up: it is ready when all nodes are.
    ///
    /// # Errors
    /// If the store or a certificate cannot be had.
    pub async fn start(
        options: &Options,
        listener: TcpListener,
        report: &Report,
    ) -> Result<Self, ClusterError> {
        let state = StateDir::open(options)?;
        let address = listener.local_addr().map_err(DaemonError::io("listener"))?;
        let plan = PkiPlan {
            apiserver_names: super::apiserver_names(&[address.ip()]),
            etcd_names: vec!["localhost".into()],
            nodes: Vec::new(),
        };
        let now = icp_core::server::Clock::now(&icp_core::shell::SystemClock);
        let pki = PkiDir::create(state.path().join("pki"), &plan, now)?;
        let (tell, stop) = watch::channel(false);
        let store = options.store.clone().unwrap_or(Store::Memory);
        let storage = store.open(Some(&pki), &stop)?;
        let mut tasks = JoinSet::new();

        let nodes = SimNodes::new();
        let mut masters: Vec<ApiServer> = Vec::new();
        for i in 0..options.masters {
            let config = apiserver::Config {
                listen: address,
                store: store.clone(),
                pki: pki.path().into(),
                advertise: vec![address.ip()],
                service_cidr: SERVICE_NETWORK,
            };
            let server = config.server(storage.clone(), Arc::new(nodes.clone()))?;
            if i == 0 {
                let socket = listener.try_clone().map_err(DaemonError::io("listener"))?;
                socket.set_nonblocking(true).map_err(DaemonError::io("listener"))?;
                let socket =
                    tokio::net::TcpListener::from_std(socket).map_err(DaemonError::io("listener"))?;
                let (server, pki, stop) = (server.clone(), pki.clone(), stop.clone());
                tasks.spawn(async move {
                    if let Err(e) = apiserver::serve(socket, server, &pki, stop).await {
                        eprintln!("apiserver: {e}");
                    }
                });
            }
            masters.push(server);
        }
        let admin = pki.authority()?.kubeconfig(
            &format!("https://{address}"),
            "icp",
            "admin",
            &pki.identity("admin")?,
        );
        private(&options.kubeconfig, admin.as_bytes())?;
        report.line("api", &format!("https://{address}, {} API servers on one store", masters.len()));
        report.line("kubeconfig", &options.kubeconfig.display().to_string());

        for (i, server) in masters.iter().enumerate() {
            let identity = format!("master-{}", i + 1);
            let access = Access { endpoints: vec![address.to_string()], pki: pki.path().into() };
            let user = |name: &str| -> Arc<dyn Client> {
                Arc::new(InProcessClient::new(server.clone()).as_user(UserInfo::new(name, &[])))
            };
            let config = controller_manager::Config {
                access: access.clone(),
                identity: identity.clone(),
                leader_election: true,
                cluster_cidr: POD_NETWORK,
                node_cidr_mask: 24,
                node_grace_secs: NODE_GRACE_SECS,
            };
            let (client, stopped) = (user("system:kube-controller-manager"), stop.clone());
            let manager = config.manager(pki.ca_pem()?)?;
            tasks.spawn(async move {
                controller_manager::drive(manager, crate::daemon::seed(), client, stopped).await;
            });
            // Each scheduler has a history of its own; the one that leads has decisions in it.
            let record = options.record.as_ref().map(|path| match options.masters {
                1 => path.clone(),
                _ => PathBuf::from(format!("{}-{identity}", path.display())),
            });
            let config = scheduler::Config {
                access,
                identity,
                record,
                leader_election: true,
                configuration: None,
                listen_metrics: None,
            };
            let (client, stopped) = (user("system:kube-scheduler"), stop.clone());
            tasks.spawn(async move {
                if let Err(e) = scheduler::drive(&config, crate::daemon::seed(), client, stopped).await {
                    eprintln!("scheduler: {e}");
                }
            });
        }

        let fleet = Fleet::new((1..=options.nodes).map(sim_node).collect::<Result<Vec<_>, _>>()?);
        let first = masters.into_iter().next().ok_or(ClusterError::Unsupported("no masters".into()))?;
        let node_client: Arc<dyn Client> = Arc::new(InProcessClient::new(first));
        let (run, stopped) = (nodes.clone(), stop.clone());
        tasks.spawn(async move { run.run(fleet, node_client, stopped).await });

        let admin = Access { endpoints: vec![address.to_string()], pki: pki.path().into() };
        let api = Api(admin.client("admin", "full-cluster")?);
        let cluster = Self { api, nodes, stop: tell, tasks, state };
        super::wait_ready(&cluster.api, usize::from(options.nodes), report).await?;
        Ok(cluster)
    }

    /// Takes a node's power away.
    pub async fn power_off(&self, node: &str) {
        if let Some(fleet) = self.nodes.fleet() {
            fleet.send(FleetEvent::PowerOff { node: node.into() }).await;
        }
    }

    /// Ends all parts.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let end = async { while self.tasks.join_next().await.is_some() {} };
        // What does not end in time ends with the process.
        let _ = tokio::time::timeout(Duration::from_secs(5), end).await;
    }
}

/// Runs a simulated cluster as `options` say; true if what was asked for went well.
///
/// # Errors
/// What kept it from coming up.
pub async fn run(
    options: &Options,
    listener: TcpListener,
    manifests: &[Manifest],
    report: &Report,
) -> Result<bool, ClusterError> {
    report.line(
        "mode",
        &format!("sim: {} masters, {} simulated nodes; no container runs", options.masters, options.nodes),
    );
    for path in &options.load_image {
        report.line("image", &format!("{}: simulated nodes have every image", path.display()));
    }
    let cluster = SimCluster::start(options, listener, report).await?;
    apply_manifests(manifests, &cluster.api, report).await?;
    let passed = if options.check {
        check::sim(&cluster, options, report).await
    } else {
        super::watch(options, &cluster.api, report).await;
        true
    };
    cluster.stop().await;
    Ok(passed)
}
