//! Feasible nodes by group and by points, and why the others will not do.
//!
//! Rows of one group get the same points from everything that depends on other nodes (normalised plugins, spreading,
//! affinity); within a group, rows differ only by what depends on the node alone. So the best node of a group is in
//! its highest bucket, and a decision looks at groups, not at nodes.

#![expect(
    clippy::vec_box,
    reason = "lists of buckets are shifted, and a set is ten times as large as its box"
)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::rows::Rows;
use crate::cache::Map;
use crate::framework::Rejection;

/// The most points that depend on the node alone: fit, balance and images, by their weights.
pub(crate) const POINTS_MAX: usize = (1 << POINT_BITS) - 1;
const POINT_BITS: u32 = 12;
/// A row without a node, or one that is hidden.
const NOWHERE: u32 = u32::MAX;
/// In the place of a row that will not do, with the number of the rejection.
const REJECTED: u32 = 1 << 31;
const GROUPS_MAX: usize = 1 << (31 - POINT_BITS);
/// Empty sets that are kept for the next bucket.
const SPARE_MAX: usize = 8;
/// Combinations of what can lack.
pub(super) const LACKING: usize = 32;

/// What rows of one group have in common; see [`Axes`](super::axes::Axes).
pub(crate) type Key = SmallVec<[i64; 6]>;

/// Rows with one key.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: Key,
    /// Those that are not empty, by points.
    buckets: Vec<(u32, Box<Rows>)>,
    pub(crate) len: usize,
}

impl Group {
    const fn new(key: Key) -> Self {
        Self { key, buckets: Vec::new(), len: 0 }
    }

    /// The most points, and the rows that have them.
    pub(crate) fn top(&self) -> Option<(i64, &Rows)> {
        self.buckets.last().map(|(points, rows)| (i64::from(*points), &**rows))
    }

    fn find(&self, points: u32) -> Result<usize, usize> {
        // The best rows change most.
        match self.buckets.last() {
            Some((top, _)) if *top == points => Ok(self.buckets.len() - 1),
            _ => self.buckets.binary_search_by_key(&points, |(p, _)| *p),
        }
    }

    fn insert(&mut self, row: usize, points: u32, spare: &mut Vec<Box<Rows>>) {
        let at = match self.find(points) {
            Ok(at) => at,
            Err(at) => {
                self.buckets.insert(at, (points, spare.pop().unwrap_or_default()));
                at
            }
        };
        if let Some((_, rows)) = self.buckets.get_mut(at)
            && rows.insert(row)
        {
            self.len += 1;
        }
    }

    fn remove(&mut self, row: usize, points: u32, spare: &mut Vec<Box<Rows>>) {
        let Ok(at) = self.find(points) else { return };
        let Some((_, rows)) = self.buckets.get_mut(at) else { return };
        if rows.remove(row) {
            self.len -= 1;
        }
        if rows.len() == 0 {
            let (_, rows) = self.buckets.remove(at);
            if spare.len() < SPARE_MAX {
                spare.push(rows);
            }
        }
    }
}

/// Rejections by number, and how many nodes have each.
#[derive(Debug, Default)]
struct Reasons {
    list: Vec<(Rejection, usize)>,
    numbers: Map<Rejection, u32>,
}

/// All groups, all rejections, and where each row is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: Vec<Group>,
    by_key: Map<Key, u32>,
    /// By row: group and points, or the number of a rejection.
    place: Vec<u32>,
    reasons: Reasons,
    spare: Vec<Box<Rows>>,
    /// The rejection of nodes on which this and that lacks, as bits.
    lacking: [Option<u32>; LACKING],
    /// There were more groups than places can tell.
    pub(crate) overflown: bool,
}

const fn split(place: u32) -> (usize, u32) {
    ((place >> POINT_BITS) as usize, place & (POINTS_MAX as u32))
}

