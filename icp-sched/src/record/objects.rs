//! Objects by number, each version once.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, patch};
use serde_json::{Map, Value};

/// The most objects of which writer and reader keep the newest version.
pub const KEPT_MAX: usize = 1 << 20;

/// Kind, namespace and name.
type Name = (String, String, String, String);

fn name_of(object: &Object) -> Name {
    let meta = &object.metadata;
    (object.api_version.clone(), object.kind.clone(), meta.namespace.clone(), meta.name.clone())
}

/// The newest version of each object that was written or read. Writer and reader treat it alike, so that one knows what
/// the other can name.
#[derive(Debug, Default)]
pub(super) struct Objects {
    numbers: BTreeMap<Name, u64>,
    objects: BTreeMap<u64, Arc<Object>>,
    /// Older versions, which the input at hand may still name.
    stale: Vec<u64>,
    last: u64,
}

impl Objects {
    /// The number of the newest version that is known of the same object.
    pub(super) fn newest(&self, object: &Object) -> Option<(u64, &Arc<Object>)> {
        let number = *self.numbers.get(&name_of(object))?;
        Some((number, self.objects.get(&number)?))
    }

    pub(super) fn get(&self, number: u64) -> Option<&Arc<Object>> {
        self.objects.get(&number)
    }

    /// The number that the next object gets.
    pub(super) const fn next(&self) -> u64 {
        self.last + 1
    }

    pub(super) fn put(&mut self, object: Arc<Object>) -> u64 {
        self.last += 1;
        self.stale.extend(self.numbers.insert(name_of(&object), self.last));
        self.objects.insert(self.last, object);
        self.last
    }

    /// An object is gone: nothing refers to it any more.
    pub(super) fn gone(&mut self, object: &Object) {
        self.stale.extend(self.numbers.remove(&name_of(object)));
    }

    /// An input is complete: only the newest versions are named from now on.
    pub(super) fn settle(&mut self) {
        for number in self.stale.drain(..) {
            self.objects.remove(&number);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn forget(&mut self) {
        self.numbers.clear();
        self.objects.clear();
    }
}

/// The merge patch that makes `new` of `old`, if there is one: a merge patch cannot write `null`.
pub(super) fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return writable(new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => {
                patch.insert(key.clone(), difference(before, value)?);
            }
            None if writable(value) => {
                patch.insert(key.clone(), value.clone());
            }
            None => return None,
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// Whether a merge patch can put this where nothing is: arrays are taken as they are, objects without their nulls.
fn writable(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => map.values().all(writable),
        _ => true,
    }
}

/// Makes the newer version.
pub(super) fn merged(old: &Object, change: &Value) -> Result<Object, serde_json::Error> {
    let mut value = serde_json::to_value(old)?;
    patch::merge(&mut value, change);
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_new_of_the_old(old in value(), new in value()) {
            if let Some(patch) = difference(&old, &new) {
                let mut made = old;
                patch::merge(&mut made, &patch);
                prop_assert_eq!(made, new);
            }
        }
    }

    #[test]
    fn nulls_are_left_to_whole_objects() {
        assert_eq!(difference(&json!({}), &json!({"a": {"b": null}})), None);
        assert_eq!(difference(&json!({"a": 1, "b": 2}), &json!({"b": 2})), Some(json!({"a": null})));
        assert_eq!(difference(&json!({"a": 1}), &json!({"a": [null]})), Some(json!({"a": [null]})));
    }

    #[test]
    fn the_newest_version_is_kept() {
        let object = |version: &str| {
            let mut object = Object::new("v1", "Pod", "default", "a");
            object.metadata.resource_version = version.into();
            Arc::new(object)
        };
        let mut objects = Objects::default();
        let numbers: Vec<u64> = ["1", "2"].map(|v| objects.put(object(v))).into();
        assert!(objects.get(1).is_some());
        objects.settle();
        assert_eq!((numbers, objects.len(), objects.next()), ([1, 2].into(), 1, 3));
        assert!(objects.get(1).is_none());
        assert_eq!(objects.newest(&object("3")).map(|(n, _)| n), Some(2));
        objects.gone(&object("2"));
        objects.settle();
        assert_eq!(objects.len(), 0);
    }
}
