//! A map whose copies share all that they agree in.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::hash::{BuildHasher as _, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// A power of two: so many that a shard of a large cluster is copied in microseconds.
const SHARDS: usize = 1024;

/// A hash map in shards. A clone copies pointers to the shards alone; a change copies one shard if a clone still
/// looks at it. Keys and values should be cheap to clone. Keys come from API objects, never from queries, so that the
/// hash needs no secret.
#[derive(Clone, Debug)]
pub(crate) struct Sharded<K, V> {
    shards: Vec<Arc<HashTable<(K, V)>>>,
    length: usize,
}

fn hash<Q: Hash + ?Sized>(key: &Q) -> u64 {
    FixedState::with_seed(0).hash_one(key)
}

/// Other bits than those by which a shard finds its bucket.
const fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { shards: alloc::vec![empty; SHARDS], length: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = hash(key);
        let shard = self.shards.get(shard_of(hash))?;
        shard.find(hash, |(k, _)| k.borrow() == key).map(|(_, value)| value)
    }

    /// Puts a value in the key's place, or takes the key out.
    pub(crate) fn set(&mut self, key: K, value: Option<V>) {
        let hash_of_key = hash(&key);
        let Some(shard) = self.shards.get_mut(shard_of(hash_of_key)) else { return };
        let shard = Arc::make_mut(shard);
        match (shard.find_entry(hash_of_key, |(k, _)| *k == key), value) {
            (Ok(mut entry), Some(value)) => entry.get_mut().1 = value,
            (Ok(entry), None) => {
                entry.remove();
                self.length -= 1;
            }
            (Err(_), Some(value)) => {
                shard.insert_unique(hash_of_key, (key, value), |(k, _)| hash(k));
                self.length += 1;
            }
            (Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn copies_keep_what_they_held(
            steps in proptest::collection::vec((0u16..500, proptest::option::of(any::<u8>())), 0..60),
        ) {
            let mut map: Sharded<u16, u8> = Sharded::new();
            let mut model = BTreeMap::new();
            let mut kept = alloc::vec![];
            for (key, value) in steps {
                kept.push((map.clone(), model.clone()));
                map.set(key, value);
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            kept.push((map, model));
            for (map, model) in kept {
                prop_assert_eq!(map.len(), model.len());
                for key in 0..500 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
        }
    }
}
