//! What decisions take, by a clock that every look moves on.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use icp_core::api::resources;
use icp_core::base::{Duration, Rng};

use super::SECOND;
use super::api::{Faults, World};
use crate::Scheduler;
use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Plugin, Rejected, Stopwatch};
use crate::machine::{SchedulerConfig, SchedulerMachine};
use crate::model::Pod;
use crate::queue::Happened;

/// A millisecond goes by with each look.
#[derive(Default)]
struct Ticks(AtomicU64);
impl Stopwatch for Ticks {
    fn read(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Relaxed))
    }
}

/// Keeps off the first node, and reserves nothing.
struct Picky;
impl Plugin for Picky {
    fn name(&self) -> &'static str {
        "Picky"
    }
    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let first = move |id: NodeId| cycle.cluster.node(id).is_some_and(|n| n.name == "w0");
        FilterPlan::Each(Box::new(move |id| first(id).then(|| Rejected::unschedulable("not the first"))))
    }
    fn score(&self, _: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        Some(feasible.iter().map(|_| 1).collect())
    }
    fn hint(&self, _: &Pod, _: &Happened<'_>) -> bool {
        false
    }
    fn reserve(&self, pod: &Pod, _: &str) -> Result<(), Rejected> {
        if pod.key.name == "p0" { Err(Rejected::unresolvable("never")) } else { Ok(()) }
    }
}

fn run(clock: bool) -> (Vec<String>, String) {
    let builder = Scheduler::builder().plugin(Picky, 1).exhaustive();
    let mut machine = SchedulerMachine::with_scheduler(SchedulerConfig::default(), builder, Rng::new(1));
    if clock {
        machine = machine.with_stopwatch(Arc::new(Ticks::default()));
    }
    let mut w = World::new(1, Faults::default(), Vec::from([machine]));
    for n in 0..3 {
        w.node(&format!("w{n}"), "4");
    }
    w.run_for(SECOND);
    for p in 0..11 {
        w.pod(&format!("p{p}"), "100m");
    }
    w.pod("big", "40");
    w.run_for(SECOND / 2);
    assert!(w.get(&resources::PODS, "big").is_some());
    let nodes = (0..11).map(|p| w.node_of(&format!("p{p}"))).collect();
    (nodes, w.machines[0].metrics())
}

/// The value of a line.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{line} is not in {text}")).parse().unwrap()
}

#[test]
fn durations_are_counted_if_there_is_a_clock_and_decide_nothing() {
    let (nodes, text) = run(true);
    let (same, none) = run(false);
    assert_eq!(nodes, same);
    for name in ["scheduling_algorithm", "framework_extension_point", "plugin_execution", "event_handling"] {
        let name = format!("scheduler_{name}_duration_seconds");
        assert!(text.contains(&name) && !none.contains(&name), "{name}");
    }
    // Twelve pods; each plugin is looked at in the first and the eleventh decision, which take the longer for it.
    let algorithm = "scheduler_scheduling_algorithm_duration_seconds";
    assert_eq!(value(&text, &format!("{algorithm}_count")), 12.0);
    assert_eq!(value(&text, &format!("{algorithm}_bucket{{le=\"0.001\"}}")), 10.0);
    let of = |point: &str, status: &str, what: &str| {
        let labels = format!("extension_point=\"{point}\",plugin=\"Picky\",status=\"{status}\"");
        value(&text, &format!("scheduler_plugin_execution_duration_seconds_{what}{{{labels}}}"))
    };
    assert_eq!(of("PreFilter", "Success", "count"), 2.0);
    assert_eq!(of("Filter", "Unschedulable", "count"), 2.0);
    assert_eq!(of("Filter", "Success", "count"), 4.0);
    assert_eq!(of("Filter", "Success", "sum"), 0.004);
    assert_eq!(of("Score", "Success", "count"), 2.0);
    assert_eq!(of("Reserve", "UnschedulableAndUnresolvable", "count"), 1.0);
    assert_eq!(of("Reserve", "Success", "count"), 1.0);
    let point = |point: &str, status: &str, what: &str| {
        let labels = format!("extension_point=\"{point}\",profile=\"default-scheduler\",status=\"{status}\"");
        value(&text, &format!("scheduler_framework_extension_point_duration_seconds_{what}{{{labels}}}"))
    };
    assert_eq!(point("Filter", "Success", "count"), 2.0);
    assert!(point("Filter", "Success", "sum") >= 0.012);
    assert_eq!(point("Reserve", "UnschedulableAndUnresolvable", "count"), 1.0);
    // Room is looked for in vain.
    assert_eq!(point("PostFilter", "Unschedulable", "count"), 1.0);
    let preemption = "scheduler_preemption_evaluation_duration_seconds_count";
    assert_eq!(value(&text, &format!("{preemption}{{preemptor=\"pod\",result=\"Unschedulable\"}}")), 1.0);
    assert_eq!(value(&text, "scheduler_event_handling_duration_seconds_count{event=\"NodeAdd\"}"), 3.0);
}
