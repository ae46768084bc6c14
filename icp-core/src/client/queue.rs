//! Keys that want work.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::{Backoff, Duration, Time, TimingWheel};

/// A queue of keys: a key stands in it at most once, is worked on by at most one worker at a time, and comes back
/// if it was added meanwhile. The semantics are client-go's `util/workqueue`.
///
/// ```
/// use icp_core::base::{Duration, Time};
/// use icp_core::client::WorkQueue;
/// let mut q = WorkQueue::new(Duration::from_millis(5), Duration::from_secs(1000));
/// q.add("a");
/// q.add("a");
/// assert_eq!(q.pop(Time::ZERO), Some("a"));
/// q.add("a"); // while it is worked on
/// assert_eq!(q.pop(Time::ZERO), None);
/// q.done(&"a");
/// assert_eq!(q.pop(Time::ZERO), Some("a"));
/// q.retry("a", Time::ZERO); // failed: again after 5 ms
/// q.done(&"a");
/// assert_eq!(q.deadline(), Some(Time::from_millis(5)));
/// ```
#[derive(Clone, Debug)]
pub struct WorkQueue<K> {
    ready: VecDeque<K>,
    /// Keys that want work: those in `ready`, and those in `working` that come back.
    dirty: BTreeSet<K>,
    working: BTreeSet<K>,
    later: TimingWheel<K>,
    failures: BTreeMap<K, Backoff>,
    backoff: Backoff,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// An empty queue whose retries pause `initial`, doubling, at most `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            working: BTreeSet::new(),
            later: TimingWheel::new(),
            failures: BTreeMap::new(),
            backoff: Backoff::new(initial, max),
        }
    }

    /// The key wants work now.
    pub fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// The key wants work at `due`, or earlier if it was already to be added earlier.
    pub fn add_at(&mut self, key: K, due: Time) {
        self.later.set_no_later(key, due);
    }

    /// The key wants work after `delay`, or earlier if it was already to be added earlier.
    pub fn add_after(&mut self, key: K, now: Time, delay: Duration) {
        self.add_at(key, now + delay);
    }

    /// Work on the key failed: it wants work again after a pause that grows with each failure.
    pub fn retry(&mut self, key: K, now: Time) {
        let delay = self.failures.entry(key.clone()).or_insert_with(|| self.backoff.clone()).next_delay();
        self.add_after(key, now, delay);
    }

    /// How often work on the key failed since [`WorkQueue::forget`].
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).map_or(0, Backoff::failures)
    }

    /// Work on the key succeeded: the next failure pauses briefly again.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// The next key to work on; [`WorkQueue::done`] must follow.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        while let Some(key) = self.later.pop(now) {
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    /// Work on the key ended. If it was added meanwhile, it is ready again.
    pub fn done(&mut self, key: &K) {
        if self.working.remove(key) && self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Whether a key is being worked on.
    #[must_use]
    pub fn is_working(&self, key: &K) -> bool {
        self.working.contains(key)
    }

    /// Whether a key is ready; [`WorkQueue::pop`] returns one at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next key that waits becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.later.deadline()
    }

    /// How many keys are ready, being worked on, or waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len() + self.working.len() + self.later.len()
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self {
            backoff: self.backoff.clone(),
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            working: BTreeSet::new(),
            later: TimingWheel::new(),
            failures: BTreeMap::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue() -> WorkQueue<u8> {
        WorkQueue::new(Duration::from_millis(5), Duration::from_millis(40))
    }

    #[test]
    fn retries_double_up_to_the_ceiling() {
        let (mut q, mut now) = (queue(), Time::ZERO);
        let mut pauses = alloc::vec::Vec::new();
        for _ in 0..5 {
            q.retry(1, now);
            let due = q.deadline().unwrap();
            pauses.push(due.since(now).as_millis());
            now = due;
            assert_eq!(q.pop(now), Some(1));
            q.done(&1);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 40]);
        assert_eq!(q.failures(&1), 5);
        q.forget(&1);
        q.retry(1, now);
        assert_eq!(q.deadline().unwrap().since(now).as_millis(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A key that was added is worked on afterwards, and never twice at once.
        #[test]
        fn no_add_is_lost_and_no_key_runs_twice(ops in prop::collection::vec((0..3_u8, 0..4_u8), 0..60)) {
            let mut q = queue();
            let mut wanted = BTreeSet::new();
            let mut working = BTreeSet::new();
            for (op, key) in ops {
                match op {
                    0 => { q.add(key); wanted.insert(key); }
                    1 => if let Some(k) = q.pop(Time::ZERO) {
                        prop_assert!(wanted.remove(&k));
                        prop_assert!(working.insert(k));
                    },
                    _ => { q.done(&key); working.remove(&key); }
                }
            }
            for k in working { q.done(&k); }
            while let Some(k) = q.pop(Time::ZERO) {
                prop_assert!(wanted.remove(&k));
                q.done(&k);
            }
            prop_assert!(wanted.is_empty());
        }
    }
}
