//! Values that snapshots share until one side writes.
//!
//! A value is owned, and then reading and writing it costs a test of a tag and nothing atomic; or it is shared, and the
//! first write copies it, unless nobody else holds it any more. Sharing wants `&mut`: it turns what is owned into what
//! is shared.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// A value that is owned or shared.
#[derive(Debug)]
pub(crate) enum Shared<T> {
    Own(T),
    With(Arc<T>),
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Self::Own(T::default())
    }
}

impl<T> Shared<T> {
    pub(crate) fn get(&self) -> &T {
        match self {
            Self::Own(value) => value,
            Self::With(value) => value,
        }
    }
}

impl<T: Default> Shared<T> {
    /// The same value for a snapshot.
    pub(crate) fn share(&mut self) -> Self {
        if let Self::Own(value) = self {
            *self = Self::With(Arc::new(core::mem::take(value)));
        }
        match self {
            Self::With(value) => Self::With(Arc::clone(value)),
            Self::Own(_) => Self::default(),
        }
    }
}

impl<T: Clone + Default> Shared<T> {
    /// The value to write to: a copy of it if somebody else holds it.
    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        if let Self::With(_) = self {
            self.own();
        }
        match self {
            Self::Own(value) => value,
            Self::With(value) => Arc::make_mut(value),
        }
    }

    #[cold]
    fn own(&mut self) {
        if let Self::With(value) = core::mem::take(self) {
            *self = Self::Own(Arc::try_unwrap(value).unwrap_or_else(|shared| T::clone(&shared)));
        }
    }
}

/// A list in chunks of `N`, each of which is owned or shared.
#[derive(Debug)]
pub(crate) struct Chunks<T, const N: usize = 512> {
    chunks: Vec<Shared<Vec<T>>>,
    len: usize,
}

impl<T, const N: usize> Default for Chunks<T, N> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T, const N: usize> Chunks<T, N> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / N)?.get().get(at % N)
    }

    /// The chunks, in order: of `N`, but the last.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[T]> {
        self.chunks.iter().map(|c| c.get().as_slice())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|c| c.get().iter())
    }

    /// The same list for a snapshot.
    pub(crate) fn share(&mut self) -> Self {
        Self { chunks: self.chunks.iter_mut().map(Shared::share).collect(), len: self.len }
    }
}

impl<T: Clone, const N: usize> Chunks<T, N> {
    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at / N)?.get_mut().get_mut(at % N)
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        if self.len.is_multiple_of(N) {
            self.chunks.push(Shared::Own(Vec::with_capacity(if self.len == 0 { 0 } else { N })));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.get_mut().push(value);
            self.len += 1;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let value = self.chunks.last_mut()?.get_mut().pop()?;
        self.len -= 1;
        if self.len.is_multiple_of(N) {
            self.chunks.pop();
        }
        Some(value)
    }

    /// Makes it at least so long.
    pub(crate) fn grow(&mut self, len: usize, value: impl Fn() -> T) {
        while self.len < len {
            self.push(value());
        }
    }
}

/// Numbers of things, found by the hash of what they are known by. In `N` shards, each of which is owned or shared.
#[derive(Debug)]
pub(crate) struct Index<const N: usize> {
    shards: Vec<Shared<HashTable<(u64, u32)>>>,
    hasher: FixedState,
    len: usize,
}

impl<const N: usize> Default for Index<N> {
    fn default() -> Self {
        let mut shards = Vec::new();
        shards.resize_with(N, Shared::default);
        Self { shards, hasher: FixedState::default(), len: 0 }
    }
}

