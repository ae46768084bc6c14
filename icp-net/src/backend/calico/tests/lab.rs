//! Machines joined by a bridge, and pods on them.

use std::collections::BTreeMap;
use std::format;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::string::String;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::vec::Vec;

use crate::backend::calico::{NodeNetwork, NodeNetworkConfig};
use crate::backend::netns;
use crate::backend::rtnl::{Rtnl, Target, VethPeer, sysctl};

/// A directory that vanishes with the value.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("icp-net-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A network namespace as a path, as a runtime would name it.
pub(super) fn path(namespace: &File) -> PathBuf {
    format!("/proc/self/fd/{}", namespace.as_raw_fd()).into()
}

/// A new namespace, as a runtime makes it for a pod.
pub(super) fn namespace() -> File {
    netns::create().unwrap()
}

pub(super) struct Machine {
    pub(super) namespace: File,
    pub(super) ip: Ipv4Addr,
    pub(super) pod_network: String,
    pub(super) state: Dir,
}

impl Machine {
    pub(super) fn inside<T>(&self, body: impl FnOnce() -> T) -> T {
        netns::within(&self.namespace, body).unwrap()
    }

    pub(super) fn config(&self, node: &str) -> NodeNetworkConfig {
        NodeNetworkConfig {
            pod_networks: self.pod_network.split(',').map(|net| net.parse().unwrap()).collect(),
            ..NodeNetworkConfig::new(node, &self.state.0)
        }
    }

    pub(super) fn network(&self, node: &str) -> NodeNetwork {
        self.inside(|| NodeNetwork::new(self.config(node)).unwrap())
    }
}

/// Machines `n` (counted from 1) have 192.0.2.n and the pod network 10.244.n.0/24.
pub(super) struct Lab {
    pub(super) machines: BTreeMap<String, Machine>,
}

impl Lab {
    pub(super) fn new(names: &[&str]) -> Self {
        let mut r = Rtnl::open().unwrap();
        let bridge = r.create_bridge("br0").unwrap();
        r.set_up(bridge).unwrap();
        let mut machines = BTreeMap::new();
        for (n, name) in (1u8..).zip(names) {
            let namespace = namespace();
            let target = Some(Target::Fd(namespace.as_fd()));
            let peer = VethPeer { name: "eth0", namespace: target, mac: None, mtu_bytes: None };
            let near = r.create_veth(&format!("m{n}"), peer).unwrap();
            r.set_master(near, Some(bridge)).unwrap();
            r.set_up(near).unwrap();
            let ip = Ipv4Addr::new(192, 0, 2, n);
            netns::within(&namespace, || {
                let mut r = Rtnl::open().unwrap();
                for name in ["lo", "eth0"] {
                    let index = r.link(name).unwrap().index;
                    r.set_up(index).unwrap();
                }
                let eth0 = r.link("eth0").unwrap().index;
                r.add_address(eth0, format!("{ip}/24").parse().unwrap()).unwrap();
                sysctl::set("net.ipv4.ip_forward", "1").unwrap();
                sysctl::set("net.ipv6.conf.all.forwarding", "1").unwrap();
            })
            .unwrap();
            let pod_network = format!("10.244.{n}.0/24");
            machines.insert((*name).into(), Machine { namespace, ip, pod_network, state: Dir::new() });
        }
        Self { machines }
    }

    pub(super) fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }
}

/// A server in a namespace.
pub(super) struct Server(TcpListener);

impl Server {
    pub(super) fn start(namespace: &File, port: u16) -> Self {
        let listener =
            netns::within(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// Who the caller from `namespace` to `to` is for this server.
    pub(super) fn call(&self, namespace: &File, to: SocketAddr) -> Result<IpAddr, ErrorKind> {
        let stream = connect(namespace, to)?;
        for _ in 0..2000 {
            if let Ok((_, peer)) = self.0.accept() {
                drop(stream);
                return Ok(peer.ip());
            }
            std::thread::yield_now();
        }
        Err(ErrorKind::AddrNotAvailable)
    }
}

/// Longer than it takes to send the first packet a second time.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);

/// Connects from a namespace.
pub(super) fn connect(namespace: &File, to: SocketAddr) -> Result<TcpStream, ErrorKind> {
    netns::within(namespace, || TcpStream::connect_timeout(&to, CONNECT_TIMEOUT))
        .unwrap()
        .map_err(|e| e.kind())
}

/// The names of the links of a namespace.
pub(super) fn links(namespace: &File) -> Vec<String> {
    netns::within(namespace, || Rtnl::open().unwrap().links().unwrap())
        .unwrap()
        .into_iter()
        .map(|l| l.name)
        .collect()
}
