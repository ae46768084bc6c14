//! The documented formulas, over plain lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use icp_core::api::labels::Op;
use icp_sched::model::{AffinityTerm, Effect, Node, NodeTerm, PodSpec, SpreadConstraint, Taint};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<(Arc<PodSpec>, String)>,
}

fn tolerated(pod: &PodSpec, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|t| t.tolerates(taint))
}

fn untolerated_hard(pod: &PodSpec, node: &Node) -> bool {
    let hard = |t: &&Taint| t.effect == Effect::NoSchedule || t.effect == Effect::NoExecute;
    node.taints.iter().filter(hard).any(|t| !tolerated(pod, t))
}

fn term_matches(term: &NodeTerm, node: &Node) -> bool {
    let some = !term.labels.is_empty() || !term.names.is_empty();
    let labels = term.labels.iter().all(|r| {
        let value = node.labels.get(&r.key);
        match r.op {
            Op::In => value.is_some_and(|v| r.values.contains(v)),
            Op::NotIn => value.is_none_or(|v| !r.values.contains(v)),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::Gt | Op::Lt => unreachable!("not generated"),
        }
    });
    some && labels && term.names.iter().all(|r| r.values.contains(&node.name))
}

fn affinity_matches(pod: &PodSpec, node: &Node) -> bool {
    let selected = pod.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    selected && pod.node_terms.as_ref().is_none_or(|terms| terms.iter().any(|t| term_matches(t, node)))
}

fn percent(values: &[i64], reverse: bool) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    let scale = |v: i64| if max == 0 { 0 } else { 100 * v / max };
    values.iter().map(|v| if reverse { 100 - scale(*v) } else { scale(*v) }).collect()
}

impl World {
    fn on<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a PodSpec> {
        self.pods.iter().filter(|(_, n)| *n == node.name).map(|(p, _)| &**p)
    }

    pub(crate) fn rejects_outright(&self, pod: &PodSpec) -> bool {
        // Every term names nodes, and no name is left in any.
        pod.node_terms.as_ref().is_some_and(|terms| {
            !terms.is_empty()
                && terms.iter().all(|t| !t.names.is_empty() && t.names.iter().all(|r| r.values.is_empty()))
        })
    }

