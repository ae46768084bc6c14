//! Counters with upstream's names (`pkg/scheduler/metrics`).
//!
//! Time is an input, so that durations are those between events: what one decision takes is not among them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Write as _;

use icp_core::base::Duration;

use crate::Scheduler;
use crate::queue::Queue;

/// Values by buckets whose bounds double.
#[derive(Clone, Debug)]
struct Histogram {
    first: f64,
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    /// So many buckets; the first ends at `first`.
    fn new(first: f64, buckets: usize) -> Self {
        Self { first, counts: alloc::vec![0; buckets], sum: 0.0, total: 0 }
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
            bound *= 2.0;
        }
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let (mut bound, mut below) = (self.first, 0);
        let comma = if labels.is_empty() { "" } else { "," };
        for count in &self.counts {
            below += count;
            line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"));
            bound *= 2.0;
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

    /// Room was found by evicting so many pods.
    pub(super) fn preempted(&mut self, victims: usize) {
        self.preemption_attempts += 1;
        self.victims.observe(victims as f64);
    }

    /// All of it, and what the scheduler and the queue hold now.
    pub(super) fn render(&self, scheduler: &Scheduler, queue: &Queue) -> String {
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
        // Upstream repeats its prefix here.
        let name = "scheduler_scheduler_cache_size";
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
