//! A class of pods as it is now, to try what would keep its pods off a node if other pods were there or not.

use alloc::sync::Arc;

use super::choose::Judge;
use super::counts::Changes;
use super::feed::Feed;
use super::index::Key;
use super::kinds::Kinds;
use super::rules::Rules;
use super::state::ClassState;
use super::{Fast, node_affinity};
use crate::cache::{ClassId, Cluster};
use crate::framework::Rejection;
use crate::model::PodSpec;

/// A class that is up to date. What is counted away with [`Probe::count`] has to be counted back.
pub(in crate::scheduler) struct Probe<'f> {
    state: &'f mut ClassState,
    kinds: &'f Kinds,
    feed: &'f Feed,
    rules: &'f Rules,
}

/// What one pod on a node means to a class; nothing if it matters by no more than what it takes.
#[derive(Clone, Debug)]
pub(in crate::scheduler) struct Touch(Option<Arc<Changes>>);

impl Touch {
    /// Whether the pod can make a node do, or not do.
    pub(in crate::scheduler) fn matters(&self) -> bool {
        self.0.as_ref().is_some_and(|changes| changes.filter())
    }
}

impl Fast {
    /// The class of a spec; `None` if every plugin has to be asked.
    pub(in crate::scheduler) fn probe(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
    ) -> Option<Probe<'_>> {
        if !Self::knows(spec) || node_affinity::named(spec).is_some() {
            return None;
        }
        let at = self.class(cluster, spec);
        if !self.states.get(at).is_some_and(ClassState::is_by_load) {
            self.repair_as_is(cluster, at);
        }
        let Self { states, kinds, feed, rules, .. } = self;
        let state = states.get_mut(at).filter(|s| !s.unusual)?;
        let kinds = kinds.get(state.kinds)?;
        Some(Probe { state, kinds, feed, rules })
    }
}

impl Probe<'_> {
    /// Changes when what was counted before means nothing any more.
    pub(in crate::scheduler) const fn generation(&self) -> (u64, u64) {
        (self.state.born, self.state.generation)
    }

    /// Whether other pods can matter by more than what they take.
    pub(in crate::scheduler) fn is_counted(&self) -> bool {
        self.state.counts.as_ref().is_some_and(|c| !c.axes.is_plain())
    }

    /// Whether what keeps a node off can depend on pods of other nodes.
    pub(in crate::scheduler) fn is_shared(&self) -> bool {
        self.state.counts.as_ref().is_some_and(|c| c.is_shared())
    }

    /// What the object of a node has against it.
    pub(in crate::scheduler) fn fixed(&self, row: usize) -> Option<&Rejection> {
        self.kinds.kind(row)?.rejection.as_ref()
    }

    /// Whether the objects of all nodes are alike, and nothing is against them.
    pub(in crate::scheduler) fn allows_all(&self) -> bool {
        self.kinds.uniform().is_some_and(|kind| kind.rejection.is_none())
    }

    /// What a node has in common with others for which the same counts decide; `None` if there is none in the row.
    pub(in crate::scheduler) fn key(&self, row: usize) -> Option<Key> {
        Some(self.state.counts.as_ref()?.key(self.kinds.kind(row)?, row))
    }

    /// What is counted against nodes with a key.
    pub(in crate::scheduler) fn reject(&self, key: &Key) -> Option<Rejection> {
        let counts = self.state.counts.as_deref();
        Judge { rules: self.rules, spec: &self.state.spec, counts }.reject(key)
    }

    /// What pods of a class that run mean.
    pub(in crate::scheduler) fn touch(&self, cluster: &Cluster, class: ClassId) -> Touch {
        let number = || self.feed.number_of(cluster, class);
        Touch(self.state.counts.as_ref().and_then(|c| c.changes(number()?)).cloned())
    }

    /// Whether pods that run, by the number of their class that is never used twice, can make nodes do or not do.
    pub(in crate::scheduler) fn minds(&self, serial: u64) -> bool {
        let Some(counts) = &self.state.counts else { return false };
        match self.feed.number_of_serial(serial) {
            Some(number) => counts.changes(number).is_some_and(|c| c.filter()),
            None => true,
        }
    }

    /// What a pod means that does not run yet; `None` if it cannot be counted.
    pub(in crate::scheduler) fn touch_of(&self, cluster: &Cluster, spec: &PodSpec) -> Option<Touch> {
        match &self.state.counts {
            None => Some(Touch(None)),
            Some(counts) => counts.changes_of(cluster, &self.state.spec, spec).ok().map(Touch),
        }
    }

    /// Counts a pod on a row (1), or no longer (-1).
    pub(in crate::scheduler) fn count(&mut self, row: usize, touch: &Touch, times: i64) {
        if let (Some(counts), Some(changes)) = (&mut self.state.counts, &touch.0) {
            counts.tally(row, changes, times);
        }
    }
}
