//! A set of rows that finds the next member in a few steps, however many rows there are.

use alloc::vec::Vec;

const BITS: usize = 64;

/// A bitset with two levels of summaries: a bit of a summary says that the word below it is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    words: Vec<u64>,
    middle: Vec<u64>,
    top: Vec<u64>,
    len: usize,
}

/// Sets or clears a bit and says whether it was set before, and whether the word is zero now.
fn write(words: &mut Vec<u64>, at: usize, on: bool) -> (bool, bool) {
    let (word, bit) = (at / BITS, 1_u64 << (at % BITS));
    if words.len() <= word {
        words.resize(word + 1, 0);
    }
    let Some(w) = words.get_mut(word) else { return (false, true) };
    let before = *w & bit != 0;
    if on {
        *w |= bit
    } else {
        *w &= !bit
    }
    (before, *w == 0)
}

/// The first set bit at or after `from`, in that word alone.
fn next_in(words: &[u64], from: usize) -> Option<usize> {
    let word = from / BITS;
    let left = *words.get(word)? & (u64::MAX << (from % BITS));
    (left != 0).then(|| word * BITS + left.trailing_zeros() as usize)
}

impl Rows {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a row; says whether it was new.
    pub(crate) fn insert(&mut self, row: usize) -> bool {
        let (before, _) = write(&mut self.words, row, true);
        if !before {
            self.len += 1;
            if !write(&mut self.middle, row / BITS, true).0 {
                write(&mut self.top, row / BITS / BITS, true);
            }
        }
        !before
    }

    /// Removes a row; says whether it was there.
    pub(crate) fn remove(&mut self, row: usize) -> bool {
        let (before, empty) = write(&mut self.words, row, false);
        if before {
            self.len -= 1;
            if empty && write(&mut self.middle, row / BITS, false).1 {
                write(&mut self.top, row / BITS / BITS, false);
            }
        }
        before
    }

    /// The first row at or after `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        if let Some(row) = next_in(&self.words, from) {
            return Some(row);
        }
        let word = self.next_word(from / BITS + 1)?;
        next_in(&self.words, word * BITS)
    }

    /// The first word at or after `from` that is not zero.
    fn next_word(&self, from: usize) -> Option<usize> {
        if let Some(word) = next_in(&self.middle, from) {
            return Some(word);
        }
        let from = from / BITS + 1;
        let block = next_in(&self.top, from).or_else(|| {
            let rest = self.top.get(from / BITS + 1..)?;
            let at = rest.iter().position(|w| *w != 0)? + from / BITS + 1;
            next_in(&self.top, at * BITS)
        })?;
        next_in(&self.middle, block * BITS)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn like_an_ordered_set(ops in prop::collection::vec((any::<bool>(), prop_oneof![0..200_usize, 0..600_000_usize]), 0..60), from in 0..600_000_usize) {
            let (mut rows, mut model) = (Rows::default(), BTreeSet::new());
            for (put, row) in ops {
                if put {
                    prop_assert_eq!(rows.insert(row), model.insert(row));
                } else {
                    prop_assert_eq!(rows.remove(row), model.remove(&row));
                }
            }
            prop_assert_eq!(rows.len(), model.len());
            prop_assert_eq!(rows.next(from), model.range(from..).next().copied());
            let all = core::iter::successors(rows.next(0), |row| rows.next(row + 1));
            prop_assert_eq!(all.collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
