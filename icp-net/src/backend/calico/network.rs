//! The pod network of one machine.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::format;
use std::fs::File;
use std::net::IpAddr;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use ipnet::IpNet;

use super::FileBlocks;
use super::cable::{Cable, find};
use crate::backend::netlink::NetlinkError;
use crate::backend::netns;
use crate::backend::nft::Nft;
use crate::backend::rtnl::{Link, LinkKind, Rtnl};
use crate::calico::cni::{
    Attachment, CniError, HostPort, Op, host_link_name, host_ports_table_id, is_host_link_name, plan_add,
    plan_check, plan_host_ports,
};
use crate::calico::ipam::{BlockStore, Ipam, IpamConfig, IpamError, Plan, Pool, Request, StoreError};

/// Configuration of [`NodeNetwork`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetworkConfig {
    /// The node's name.
    pub node: String,
    /// Where addresses that were given out are kept.
    pub state_dir: PathBuf,
    /// The node's part of the pod network (`spec.podCIDRs`), cut into blocks; a pod gets one address of each family
    /// that stands here. May come later by [`NodeNetwork::set_pod_networks`].
    pub pod_networks: Vec<IpNet>,
    /// The largest packet of pods, in bytes; `None` for the smallest of the machine's own links.
    pub mtu_bytes: Option<u32>,
}

impl NodeNetworkConfig {
    /// A node without pod network, so far.
    #[must_use]
    pub fn new(node: &str, state_dir: impl Into<PathBuf>) -> Self {
        Self { node: node.into(), state_dir: state_dir.into(), pod_networks: Vec::new(), mtu_bytes: None }
    }
}

