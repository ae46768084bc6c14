//! Binding pods to nodes (`registry/core/pod/storage` `assignPod`): the rules, and the change made in the stored bytes.
//!
//! A binding changes three places of a pod and is written once for each pod that ever runs, so the stored object is not
//! taken apart: the changed places are found, and everything else is copied.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use http::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::context::Context;
use super::input::Input;
use super::store::{Commit, Extra};
use super::write::{Change, TRIES_MAX, checked_size};
use super::{Body, codec, failure};
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, Gvk, Status, invalid, set_at};
use crate::base::Time;

/// What a Binding asks for.
#[derive(Clone, Debug)]
struct Wish {
    name: String,
    node: String,
    /// The uid that the pod must have; empty for any.
    uid: String,
    annotations: Option<serde_json::Map<String, Value>>,
    now: Time,
}

/// What of a pod decides whether it can be bound.
#[derive(Clone, Copy)]
struct Facts<'a> {
    uid: &'a str,
    deleted: bool,
    node: &'a str,
    gated: bool,
}

impl Wish {
    fn check(&self, info: &ResourceInfo, facts: &Facts<'_>) -> Result<(), Status> {
        let Self { name, uid, .. } = self;
        let conflict = |why: &str| Err(failure::conflict(info, name, why));
        if !uid.is_empty() && uid != facts.uid {
            return conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                facts.uid
            ));
        }
        if facts.deleted {
            return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if !facts.node.is_empty() {
            return conflict(&format!("pod {name} is already assigned to node {:?}", facts.node));
        }
        if facts.gated {
            return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        Ok(())
    }

    fn condition(&self) -> Value {
        json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": self.now.to_rfc3339(),
        })
    }

    /// The bound pod, of the parsed one.
    fn change(&self, info: &ResourceInfo, old: &Value) -> Result<Value, Status> {
        self.check(
            info,
            &Facts {
                uid: codec::meta_str(old, "uid"),
                deleted: old.pointer("/metadata/deletionTimestamp").is_some(),
                node: old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or(""),
                gated: old.pointer("/spec/schedulingGates/0").is_some(),
            },
        )?;
        let mut new = old.clone();
        set_at(&mut new, &["spec", "nodeName"], self.node.as_str());
        for (k, v) in self.annotations.iter().flatten() {
            set_at(&mut new, &["metadata", "annotations", k], v.clone());
        }
        let scheduled = self.condition();
        let conditions = new.pointer("/status/conditions").and_then(Value::as_array).cloned();
        let mut conditions: Vec<Value> = conditions.unwrap_or_default();
        conditions.retain(|c| c.get("type") != scheduled.get("type"));
        conditions.push(scheduled);
        set_at(&mut new, &["status", "conditions"], conditions);
        Ok(new)
    }

    /// The bound pod, of the stored bytes; `None` if they are not as this server writes the pods that it is asked to
    /// bind, or the binding changes more.
    fn splice(&self, info: &ResourceInfo, stored: &[u8]) -> Result<Option<Bytes>, Status> {
        if self.annotations.is_some() {
            return Ok(None);
        }
        let Some(found) = Found::of(stored) else { return Ok(None) };
        self.check(
            info,
            &Facts {
                uid: &found.meta.uid,
                deleted: found.meta.deletion_timestamp.is_some(),
                node: found.spec.node_name.as_deref().unwrap_or(""),
                gated: found.spec.scheduling_gates.is_some_and(|g| g.get() != "[]"),
            },
        )?;
        Ok(self.edits(stored, &found).and_then(|edits| apply(stored, edits)))
    }

    /// The places that change, with what stands there then.
    fn edits(&self, stored: &[u8], found: &Found<'_>) -> Option<Vec<Edit>> {
        if found.spec.node_name.is_some() {
            return None;
        }
        let json = |value: &Value| serde_json::to_string(value).ok();
        let mut conditions = String::from("[");
        for condition in found.conditions()? {
            let Kind { kind } = serde_json::from_str(condition.get()).ok()?;
            if kind != "PodScheduled" {
                conditions.push_str(condition.get());
                conditions.push(',');
            }
        }
        conditions.push_str(&json(&self.condition())?);
        conditions.push(']');
        let mut edits = Vec::with_capacity(3);
        // A pod counts its generations from its creation on.
        let generation = found.meta.generation?;
        let next = generation.get().parse::<i64>().ok()?.checked_add(1)?;
        edits.push(Edit::instead(stored, generation, next.to_string())?);
        let node = json(&Value::from(self.node.as_str()))?;
        edits.push(Edit::first(stored, found.spec_at, &format!("\"nodeName\":{node}"))?);
        edits.push(match found.status.conditions {
            Some(raw) => Edit::instead(stored, raw, conditions)?,
            None => Edit::first(stored, found.status_at, &format!("\"conditions\":{conditions}"))?,
        });
        Some(edits)
    }
}

