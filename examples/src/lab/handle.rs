//! The host's side of a lab for asynchronous programs.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns tasks and waits")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::Ipv4Net;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;

use super::LabError;
use super::config::MachineSpec;
use super::host::{Plan, append};
use super::link::{Channel, Link, Process, lock};
use super::process::{Exit, OUTPUT_BYTES_MAX, Output, Spawn};
use super::wire::{self, FromInit, FromRoot, RootCall, SocketKind, Start, ToRoot};

/// How many events a slow reader may be behind before it misses some.
const EVENTS_MAX: usize = 1024;
const LISTEN_BACKLOG: i32 = 128;
/// How long a new machine has to prepare its mounts.
const INIT_LIMIT: Duration = Duration::from_secs(20);
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the output of an ended command is waited for, if a child of it still holds it open.
const DRAIN_LIMIT: Duration = Duration::from_millis(300);

/// Whose network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place<'a> {
    /// That of the lab's root, where the bridge is: a neighbour of all machines.
    Root,
    /// That of a machine.
    Machine(&'a str),
}

/// What happens in a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabEvent {
    /// A machine is on.
    On {
        /// Its name.
        machine: String,
    },
    /// A machine is off, by [`LabHandle::power_off`] or because its init ended.
    Off {
        /// Its name.
        machine: String,
    },
    /// A process that [`LabHandle::spawn`] started has ended.
    Exited {
        /// Its machine.
        machine: String,
        /// Its name.
        process: String,
        /// How.
        exit: Exit,
    },
}

/// Drives a lab. Clones drive the same lab.
#[derive(Clone, Debug)]
pub struct LabHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    root: Channel,
    last_id: AtomicU64,
    calls: Mutex<Option<Calls>>,
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    events: broadcast::Sender<LabEvent>,
    ended: watch::Sender<bool>,
}

/// Requests that the root has not answered; there are none once it is gone.
type Calls = BTreeMap<u64, oneshot::Sender<Result<Option<OwnedFd>, String>>>;

impl LabHandle {
    pub(super) fn new(control: OwnedFd, plan: Arc<Plan>) -> Result<Self, LabError> {
        let shared = Arc::new(Shared {
            plan,
            root: Channel::new(control).map_err(LabError::io("the channel to the lab"))?,
            last_id: AtomicU64::new(0),
            calls: Mutex::new(Some(BTreeMap::new())),
            links: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(shared.clone().listen());
        Ok(Self { shared })
    }

    /// The network of the machines.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.shared.plan.subnet
    }

    /// The machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = &MachineSpec> {
        self.shared.plan.machines.values()
    }

    /// Whether a machine is on.
    #[must_use]
    pub fn is_on(&self, machine: &str) -> bool {
        lock(&self.shared.links).contains_key(machine)
    }

    /// The host's path of the directory that a machine sees as `/var/lib/icp`; it exists from the first power-on, and
    /// may be made and filled before.
    #[must_use]
    pub fn machine_dir(&self, machine: &str) -> PathBuf {
        self.shared.plan.state_dir.join(machine)
    }

