//! What several controllers need.

mod conditions;
mod hash;
mod history;
mod numbers;
mod pods;
mod resources;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Map, Value};

pub(crate) use conditions::{Condition, condition, set_condition};
pub(crate) use hash::template_hash;
pub(crate) use history::{Revision, history};
pub(crate) use numbers::{IntOrPercent, resolve_fenceposts};
pub(crate) use pods::{
    Availability, PodPhase, PodView, availability, deletion_order, disruption_target, fail_pod, is_active,
    is_ready, node_ranks, pod_from_template,
};
pub(crate) use resources::{custom_resource, owner_resource};

use crate::api::{Object, OwnerReference, labels::Selector};
use crate::base::Rng;
use crate::client::IndexFn;

/// Characters of a generated suffix (`k8s.io/apiserver/pkg/storage/names`).
const SUFFIX_CHARS: usize = 5;

/// The selector of an object at `/spec/selector`, in the form `metav1.LabelSelector`; one that is missing or not
/// valid selects nothing.
pub(crate) fn selector(object: &Object) -> Selector {
    object
        .at("/spec/selector")
        .and_then(|v| Selector::from_label_selector(v).ok())
        .unwrap_or_else(Selector::nothing)
}

/// The selector of an object whose `/spec/selector` is a plain map, as in Services; one that is missing or empty
/// selects nothing.
pub(crate) fn map_selector(object: &Object) -> Selector {
    match object.at("/spec/selector") {
        Some(Value::Object(map)) if !map.is_empty() => {
            let value =
                Value::Object(Map::from_iter([(String::from("matchLabels"), Value::Object(map.clone()))]));
            Selector::from_label_selector(&value).unwrap_or_else(|_| Selector::nothing())
        }
        _ => Selector::nothing(),
    }
}

/// Gives `object` the name that the server would make of `generateName`. The client chooses it, so that a repeated
/// creation meets itself.
pub(crate) fn name_generated(object: &mut Object, prefix: &str, rng: &mut Rng) {
    object.metadata.generate_name = prefix.into();
    object.metadata.name = crate::api::names::generate(prefix, &rng.name_suffix(SUFFIX_CHARS));
}

/// The name of the index of [`orphans`].
pub(crate) const ORPHANS: &str = "orphans";

/// Objects that nobody controls, by namespace.
pub(crate) fn orphans() -> IndexFn {
    Arc::new(
        |o: &Object| if o.controller().is_none() { vec![o.metadata.namespace.clone()] } else { Vec::new() },
    )
}

/// The number at a JSON pointer.
pub(crate) fn int_at(object: &Object, pointer: &str) -> Option<i64> {
    object.at(pointer).and_then(Value::as_i64)
}

/// Sets `field` of the part `part` (`spec`, `status`) of an object; a part that is not a map is replaced.
pub(crate) fn set(object: &mut Object, part: &str, field: &str, value: Value) {
    let part = object.rest.get_or_insert_with(part, || Value::Object(Map::new()));
    if !part.is_object() {
        *part = Value::Object(Map::new());
    }
    if let Value::Object(map) = part {
        map.insert(field.into(), value);
    }
}

/// Whether `reference` names a controller of this group and kind.
pub(crate) fn is_kind(reference: &OwnerReference, group: &str, kind: &str) -> bool {
    let (owner_group, _) = reference.api_version.split_once('/').unwrap_or(("", ""));
    reference.kind == kind && owner_group == group
}
