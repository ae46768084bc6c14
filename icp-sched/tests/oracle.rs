//! Decisions are those that kube-scheduler 1.34.1 was recorded to make, with every node scored.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};

use icp_sched::oracle::Report;

#[test]
fn every_recorded_decision_is_ours() {
    let file =
        std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/recorded.jsonl.gz")).unwrap();
    let mut report = Report::default();
    for (at, line) in BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines().enumerate() {
        report.line(at + 1, &line.unwrap()).unwrap();
    }
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!((report.clusters, report.pods, report.equal), (150, 2197, 2197));
}
