//! The cluster in virtual time, under faults:
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 200 --masters 3 --nodes 10 --minutes 10
//! cargo run --release --example simulate -- --seed 17 --seeds 1 --trace seed-17.trace
//! cargo run --release --example simulate -- --mutant early-ack
//! ```
#![expect(clippy::disallowed_methods, reason = "a program: it owns threads and measures itself")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;
use examples::simulate::{Mutant, Options, Outcome, Totals, run};

/// Simulates clusters in virtual time, checks invariants after every step, and ends with the hash of all traces.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Masters.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    masters: u8,
    /// Nodes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=200))]
    nodes: u8,
    /// Simulated minutes of each seed; the last 2.5 of them, or half of them, without faults.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Writes the trace of the last seed here; without, only that of a seed that fails is written.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Breaks a rule on purpose; the seeds end at the first one that finds it.
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Threads; what is printed does not depend on them, but for the times.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::of(name).ok_or_else(|| {
        let names: Vec<&str> = Mutant::ALL.iter().map(|m| m.name()).collect();
        format!("there is no such mutant; there are {}", names.join(", "))
    })
}

/// Runs the seeds in threads and hands their outcomes on in the order of the seeds, up to the first that fails.
fn all(arguments: &Arguments, mut each: impl FnMut(Outcome)) {
    let last = arguments.seed.saturating_add(arguments.seeds);
    let (next, stop) = (AtomicU64::new(arguments.seed), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.clamp(1, 64) {
            let (next, stop) = (&next, &stop);
            let send = send.lock().unwrap_or_else(PoisonError::into_inner).clone();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        break;
                    }
                    let options = Options {
                        masters: arguments.masters.into(),
                        nodes: arguments.nodes.into(),
                        time: Duration::from_secs(60 * arguments.minutes),
                        mutant: arguments.mutant,
                        keep_trace: arguments.trace.is_some() && seed + 1 == last,
                    };
                    if send.send(run(seed, &options)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let (mut waiting, mut due) = (BTreeMap::new(), arguments.seed);
        for outcome in receive {
            waiting.insert(outcome.seed, outcome);
            while let Some(outcome) = waiting.remove(&due) {
                due += 1;
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                stop.store(outcome.violation.is_some(), Ordering::Relaxed);
                each(outcome);
            }
        }
    });
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let mut totals = Totals::default();
    let mut failed = None;
    let mut broken = false;
    all(&arguments, |outcome| {
        totals.add(&outcome);
        let path = match (&outcome.violation, &arguments.trace) {
            (_, Some(path)) => path.clone(),
            (_, None) => PathBuf::from(format!("simulate-seed-{}.trace", outcome.seed)),
        };
        if let Some(trace) = &outcome.trace
            && let Err(e) = std::fs::write(&path, trace)
        {
            eprintln!("the trace cannot be written to {}: {e}", path.display());
            broken = true;
        }
        if let Some((at, violation)) = outcome.violation {
            failed = Some((outcome.seed, at, violation, path));
        } else if totals.seeds % 20 == 0 {
            eprintln!("{} seeds, {:.0} s", totals.seeds, began.elapsed().as_secs_f64());
        }
    });
    let wall = began.elapsed().as_secs_f64();
    println!("seeds: {}", totals.seeds);
    println!(
        "simulated: {} s in {wall:.1} s, {:.0} simulated seconds per real second",
        totals.simulated.as_secs(),
        totals.simulated.as_secs_f64() / wall.max(0.001)
    );
    println!("faults injected: {}", totals.faults.total());
    for (kind, many) in totals.faults.iter() {
        println!("  {kind}: {many}");
    }
    println!("checks made: {}", totals.checks.total());
    for (kind, many) in totals.checks.iter() {
        println!("  {kind}: {many}");
    }
    println!("slowest convergence: {:.1} s after the healing", totals.slowest.as_secs_f64());
    println!("violations: {}", u8::from(failed.is_some()));
    if let Some((seed, at, violation, path)) = &failed {
        println!("seed {seed} after {:.3} s: {}: {}", at.as_secs_f64(), violation.check, violation.detail);
        println!("trace: {0} (cargo run --release --example replay -- {0})", path.display());
    }
    println!("trace hash: {}", totals.hash());
    if failed.is_some() || broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
