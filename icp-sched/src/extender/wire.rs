//! What is sent to an extender and what it answers, with upstream's names. Answers are read as Go reads them: fields by
//! name whatever their case, and `null` as nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::ExtenderAnswer;

/// The nodes of a question.
#[derive(Serialize)]
pub(crate) struct NodeList<'a> {
    metadata: Map<String, Value>,
    items: Vec<&'a Object>,
}

/// The question for nodes or points: whole nodes, or names for an extender that knows them (`nodeCacheCapable`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ExtenderArgs<'a> {
    pod: &'a Object,
    nodes: Option<NodeList<'a>>,
    node_names: Option<&'a [String]>,
}

impl<'a> ExtenderArgs<'a> {
    pub(crate) const fn by_name(pod: &'a Object, names: &'a [String]) -> Self {
        Self { pod, nodes: None, node_names: Some(names) }
    }

    pub(crate) fn whole(pod: &'a Object, items: Vec<&'a Object>) -> Self {
        Self { pod, nodes: Some(NodeList { metadata: Map::new(), items }), node_names: None }
    }
}

/// The order to bind.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BindingArgs<'a> {
    pub(crate) pod_name: &'a str,
    pub(crate) pod_namespace: &'a str,
    #[serde(rename = "PodUID")]
    pub(crate) pod_uid: &'a str,
    pub(crate) node: &'a str,
}

/// The question about victims: whole pods, or their uids for an extender that knows them (`nodeCacheCapable`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PreemptionArgs<'a> {
    pod: &'a Object,
    pub(crate) node_name_to_victims: Option<BTreeMap<&'a str, NodeVictims<'a>>>,
    pub(crate) node_name_to_meta_victims: Option<BTreeMap<&'a str, VictimIds>>,
}

impl<'a> PreemptionArgs<'a> {
    pub(crate) const fn new(pod: &'a Object) -> Self {
        Self { pod, node_name_to_victims: None, node_name_to_meta_victims: None }
    }
}

/// The victims of a node.
#[derive(Serialize)]
pub(crate) struct NodeVictims<'a> {
    #[serde(rename = "Pods")]
    pods: Vec<&'a Object>,
    #[serde(rename = "NumPDBViolations")]
    violations: usize,
}

impl<'a> NodeVictims<'a> {
    pub(crate) fn new(pods: &'a [Arc<Object>], violations: usize) -> Self {
        Self { pods: pods.iter().map(|p| &**p).collect(), violations }
    }
}

/// The same by their uids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VictimIds {
    pub(crate) uids: Vec<String>,
    pub(crate) violations: usize,
}

impl VictimIds {
    pub(crate) fn new(uids: impl Iterator<Item = String>, violations: usize) -> Self {
        Self { uids: uids.collect(), violations }
    }
}

impl Serialize for VictimIds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pods: Vec<Value> = self.uids.iter().map(|uid| json!({"UID": uid})).collect();
        json!({"Pods": pods, "NumPDBViolations": self.violations}).serialize(serializer)
    }
}

/// The document of an answer.
fn document(answer: &ExtenderAnswer, url: &str) -> Result<Value, String> {
    if answer.code != 200 {
        return Err(format!("failed with extender at URL {url}, code {}", answer.code));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("answer of extender at URL {url}: {e}"))
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(name)
        .or_else(|| map.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
        .filter(|v| !v.is_null())
}

/// A field of another form than it should have.
fn wrong(url: &str, name: &str, expected: &str) -> String {
    format!("answer of extender at URL {url}: {name}: expected {expected}")
}

fn text<'v>(value: &'v Value, name: &str, url: &str) -> Result<&'v str, String> {
    match field(value, name) {
        None => Ok(""),
        Some(v) => v.as_str().ok_or_else(|| wrong(url, name, "a string")),
    }
}

/// The nodes that an extender leaves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterResult {
    pub(crate) left: BTreeSet<String>,
    /// Reasons of others.
    pub(crate) failed: BTreeMap<String, String>,
    /// Reasons of others where preemption does not help.
    pub(crate) unresolvable: BTreeMap<String, String>,
}

