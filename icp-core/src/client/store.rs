//! Observed objects by key, with indices.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::api::Object;

/// The name of an object within its resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of a namespaced object, or of a cluster-scoped one if `namespace` is empty.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of `object`.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self::new(&object.metadata.namespace, &object.metadata.name)
    }
}

impl fmt::Display for ObjectKey {
    /// `namespace/name`, or `name` for a cluster-scoped object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Gives the values under which an object stands in an index; no value means not at all.
pub type IndexFn = Arc<dyn Fn(&Object) -> Vec<String> + Send + Sync>;

/// Index functions that many components want.
pub mod index {
    use alloc::string::String;
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::{IndexFn, Object};

    /// The name of [`owner_uid`] indices.
    pub const OWNER_UID: &str = "ownerUid";
    /// The name of [`controller_uid`] indices.
    pub const CONTROLLER_UID: &str = "controllerUid";
    /// The name of [`node_name`] indices.
    pub const NODE_NAME: &str = "nodeName";
    /// The name of [`uid`] indices.
    pub const UID: &str = "uid";

    fn one(value: &str) -> Vec<String> {
        if value.is_empty() { Vec::new() } else { vec![value.into()] }
    }

    /// By the uid of every owner.
    #[must_use]
    pub fn owner_uid() -> IndexFn {
        Arc::new(|o: &Object| o.metadata.owner_references.iter().map(|r| r.uid.clone()).collect())
    }

    /// By the uid of the managing owner.
    #[must_use]
    pub fn controller_uid() -> IndexFn {
        Arc::new(|o: &Object| o.controller().map(|r| r.uid.clone()).into_iter().collect())
    }

    /// By `spec.nodeName`.
    #[must_use]
    pub fn node_name() -> IndexFn {
        Arc::new(|o: &Object| one(o.str_at("/spec/nodeName")))
    }

    /// By the object's own uid.
    #[must_use]
    pub fn uid() -> IndexFn {
        Arc::new(|o: &Object| one(&o.metadata.uid))
    }

    /// By the value of a label.
    #[must_use]
    pub fn label(key: &str) -> IndexFn {
        let key = String::from(key);
        Arc::new(move |o: &Object| o.metadata.labels.get(&key).cloned().into_iter().collect())
    }
}

struct Index {
    name: &'static str,
    values_of: IndexFn,
    entries: BTreeMap<String, BTreeMap<ObjectKey, Arc<Object>>>,
}

/// Observed objects of one resource, by namespace and name, with indices.
///
/// ```
/// use std::sync::Arc;
/// use icp_core::api::Object;
/// use icp_core::client::{Store, index};
/// let mut pods = Store::new().with_index(index::NODE_NAME, index::node_name());
/// let mut pod = Object::new("v1", "Pod", "default", "web");
/// pod.rest.insert("spec".into(), serde_json::json!({"nodeName": "w1"}));
/// pods.insert(Arc::new(pod));
/// assert!(pods.get("default", "web").is_some());
/// assert_eq!(pods.by(index::NODE_NAME, "w1").count(), 1);
/// ```
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    count: usize,
    indices: Vec<Index>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store without indices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more index; see [`Store::by`].
    #[must_use]
    pub fn with_index(mut self, name: &'static str, values_of: IndexFn) -> Self {
        self.add_index(name, values_of);
        self
    }

    /// Adds an index, unless one of that name exists, and fills it from the objects that are there.
    pub fn add_index(&mut self, name: &'static str, values_of: IndexFn) {
        if self.indices.iter().any(|i| i.name == name) {
            return;
        }
        let mut index = Index { name, values_of, entries: BTreeMap::new() };
        for object in self.objects.values().flat_map(BTreeMap::values) {
            index.insert(object);
        }
        self.indices.push(index);
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(namespace)?.get(name)
    }

    /// The object of that key.
    #[must_use]
    pub fn get_key(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects, in order of namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    /// The objects of a namespace, in order of name.
    pub fn list(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The objects that stand under `value` in the index `index`, in order of key; none if there is no such index.
    pub fn by(&self, index: &str, value: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.indices
            .iter()
            .find(|i| i.name == index)
            .and_then(|i| i.entries.get(value))
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts `object` under its key and returns what stood there.
    pub fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let meta = &object.metadata;
        let names = self.objects.entry(meta.namespace.clone()).or_default();
        let old = names.insert(meta.name.clone(), Arc::clone(&object));
        match &old {
            Some(old) => self.indices.iter_mut().for_each(|i| i.remove(old)),
            None => self.count += 1,
        }
        self.indices.iter_mut().for_each(|i| i.insert(&object));
        old
    }

    /// Removes the object of that name and returns it.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let names = self.objects.get_mut(namespace)?;
        let old = names.remove(name)?;
        if names.is_empty() {
            self.objects.remove(namespace);
        }
        self.count -= 1;
        self.indices.iter_mut().for_each(|i| i.remove(&old));
        Some(old)
    }
}

impl Index {
    fn insert(&mut self, object: &Arc<Object>) {
        for value in (self.values_of)(object) {
            self.entries.entry(value).or_default().insert(ObjectKey::of(object), Arc::clone(object));
        }
    }

    fn remove(&mut self, object: &Object) {
        let key = ObjectKey::of(object);
        for value in (self.values_of)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(ns: u8, name: u8, node: u8) -> Arc<Object> {
        let mut o = Object::new("v1", "Pod", &alloc::format!("ns{ns}"), &alloc::format!("p{name}"));
        if node > 0 {
            o.rest.insert("spec".into(), json!({"nodeName": alloc::format!("n{node}")}));
        }
        Arc::new(o)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is inserted and removed, the index holds what a full scan finds.
        #[test]
        fn index_equals_scan(ops in prop::collection::vec((any::<bool>(), 0..2_u8, 0..4_u8, 0..3_u8), 0..40)) {
            let mut s = Store::new().with_index(index::NODE_NAME, index::node_name());
            let mut model: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
            for (put, ns, name, node) in ops {
                let o = pod(ns, name, node);
                if put {
                    let old = model.insert(ObjectKey::of(&o), Arc::clone(&o));
                    prop_assert_eq!(s.insert(o), old);
                } else {
                    let old = model.remove(&ObjectKey::of(&o));
                    prop_assert_eq!(s.remove(&o.metadata.namespace, &o.metadata.name), old);
                }
            }
            prop_assert_eq!(s.len(), model.len());
            prop_assert!(s.iter().eq(model.values()));
            for node in 1..3_u8 {
                let node = alloc::format!("n{node}");
                let want: Vec<_> = model.values().filter(|o| o.str_at("/spec/nodeName") == node).collect();
                prop_assert_eq!(s.by(index::NODE_NAME, &node).collect::<Vec<_>>(), want);
            }
        }
    }
}
