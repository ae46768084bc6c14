//! Compares decisions with recorded answers of kube-scheduler.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use icp_core::api::Object;
use icp_core::client::ObjectKey;
use icp_sched::Scheduler;
use icp_sched::framework::{Explanation, Verdict};
use icp_sched::model::{Node, Pod};
use serde::Deserialize;

/// At most so many differences are told in words.
const DIFFERENCES_MAX: usize = 20;

#[derive(Deserialize)]
struct Line {
    snapshot: Snapshot,
    expect: Vec<Expect>,
}

#[derive(Deserialize)]
struct Snapshot {
    #[serde(default)]
    namespaces: Vec<Object>,
    nodes: Vec<Object>,
    #[serde(default)]
    pods: Vec<Object>,
    pending: Vec<Object>,
}

#[derive(Deserialize)]
struct Expect {
    pod: String,
    prefilter: Option<String>,
    #[serde(default)]
    reject: BTreeMap<String, String>,
    #[serde(default)]
    scores: Vec<NodeScore>,
    chosen: Option<String>,
}

#[derive(Deserialize)]
struct NodeScore {
    node: String,
    total: i64,
    scores: BTreeMap<String, i64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) clusters: usize,
    pub(crate) pods: usize,
    pub(crate) equal: usize,
    /// The first differences, in words.
    pub(crate) differences: Vec<String>,
}

/// Compares every pod of a recording (gzip or plain JSON lines).
pub(crate) fn compare(input: impl Read) -> Result<Report, String> {
    let mut input = BufReader::new(input);
    let zipped = input.fill_buf().map_err(|e| e.to_string())?.starts_with(&[0x1f, 0x8b]);
    let input: Box<dyn Read> =
        if zipped { Box::new(flate2::bufread::MultiGzDecoder::new(input)) } else { Box::new(input) };
    let mut report = Report::default();
    for (at, line) in BufReader::new(input).lines().enumerate() {
        let line = line.map_err(|e| format!("line {}: {e}", at + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&line).map_err(|e| format!("line {}: {e}", at + 1))?;
        cluster(at + 1, &line, &mut report).map_err(|e| format!("line {}: {e}", at + 1))?;
    }
    Ok(report)
}

fn cluster(at: usize, line: &Line, report: &mut Report) -> Result<(), String> {
    let mut scheduler = Scheduler::default();
    let cluster = scheduler.cluster_mut();
    for namespace in &line.snapshot.namespaces {
        cluster.set_namespace(&namespace.metadata.name, namespace.metadata.labels.clone());
    }
    for node in &line.snapshot.nodes {
        cluster.set_node(Node::from_object(node).map_err(|e| e.to_string())?);
    }
    for pod in &line.snapshot.pods {
        cluster.set_pod(Pod::from_object(pod).map_err(|e| e.to_string())?);
    }
    report.clusters += 1;
    for (object, expect) in line.snapshot.pending.iter().zip(&line.expect) {
        let pod = Pod::from_object(object).map_err(|e| e.to_string())?;
        if pod.key.to_string() != expect.pod {
            return Err(format!("pods out of order: {} is not {}", pod.key, expect.pod));
        }
        let explanation = scheduler.explain(&pod);
        let mut differences = differences(&explanation, expect);
        let best = expect.best();
        match scheduler.schedule(&pod) {
            Ok(placement) if best.contains(&placement.name.as_str()) => {}
            Ok(placement) => differences.push(format!("placed on {}, best are {best:?}", placement.name)),
            Err(_) if best.is_empty() => {}
            Err(e) => differences.push(format!("not placed: {e}")),
        }
        report.pods += 1;
        report.equal += usize::from(differences.is_empty());
        for d in differences {
            if report.differences.len() < DIFFERENCES_MAX {
                report.differences.push(format!("line {at}, pod {}: {d}", expect.pod));
            }
        }
        if let Some(chosen) = &expect.chosen {
            let node = scheduler.cluster().node_id(chosen).ok_or_else(|| format!("no node {chosen}"))?;
            scheduler.assume(pod, node);
            let key = ObjectKey::of(object);
            debug_assert!(scheduler.cluster().is_assumed(&key));
        }
    }
    Ok(())
}

impl Expect {
    fn best(&self) -> Vec<&str> {
        let max = self.scores.iter().map(|s| s.total).max();
        self.scores.iter().filter(|s| Some(s.total) == max).map(|s| s.node.as_str()).collect()
    }
}

fn differences(got: &Explanation, want: &Expect) -> Vec<String> {
    let mut out = Vec::new();
    let prefilter = got.prefilter.as_ref().map(|r| format!("{}: {}", r.plugin, r.message()));
    if prefilter != want.prefilter {
        out.push(format!("prefilter {prefilter:?}, recorded {:?}", want.prefilter));
        return out;
    }
    let scores: BTreeMap<&str, &NodeScore> = want.scores.iter().map(|s| (s.node.as_str(), s)).collect();
    for report in &got.nodes {
        let node = report.node.as_str();
        match &report.verdict {
            Verdict::Rejected(rejection) => {
                // A node that a plugin left out by naming others is recorded without a reason.
                let text = if rejection.plugin.is_empty() {
                    "PreFilterResult".into()
                } else {
                    rejection.to_string()
                };
                match want.reject.get(node) {
                    Some(recorded) if *recorded == text => {}
                    Some(recorded) => out.push(format!("{node} rejected {text:?}, recorded {recorded:?}")),
                    None => out.push(format!("{node} rejected {text:?}, recorded as feasible")),
                }
            }
            Verdict::Feasible { total, scores: by_plugin } => {
                let Some(recorded) = scores.get(node) else {
                    let why = want.reject.get(node);
                    out.push(format!("{node} feasible, recorded {why:?}"));
                    continue;
                };
                let by_plugin: BTreeMap<String, i64> =
                    by_plugin.iter().map(|(p, s)| ((*p).to_string(), *s)).collect();
                if by_plugin != recorded.scores || *total != recorded.total {
                    out.push(format!(
                        "{node} scored {total} {by_plugin:?}, recorded {} {:?}",
                        recorded.total, recorded.scores
                    ));
                }
            }
        }
    }
    if got.nodes.len() != want.reject.len() + want.scores.len() {
        out.push(format!("{} nodes, recorded {}", got.nodes.len(), want.reject.len() + want.scores.len()));
    }
    if got.best() != want.best() {
        let (mut a, mut b) = (got.best(), want.best());
        a.sort_unstable();
        b.sort_unstable();
        if a != b {
            out.push(format!("best {a:?}, recorded {b:?}"));
        }
    }
    out
}
