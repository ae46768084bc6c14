//! `--mode real`: machines are namespaces, containers are processes, services are nftables rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::Api;
use super::options::{Options, RuntimeKind};
use super::report::Report;
use super::sim::{NODE_GRACE_SECS, POD_NETWORK, SERVICE_NETWORK, role_labels, worker};
use super::{ClusterError, Manifest, StateDir, apply_manifests, at, check};
use crate::daemon::apiserver::{self, Store};
use crate::daemon::{
    Access, DaemonError, Role, calico_node, controller_manager, dns, etcd, kubelet, proxy, scheduler, vip,
};
use crate::lab::{Lab, LabConfig, LabError, LabEvent, LabHandle, MachineSpec, Place, Relay, Spawn};
use crate::pki::{PkiDir, PkiPlan, private};

/// The address that the masters share.
pub(crate) const MASTER_VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The address that the proxy nodes share.
const PROXY_VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
const STORE: &str = "store";
const STORE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const API_PORT: u16 = 6443;
const STORE_PORT: u16 = 2379;
const CLUSTER_DNS: &str = "10.96.0.10";
/// Pause before a daemon that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// Workers whose addresses fit beside the masters'.
const WORKERS_MAX: u16 = 100;

/// The name of master `i`, counted from 1.
#[must_use]
pub fn master(i: u16) -> String {
    format!("master-{i}")
}

fn address(base: u8, i: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, base.saturating_add(u8::try_from(i).unwrap_or(u8::MAX)))
}

fn master_address(i: u16) -> Ipv4Addr {
    address(10, i)
}

fn worker_address(i: u16) -> Ipv4Addr {
    address(110, i)
}

impl From<LabError> for ClusterError {
    fn from(e: LabError) -> Self {
        Self::Unsupported(e.to_string())
    }
}

/// A cluster of machines that runs.
pub struct RealCluster {
    /// The API, as an administrator, through the virtual address.
    pub api: Api,
    /// The machines.
    pub lab: LabHandle,
    /// How the API is reached from this process.
    pub access: Access,
    /// Where certificates, configurations and logs are.
    pub state: Arc<StateDir>,
    /// The masters.
    pub masters: Vec<String>,
    /// The workers.
    pub workers: Vec<String>,
    /// The roles of each machine, by name.
    roles: Arc<BTreeMap<String, Vec<(String, Role)>>>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for RealCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealCluster").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What of the cluster is decided before any machine is made.
struct Design<'a> {
    options: &'a Options,
    state: PathBuf,
    pki: PathBuf,
    program: PathBuf,
    store: Store,
    has_store_machine: bool,
}