impl<const N: usize> Index<N> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn hash(&self, key: &(impl core::hash::Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Tables take their places from the low bits and their tags from the highest ones.
    const fn shard(hash: u64) -> usize {
        (hash >> 40) as usize % N
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let shard = self.shards.get(Self::shard(hash))?.get();
        shard.find(hash, |(h, number)| *h == hash && is(*number)).map(|(_, number)| *number)
    }

    /// Adds a number that is not there.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        if let Some(shard) = self.shards.get_mut(Self::shard(hash)) {
            shard.get_mut().insert_unique(hash, (hash, number), |(hash, _)| *hash);
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        if let Some(shard) = self.shards.get_mut(Self::shard(hash))
            && let Ok(entry) = shard.get_mut().find_entry(hash, |(_, n)| *n == number)
        {
            entry.remove();
            self.len -= 1;
        }
    }

    /// The same numbers for a snapshot.
    pub(crate) fn share(&mut self) -> Self {
        let shards = self.shards.iter_mut().map(Shared::share).collect();
        Self { shards, hasher: self.hasher.clone(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn what_nobody_else_holds_any_more_is_not_copied() {
        let mut list: Chunks<u8, 2> = Chunks::default();
        list.grow(3, || 7);
        let address = core::ptr::from_ref(list.get(0).unwrap());
        drop(list.share());
        *list.get_mut(0).unwrap() = 8;
        assert_eq!(core::ptr::from_ref(list.get(0).unwrap()), address);
        let before = list.share();
        *list.get_mut(0).unwrap() = 9;
        assert_ne!(core::ptr::from_ref(list.get(0).unwrap()), address);
        assert_eq!((before.get(0), list.get(0)), (Some(&8), Some(&9)));
        assert_eq!(
            before.get(2).map(core::ptr::from_ref),
            list.get(2).map(core::ptr::from_ref),
            "still shared"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Two lists that part ways are two lists.
        #[test]
        fn like_two_lists(ops in prop::collection::vec((0..5_u8, any::<bool>(), 0..12_usize, any::<u8>()), 0..60)) {
            let (mut lists, mut models) = ([Chunks::<u8, 4>::default(), Chunks::default()], [vec![], vec![]]);
            for (op, which, at, value) in ops {
                let (list, model) = (&mut lists[usize::from(which)], &mut models[usize::from(which)]);
                match op {
                    0 => { list.push(value); model.push(value); }
                    1 => prop_assert_eq!(list.pop(), model.pop()),
                    2 => prop_assert_eq!(list.get_mut(at).map(|v| *v = value), model.get_mut(at).map(|v| *v = value)),
                    3 => { list.grow(at, || value); if model.len() < at { model.resize(at, value); } }
                    _ => {
                        let (shared, copy) = (list.share(), model.clone());
                        lists[usize::from(!which)] = shared;
                        models[usize::from(!which)] = copy;
                    }
                }
                for (list, model) in lists.iter().zip(&models) {
                    prop_assert_eq!(list.iter().copied().collect::<Vec<_>>(), model.clone());
                    prop_assert_eq!(list.len(), model.len());
                }
            }
        }

        /// And so are two indexes.
        #[test]
        fn like_two_sets(ops in prop::collection::vec((0..3_u8, any::<bool>(), 0..12_u32), 0..60)) {
            let (mut sets, mut models) = ([Index::<4>::default(), Index::default()], [vec![], vec![]]);
            for (op, which, number) in ops {
                let (set, model) = (&mut sets[usize::from(which)], &mut models[usize::from(which)]);
                let hash = set.hash(&number);
                match op {
                    0 if !model.contains(&number) => { set.insert(hash, number); model.push(number); }
                    1 => { set.remove(hash, number); model.retain(|n| *n != number); }
                    2 => {
                        let (shared, copy) = (set.share(), model.clone());
                        sets[usize::from(!which)] = shared;
                        models[usize::from(!which)] = copy;
                    }
                    _ => {}
                }
                for (set, model) in sets.iter().zip(&models) {
                    prop_assert_eq!(set.len(), model.len());
                    for number in 0..12 {
                        prop_assert_eq!(set.find(set.hash(&number), |n| n == number).is_some(), model.contains(&number));
                    }
                }
            }
        }
    }
}
