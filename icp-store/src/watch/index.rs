//! Which watches does a key concern?

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;
use icp_core::storage::KeyRange;

use super::WatchId;

/// Watches by range: single keys in a map, ranges in an interval tree (a treap ordered by start and end whose nodes
/// know the largest end below them). Watches of the same range share a node. Finding the watches of a key costs
/// O(log ranges + found).
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, Vec<WatchId>>,
    ranges: Tree,
    watches: usize,
}

type Tree = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    /// Empty: no upper end.
    end: Bytes,
    /// The largest end of this node and those below it; empty: no upper end.
    max_end: Bytes,
    priority: u64,
    ids: Vec<WatchId>,
    left: Tree,
    right: Tree,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.watches == 0
    }

    pub(super) fn insert(&mut self, range: &KeyRange, id: WatchId) {
        self.watches += 1;
        match &range.end {
            None => self.keys.entry(range.start.clone()).or_default().push(id),
            Some(end) => {
                let tree = self.ranges.take();
                self.ranges = Some(insert(tree, &range.start, end, id));
            }
        }
    }

    pub(super) fn remove(&mut self, range: &KeyRange, id: WatchId) {
        self.watches = self.watches.saturating_sub(1);
        match &range.end {
            None => {
                if let Some(ids) = self.keys.get_mut(&range.start) {
                    ids.retain(|i| *i != id);
                    if ids.is_empty() {
                        self.keys.remove(&range.start);
                    }
                }
            }
            Some(end) => {
                let tree = self.ranges.take();
                self.ranges = remove(tree, &range.start, end, id);
            }
        }
    }

    /// Calls `found` with each watch whose range contains `key`.
    pub(super) fn stab(&self, key: &[u8], found: &mut impl FnMut(WatchId)) {
        if let Some(ids) = self.keys.get(key) {
            ids.iter().copied().for_each(&mut *found);
        }
        stab(&self.ranges, key, found);
    }
}

fn end_order(a: &[u8], b: &[u8]) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => a.cmp(b),
        (a_open, b_open) => a_open.cmp(&b_open),
    }
}

impl Node {
    fn order(&self, start: &[u8], end: &[u8]) -> Ordering {
        start.cmp(&self.start).then_with(|| end_order(end, &self.end))
    }

    fn refresh(&mut self) {
        let mut max = &self.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            if end_order(&child.max_end, max) == Ordering::Greater {
                max = &child.max_end;
            }
        }
        self.max_end = max.clone();
    }
}

/// A fixed mix of the watch's number, so that the tree's shape depends on nothing else.
fn priority(id: WatchId) -> u64 {
    let mut x = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn insert(tree: Tree, start: &Bytes, end: &Bytes, id: WatchId) -> Box<Node> {
    let Some(mut node) = tree else {
        return Box::new(Node {
            start: start.clone(),
            end: end.clone(),
            max_end: end.clone(),
            priority: priority(id),
            ids: alloc::vec![id],
            left: None,
            right: None,
        });
    };
    match node.order(start, end) {
        Ordering::Equal => node.ids.push(id),
        Ordering::Less => {
            let left = insert(node.left.take(), start, end, id);
            node = rotate_if_smaller(node, left, true);
        }
        Ordering::Greater => {
            let right = insert(node.right.take(), start, end, id);
            node = rotate_if_smaller(node, right, false);
        }
    }
    node.refresh();
    node
}

/// Hangs `child` below `node`, or `node` below `child` if the child's priority is smaller (a treap is a heap).
fn rotate_if_smaller(mut node: Box<Node>, mut child: Box<Node>, on_left: bool) -> Box<Node> {
    if child.priority < node.priority {
        if on_left {
            node.left = child.right.take();
            node.refresh();
            child.right = Some(node);
        } else {
            node.right = child.left.take();
            node.refresh();
            child.left = Some(node);
        }
        return child;
    }
    if on_left {
        node.left = Some(child);
    } else {
        node.right = Some(child);
    }
    node
}

fn remove(tree: Tree, start: &[u8], end: &[u8], id: WatchId) -> Tree {
    let mut node = tree?;
    match node.order(start, end) {
        Ordering::Equal => {
            node.ids.retain(|i| *i != id);
            if node.ids.is_empty() {
                return merge(node.left.take(), node.right.take());
            }
        }
        Ordering::Less => node.left = remove(node.left.take(), start, end, id),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, id),
    }
    node.refresh();
    Some(node)
}

fn merge(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut l), Some(mut r)) => {
            if l.priority < r.priority {
                l.right = merge(l.right.take(), Some(r));
                l.refresh();
                Some(l)
            } else {
                r.left = merge(Some(l), r.left.take());
                r.refresh();
                Some(r)
            }
        }
    }
}

fn stab(tree: &Tree, key: &[u8], found: &mut impl FnMut(WatchId)) {
    let Some(node) = tree else { return };
    if !node.max_end.is_empty() && key >= &node.max_end[..] {
        return;
    }
    stab(&node.left, key, found);
    if key < &node.start[..] {
        return;
    }
    if node.end.is_empty() || key < &node.end[..] {
        node.ids.iter().copied().for_each(&mut *found);
    }
    stab(&node.right, key, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_a_range_are_half_open() {
        let mut index = Index::default();
        index.insert(&KeyRange::between("b", "d"), 1);
        index.insert(&KeyRange::between("c", ""), 2);
        index.insert(&KeyRange::key("c"), 3);
        let of = |key: &str| {
            let mut found = Vec::new();
            index.stab(key.as_bytes(), &mut |id| found.push(id));
            found.sort_unstable();
            found
        };
        assert_eq!((of("a"), of("b"), of("c"), of("d")), (vec![], vec![1], vec![1, 2, 3], vec![2]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn finds_what_a_scan_of_all_watches_finds(
            ops in proptest::collection::vec((0_u8..20, 0_u8..24, any::<bool>()), 1..60),
        ) {
            let mut index = Index::default();
            let mut all: BTreeMap<WatchId, KeyRange> = BTreeMap::new();
            for (n, (start, end, remove)) in ops.into_iter().enumerate() {
                if remove && let Some((id, range)) = all.pop_first() {
                    index.remove(&range, id);
                }
                let start = format!("k{start:02}");
                let range = match end {
                    20 => KeyRange::key(start),
                    21.. => KeyRange::between(start, ""),
                    end => KeyRange::between(start, format!("k{end:02}")),
                };
                index.insert(&range, n as u64);
                all.insert(n as u64, range);
                for key in 0..21 {
                    let key = format!("k{key:02}");
                    let mut found = Vec::new();
                    index.stab(key.as_bytes(), &mut |id| found.push(id));
                    found.sort_unstable();
                    let naive: Vec<_> =
                        all.iter().filter(|(_, r)| r.contains(key.as_bytes())).map(|(id, _)| *id).collect();
                    prop_assert_eq!(found, naive);
                }
            }
        }
    }
}
