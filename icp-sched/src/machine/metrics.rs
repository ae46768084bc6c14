//! Counters with upstream's names (`pkg/scheduler/metrics`).
//!
//! Time is an input, so that durations are those between events; what decisions take is among them only if the machine was
//! given a [`Stopwatch`](crate::framework::Stopwatch).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Write as _;

use icp_core::base::Duration;

use crate::Scheduler;
use crate::framework::{Ended, FACTOR, FIRST, Point, Timings};
use crate::queue::Queue;

/// Values by buckets whose bounds grow by a factor.
#[derive(Clone, Debug)]
struct Histogram {
    first: f64,
    factor: f64,
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    /// So many buckets; the first ends at `first`.
    fn new(first: f64, buckets: usize) -> Self {
        Self { first, factor: 2.0, counts: alloc::vec![0; buckets], sum: 0.0, total: 0 }
    }

    /// What was written down of a plugin.
    fn of_plugin((counts, total, sum): (Vec<u64>, u64, f64)) -> Self {
        Self { first: FIRST, factor: FACTOR, counts, sum, total }
    }

    fn observe(&mut self, value: f64) {
        self.sum += value;
        self.total += 1;
        let mut bound = self.first;
        for count in &mut self.counts {
            if value <= bound {
                *count += 1;
                return;
            }
            bound *= self.factor;
        }
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let (mut bound, mut below) = (self.first, 0);
        let comma = if labels.is_empty() { "" } else { "," };
        for count in &self.counts {
            below += count;
            line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"));
            bound *= self.factor;
        }
        line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.total));
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        line(out, format_args!("{name}_sum{braces} {}", self.sum));
        line(out, format_args!("{name}_count{braces} {}", self.total));
    }
}

/// Writing into a string cannot fail.
fn line(out: &mut String, text: core::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

/// What is counted.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    attempts: BTreeMap<(&'static str, String), Histogram>,
    sli: BTreeMap<String, Histogram>,
    tries: Histogram,
    incoming: BTreeMap<(&'static str, &'static str), u64>,
    preemption_attempts: u64,
    victims: Histogram,
    violations: u64,
    /// By result.
    permit_waits: BTreeMap<&'static str, Histogram>,
    algorithm: Histogram,
    points: BTreeMap<(Point, &'static str, String), Histogram>,
    preemptions: BTreeMap<&'static str, Histogram>,
    handling: BTreeMap<&'static str, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: BTreeMap::new(),
            sli: BTreeMap::new(),
            tries: Histogram::new(1.0, 5),
            incoming: BTreeMap::new(),
            preemption_attempts: 0,
            victims: Histogram::new(1.0, 7),
            violations: 0,
            permit_waits: BTreeMap::new(),
            algorithm: Histogram::new(0.001, 15),
            points: BTreeMap::new(),
            preemptions: BTreeMap::new(),
            handling: BTreeMap::new(),
        }
    }
}

impl Metrics {
    /// A try is over: `scheduled`, `unschedulable` or `error`.
    pub(super) fn attempted(&mut self, result: &'static str, profile: &str, took: Duration) {
        let histogram =
            self.attempts.entry((result, profile.into())).or_insert_with(|| Histogram::new(0.001, 15));
        histogram.observe(took.as_secs_f64());
    }

    /// A pod is on its node after so many tries.
    pub(super) fn scheduled(&mut self, tries: u32, took: Duration) {
        self.tries.observe(f64::from(tries));
        // Label values have a limit, as upstream's have.
        let label = if tries >= 15 { "15+".into() } else { tries.to_string() };
        self.sli.entry(label).or_insert_with(|| Histogram::new(0.01, 20)).observe(took.as_secs_f64());
    }

    /// So many pods came to a queue because of an event.
    pub(super) fn incoming(&mut self, queue: &'static str, event: &'static str, pods: usize) {
        if pods > 0 {
            *self.incoming.entry((queue, event)).or_default() += pods as u64;
        }
    }

    /// Room was looked for in vain.
    pub(super) const fn preemption_tried(&mut self) {
        self.preemption_attempts += 1;
    }

    /// Room was found by evicting so many pods, of which so many break a budget.
    pub(super) fn preempted(&mut self, victims: usize, violations: usize) {
        self.preemption_attempts += 1;
        self.victims.observe(victims as f64);
        self.violations += violations as u64;
    }

    /// A pod waited so long for leave.
    pub(super) fn waited(&mut self, result: &'static str, time: Duration) {
        let histogram = self.permit_waits.entry(result).or_insert_with(|| Histogram::new(0.001, 15));
        histogram.observe(time.as_secs_f64());
    }