impl Index {
    /// Groups that have rows.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|g| g.len > 0)
    }

    /// The groups by number, and for each row that will do its group and its points.
    pub(crate) fn feasible(&self) -> (&[Group], impl Iterator<Item = (usize, usize, i64)>) {
        let (groups, places) = self.places();
        let rows = places.enumerate().filter_map(|(row, place)| {
            let (group, points) = place?;
            Some((row, group, i64::from(points)))
        });
        (groups, rows)
    }

    /// The groups by number, and by row its group and its points; nothing for rows that will not do.
    pub(crate) fn places(&self) -> (&[Group], impl Iterator<Item = Option<(usize, u32)>> + Clone) {
        (&self.groups, self.place.iter().map(|place| (*place < REJECTED).then(|| split(*place))))
    }

    fn place(&self, row: usize) -> u32 {
        self.place.get(row).copied().unwrap_or(NOWHERE)
    }

    /// The key of the group that a row is in.
    pub(crate) fn key(&self, row: usize) -> Option<&Key> {
        let place = self.place(row);
        (place < REJECTED).then(|| self.groups.get(split(place).0).map(|g| &g.key))?
    }

    /// The number of a rejection, for [`Index::reject`].
    pub(crate) fn number(&mut self, rejection: &Rejection) -> u32 {
        if let Some(n) = self.reasons.numbers.get(rejection) {
            return *n;
        }
        let n = u32::try_from(self.reasons.list.len()).unwrap_or(REJECTED - 2);
        self.reasons.list.push((rejection.clone(), 0));
        self.reasons.numbers.insert(rejection.clone(), n);
        n
    }

    /// The number of the rejection of nodes on which this and that lacks, if it was noted.
    pub(crate) fn lacking(&self, what: usize) -> Option<u32> {
        self.lacking.get(what).copied().flatten()
    }

    /// Notes it.
    pub(crate) fn set_lacking(&mut self, what: usize, number: u32) {
        if let Some(slot) = self.lacking.get_mut(what) {
            *slot = Some(number);
        }
    }

    /// How many nodes each rejection keeps off, without what depends on groups; without `hidden` rows.
    pub(crate) fn rejections(&self, hidden: impl Iterator<Item = usize>) -> Vec<(Rejection, usize)> {
        let mut list = self.reasons.list.clone();
        for row in hidden {
            let place = self.place(row);
            if place >= REJECTED
                && let Some((_, n)) = list.get_mut((place ^ REJECTED) as usize)
            {
                *n -= 1;
            }
        }
        list.retain(|(_, n)| *n > 0);
        list
    }

    /// Takes a row that will do out; says where it was.
    pub(crate) fn hide(&mut self, row: usize) -> Option<u32> {
        let place = self.place(row);
        (place < REJECTED).then(|| {
            self.leave(row);
            place
        })
    }

    /// Puts a row back where it was.
    pub(crate) fn restore(&mut self, row: usize, place: u32) {
        let (group, points) = split(place);
        if let Some(group) = self.groups.get_mut(group) {
            group.insert(row, points, &mut self.spare);
        }
        self.set(row, place);
    }

    fn set(&mut self, row: usize, place: u32) {
        if self.place.len() <= row {
            self.place.resize(row + 1, NOWHERE);
        }
        if let Some(slot) = self.place.get_mut(row) {
            *slot = place;
        }
    }

    /// Takes a row from wherever it is.
    pub(crate) fn leave(&mut self, row: usize) {
        let place = self.place(row);
        if place == NOWHERE {
            return;
        }
        if place >= REJECTED {
            if let Some((_, n)) = self.reasons.list.get_mut((place ^ REJECTED) as usize) {
                *n -= 1;
            }
        } else {
            let (group, points) = split(place);
            if let Some(group) = self.groups.get_mut(group) {
                group.remove(row, points, &mut self.spare);
            }
        }
        self.set(row, NOWHERE);
    }

    /// Notes that a row will not do.
    pub(crate) fn reject(&mut self, row: usize, number: u32) {
        if self.place(row) == REJECTED | number {
            return;
        }
        self.leave(row);
        if let Some((_, n)) = self.reasons.list.get_mut(number as usize) {
            *n += 1;
        }
        self.set(row, REJECTED | number);
    }

    /// Puts a row under a key, wherever it was before. The points are at most [`POINTS_MAX`].
    pub(crate) fn put(&mut self, row: usize, key: &Key, points: u32) {
        let place = self.place(row);
        if place < REJECTED {
            let (at, before) = split(place);
            if let Some(group) = self.groups.get_mut(at).filter(|g| g.key == *key) {
                if before != points {
                    group.remove(row, before, &mut self.spare);
                    group.insert(row, points, &mut self.spare);
                    self.set(row, (place ^ before) | points);
                }
                return;
            }
        }
        self.leave(row);
        let Some(at) = self.group(key) else {
            self.overflown = true;
            return;
        };
        if let Some(group) = self.groups.get_mut(at as usize) {
            group.insert(row, points, &mut self.spare);
        }
        self.set(row, at << POINT_BITS | points);
    }

    /// Makes room for so many rows.
    pub(crate) fn reserve(&mut self, rows: usize) {
        self.place.reserve_exact(rows.saturating_sub(self.place.len()));
    }

    /// Puts a row that is nowhere yet into a group by its number; see [`Index::group_of`].
    pub(crate) fn put_first(&mut self, row: usize, at: u32, points: u32) {
        if let Some(group) = self.groups.get_mut(at as usize) {
            group.insert(row, points, &mut self.spare);
            self.set(row, at << POINT_BITS | points);
        }
    }

    /// The number of the group with a key, good until a row is put under a key.
    pub(crate) fn group_of(&mut self, key: &Key) -> Option<u32> {
        let at = self.group(key);
        self.overflown |= at.is_none();
        at
    }

    /// The group of a key: one that has it, one that is empty, or a new one.
    fn group(&mut self, key: &Key) -> Option<u32> {
        if let Some(at) = self.by_key.get(key) {
            return Some(*at);
        }
        // Values that count pods make groups come and go.
        if self.groups.len() > 32
            && self.groups.len() > 4 * self.groups().count()
            && let Some(at) = self.groups.iter().position(|g| g.len == 0)
            && let Some(group) = self.groups.get_mut(at)
        {
            self.by_key.remove(&group.key);
            group.key = key.clone();
            let at = u32::try_from(at).ok()?;
            self.by_key.insert(key.clone(), at);
            return Some(at);
        }
        let at = u32::try_from(self.groups.len()).ok().filter(|at| (*at as usize) < GROUPS_MAX - 1)?;
        self.groups.push(Group::new(key.clone()));
        self.by_key.insert(key.clone(), at);
        Some(at)
    }
}
