//! What is kept for a class of pods.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::counts::Counts;
use super::feed::Feed;
use super::index::{Index, Key, POINTS_MAX};
use super::kinds::Kinds;
use super::rules::Rules;
use super::sheet::Sheet;
use crate::cache::Cluster;
use crate::framework::{Cycle, Rejection};
use crate::model::PodSpec;
use crate::plugins::{fit, node_ports};

/// What a class looks at.
#[derive(Clone, Copy)]
pub(super) struct View<'v> {
    pub(super) cluster: &'v Cluster,
    pub(super) feed: &'v Feed,
    pub(super) sheet: &'v Sheet,
    pub(super) kinds: &'v Kinds,
    pub(super) rules: &'v Rules,
}

/// The state of a class.
#[derive(Debug)]
pub(super) struct ClassState {
    pub(super) spec: Arc<PodSpec>,
    /// Which [`Kinds`] it looks at.
    pub(super) kinds: usize,
    meaning: u64,
    numbering: u64,
    /// So many of the specs that have a say in where others go were looked at.
    terms: usize,
    /// Other pods matter to it, by more than what they take; then `counts` belongs to `index`.
    counted: bool,
    pub(super) counts: Option<Box<Counts>>,
    /// Absent as long as sweeps are cheaper.
    pub(super) index: Option<Index>,
    /// How far the index followed the feed, and kinds.
    seen: u64,
    epoch: u64,
    /// Where the feed was when it was last decided on.
    pub(super) asked: u64,
    /// What sweeps cost beyond what following would have, in nanoseconds.
    pub(super) credit: usize,
    /// Numbers beyond what the index can hold: the class is decided on by asking every plugin about every node.
    pub(super) unusual: bool,
    /// When it was last used.
    pub(super) used: u64,
}

impl ClassState {
    pub(super) fn new(view: View<'_>, spec: &Arc<PodSpec>, kinds: usize) -> Self {
        let mut state = Self {
            spec: Arc::clone(spec),
            kinds,
            meaning: view.feed.meaning,
            numbering: view.feed.numbering,
            terms: 0,
            counted: Counts::are_needed(view.cluster, spec),
            counts: None,
            index: None,
            seen: 0,
            epoch: 0,
            asked: view.feed.end(),
            credit: 0,
            unusual: false,
            used: 0,
        };
        state.settle(view);
        state
    }

    /// Finds out whether other pods matter, if that may have changed.
    pub(super) fn settle(&mut self, view: View<'_>) {
        let feed = view.feed;
        if self.meaning != feed.meaning {
            self.meaning = feed.meaning;
            self.terms = 0;
            let counted = Counts::are_needed(view.cluster, &self.spec);
            if counted || self.counted {
                self.forget();
            }
            self.counted = counted;
            self.unusual = false;
        }
        if self.numbering != feed.numbering {
            self.numbering = feed.numbering;
            self.terms = 0;
        }
        if !self.counted {
            let (mut new, end) = feed.with_terms(self.terms);
            if new.any(|existing| Counts::matters(view.cluster, &self.spec, existing)) {
                self.counted = true;
                self.forget();
            }
            self.terms = end;
        }
    }

    /// Drops the index and the counts that belong to it.
    pub(super) fn forget(&mut self) {
        self.index = None;
        self.counts = None;
    }

    /// Whether a sweep decides: other pods matter only by what they take, and amounts are usual.
    pub(super) fn can_sweep(&self) -> bool {
        !self.counted && self.spec.host_ports.is_empty() && Sheet::takes(&self.spec)
    }

    /// Whether no counts are needed to tell that other pods matter only by what they take.
    pub(super) const fn is_by_load(&self) -> bool {
        !self.counted
    }

    /// Whether other pods matter only by what they take of a node; the index is there.
    pub(super) fn is_plain(&self) -> bool {
        !self.counted || self.counts.as_ref().is_some_and(|c| c.axes.is_plain())
    }

    /// How many changes the index is behind; `None` if it has to be built.
    pub(super) fn behind(&self, view: View<'_>) -> Option<usize> {
        self.index.as_ref().filter(|_| self.epoch == view.kinds.epoch)?;
        let behind = view.feed.since(self.seen)?.len();
        (behind <= view.sheet.rows().saturating_mul(2).max(64)).then_some(behind)
    }

