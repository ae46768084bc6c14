//! Decisions that follow the changes of the cluster instead of looking at every node.
//!
//! For each class of pods it keeps which nodes will do and how many points they get, and catches up with what changed
//! since the class was last asked about. The outcome is that of asking every plugin about every node.

mod axes;
mod choose;
mod index;
mod rows;
mod state;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::choose::Choice;
use self::state::ClassState;
use crate::cache::{Cluster, Map, NodeId};
use crate::framework::{Rejected, Rejection};
use crate::model::PodSpec;
use crate::plugins::{node_affinity, spread};

/// Rows that all classes together may keep, in millions of bytes; and the least and most number of classes.
const BYTES_MAX: usize = 1 << 30;
const BYTES_PER_ROW: usize = 64;
const CLASSES_MIN: usize = 16;
const CLASSES_MAX: usize = 2048;

/// How a decision ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Chosen(Choice),
    /// No node will do: how many each rejection keeps off.
    None(Vec<(Rejection, usize)>),
    /// Ask every plugin about every node.
    AskAll,
}

/// The classes that are kept.
#[derive(Debug, Default)]
pub(crate) struct Fast {
    states: Vec<ClassState>,
    by_address: Map<usize, usize>,
    by_spec: Map<Arc<PodSpec>, usize>,
    tick: u64,
}

impl Fast {
    /// Decides on a pod of `spec`; `hidden` rows will not do, for these reasons.
    pub(super) fn decide(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        start: usize,
        hidden: &[(NodeId, Rejection)],
    ) -> Outcome {
        if !Self::knows(spec) {
            return Outcome::AskAll;
        }
        if let Some(names) = node_affinity::named(spec) {
            return if hidden.is_empty() {
                self.decide_named(cluster, spec, &names)
            } else {
                Outcome::AskAll
            };
        }
        let state = self.state(cluster, spec);
        if state.unusual {
            return Outcome::AskAll;
        }
        let places: Vec<_> = hidden.iter().map(|(id, _)| state.index.remove(id.row())).collect();
        let mut rejections: BTreeMap<u32, usize> = BTreeMap::new();
        let mut by_group: Vec<(Rejection, usize)> = Vec::new();
        let choice = state.choose(start, |rejection, n| by_group.push((rejection, n)));
        if choice.is_none() {
            rejections = state.rejections();
            for ((id, _), place) in hidden.iter().zip(&places) {
                // A node that would not do anyway is counted once, for the reason that was given first.
                if place.is_none()
                    && let Some(number) = state.verdict_number(id.row())
                    && let Some(n) = rejections.get_mut(&number)
                {
                    *n = n.saturating_sub(1);
                }
            }
        }
        for ((id, _), place) in hidden.iter().zip(places) {
            if let Some(place) = place {
                state.index.restore(id.row(), place);
            }
        }
        match choice {
            Some(choice) => Outcome::Chosen(choice),
            None => {
                let of = |(number, n): (u32, usize)| Some((state.rejection(number)?.clone(), n));
                let mut all: Vec<_> = rejections.into_iter().filter_map(of).filter(|(_, n)| *n > 0).collect();
                all.extend(by_group);
                all.extend(hidden.iter().map(|(_, r)| (r.clone(), 1)));
                Outcome::None(all)
            }
        }
    }

    /// Why a node will not do for a pod of `spec`, if anything; `None` if every plugin has to be asked.
    pub(super) fn reject(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        id: NodeId,
    ) -> Option<Option<Rejection>> {
        if !Self::knows(spec) || node_affinity::named(spec).is_some() {
            return None;
        }
        let state = self.state(cluster, spec);
        if state.unusual {
            return None;
        }
        Some(match state.verdict(id.row()).1 {
            Some(rejection) => Some(rejection.clone()),
            None => state.index.key(id.row()).and_then(|key| state.judge(key)),
        })
    }

