//! Replays the trace of a production GPU cluster through the scheduler, in virtual time and once per policy:
//!
//! ```text
//! cargo run --release --example trace -- DIR [--out FILE]
//! ```
//!
//! DIR holds `openb_node_list_all_node.csv` and `openb_pod_list_default.csv`, which are in `data/csv` of
//! <https://github.com/hkust-adsl/kubernetes-scheduler-simulator>. Prints what each policy made of the cluster, and writes
//! a plot. How fractions of GPUs and fragmentation are modelled: `examples/src/trace/mod.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::trace::report::Runs;
use examples::trace::{Trace, TraceError};

/// Replays the trace of a GPU cluster through the scheduler, once per policy.
#[derive(Parser)]
#[command(name = "trace")]
struct Arguments {
    /// The folder of the trace's CSV files.
    folder: PathBuf,
    /// Where the plot goes.
    #[arg(long, default_value = "trace.svg")]
    out: PathBuf,
    /// What the pods are drawn by that come after those of the trace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn run(arguments: &Arguments) -> Result<(), TraceError> {
    let trace = Trace::read(&arguments.folder)?;
    let runs = Runs::of(&trace, arguments.seed);
    print!("{}", runs.table());
    let out = &arguments.out;
    std::fs::write(out, runs.plot()).map_err(|source| TraceError::File { path: out.clone(), source })?;
    println!("\nplot: {}", out.display());
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("trace: {e}");
            ExitCode::FAILURE
        }
    }
}