    /// A node was found, or none, after so long.
    pub(super) fn decided(&mut self, took: Duration) {
        self.algorithm.observe(took.as_secs_f64());
    }

    /// All plugins of a point took so long.
    pub(super) fn at_point(&mut self, point: Point, ended: Ended, profile: &str, took: Duration) {
        let key = (point, ended.as_str(), profile.into());
        self.points.entry(key).or_insert_with(|| Histogram::new(0.0001, 12)).observe(took.as_secs_f64());
    }

    /// Victims were looked for.
    pub(super) fn looked_for_room(&mut self, ended: Ended, took: Duration) {
        let histogram = self.preemptions.entry(ended.as_str()).or_insert_with(|| Histogram::new(0.001, 16));
        histogram.observe(took.as_secs_f64());
    }

    /// Pods that wait were told of an event.
    pub(super) fn handled(&mut self, event: &'static str, took: Duration) {
        let histogram = self.handling.entry(event).or_insert_with(|| Histogram::new(0.0001, 12));
        histogram.observe(took.as_secs_f64());
    }

    /// What a stopwatch was needed for.
    fn render_timings(&self, timings: &Timings, out: &mut String) {
        let name = "scheduler_scheduling_algorithm_duration_seconds";
        head(out, name, "histogram", "From taking a pod from the queue to finding a node or none.");
        self.algorithm.render(name, "", out);
        let name = "scheduler_framework_extension_point_duration_seconds";
        head(out, name, "histogram", "Latency for running all plugins of a specific extension point.");
        for ((point, status, profile), histogram) in &self.points {
            let labels = format!("extension_point=\"{point:?}\",profile={profile:?},status=\"{status}\"");
            histogram.render(name, &labels, out);
        }
        let name = "scheduler_plugin_execution_duration_seconds";
        head(out, name, "histogram", "Duration for running a plugin at a specific extension point.");
        for (plugin, point, ended, read) in timings.of_plugins() {
            let status = ended.as_str();
            let labels = format!("extension_point=\"{point:?}\",plugin={plugin:?},status=\"{status}\"");
            Histogram::of_plugin(read).render(name, &labels, out);
        }
        let name = "scheduler_preemption_evaluation_duration_seconds";
        head(out, name, "histogram", "Duration in seconds for identifying the target preemption victims.");
        for (result, histogram) in &self.preemptions {
            histogram.render(name, &format!("preemptor=\"pod\",result=\"{result}\""), out);
        }
        let name = "scheduler_event_handling_duration_seconds";
        head(out, name, "histogram", "Event handling latency in seconds.");
        for (event, histogram) in &self.handling {
            histogram.render(name, &format!("event=\"{event}\""), out);
        }
    }

