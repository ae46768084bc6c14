//! The runs: pods arrive, are placed or wait, and depart.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use icp_core::api::labels::{Op, Requirement};
use icp_core::base::Rng;
use icp_sched::Scheduler;
use icp_sched::model::{Node, NodeTerm, Pod, PodSpec};
use rustix::time::{ClockId, clock_gettime};

use super::devices::{Ask, Fleet, Free, SharedFleet, lock};
use super::fragments::Typical;
use super::policy::Policy;
use super::{GPU_COUNT, GPU_MILLI, PodRow, Trace};

/// The label of a node that says what its GPUs are.
const MODEL: &str = "example.com/gpu-model";
/// The trace says nothing of how many pods a node takes.
const PODS_MAX: i64 = 1_000;
/// Where the second run ends: GPUs asked for, as a part of those there are.
const FILL_UNTIL: f64 = 1.3;

/// How full the cluster is: parts of all CPU, memory and GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds of the trace, or the GPUs asked for so far as a part of all.
    pub at: f64,
    /// CPU that is taken.
    pub cpu: f64,
    /// Memory that is taken.
    pub memory: f64,
    /// GPUs that are taken.
    pub gpu: f64,
    /// GPUs that pods in the system ask for, placed or not.
    pub asked: f64,
    /// The part of the free GPUs that the typical pod could not use.
    pub fragments: f64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Pods that found a node.
    pub placed: usize,
    /// Pods that departed without a node, or in the second run were turned away.
    pub never: usize,
    /// Pods that waited before they found a node, and the sum and the longest of their waits in seconds.
    pub waited: (usize, u64, u64),
    /// Decisions, and the CPU time that they took.
    pub decisions: (usize, Duration),
    /// The course, in order.
    pub samples: Vec<Sample>,
}

impl Outcome {
    /// The mean over the course of something that is told of each sample, weighted by how long it held.
    #[must_use]
    pub fn mean(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let spans =
            || self.samples.iter().zip(self.samples.iter().skip(1)).map(|(s, next)| (next.at - s.at, s));
        let all: f64 = spans().map(|(span, _)| span).sum();
        spans().map(|(span, s)| span * of(s)).sum::<f64>() / all.max(f64::MIN_POSITIVE)
    }

    /// The largest value.
    #[must_use]
    pub fn peak(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(of).fold(0.0, f64::max)
    }

    /// Decisions by second of CPU time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.decisions.0 as f64 / self.decisions.1.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

struct Seat {
    node: usize,
    ask: Ask,
    devices: Vec<usize>,
}

/// Amounts of the whole cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Amounts {
    cpu_milli: i64,
    memory_mib: i64,
    gpu_milli: i64,
}

/// A cluster with its scheduler.
struct Lab<'a> {
    typical: &'a Typical,
    scheduler: Scheduler,
    fleet: SharedFleet,
    seats: BTreeMap<String, Seat>,
    specs: BTreeMap<(Ask, Vec<String>), Arc<PodSpec>>,
    all: Amounts,
    taken: Amounts,
    /// Fragments of each node and their sum, in thousandths.
    fragments: (Vec<f64>, f64),
    asked: i64,
    outcome: Outcome,
}

impl<'a> Lab<'a> {
    fn new(trace: &Trace, policy: Policy, typical: &'a Typical) -> Self {
        let fleet = SharedFleet::default();
        let mut scheduler = policy.scheduler(&fleet, typical);
        let mut inner = Fleet::default();
        let mut all = Amounts::default();
        for row in &trace.nodes {
            let mut node = Node::new(&row.name, row.cpu_milli, row.memory_mib << 20, PODS_MAX);
            if row.gpus > 0 {
                let gpus = Free::of(row).gpu_milli();
                node.allocatable.scalars.insert(GPU_MILLI.into(), gpus);
                node = node.with_label(MODEL, &row.model);
                all.gpu_milli += gpus;
            }
            all.cpu_milli += row.cpu_milli;
            all.memory_mib += row.memory_mib;
            inner.add(scheduler.cluster_mut().set_node(node), row);
        }
        let fragments: Vec<f64> = inner.nodes().iter().map(|n| typical.fragments(n)).collect();
        *lock(&fleet) = inner;
        Self {
            typical,
            scheduler,
            fleet,
            seats: BTreeMap::new(),
            specs: BTreeMap::new(),
            all,
            taken: Amounts::default(),
            fragments: (fragments.clone(), fragments.iter().sum()),
            asked: 0,
            outcome: Outcome::default(),
        }
    }

    fn spec(&mut self, row: &PodRow) -> Arc<PodSpec> {
        let ask = Ask::of(row);
        let make = || {
            let mut spec = PodSpec::asking(row.cpu_milli, row.memory_mib << 20);
            if row.gpus > 0 {
                spec.requests.scalars.insert(GPU_MILLI.into(), row.gpu_milli_all());
                spec.labels.insert(GPU_COUNT.into(), row.gpus.to_string());
            }
            if !row.models.is_empty() {
                let models = Requirement { key: MODEL.into(), op: Op::In, values: row.models.clone() };
                spec.node_terms = Some(vec![NodeTerm { labels: vec![models], names: vec![] }]);
            }
            Arc::new(spec)
        };
        self.specs.entry((ask, row.models.clone())).or_insert_with(make).clone()
    }