/// Why a pod could not be attached or detached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeNetworkError {
    /// The node has no pod network yet: wait for `spec.podCIDR`.
    #[error("the node has no pod network yet (spec.podCIDR)")]
    NoPodNetwork,
    /// The namespace is the machine's own; a pod on the host network is not attached.
    #[error("{path} is the machine's own network namespace")]
    HostNamespace {
        /// Its path.
        path: String,
    },
    /// The namespace cannot be entered or changed.
    #[error("cannot {what}: {why}")]
    Namespace {
        /// What was tried.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// No address can be given out.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Addresses that were given out cannot be read or written.
    #[error("cannot keep addresses: {0}")]
    Store(#[from] StoreError),
    /// The pod cannot have its interface.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// [`NodeNetwork::check`] found something amiss.
    #[error("{key} is not attached as it should be; missing: {missing:?}")]
    Drift {
        /// The pod.
        key: String,
        /// What would have to be done.
        missing: Vec<Op>,
    },
    /// No such pod was attached.
    #[error("{key} is not attached")]
    Unknown {
        /// The pod.
        key: String,
    },
}

struct State {
    ipam: Ipam,
    store: Box<dyn BlockStore>,
}

/// The pod network of one machine: the one in whose network namespace it was made.
///
/// All calls are synchronous and take a few milliseconds; one is under way at a time. An async runtime calls them by
/// `spawn_blocking`. The work inside of a pod's namespace is done by a thread that ends with the call, so that no other
/// thread of the process ever changes its namespace.
pub struct NodeNetwork {
    node: String,
    mtu_bytes: Option<u32>,
    home: File,
    state: Mutex<State>,
}

impl core::fmt::Debug for NodeNetwork {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeNetwork").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What pods get if the machine has no link to go by.
const MTU_BYTES_DEFAULT: u32 = 1500;

fn rules(pod_networks: &[IpNet]) -> Result<IpamConfig, IpamError> {
    let pools = pod_networks.iter().map(|net| Pool::new(*net)).collect::<Result<Vec<_>, _>>()?;
    // The whole range is this node's: nobody borrows from it, and how many blocks it has is nobody else's matter.
    Ok(IpamConfig { strict_affinity: true, blocks_per_node_max: 0, ..IpamConfig::new(pools) })
}

impl NodeNetwork {
    /// The pod network of the machine that the calling thread is on, with what was given out before. Pods whose cables
    /// are gone, because the machine was switched off since, have nothing any more.
    ///
    /// # Errors
    /// [`NodeNetworkError::Store`] if the state directory cannot be read, [`NodeNetworkError::Ipam`] if what stands
    /// there or the configuration is not sound, [`NodeNetworkError::Netlink`] if the kernel does not let the caller
    /// work on the machine's network.
    pub fn new(config: NodeNetworkConfig) -> Result<Self, NodeNetworkError> {
        let store = FileBlocks::open(&config.state_dir)?;
        Self::with_store(config, Box::new(store))
    }

    /// The same with addresses kept elsewhere than in `config.state_dir`.
    ///
    /// # Errors
    /// As [`NodeNetwork::new`].
    pub fn with_store(
        config: NodeNetworkConfig,
        mut store: Box<dyn BlockStore>,
    ) -> Result<Self, NodeNetworkError> {
        let home = netns::current().map_err(|e| NodeNetworkError::Namespace {
            what: "open the machine's network namespace".into(),
            why: e.to_string(),
        })?;
        let ipam = Ipam::new(rules(&config.pod_networks)?, store.load()?)?;
        let state = Mutex::new(State { ipam, store });
        let network = Self { node: config.node, mtu_bytes: config.mtu_bytes, home, state };
        network.forget_lost()?;
        Ok(network)
    }

    /// Takes addresses back whose cables do not exist: nobody can have them in use.
    fn forget_lost(&self) -> Result<(), NodeNetworkError> {
        let links = self.in_thread(|| Ok(self.host()?.links()?))?;
        let links: BTreeSet<String> = links.into_iter().map(|link| link.name).collect();
        let mut state = self.state();
        let plan = state.ipam.plan_collect(&self.node, |key| links.contains(&host_link_name(key)));
        if !plan.addresses.is_empty() {
            self.in_thread(|| {
                self.enter_home()?;
                host_ports(|ip| !plan.addresses.contains(&ip), None)
            })?;
        }
        state.write(&plan)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked between two calls of the state left it as it was before or after one of them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which part of the pod network is the node's. Pods keep the addresses that they have.
    ///
    /// # Errors
    /// [`NodeNetworkError::Ipam`] if the networks overlap; nothing is changed then.
    pub fn set_pod_networks(&self, pod_networks: &[IpNet]) -> Result<(), NodeNetworkError> {
        Ok(self.state().ipam.reconfigure(rules(pod_networks)?)?)
    }

    /// The node's part of the pod network.
    #[must_use]
    pub fn pod_networks(&self) -> Vec<IpNet> {
        self.state().ipam.config().pools.iter().map(Pool::cidr).collect()
    }

    /// Gives pod `key` its addresses and an `eth0` in the namespace at `netns` (`/proc/PID/ns/net`). Called again for
    /// the same pod it mends what is amiss and returns the same addresses, in another namespace, too.
    ///
    /// # Errors
    /// Any of [`NodeNetworkError`]. The pod keeps the addresses that it got; call again, or [`NodeNetwork::detach`].
    pub fn attach(&self, key: &str, netns: &Path) -> Result<Vec<IpAddr>, NodeNetworkError> {
        let namespace = self.open(netns)?;
        let mut state = self.state();
        let has = |ipv6: bool| {
            usize::from(state.ipam.config().pools.iter().any(|p| p.cidr().addr().is_ipv6() == ipv6))
        };
        let request =
            Request { node: self.node.clone(), handle: key.into(), ipv4: has(false), ipv6: has(true) };
        let plan = state.ipam.plan_assign(&request)?;
        if plan.addresses.is_empty() {
            return Err(NodeNetworkError::NoPodNetwork);
        }
        state.write(&plan)?;
        let mut addresses = plan.addresses;
        addresses.sort_unstable();
        self.in_thread(|| {
            let attachment = Attachment::new(key, addresses.iter().copied(), self.mtu()?);
            let mut cable = Cable::open(&self.home, &namespace)?;
            let ops = plan_add(&attachment, &cable.observe(&attachment)?)?;
            cable.perform(&attachment, &ops)?;
            cable.settle(&attachment)
        })?;
        drop(state);
        Ok(addresses)
    }

    /// Takes the pod's interface and then its addresses away; it is no error if it has none.
    ///
    /// # Errors
    /// [`NodeNetworkError::Netlink`] if the interface cannot be deleted, [`NodeNetworkError::Store`]; the pod then
    /// keeps its addresses.
    pub fn detach(&self, key: &str) -> Result<(), NodeNetworkError> {
        let mut state = self.state();
        let ips = state.ipam.addresses(key);
        self.in_thread(|| {
            delete(&mut self.host()?, &host_link_name(key))?;
            host_ports(|ip| !ips.contains(&ip), None)
        })?;
        let plan = state.ipam.plan_release_handle(key);
        state.write(&plan)
    }

    /// Leads ports of the machine to a pod that is attached, instead of those that led to it before. They go when the
    /// pod is detached.
    ///
    /// # Errors
    /// [`NodeNetworkError::Unknown`]; [`NodeNetworkError::Cni`] if a port leads to another pod, and then those of the
    /// same address family stay as they were.
    pub fn set_host_ports(&self, key: &str, ports: &[HostPort]) -> Result<(), NodeNetworkError> {
        let state = self.state();
        let ips = state.ipam.addresses(key);
        if ips.is_empty() {
            return Err(NodeNetworkError::Unknown { key: key.into() });
        }
        self.in_thread(|| {
            self.enter_home()?;
            let kept = |ip| !ips.contains(&ip);
            ips.iter().try_for_each(|ip| host_ports(kept, Some((*ip, ports))))
        })?;
        drop(state);
        Ok(())
    }

    /// Looks whether the pod is attached as it should be.
    ///
    /// # Errors
    /// [`NodeNetworkError::Unknown`], [`NodeNetworkError::Drift`], and those of looking.
    pub fn check(&self, key: &str, netns: &Path) -> Result<Vec<IpAddr>, NodeNetworkError> {
        let namespace = self.open(netns)?;
        let state = self.state();
        let addresses = state.ipam.addresses(key);
        if addresses.is_empty() {
            return Err(NodeNetworkError::Unknown { key: key.into() });
        }
        let missing = self.in_thread(|| {
            let attachment = Attachment::new(key, addresses.iter().copied(), self.mtu()?);
            let mut cable = Cable::open(&self.home, &namespace)?;
            Ok(plan_check(&attachment, &cable.observe(&attachment)?))
        })?;
        drop(state);
        if missing.is_empty() {
            Ok(addresses)
        } else {
            Err(NodeNetworkError::Drift { key: key.into(), missing })
        }
    }

    /// The pods that have addresses, attached or about to be, and their addresses.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Vec<IpAddr>)> {
        self.state().ipam.handles().map(|(key, ips)| (key.into(), ips.collect())).collect()
    }

    /// Detaches all pods but those in `live`, and deletes pod interfaces that belong to none; returns which pods it
    /// detached. For an agent that starts, with all pods whose namespaces live.
    ///
    /// # Errors
    /// As [`NodeNetwork::detach`].
    pub fn retain(&self, live: &BTreeSet<String>) -> Result<Vec<String>, NodeNetworkError> {
        let mut state = self.state();
        let gone: Vec<String> =
            state.ipam.handles().map(|(key, _)| key.into()).filter(|key| !live.contains(key)).collect();
        let kept: BTreeSet<IpAddr> = live.iter().flat_map(|key| state.ipam.addresses(key)).collect();
        let keep: BTreeSet<String> = live.iter().map(|key| host_link_name(key)).collect();
        self.in_thread(|| {
            let mut host = self.host()?;
            for link in host.links()? {
                if is_host_link_name(&link.name) && !keep.contains(&link.name) {
                    delete(&mut host, &link.name)?;
                }
            }
            host_ports(|ip| kept.contains(&ip), None)
        })?;
        let plan = state.ipam.plan_collect(&self.node, |key| live.contains(key));
        state.write(&plan)?;
        Ok(gone)
    }

    fn open(&self, path: &Path) -> Result<File, NodeNetworkError> {
        let failed = |e: std::io::Error| NodeNetworkError::Namespace {
            what: format!("open {}", path.display()),
            why: e.to_string(),
        };
        let file = File::open(path).map_err(failed)?;
        let identity = |file: &File| file.metadata().map(|m| (m.st_dev(), m.st_ino())).map_err(failed);
        if identity(&file)? == identity(&self.home)? {
            return Err(NodeNetworkError::HostNamespace { path: path.display().to_string() });
        }
        Ok(file)
    }

    /// Connects to the machine's namespace from a thread that may stand in another.
    fn host(&self) -> Result<Rtnl, NodeNetworkError> {
        self.enter_home()?;
        Ok(Rtnl::open()?)
    }

    fn enter_home(&self) -> Result<(), NodeNetworkError> {
        netns::enter(&self.home).map_err(|e| NodeNetworkError::Namespace {
            what: "enter the machine's network namespace".into(),
            why: e.to_string(),
        })
    }

    fn mtu(&self) -> Result<u32, NodeNetworkError> {
        if let Some(bytes) = self.mtu_bytes {
            return Ok(bytes);
        }
        let is_own = |link: &Link| {
            link.up && link.name != "lo" && link.mac.is_some() && !is_host_link_name(&link.name)
        };
        let links = self.host()?.links()?;
        Ok(links.iter().filter(|l| is_own(l)).map(|l| l.mtu_bytes).min().unwrap_or(MTU_BYTES_DEFAULT))
    }

    /// Runs `body` in a thread of its own, which may go to any namespace and is not used again.
    fn in_thread<T: Send>(
        &self,
        body: impl FnOnce() -> Result<T, NodeNetworkError> + Send,
    ) -> Result<T, NodeNetworkError> {
        let failed = |why: String| NodeNetworkError::Namespace { what: "run a thread".into(), why };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("icp-netns".into()).spawn_scoped(scope, body);
            let thread = thread.map_err(|e| failed(e.to_string()))?;
            thread.join().unwrap_or_else(|_| Err(failed("it panicked".into())))
        })
    }
}

