//! What the rows of a group have in common, given what a class of pods cares for.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::index::Key;
use crate::cache::{Cluster, NO_DOMAIN};
use crate::model::PodSpec;
use crate::plugins::interpod::{Field, Fields};
use crate::plugins::spread::{Hard, Soft};

/// Where taints and node affinity stand in a key.
pub(super) const TAINTS: usize = 0;
pub(super) const AFFINITY: usize = 1;
const FIRST: usize = 2;

/// A number that is read from a row because its domain is that row alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Hard {
        at: usize,
        column: usize,
    },
    /// Counted by row.
    SoftRow {
        at: usize,
    },
    Soft {
        at: usize,
        column: usize,
    },
    Field {
        field: Field,
        column: usize,
    },
}

/// How a number of a group is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Where the key has the domain, or for single rows 0; less than 0 without the label.
    pub(super) label: usize,
    /// Where the key has the number itself.
    pub(super) value: Option<usize>,
    pub(super) column: usize,
}

/// The layout of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Axes {
    /// Columns, and whether each domain is one row.
    columns: Vec<(usize, bool)>,
    values: Vec<Value>,
    pub(super) hard: Vec<Look>,
    pub(super) soft: Vec<Look>,
    /// For each term of the pod.
    pub(super) affinity: Vec<Look>,
    pub(super) anti: Vec<Look>,
    /// For each column that existing pods have a say in.
    pub(super) existing: Vec<Look>,
    pub(super) score: Vec<Look>,
}

impl Axes {
    /// The layout for a pod, given in which columns pods that run have a say; `None` if a topology key has no column.
    pub(super) fn of(
        cluster: &Cluster,
        pod: &PodSpec,
        soft: Option<&Soft>,
        said: &BTreeSet<(Field, usize)>,
    ) -> Option<Self> {
        let mut axes = Self::default();
        let topology = &cluster.columns().topology;
        for (at, c) in pod.spread_hard.iter().enumerate() {
            let column = topology.find(&c.topology_key)?;
            let look = axes.look(cluster, column, Value::Hard { at, column });
            axes.hard.push(look);
        }
        for (at, c) in soft.into_iter().flat_map(Soft::list).enumerate() {
            let column = topology.find(&c.topology_key)?;
            let per_node = soft.is_some_and(|s| s.per_node(at));
            let mut look = axes.look(cluster, column, Value::Soft { at, column });
            if per_node && look.value.is_none() {
                look.value = Some(axes.value(Value::SoftRow { at }));
            } else if per_node {
                axes.values.pop();
                look.value = Some(axes.value(Value::SoftRow { at }));
            }
            axes.soft.push(look);
        }
        for (terms, field) in [(&pod.affinity, Field::Affinity), (&pod.anti_affinity, Field::Anti)] {
            for term in terms {
                let column = topology.find(&term.topology_key)?;
                let look = axes.look(cluster, column, Value::Field { field, column });
                if field == Field::Affinity { &mut axes.affinity } else { &mut axes.anti }.push(look);
            }
        }
        for field in [Field::Existing, Field::Score] {
            for column in said.iter().filter(|(f, _)| *f == field).map(|(_, column)| *column) {
                let look = axes.look(cluster, column, Value::Field { field, column });
                if field == Field::Existing { &mut axes.existing } else { &mut axes.score }.push(look);
            }
        }
        axes.finish();
        Some(axes)
    }

    fn look(&mut self, cluster: &Cluster, column: usize, value: Value) -> Look {
        let unique = cluster.columns().topology.is_unique(column);
        let label = match self.columns.iter().position(|(c, _)| *c == column) {
            Some(at) => at,
            None => {
                self.columns.push((column, unique));
                self.columns.len() - 1
            }
        };
        let value = unique.then(|| self.value(value));
        Look { label, value, column }
    }

    fn value(&mut self, value: Value) -> usize {
        match self.values.iter().position(|v| *v == value) {
            Some(at) => at,
            None => {
                self.values.push(value);
                self.values.len() - 1
            }
        }
    }

    /// Turns positions in lists into positions in keys.
    fn finish(&mut self) {
        let values_from = FIRST + self.columns.len();
        let lists = [
            &mut self.hard,
            &mut self.soft,
            &mut self.affinity,
            &mut self.anti,
            &mut self.existing,
            &mut self.score,
        ];
        for look in lists.into_iter().flatten() {
            look.label += FIRST;
            look.value = look.value.map(|v| v + values_from);
        }
    }

    /// Whether groups depend on taints and node affinity alone.
    pub(super) fn is_plain(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether existing pods have a say in a column of a field that the layout does not have.
    pub(super) fn lacks(&self, field: Field, column: usize) -> bool {
        let list = match field {
            Field::Existing => &self.existing,
            Field::Score => &self.score,
            Field::Affinity => &self.affinity,
            Field::Anti => &self.anti,
        };
        !list.iter().any(|l| l.column == column)
    }

    /// Whether a domain of a column that rejections look at may have several nodes.
    pub(super) fn is_shared(&self) -> bool {
        [&self.hard, &self.affinity, &self.anti, &self.existing]
            .into_iter()
            .flatten()
            .any(|l| l.value.is_none())
    }

    /// The topology columns that matter.
    pub(super) fn columns(&self) -> impl ExactSizeIterator<Item = usize> {
        self.columns.iter().map(|(column, _)| *column)
    }

    /// The place of a topology column among those that matter.
    pub(super) fn place(&self, column: usize) -> Option<usize> {
        self.columns.iter().position(|(c, _)| *c == column)
    }

    /// The place of the column that a look is at.
    pub(super) const fn place_of(look: &Look) -> usize {
        look.label - FIRST
    }

    /// Whether a column has, or has no longer, domains of several nodes.
    pub(super) fn is_outdated(&self, cluster: &Cluster) -> bool {
        self.columns.iter().any(|(column, unique)| cluster.columns().topology.is_unique(*column) != *unique)
    }

    /// The key of a row whose domains in the columns that matter are these.
    pub(super) fn key(
        &self,
        (taints, affinity): (i64, i64),
        (hard, soft, fields): (Option<&Hard>, Option<&Soft>, &Fields),
        row: usize,
        domains: &[u32],
    ) -> Key {
        let mut key = Key::new();
        key.push(taints);
        key.push(affinity);
        for ((_, unique), domain) in self.columns.iter().zip(domains) {
            key.push(match *domain {
                NO_DOMAIN => -1,
                _ if *unique => 0,
                domain => i64::from(domain),
            });
        }
        let domain = |column| self.place(column).and_then(|at| domains.get(at)).copied().unwrap_or(NO_DOMAIN);
        for value in &self.values {
            key.push(match *value {
                Value::SoftRow { at } => soft.map_or(0, |s| s.count(at, row)),
                Value::Hard { column, .. } | Value::Soft { column, .. } | Value::Field { column, .. }
                    if domain(column) == NO_DOMAIN =>
                {
                    0
                }
                Value::Hard { at, column } => hard.map_or(0, |h| h.count(at, domain(column))),
                Value::Soft { at, column } => soft.map_or(0, |s| s.count(at, domain(column) as usize)),
                Value::Field { field: Field::Score, column } => {
                    fields.get(Field::Score, column, domain(column))
                }
                Value::Field { field, column } => i64::from(fields.get(field, column, domain(column)) > 0),
            });
        }
        key
    }
}