impl Design<'_> {
    fn access(&self, host: Ipv4Addr) -> Access {
        Access { endpoints: vec![format!("{host}:{API_PORT}")], pki: self.pki.clone() }
    }

    fn master_roles(&self, i: u16) -> Vec<(String, Role)> {
        let (name, own) = (master(i), master_address(i));
        let skew = u8::try_from(i).unwrap_or(u8::MAX).saturating_mul(8).saturating_add(20);
        vec![
            (
                "apiserver".into(),
                Role::Apiserver(apiserver::Config {
                    listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), API_PORT),
                    store: self.store.clone(),
                    pki: self.pki.clone(),
                    advertise: vec![MASTER_VIP.into()],
                    service_cidr: SERVICE_NETWORK,
                }),
            ),
            (
                "controller-manager".into(),
                Role::ControllerManager(controller_manager::Config {
                    access: self.access(own),
                    identity: name.clone(),
                    leader_election: true,
                    cluster_cidr: POD_NETWORK,
                    node_cidr_mask: 24,
                    node_grace_secs: NODE_GRACE_SECS,
                }),
            ),
            (
                "scheduler".into(),
                Role::Scheduler(scheduler::Config {
                    access: self.access(own),
                    identity: name.clone(),
                    leader_election: true,
                    configuration: None,
                    listen_metrics: Some(scheduler::METRICS),
                    record: None,
                }),
            ),
            (
                "vip".into(),
                Role::Vip(vip::Config {
                    interface: "eth0".into(),
                    vip: MASTER_VIP,
                    source: own,
                    vhid: 1,
                    password: "icp-masters".into(),
                    advbase_secs: 0,
                    advskew: skew,
                    healthy_if: Some(self.access(own)),
                }),
            ),
            (
                "calico-node".into(),
                Role::CalicoNode(calico_node::Config {
                    access: self.access(own),
                    // A master is no Node: its agent only reads Nodes, as kube-proxy may.
                    identity: "proxy".into(),
                    node: name,
                    is_node: false,
                    cluster_cidr: POD_NETWORK,
                }),
            ),
        ]
    }

    fn worker_roles(&self, i: u16) -> Result<Vec<(String, Role)>, ClusterError> {
        let (name, own) = (worker(i), worker_address(i));
        let access = self.access(MASTER_VIP);
        let mut labels = icp_node::agent::KubeletConfig::new(&name, own.into());
        role_labels(&mut labels, i);
        let images = self
            .options
            .load_image
            .iter()
            .map(|p| p.canonicalize().map_err(at(p)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut roles = vec![
            (
                "kubelet".to_string(),
                Role::Kubelet(kubelet::Config {
                    access: access.clone(),
                    node: name.clone(),
                    ip: own.into(),
                    labels: labels.labels,
                    capacity: capacity(self.options.nodes),
                    root: "/var/lib/icp/kubelet".into(),
                    helper: self.program.clone(),
                    images,
                    cluster_dns: vec![CLUSTER_DNS.into()],
                    heartbeat_secs: 2,
                }),
            ),
            (
                "proxy".into(),
                Role::Proxy(proxy::Config {
                    access: access.clone(),
                    node: name.clone(),
                    cluster_cidr: POD_NETWORK,
                    service_cidr: SERVICE_NETWORK,
                }),
            ),
            (
                "calico-node".into(),
                Role::CalicoNode(calico_node::Config {
                    access: access.clone(),
                    identity: format!("node-{name}"),
                    node: name,
                    is_node: true,
                    cluster_cidr: POD_NETWORK,
                }),
            ),
            (
                "dns".into(),
                Role::Dns(dns::Config {
                    access,
                    listen: SocketAddr::new(own.into(), 53),
                    domain: "cluster.local".into(),
                    upstreams: Vec::new(),
                }),
            ),
        ];
        if self.options.proxy_vip {
            let skew = u8::try_from(i).unwrap_or(u8::MAX).saturating_mul(2).saturating_add(20);
            roles.push((
                "vip".into(),
                Role::Vip(vip::Config {
                    interface: "eth0".into(),
                    vip: PROXY_VIP,
                    source: own,
                    vhid: 2,
                    password: "icp-proxies".into(),
                    advbase_secs: 0,
                    advskew: skew,
                    healthy_if: None,
                }),
            ));
        }
        Ok(roles)
    }

    fn roles(&self) -> Result<BTreeMap<String, Vec<(String, Role)>>, ClusterError> {
        let mut roles = BTreeMap::new();
        if self.has_store_machine {
            let listen = SocketAddr::new(STORE_ADDRESS.into(), STORE_PORT);
            let data_dir = match &self.options.store {
                Some(Store::Disk(dir)) => std::path::absolute(dir).map_err(at(dir))?,
                _ => "/var/lib/icp/etcd".into(),
            };
            let etcd = Role::Etcd(etcd::Config::new(listen, data_dir, self.pki.clone()));
            roles.insert(STORE.into(), vec![("etcd".into(), etcd)]);
        }
        for i in 1..=self.options.masters {
            roles.insert(master(i), self.master_roles(i));
        }
        for i in 1..=self.options.nodes {
            roles.insert(worker(i), self.worker_roles(i)?);
        }
        Ok(roles)
    }
}

/// What a worker says it has: all cores, and its part of the memory.
fn capacity(nodes: u16) -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(1 << 20);
    let memory = format!("{}Ki", kib / u64::from(nodes.max(1)));
    [("cpu".to_string(), cores.to_string()), ("memory".into(), memory)].into()
}

