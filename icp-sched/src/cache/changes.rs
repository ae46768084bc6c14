//! What changed, in order: whoever keeps something that follows from the cluster catches up from here.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::model::PodSpec;

/// Who is further behind starts anew.
const KEPT_MAX: usize = 1 << 17;

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A pod of a class came to a node (`times` 1) or went (-1).
    Pod { row: u32, spec: Arc<PodSpec>, serial: u64, times: i8 },
    /// A node came, went or changed.
    Node { row: u32 },
    /// A pod on a node was started, which matters to who is evicted first and to nothing else.
    Started { row: u32 },
    /// Labels of namespaces, or what selects pods.
    Meaning,
}

impl Change {
    /// The node that it is about.
    pub(crate) const fn row(&self) -> Option<u32> {
        match self {
            Self::Pod { row, .. } | Self::Node { row } | Self::Started { row } => Some(*row),
            Self::Meaning => None,
        }
    }
}

/// The last changes of the cluster.
pub(crate) type ChangeLog = Log<Change>;

/// The last changes, numbered.
#[derive(Debug)]
pub(crate) struct Log<T> {
    kept: VecDeque<T>,
    /// The number of the first that is kept.
    first: u64,
    kept_max: usize,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self::keeping(KEPT_MAX)
    }
}

/// Changes that a snapshot takes along, for those who are that far behind.
const TAIL_MAX: usize = 256;

impl<T: Clone> Log<T> {
    /// The last changes, for a snapshot; who is further behind starts anew there.
    pub(super) fn tail(&self) -> Self {
        let skip = self.kept.len().saturating_sub(TAIL_MAX);
        let kept = self.kept.range(skip..).cloned().collect();
        Self { kept, first: self.first + skip as u64, kept_max: self.kept_max }
    }
}

impl<T> Log<T> {
    /// One that keeps so many changes.
    pub(crate) const fn keeping(kept_max: usize) -> Self {
        Self { kept: VecDeque::new(), first: 0, kept_max }
    }

    pub(crate) fn push(&mut self, change: T) {
        if self.kept.len() >= self.kept_max {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(change);
    }

    /// The number that the next change gets.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The changes from number `from` on; `None` if some are not kept any more.
    pub(crate) fn since(&self, from: u64) -> Option<impl ExactSizeIterator<Item = &T>> {
        let skip = usize::try_from(from.checked_sub(self.first)?).ok()?;
        (skip <= self.kept.len()).then(|| self.kept.range(skip..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_too_late_is_told() {
        let mut log = ChangeLog::default();
        assert_eq!(log.since(0).unwrap().len(), 0);
        for row in 0..=u32::try_from(KEPT_MAX).unwrap() {
            log.push(Change::Node { row });
        }
        assert!(log.since(0).is_none());
        assert_eq!(log.since(1).unwrap().len(), KEPT_MAX);
        assert_eq!(log.since(log.end()).unwrap().len(), 0);
        assert!(log.since(log.end() + 1).is_none());
    }
}
