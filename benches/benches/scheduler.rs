//! Decisions of the scheduler: the scenarios of upstream's `scheduler_perf`, by name, nodes and pods, every node scored.
//!
//! Before criterion runs, a table shows each scenario's rate beside the gate that upstream's own CI holds kube-scheduler
//! to (`test/integration/scheduler_perf/*/performance-config.yaml`, average pods/s), and beside the CPU time that
//! kube-scheduler 1.34.1 spent on a decision of the kind on one machine. Upstream's gates are end to end, with API server
//! and etcd, and it scores a tenth of 5,000 nodes; these are decisions alone, in CPU time of one thread, with what they
//! lead to in the scheduler's own books. Of upstream's scenarios, those of the queue (gated pods), of devices and of
//! groups of pods do not apply.
//!
//! `cargo bench --bench scheduler -- --instructions` counts instructions instead, which no busy machine disturbs; it
//! needs valgrind. `-- --what-if` shows what copies that go their own way cost. `-- --only NAME` takes the scenarios whose name contains it, without criterion.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

#[path = "scheduler/instructions.rs"]
mod instructions;
#[path = "scheduler/scenarios.rs"]
mod scenarios;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};

use scenarios::{Run, Scenario};

/// CPU time of this thread, so that a busy machine does not count.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Runs a scenario once: CPU time of the measured pods, how many found a node, and what the process holds, in MB.
fn run(scenario: &Scenario) -> (Duration, usize, u64) {
    let mut run = Run::new(scenario);
    run.before(scenario);
    let pods = run.pods(scenario, usize::MAX);
    let start = cpu();
    run.measured(scenario, pods, |decide| decide());
    (cpu() - start, run.placed, resident())
}

/// The middle one of three runs: the first of a process pays for memory that it touches for the first time.
fn typical(scenario: &Scenario) -> (Duration, usize, u64) {
    let mut runs = [(); 3].map(|()| run(scenario));
    runs.sort_unstable();
    runs[1]
}

/// Runs it again and times each decision: microseconds of the median, of one in a hundred, and of the slowest.
fn latencies(scenario: &Scenario) -> [f64; 3] {
    let empty = (0..1000).map(|_| timed(|| {})).min().unwrap_or_default();
    let mut run = Run::new(scenario);
    run.before(scenario);
    let pods = run.pods(scenario, usize::MAX);
    let mut all = Vec::new();
    run.measured(scenario, pods, |decide| all.push(timed(decide).saturating_sub(empty)));
    all.sort_unstable();
    let at = |part: usize| all.get((all.len() - 1) * part / 100).copied().unwrap_or_default();
    [50, 99, 100].map(|part| at(part).as_secs_f64() * 1e6 / scenario.at_a_time() as f64)
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = cpu();
    work();
    cpu() - start
}

/// Megabytes that the process holds now; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}

fn table(only: &str) {
    println!(
        "{:<66} {:>8} {:>12} {:>8} {:>7} {:>7} {:>8} {:>8} {:>7} {:>8} {:>9} {:>6}",
        "scenario",
        "placed",
        "pods/s (CPU)",
        "us/pod",
        "gate",
        "times",
        "kube ms",
        "times",
        "p50 us",
        "p99 us",
        "max us",
        "MB"
    );
    for s in scenarios::all().into_iter().filter(|s| s.name.contains(only)) {
        let (time, placed, resident) = typical(&s);
        let [p50, p99, max] = latencies(&s);
        let rate = s.count() as f64 / time.as_secs_f64();
        let micros = 1e6 / rate;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let gate = or_none(s.gate.map(|g| g.to_string()));
        let by_gate = or_none(s.gate.map(|g| format!("{:.0}", rate / f64::from(g))));
        let kube = or_none(s.kube.map(|ms| ms.to_string()));
        let by_kube = or_none(s.kube.map(|ms| format!("{:.0}", ms * 1000.0 / micros)));
        println!(
            "{:<66} {placed:>8} {rate:>12.0} {micros:>8.2} {gate:>7} {by_gate:>7} {kube:>8} {by_kube:>8} {p50:>7.2} {p99:>8.2} {max:>9.1} {resident:>6}",
            s.name
        );
    }
}