impl FilterResult {
    /// Reads an answer about the nodes `asked`.
    pub(crate) fn read(
        answer: &ExtenderAnswer,
        url: &str,
        by_name: bool,
        asked: &[String],
    ) -> Result<Self, String> {
        let value = document(answer, url)?;
        let error = text(&value, "Error", url)?;
        if !error.is_empty() {
            return Err(error.into());
        }
        let names = field(&value, "NodeNames").filter(|_| by_name);
        let left: Vec<&Value> = match (names, field(&value, "Nodes")) {
            (Some(names), _) => {
                let names = names.as_array().ok_or_else(|| wrong(url, "NodeNames", "a list"))?;
                names.iter().collect()
            }
            (None, Some(nodes)) => {
                let items = field(nodes, "items")
                    .map(|v| v.as_array().ok_or_else(|| wrong(url, "Nodes.items", "a list")));
                let items = items.transpose()?.into_iter().flatten();
                let name = |n| field(n, "metadata").and_then(|m| field(m, "name")).unwrap_or(&Value::Null);
                items.map(name).collect()
            }
            (None, None) => Vec::new(),
        };
        let asked: BTreeSet<&str> = asked.iter().map(String::as_str).collect();
        let mut result = Self::default();
        for name in left {
            let name = name.as_str().ok_or_else(|| wrong(url, "the name of a node", "a string"))?;
            if !asked.contains(name) {
                return Err(format!(
                    "extender {url:?} claims a filtered node {name:?} which is not found in the input node list"
                ));
            }
            result.left.insert(name.into());
        }
        result.failed = reasons(&value, "FailedNodes", url)?;
        result.unresolvable = reasons(&value, "FailedAndUnresolvableNodes", url)?;
        Ok(result)
    }
}

fn reasons(value: &Value, name: &str, url: &str) -> Result<BTreeMap<String, String>, String> {
    let Some(value) = field(value, name) else { return Ok(BTreeMap::new()) };
    let of = |(node, why): (&String, &Value)| Some((node.clone(), why.as_str()?.to_string()));
    let map = value.as_object().and_then(|map| map.iter().map(of).collect());
    map.ok_or_else(|| wrong(url, name, "an object of strings"))
}

/// The points of nodes (`HostPriorityList`).
pub(crate) fn points(answer: &ExtenderAnswer, url: &str) -> Result<BTreeMap<String, i64>, String> {
    let value = document(answer, url)?;
    if value.is_null() {
        return Ok(BTreeMap::new());
    }
    let list = value.as_array().ok_or_else(|| wrong(url, "the points", "a list"))?;
    let mut points = BTreeMap::new();
    for item in list {
        let score = match field(item, "Score") {
            None => 0,
            Some(v) => v.as_i64().ok_or_else(|| wrong(url, "Score", "an integer"))?,
        };
        points.insert(text(item, "Host", url)?.into(), score);
    }
    Ok(points)
}

/// The victims that an extender leaves, by node.
pub(crate) fn victims(answer: &ExtenderAnswer, url: &str) -> Result<BTreeMap<String, VictimIds>, String> {
    const FIELD: &str = "NodeNameToMetaVictims";
    let value = document(answer, url)?;
    let Some(nodes) = field(&value, FIELD) else { return Ok(BTreeMap::new()) };
    let nodes = nodes.as_object().ok_or_else(|| wrong(url, FIELD, "an object"))?;
    let mut all = BTreeMap::new();
    for (node, victims) in nodes {
        let mut ids = VictimIds::default();
        if let Some(n) = field(victims, "NumPDBViolations") {
            let n = n.as_i64().ok_or_else(|| wrong(url, "NumPDBViolations", "an integer"))?;
            ids.violations = usize::try_from(n).unwrap_or(0);
        }
        if let Some(pods) = field(victims, "Pods") {
            for pod in pods.as_array().ok_or_else(|| wrong(url, "Pods", "a list"))? {
                ids.uids.push(text(pod, "UID", url)?.into());
            }
        }
        all.insert(node.clone(), ids);
    }
    Ok(all)
}

/// Why a binding did not come about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// The extender says so.
    Refused(String),
    /// Nobody knows whether it came about.
    Unknown(String),
}

