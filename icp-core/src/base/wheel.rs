//! Many timers, one deadline.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Time;

/// A set of keyed timers: at most one due time per key, earliest first, ties in key order.
///
/// It keeps an ordered index rather than hashed slots: cancelling and moving a timer cost O(log n), popping is in
/// time order, and nothing depends on a tick length, so that virtual time may jump.
///
/// ```
/// use icp_core::base::{Time, TimingWheel};
/// let mut w = TimingWheel::new();
/// w.set("a", Time::from_secs(2));
/// w.set("b", Time::from_secs(1));
/// w.set("a", Time::from_secs(3)); // moved
/// assert_eq!(w.deadline(), Some(Time::from_secs(1)));
/// assert_eq!(w.expire(Time::from_secs(5)), ["b", "a"]);
/// ```
#[derive(Clone, Debug)]
pub struct TimingWheel<K> {
    due_of: BTreeMap<K, Time>,
    order: BTreeMap<(Time, K), ()>,
}

impl<K: Ord + Clone> Default for TimingWheel<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone> TimingWheel<K> {
    /// No timers.
    #[must_use]
    pub const fn new() -> Self {
        Self { due_of: BTreeMap::new(), order: BTreeMap::new() }
    }

    /// Sets or moves the timer of `key`.
    pub fn set(&mut self, key: K, due: Time) {
        if let Some(old) = self.due_of.insert(key.clone(), due) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((due, key), ());
    }

    /// Sets the timer of `key`, unless it is already due earlier.
    pub fn set_no_later(&mut self, key: K, due: Time) {
        if self.due_of.get(&key).is_none_or(|old| due < *old) {
            self.set(key, due);
        }
    }

    /// Removes the timer of `key` and says whether there was one.
    pub fn cancel(&mut self, key: &K) -> bool {
        match self.due_of.remove(key) {
            Some(due) => self.order.remove(&(due, key.clone())).is_some(),
            None => false,
        }
    }

    /// When the timer of `key` is due.
    #[must_use]
    pub fn due(&self, key: &K) -> Option<Time> {
        self.due_of.get(key).copied()
    }

    /// When the earliest timer is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.order.first_key_value().map(|((due, _), ())| *due)
    }

    /// Removes the earliest timer that is due at `now` and returns its key.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        if self.deadline()? > now {
            return None;
        }
        let ((_, key), ()) = self.order.pop_first()?;
        self.due_of.remove(&key);
        Some(key)
    }

    /// Removes all timers that are due at `now` and returns their keys in due order.
    pub fn expire(&mut self, now: Time) -> Vec<K> {
        let mut keys = Vec::new();
        while let Some(key) = self.pop(now) {
            keys.push(key);
        }
        keys
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due_of.len()
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due_of.is_empty()
    }
}