    /// The host's path of a process's output.
    #[must_use]
    pub fn log_path(&self, machine: &str, process: &str) -> PathBuf {
        self.shared.plan.state_dir.join("logs").join(format!("{machine}-{process}.log"))
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<LabEvent> {
        self.shared.events.subscribe()
    }

    /// Waits until the lab has ended unasked, as when its processes were killed. All machines are then off.
    pub async fn ended(&self) {
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Powers a machine on: its network is up and nothing runs in it.
    ///
    /// # Errors
    /// [`LabError::On`], [`LabError::NoMachine`], [`LabError::Refused`] with the reason.
    pub async fn power_on(&self, machine: &str) -> Result<(), LabError> {
        let spec = self.shared.plan.machines.get(machine);
        let spec = spec.ok_or_else(|| LabError::NoMachine { name: machine.into() })?.clone();
        if self.is_on(machine) {
            return Err(LabError::On { name: spec.name });
        }
        let dir = self.machine_dir(machine);
        fs::create_dir_all(&dir).map_err(LabError::io(format!("making {}", dir.display())))?;
        let (ours, theirs) = wire::pair().map_err(LabError::io("making a socket pair"))?;
        let what = format!("powering {machine} on");
        let call = RootCall::PowerOn { name: spec.name.clone(), address: spec.address };
        self.shared.call(&what, call, Some(theirs)).await?;
        let channel = Channel::new(ours).map_err(LabError::io("the channel to a machine"))?;
        let ready = tokio::time::timeout(INIT_LIMIT, channel.receive::<FromInit>()).await;
        let reason = match ready {
            Ok(Ok(Some((FromInit::Ready, _)))) => None,
            Ok(Ok(Some((FromInit::Failed { reason }, _)))) => Some(reason),
            Ok(Ok(_)) => Some("its init ended; the lab's log may say why".into()),
            Ok(Err(e)) => Some(e.to_string()),
            Err(_) => Some(format!("its init was not ready within {} s", INIT_LIMIT.as_secs())),
        };
        if let Some(reason) = reason {
            // Without its channel the init ends, and with it the machine.
            return Err(LabError::Refused { what, reason });
        }
        let link = Link::new(spec.name.clone(), channel);
        lock(&self.shared.links).insert(spec.name.clone(), link.clone());
        let _ = self.shared.events.send(LabEvent::On { machine: spec.name });
        let shared = Arc::downgrade(&self.shared);
        let events = self.shared.events.clone();
        tokio::spawn(async move {
            link.clone().listen(events.clone()).await;
            if let Some(shared) = shared.upgrade() {
                let mut links = lock(&shared.links);
                if links.get(&link.machine).is_some_and(|l| Arc::ptr_eq(l, &link)) {
                    links.remove(&link.machine);
                }
            }
            let _ = events.send(LabEvent::Off { machine: link.machine.clone() });
        });
        Ok(())
    }

    /// Powers a machine off, as by its plug: it is off the network at once, and all its processes are dead when this
    /// returns. Its directory stays.
    ///
    /// # Errors
    /// [`LabError::Off`] if it is off.
    pub async fn power_off(&self, machine: &str) -> Result<(), LabError> {
        let link = self.link(machine)?;
        let call = RootCall::PowerOff { name: machine.into() };
        self.shared.call(&format!("powering {machine} off"), call, None).await?;
        link.wait_off().await;
        let mut links = lock(&self.shared.links);
        if links.get(machine).is_some_and(|l| Arc::ptr_eq(l, &link)) {
            links.remove(machine);
        }
        Ok(())
    }

    /// Plugs the network cable of a machine in, or pulls it.
    ///
    /// # Errors
    /// [`LabError::Off`] if it is off.
    pub async fn set_cable(&self, machine: &str, plugged: bool) -> Result<(), LabError> {
        self.link(machine)?;
        let call = RootCall::Cable { name: machine.into(), plugged };
        self.shared.call(&format!("cable of {machine}"), call, None).await.map(|_| ())
    }

    /// Starts a program in a machine. Its output is added to [`LabHandle::log_path`]; its standard input is empty.
    ///
    /// # Errors
    /// [`LabError::Off`]; [`LabError::Start`] if there is no such program or it cannot be run.
    pub async fn spawn(&self, machine: &str, spawn: Spawn) -> Result<Process, LabError> {
        let link = self.link(machine)?;
        let name = spawn.name();
        let log = self.log_path(machine, &name);
        let file = append(&log)?;
        let null = null()?;
        link.start(&name, spawn.into(), [null.as_fd(), file.as_fd(), file.as_fd()], Some(&log)).await
    }

    /// The process of that name that was started last since the machine is on, whether it runs or not.
    #[must_use]
    pub fn process(&self, machine: &str, name: &str) -> Option<Process> {
        self.link(machine).ok()?.process(name)
    }

    /// Sends a signal to the process of that name.
    ///
    /// # Errors
    /// [`LabError::Off`]; [`LabError::Refused`] if no process of that name was started.
    pub async fn kill(&self, machine: &str, name: &str, signal: Signal) -> Result<(), LabError> {
        let process = self.link(machine)?.process(name);
        let refused = || LabError::Refused {
            what: format!("killing {name} on {machine}"),
            reason: "no process of that name was started".into(),
        };
        process.ok_or_else(refused)?.kill(signal).await
    }

    /// Runs a command in a machine to its end and returns what it printed.
    ///
    /// # Errors
    /// As [`LabHandle::spawn`]; [`LabError::Timeout`] after `limit`, when it was killed with its process group.
    pub async fn exec(&self, machine: &str, spawn: Spawn, limit: Duration) -> Result<Output, LabError> {
        let link = self.link(machine)?;
        let name = spawn.name();
        let open = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(LabError::io("making a pipe"))
        };
        let ((out, out_end), (err, err_end)) = (open()?, open()?);
        let null = null()?;
        let streams = [null.as_fd(), out_end.as_fd(), err_end.as_fd()];
        let process = link.start(&name, spawn.into(), streams, None).await?;
        drop((out_end, err_end));
        let (kept_out, kept_err) = (Kept::default(), Kept::default());
        let mut reading = JoinSet::new();
        reading.spawn(read(out, kept_out.clone()));
        reading.spawn(read(err, kept_err.clone()));
        if tokio::time::timeout(limit, process.wait()).await.is_err() {
            let _ = process.kill_group(Signal::KILL).await;
            return Err(LabError::Timeout {
                machine: machine.into(),
                process: name,
                limit_ms: limit.as_millis(),
            });
        }
        // A child of the command may hold its output open for longer than anybody wants to wait.
        let _ =
            tokio::time::timeout(DRAIN_LIMIT, async { while reading.join_next().await.is_some() {} }).await;
        reading.shutdown().await;
        let take = |kept: Kept| std::mem::take(&mut *lock(&kept));
        Ok(Output { exit: process.wait().await, stdout: take(kept_out), stderr: take(kept_err) })
    }

    /// Connects from a place in the lab, within 10 s. (`TcpStream::into_std` gives the blocking kind.)
    ///
    /// # Errors
    /// [`LabError::Io`] with what the network said, [`LabError::Off`].
    pub async fn tcp_connect(&self, from: Place<'_>, to: SocketAddr) -> Result<TcpStream, LabError> {
        let what = format!("connecting to {to} from {}", name(from));
        let socket = self.socket(from, SocketKind::Tcp).await?;
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await.map_err(late).flatten();
        connected.map_err(LabError::io(what))
    }

    /// Listens at a place in the lab.
    ///
    /// # Errors
    /// As [`LabHandle::tcp_connect`].
    pub async fn tcp_listen(&self, at: Place<'_>, address: SocketAddr) -> Result<TcpListener, LabError> {
        let socket = TcpSocket::from_std_stream(self.socket(at, SocketKind::Tcp).await?.into());
        let listening = socket
            .set_reuseaddr(true)
            .and_then(|()| socket.bind(address))
            .and_then(|()| socket.listen(LISTEN_BACKLOG.unsigned_abs()));
        listening.map_err(LabError::io(format!("listening on {address} at {}", name(at))))
    }

    /// A UDP socket at a place in the lab, bound to `address` (port 0 for any).
    ///
    /// # Errors
    /// As [`LabHandle::tcp_connect`].
    pub async fn udp_socket(&self, at: Place<'_>, address: SocketAddr) -> Result<UdpSocket, LabError> {
        let socket = self.socket(at, SocketKind::Udp).await?;
        let what = format!("binding {address} at {}", name(at));
        rustix::net::bind(&socket, &address).map_err(LabError::io(&*what))?;
        UdpSocket::from_std(socket.into()).map_err(LabError::io(what))
    }

    async fn socket(&self, at: Place<'_>, kind: SocketKind) -> Result<OwnedFd, LabError> {
        let machine = match at {
            Place::Root => None,
            Place::Machine(name) => {
                self.link(name)?;
                Some(name.to_owned())
            }
        };
        let what = format!("a socket at {}", name(at));
        let socket = self.shared.call(&what, RootCall::Socket { machine, kind }, None).await?;
        socket.ok_or(LabError::Refused { what, reason: "no socket came with the answer".into() })
    }

    fn link(&self, machine: &str) -> Result<Arc<Link>, LabError> {
        if let Some(link) = lock(&self.shared.links).get(machine) {
            return Ok(link.clone());
        }
        let name = machine.to_owned();
        let known = self.shared.plan.machines.contains_key(machine);
        Err(if known { LabError::Off { name } } else { LabError::NoMachine { name } })
    }
}

impl Shared {
    async fn listen(self: Arc<Self>) {
        while let Ok(Some((message, mut fds))) = self.root.receive::<FromRoot>().await {
            match message {
                FromRoot::Answer { id, result } => {
                    let waiting = lock(&self.calls).as_mut().and_then(|calls| calls.remove(&id));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(result.map(|()| fds.pop()));
                    }
                }
                // Its channel ends too, and that is where it is taken note of.
                FromRoot::Down { .. } | FromRoot::Ready | FromRoot::Failed { .. } => {}
            }
        }
        *lock(&self.calls) = None;
        self.ended.send_replace(true);
    }

