//! What decisions and plugins take, if somebody gives a clock.
//!
//! A decision is logic and knows no clock; whoever wants its durations counted hands one in
//! ([`SchedulerMachine::with_stopwatch`](crate::machine::SchedulerMachine::with_stopwatch)). Without one nothing is measured
//! and nothing is slower.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use icp_core::base::Duration;
use icp_core::client::ApiRequest;

use super::{
    Bind, Check, Code, Cycle, FilterPlan, Kept, Permit, Plugin, Point, Reason, Rejected, WaitingPods,
};
use crate::Unschedulable;
use crate::cache::NodeId;
use crate::model::Pod;
use crate::queue::Happened;

/// A clock for what work takes, which never goes backwards. What it says is written down and decides nothing.
///
/// ```
/// use icp_sched::framework::Stopwatch;
/// use std::time::{Duration, Instant};
/// struct System(Instant);
/// impl Stopwatch for System {
///     fn read(&self) -> Duration { self.0.elapsed() }
/// }
/// ```
pub trait Stopwatch: Send + Sync {
    /// The time since a moment that stays the same.
    fn read(&self) -> Duration;
}

/// How a call ended, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    Success,
    Skip,
    Wait,
    Unschedulable,
    Unresolvable,
}

impl Ended {
    pub(crate) const ALL: [Self; 5] =
        [Self::Success, Self::Skip, Self::Wait, Self::Unschedulable, Self::Unresolvable];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Skip => "Skip",
            Self::Wait => "Wait",
            Self::Unschedulable => "Unschedulable",
            Self::Unresolvable => "UnschedulableAndUnresolvable",
        }
    }

    const fn of(rejected: Option<&Rejected>) -> Self {
        match rejected {
            None => Self::Success,
            Some(r) => match r.code {
                Code::Unschedulable => Self::Unschedulable,
                Code::UnschedulableAndUnresolvable => Self::Unresolvable,
            },
        }
    }
}

/// The buckets of what plugins take, in seconds: upstream's.
const BUCKETS: usize = 20;
pub(crate) const FIRST: f64 = 0.00001;
pub(crate) const FACTOR: f64 = 1.5;

/// Durations that several may write down.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    counts: [AtomicU64; BUCKETS],
    beyond: AtomicU64,
    nanos: AtomicU64,
}

impl Durations {
    fn observe(&self, took: Duration) {
        self.nanos.fetch_add(nanos(took), Relaxed);
        let (took, mut bound) = (took.as_secs_f64(), FIRST);
        for count in &self.counts {
            if took <= bound {
                count.fetch_add(1, Relaxed);
                return;
            }
            bound *= FACTOR;
        }
        self.beyond.fetch_add(1, Relaxed);
    }

