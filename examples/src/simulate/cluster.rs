//! One seed: the cluster, its faults, its healing, its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use icp_core::base::{Duration, Machine as _, Rng, Time};
use icp_core::sim::{Counts, Death, HostId, LinkModel, World};
use icp_node::agent::{Kubelet, KubeletConfig};
use icp_node::backend::memory::{MemoryEvent, MemoryRuntime, SimNode, SimRules};
use icp_store::log::{Fault as DiskFault, SimFiles};

use super::check::{Checks, Violation};
use super::converge;
use super::host::Host;
use super::master::{MasterConfig, MasterHost};
use super::message::Payload;
use super::mutant::Mutant;
use super::node::NodeHost;
use super::store::{HostDisk, StoreConfig, StoreHost};
use super::swarm::{Fault, Swarm};
use super::user::{UserConfig, UserHost};

/// What to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Masters, at least one.
    pub masters: usize,
    /// Nodes, at least one.
    pub nodes: usize,
    /// How long, in simulated time.
    pub time: Duration,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
    /// Keep the trace of a seed that ends well, too.
    pub keep_trace: bool,
}

/// How a seed went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How much time was simulated.
    pub simulated: Duration,
    /// The hash of the trace.
    pub hash: String,
    /// The lines of the trace.
    pub lines: u64,
    /// Faults by kind.
    pub faults: Counts,
    /// Checks by kind.
    pub checks: Counts,
    /// The rule that was broken, and when since the start.
    pub violation: Option<(Duration, Violation)>,
    /// How long after the healing everything was as it should be.
    pub converged_after: Option<Duration>,
    /// The trace, with the state at its end, if it was kept.
    pub trace: Option<String>,
}

type SimWorld = World<Host, HostDisk, Payload>;

/// After the healing everything must be as it should be within this.
pub const CONVERGE: Duration = Duration::from_secs(150);
/// What the faults left behind (connections that are dead and not known to be, leases that run out) shows within this
/// after the healing; before, nothing is expected.
const SETTLE: Duration = Duration::from_secs(60);
/// Then, for this long, nothing may be written but heartbeats.
const REST: Duration = Duration::from_secs(20);

enum Act {
    Fault,
    StartStore,
    StartMaster(usize),
    StartNode(usize),
    MendDisk,
    MendLinks(Vec<(HostId, HostId)>),
    GoodLinks,
    Heal,
    Look,
}

struct Sim {
    world: SimWorld,
    checks: Checks,
    faults: Counts,
    rng: Rng,
    swarm: Swarm,
    options: Options,
    store: HostId,
    masters: Vec<HostId>,
    nodes: Vec<HostId>,
    user: HostId,
    /// What nodes keep over a power loss.
    runtimes: BTreeMap<usize, MemoryRuntime>,
    /// For [`Mutant::OldDisk`].
    old_disk: Option<SimFiles>,
    agenda: BTreeMap<(Time, u64), Act>,
    agenda_seq: u64,
    start: Time,
    heal_at: Time,
    healed: bool,
    power_at_sync: bool,
    converged: Option<Time>,
}

/// Simulates one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut sim = Sim::new(seed, options);
    sim.run();
    sim.outcome(seed)
}

