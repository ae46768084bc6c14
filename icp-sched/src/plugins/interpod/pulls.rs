//! What existing pods do to the places of a new one, asked once for each class of existing pods.

use alloc::collections::BTreeMap;
use alloc::string::String;

use smallvec::SmallVec;

use crate::cache::domains::Domains;
use crate::cache::{ClassId, Cluster, Map, NO_DOMAIN};
use crate::model::{AffinityTerm, PodSpec};

/// How much a required affinity of an existing pod attracts, unless told otherwise (`hardPodAffinityWeight`).
pub(crate) const HARD_WEIGHT: i64 = 1;

/// What a pull counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    /// Existing pods that must not be with the new one.
    Existing,
    /// Pods that the new one has to be with.
    Affinity,
    /// Pods that the new one must not be with.
    Anti,
    /// Preferences of both.
    Score,
}

/// One existing pod changes a number of its domain by so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) field: Field,
    pub(crate) column: usize,
    amount: i64,
}

/// All pulls of one existing pod on a new one.
pub(crate) type Pulls = SmallVec<[Pull; 2]>;

/// Whether a term of the new pod means an existing one. The namespaces that a selector means are those that exist.
fn means(cluster: &Cluster, term: &AffinityTerm, existing: &PodSpec) -> bool {
    let namespace = &existing.namespace;
    let there = term.namespaces.iter().any(|n| n == namespace)
        || term.namespace_selector.as_ref().is_some_and(|s| {
            s.is_everything() || cluster.namespace(namespace).is_some_and(|labels| s.matches(labels))
        });
    there && term.selector.matches(&existing.labels)
}

/// Whether all required terms of `pod` mean `existing`; false if it has none.
pub(crate) fn attracts_all(cluster: &Cluster, pod: &PodSpec, existing: &PodSpec) -> bool {
    !pod.affinity.is_empty() && pod.affinity.iter().all(|t| means(cluster, t, existing))
}

/// What one pod of `existing` does to the places of `pod`.
pub(crate) fn pulls(
    cluster: &Cluster,
    pod: &PodSpec,
    existing: &PodSpec,
    filter: bool,
    score: bool,
) -> Pulls {
    pulls_with(cluster, pod, existing, filter, score.then_some(HARD_WEIGHT))
}

/// The same; `score` is how much a required affinity of an existing pod attracts, if pulls that score are wanted.
fn pulls_with(
    cluster: &Cluster,
    pod: &PodSpec,
    existing: &PodSpec,
    filter: bool,
    score: Option<i64>,
) -> Pulls {
    let mut pulls = Pulls::new();
    let topology = &cluster.columns().topology;
    let mut pull = |field, key: &str, amount| {
        if let Some(column) = topology.find(key) {
            pulls.push(Pull { field, column, amount });
        }
    };
    let own: Option<&BTreeMap<String, String>> = cluster.namespace(&pod.namespace);
    let meant = |term: &AffinityTerm| term.matches(&pod.namespace, own, &pod.labels);
    if filter {
        for term in existing.anti_affinity.iter().filter(|t| meant(t)) {
            pull(Field::Existing, &term.topology_key, 1);
        }
        if attracts_all(cluster, pod, existing) {
            for term in &pod.affinity {
                pull(Field::Affinity, &term.topology_key, 1);
            }
        }
        for term in pod.anti_affinity.iter().filter(|t| means(cluster, t, existing)) {
            pull(Field::Anti, &term.topology_key, 1);
        }
    }
    if let Some(hard_weight) = score {
        for (sign, preferences) in [(1, &pod.affinity_preferences), (-1, &pod.anti_affinity_preferences)] {
            for p in preferences.iter().filter(|p| means(cluster, &p.term, existing)) {
                pull(Field::Score, &p.term.topology_key, p.weight.saturating_mul(sign));
            }
        }
        for term in existing.affinity.iter().filter(|t| hard_weight != 0 && meant(t)) {
            pull(Field::Score, &term.topology_key, hard_weight);
        }
        for (sign, preferences) in
            [(1, &existing.affinity_preferences), (-1, &existing.anti_affinity_preferences)]
        {
            for p in preferences.iter().filter(|p| meant(&p.term)) {
                pull(Field::Score, &p.term.topology_key, p.weight.saturating_mul(sign));
            }
        }
    }
    pulls
}

/// The sums of all pulls, by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    existing: Domains,
    affinity: Domains,
    anti: Domains,
    score: Domains,
}

impl Fields {
    /// The sums over all pods that run.
    pub(crate) fn build(cluster: &Cluster, pod: &PodSpec, filter: bool, score: bool) -> Self {
        Self::build_with(cluster, pod, filter, score.then_some(HARD_WEIGHT))
    }

    /// The same; `score` is how much a required affinity of an existing pod attracts, if sums that score are wanted.
    pub(crate) fn build_with(cluster: &Cluster, pod: &PodSpec, filter: bool, score: Option<i64>) -> Self {
        let mut fields = Self::default();
        let mut known: Map<ClassId, Pulls> = Map::default();
        for (id, _) in cluster.nodes() {
            for (class, count) in cluster.class_counts(id.row()) {
                let pulls = known.entry(class).or_insert_with(|| match cluster.spec(class) {
                    Some(existing) => pulls_with(cluster, pod, existing, filter, score),
                    None => Pulls::new(),
                });
                fields.apply(cluster, pulls, id.row(), i64::from(count));
            }
        }
        fields
    }

    /// So many pods with these pulls came to a node, or went if `times` is negative.
    pub(crate) fn apply(&mut self, cluster: &Cluster, pulls: &Pulls, row: usize, times: i64) {
        self.apply_where(pulls, |column| cluster.columns().topology.domain(column, row), times);
    }

    /// The same for a node that is, or was, in these domains of columns.
    pub(crate) fn apply_where(&mut self, pulls: &Pulls, domain: impl Fn(usize) -> u32, times: i64) {
        for pull in pulls {
            let domain = domain(pull.column);
            if domain != NO_DOMAIN {
                let amount = pull.amount.saturating_mul(times);
                self.of_mut(pull.field).add(pull.column, domain, amount, times);
            }
        }
    }

    /// The sum of a domain.
    pub(crate) fn get(&self, field: Field, column: usize, domain: u32) -> i64 {
        self.of(field).get(column, domain)
    }

    /// How many pulls there are.
    pub(crate) const fn entries(&self, field: Field) -> i64 {
        self.of(field).entries
    }

    /// The columns with their sums.
    pub(crate) fn columns(&self, field: Field) -> impl Iterator<Item = (usize, &[i64])> {
        self.of(field).columns()
    }

    const fn of(&self, field: Field) -> &Domains {
        match field {
            Field::Existing => &self.existing,
            Field::Affinity => &self.affinity,
            Field::Anti => &self.anti,
            Field::Score => &self.score,
        }
    }

    const fn of_mut(&mut self, field: Field) -> &mut Domains {
        match field {
            Field::Existing => &mut self.existing,
            Field::Affinity => &mut self.affinity,
            Field::Anti => &mut self.anti,
            Field::Score => &mut self.score,
        }
    }
}
