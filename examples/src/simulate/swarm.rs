//! What a seed is like: which faults there are, how often, and how the links and clocks behave. Every seed differs, so that
//! faults meet in ever new company (TigerBeetle calls it swarm testing).

use icp_core::base::{Duration, Rng};
use icp_core::sim::LinkModel;

/// A kind of fault that the simulation injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A master's processes are killed, and start again.
    MasterKill,
    /// A master loses power.
    MasterPower,
    /// A master is held still for up to three seconds.
    MasterPause,
    /// The store's process is killed.
    StoreKill,
    /// The store's machine loses power: what was not synced is lost, in part or whole.
    StorePower,
    /// The store is held still.
    StorePause,
    /// An operation of the store's disk fails.
    DiskError,
    /// The store's disk is full for a while.
    DiskFull,
    /// A node agent is killed; its containers run on.
    AgentKill,
    /// A node loses power.
    NodePower,
    /// A node is held still.
    NodePause,
    /// A pod's sandbox dies.
    SandboxLoss,
    /// A host is cut off, in both directions or in one.
    Partition,
    /// Two hosts do not reach each other.
    LinkCut,
    /// All links are slow, lose, double and reorder.
    BadLinks,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::MasterKill,
        Self::MasterPower,
        Self::MasterPause,
        Self::StoreKill,
        Self::StorePower,
        Self::StorePause,
        Self::DiskError,
        Self::DiskFull,
        Self::AgentKill,
        Self::NodePower,
        Self::NodePause,
        Self::SandboxLoss,
        Self::Partition,
        Self::LinkCut,
        Self::BadLinks,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MasterKill => "master killed",
            Self::MasterPower => "master power loss",
            Self::MasterPause => "master held",
            Self::StoreKill => "store killed",
            Self::StorePower => "store power loss",
            Self::StorePause => "store held",
            Self::DiskError => "disk error",
            Self::DiskFull => "disk full",
            Self::AgentKill => "node agent killed",
            Self::NodePower => "node power loss",
            Self::NodePause => "node held",
            Self::SandboxLoss => "sandbox lost",
            Self::Partition => "host cut off",
            Self::LinkCut => "link cut",
            Self::BadLinks => "bad links",
        }
    }
}

/// What a seed is like.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The kinds of faults that there are.
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub fault_every: Duration,
    /// What all links are like at all times.
    pub links: LinkModel,
    /// What they are like while they are bad.
    pub bad_links: LinkModel,
    /// How far clocks are off at most, in microseconds.
    pub clock_offset_micros: u64,
    /// How much clocks drift at most, in millionths.
    pub clock_drift_ppm: u64,
    /// How long a sync takes.
    pub sync: (Duration, Duration),
    /// How often history is compacted.
    pub compact_every: Duration,
    /// When a snapshot is made.
    pub snapshot_bytes: u64,
    /// Between two actions of the user.
    pub user_every: Duration,
    /// Most deployments.
    pub deployments_max: usize,
    /// Most replicas of one.
    pub replicas_max: u64,
    /// The most that one replica asks for, in thousandths of a core.
    pub cpu_millis_max: u64,
    /// How long silent nodes are borne.
    pub node_grace: Duration,
}

impl Swarm {
    /// Draws one for a cluster of so many nodes.
    #[must_use]
    pub fn draw(rng: &mut Rng, nodes: usize) -> Self {
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| rng.chance(600_000)).collect();
        if faults.is_empty() {
            faults.push(Fault::MasterKill);
        }
        let ms = |rng: &mut Rng, min: u64, max: u64| Duration::from_millis(min + rng.below(max - min + 1));
        let latency_min = Duration::from_micros(100 + rng.below(400));
        let latency_max = latency_min + Duration::from_micros(200 + rng.below(5_000));
        let links = LinkModel {
            latency_min,
            latency_max,
            spike_per_million: rng.below(2_000) as u32,
            spike: ms(rng, 20, 300),
            loss_per_million: rng.below(2_000) as u32,
            duplicate_per_million: rng.below(2_000) as u32,
            reorder_per_million: rng.below(2_000) as u32,
        };
        let bad_links = LinkModel {
            latency_max: latency_max + ms(rng, 1, 50),
            spike_per_million: rng.below(100_000) as u32,
            spike: ms(rng, 50, 500),
            loss_per_million: rng.below(200_000) as u32,
            duplicate_per_million: rng.below(100_000) as u32,
            reorder_per_million: rng.below(200_000) as u32,
            ..links
        };
        let deployments_max = 2 + usize::try_from(rng.below(4)).unwrap_or(0);
        let replicas_max = 2 + rng.below((nodes as u64 * 2 / 3).max(2));
        let sync_min = Duration::from_micros(100 + rng.below(1_500));
        Self {
            faults,
            fault_every: ms(rng, 4_000, 40_000),
            links,
            bad_links,
            clock_offset_micros: rng.below(2_000_000),
            clock_drift_ppm: rng.below(500),
            sync: (sync_min, sync_min + Duration::from_micros(200 + rng.below(6_000))),
            compact_every: ms(rng, 20_000, 200_000),
            snapshot_bytes: 400_000 + rng.below(3_000_000),
            user_every: ms(rng, 4_000, 20_000),
            deployments_max,
            replicas_max,
            // Half of what the nodes have: a third of them may be away, and rollouts make more.
            cpu_millis_max: (2_000 * nodes as u64 / (deployments_max as u64 * replicas_max)).clamp(50, 1_500),
            node_grace: ms(rng, 15_000, 40_000),
        }
    }
}