impl Sim {
    fn new(seed: u64, options: &Options) -> Self {
        let start = Time::from_secs(1_790_000_000);
        let rng = Rng::new(seed);
        let swarm = Swarm::draw(&mut rng.child("swarm"), options.nodes);
        let mut world: SimWorld = World::new(seed, start);
        let store = world.add("store", HostDisk::Files(SimFiles::new(rng.child("disk").next_u64())));
        let masters: Vec<HostId> =
            (0..options.masters).map(|i| world.add(&format!("m{i}"), HostDisk::None)).collect();
        let nodes: Vec<HostId> =
            (0..options.nodes).map(|i| world.add(&format!("n{i}"), HostDisk::None)).collect();
        let user = world.add("user", HostDisk::None);
        world.links.usual = swarm.links;
        let heal_at = start + options.time.saturating_sub(CONVERGE).max(options.time / 2);
        let mut sim = Self {
            world,
            checks: Checks::default(),
            faults: Counts::default(),
            rng: rng.child("faults"),
            swarm,
            options: *options,
            store,
            masters,
            nodes,
            user,
            runtimes: BTreeMap::new(),
            old_disk: None,
            agenda: BTreeMap::new(),
            agenda_seq: 0,
            start,
            heal_at,
            healed: false,
            power_at_sync: false,
            converged: None,
        };
        let note = format!("{:?}", sim.swarm);
        sim.world.note("world", format_args!("seed {seed} {note}"));
        sim.fast_loopback();
        sim.start_store();
        for i in 0..options.masters {
            sim.start_master(i);
        }
        for i in 0..options.nodes {
            sim.start_node(i);
        }
        let config = UserConfig {
            every: sim.swarm.user_every,
            until: heal_at,
            deployments_max: sim.swarm.deployments_max,
            replicas_max: sim.swarm.replicas_max,
            cpu_millis_max: match options.mutant {
                Some(Mutant::Overcommit) => 1_500,
                _ => sim.swarm.cpu_millis_max,
            },
            crowd_max: 3 * options.nodes,
            mutant: options.mutant,
        };
        let rng = rng.child("user");
        let host = UserHost::new(user, 1, sim.masters.clone(), config, start, &rng);
        sim.world.start(user, Host::User(Box::new(host)));
        sim.plan(Duration::from_secs(20), Act::Fault);
        sim.plan(Duration::from_secs(1), Act::Look);
        sim.plan(heal_at.since(start), Act::Heal);
        sim
    }

    fn plan(&mut self, after: Duration, act: Act) {
        self.agenda_seq += 1;
        self.agenda.insert((self.world.now() + after, self.agenda_seq), act);
    }

    fn fast_loopback(&mut self) {
        let loopback = LinkModel {
            latency_min: Duration::from_micros(20),
            latency_max: Duration::from_micros(60),
            ..LinkModel::GOOD
        };
        for host in self.masters.clone() {
            self.world.links.set(host, host, loopback);
        }
    }

    fn secs(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_millis(min * 1_000 + self.rng.below((max - min) * 1_000 + 1))
    }

    // ---- starting -------------------------------------------------------------------------------------------

    fn set_clock(&mut self, host: HostId) {
        if self.options.mutant == Some(Mutant::SlowClock) && self.masters.first() == Some(&host) {
            self.world.set_clock(host, 0, -666_666);
            return;
        }
        // The same for all lives of a host.
        let mut rng = Rng::new(u64::from(host.0)).child("clock");
        let offset = rng.below(self.swarm.clock_offset_micros + 1);
        let drift = rng.below(2 * self.swarm.clock_drift_ppm + 1);
        self.world.set_clock(
            host,
            i64::try_from(offset).unwrap_or(0),
            i32::try_from(drift).unwrap_or(0) - i32::try_from(self.swarm.clock_drift_ppm).unwrap_or(0),
        );
    }

    fn life_rng(&self, host: HostId) -> Rng {
        self.rng.child(&format!("{} life {}", host.0, self.world.next_life(host)))
    }

    fn start_store(&mut self) {
        let host = self.store;
        if self.world.is_up(host) {
            return;
        }
        let Some(HostDisk::Files(files)) = self.world.disk(host) else { return };
        let mut files = files.clone();
        files.set_fault(None);
        if self.options.mutant == Some(Mutant::OldDisk) {
            let now = files.copy();
            if let Some(old) = self.old_disk.replace(now) {
                files = old;
                self.world.set_disk(host, HostDisk::Files(files.clone()));
            }
        }
        self.set_clock(host);
        let config = StoreConfig {
            sync: self.swarm.sync,
            compact_every: self.swarm.compact_every,
            snapshot_bytes: self.swarm.snapshot_bytes,
            mutant: self.options.mutant,
        };
        match StoreHost::open(files, config, self.world.local(host), self.life_rng(host)) {
            Ok(opened) => {
                self.checks.check("store opens again", true, String::new);
                self.world.start(host, Host::Store(Box::new(opened)));
                self.drain(host);
            }
            Err(e) => self.checks.check("store opens again", false, || e.to_string()),
        }
    }

