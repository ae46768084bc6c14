//! Sets of fields: what a manager owns (`structured-merge-diff` `fieldpath`).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde_json::{Map, Value};

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathElement {
    /// A field of an object or a key of a map.
    Field(String),
    /// The item of a list that has these values in its key fields; names in order, values as JSON.
    Key(Vec<(String, String)>),
    /// The item of a set that has this value, as JSON.
    Value(String),
    /// The item of a list at this place.
    Index(usize),
}

impl PathElement {
    /// The name in `fieldsV1`.
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let pairs: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
                    .collect();
                format!("k:{{{}}}", pairs.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(at) => format!("i:{at}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.into())),
            "k" => {
                let fields: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::Key(fields.into_iter().map(|(name, value)| (name, value.to_string())).collect()))
            }
            "v" => Some(Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

impl fmt::Display for PathElement {
    /// As in messages: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let pairs: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// Fields of the metadata that nobody owns.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// A set of paths.
///
/// A path may be a member while longer ones are members too: who owns `.metadata.labels` and
/// `.metadata.labels.a` owns the map and one key of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<PathElement, Node>);

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the fields that nobody owns: they are the server's, or name the object (`stripmeta.go`).
    pub(super) fn strip(&mut self) {
        self.0.retain(|step, node| match step {
            PathElement::Field(name) if matches!(name.as_str(), "apiVersion" | "kind") => false,
            PathElement::Field(name) if name == "metadata" => {
                node.member = false;
                let below = &mut node.below.0;
                below.retain(|s, _| !matches!(s, PathElement::Field(n) if UNOWNED.contains(&n.as_str())));
                !node.is_empty()
            }
            _ => true,
        });
    }

    /// Adds a path; the empty path is no member of any set.
    pub(super) fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Whether the one-step path is a member, and the set below it.
    pub(super) fn step(&self, element: &PathElement) -> (bool, Option<&Self>) {
        match self.0.get(element) {
            Some(node) => (node.member, Some(&node.below).filter(|below| !below.is_empty())),
            None => (false, None),
        }
    }

    /// Combines two sets step by step; `keep` says of (in self, in other) whether the path is in the result.
    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let none = Node::default();
        let steps = self.0.keys().chain(other.0.keys().filter(|k| !self.0.contains_key(*k)));
        let nodes = steps.map(|step| {
            let (a, b) = (self.0.get(step).unwrap_or(&none), other.0.get(step).unwrap_or(&none));
            let node = Node { member: keep(a.member, b.member), below: a.below.combine(&b.below, keep) };
            (step.clone(), node)
        });
        Self(nodes.filter(|(_, node)| !node.is_empty()).collect())
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Keeps the fields at the root for which `keep` holds, with all below them.
    pub(super) fn retain_roots(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|step, _| !matches!(step, PathElement::Field(name) if !keep(name)));
    }

    /// The steps at this place, whether each is a member, and the set below each.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&PathElement, bool, &Self)> {
        self.0.iter().map(|(step, node)| (step, node.member, &node.below))
    }

    /// Puts a step back together.
    pub(super) fn put(&mut self, step: PathElement, member: bool, below: Self) {
        let node = Node { member, below };
        if !node.is_empty() {
            self.0.insert(step, node);
        }
    }

    /// All members, as messages name them.
    pub(super) fn paths(&self) -> Vec<String> {
        fn walk(set: &FieldSet, prefix: &str, out: &mut Vec<String>) {
            for (step, node) in &set.0 {
                let path = format!("{prefix}{step}");
                if node.member {
                    out.push(path.clone());
                }
                walk(&node.below, &path, out);
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }

    /// `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut out = Map::new();
        for (step, node) in &self.0 {
            let mut below = node.below.encode();
            if node.member
                && !node.below.is_empty()
                && let Some(map) = below.as_object_mut()
            {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            out.insert(step.encode(), below);
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`; `None` if it is none.
    pub(super) fn decode(value: &Value) -> Option<Self> {
        let mut out = Self::default();
        for (name, below) in value.as_object()? {
            if name == "." {
                continue;
            }
            let own = below.get(".").is_some() || below.as_object()?.is_empty();
            out.put(PathElement::decode(name)?, own, Self::decode(below)?);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_v1_round_trips() {
        let fields = json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a.b/c": {} } },
            "f:spec": {
                "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:image": {} } },
                "f:finalizers": { "v:\"x/y\"": {} },
                "f:args": { "i:0": {} },
                "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {} },
            },
        });
        let set = FieldSet::decode(&fields).unwrap();
        assert_eq!(set.encode(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.a.b/c",
                ".spec.args[0]",
                r#".spec.containers[name="c"]"#,
                r#".spec.containers[name="c"].image"#,
                r#".spec.finalizers[="x/y"]"#,
                r#".spec.ports[containerPort=80,protocol="TCP"]"#,
            ]
        );
        for bad in [json!([]), json!({"x": {}}), json!({"f:a": 1}), json!({"k:{": {}}), json!({"i:-1": {}})] {
            assert_eq!(FieldSet::decode(&bad), None, "{bad}");
        }
    }

    fn paths() -> impl Strategy<Value = Vec<Vec<PathElement>>> {
        let step = "[abc]".prop_map(PathElement::Field);
        proptest::collection::vec(proptest::collection::vec(step, 1..4), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// The tree does what a plain set of paths does.
        #[test]
        fn sets_are_sets(a in paths(), b in paths()) {
            use alloc::collections::BTreeSet;
            let tree = |paths: &[Vec<PathElement>]| {
                let mut set = FieldSet::default();
                paths.iter().for_each(|p| set.insert(p));
                set
            };
            let text = |p: &Vec<PathElement>| p.iter().map(ToString::to_string).collect::<String>();
            let (x, y) = (tree(&a), tree(&b));
            let (p, q): (BTreeSet<_>, BTreeSet<_>) = (a.iter().map(text).collect(), b.iter().map(text).collect());
            let sorted = |set: &FieldSet| set.paths().into_iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(sorted(&x.union(&y)), p.union(&q).cloned().collect());
            prop_assert_eq!(sorted(&x.intersection(&y)), p.intersection(&q).cloned().collect());
            prop_assert_eq!(sorted(&x.difference(&y)), p.difference(&q).cloned().collect());
            prop_assert_eq!(FieldSet::decode(&x.encode()), Some(x));
        }
    }
}