impl State {
    fn write(&mut self, plan: &Plan) -> Result<(), NodeNetworkError> {
        for write in &plan.writes {
            if let Err(e) = self.store.write(write) {
                // What stands in the store now is what counts, written or not.
                self.ipam = Ipam::new(self.ipam.config().clone(), self.store.load()?)?;
                return Err(e.into());
            }
        }
        self.ipam.commit(plan);
        Ok(())
    }
}

/// Changes which ports lead to pods, in the namespace of the calling thread: those to addresses that are not `kept` go.
/// With a pod, in the table of its address's family alone.
fn host_ports(
    kept: impl Fn(IpAddr) -> bool,
    pod: Option<(IpAddr, &[HostPort])>,
) -> Result<(), NodeNetworkError> {
    let mut nft = Nft::open()?;
    for ipv6 in [false, true].into_iter().filter(|ipv6| pod.is_none_or(|(ip, _)| ip.is_ipv6() == *ipv6)) {
        let observed = nft.snapshot(&host_ports_table_id(ipv6))?;
        nft.apply(&plan_host_ports(ipv6, observed.as_ref(), &kept, pod)?)?;
    }
    Ok(())
}

/// Deletes a pod's cable if it is there.
fn delete(host: &mut Rtnl, name: &str) -> Result<(), NodeNetworkError> {
    let Some(link) = find(host, name)?.filter(|link| link.kind == LinkKind::Veth) else { return Ok(()) };
    match host.delete_link(link.index) {
        Err(e) if !e.is_missing() => Err(e.into()),
        _ => Ok(()),
    }
}
