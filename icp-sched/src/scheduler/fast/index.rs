//! Feasible nodes by group and by points.
//!
//! Rows of one group get the same points from everything that depends on other nodes (normalised plugins, spreading,
//! affinity); within a group, rows differ only by what depends on the node alone. So the best node of a group is in
//! its highest bucket, and a decision looks at groups, not at nodes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::rows::Rows;
use crate::cache::Map;

/// The most points that depend on the node alone: fit, balance and images.
pub(crate) const POINTS_MAX: usize = 300;
const WORDS: usize = POINTS_MAX / 64 + 1;
/// A row that is in no group.
const NOWHERE: u32 = u32::MAX;

/// What rows of one group have in common; see [`Axis`](super::state::Axis).
pub(crate) type Key = SmallVec<[i64; 6]>;

/// Rows with one key.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: Key,
    buckets: Vec<Option<Box<Rows>>>,
    /// Which buckets are not empty.
    occupied: [u64; WORDS],
    pub(crate) len: usize,
}

impl Group {
    fn new(key: Key) -> Self {
        let mut buckets = Vec::new();
        buckets.resize_with(POINTS_MAX + 1, || None);
        Self { key, buckets, occupied: [0; WORDS], len: 0 }
    }

    /// The most points, and the rows that have them.
    pub(crate) fn top(&self) -> Option<(usize, &Rows)> {
        let (word, bits) = self.occupied.iter().enumerate().rev().find(|(_, w)| **w != 0)?;
        let points = word * 64 + 63 - bits.leading_zeros() as usize;
        Some((points, self.buckets.get(points)?.as_deref()?))
    }

    fn insert(&mut self, row: usize, points: usize) {
        let Some(bucket) = self.buckets.get_mut(points) else { return };
        if bucket.get_or_insert_default().insert(row) {
            self.len += 1;
            if let Some(w) = self.occupied.get_mut(points / 64) {
                *w |= 1 << (points % 64);
            }
        }
    }

    fn remove(&mut self, row: usize, points: usize) {
        let Some(rows) = self.buckets.get_mut(points).and_then(Option::as_mut) else { return };
        if rows.remove(row) {
            self.len -= 1;
            if rows.len() == 0
                && let Some(w) = self.occupied.get_mut(points / 64)
            {
                *w &= !(1 << (points % 64));
            }
        }
    }
}

/// All groups, and where each row is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: Vec<Group>,
    by_key: Map<Key, u32>,
    /// By row: group and points.
    place: Vec<(u32, u32)>,
}

impl Index {
    /// Groups that have rows.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|g| g.len > 0)
    }

    /// The key of the group that a row is in.
    pub(crate) fn key(&self, row: usize) -> Option<&Key> {
        let (at, _) = self.place.get(row)?;
        self.groups.get(*at as usize).map(|g| &g.key)
    }

    /// Takes a row out; says where it was.
    pub(crate) fn remove(&mut self, row: usize) -> Option<(u32, u32)> {
        let place = self.place.get_mut(row)?;
        let (at, points) = core::mem::replace(place, (NOWHERE, 0));
        let group = self.groups.get_mut(at as usize)?;
        group.remove(row, points as usize);
        Some((at, points))
    }

    /// Puts a row back where it was.
    pub(crate) fn restore(&mut self, row: usize, (at, points): (u32, u32)) {
        if let (Some(group), Some(place)) = (self.groups.get_mut(at as usize), self.place.get_mut(row)) {
            group.insert(row, points as usize);
            *place = (at, points);
        }
    }

    /// Puts a row under a key, wherever it was before.
    pub(crate) fn put(&mut self, row: usize, key: &Key, points: usize) {
        if let Some((at, before)) = self.place.get(row).copied()
            && let Some(group) = self.groups.get_mut(at as usize)
        {
            if group.key == *key {
                if before as usize != points {
                    group.remove(row, before as usize);
                    group.insert(row, points);
                    self.set_place(row, at, points);
                }
                return;
            }
            group.remove(row, before as usize);
        }
        let at = match self.by_key.get(key) {
            Some(at) => *at,
            None => self.new_group(key),
        };
        if let Some(group) = self.groups.get_mut(at as usize) {
            group.insert(row, points);
        }
        self.set_place(row, at, points);
    }

    fn set_place(&mut self, row: usize, at: u32, points: usize) {
        if self.place.len() <= row {
            self.place.resize(row + 1, (NOWHERE, 0));
        }
        if let Some(place) = self.place.get_mut(row) {
            *place = (at, u32::try_from(points).unwrap_or(0));
        }
    }

    /// A group for a key: one that is empty, or a new one.
    fn new_group(&mut self, key: &Key) -> u32 {
        // Values that count pods make groups come and go.
        if self.groups.len() > 32
            && self.groups.len() > 4 * self.groups().count()
            && let Some(at) = self.groups.iter().position(|g| g.len == 0)
            && let Some(group) = self.groups.get_mut(at)
        {
            self.by_key.remove(&group.key);
            group.key = key.clone();
            let at = u32::try_from(at).unwrap_or(NOWHERE);
            self.by_key.insert(key.clone(), at);
            return at;
        }
        self.groups.push(Group::new(key.clone()));
        let at = u32::try_from(self.groups.len() - 1).unwrap_or(NOWHERE);
        self.by_key.insert(key.clone(), at);
        at
    }
}
