//! Decides on a scheduling history again: `cargo run --release --example sched-replay -- FILE`.
//!
//! FILE is what `icp icp-scheduler --config FILE --record FILE` or `full-cluster --mode sim --record FILE` wrote, or gzip of
//! it; `icp-sched/tests/data/history-1.jsonl` is a short one. The exit code is 0 only if every decision is as recorded:
//! node, reasons, victims; 1 if one is not; 2 if the file is damaged.
//!
//! With `--config FILE` decisions are those of another KubeSchedulerConfiguration, each on the cluster as it was when it was
//! recorded; differences are what is asked for then, and the exit code is 0.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::sched_replay::replay_file;
use rustix::time::{ClockId, clock_gettime};

/// Decides on a scheduling history again, and tells what is decided otherwise.
#[derive(Parser)]
#[command(name = "sched-replay")]
struct Arguments {
    /// The history.
    file: PathBuf,
    /// A KubeSchedulerConfiguration to decide by instead.
    #[arg(long)]
    config: Option<PathBuf>,
    /// How many differences are printed.
    #[arg(long, default_value_t = 10)]
    differences: usize,
}

/// What the process has used of its processors, in seconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = cpu();
    let report = match replay_file(&arguments.file, arguments.config.as_deref(), arguments.differences) {
        Ok(report) => report,
        Err(e) => {
            eprintln!("sched-replay: {e}");
            return ExitCode::from(2);
        }
    };
    let spent = cpu() - began;
    println!(
        "lines {}, inputs {}, decisions compared {}, equal {}",
        report.lines, report.inputs, report.decisions, report.equal
    );
    for (many, what) in [
        (report.ties, "another node with as many points"),
        (report.elsewhere, "another node, which has more points now"),
        (report.found, "a node now, none then"),
        (report.lost, "no node now, one then"),
        (report.otherwise, "no node for other reasons, or with other victims"),
        (report.misplaced, "decided on at another time, or not at all"),
    ] {
        if many > 0 {
            println!("  {many}: {what}");
        }
    }
    for difference in &report.differences {
        println!("{difference}");
    }
    if report.torn {
        println!("the last line breaks off and is left out");
    }
    println!("hash of placements {:016x}", report.hash);
    println!("{:.0} decisions/s of CPU time, reading included", report.decisions as f64 / spent.max(1e-9));
    if arguments.config.is_some() || report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