    /// Whether other pods matter to pods of `spec` only by what they take of a node.
    pub(super) fn is_plain(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> bool {
        if !Self::knows(spec) || node_affinity::named(spec).is_some() {
            return false;
        }
        let state = self.state(cluster, spec);
        state.axes.is_plain() && !state.unusual
    }

    /// Whether all that matters to pods of `spec` is kept here.
    fn knows(spec: &PodSpec) -> bool {
        spec.spread_hard.len().max(spec.spread_soft.len()) <= spread::CONSTRAINTS_MAX
            && spec.volumes.is_empty()
            && spec.features.is_empty()
    }

    /// A pod that names its nodes, as those of DaemonSets do: only these are looked at, by the state of the class
    /// without the names.
    fn decide_named(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        names: &alloc::collections::BTreeSet<&str>,
    ) -> Outcome {
        if names.is_empty() || !spec.spread_hard.is_empty() || !spec.spread_soft.is_empty() {
            return Outcome::AskAll;
        }
        let anywhere = Arc::new(PodSpec { node_terms: None, ..PodSpec::clone(spec) });
        let state = self.state(cluster, &anywhere);
        if state.unusual {
            return Outcome::AskAll;
        }
        let ids: Vec<NodeId> = names.iter().filter_map(|n| cluster.node_id(n)).collect();
        let (mut feasible, mut rejected) = (Vec::new(), Vec::new());
        for id in &ids {
            let Some(node) = cluster.node(*id) else { continue };
            let (fixed, any) = state.verdict(id.row());
            let rejection = match (fixed, any) {
                (Some(fixed), _) => Some(fixed.clone()),
                _ if !node_affinity::allows(spec, node) => {
                    Some(node_affinity::rejection().by("NodeAffinity"))
                }
                (None, Some(any)) => Some(any.clone()),
                (None, None) => state.index.key(id.row()).and_then(|key| state.judge(key)),
            };
            match rejection {
                Some(r) => rejected.push((r, 1)),
                None => feasible.push(id.row()),
            }
        }
        match feasible.as_slice() {
            [row] => Outcome::Chosen(Choice { row: *row, feasible: 1 }),
            [] => {
                let others = cluster.node_count() - ids.len();
                if others > 0 {
                    let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
                    rejected.push((Rejected::unresolvable(reason).by("NodeAffinity"), others));
                }
                Outcome::None(rejected)
            }
            _ => Outcome::AskAll,
        }
    }

    fn state(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> &mut ClassState {
        self.tick += 1;
        let known =
            self.by_address.get(&Arc::as_ptr(spec).addr()).or_else(|| self.by_spec.get(spec)).copied();
        let at = match known {
            Some(at) => at,
            None => self.add(cluster, spec),
        };
        #[expect(clippy::indexing_slicing, reason = "the maps name states that are there")]
        let state = &mut self.states[at];
        state.used = self.tick;
        state.catch_up(cluster);
        state
    }

    fn add(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> usize {
        let rows = cluster.columns().rows().max(1);
        let max = (BYTES_MAX / rows / BYTES_PER_ROW).clamp(CLASSES_MIN, CLASSES_MAX);
        let state = ClassState::build(cluster, spec);
        let oldest = self.states.iter().enumerate().min_by_key(|(_, s)| s.used).map(|(at, _)| at);
        let at = match oldest.filter(|_| self.states.len() >= max) {
            Some(at) => {
                if let Some(slot) = self.states.get_mut(at) {
                    let old = core::mem::replace(slot, state);
                    self.by_address.remove(&Arc::as_ptr(&old.spec).addr());
                    self.by_spec.remove(&old.spec);
                }
                at
            }
            None => {
                self.states.push(state);
                self.states.len() - 1
            }
        };
        self.by_address.insert(Arc::as_ptr(spec).addr(), at);
        self.by_spec.insert(Arc::clone(spec), at);
        at
    }
}