/// What a class that was not seen before costs once.
fn new_classes() {
    println!(
        "\n{:<66} {:>14} {:>14} {:>14}",
        "a class of pods that is new, in us", "first decision", "slowest of 200", "then"
    );
    for nodes in [5000, 100_000, 1_000_000] {
        for spread in [false, true] {
            let (mut run, pod) = scenarios::new_class(nodes, spread);
            let mut decide = || {
                let mut placed = None;
                let time = timed(|| placed = run.scheduler.schedule(&pod).ok());
                run.scheduler.assume(pod.clone(), placed.unwrap().node);
                time.as_secs_f64() * 1e6
            };
            let first = decide();
            let mut others: Vec<f64> = (0..200).map(|_| decide()).collect();
            let last = others.last().copied().unwrap_or_default();
            others.sort_by(f64::total_cmp);
            let slowest = others.last().copied().unwrap_or_default();
            let name =
                format!("{nodes} nodes, {}", if spread { "spread over zones" } else { "by load alone" });
            println!("{name:<66} {first:>14.1} {:>14.1} {last:>14.1}", slowest);
        }
    }
}

/// What it costs to ask what would be if so many pods were elsewhere, and where so many more would go.
fn what_ifs() {
    println!(
        "\n{:<66} {:>10} {:>12} {:>14} {:>14} {:>16}",
        "a copy that goes its own way, in us",
        "copy",
        "100 changes",
        "1000 changes",
        "and a decision",
        "100 decisions"
    );
    for nodes in [5000, 100_000] {
        let (mut run, mut make) = scenarios::filled(nodes);
        let pods: Vec<_> = (0..1000).map(|_| make(&mut run)).collect();
        let mut asked = |changes: usize, decisions: usize| {
            let mut best = Duration::MAX;
            for _ in 0..5 {
                best = best.min(timed(|| {
                    let mut other = run.scheduler.what_if();
                    for (n, pod) in pods.iter().take(changes).enumerate() {
                        let mut pod = pod.clone();
                        pod.node = Some(format!("node-{}", n * 7919 % nodes));
                        other.add_pod(pod);
                    }
                    for pod in pods.iter().rev().take(decisions) {
                        let placed = other.scheduler().schedule(pod).unwrap();
                        other.scheduler().assume(pod.clone(), placed.node);
                    }
                }));
            }
            best.as_secs_f64() * 1e6
        };
        let [copy, some, many] = [0, 100, 1000].map(|changes| asked(changes, 0));
        let [one, more] = [1, 100].map(|decisions| asked(0, decisions));
        println!(
            "{:<66} {copy:>10.1} {some:>12.1} {many:>14.1} {one:>14.1} {more:>16.1}",
            format!("{nodes} nodes, as many pods of ten classes")
        );
    }
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler/decision");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
    let chosen = [
        "SchedulingBasic/5000Nodes_10000Pods",
        "TopologySpreading",
        "SchedulingPodAffinity",
        "ThousandClasses/5000",
    ];
    for s in scenarios::all().into_iter().filter(|s| chosen.iter().any(|c| s.name.starts_with(c))) {
        group.throughput(Throughput::Elements(s.count() as u64));
        group.bench_function(BenchmarkId::from_parameter(s.name), |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| run(&s).0).sum());
        });
    }
    group.finish();
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|at| args.get(at + 1)).cloned();
    if let Some(name) = value(instructions::CHILD) {
        return instructions::child(&name);
    }
    let only = value("--only");
    if args.iter().any(|a| a == "--instructions") {
        return instructions::table(only.as_deref().unwrap_or_default());
    }
    if args.iter().any(|a| a == "--what-if") {
        return what_ifs();
    }
    if let Some(only) = only {
        return table(&only);
    }
    if args.iter().any(|a| a == "--bench") {
        table("");
        new_classes();
        what_ifs();
    }
    let mut criterion = Criterion::default().configure_from_args();
    decisions(&mut criterion);
    criterion.final_summary();
}