/// Reads the answer to an order to bind.
pub(crate) fn bound(answer: &ExtenderAnswer, url: &str) -> Result<(), Unbound> {
    let value = document(answer, url).map_err(Unbound::Unknown)?;
    match text(&value, "Error", url).map_err(Unbound::Unknown)? {
        "" => Ok(()),
        error => Err(Unbound::Refused(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://x/filter";

    fn read(value: &Value, by_name: bool) -> Result<FilterResult, String> {
        let answer = ExtenderAnswer { code: 200, body: value.to_string().into_bytes() };
        FilterResult::read(&answer, URL, by_name, &["n0".into(), "n1".into()])
    }

    #[test]
    fn questions_have_the_names_of_upstream() {
        let pod = Object::new("v1", "Pod", "default", "a");
        let node = Object::new("v1", "Node", "", "n0");
        let names = ["n0".to_string()];
        let value = serde_json::to_value(ExtenderArgs::by_name(&pod, &names)).unwrap();
        assert_eq!((&value["Pod"]["metadata"]["name"], &value["NodeNames"]), (&json!("a"), &json!(["n0"])));
        assert_eq!(value["Nodes"], Value::Null);
        let value = serde_json::to_value(ExtenderArgs::whole(&pod, [&node].into())).unwrap();
        assert_eq!(value["Nodes"]["items"][0]["metadata"]["name"], "n0");
        assert_eq!(value["NodeNames"], Value::Null);
        let args = BindingArgs { pod_name: "a", pod_namespace: "default", pod_uid: "u", node: "n0" };
        let want = json!({"PodName": "a", "PodNamespace": "default", "PodUID": "u", "Node": "n0"});
        assert_eq!(serde_json::to_value(args).unwrap(), want);
    }

    #[test]
    fn answers_are_read_as_go_reads_them() {
        let left = |value, by_name| Vec::from_iter(read(&value, by_name).unwrap().left);
        assert_eq!(left(json!({"NodeNames": ["n1"]}), true), ["n1"]);
        assert_eq!(left(json!({"nodenames": ["n1"], "Nodes": null, "Error": null}), true), ["n1"]);
        let nodes = json!({"Nodes": {"items": [{"metadata": {"name": "n0"}}]}, "NodeNames": ["n1"]});
        assert_eq!(left(nodes.clone(), false), ["n0"]);
        assert_eq!(left(nodes, true), ["n1"]);
        assert!(left(json!({}), true).is_empty());
        let failed = json!({"FailedNodes": {"n0": "full"}, "FailedAndUnresolvableNodes": {"n1": "old"}});
        let failed = read(&failed, true).unwrap();
        assert_eq!((failed.failed["n0"].as_str(), failed.unresolvable["n1"].as_str()), ("full", "old"));
    }

    #[test]
    fn wrong_answers_are_errors() {
        for (value, want) in [
            (json!({"Error": "no"}), "no"),
            (json!({"NodeNames": ["n2"]}), "claims a filtered node \"n2\""),
            (json!({"NodeNames": 1}), "NodeNames: expected a list"),
            (json!({"NodeNames": [1]}), "the name of a node: expected a string"),
            (json!({"Nodes": {"items": 1}, "NodeNames": null}), "Nodes.items: expected a list"),
            (json!({"FailedNodes": {"n0": 1}}), "FailedNodes: expected an object of strings"),
        ] {
            let error = read(&value, true).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        let answer = |code, body: &str| ExtenderAnswer { code, body: body.into() };
        let error = FilterResult::read(&answer(503, "{}"), URL, true, &[]).unwrap_err();
        assert_eq!(error, "failed with extender at URL http://x/filter, code 503");
        assert!(points(&answer(200, "[{\"Host\": \"n0\", \"Score\": \"x\"}]"), URL).is_err());
        assert_eq!(points(&answer(200, "[{\"host\": \"n0\", \"score\": 7}]"), URL).unwrap()["n0"], 7);
        assert!(matches!(bound(&answer(500, ""), URL), Err(Unbound::Unknown(_))));
        assert_eq!(bound(&answer(200, "{\"Error\": \"full\"}"), URL), Err(Unbound::Refused("full".into())));
        assert_eq!(bound(&answer(200, "{}"), URL), Ok(()));
    }
}
