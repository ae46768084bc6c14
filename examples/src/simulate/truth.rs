//! What the store holds, as the checkers know it: every commit that became durable, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use icp_core::api::table;
use icp_core::client::WatchKind;
use icp_store::mvcc::Commit;
use serde_json::Value;

/// An object of the store.
#[derive(Clone, Debug)]
pub struct Item {
    /// The revision of its last change.
    pub revision: i64,
    /// The object.
    pub value: Arc<Value>,
}

/// A change of an object of a resource, for whoever watches it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision.
    pub revision: i64,
    /// `namespace/name`, or the name.
    pub key: String,
    /// The object before, if there was one.
    pub old: Option<Arc<Value>>,
    /// The object now, if there is one.
    pub new: Option<Arc<Value>>,
}

/// The text at a pointer, or none.
#[must_use]
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// Whom a watch or a list is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The namespace; empty for all.
    pub namespace: String,
    /// Fields and their values.
    pub fields: Vec<(String, String)>,
}

impl Filter {
    /// Reads a field selector of equalities; `None` if it is something else.
    #[must_use]
    pub fn parse(namespace: &str, selector: &str) -> Option<Self> {
        let mut fields = Vec::new();
        for term in selector.split(',').filter(|t| !t.is_empty()) {
            let (field, value) = term.split_once('=').filter(|(f, _)| !f.ends_with('!'))?;
            fields.push((format!("/{}", field.replace('.', "/")), value.trim_start_matches('=').to_string()));
        }
        Some(Self { namespace: namespace.into(), fields })
    }

    /// Whether an object is meant.
    #[must_use]
    pub fn matches(&self, value: &Value) -> bool {
        (self.namespace.is_empty() || text(value, "/metadata/namespace") == self.namespace)
            && self.fields.iter().all(|(at, want)| text(value, at) == want)
    }

    /// What a watcher is told of a change, if anything.
    #[must_use]
    pub fn kind(&self, change: &Change) -> Option<WatchKind> {
        let was = change.old.as_ref().is_some_and(|v| self.matches(v));
        let is = change.new.as_ref().is_some_and(|v| self.matches(v));
        match (was, is) {
            (false, true) => Some(WatchKind::Added),
            (true, true) => Some(WatchKind::Modified),
            (true, false) => Some(WatchKind::Deleted),
            (false, false) => None,
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Truth {
    head: i64,
    items: BTreeMap<String, BTreeMap<String, Item>>,
    changes: BTreeMap<String, Vec<Change>>,
    /// A digest of each commit.
    digests: BTreeMap<i64, u64>,
}

impl Truth {
    /// The newest revision.
    #[must_use]
    pub const fn head(&self) -> i64 {
        self.head
    }

    /// The objects of a storage prefix, by `namespace/name`.
    pub fn items(&self, prefix: &str) -> impl Iterator<Item = (&String, &Item)> {
        self.items.get(prefix).into_iter().flatten()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, prefix: &str, key: &str) -> Option<&Item> {
        self.items.get(prefix)?.get(key)
    }

    /// The changes of a storage prefix, in order.
    #[must_use]
    pub fn changes(&self, prefix: &str) -> &[Change] {
        self.changes.get(prefix).map_or(&[], Vec::as_slice)
    }

    /// The digest of a commit that was seen.
    #[must_use]
    pub fn digest(&self, revision: i64) -> Option<u64> {
        self.digests.get(&revision).copied()
    }

    /// Takes the next commit, and gives the changes of objects that it makes with their prefixes.
    pub fn apply(&mut self, commit: &Commit) -> Vec<(String, Change)> {
        self.head = commit.revision;
        self.digests.insert(commit.revision, digest(commit));
        let mut made = Vec::new();
        for change in &commit.changes {
            let key = String::from_utf8_lossy(&change.kv.key);
            let Some((prefix, name)) = split(&key) else { continue };
            let items = self.items.entry(prefix.clone()).or_default();
            let old = items.get(name).map(|i| i.value.clone());
            let new = (!change.is_delete())
                .then(|| serde_json::from_slice::<Value>(&change.kv.value).ok())
                .flatten()
                .map(Arc::new);
            match &new {
                Some(value) => {
                    items.insert(name.into(), Item { revision: commit.revision, value: value.clone() });
                }
                None => {
                    items.remove(name);
                }
            }
            let change = Change { revision: commit.revision, key: name.into(), old, new };
            self.changes.entry(prefix.clone()).or_default().push(change.clone());
            made.push((prefix, change));
        }
        made
    }
}

/// The storage prefix of a resource and the rest of a key; none for keys that hold no objects.
fn split(key: &str) -> Option<(String, &str)> {
    static PREFIXES: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    let known = PREFIXES.get_or_init(|| table::builtin().iter().map(|i| i.storage_prefix.as_str()).collect());
    let begin = "/registry/".len();
    let rest = key.strip_prefix("/registry/")?;
    let mut ends = rest.match_indices('/').map(|(at, _)| at + 1);
    for end in [ends.next()?, ends.next().unwrap_or(0)] {
        let (prefix, name) = key.split_at_checked(begin + end)?;
        if end > 0 && known.contains(prefix) {
            return Some((prefix.into(), name));
        }
    }
    None
}

/// A digest of the content of a commit (FNV-1a).
#[must_use]
pub fn digest(commit: &Commit) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for change in &commit.changes {
        eat(&change.kv.key);
        eat(&change.kv.value);
        eat(&change.kv.version.to_le_bytes());
        eat(&change.kv.create_revision.to_le_bytes());
    }
    hash
}
