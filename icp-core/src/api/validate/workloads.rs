//! Controllers of pods: selectors, templates, strategies.

use alloc::format;
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, flag, items, join, list, non_negative, number, pod, text};
use crate::api::labels::Selector;
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, cron, names};

/// A `metav1.LabelSelector`.
pub(super) fn selector(selector: Option<&Value>, path: &str, out: &mut Vec<FieldError>) {
    let Some(selector) = selector else { return };
    super::meta::labels(out, selector.get("matchLabels"), &join(path, "matchLabels"));
    for (path, e) in items(selector, path, "matchExpressions") {
        let (key, operator) = (text(e, "key"), text(e, "operator"));
        let empty = list(e, "values").is_empty();
        match operator {
            "In" | "NotIn" if empty => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                out.push(FieldError::required(join(&path, "values"), detail));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                out.push(FieldError::forbidden(join(&path, "values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "" => {}
            other => {
                out.push(FieldError::invalid(join(&path, "operator"), other, "not a valid selector operator"))
            }
        }
        if !key.is_empty() {
            faults(out, &join(&path, "key"), key, names::qualified_name(key));
        }
    }
}

fn template(spec: &Value, path: &str, restart: &[&str], out: &mut Vec<FieldError>) {
    let Some(template) = spec.get("template") else { return };
    let path = join(path, "template");
    let meta = template.get("metadata").unwrap_or(&Value::Null);
    super::meta::labels(out, meta.get("labels"), &format!("{path}.metadata.labels"));
    super::meta::annotations(out, meta.get("annotations"), &format!("{path}.metadata.annotations"));
    if let Some(inner) = template.get("spec") {
        let path = join(&path, "spec");
        pod::spec(inner, &path, out);
        let policy = text(inner, "restartPolicy");
        if !policy.is_empty()
            && !restart.contains(&policy)
            && matches!(policy, "Always" | "OnFailure" | "Never")
        {
            out.push(FieldError::not_supported(join(&path, "restartPolicy"), policy, restart));
        }
        if inner.get("activeDeadlineSeconds").is_some() && restart == ["Always"] {
            let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
            out.push(FieldError::forbidden(join(&path, "activeDeadlineSeconds"), detail));
        }
    } else {
        out.push(FieldError::required(join(&path, "spec.containers"), ""));
    }
}

/// The selector must pick the template's pods and must not be empty.
fn selects(info: &ResourceInfo, spec: &Value, out: &mut Vec<FieldError>) {
    let Some(value) = spec.get("selector") else { return };
    selector(Some(value), "spec.selector", out);
    let Ok(parsed) = Selector::from_label_selector(value) else { return };
    if parsed.is_everything() {
        let kind = match info.kind.as_str() {
            "ReplicaSet" => "replicaset",
            "DaemonSet" => "daemonset",
            "StatefulSet" => "statefulset",
            _ => "deployment",
        };
        out.push(FieldError::invalid(
            "spec.selector",
            value.clone(),
            format!("empty selector is invalid for {kind}"),
        ));
    }
    if let Some(template) = spec.get("template").filter(|t| !parsed.matches_object(t)) {
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| serde_json::json!({}));
        let detail = "`selector` does not match template `labels`";
        out.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
    }
}

/// A number or a percentage. The result is the number if it is a plain one or `0%`.
fn portion(value: Option<&Value>, path: &str, out: &mut Vec<FieldError>) -> Option<i64> {
    match value {
        Some(Value::Number(n)) => {
            let n = n.as_i64().unwrap_or_default();
            if n < 0 {
                out.push(FieldError::invalid(path, n, "must be greater than or equal to 0"));
            }
            Some(n)
        }
        Some(Value::String(s)) => {
            let digits =
                s.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if digits.is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                out.push(FieldError::invalid(path, s.as_str(), detail));
            }
            digits.and_then(|d| d.parse::<i64>().ok())
        }
        _ => None,
    }
}

/// What a disruption budget asks for.
pub(super) fn disruption_budget(spec: &Value, out: &mut Vec<FieldError>) {
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        out.push(FieldError::invalid("spec", spec.clone(), detail));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let (value, path) = (spec.get(field), join("spec", field));
        let number = portion(value, &path, out);
        if let Some(text) = value.and_then(Value::as_str).filter(|_| number.is_some_and(|n| n > 100)) {
            out.push(FieldError::invalid(path, text, "must not be greater than 100%"));
        }
    }
    selector(spec.get("selector"), "spec.selector", out);
}

