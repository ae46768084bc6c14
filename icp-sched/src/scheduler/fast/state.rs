//! What is kept for a class of pods.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::counts::Counts;
use super::feed::Feed;
use super::index::{Index, Key, POINTS_MAX};
use super::kinds::{Kind, Kinds};
use super::rules::Rules;
use super::sheet::Sheet;
use crate::cache::{Capacity, Cluster, Load};
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
    /// The index of a counted class tells groups alone: what is free on nodes, and what points that gives, is left to
    /// sweeps, so that pods which do not matter otherwise change nothing.
    pub(super) loose: bool,
    /// How often counts were made.
    pub(super) generation: u64,
    /// When the state was made; no other of its scheduler was made then.
    pub(super) born: u64,
    /// Absent as long as sweeps are cheaper.
    pub(super) index: Option<Box<Index>>,
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
            generation: 0,
            born: 0,
            loose: false,
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
        self.generation += 1;
        self.index = None;
        self.counts = None;
    }

    /// Whether a sweep decides: other pods matter only by what they take, and amounts are usual.
    pub(super) fn can_sweep(&self, rules: &Rules) -> bool {
        !self.counted && self.is_swept(rules)
    }

    /// Whether its index may be loose.
    pub(super) fn can_be_loose(&self, rules: &Rules) -> bool {
        self.counted && self.is_swept(rules)
    }

    /// Whether a sweep gives its points.
    fn is_swept(&self, rules: &Rules) -> bool {
        rules.can_sweep() && self.spec.host_ports.is_empty() && Sheet::takes(&self.spec)
    }

    /// Makes an index that is loose tight, or the other way round; the index shows the present before.
    pub(super) fn turn(&mut self, view: View<'_>, loose: bool, scratch: &mut Vec<i16>) {
        if self.loose != loose && !self.unusual {
            self.loose = loose;
            self.credit = 0;
            self.make_index(view, scratch);
        }
    }

    /// Whether no counts are needed to tell that other pods matter only by what they take.
    pub(super) const fn is_by_load(&self) -> bool {
        !self.counted
    }

    /// How many changes the index is behind; `None` if it has to be built.
    pub(super) fn behind(&self, view: View<'_>) -> Option<usize> {
        self.index.as_ref().filter(|_| self.epoch == view.kinds.epoch)?;
        let behind = view.feed.since(self.seen)?.len();
        (behind <= view.cluster.columns().rows().saturating_mul(2).max(64)).then_some(behind)
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
                    let idle = |c: &Counts| self.loose && !c.mind(*entry);
                    if last != Some(entry.row) && !self.counts.as_deref().is_some_and(idle) {
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
        self.make_index(view, scratch);
    }

    fn make_index(&mut self, view: View<'_>, scratch: &mut Vec<i16>) {
        let mut index = Index::default();
        let swept = !self.loose
            && self.is_swept(view.rules)
            && view.sheet.is_present(view.feed)
            && view.sheet.sweep(view.cluster.columns(), &self.spec, view.rules, scratch).is_some();
        let rows = view.cluster.columns().rows();
        index.reserve(rows);
        // Without counts, a kind of nodes is a group.
        let plain = swept && self.counts.is_none();
        let mut last: Option<(&Kind, u32)> = None;
        for row in 0..rows {
            let local = scratch.get(row).filter(|p| swept && **p > 0).map(|p| i64::from(*p) - 1);
            let kind = view.kinds.kind(row).filter(|kind| plain && kind.rejection.is_none());
            if let (Some(local), Some(kind)) = (local, kind)
                && let Ok(points) = u32::try_from(local + kind.images * view.rules.images)
                && points <= POINTS_MAX as u32
            {
                let group = match last.filter(|(before, _)| core::ptr::eq(*before, kind)) {
                    Some((_, group)) => Some(group),
                    None => index.group_of(&Key::from_slice(&[kind.taints, kind.affinity])),
                };
                last = group.map(|group| (kind, group));
                if let Some(group) = group {
                    index.put_first(row, group, points);
                    continue;
                }
            }
            self.place(view, &mut index, row, local);
        }
        self.index = Some(Box::new(index));
    }

    /// Puts a row where it belongs; `local` are its points of fit and balance, if it is known that the pod has room.
    fn place(&mut self, view: View<'_>, index: &mut Index, row: usize, local: Option<i64>) {
        let Some(kind) = view.kinds.kind(row) else { return index.leave(row) };
        let columns = view.cluster.columns();
        let loose = self.loose && self.counts.is_some();
        if (local.is_none() && !loose) || kind.rejection.is_some() {
            let number = match &kind.rejection {
                Some(rejection) => Some(index.number(rejection)),
                None => self.crowded_number(view, index, row),
            };
            if let Some(number) = number {
                return index.reject(row, number);
            }
        }
        let local = match loose {
            true => Some(0),
            false => local.or_else(|| view.rules.local(columns, &self.spec, row)),
        };
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
        let columns = view.cluster.columns();
        let simple = self.spec.requests.scalars.is_empty() && self.spec.host_ports.is_empty();
        let (Some(have), Some(load), true) = (columns.capacity.get(row), columns.load.get(row), simple)
        else {
            return self.crowded(view, row).map(|rejection| index.number(&rejection));
        };
        let lacks = self.lacks(have, load);
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

    /// What lacks of places for pods, CPU, memory and ephemeral storage, as bits, and whether there never is enough.
    pub(super) fn lacks(&self, have: &Capacity, load: &Load) -> usize {
        let r = &self.spec.requests;
        let lack = |bit: usize, asked: i64, have: i64, used: i64| {
            let lacks = usize::from((asked > 0) & (asked > have.saturating_sub(used)));
            lacks * (bit | (usize::from(asked > have) << 4))
        };
        usize::from(load.pods >= have.pods)
            | lack(2, r.cpu, have.cpu, load.cpu)
            | lack(4, r.memory, have.memory, load.memory)
            | lack(8, r.ephemeral, have.ephemeral, load.ephemeral)
    }

    /// Why what is taken on a row leaves too little.
    pub(super) fn crowded(&self, view: View<'_>, row: usize) -> Option<Rejection> {
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