    fn changed(&mut self, node: usize, ask: &Ask, devices: &[usize], sign: i64) {
        let mut fleet = lock(&self.fleet);
        let (Some(free), Some(known)) = (fleet.node_mut(node), self.fragments.0.get_mut(node)) else {
            return;
        };
        free.take(ask, devices, sign);
        let now = self.typical.fragments(free);
        self.fragments.1 += now - std::mem::replace(known, now);
        self.taken.cpu_milli += sign * ask.cpu_milli;
        self.taken.memory_mib += sign * ask.memory_mib;
        self.taken.gpu_milli += sign * ask.gpu_milli * devices.len() as i64;
    }

    /// Whether the pod found a node.
    fn place(&mut self, row: &PodRow, name: &str) -> bool {
        let pod = Pod::new(name, self.spec(row));
        let start = cpu();
        let placement = self.scheduler.schedule(&pod);
        let placed = placement.is_ok();
        let node = placement.ok().map(|p| {
            self.scheduler.assume(pod, p.node);
            p.node
        });
        self.outcome.decisions.0 += 1;
        self.outcome.decisions.1 += cpu().saturating_sub(start);
        let ask = Ask::of(row);
        let seat = node.and_then(|id| {
            let fleet = lock(&self.fleet);
            let node = fleet.number(id)?;
            Some(Seat { node, ask, devices: fleet.get(id)?.devices(&ask)? })
        });
        if let Some(seat) = seat {
            self.changed(seat.node, &seat.ask, &seat.devices, 1);
            self.seats.insert(name.into(), seat);
            self.outcome.placed += 1;
        }
        placed
    }

    /// Whether the pod leaves room behind.
    fn leave(&mut self, name: &str) -> bool {
        let key = icp_core::client::ObjectKey::new("default", name);
        self.scheduler.cluster_mut().remove_pod(&key);
        let Some(seat) = self.seats.remove(name) else { return false };
        self.changed(seat.node, &seat.ask, &seat.devices, -1);
        true
    }

    fn sample(&mut self, at: f64) {
        let part = |n: i64, of: i64| n as f64 / of.max(1) as f64;
        let free = self.all.gpu_milli - self.taken.gpu_milli;
        let sample = Sample {
            at,
            cpu: part(self.taken.cpu_milli, self.all.cpu_milli),
            memory: part(self.taken.memory_mib, self.all.memory_mib),
            gpu: part(self.taken.gpu_milli, self.all.gpu_milli),
            asked: part(self.asked, self.all.gpu_milli),
            fragments: self.fragments.1 / free.max(1) as f64,
        };
        self.outcome.samples.push(sample);
    }
}

/// Follows the trace: pods arrive, wait where there is no room, are tried again when a pod leaves room behind, and
/// depart at their second, placed or not.
#[must_use]
pub fn replay(trace: &Trace, policy: Policy, typical: &Typical) -> Outcome {
    let mut lab = Lab::new(trace, policy, typical);
    let mut departures: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    let mut arrivals = trace.pods.iter().enumerate().peekable();
    loop {
        let due = departures.peek().map(|Reverse((at, _))| *at);
        let Some(now) = due.into_iter().chain(arrivals.peek().map(|(_, p)| p.arrives)).min() else { break };
        let mut room = false;
        while departures.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, gone))) = departures.pop() else { break };
            let Some(row) = trace.pods.get(gone) else { continue };
            lab.asked -= row.gpu_milli_all();
            if waiting.remove(&gone) {
                lab.outcome.never += 1;
            } else {
                room |= lab.leave(&row.name);
            }
        }
        // In order of arrival; of pods that ask for the same, one that finds nothing speaks for all.
        let again = if room { waiting.iter().copied().collect() } else { Vec::new() };
        let mut hopeless: BTreeSet<(Ask, &[String])> = BTreeSet::new();
        for at in again {
            let Some(row) = trace.pods.get(at) else { continue };
            let kind = (Ask::of(row), &row.models[..]);
            if hopeless.contains(&kind) {
                continue;
            }
            if lab.place(row, &row.name) {
                waiting.remove(&at);
                let wait = now - row.arrives;
                let (count, sum, max) = &mut lab.outcome.waited;
                (*count, *sum, *max) = (*count + 1, *sum + wait, (*max).max(wait));
            } else {
                hopeless.insert(kind);
            }
        }
        while let Some((at, row)) = arrivals.next_if(|(_, p)| p.arrives <= now) {
            departures.push(Reverse((row.departs, at)));
            lab.asked += row.gpu_milli_all();
            if !lab.place(row, &row.name) {
                waiting.insert(at);
            }
        }
        lab.sample(now as f64);
    }
    lab.outcome
}

/// Pods arrive in the order of the trace and stay, then more that are drawn from it, until they ask for 130 % of all
/// GPUs; who finds no room is turned away. A cluster without GPUs is not filled.
#[must_use]
pub fn fill(trace: &Trace, policy: Policy, typical: &Typical, seed: u64) -> Outcome {
    let mut lab = Lab::new(trace, policy, typical);
    let mut rng = Rng::new(seed);
    let until = (lab.all.gpu_milli as f64 * FILL_UNTIL) as i64;
    let drawn = trace.pods.iter().any(|p| p.gpus > 0);
    let mut order = trace.pods.iter();
    let mut n = 0_usize;
    lab.sample(0.0);
    while lab.asked < until && (drawn || order.len() > 0) {
        let draw = || trace.pods.get(rng.below(trace.pods.len() as u64) as usize);
        let Some(row) = order.next().or_else(draw) else { break };
        lab.asked += row.gpu_milli_all();
        if !lab.place(row, &format!("pod-{n}")) {
            lab.outcome.never += 1;
        }
        n += 1;
        let at = lab.asked as f64 / lab.all.gpu_milli.max(1) as f64;
        lab.sample(at);
    }
    lab.outcome
}
