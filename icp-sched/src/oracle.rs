//! Compares decisions with recorded answers of kube-scheduler.
//!
//! A recording is JSON lines. Each line holds a cluster (`snapshot`: `namespaces`, `nodes`, `pods` that are bound, and
//! `pending` pods, as Kubernetes objects) and what kube-scheduler said of each pending pod in turn (`expect`): `pod`;
//! `prefilter`, if no node was looked at; `reject`, by node `Plugin/Code: message`; `scores` of the feasible nodes by
//! plugin; and `chosen`, the node on which the pod then lies.
//!
//! ```
//! use icp_sched::oracle::Report;
//! let line = r#"{"snapshot": {
//!     "nodes": [{"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}}],
//!     "pending": [{"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeSelector": {"disk": "ssd"}}}]},
//!   "expect": [{"pod": "d/p", "reject": {"n":
//!     "NodeAffinity/UnschedulableAndUnresolvable: node(s) didn't match Pod's node affinity/selector"}}]}"#;
//! let mut report = Report::default();
//! report.line(1, line).unwrap();
//! assert_eq!((report.pods, report.equal), (1, 1));
//! assert!(report.is_equal());
//! ```

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use icp_core::api::Object;
use serde::Deserialize;

use crate::Scheduler;
use crate::framework::{Explanation, Verdict};
use crate::model::{ModelError, Node, Pod};

/// At most so many differences are told in words.
pub const DIFFERENCES_MAX: usize = 20;

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

/// A line is no recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct RecordingError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not JSON, or not of this form.
    #[error("{0}")]
    Json(String),
    /// A node or a pod cannot be read.
    #[error(transparent)]
    Object(#[from] ModelError),
    /// An answer is of another pod than the one whose turn it is.
    #[error("expect: {got} stands where the answer for {want} should")]
    Order {
        /// The pending pod.
        want: String,
        /// The pod of the answer.
        got: String,
    },
    /// There are more pods than answers, or fewer.
    #[error("expect: {answers} answers for {pods} pending pods")]
    Count {
        /// Pending pods.
        pods: usize,
        /// Answers.
        answers: usize,
    },
    /// The chosen node is not in the snapshot.
    #[error("expect: chosen: there is no node {0}")]
    NoNode(String),
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Clusters: lines that were compared.
    pub clusters: usize,
    /// Pods whose answer was compared.
    pub pods: usize,
    /// Pods of which every rejection, score and total, and the set of best nodes, are equal.
    pub equal: usize,
    /// The first differences, in words.
    pub differences: Vec<String>,
}

impl Report {
    /// Whether something was compared and nothing differs.
    #[must_use]
    pub const fn is_equal(&self) -> bool {
        self.pods > 0 && self.equal == self.pods
    }

    /// Compares the cluster of one line with number `at`; a blank line is none.
    ///
    /// # Errors
    /// If the line is no recording; what was compared of it before counts.
    pub fn line(&mut self, at: usize, line: &str) -> Result<(), RecordingError> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let parsed = serde_json::from_str(line).map_err(|e| Fault::Json(e.to_string()));
        parsed.and_then(|line| self.cluster(at, &line)).map_err(|fault| RecordingError { line: at, fault })
    }

    fn cluster(&mut self, at: usize, line: &Line) -> Result<(), Fault> {
        let Line { snapshot, expect } = line;
        if snapshot.pending.len() != expect.len() {
            return Err(Fault::Count { pods: snapshot.pending.len(), answers: expect.len() });
        }
        let mut scheduler = Scheduler::default();
        let cluster = scheduler.cluster_mut();
        for namespace in &snapshot.namespaces {
            cluster.set_namespace(&namespace.metadata.name, namespace.metadata.labels.clone());
        }
        for node in &snapshot.nodes {
            cluster.set_node(Node::from_object(node)?);
        }
        for pod in &snapshot.pods {
            cluster.set_pod(Pod::from_object(pod)?);
        }
        self.clusters += 1;
        for (object, expect) in snapshot.pending.iter().zip(expect) {
            let pod = Pod::from_object(object)?;
            if pod.key.to_string() != expect.pod {
                return Err(Fault::Order { want: pod.key.to_string(), got: expect.pod.clone() });
            }
            let mut differences = differences(&scheduler.explain(&pod), expect);
            let best = expect.best();
            match scheduler.schedule(&pod) {
                Ok(placement) if best.contains(&placement.name.as_str()) => {}
                Ok(placement) => differences.push(format!("placed on {}, best are {best:?}", placement.name)),
                Err(_) if best.is_empty() => {}
                Err(e) => differences.push(format!("not placed: {e}")),
            }
            self.pods += 1;
            self.equal += usize::from(differences.is_empty());
            let told = differences.into_iter().map(|d| format!("line {at}, pod {}: {d}", expect.pod));
            self.differences.extend(told.take(DIFFERENCES_MAX.saturating_sub(self.differences.len())));
            if let Some(chosen) = &expect.chosen {
                let node = scheduler.cluster().node_id(chosen);
                scheduler.assume(pod, node.ok_or_else(|| Fault::NoNode(chosen.clone()))?);
            }
        }
        Ok(())
    }
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
                    by_plugin.iter().map(|(p, s)| ((*p).to_owned(), *s)).collect();
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
    let (mut a, mut b) = (got.best(), want.best());
    a.sort_unstable();
    b.sort_unstable();
    if a != b {
        out.push(format!("best {a:?}, recorded {b:?}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"snapshot": {"nodes": [{"metadata": {"name": "n"}, "status": {"allocatable":
        {"cpu": "1", "memory": "1Gi", "pods": "9"}}}], "pending": [{"metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}]},
        "expect": [{"pod": "d/p", "reject": {"n": "NodeResourcesFit/Unschedulable: Insufficient cpu"}}]}"#;

    fn fault(line: &str) -> Fault {
        let error = Report::default().line(3, line).unwrap_err();
        assert_eq!(error.line, 3);
        error.fault
    }

    #[test]
    fn a_wrong_answer_is_told() {
        let mut report = Report::default();
        report.line(1, LINE).unwrap();
        assert_eq!((report.pods, report.equal, report.is_equal()), (1, 0, false));
        assert!(report.differences[0].contains("UnschedulableAndUnresolvable"), "{:?}", report.differences);
        for _ in 0..2 * DIFFERENCES_MAX {
            report.line(2, LINE).unwrap();
        }
        assert_eq!(report.differences.len(), DIFFERENCES_MAX);
    }

    #[test]
    fn what_is_no_recording_is_named() {
        assert!(matches!(fault("{"), Fault::Json(_)));
        let other = LINE.replace("d/p", "d/q");
        assert_eq!(fault(&other), Fault::Order { want: "d/p".into(), got: "d/q".into() });
        let (head, _) = LINE.split_once("\"expect\"").unwrap();
        assert_eq!(fault(&format!("{head}\"expect\": []}}")), Fault::Count { pods: 1, answers: 0 });
        let chosen = LINE.replace("\"pod\": \"d/p\"", "\"pod\": \"d/p\", \"chosen\": \"m\"");
        assert_eq!(fault(&chosen), Fault::NoNode("m".into()));
        assert!(!Report::default().is_equal(), "nothing compared is nothing shown");
    }
}