    fn start_master(&mut self, i: usize) {
        let Some(host) = self.masters.get(i).copied().filter(|h| !self.world.is_up(*h)) else { return };
        self.set_clock(host);
        let config = MasterConfig {
            host,
            life: self.world.next_life(host),
            index: u8::try_from(i).unwrap_or(u8::MAX),
            store: self.store,
            masters: self.masters.clone(),
            clients: self.nodes.iter().copied().chain([self.user]).collect(),
            node_grace: self.swarm.node_grace,
            mutant: self.options.mutant,
        };
        let master = MasterHost::new(config, self.world.local(host), &self.life_rng(host));
        self.world.start(host, Host::Master(Box::new(master)));
        self.world.with(host, |h, now, out| {
            if let Host::Master(master) = h {
                master.begin(now, out);
            }
        });
    }

    fn start_node(&mut self, i: usize) {
        let Some(host) = self.nodes.get(i).copied().filter(|h| !self.world.is_up(*h)) else { return };
        self.set_clock(host);
        let number = u8::try_from(i).unwrap_or(u8::MAX);
        let range = if self.options.mutant == Some(Mutant::SamePodRange) { 0 } else { number };
        let mut config = KubeletConfig::new(&format!("n{i}"), [10, 0, 1, number].into());
        config.pod_cidr = format!("10.244.{range}.0/24");
        let rng = self.life_rng(host);
        config.seed = rng.clone().next_u64();
        let runtime = match self.runtimes.remove(&i) {
            Some(runtime) => runtime,
            None => {
                let range = ipnet_of(range);
                MemoryRuntime::new(SimRules::default(), range)
            }
        };
        let node = SimNode::new(Kubelet::new(config), runtime);
        let life = self.world.next_life(host);
        let node = NodeHost::new(host, life, self.masters.clone(), node, self.options.mutant, &rng);
        self.world.start(host, Host::Node(Box::new(node)));
    }

    // ---- faults ---------------------------------------------------------------------------------------------

    fn up(&mut self, of: &[HostId]) -> Option<usize> {
        let up: Vec<usize> =
            of.iter().enumerate().filter(|(_, h)| self.world.is_up(**h)).map(|(i, _)| i).collect();
        let at = usize::try_from(self.rng.below(up.len() as u64)).unwrap_or(0);
        up.get(at).copied()
    }

    fn fault(&mut self) {
        let at = usize::try_from(self.rng.below(self.swarm.faults.len() as u64)).unwrap_or(0);
        let Some(fault) = self.swarm.faults.get(at).copied() else { return };
        if self.inject(fault).is_some() {
            self.faults.add(fault.name());
        }
    }