    async fn call(
        &self,
        what: &str,
        call: RootCall,
        fd: Option<OwnedFd>,
    ) -> Result<Option<OwnedFd>, LabError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        lock(&self.calls).as_mut().ok_or_else(|| self.plan.gone())?.insert(id, tell);
        let borrowed = fd.as_ref().map(OwnedFd::as_fd);
        if self.root.send(&ToRoot { id, call }, borrowed.as_slice()).await.is_err() {
            return Err(self.plan.gone());
        }
        drop(fd);
        let refused = |reason| LabError::Refused { what: what.into(), reason };
        told.await.map_err(|_| self.plan.gone())?.map_err(refused)
    }
}

impl From<Spawn> for Start {
    fn from(spawn: Spawn) -> Self {
        let Spawn { program, args, env, dir, .. } = spawn;
        Self { id: 0, program, args, env, dir }
    }
}

fn name(place: Place<'_>) -> &str {
    match place {
        Place::Root => "the lab's root",
        Place::Machine(name) => name,
    }
}

fn null() -> Result<fs::File, LabError> {
    fs::File::open("/dev/null").map_err(LabError::io("opening /dev/null"))
}

/// What was read of a stream so far.
type Kept = Arc<Mutex<Vec<u8>>>;

/// Reads a stream to its end and keeps what fits.
async fn read(stream: OwnedFd, kept: Kept) {
    let Ok(mut stream) = pipe::Receiver::from_owned_fd(stream) else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let mut kept = lock(&kept);
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(buffer.get(..read.min(room)).unwrap_or_default());
    }
}