    /// All of it, and what the scheduler and the queue hold now.
    pub(super) fn render(
        &self,
        scheduler: &Scheduler,
        queue: &Queue,
        binding: usize,
        timings: Option<&Timings>,
    ) -> String {
        let mut out = String::new();
        let name = "scheduler_schedule_attempts_total";
        head(&mut out, name, "counter", "Number of attempts to schedule pods, by the result.");
        for ((result, profile), histogram) in &self.attempts {
            let total = histogram.total;
            line(&mut out, format_args!("{name}{{profile={profile:?},result=\"{result}\"}} {total}"));
        }
        let name = "scheduler_scheduling_attempt_duration_seconds";
        head(
            &mut out,
            name,
            "histogram",
            "From taking a pod from the queue to its binding, or to giving up.",
        );
        for ((result, profile), histogram) in &self.attempts {
            histogram.render(name, &format!("profile={profile:?},result=\"{result}\""), &mut out);
        }
        let name = "scheduler_pod_scheduling_sli_duration_seconds";
        head(&mut out, name, "histogram", "From when a pod came to the queue to its binding.");
        for (tries, histogram) in &self.sli {
            histogram.render(name, &format!("attempts=\"{tries}\""), &mut out);
        }
        let name = "scheduler_pod_scheduling_attempts";
        head(&mut out, name, "histogram", "Number of attempts to successfully schedule a pod.");
        self.tries.render(name, "", &mut out);
        let name = "scheduler_queue_incoming_pods_total";
        head(&mut out, name, "counter", "Number of pods added to scheduling queues by event and queue type.");
        for ((queue, event), n) in &self.incoming {
            line(&mut out, format_args!("{name}{{event=\"{event}\",queue=\"{queue}\"}} {n}"));
        }
        let (backoff, timeouts) = queue.ripened();
        for (event, n) in [("BackoffComplete", backoff), ("UnschedulableTimeout", timeouts)] {
            if n > 0 {
                line(&mut out, format_args!("{name}{{event=\"{event}\",queue=\"active\"}} {n}"));
            }
        }
        let name = "scheduler_preemption_attempts_total";
        head(&mut out, name, "counter", "Total preemption attempts in the cluster till now.");
        line(&mut out, format_args!("{name} {}", self.preemption_attempts));
        let name = "scheduler_preemption_victims";
        head(&mut out, name, "histogram", "Number of selected preemption victims.");
        self.victims.render(name, "", &mut out);
        let name = "scheduler_preemption_pdb_violations_total";
        head(
            &mut out,
            name,
            "counter",
            "Total number of pod disruption budget violations caused by preemption.",
        );
        line(&mut out, format_args!("{name}{{preemptor=\"pod\"}} {}", self.violations));
        let name = "scheduler_permit_wait_duration_seconds";
        head(&mut out, name, "histogram", "Duration of waiting on permit.");
        for (result, histogram) in &self.permit_waits {
            histogram.render(name, &format!("result=\"{result}\""), &mut out);
        }
        // Nothing runs beside the machine; what upstream has a goroutine for is under way here.
        let name = "scheduler_goroutines";
        head(
            &mut out,
            name,
            "gauge",
            "Number of running goroutines split by the work they do such as binding.",
        );
        line(&mut out, format_args!("{name}{{operation=\"binding\"}} {binding}"));
        if let Some(timings) = timings {
            self.render_timings(timings, &mut out);
        }

        let name = "scheduler_pending_pods";
        head(&mut out, name, "gauge", "Number of pending pods, by the queue type.");
        let sizes = queue.sizes();
        for (place, n) in [
            ("active", sizes.active),
            ("backoff", sizes.backoff),
            ("gated", sizes.gated),
            ("unschedulable", sizes.unschedulable),
        ] {
            line(&mut out, format_args!("{name}{{queue=\"{place}\"}} {n}"));
        }
        let name = "scheduler_unschedulable_pods";
        head(
            &mut out,
            name,
            "gauge",
            "Number of pods that wait because a plugin rejected all nodes or the last one.",
        );
        let mut by_plugin: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (plugin, pod) in queue.stuck_by() {
            let profile = scheduler.profile(&pod.scheduler_name).unwrap_or_default();
            *by_plugin.entry((plugin, profile)).or_default() += 1;
        }
        for ((plugin, profile), n) in by_plugin {
            line(&mut out, format_args!("{name}{{plugin=\"{plugin}\",profile={profile:?}}} {n}"));
        }
        let name = "scheduler_cache_size";
        head(
            &mut out,
            name,
            "gauge",
            "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
        );
        let cluster = scheduler.cluster();
        let assumed =
            cluster.nodes().flat_map(|(id, _)| cluster.pods_on(id)).filter(|p| cluster.is_assumed(&p.key));
        for (kind, n) in [
            ("assumed_pods", assumed.count()),
            ("nodes", cluster.node_count()),
            ("pods", cluster.pod_count()),
        ] {
            line(&mut out, format_args!("{name}{{type=\"{kind}\"}} {n}"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_take_falls_into_buckets_that_grow_by_half() {
        let mut out = String::new();
        let read = (alloc::vec![1, 0, 2], 4, 0.5);
        Histogram::of_plugin(read).render("x", "", &mut out);
        let want = "x_bucket{le=\"0.00001\"} 1\nx_bucket{le=\"0.000015000000000000002\"} 1\n\
                    x_bucket{le=\"0.000022500000000000005\"} 3\nx_bucket{le=\"+Inf\"} 4\nx_sum 0.5\nx_count 4\n";
        assert_eq!(out, want);
    }

    #[test]
    fn histograms_add_up() {
        let mut h = Histogram::new(1.0, 3);
        for v in [0.5, 1.0, 3.0, 9.0] {
            h.observe(v);
        }
        let mut out = String::new();
        h.render("x", "a=\"b\"", &mut out);
        let want = "x_bucket{a=\"b\",le=\"1\"} 2\nx_bucket{a=\"b\",le=\"2\"} 2\nx_bucket{a=\"b\",le=\"4\"} 3\n\
                    x_bucket{a=\"b\",le=\"+Inf\"} 4\nx_sum{a=\"b\"} 13.5\nx_count{a=\"b\"} 4\n";
        assert_eq!(out, want);
    }
}