fn rolling(strategy: &Value, path: &str, out: &mut Vec<FieldError>) {
    let Some(r) = strategy.get("rollingUpdate") else { return };
    if text(strategy, "type") == "Recreate" {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        out.push(FieldError::forbidden(join(path, "rollingUpdate"), detail));
        return;
    }
    let path = join(path, "rollingUpdate");
    let unavailable = portion(r.get("maxUnavailable"), &join(&path, "maxUnavailable"), out);
    let surge = portion(r.get("maxSurge"), &join(&path, "maxSurge"), out);
    if unavailable == Some(0) && surge == Some(0) {
        let value = r.get("maxUnavailable").cloned().unwrap_or_default();
        let detail = "may not be 0 when `maxSurge` is 0";
        out.push(FieldError::invalid(join(&path, "maxUnavailable"), value, detail));
    }
}

fn job(spec: &Value, path: &str, out: &mut Vec<FieldError>) {
    let fields =
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"];
    non_negative(out, spec, path, &fields);
    if text(spec, "completionMode") == "Indexed" && spec.get("completions").is_none() {
        out.push(FieldError::required(join(path, "completions"), "when completion mode is Indexed"));
    }
    template(spec, path, &["OnFailure", "Never"], out);
    if let Some(t) = spec.get("template").filter(|t| t.get("spec").is_some()) {
        let unset = t.pointer("/spec/restartPolicy").is_none();
        if unset {
            let at = format!("{path}.template.spec.restartPolicy");
            out.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\""));
        }
    }
}

fn cron_job(spec: &Value, name: &str, out: &mut Vec<FieldError>) {
    let line = text(spec, "schedule");
    if line.is_empty() {
        out.push(FieldError::required("spec.schedule", ""));
    } else if let Err(why) = cron::Schedule::parse(line) {
        out.push(FieldError::invalid("spec.schedule", line, why.0));
    }
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str) {
        let fault = match zone {
            "" => Some("must be nil or non-empty string".into()),
            "Local" => Some(
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".into(),
            ),
            _ => cron::zone(zone).err().map(|e| e.0),
        };
        out.extend(fault.map(|why| FieldError::invalid("spec.timeZone", zone, why)));
    }
    if name.len() > 52 {
        out.push(FieldError::invalid("metadata.name", name, "must be no more than 52 characters"));
    }
    let fields = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    non_negative(out, spec, "spec", &fields);
    if let Some(inner) = spec.pointer("/jobTemplate/spec") {
        job(inner, "spec.jobTemplate.spec", out);
    }
}

/// Checks an object of one of the kinds that make pods.
pub(super) fn validate(info: &ResourceInfo, object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    let common = ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    match info.kind.as_str() {
        "Deployment" => {
            non_negative(out, spec, "spec", &common);
            selects(info, spec, out);
            template(spec, "spec", &["Always"], out);
            if let Some(strategy) = spec.get("strategy") {
                rolling(strategy, "spec.strategy", out);
            }
            let deadline = number(spec, "progressDeadlineSeconds").unwrap_or(i64::MAX);
            if deadline <= number(spec, "minReadySeconds").unwrap_or(0) {
                let detail = "must be greater than minReadySeconds";
                out.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, detail));
            }
        }
        "ReplicaSet" | "StatefulSet" => {
            non_negative(out, spec, "spec", &common);
            selects(info, spec, out);
            template(spec, "spec", &["Always"], out);
        }
        "DaemonSet" => {
            non_negative(out, spec, "spec", &common);
            selects(info, spec, out);
            template(spec, "spec", &["Always"], out);
            if let Some(strategy) = spec.get("updateStrategy") {
                rolling(strategy, "spec.updateStrategy", out);
            }
        }
        "ReplicationController" => {
            non_negative(out, spec, "spec", &common);
            let wanted = spec.get("selector").and_then(Value::as_object);
            let empty = serde_json::Map::new();
            let labels =
                spec.pointer("/template/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
            match wanted {
                Some(wanted) if !wanted.is_empty() => {
                    if !wanted.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                        let detail = "`selector` does not match template `labels`";
                        out.push(FieldError::invalid(
                            "spec.template.metadata.labels",
                            labels.clone(),
                            detail,
                        ));
                    }
                }
                _ => out.push(FieldError::required("spec.selector", "")),
            }
            template(spec, "spec", &["Always"], out);
        }
        "Job" => {
            selector(spec.get("selector"), "spec.selector", out);
            job(spec, "spec", out);
            if let Some(value) = spec.get("selector").filter(|_| flag(spec, "manualSelector")) {
                let matches = Selector::from_label_selector(value)
                    .is_ok_and(|s| spec.get("template").is_some_and(|t| s.matches_object(t)));
                if !matches {
                    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or_default();
                    let detail = "`selector` does not match template `labels`";
                    out.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
                }
            }
        }
        "CronJob" => {
            cron_job(spec, object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(""), out)
        }
        _ => {}
    }
}
