//! The first process of the lab: owns the bridge, powers machines on and off, makes sockets for the host.
#![expect(clippy::disallowed_methods, reason = "a shell: it reads the clock to pace restarts")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use icp_net::backend::netlink::NetlinkError;
use icp_net::backend::nft::Nft;
use icp_net::rules::{Chain, ChainType, Family, Hook, RuleBuilder, Table, Verdict, sync};
use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::net::{self, LabNet, MachineNet};
use super::wire::{FromRoot, Port, RootCall, ToRoot};
use super::{init, relay, role, sys};

pub(super) const ROLE: &str = "lab-root";
/// Where the lab's processes find the state directory, whatever is mounted over the path that the host knows.
pub(super) const STATE: &str = "/run/icp-lab/state";
/// Between two starts of the relay, lest one that cannot run keeps the lab busy.
const RELAY_RESTART: Duration = Duration::from_millis(250);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub control: RawFd,
    pub relays: Vec<(RawFd, SocketAddr)>,
    pub state_dir: Option<PathBuf>,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub cgroups: Cgroups,
}

pub(super) fn main(args: Vec<String>) -> ExitCode {
    role::run(ROLE, &args, run)
}

fn run(config: Config) -> Result<ExitCode, String> {
    let fail = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    sys::become_child(c"icp-lab-root").map_err(fail("process"))?;
    let mut control = Port::new(sys::inherited(config.control).map_err(fail("channel"))?);
    let relays: Result<Vec<OwnedFd>, _> = config.relays.iter().map(|(raw, _)| sys::inherited(*raw)).collect();
    let relays = relays.map_err(fail("listener"))?;
    let signals = sys::Signals::take(&[Signal::CHILD]).map_err(fail("signals"))?;
    let built = build(&config).and_then(|net| {
        let home = File::open("/proc/self/ns/pid").map_err(|e| format!("the process namespace: {e}"))?;
        Ok((net, home))
    });
    let (net, home) = match built {
        Ok(built) => built,
        Err(reason) => {
            control.send(&FromRoot::Failed { reason }, None).map_err(fail("channel"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    control.send(&FromRoot::Ready, None).map_err(fail("channel"))?;
    if config.state_dir.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let machines = BTreeMap::new();
    let root =
        Root { config, control, signals, net, home, relays, relay: None, relay_started: None, machines };
    root.serve().map_err(fail("channel")).map(|()| ExitCode::SUCCESS)
}

/// Mounts and network of the lab; when probing, also one of each thing that machines and nodes will make.
fn build(config: &Config) -> Result<LabNet, String> {
    // Opened while its path still leads there.
    let state = config.state_dir.as_deref().map(File::open).transpose();
    let state = state.map_err(|e| format!("the state directory: {e}"))?;
    mount_proc()?;
    mount_tmpfs("/run")?;
    if let Some(state) = state {
        fs::create_dir_all(STATE).map_err(|e| format!("cannot make {STATE}: {e}"))?;
        bind(&state, Path::new(STATE))?;
    }
    let mut net = LabNet::build(config.subnet, config.gateway)?;
    if config.state_dir.is_none() {
        let machine = net.add(config.subnet.hosts().next().unwrap_or(config.gateway))?;
        net.remove(&machine)?;
        load_table().map_err(|e| format!("cannot load an nftables table: {e}"))?;
    }
    Ok(net)
}

/// Loads the kinds of chain that services and policies need: address translation and filtering.
fn load_table() -> Result<(), NetlinkError> {
    let mut table = Table::new(Family::Ip, "icp-probe");
    let accept = || vec![RuleBuilder::new().verdict(Verdict::Accept).comment("probe")];
    table.chain(Chain::base("nat", ChainType::Nat, Hook::Prerouting, -100, vec![]));
    table.chain(Chain::base("filter", ChainType::Filter, Hook::Forward, 0, accept()));
    Nft::open()?.apply(&sync(&table, None)).map(|_| ())
}

pub(super) fn mount_proc() -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(|e| format!("cannot mount /proc: {e}"))
}

pub(super) fn mount_tmpfs(path: &str) -> Result<(), String> {
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=512m"))
        .map_err(|e| format!("cannot mount a tmpfs on {path}: {e}"))
}

/// Mounts the open directory `from`, which must have been opened in this mount namespace.
pub(super) fn bind(from: &File, to: &Path) -> Result<(), String> {
    mount_bind(format!("/proc/self/fd/{}", from.as_raw_fd()), to)
        .map_err(|e| format!("cannot mount on {}: {e}", to.display()))
}

#[derive(Debug)]
struct Root {
    config: Config,
    control: Port,
    signals: sys::Signals,
    net: LabNet,
    /// Its own process namespace, to come back to.
    home: File,
    relays: Vec<OwnedFd>,
    relay: Option<Pid>,
    relay_started: Option<Instant>,
    machines: BTreeMap<String, Machine>,
}

#[derive(Debug)]
struct Machine {
    init: Pid,
    net: MachineNet,
    /// The request to answer when it is off.
    off: Option<u64>,
}

impl Root {
    /// Works until the host is gone.
    fn serve(mut self) -> io::Result<()> {
        loop {
            let retry = self.keep_relay();
            let out = if self.control.is_behind() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds =
                [PollFd::new(&self.control, PollFlags::IN | out), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut fds, retry.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.control.flush()?;
            loop {
                match self.control.receive::<ToRoot>() {
                    Ok(Some((request, fds))) => self.call(request, fds)?,
                    Ok(None) => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            while self.signals.next().is_some() {}
            self.reap()?;
        }
    }

    fn call(&mut self, ToRoot { id, call }: ToRoot, mut fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut answer_fd = None;
        let result = match call {
            RootCall::PowerOn { name, address } => match fds.pop() {
                Some(channel) => self.power_on(name, address, &channel),
                None => Err("no channel came with the request".into()),
            },
            RootCall::PowerOff { name } => match self.power_off(&name, id) {
                // Answered when its last process is gone.
                Ok(()) => return Ok(()),
                Err(reason) => Err(reason),
            },
            RootCall::Cable { name, plugged } => match self.machines.get(&name) {
                Some(machine) => self.net.plug(&machine.net, plugged),
                None => Err(is_off(&name)),
            },
            RootCall::Socket { machine, kind } => {
                self.socket(machine.as_deref(), kind).map(|socket| answer_fd = Some(socket))
            }
        };
        self.control.send(&FromRoot::Answer { id, result }, answer_fd)
    }

    fn socket(&self, machine: Option<&str>, kind: super::wire::SocketKind) -> Result<OwnedFd, String> {
        let machine = match machine {
            Some(name) => Some(&self.machines.get(name).ok_or_else(|| is_off(name))?.net),
            None => None,
        };
        net::socket(machine, kind).map_err(|e| e.to_string())
    }

    fn power_on(&mut self, name: String, address: Ipv4Addr, channel: &OwnedFd) -> Result<(), String> {
        if self.machines.contains_key(&name) {
            return Err(format!("machine {name} is on"));
        }
        let net = self.net.add(address)?;
        match self.start_init(&name, &net, channel) {
            Ok(init) => {
                self.machines.insert(name, Machine { init, net, off: None });
                Ok(())
            }
            Err(e) => {
                let _ = self.net.remove(&net);
                Err(format!("cannot start its init: {e}"))
            }
        }
    }

    fn start_init(&self, name: &str, net: &MachineNet, channel: &OwnedFd) -> io::Result<Pid> {
        let config = init::Config { name: name.to_owned(), channel: channel.as_raw_fd() };
        let mut command = role::configured(init::ROLE, &config)?;
        let cgroups = self.config.cgroups.machine(name);
        let setup = sys::Setup {
            inherit: vec![channel.as_raw_fd()],
            cgroups: cgroups.iter().map(AsRawFd::as_raw_fd).collect(),
            network: Some(net.namespace.as_raw_fd()),
            unshare: Some(UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC),
        };
        sys::prepare(&mut command, setup);
        // The next child, and it alone, is the first process of a new process namespace.
        sys::unshare(UnshareFlags::NEWPID)?;
        let spawned = command.spawn();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&self.home), Some(LinkNameSpaceType::ProcessID))?;
        Ok(Pid::from_child(&spawned?))
    }

    fn power_off(&mut self, name: &str, id: u64) -> Result<(), String> {
        let machine = self.machines.get_mut(name).ok_or_else(|| is_off(name))?;
        if machine.off.is_some() {
            return Err(format!("machine {name} is going off"));
        }
        // First the network: a machine without power says no farewell.
        self.net.remove(&machine.net)?;
        kill_process(machine.init, Signal::KILL).map_err(|e| format!("cannot kill its init: {e}"))?;
        machine.off = Some(id);
        Ok(())
    }

    /// Takes note of ended children; orphans of the lab are reaped too.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.relay == Some(pid) {
                eprintln!("{ROLE}: the relay ended ({status:?}) and is started again");
                self.relay = None;
            }
            let name = self.machines.iter().find(|(_, m)| m.init == pid).map(|(name, _)| name.clone());
            let Some((name, machine)) = name.and_then(|n| self.machines.remove_entry(&n)) else { continue };
            if let Err(e) = self.net.remove(&machine.net) {
                eprintln!("{ROLE}: {name}: {e}");
            }
            self.config.cgroups.remove(Some(&name));
            let message = match machine.off {
                Some(id) => FromRoot::Answer { id, result: Ok(()) },
                None => FromRoot::Down { name },
            };
            self.control.send(&message, None)?;
        }
        Ok(())
    }

    /// Starts the relay if there is none and it is time; else says how long that will be.
    fn keep_relay(&mut self) -> Option<Timespec> {
        if self.relay.is_some() || self.relays.is_empty() {
            return None;
        }
        let since = self.relay_started.map_or(RELAY_RESTART, |at| at.elapsed());
        if since >= RELAY_RESTART {
            self.relay_started = Some(Instant::now());
            self.relay = self.start_relay().inspect_err(|e| eprintln!("{ROLE}: relay: {e}")).ok();
        }
        let left = if since < RELAY_RESTART { RELAY_RESTART.saturating_sub(since) } else { RELAY_RESTART };
        if self.relay.is_some() { None } else { Timespec::try_from(left).ok() }
    }

    fn start_relay(&self) -> io::Result<Pid> {
        let relays = self.relays.iter().map(AsRawFd::as_raw_fd);
        let config = relay::Config {
            relays: relays.clone().zip(self.config.relays.iter().map(|(_, to)| *to)).collect(),
        };
        let mut command = role::configured(relay::ROLE, &config)?;
        sys::prepare(&mut command, sys::Setup { inherit: relays.collect(), ..sys::Setup::default() });
        Ok(Pid::from_child(&command.spawn()?))
    }
}

fn is_off(name: &str) -> String {
    format!("machine {name} is off")
}
