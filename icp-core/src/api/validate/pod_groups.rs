//! PodGroups and Workloads of `scheduling.k8s.io` (`pkg/apis/scheduling/validation`, and the rules declared on the types).
//!
//! What this project's scheduler does not do is refused with the field, not ignored: placement by topology, claims that a
//! group shares, groups of groups, preemption by groups, and groups that are only disrupted whole.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, items, join, list, number, text};
use crate::api::{FieldError, names};

/// Most templates of a workload (`WorkloadMaxPodGroupTemplates`).
const TEMPLATES_MAX: usize = 8;
/// Fields of groups and templates that ask for what is not done, and what that is.
const REFUSED: &[(&str, &str)] = &[
    ("schedulingConstraints", "pods of a group are not placed by topology"),
    ("resourceClaims", "pods of a group cannot share claims of devices"),
    ("parentCompositePodGroupName", "there are no composite pod groups"),
    ("preemptionPolicy", "pod groups do not preempt"),
];
const IMMUTABLE: &str = "field is immutable";
const POLICY: &str = "schedulingPolicy";

pub(super) fn group(object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    part(spec, "spec", out);
    if let Some(of) = spec.get("workloadRef") {
        let path = "spec.workloadRef";
        let (workload, template) = (text(of, "workloadName"), text(of, "templateName"));
        if !workload.is_empty() {
            faults(out, &join(path, "workloadName"), workload, names::dns1123_subdomain(workload));
        }
        if !template.is_empty() {
            faults(out, &join(path, "templateName"), template, names::dns1123_label(template));
        }
    }
}

pub(super) fn workload(object: &Value, out: &mut Vec<FieldError>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    if let Some(of) = spec.get("controllerRef") {
        let path = "spec.controllerRef";
        let group = text(of, "apiGroup");
        if !group.is_empty() {
            faults(out, &join(path, "apiGroup"), group, names::dns1123_subdomain(group));
        }
        for field in ["kind", "name"] {
            let value = text(of, field);
            if !value.is_empty() {
                faults(out, &join(path, field), value, names::path_segment(value));
            }
        }
    }
    if spec.get("compositePodGroupTemplates").is_some() {
        let detail = "there are no composite pod groups";
        out.push(FieldError::forbidden("spec.compositePodGroupTemplates", detail));
    }
    let path = "spec.podGroupTemplates";
    let templates = list(spec, "podGroupTemplates");
    if templates.is_empty() {
        out.push(FieldError::required(path, "must have at least one item"));
    }
    if templates.len() > TEMPLATES_MAX {
        out.push(FieldError::too_many(path, templates.len(), TEMPLATES_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (path, template) in items(spec, "spec", "podGroupTemplates") {
        let name = text(template, "name");
        if name.is_empty() {
            out.push(FieldError::required(join(&path, "name"), ""));
        } else {
            faults(out, &join(&path, "name"), name, names::dns1123_label(name));
            if !seen.insert(name) {
                out.push(FieldError::duplicate(&*path, template.clone()));
            }
        }
        part(template, &path, out);
    }
}

/// What groups and their templates have in common.
fn part(spec: &Value, path: &str, out: &mut Vec<FieldError>) {
    if let Some(policy) = spec.get(POLICY) {
        let path = join(path, POLICY);
        one_of(policy, &path, ["basic", "gang"], out);
        if let Some(gang) = policy.get("gang") {
            let path = format!("{path}.gang.minCount");
            match number(gang, "minCount") {
                None | Some(0) => out.push(FieldError::required(path, "")),
                Some(n) if n < 0 => {
                    out.push(FieldError::invalid(path, n, "must be greater than or equal to 1"));
                }
                Some(_) => {}
            }
        }
    }
    if let Some(mode) = spec.get("disruptionMode") {
        let path = join(path, "disruptionMode");
        one_of(mode, &path, ["single", "all"], out);
        if mode.get("all").is_some() {
            out.push(FieldError::forbidden(join(&path, "all"), "pods of a group are disrupted one by one"));
        }
    }
    let class = text(spec, "priorityClassName");
    if !class.is_empty() {
        faults(out, &join(path, "priorityClassName"), class, names::dns1123_subdomain(class));
    }
    for (field, why) in REFUSED {
        if spec.get(*field).is_some() {
            out.push(FieldError::forbidden(join(path, field), *why));
        }
    }
}

/// Exactly one of two fields has to be set.
fn one_of(value: &Value, path: &str, fields: [&str; 2], out: &mut Vec<FieldError>) {
    let [a, b] = fields;
    match (value.get(a).is_some(), value.get(b).is_some()) {
        (true, true) => {
            let detail = format!("exactly one of `{a}`, `{b}` is required, but multiple fields are set");
            out.push(FieldError::invalid(path, format!("{{`{a}`, `{b}`}}"), detail));
        }
        (false, false) => {
            out.push(FieldError::invalid(path, "", format!("must specify one of: `{a}`, `{b}`")));
        }
        _ => {}
    }
}

pub(super) fn group_update(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let empty = Value::Null;
    let spec = |v| Value::get(v, "spec").unwrap_or(&empty);
    part_update(spec(new), spec(old), "spec", out);
}

pub(super) fn workload_update(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let empty = Value::Null;
    let spec = |v| Value::get(v, "spec").unwrap_or(&empty);
    let (new, old) = (spec(new), spec(old));
    let owner = old.get("controllerRef");
    if owner.is_some() && new.get("controllerRef") != owner {
        let value = new.get("controllerRef").cloned().unwrap_or_default();
        out.push(FieldError::invalid("spec.controllerRef", value, IMMUTABLE));
    }
    let before = list(old, "podGroupTemplates");
    let after = list(new, "podGroupTemplates");
    let of = |template: &Value| before.iter().find(|t| text(t, "name") == text(template, "name"));
    if before.len() != after.len() || !after.iter().all(|t| of(t).is_some()) {
        let detail = "templates cannot be added or removed once the workload is created";
        out.push(FieldError::forbidden("spec.podGroupTemplates", detail));
        return;
    }
    for (path, template) in items(new, "spec", "podGroupTemplates") {
        part_update(template, of(template).unwrap_or(&empty), &path, out);
    }
}

/// Only `minCount` may change.
fn part_update(new: &Value, old: &Value, path: &str, out: &mut Vec<FieldError>) {
    let fields: BTreeSet<&str> =
        [new, old].into_iter().filter_map(Value::as_object).flatten().map(|(field, _)| &**field).collect();
    for field in fields.into_iter().filter(|f| *f != POLICY && new.get(f) != old.get(f)) {
        let value = new.get(field).cloned().unwrap_or_default();
        out.push(FieldError::invalid(join(path, field), value, IMMUTABLE));
    }
    let empty = Value::Null;
    let (after, before) = (new.get(POLICY).unwrap_or(&empty), old.get(POLICY).unwrap_or(&empty));
    if after.get("basic") != before.get("basic") {
        let value = after.get("basic").cloned().unwrap_or_default();
        out.push(FieldError::invalid(format!("{path}.{POLICY}.basic"), value, IMMUTABLE));
    }
    let detail = match (before.get("gang").is_some(), after.get("gang").is_some()) {
        (false, true) => "field cannot be set once created",
        (true, false) => "field cannot be cleared once set",
        _ => return,
    };
    let value = after.get("gang").cloned().unwrap_or_default();
    out.push(FieldError::invalid(format!("{path}.{POLICY}.gang"), value, detail));
}
