//! Compares icp-sched with recorded answers of the real kube-scheduler:
//! `cargo run --release --example sched-oracle -- FILE`.
//!
//! FILE is a recording, JSON lines or gzip of them: per line a cluster snapshot, and for each pending pod the rejection
//! of every node or its points by plugin. `icp-sched/tests/data/recorded.jsonl.gz` is one of kube-scheduler 1.34.1 with
//! 150 clusters. The exit code is 0 only if every rejection, every score, every total and every set of best nodes is
//! equal; 1 if something differs; 2 if the file cannot be read.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path] = args.as_slice() else {
        eprintln!("usage: sched-oracle FILE (for example icp-sched/tests/data/recorded.jsonl.gz)");
        return ExitCode::from(2);
    };
    match examples::oracle::compare_file(Path::new(path)) {
        Err(e) => {
            eprintln!("sched-oracle: {path}: {e}");
            ExitCode::from(2)
        }
        Ok(report) => {
            println!("clusters {}, pods compared {}, equal {}", report.clusters, report.pods, report.equal);
            for difference in &report.differences {
                println!("{difference}");
            }
            if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