/// The parts of a stored pod, where they stand.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow)]
    spec: &'a RawValue,
    #[serde(borrow)]
    status: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    deletion_timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    generation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    scheduling_gates: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PodStatus<'a> {
    #[serde(borrow)]
    conditions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

struct Found<'a> {
    meta: Meta<'a>,
    spec_at: &'a RawValue,
    spec: Spec<'a>,
    status_at: &'a RawValue,
    status: PodStatus<'a>,
}

impl<'a> Found<'a> {
    fn of(stored: &'a [u8]) -> Option<Self> {
        let parts: Parts<'a> = serde_json::from_slice(stored).ok()?;
        Some(Self {
            meta: serde_json::from_str(parts.metadata.get()).ok()?,
            spec: serde_json::from_str(parts.spec.get()).ok()?,
            status: serde_json::from_str(parts.status.get()).ok()?,
            spec_at: parts.spec,
            status_at: parts.status,
        })
    }

    fn conditions(&self) -> Option<Vec<&'a RawValue>> {
        self.status.conditions.map_or(Some(Vec::new()), |raw| serde_json::from_str(raw.get()).ok())
    }
}

/// Bytes that replace others.
struct Edit {
    at: usize,
    len: usize,
    text: String,
}

/// Where a part of `stored` begins in it.
fn offset(stored: &[u8], part: &RawValue) -> Option<usize> {
    (part.get().as_ptr() as usize).checked_sub(stored.as_ptr() as usize)
}

impl Edit {
    /// `text` instead of a value.
    fn instead(stored: &[u8], value: &RawValue, text: String) -> Option<Self> {
        Some(Self { at: offset(stored, value)?, len: value.get().len(), text })
    }

    /// A field that becomes the first one of an object that has others.
    fn first(stored: &[u8], object: &RawValue, field: &str) -> Option<Self> {
        let rest = object.get().strip_prefix('{').filter(|rest| rest.starts_with('"'))?;
        let at = offset(stored, object)? + (object.get().len() - rest.len());
        Some(Self { at, len: 0, text: format!("{field},") })
    }
}

/// The bytes after the edits, which do not overlap.
fn apply(stored: &[u8], mut edits: Vec<Edit>) -> Option<Bytes> {
    edits.sort_by_key(|e| e.at);
    let mut out = Vec::with_capacity(stored.len() + edits.iter().map(|e| e.text.len()).sum::<usize>());
    let mut from = 0;
    for edit in edits {
        out.extend_from_slice(stored.get(from..edit.at)?);
        out.extend_from_slice(edit.text.as_bytes());
        from = edit.at + edit.len;
    }
    out.extend_from_slice(stored.get(from..)?);
    Some(out.into())
}

impl Context {
    /// Binds a pod to a node.
    pub(super) async fn bind(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let binding = self.decode_other(body, &Gvk::new("", "v1", "Binding"))?;
        let text = |p: &str| binding.pointer(p).and_then(Value::as_str).unwrap_or("").to_string();
        let (node, kind) = (text("/target/name"), text("/target/kind"));
        if node.is_empty() || !matches!(kind.as_str(), "" | "Node") {
            let error = FieldError::required("target.name", "");
            return Err(invalid(&self.info, &self.request.name, &[error]));
        }
        let annotations = binding.pointer("/metadata/annotations").and_then(Value::as_object);
        let wish = Wish {
            name: self.request.name.clone(),
            node,
            uid: text("/metadata/uid"),
            annotations: annotations.filter(|a| !a.is_empty()).cloned(),
            now: self.now,
        };
        if !self.bind_in_place(&wish).await? {
            let info = self.info.clone();
            self.change(&Change::With(Box::new(move |old| wish.change(&info, old)))).await?;
        }
        Ok(self.respond_status(Status { code: 201, ..Status::default() }))
    }