/// Copies connections from a listener in the lab to an address of this machine, for a store outside of it.
async fn carry(listener: tokio::net::TcpListener, to: String) {
    loop {
        let Ok((mut inside, _)) = listener.accept().await else {
            tokio::time::sleep(RESTART_PAUSE).await;
            continue;
        };
        let to = to.clone();
        tokio::spawn(async move {
            match tokio::net::TcpStream::connect(&to).await {
                Ok(mut outside) => {
                    // Either side may break the connection; the client connects again.
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                }
                Err(e) => eprintln!("store {to}: {e}"),
            }
        });
    }
}

fn host_of(url: &str) -> Result<(&str, &str), ClusterError> {
    let refuse = || {
        ClusterError::Unsupported(format!("--store etcd:{url}: not http://HOST:PORT or https://HOST:PORT"))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(refuse)?;
    if !matches!(scheme, "http" | "https") || !rest.contains(':') {
        return Err(refuse());
    }
    Ok((scheme, rest.trim_end_matches('/')))
}

impl RealCluster {
    async fn spawn_role(
        lab: &LabHandle,
        state: &StateDir,
        machine: &str,
        name: &str,
    ) -> Result<(), LabError> {
        let file = state.path().join("etc").join(format!("{machine}-{name}.json"));
        let spawn = Spawn::role("daemon").arg(file.display().to_string()).named(name);
        lab.spawn(machine, spawn).await.map(|_| ())
    }

    /// Powers a machine on and starts its daemons.
    ///
    /// # Errors
    /// If the machine is on, or one of its daemons cannot be started.
    pub async fn power_on(&self, machine: &str) -> Result<(), LabError> {
        Self::boot(&self.lab, &self.state, &self.roles, machine).await
    }

    async fn boot(
        lab: &LabHandle,
        state: &StateDir,
        roles: &BTreeMap<String, Vec<(String, Role)>>,
        machine: &str,
    ) -> Result<(), LabError> {
        lab.power_on(machine).await?;
        for (name, _) in roles.get(machine).into_iter().flatten() {
            Self::spawn_role(lab, state, machine, name).await?;
        }
        Ok(())
    }

    /// Starts daemons again that ended, as an init system does.
    async fn supervise(
        lab: LabHandle,
        state: Arc<StateDir>,
        roles: Arc<BTreeMap<String, Vec<(String, Role)>>>,
    ) {
        let mut events = lab.events();
        loop {
            match events.recv().await {
                Ok(LabEvent::Exited { machine, process, .. }) => {
                    let ours = roles.get(&machine).is_some_and(|all| all.iter().any(|(n, _)| *n == process));
                    if !ours {
                        continue;
                    }
                    let (lab, state) = (lab.clone(), state.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(RESTART_PAUSE).await;
                        if lab.is_on(&machine) {
                            // A machine that went off meanwhile starts its daemons when it comes back.
                            let _ = Self::spawn_role(&lab, &state, &machine, &process).await;
                        }
                    });
                }
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    async fn start(
        options: &Options,
        lab: LabHandle,
        state: Arc<StateDir>,
        design: &Design<'_>,
        listen: SocketAddr,
        report: &Report,
    ) -> Result<Self, ClusterError> {
        let roles = Arc::new(design.roles()?);
        let etc = state.path().join("etc");
        std::fs::create_dir_all(&etc).map_err(at(&etc))?;
        for (machine, roles) in roles.iter() {
            for (name, role) in roles {
                let file = etc.join(format!("{machine}-{name}.json"));
                let text = serde_json::to_vec_pretty(role).map_err(|e| at(&file)(e.into()))?;
                private(&file, &text)?;
            }
        }
        if let Some(Store::Etcd(urls)) = &options.store {
            for (i, url) in urls.iter().enumerate() {
                let port = STORE_PORT + u16::try_from(i).unwrap_or(0);
                let at = SocketAddr::new(lab_gateway().into(), port);
                let listener = lab.tcp_listen(Place::Root, at).await?;
                tokio::spawn(carry(listener, host_of(url)?.1.to_string()));
            }
        }
        let supervisor = tokio::spawn(Self::supervise(lab.clone(), state.clone(), roles.clone()));
        for machine in roles.keys().filter(|m| *m == STORE) {
            Self::boot(&lab, &state, &roles, machine).await?;
        }
        for machine in roles.keys().filter(|m| *m != STORE) {
            Self::boot(&lab, &state, &roles, machine).await?;
        }
        report.line("machines", &format!("{} on, in one bridge's network 10.77.0.0/24", roles.len()));
        let access = Access { endpoints: vec![listen.to_string()], pki: design.pki.clone() };
        let api = Api(access.client("admin", "full-cluster")?);
        Ok(Self {
            api,
            lab,
            access,
            state,
            masters: (1..=options.masters).map(master).collect(),
            workers: (1..=options.nodes).map(worker).collect(),
            roles,
            supervisor,
        })
    }

    /// Cluster DNS as an object: a Service whose endpoints are the DNS servers of the nodes; a pod asks that of its own
    /// node.
    async fn publish_dns(&self) -> Result<(), ClusterError> {
        let ports = |key: &str| {
            let port = |name: &str, protocol: &str| json!({ "name": name, "protocol": protocol, key: 53 });
            json!([port("dns", "UDP"), port("dns-tcp", "TCP")])
        };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
            "spec": { "clusterIP": CLUSTER_DNS, "internalTrafficPolicy": "Local", "ports": ports("port") },
        });
        let endpoints: Vec<Value> = (1..=self.workers.len())
            .filter_map(|i| u16::try_from(i).ok())
            .map(|i| {
                json!({
                    "addresses": [worker_address(i)], "nodeName": worker(i), "conditions": { "ready": true },
                })
            })
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "icp" },
            },
            "ports": ports("port"), "endpoints": endpoints,
        });
        let limit = Duration::from_secs(60);
        self.api
            .wait("cluster DNS to be published", limit, async |api| {
                api.apply(service.clone(), "kube-system").await?;
                api.apply(slice.clone(), "kube-system").await?;
                Ok(Ok(()))
            })
            .await?;
        Ok(())
    }
}