    fn inject(&mut self, fault: Fault) -> Option<()> {
        match fault {
            Fault::MasterKill | Fault::MasterPower => {
                let i = self.up(&self.masters.clone())?;
                let death = if fault == Fault::MasterKill { Death::Process } else { Death::Power };
                self.world.kill(*self.masters.get(i)?, death);
                let after = self.secs(1, 30);
                self.plan(after, Act::StartMaster(i));
            }
            Fault::MasterPause => {
                let i = self.up(&self.masters.clone())?;
                let until = self.world.now() + self.secs(0, 3);
                self.world.pause(*self.masters.get(i)?, until);
            }
            Fault::StoreKill | Fault::StorePower => {
                if !self.world.is_up(self.store) {
                    return None;
                }
                if fault == Fault::StorePower && self.rng.below(2) == 0 {
                    // In the middle of the next sync, where it hurts most.
                    self.power_at_sync = true;
                } else {
                    self.end_store(if fault == Fault::StoreKill { Death::Process } else { Death::Power });
                }
            }
            Fault::StorePause => {
                let until = self.world.now() + self.secs(0, 3);
                self.world.pause(self.store, until);
            }
            Fault::DiskError => {
                let files = self.files()?;
                let next = files.operations() + self.rng.below(6);
                files.set_fault(Some(DiskFault::Error(next)));
                // A poisoned store refuses writes until somebody starts it again.
                let after = self.secs(2, 8);
                self.plan(after, Act::MendDisk);
            }
            Fault::DiskFull => {
                let files = self.files()?;
                files.set_fault(Some(DiskFault::Full(files.operations())));
                let after = self.secs(3, 20);
                self.plan(after, Act::MendDisk);
            }
            Fault::AgentKill | Fault::NodePower => {
                let i = self.up(&self.nodes.clone())?;
                let host = *self.nodes.get(i)?;
                let mut runtime = self.world.host(host)?.node()?.node().runtime().clone();
                let (event, death, after) = if fault == Fault::AgentKill {
                    (MemoryEvent::Disconnect, Death::Process, self.secs(0, 10))
                } else {
                    (MemoryEvent::Reboot, Death::Power, self.secs(2, 90))
                };
                // What it says then reaches nobody.
                runtime.on(self.world.local(host), event, &mut Vec::new());
                self.world.kill(host, death);
                self.runtimes.insert(i, runtime);
                self.plan(after, Act::StartNode(i));
            }
            Fault::NodePause => {
                let i = self.up(&self.nodes.clone())?;
                let until = self.world.now() + self.secs(0, 20);
                self.world.pause(*self.nodes.get(i)?, until);
            }
            Fault::SandboxLoss => {
                let i = self.up(&self.nodes.clone())?;
                let host = *self.nodes.get(i)?;
                let pods: Vec<_> = self
                    .world
                    .host(host)?
                    .node()?
                    .node()
                    .runtime()
                    .addresses()
                    .map(|(uid, _)| uid.clone())
                    .collect();
                let pod = pods.get(usize::try_from(self.rng.below(pods.len() as u64)).ok()?)?.clone();
                self.world.with(host, |h, now, out| {
                    if let Host::Node(node) = h {
                        node.disturb(now, MemoryEvent::LoseSandbox { pod }, out);
                    }
                });
                self.drain(host);
            }
            Fault::Partition => {
                let all: Vec<HostId> = self.world.ids().collect();
                let at = usize::try_from(self.rng.below(all.len() as u64)).unwrap_or(0);
                let alone = *all.get(at)?;
                let (out, back) = match self.rng.below(4) {
                    0 => (true, false),
                    1 => (false, true),
                    _ => (true, true),
                };
                let others = all.into_iter().filter(|h| *h != alone);
                let pairs: Vec<(HostId, HostId)> = others
                    .flat_map(|h| [(alone, h), (h, alone)])
                    .filter(|(from, _)| if *from == alone { out } else { back })
                    .collect();
                self.cut(pairs);
            }
            Fault::LinkCut => {
                let all: Vec<HostId> = self.world.ids().collect();
                let pick = |rng: &mut Rng| {
                    all.get(usize::try_from(rng.below(all.len() as u64)).unwrap_or(0)).copied()
                };
                let (a, b) = (pick(&mut self.rng)?, pick(&mut self.rng)?);
                self.cut(vec![(a, b), (b, a)]);
            }
            Fault::BadLinks => {
                self.world.links.usual = self.swarm.bad_links;
                let after = self.secs(5, 60);
                self.plan(after, Act::GoodLinks);
            }
        }
        Some(())
    }

    fn store_syncs(&self) -> bool {
        matches!(self.world.host(self.store), Some(Host::Store(s)) if s.is_syncing())
    }

    fn end_store(&mut self, death: Death) {
        self.world.kill(self.store, death);
        let after = self.secs(0, 12);
        self.plan(after, Act::StartStore);
    }

    fn files(&self) -> Option<SimFiles> {
        match self.world.disk(self.store)? {
            HostDisk::Files(files) => Some(files.clone()),
            HostDisk::None => None,
        }
    }

