//! The templates that an owner had, as ControllerRevisions (upstream `pkg/controller/history`).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::template_hash;
use crate::api::{Object, reason, resources};
use crate::client::ObjectKey;
use crate::controllers::Action;

/// The label of a revision that holds the hash of its template.
const HASH: &str = "controller.kubernetes.io/hash";
/// Old revisions that are kept where the owner does not say how many.
const LIMIT: usize = 10;

/// The revision of the owner's template as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// The name of its ControllerRevision.
    pub(crate) name: String,
    /// The hash of the template.
    pub(crate) hash: String,
}

fn number(revision: &Object) -> i64 {
    revision.rest.get("revision").and_then(Value::as_i64).unwrap_or(0)
}

/// The revision of the owner's template, and what keeps its history: the template becomes the newest revision, and old
/// ones beyond `revisionHistoryLimit` go, but for those that `in_use` names.
pub(crate) fn history(
    owner: &Object,
    revisions: &[Arc<Object>],
    in_use: impl Fn(&str) -> bool,
) -> (Revision, Vec<Action>) {
    let template = owner.at("/spec/template").cloned().unwrap_or_else(|| json!({}));
    let hash = template_hash(&template, None);
    let name = format!("{}-{hash}", owner.metadata.name);
    let newest = revisions.iter().map(|r| number(r)).max().unwrap_or(0);
    let gvr = &resources::CONTROLLER_REVISIONS;
    let mut actions = Vec::new();
    match revisions.iter().find(|r| r.metadata.name == name) {
        // What was rolled back to is the newest again.
        Some(known) if number(known) < newest => {
            let body = json!({"metadata": {"uid": known.metadata.uid}, "revision": newest + 1});
            actions.push(Action::merge(gvr, &ObjectKey::of(known), body));
        }
        Some(_) => {}
        None => {
            let mut object = Object::new("apps/v1", "ControllerRevision", &owner.metadata.namespace, &name);
            let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
            for (key, value) in labels.into_iter().flatten() {
                object.metadata.labels.insert(key.clone(), value.as_str().unwrap_or_default().into());
            }
            object.metadata.labels.insert(HASH.into(), hash.clone());
            if let Some(cause) = owner.metadata.annotations.get("kubernetes.io/change-cause") {
                object.metadata.annotations.insert("kubernetes.io/change-cause".into(), cause.clone());
            }
            object.metadata.owner_references.push(owner.controller_reference());
            let mut template = template;
            if let Some(map) = template.as_object_mut() {
                map.insert("$patch".into(), "replace".into());
            }
            object.rest.insert("data".into(), json!({"spec": {"template": template}}));
            object.rest.insert("revision".into(), (newest + 1).into());
            actions.push(Action::create(gvr, object).tolerating(&[reason::ALREADY_EXISTS]));
        }
    }
    let limit = super::int_at(owner, "/spec/revisionHistoryLimit");
    let limit = limit.map_or(LIMIT, |n| usize::try_from(n).unwrap_or(0));
    let mut old: Vec<&Arc<Object>> =
        revisions.iter().filter(|r| r.metadata.name != name && !in_use(&r.metadata.name)).collect();
    old.sort_by_key(|r| number(r));
    let excess = old.len().saturating_sub(limit);
    actions.extend(
        old.into_iter().take(excess).map(|r| Action::delete(gvr, r, None).tolerating(&[reason::NOT_FOUND])),
    );
    (Revision { name, hash: hash.to_string() }, actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Operation;

    fn owner(image: &str) -> Object {
        let mut owner = Object::new("apps/v1", "DaemonSet", "ns", "d");
        owner.rest.insert(
            "spec".into(),
            json!({"revisionHistoryLimit": 1, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}),
        );
        owner
    }

    #[test]
    fn templates_become_revisions_and_old_ones_go() {
        let mut revisions: Vec<Arc<Object>> = Vec::new();
        for (i, image) in ["one", "two", "three"].iter().enumerate() {
            let (revision, actions) = history(&owner(image), &revisions, |_| false);
            let Operation::Create(made) = &actions[0].request.op else { panic!() };
            assert_eq!((made.metadata.name.as_str(), number(made)), (revision.name.as_str(), i as i64 + 1));
            assert_eq!(made.at("/data/spec/template/$patch").unwrap(), "replace");
            assert_eq!(made.metadata.labels["a"], "b");
            let deleted: Vec<_> = actions[1..].iter().filter_map(|a| a.request.name.clone()).collect();
            assert_eq!(deleted.len(), usize::from(i == 2));
            revisions.retain(|r| !deleted.contains(&r.metadata.name));
            revisions.push(Arc::clone(made));
        }
        // Back to the second: it is renumbered, not made again.
        let (revision, actions) = history(&owner("two"), &revisions, |_| false);
        let Operation::Patch { body, .. } = &actions[0].request.op else { panic!() };
        assert_eq!((body["revision"].as_i64(), actions.len()), (Some(4), 1));
        assert!(revision.name.ends_with(&revision.hash));
        assert!(history(&owner("three"), &revisions, |_| false).1.is_empty());
    }
}
