//! What happened to the cluster, in a form that many classes read quickly: each change is a row and a number.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::cache::{Change, ClassId, Cluster, Map};
use crate::model::PodSpec;

/// Who is further behind starts anew.
const ENTRIES_MAX: usize = 1 << 17;
/// Specs that get numbers before all are numbered anew, at least.
const SPECS_MIN: usize = 1 << 16;
const NODE: u32 = u32::MAX;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: u32,
    /// The number of a spec, doubled, and one more if the pod went; or a change of the node.
    what: u32,
}

impl Entry {
    /// The number of the spec of a pod that came (1) or went (-1); `None` if it is about the node.
    pub(super) const fn pod(self) -> Option<(u32, i64)> {
        match self.what {
            NODE => None,
            what => Some((what / 2, if what % 2 == 0 { 1 } else { -1 })),
        }
    }
}

/// A list whose beginning is dropped when it becomes long.
#[derive(Debug)]
struct Tail<T> {
    list: Vec<T>,
    first: u64,
}

impl<T> Default for Tail<T> {
    fn default() -> Self {
        Self { list: Vec::new(), first: 0 }
    }
}

impl<T> Tail<T> {
    fn push(&mut self, item: T) {
        if self.list.len() >= ENTRIES_MAX {
            self.list.drain(..ENTRIES_MAX / 2);
            self.first += ENTRIES_MAX as u64 / 2;
        }
        self.list.push(item);
    }

    const fn end(&self) -> u64 {
        self.first + self.list.len() as u64
    }

    fn since(&self, from: u64) -> Option<&[T]> {
        self.list.get(usize::try_from(from.checked_sub(self.first)?).ok()?..)
    }

    /// Whoever reads it is too late now.
    fn forget(&mut self) {
        self.first = self.end() + 1;
        self.list.clear();
    }
}

/// The changes, and the specs of pods that run by number.
#[derive(Debug)]
pub(super) struct Feed {
    /// How far the cluster's own log was read.
    read: u64,
    entries: Tail<Entry>,
    /// Rows whose node changed.
    nodes: Tail<u32>,
    specs: Vec<Arc<PodSpec>>,
    by_serial: Map<u64, u32>,
    /// The serial that was asked about last, which is often the next one too, and its number. No serial is 0.
    last: (u64, u32),
    specs_max: usize,
    /// Numbers of specs that have a say in where other pods go.
    with_terms: Vec<u32>,
    /// Changes when numbers do.
    pub(super) numbering: u64,
    /// Changes when labels of namespaces, or what selects pods, do.
    pub(super) meaning: u64,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            read: 0,
            entries: Tail::default(),
            nodes: Tail::default(),
            specs: Vec::new(),
            by_serial: Map::default(),
            last: (0, 0),
            specs_max: SPECS_MIN,
            with_terms: Vec::new(),
            numbering: 0,
            meaning: 0,
        }
    }
}

impl Feed {
    /// Reads what is new.
    pub(super) fn follow(&mut self, cluster: &Cluster) {
        let end = cluster.changes().end();
        if self.read == end {
            return;
        }
        match cluster.changes().since(self.read) {
            Some(changes) => changes.for_each(|change| self.take(change)),
            None => {
                self.entries.forget();
                self.nodes.forget();
                self.meaning += 1;
                self.number_anew(cluster);
            }
        }
        self.read = end;
        if self.specs.len() > self.specs_max {
            self.entries.forget();
            self.number_anew(cluster);
        }
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Meaning => self.meaning += 1,
            Change::Started { .. } => {}
            Change::Node { row } => {
                self.nodes.push(*row);
                self.entries.push(Entry { row: *row, what: NODE });
            }
            Change::Pod { row, spec, serial, times } => {
                let number = self.number(spec, *serial);
                self.entries.push(Entry { row: *row, what: number * 2 + u32::from(*times < 0) });
            }
        }
    }

    fn number(&mut self, spec: &Arc<PodSpec>, serial: u64) -> u32 {
        if self.last.0 == serial {
            return self.last.1;
        }
        if let Some(number) = self.by_serial.get(&serial) {
            self.last = (serial, *number);
            return *number;
        }
        let number = u32::try_from(self.specs.len()).unwrap_or(NODE / 2 - 1);
        self.specs.push(Arc::clone(spec));
        self.by_serial.insert(serial, number);
        if !(spec.affinity.is_empty()
            && spec.anti_affinity.is_empty()
            && spec.affinity_preferences.is_empty()
            && spec.anti_affinity_preferences.is_empty())
        {
            self.with_terms.push(number);
        }
        number
    }

    /// Gives numbers to the specs of pods that run, and to no others.
    fn number_anew(&mut self, cluster: &Cluster) {
        self.specs.clear();
        self.by_serial.clear();
        self.last = (0, 0);
        self.with_terms.clear();
        self.numbering += 1;
        for (id, _) in cluster.nodes() {
            for (class, _) in cluster.class_counts(id.row()) {
                if let Some(spec) = cluster.spec(class) {
                    self.number(spec, cluster.serial(class));
                }
            }
        }
        self.specs_max = SPECS_MIN.max(self.specs.len() * 2);
    }

    /// The number of the change that comes next.
    pub(super) const fn end(&self) -> u64 {
        self.entries.end()
    }

    /// The changes from a number on; `None` if some are not kept any more.
    pub(super) fn since(&self, from: u64) -> Option<&[Entry]> {
        self.entries.since(from)
    }

    /// The number of the change of a node that comes next.
    pub(super) const fn nodes_end(&self) -> u64 {
        self.nodes.end()
    }

    /// Rows whose node changed, from a number on; `None` if some are not kept any more.
    pub(super) fn nodes_since(&self, from: u64) -> Option<&[u32]> {
        self.nodes.since(from)
    }

    /// The number of the spec of a class of pods that run.
    pub(super) fn number_of(&self, cluster: &Cluster, class: ClassId) -> Option<u32> {
        self.number_of_serial(cluster.serial(class))
    }

    /// The same by the serial of the class.
    pub(super) fn number_of_serial(&self, serial: u64) -> Option<u32> {
        self.by_serial.get(&serial).copied()
    }

    /// A spec by its number.
    pub(super) fn spec(&self, number: u32) -> Option<&Arc<PodSpec>> {
        self.specs.get(number as usize)
    }

    /// Specs that have a say in where other pods go, in order of number, from a place on; and the place after the last.
    pub(super) fn with_terms(&self, from: usize) -> (impl Iterator<Item = &Arc<PodSpec>>, usize) {
        let numbers = self.with_terms.get(from..).unwrap_or_default();
        (numbers.iter().filter_map(|n| self.spec(*n)), self.with_terms.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_dropped() {
        let mut tail = Tail::default();
        for n in 0..=ENTRIES_MAX {
            tail.push(n);
        }
        assert_eq!(tail.end(), ENTRIES_MAX as u64 + 1);
        assert_eq!(tail.since(0), None);
        let half = ENTRIES_MAX as u64 / 2;
        assert_eq!(tail.since(half).unwrap()[0], ENTRIES_MAX / 2);
        let end = tail.end();
        assert_eq!(tail.since(end), Some(&[][..]));
        assert_eq!(tail.since(end + 1), None);
        tail.forget();
        assert_eq!(tail.since(end), None);
        assert!(tail.since(tail.end()).is_some());
    }
}