    fn cut(&mut self, pairs: Vec<(HostId, HostId)>) {
        for (from, to) in &pairs {
            self.world.links.cut(*from, *to);
            let note = format!("the way from {} to {} is cut", self.world.name(*from), self.world.name(*to));
            self.world.note("world", format_args!("{note}"));
        }
        let after = self.secs(1, 45);
        self.plan(after, Act::MendLinks(pairs));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Fault if self.healed => {}
            Act::Fault => {
                self.fault();
                let every = u64::try_from(self.swarm.fault_every.as_micros()).unwrap_or(u64::MAX);
                let after = Duration::from_micros(every / 5 + self.rng.below(every.saturating_mul(8) / 5));
                self.plan(after, Act::Fault);
            }
            Act::StartStore => self.start_store(),
            Act::StartMaster(i) => self.start_master(i),
            Act::StartNode(i) => self.start_node(i),
            Act::MendDisk => {
                if let Some(files) = self.files() {
                    files.set_fault(None);
                }
                let poisoned = matches!(self.world.host(self.store), Some(Host::Store(s)) if s.is_poisoned());
                if poisoned {
                    self.world.kill(self.store, Death::Process);
                    self.plan(Duration::from_secs(1), Act::StartStore);
                }
            }
            Act::MendLinks(pairs) => {
                for (from, to) in pairs {
                    self.world.links.mend(from, to);
                }
                self.world.note("world", format_args!("a cut is mended"));
            }
            Act::GoodLinks => self.world.links.usual = self.swarm.links,
            Act::Heal => self.heal(),
            Act::Look => {
                self.look();
                self.plan(Duration::from_secs(1), Act::Look);
            }
        }
    }

    /// Everything works again.
    fn heal(&mut self) {
        self.healed = true;
        self.power_at_sync = false;
        self.world.note("world", format_args!("everything is healed"));
        self.world.links.heal();
        self.fast_loopback();
        self.world.links.usual = LinkModel { loss_per_million: 0, spike_per_million: 0, ..self.swarm.links };
        self.act(Act::MendDisk);
        self.start_store();
        for i in 0..self.masters.len() {
            self.start_master(i);
        }
        for i in 0..self.nodes.len() {
            self.start_node(i);
        }
    }

    // ---- the run --------------------------------------------------------------------------------------------

    fn drain(&mut self, host: HostId) {
        let Some(machine) = self.world.host_mut(host) else { return };
        for seen in machine.take_seen() {
            self.checks.see(seen);
        }
    }

    fn run(&mut self) {
        let end = self.start + self.options.time.max(self.heal_at.since(self.start) + CONVERGE);
        loop {
            let next = self.agenda.first_key_value().map_or(end, |((at, _), _)| *at).min(end);
            match self.world.step(next) {
                Ok(Some(host)) => {
                    self.drain(host);
                    if host == self.store && self.power_at_sync && self.store_syncs() {
                        self.power_at_sync = false;
                        self.faults.add("un-synced writes lost");
                        self.end_store(Death::Power);
                    }
                    if self.world.host(host).is_some_and(|h| h.master().is_some()) {
                        self.leaders();
                    }
                }
                Ok(None) => {
                    if self.world.now() >= end {
                        break;
                    }
                    while let Some(first) =
                        self.agenda.first_entry().filter(|e| e.key().0 <= self.world.now())
                    {
                        let act = first.remove();
                        self.act(act);
                    }
                }
                Err(stuck) => self.checks.check("comes to rest", false, || stuck.to_string()),
            }
            if self.checks.violation().is_some() {
                return;
            }
        }
        let converged = self.converged.is_some();
        let why = converge::missing(&self.world, &self.checks, &self.masters, &self.nodes);
        let (check, why) = why.unwrap_or(("converges", "it came too late".into()));
        self.checks.check(check, converged, || format!("{} s after the healing: {why}", CONVERGE.as_secs()));
    }

    /// At most one leader of a kind at any instant.
    fn leaders(&mut self) {
        let mut managers = Vec::new();
        let mut schedulers = Vec::new();
        for host in &self.masters {
            let Some(master) = self.world.host(*host).and_then(Host::master) else { continue };
            let now = self.world.local(*host);
            if let Some(term) = master.manager().leading(now) {
                managers.push((*host, term));
            }
            if let Some(term) = master.scheduler().leading(now) {
                schedulers.push((*host, term));
            }
        }
        let one = managers.len() <= 1 && schedulers.len() <= 1;
        self.checks.check("one leader", one, || format!("managers {managers:?}, schedulers {schedulers:?}"));
    }

    /// What is looked at once a second.
    fn look(&mut self) {
        self.sandboxes();
        for host in self.masters.clone() {
            let now = self.world.local(host);
            if let Some(Host::Master(master)) = self.world.host_mut(host) {
                master.look_at_scheduling(now);
            }
            self.drain(host);
        }
        let pending = self.world.pending();
        self.checks
            .check("queues bounded", pending < 200_000, || format!("{pending} events are on their way"));
        for host in &self.masters {
            let tasks = self.world.host(*host).and_then(Host::master).map_or(0, MasterHost::tasks);
            self.checks
                .check("queues bounded", tasks < 10_000, || format!("{tasks} requests in one API server"));
        }
        if self.world.now() < self.heal_at + SETTLE {
            return;
        }
        let missing = converge::missing(&self.world, &self.checks, &self.masters, &self.nodes);
        let now = self.world.now();
        match (self.converged, missing) {
            (None, None) => {
                self.world.note("world", format_args!("converged"));
                self.converged = Some(now);
                self.checks.take_writes();
            }
            (Some(since), Some((check, detail))) => {
                let after = now.since(since).as_secs();
                self.checks.check(check, false, || format!("{after} s after all was well: {detail}"));
            }
            (None, Some(_)) => {}
            (Some(since), None) => {
                // What was under way then ends within a few seconds.
                let settled = Duration::from_secs(10);
                let writes = self.checks.take_writes();
                if now.since(since) > settled && now.since(since) <= settled + REST {
                    self.checks.check("comes to rest", writes.is_empty(), || {
                        format!(
                            "written {} s after all was well: {}",
                            now.since(since).as_secs(),
                            writes.join(", ")
                        )
                    });
                }
            }
        }
    }

    /// No pod runs on two nodes, and no address is in two sandboxes.
    fn sandboxes(&mut self) {
        let mut pods: BTreeMap<String, HostId> = BTreeMap::new();
        let mut addresses: BTreeMap<String, String> = BTreeMap::new();
        let mut wrong: Option<(&'static str, String)> = None;
        for host in &self.nodes {
            let Some(node) = self.world.host(*host).and_then(Host::node) else { continue };
            for (uid, ips) in node.node().runtime().addresses() {
                if let Some(other) = pods.insert(uid.to_string(), *host) {
                    let what = format!("pod {uid} has a sandbox on {other:?} and on {host:?}");
                    wrong.get_or_insert(("one sandbox of a pod", what));
                }
                for ip in ips {
                    if let Some(other) = addresses.insert(ip.to_string(), uid.to_string()) {
                        let what = format!("sandboxes of {other} and {uid} have {ip}");
                        wrong.get_or_insert(("address unique", what));
                    }
                }
            }
        }
        self.checks.check("one sandbox of a pod", true, String::new);
        if let Some((check, what)) = wrong {
            self.checks.check(check, false, || what);
        }
    }

    fn outcome(mut self, seed: u64) -> Outcome {
        let simulated = self.world.now().since(self.start);
        let violation = self.checks.violation().cloned().map(|v| (simulated, v));
        if let Some((_, v)) = &violation {
            self.world.note("check", format_args!("VIOLATION {}: {}", v.check, v.detail));
        }
        let keep = self.options.keep_trace || violation.is_some();
        let trace = keep.then(|| self.render(seed));
        let mut faults = self.faults.clone();
        faults.merge(self.world.faults());
        Outcome {
            seed,
            simulated,
            hash: self.world.trace().hash(),
            lines: self.world.trace().lines(),
            faults,
            checks: self.checks.made().clone(),
            violation,
            converged_after: self.converged.map(|at| at.since(self.heal_at)),
            trace,
        }
    }

    /// The trace as it is saved: a header, the steps, the state at the end.
    fn render(&self, seed: u64) -> String {
        let Options { masters, nodes, time, mutant, .. } = self.options;
        let mut text = format!(
            "# icp trace 1: seed {seed}, {masters} masters, {nodes} nodes, {} s{}\n",
            time.as_secs(),
            mutant.map_or_else(String::new, |m| format!(", mutant {}", m.name())),
        );
        text.push_str(self.world.trace().text());
        text.push_str("# state at the end\n");
        for host in self.world.ids() {
            let _ = writeln!(
                text,
                "= {} {}",
                self.world.name(host),
                converge::describe(self.world.host(host), self.world.local(host))
            );
        }
        for (prefix, shown) in converge::SHOWN {
            for (key, item) in self.checks.truth().items(prefix) {
                let _ = writeln!(
                    text,
                    "= {shown} {key} at {} {}",
                    item.revision,
                    converge::summary(prefix, &item.value)
                );
            }
        }
        text
    }
}

fn ipnet_of(number: u8) -> ipnet::IpNet {
    ipnet::IpNet::new_assert([10, 244, number, 0].into(), 24)
}