    /// Binds a pod by changing its stored bytes; false if that cannot be done and nothing is written.
    async fn bind_in_place(&self, wish: &Wish) -> Result<bool, Status> {
        if self.dry_run || !self.stored_form() {
            return Ok(false);
        }
        let key = self.key();
        let mut seen = self.server.kv(&key).await?;
        for _ in 0..TRIES_MAX {
            let Some(kv) = seen else {
                return Err(failure::not_found(&self.info, &wish.name));
            };
            let Some(bound) = wish.splice(&self.info, &kv.value)? else { return Ok(false) };
            let bound = checked_size(bound)?;
            match self.server.commit_update(&key, kv.mod_revision, bound, Extra::default()).await? {
                Commit::Done(_) => return Ok(true),
                Commit::Refused { object, .. } => seen = object,
            }
        }
        Err(failure::conflict(&self.info, &wish.name, failure::MODIFIED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table::{self, strategy};
    use alloc::vec;
    use proptest::prelude::*;

    const NOW: Time = Time::from_secs(1_000_000);

    fn wish() -> Wish {
        Wish { name: "p".into(), node: "w\"1".into(), uid: "u".into(), annotations: None, now: NOW }
    }

    fn pods() -> &'static ResourceInfo {
        table::find("", "v1", "pods").unwrap()
    }

    /// What the general way of a write makes of the pod.
    fn changed(wish: &Wish, old: &Value) -> Result<Value, Status> {
        let mut new = wish.change(pods(), old)?;
        strategy::prepare_update(pods(), Some("binding"), &mut new, old);
        Ok(new)
    }

    fn spliced(wish: &Wish, old: &Value) -> Result<Option<Value>, Status> {
        let bytes = wish.splice(pods(), &codec::encode(old))?;
        Ok(bytes.map(|b| serde_json::from_slice(&b).unwrap()))
    }

    fn pod() -> impl Strategy<Value = Value> {
        let maybe = |values: Vec<Value>| proptest::option::of(proptest::sample::select(values));
        let condition = |kind: &str| json!({ "type": kind, "status": "False", "message": "a \"}]" });
        let conditions = vec![
            json!([]),
            json!([condition("Ready")]),
            json!([condition("PodScheduled"), condition("Ready"), condition("PodScheduled")]),
        ];
        (
            maybe(vec![json!("u"), json!("v")]),
            maybe(vec![json!("2001-01-01T00:00:00Z")]),
            maybe(vec![json!(1), json!(41)]),
            maybe(vec![json!(""), json!("w2")]),
            maybe(vec![json!([]), json!([{ "name": "g" }])]),
            maybe(conditions),
            (any::<bool>(), any::<bool>(), ".{0,8}"),
        )
            .prop_map(|(uid, deleted, generation, node, gates, conditions, (spec, status, text))| {
                let fields = |list: Vec<(&str, Option<Value>)>| -> Value {
                    list.into_iter().filter_map(|(k, v)| Some((k.to_string(), v?))).collect()
                };
                json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": fields(vec![
                        ("name", Some("p".into())), ("uid", uid), ("deletionTimestamp", deleted),
                        ("generation", generation), ("annotations", Some(json!({ "a": text }))),
                    ]),
                    "spec": fields(vec![
                        ("nodeName", node), ("schedulingGates", gates), ("priority", spec.then(|| 0.into())),
                    ]),
                    "status": fields(vec![
                        ("conditions", conditions), ("phase", status.then(|| "Pending".into())),
                    ]),
                    "zzz": text,
                })
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// A change in the bytes says what the general way says, or is not made.
        #[test]
        fn both_ways_agree(pod in pod()) {
            let (want, got) = (changed(&wish(), &pod), spliced(&wish(), &pod));
            match got {
                Ok(None) => {}
                Ok(Some(new)) => prop_assert_eq!(Ok(new), want),
                Err(status) => prop_assert_eq!(Err(status), want),
            }
        }
    }

    #[test]
    fn a_pod_as_the_server_stores_it_is_changed_in_place() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "uid": "u", "generation": 1 },
            "spec": { "containers": [] }, "status": { "phase": "Pending" },
        });
        let bound = spliced(&wish(), &pod).unwrap().unwrap();
        assert_eq!(
            (&bound["spec"]["nodeName"], &bound["metadata"]["generation"]),
            (&json!("w\"1"), &json!(2))
        );
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let noted = Wish { annotations: json!({ "a": "b" }).as_object().cloned(), ..wish() };
        assert_eq!(spliced(&noted, &pod).unwrap(), None);
        assert_eq!(changed(&noted, &pod).unwrap()["metadata"]["annotations"]["a"], "b");
        assert_eq!(noted.splice(pods(), b"no pod").unwrap(), None);
    }
}