    /// The first plugin that rejects the node, and whether preemption could help.
    pub(crate) fn rejection(&self, pod: &PodSpec, node: &Node) -> Option<(&'static str, bool)> {
        let named = pod.node_terms.as_ref().is_some_and(|terms| {
            !terms.is_empty()
                && terms.iter().all(|t| !t.names.is_empty())
                && !terms.iter().any(|t| t.names.iter().all(|r| r.values.contains(&node.name)))
        });
        if named {
            return Some(("NodeAffinity", false));
        }
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: String::new(),
            effect: Effect::NoSchedule,
        };
        if node.unschedulable && !tolerated(pod, &cordon) {
            return Some(("NodeUnschedulable", false));
        }
        if untolerated_hard(pod, node) {
            return Some(("TaintToleration", false));
        }
        if !affinity_matches(pod, node) {
            return Some(("NodeAffinity", false));
        }
        let ports: Vec<_> = self.on(node).flat_map(|p| &p.host_ports).collect();
        if pod.host_ports.iter().any(|p| ports.iter().any(|u| p.conflicts(u))) {
            return Some(("NodePorts", true));
        }
        self.fit(pod, node).or_else(|| self.spread(pod, node)).or_else(|| self.interpod(pod, node))
    }

    fn fit(&self, pod: &PodSpec, node: &Node) -> Option<(&'static str, bool)> {
        let sum = |f: fn(&PodSpec) -> i64| self.on(node).map(f).sum::<i64>();
        let gpu = |p: &PodSpec| p.requests.scalars.get("example.com/gpu").copied().unwrap_or(0);
        let have = &node.allocatable;
        let lacks = [
            (pod.requests.cpu, have.cpu, sum(|p| p.requests.cpu)),
            (pod.requests.memory, have.memory, sum(|p| p.requests.memory)),
            (pod.requests.ephemeral, have.ephemeral, sum(|p| p.requests.ephemeral)),
            (
                gpu(pod),
                have.scalars.get("example.com/gpu").copied().unwrap_or(0),
                self.on(node).map(gpu).sum::<i64>(),
            ),
        ];
        let lacks: Vec<_> =
            lacks.into_iter().filter(|(ask, have, used)| *ask > 0 && *ask > have - used).collect();
        let full = self.on(node).count() as i64 + 1 > node.pods_max;
        (full || !lacks.is_empty())
            .then(|| ("NodeResourcesFit", lacks.iter().all(|(ask, have, _)| ask <= have)))
    }

    /// Pods that count for a constraint on a node.
    fn counted(&self, pod: &PodSpec, c: &SpreadConstraint, node: &Node) -> i64 {
        if c.selector.is_everything() {
            return 0;
        }
        let counts =
            |p: &&PodSpec| !p.terminating && p.namespace == pod.namespace && c.selector.matches(&p.labels);
        self.on(node).filter(counts).count() as i64
    }

    fn eligible(&self, pod: &PodSpec, all: &[SpreadConstraint], c: &SpreadConstraint, node: &Node) -> bool {
        all.iter().all(|c| node.labels.contains_key(&c.topology_key))
            && (!c.honor_affinity || affinity_matches(pod, node))
            && (!c.honor_taints || !untolerated_hard(pod, node))
    }

    fn spread(&self, pod: &PodSpec, node: &Node) -> Option<(&'static str, bool)> {
        for c in &pod.spread_hard {
            let Some(value) = node.labels.get(&c.topology_key) else {
                return Some(("PodTopologySpread", false));
            };
            let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
            for n in self.nodes.iter().filter(|n| self.eligible(pod, &pod.spread_hard, c, n)) {
                *domains.entry(&n.labels[&c.topology_key]).or_default() += self.counted(pod, c, n);
            }
            let least = if (domains.len() as i64) < c.min_domains {
                0
            } else {
                domains.values().copied().min().unwrap_or(0)
            };
            let own = i64::from(c.selector.matches(&pod.labels));
            let there = domains.get(value).copied().unwrap_or(0);
            if there + own - least > c.max_skew {
                return Some(("PodTopologySpread", true));
            }
        }
        None
    }

    /// Whether a term of `owner` means `other`.
    fn means(&self, term: &AffinityTerm, other: &PodSpec) -> bool {
        let in_list = term.namespaces.contains(&other.namespace);
        let selected =
            term.namespace_selector.as_ref().is_some_and(|s| s.matches(&self.namespaces[&other.namespace]));
        (in_list || selected) && term.selector.matches(&other.labels)
    }

    /// Existing pods in the same domain of `key` as the node.
    fn near<'a>(&'a self, key: &'a str, node: &'a Node) -> impl Iterator<Item = &'a PodSpec> {
        let same = move |n: &&Node| n.labels.contains_key(key) && n.labels.get(key) == node.labels.get(key);
        self.nodes.iter().filter(same).flat_map(|n| self.on(n))
    }

    fn placed(&self) -> impl Iterator<Item = (&PodSpec, &Node)> {
        self.nodes.iter().flat_map(|n| self.on(n).map(move |p| (p, n)))
    }

    fn interpod(&self, pod: &PodSpec, node: &Node) -> Option<(&'static str, bool)> {
        let all = |existing: &PodSpec| pod.affinity.iter().all(|t| self.means(t, existing));
        if pod.affinity.iter().any(|t| !node.labels.contains_key(&t.topology_key)) {
            return Some(("InterPodAffinity", false));
        }
        let met = |t: &AffinityTerm| self.near(&t.topology_key, node).any(all);
        if !pod.affinity.iter().all(met) {
            let nobody = !self
                .placed()
                .any(|(p, n)| all(p) && pod.affinity.iter().any(|t| n.labels.contains_key(&t.topology_key)));
            if !(nobody && all(pod)) {
                return Some(("InterPodAffinity", false));
            }
        }
        if pod.anti_affinity.iter().any(|t| self.near(&t.topology_key, node).any(|p| self.means(t, p))) {
            return Some(("InterPodAffinity", true));
        }
        let repels = |(p, n): (&PodSpec, &Node)| {
            p.anti_affinity.iter().any(|t| {
                self.means(t, pod)
                    && n.labels.contains_key(&t.topology_key)
                    && n.labels.get(&t.topology_key) == node.labels.get(&t.topology_key)
            })
        };
        self.placed().any(repels).then_some(("InterPodAffinity", true))
    }

    /// Weighted points of the feasible nodes, by plugin.
    pub(crate) fn scores(&self, pod: &PodSpec, feasible: &[&Node]) -> Vec<(&'static str, Vec<i64>)> {
        let times =
            |points: Vec<i64>, weight: i64| points.into_iter().map(|p| p * weight).collect::<Vec<_>>();
        let mut out = Vec::new();
        let soft = |n: &&Node| {
            let repels = |t: &&Taint| t.effect == Effect::PreferNoSchedule && !tolerated(pod, t);
            n.taints.iter().filter(repels).count() as i64
        };
        out.push((
            "TaintToleration",
            times(percent(&feasible.iter().map(soft).collect::<Vec<_>>(), true), 3),
        ));
        if let Some(preferences) = &pod.node_preferences {
            let met = |n: &&Node| {
                preferences.iter().filter(|p| term_matches(&p.term, n)).map(|p| p.weight).sum::<i64>()
            };
            out.push((
                "NodeAffinity",
                times(percent(&feasible.iter().map(met).collect::<Vec<_>>(), false), 2),
            ));
        }
        out.push(("NodeResourcesFit", feasible.iter().map(|n| self.least_allocated(pod, n)).collect()));
        if let Some(points) = self.spread_points(pod, feasible) {
            out.push(("PodTopologySpread", times(points, 2)));
        }
        if let Some(points) = self.interpod_points(pod, feasible) {
            out.push(("InterPodAffinity", times(points, 2)));
        }
        if pod.requests.cpu > 0 || pod.requests.memory > 0 {
            out.push((
                "NodeResourcesBalancedAllocation",
                feasible.iter().map(|n| self.balanced(pod, n)).collect(),
            ));
        }
        out.push(("ImageLocality", feasible.iter().map(|n| self.images(pod, n)).collect()));
        out
    }

    fn least_allocated(&self, pod: &PodSpec, node: &Node) -> i64 {
        let cpu: i64 = self.on(node).map(|p| p.non_zero_cpu).sum::<i64>() + pod.non_zero_cpu;
        let memory: i64 = self.on(node).map(|p| p.non_zero_memory).sum::<i64>() + pod.non_zero_memory;
        let free = |used: i64, have: i64| if used > have { 0 } else { (have - used) * 100 / have };
        (free(cpu, node.allocatable.cpu) + free(memory, node.allocatable.memory)) / 2
    }

    fn balanced(&self, pod: &PodSpec, node: &Node) -> i64 {
        let cpu = self.on(node).map(|p| p.requests.cpu).sum::<i64>() + pod.requests.cpu;
        let memory = self.on(node).map(|p| p.requests.memory).sum::<i64>() + pod.requests.memory;
        let part = |used: i64, have: i64| (used as f64 / have as f64).min(1.0);
        let (a, b) = (part(cpu, node.allocatable.cpu), part(memory, node.allocatable.memory));
        ((1.0 - ((a - b) / 2.0).abs()) * 100.0) as i64
    }

    fn images(&self, pod: &PodSpec, node: &Node) -> i64 {
        if pod.images.is_empty() {
            return 0;
        }
        let holders = |image: &String| {
            self.nodes.iter().filter(|n| n.images.iter().any(|i| i.names.contains(image))).collect::<Vec<_>>()
        };
        let mut sum = 0;
        for image in &pod.images {
            let holders = holders(image);
            if holders.iter().any(|n| n.name == node.name) {
                // The size that is known is that of the first node that told of the image.
                let size = holders[0].images.iter().find(|i| i.names.contains(image)).unwrap().bytes;
                sum += (size as f64 * (holders.len() as f64 / self.nodes.len() as f64)) as i64;
            }
        }
        let (min, max) = (23 << 20, (1000 << 20) * pod.images.len() as i64);
        100 * (sum.clamp(min, max) - min) / (max - min)
    }

    fn spread_points(&self, pod: &PodSpec, feasible: &[&Node]) -> Option<Vec<i64>> {
        let list = &pod.spread_soft;
        if list.is_empty() {
            return None;
        }
        let labelled = |n: &Node| list.iter().all(|c| n.labels.contains_key(&c.topology_key));
        let candidates: Vec<&&Node> = feasible.iter().filter(|n| labelled(n)).collect();
        let raw = |node: &Node| {
            let mut score = 0.0;
            for c in list {
                let host = c.topology_key == "kubernetes.io/hostname";
                let value = &node.labels[&c.topology_key];
                let (domains, pods) = if host {
                    (candidates.len(), self.counted(pod, c, node))
                } else {
                    let domains: BTreeSet<_> =
                        candidates.iter().map(|n| &n.labels[&c.topology_key]).collect();
                    let nodes = self.nodes.iter().filter(|n| self.eligible(pod, list, c, n));
                    let here = nodes.filter(|n| n.labels[&c.topology_key] == *value);
                    (domains.len(), here.map(|n| self.counted(pod, c, n)).sum())
                };
                score += pods as f64 * ((domains + 2) as f64).ln() + (c.max_skew - 1) as f64;
            }
            score.round() as i64
        };
        let scores: Vec<Option<i64>> = feasible.iter().map(|n| labelled(n).then(|| raw(n))).collect();
        let min = scores.iter().flatten().min().copied().unwrap_or(0);
        let max = scores.iter().flatten().max().copied().unwrap_or(0);
        let points =
            |s: &Option<i64>| s.map_or(0, |s| if max == 0 { 100 } else { 100 * (max + min - s) / max });
        Some(scores.iter().map(points).collect())
    }

    fn interpod_points(&self, pod: &PodSpec, feasible: &[&Node]) -> Option<Vec<i64>> {
        // What each existing pod says: by which key, on which node, how much.
        let mut said: Vec<(&str, &Node, i64)> = Vec::new();
        for (existing, node) in self.placed() {
            let mut say = |t: &AffinityTerm, weight: i64, meant: bool| {
                if let Some((key, _)) = node.labels.get_key_value(&t.topology_key).filter(|_| meant) {
                    said.push((key, node, weight));
                }
            };
            for p in &pod.affinity_preferences {
                say(&p.term, p.weight, self.means(&p.term, existing));
            }
            for p in &pod.anti_affinity_preferences {
                say(&p.term, -p.weight, self.means(&p.term, existing));
            }
            for t in &existing.affinity {
                say(t, 1, self.means(t, pod));
            }
            for p in &existing.affinity_preferences {
                say(&p.term, p.weight, self.means(&p.term, pod));
            }
            for p in &existing.anti_affinity_preferences {
                say(&p.term, -p.weight, self.means(&p.term, pod));
            }
        }
        if said.is_empty() {
            return None;
        }
        let sum = |node: &&Node| {
            let here = said.iter().filter(|(key, n, _)| n.labels.get(*key) == node.labels.get(*key));
            here.map(|(_, _, weight)| weight).sum::<i64>()
        };
        let sums: Vec<i64> = feasible.iter().map(sum).collect();
        let (min, max) = (sums.iter().min().copied()?, sums.iter().max().copied()?);
        let points =
            |s: &i64| if max == min { 0 } else { (100.0 * ((s - min) as f64 / (max - min) as f64)) as i64 };
        Some(sums.iter().map(points).collect())
    }
}
