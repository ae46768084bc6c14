//! The acceptance list of `full-cluster --check`: one line and one time for each part.

pub mod real;
mod workload;

use std::future::Future;
use std::time::{Duration, Instant};

use super::api::{Api, ApiFailure};
use super::options::Options;
use super::report::{Report, Verdict};
use super::sim::{self, SimCluster};

pub use workload::{Workload, pods_of};

/// How long one part may take.
const PART_MAX: Duration = Duration::from_secs(150);
/// The namespace of the list's own objects.
pub const NAMESPACE: &str = "icp-check";

/// Counts what held.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    not_yet: usize,
}

impl Tally {
    /// Runs one part, prints its line and counts it. A part says what it saw.
    pub async fn part<F>(&mut self, report: &Report, name: &str, part: F) -> bool
    where
        F: Future<Output = Result<String, ApiFailure>>,
    {
        let started = Instant::now();
        let (verdict, detail) = match tokio::time::timeout(PART_MAX, part).await {
            Ok(Ok(detail)) => (Verdict::Pass, detail),
            Ok(Err(e)) => (Verdict::Fail(e.to_string()), String::new()),
            Err(_) => (Verdict::Fail(format!("not done within {} s", PART_MAX.as_secs())), String::new()),
        };
        report.check(name, &verdict, started.elapsed(), &detail);
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail(_) => self.failed += 1,
            Verdict::NotYet(_) => self.not_yet += 1,
        }
        verdict == Verdict::Pass
    }

    /// Counts a part that is not built.
    pub fn not_yet(&mut self, report: &Report, name: &str, why: &str) {
        report.check(name, &Verdict::NotYet(why.into()), Duration::ZERO, "");
        self.not_yet += 1;
    }

    /// Tells of a part that has nothing to look at here; it is not counted.
    pub fn left_out(&self, report: &Report, name: &str, why: &str) {
        report.line("check", &format!("{name} is left out: {why}"));
    }

    /// Prints the sum; true if nothing failed. What is not built is told, and does not count as passed.
    #[must_use]
    pub fn finish(&self, report: &Report) -> bool {
        let Self { passed, failed, not_yet } = self;
        report.line("check", &format!("{passed} passed, {failed} failed, {not_yet} not yet"));
        *failed == 0
    }
}

/// A failure in words.
pub(crate) fn wrong(what: &str, detail: impl Into<String>) -> ApiFailure {
    ApiFailure::Unexpected { what: what.into(), detail: detail.into() }
}

/// The list for a simulated cluster: what needs no packets.
pub async fn sim(cluster: &SimCluster, options: &Options, report: &Report) -> bool {
    let mut tally = Tally::default();
    let api = &cluster.api;
    let web = Workload { image: "example.com/web:1", command: &[], tools: None };
    tally.part(report, ".api", workload::api_part(api)).await;
    tally.part(report, ".pods", workload::pods_part(api, &web, report)).await;
    tally.part(report, ".service", workload::service_objects(api)).await;
    if options.nodes > 1 {
        tally.part(report, ".worker", worker_loss(cluster, api, report)).await;
    } else {
        tally.left_out(report, ".worker", "there is no other");
    }
    tally.part(report, ".clean", workload::clean(api)).await;
    tally.finish(report)
}

/// A worker loses its power: its pods must run elsewhere.
async fn worker_loss(cluster: &SimCluster, api: &Api, report: &Report) -> Result<String, ApiFailure> {
    let node = workload::busiest_node(api).await?;
    let started = Instant::now();
    cluster.power_off(&node).await;
    let moved = workload::moved_from(api, &node).await?;
    report.figure(
        "worker loss to pods running elsewhere",
        &serde_json::json!(started.elapsed().as_millis() as u64),
        "ms",
    );
    let grace = sim::NODE_GRACE_SECS;
    Ok(format!("{node} off: {moved} pods run elsewhere (node grace {grace} s, toleration 2 s)"))
}