    /// How many fell into each bucket, how many there are, and how many seconds they took in all.
    fn read(&self) -> (Vec<u64>, u64, f64) {
        let counts: Vec<u64> = self.counts.iter().map(|c| c.load(Relaxed)).collect();
        let total = counts.iter().sum::<u64>() + self.beyond.load(Relaxed);
        (counts, total, self.nanos.load(Relaxed) as f64 / 1e9)
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// What is known of one plugin: by point, and by how calls ended.
#[derive(Debug, Default)]
pub(crate) struct PluginTimes([[Durations; Ended::ALL.len()]; Point::ALL.len()]);

/// What plugins took at a point in one decision, and the worst of how they ended.
#[derive(Debug, Default)]
struct Spent {
    nanos: AtomicU64,
    worst: AtomicUsize,
}

/// What is measured of a scheduler.
pub(crate) struct Timings {
    clock: Arc<dyn Stopwatch>,
    plugins: Vec<(&'static str, Arc<PluginTimes>)>,
    /// The decision under way is one of those in which each plugin is measured.
    close: AtomicBool,
    spent: [Spent; Point::ALL.len()],
    decisions: AtomicU64,
}

/// Of so many decisions one is looked at closely: upstream takes a tenth as well (`pluginMetricsSamplePercent`).
const EACH: u64 = 10;

impl Timings {
    pub(crate) fn new(clock: Arc<dyn Stopwatch>, plugins: Vec<(&'static str, Arc<PluginTimes>)>) -> Self {
        Self {
            clock,
            plugins,
            close: AtomicBool::new(false),
            spent: Default::default(),
            decisions: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self) -> Duration {
        self.clock.read()
    }

    /// Begins a decision.
    pub(crate) fn begin(&self) {
        let close = self.decisions.fetch_add(1, Relaxed).is_multiple_of(EACH);
        self.close.store(close, Relaxed);
    }

    /// Ends it; with what all plugins took at each point where they were asked and how that ended, if it was looked at
    /// closely.
    pub(crate) fn end(&self) -> Vec<(Point, Ended, Duration)> {
        if !self.close.swap(false, Relaxed) {
            return Vec::new();
        }
        let spent = Point::ALL.into_iter().zip(&self.spent).map(|(point, spent)| {
            let worst = spent.worst.swap(0, Relaxed);
            let ended = Ended::ALL.get(worst).copied().unwrap_or(Ended::Success);
            (point, ended, spent.nanos.swap(0, Relaxed))
        });
        let spent = spent.filter(|(.., nanos)| *nanos > 0);
        spent.map(|(point, ended, nanos)| (point, ended, Duration::from_nanos(nanos))).collect()
    }

    /// What each plugin took: the plugin, the point, how calls ended, how many fell into each bucket, how many there are,
    /// and how many seconds they took in all.
    pub(crate) fn of_plugins(
        &self,
    ) -> impl Iterator<Item = (&'static str, Point, Ended, (Vec<u64>, u64, f64))> {
        self.plugins.iter().flat_map(|(name, times)| {
            let points = Point::ALL.into_iter().zip(&times.0);
            let cells =
                points.flat_map(|(p, by)| Ended::ALL.into_iter().zip(by).map(move |(e, d)| (p, e, d)));
            cells.map(|(p, e, d)| (*name, p, e, d.read())).filter(|(.., (_, total, _))| *total > 0)
        })
    }
}

/// A plugin whose calls are measured.
pub(crate) struct Timed {
    plugin: Arc<dyn Plugin>,
    timings: Arc<Timings>,
    times: Arc<PluginTimes>,
}

impl Timed {
    pub(crate) const fn new(plugin: Arc<dyn Plugin>, timings: Arc<Timings>, times: Arc<PluginTimes>) -> Self {
        Self { plugin, timings, times }
    }

    fn time<T>(&self, point: Point, call: impl FnOnce() -> T, ended: impl FnOnce(&T) -> Ended) -> T {
        if !self.timings.close.load(Relaxed) {
            return call();
        }
        let from = self.timings.read();
        let answer = call();
        let took = self.timings.read().saturating_sub(from);
        let (at, ended) = (point as usize, ended(&answer));
        if let Some(durations) = self.times.0.get(at).and_then(|by| by.get(ended as usize)) {
            durations.observe(took);
        }
        if let Some(spent) = self.timings.spent.get(at) {
            spent.nanos.fetch_add(nanos(took).max(1), Relaxed);
            // That one node will not do, or one plugin does not care, is no end of the whole point.
            if point != Point::Filter && ended != Ended::Skip {
                spent.worst.fetch_max(ended as usize, Relaxed);
            }
        }
        answer
    }

    fn wrap<'a>(&'a self, check: Check<'a>) -> Check<'a> {
        if !self.timings.close.load(Relaxed) {
            return check;
        }
        Box::new(move |id| self.time(Point::Filter, || check(id), |r| Ended::of(r.as_ref())))
    }
}

fn err<T>(answer: &Result<T, Rejected>) -> Ended {
    Ended::of(answer.as_ref().err())
}

/// Every method is passed on, also those that have a default.
#[deny(clippy::missing_trait_methods)]
impl Plugin for Timed {
    fn name(&self) -> &'static str {
        self.plugin.name()
    }

    fn kept(&self) -> Option<Kept> {
        self.plugin.kept()
    }

    fn topology_keys(&self) -> Vec<String> {
        self.plugin.topology_keys()
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let ended = |plan: &FilterPlan<'_>| match plan {
            FilterPlan::Skip => Ended::Skip,
            FilterPlan::Reject(r) => Ended::of(Some(r)),
            FilterPlan::Each(_) | FilterPlan::Only(..) => Ended::Success,
        };
        match self.time(Point::PreFilter, || self.plugin.filter(cycle), ended) {
            FilterPlan::Each(check) => FilterPlan::Each(self.wrap(check)),
            FilterPlan::Only(nodes, check) => FilterPlan::Only(nodes, self.wrap(check)),
            other => other,
        }
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let ended = |points: &Option<Vec<i64>>| if points.is_some() { Ended::Success } else { Ended::Skip };
        self.time(Point::Score, || self.plugin.score(cycle, feasible), ended)
    }

    fn pre_enqueue(&self, pod: &Pod) -> Option<Reason> {
        self.plugin.pre_enqueue(pod)
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        self.plugin.hint(pod, happened)
    }

    fn rank(&self, pod: &Pod) -> Option<i64> {
        self.plugin.rank(pod)
    }

    fn post_filter(&self, cycle: &Cycle<'_>, none: &Unschedulable) -> Option<String> {
        let ended =
            |node: &Option<String>| if node.is_some() { Ended::Success } else { Ended::Unschedulable };
        self.time(Point::PostFilter, || self.plugin.post_filter(cycle, none), ended)
    }

    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejected> {
        self.time(Point::Reserve, || self.plugin.reserve(pod, node), err)
    }

    fn unreserve(&self, pod: &Pod, node: &str) {
        self.plugin.unreserve(pod, node);
    }

    fn permit(&self, pod: &Pod, node: &str, waiting: &mut WaitingPods<'_>) -> Permit {
        let ended = |permit: &Permit| match permit {
            Permit::Allow => Ended::Success,
            Permit::Wait(_) => Ended::Wait,
            Permit::Reject(r) => Ended::of(Some(r)),
        };
        self.time(Point::Permit, || self.plugin.permit(pod, node, waiting), ended)
    }

    fn pre_bind(&self, pod: &Pod, node: &str) -> Result<Vec<ApiRequest>, Rejected> {
        self.time(Point::PreBind, || self.plugin.pre_bind(pod, node), err)
    }

    fn bind(&self, pod: &Pod, node: &str) -> Result<Bind, Rejected> {
        let ended = |answer: &Result<Bind, Rejected>| match answer {
            Ok(Bind::Skip) => Ended::Skip,
            other => err(other),
        };
        self.time(Point::Bind, || self.plugin.bind(pod, node), ended)
    }

    fn post_bind(&self, pod: &Pod, node: &str) {
        self.time(Point::PostBind, || self.plugin.post_bind(pod, node), |()| Ended::Success);
    }
}