fn lab_gateway() -> Ipv4Addr {
    LabConfig::new("").gateway()
}

/// Runs a real cluster as `options` say; true if what was asked for went well. Call it before any thread is started.
///
/// # Errors
/// What kept it from coming up.
pub fn run(
    options: &Options,
    listener: TcpListener,
    manifests: &[Manifest],
    report: &Report,
) -> Result<bool, ClusterError> {
    if options.runtime != RuntimeKind::Native {
        return Err(ClusterError::NotYet("--runtime containerd and docker; use --runtime native".into()));
    }
    if options.record.is_some() {
        return Err(ClusterError::NotYet("--record with --mode real; use --mode sim".into()));
    }
    if options.nodes > WORKERS_MAX {
        let most = format!("--mode real has at most {WORKERS_MAX} workers; --mode sim has thousands");
        return Err(ClusterError::Unsupported(most));
    }
    let state = Arc::new(StateDir::open(options)?);
    let listen = listener.local_addr().map_err(DaemonError::io("listener"))?;
    let masters: Vec<IpAddr> = (1..=options.masters).map(|i| master_address(i).into()).collect();
    let mut names = masters;
    names.extend([MASTER_VIP.into(), PROXY_VIP.into(), listen.ip()]);
    let plan = PkiPlan {
        apiserver_names: super::apiserver_names(&names),
        etcd_names: vec![STORE_ADDRESS.to_string(), "localhost".into(), "127.0.0.1".into()],
        nodes: (1..=options.nodes).map(|i| (worker(i), vec![worker_address(i).to_string()])).collect(),
    };
    let now = icp_core::server::Clock::now(&icp_core::shell::SystemClock);
    let pki = PkiDir::create(state.path().join("pki"), &plan, now)?;
    pki.service_account_key()?;
    let admin =
        pki.authority()?.kubeconfig(&format!("https://{listen}"), "icp", "admin", &pki.identity("admin")?);
    private(&options.kubeconfig, admin.as_bytes())?;
    // Pods of the acceptance list and the runtime's helper run this very program.
    let bin = state.path().join("bin");
    std::fs::create_dir_all(&bin).map_err(at(&bin))?;
    let program = bin.join("icp");
    let own = std::env::current_exe().map_err(DaemonError::io("finding this program"))?;
    if std::fs::hard_link(&own, &program).is_err() {
        let _ = std::fs::remove_file(&program);
        std::fs::copy(&own, &program).map_err(at(&own))?;
    }

    let (store, has_store_machine) = match &options.store {
        None | Some(Store::Disk(_)) => {
            (Store::Etcd(vec![format!("https://{STORE_ADDRESS}:{STORE_PORT}")]), true)
        }
        Some(Store::Memory) => {
            let why = "--store memory cannot serve several machines; leave --store out, or use --mode sim";
            return Err(ClusterError::Unsupported(why.into()));
        }
        Some(Store::Etcd(urls)) => {
            let inside = urls.iter().enumerate().map(|(i, url)| {
                let (scheme, _) = host_of(url)?;
                Ok(format!("{scheme}://{}:{}", lab_gateway(), STORE_PORT + u16::try_from(i).unwrap_or(0)))
            });
            (Store::Etcd(inside.collect::<Result<_, ClusterError>>()?), false)
        }
    };
    let design = Design {
        options,
        state: state.path().into(),
        pki: pki.path().into(),
        program,
        store,
        has_store_machine,
    };

    let mut config = LabConfig::new(design.state.join("machines"));
    if has_store_machine {
        config.machines.push(MachineSpec::new(STORE, STORE_ADDRESS));
    }
    config.machines.extend((1..=options.masters).map(|i| MachineSpec::new(master(i), master_address(i))));
    config.machines.extend((1..=options.nodes).map(|i| MachineSpec::new(worker(i), worker_address(i))));
    config.relays = vec![Relay { listener, to: SocketAddr::new(MASTER_VIP.into(), API_PORT) }];
    report.line(
        "mode",
        &format!(
            "real: {} masters, {} workers{} as namespaces of this machine",
            options.masters,
            options.nodes,
            if has_store_machine { ", one store machine (one copy: not highly available)" } else { "" },
        ),
    );
    let mut lab = Lab::start(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::io("starting a runtime"))?;
    let done = runtime.block_on(async {
        let handle = lab.connect()?;
        let cluster = RealCluster::start(options, handle, state.clone(), &design, listen, report).await?;
        report.line("api", &format!("https://{listen} leads to the virtual address {MASTER_VIP}"));
        report.line("kubeconfig", &options.kubeconfig.display().to_string());
        cluster.publish_dns().await?;
        super::wait_ready(&cluster.api, cluster.workers.len(), report).await?;
        apply_manifests(manifests, &cluster.api, report).await?;
        let passed = if options.check {
            check::real::run(&cluster, report).await
        } else {
            super::watch(options, &cluster.api, report).await;
            true
        };
        cluster.supervisor.abort();
        Ok::<_, ClusterError>(passed)
    });
    if done.is_err() {
        report.line("logs", &format!("{}", design.state.join("machines/logs").display()));
    }
    runtime.shutdown_timeout(Duration::from_secs(2));
    lab.stop()?;
    done
}