    /// Makes the index show the present.
    pub(super) fn repair(&mut self, view: View<'_>, scratch: &mut Vec<i16>) {
        if self.unusual {
            return;
        }
        let end = view.feed.end();
        let behind = self.behind(view);
        if behind == Some(0) {
            return;
        }
        let entries = behind.and_then(|_| view.feed.since(self.seen));
        let mut rebuild = true;
        if let (Some(entries), Some(mut index)) = (entries, self.index.take()) {
            rebuild = match &mut self.counts {
                Some(counts) => counts.follow(view, &self.spec, entries),
                None => self.counted,
            };
            if !rebuild {
                let mut last = None;
                for entry in entries {
                    if last != Some(entry.row) {
                        last = Some(entry.row);
                        self.place(view, &mut index, entry.row as usize, None);
                    }
                }
                self.index = Some(index);
            }
        }
        if rebuild {
            self.build(view, scratch);
        }
        self.seen = end;
        self.unusual |= self.index.as_ref().is_some_and(|i| i.overflown);
    }

    fn build(&mut self, view: View<'_>, scratch: &mut Vec<i16>) {
        self.forget();
        self.epoch = view.kinds.epoch;
        if self.counted {
            self.counts = Counts::build(view, &self.spec).map(Box::new);
            if self.counts.is_none() {
                self.unusual = true;
                return;
            }
        }
        let mut index = Index::default();
        let swept = self.spec.host_ports.is_empty()
            && Sheet::takes(&self.spec)
            && view.sheet.sweep(view.cluster.columns(), &self.spec, view.rules, scratch).is_some();
        for row in 0..view.cluster.columns().rows() {
            let points = scratch.get(row).filter(|p| swept && **p > 0).map(|p| i64::from(*p) - 1);
            self.place(view, &mut index, row, points);
        }
        self.index = Some(index);
    }

    /// Puts a row where it belongs; `local` are its points of fit and balance, if it is known that the pod has room.
    fn place(&mut self, view: View<'_>, index: &mut Index, row: usize, local: Option<i64>) {
        let Some(kind) = view.kinds.kind(row) else { return index.leave(row) };
        let columns = view.cluster.columns();
        if local.is_none() || kind.rejection.is_some() {
            let number = match &kind.rejection {
                Some(rejection) => Some(index.number(rejection)),
                None => self.crowded_number(view, index, row),
            };
            if let Some(number) = number {
                return index.reject(row, number);
            }
        }
        let local = local.or_else(|| view.rules.local(columns, &self.spec, row));
        let points = local.map(|p| p + kind.images * view.rules.images);
        let Some(points) = points.and_then(|p| u32::try_from(p).ok()).filter(|p| *p <= POINTS_MAX as u32)
        else {
            self.unusual = true;
            return;
        };
        let key = match &self.counts {
            Some(counts) => counts.key(kind, row),
            None => Key::from_slice(&[kind.taints, kind.affinity]),
        };
        index.put(row, &key, points);
    }

    /// The number of [`ClassState::crowded`]. What lacks is worked out in words once.
    fn crowded_number(&self, view: View<'_>, index: &mut Index, row: usize) -> Option<u32> {
        let (columns, r) = (view.cluster.columns(), &self.spec.requests);
        let simple = r.scalars.is_empty() && self.spec.host_ports.is_empty();
        let (Some(have), Some(load), true) = (columns.capacity.get(row), columns.load.get(row), simple)
        else {
            return self.crowded(view, row).map(|rejection| index.number(&rejection));
        };
        let mut lacks = usize::from(load.pods >= have.pods);
        for (bit, asked, have, used) in [
            (2, r.cpu, have.cpu, load.cpu),
            (4, r.memory, have.memory, load.memory),
            (8, r.ephemeral, have.ephemeral, load.ephemeral),
        ] {
            if asked > 0 && asked > have.saturating_sub(used) {
                lacks |= bit | if asked > have { 16 } else { 0 };
            }
        }
        if lacks == 0 {
            return None;
        }
        match index.lacking(lacks) {
            Some(number) => Some(number),
            None => {
                let number = index.number(&self.crowded(view, row)?);
                index.set_lacking(lacks, number);
                Some(number)
            }
        }
    }

    /// Why what is taken on a row leaves too little.
    fn crowded(&self, view: View<'_>, row: usize) -> Option<Rejection> {
        let (columns, spec) = (view.cluster.columns(), &self.spec);
        if !spec.host_ports.is_empty() {
            let cycle = Cycle { pod: spec, cluster: view.cluster, node_name: None };
            if node_ports::taken(&cycle, row) {
                return Some(node_ports::rejection().by("NodePorts"));
            }
        }
        if fit::fits(columns, spec, row) {
            return None;
        }
        Some(fit::lacking(columns, spec, row)?.by("NodeResourcesFit"))
    }

    /// What keeps a node off: by its object, or by what is taken on it.
    pub(super) fn verdict(&self, view: View<'_>, row: usize) -> (Option<Rejection>, Option<Rejection>) {
        let fixed = view.kinds.kind(row).and_then(|kind| kind.rejection.clone());
        let any = fixed.clone().or_else(|| self.crowded(view, row));
        (fixed, any)
    }
}
