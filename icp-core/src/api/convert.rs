//! Conversion between the versions that share stored objects: events and horizontal pod autoscalers.
//!
//! ```
//! use icp_core::api::{convert, table};
//! let info = table::find("events.k8s.io", "v1", "events").unwrap();
//! let mut event = serde_json::json!({"apiVersion":"events.k8s.io/v1","kind":"Event","note":"x"});
//! convert::to_storage(info, &mut event);
//! assert_eq!(event, serde_json::json!({"apiVersion":"v1","kind":"Event","message":"x"}));
//! ```

use alloc::string::String;

use serde_json::{Map, Value, json};

use super::table::ResourceInfo;

/// Fields of an event: `events.k8s.io/v1` and core (`pkg/apis/events/v1/conversion.go`).
const EVENT: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.into(), value);
    }
}

fn set_version(map: &mut Map<String, Value>, version: String) {
    map.insert("apiVersion".into(), version.into());
}

fn shared(info: &ResourceInfo) -> bool {
    info.storage_gvk != info.gvk()
}

/// From the request's version to the stored one.
pub fn to_storage(info: &ResourceInfo, object: &mut Value) {
    let Some(map) = object.as_object_mut().filter(|_| shared(info)) else { return };
    set_version(map, info.storage_gvk.api_version());
    match info.kind.as_str() {
        "Event" => EVENT.iter().for_each(|(new, core)| rename(map, new, core)),
        "HorizontalPodAutoscaler" => {
            if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut)
                && let Some(percent) = spec.remove("targetCPUUtilizationPercentage")
            {
                let metric = json!({ "type": "Resource", "resource": { "name": "cpu",
                        "target": { "type": "Utilization", "averageUtilization": percent } } });
                spec.insert("metrics".into(), json!([metric]));
            }
            if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut)
                && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
            {
                let metric = json!({ "type": "Resource", "resource": { "name": "cpu",
                        "current": { "averageUtilization": percent } } });
                status.insert("currentMetrics".into(), json!([metric]));
            }
        }
        _ => {}
    }
}

fn cpu_percent(part: &Map<String, Value>, list: &str, inner: &str) -> Option<Value> {
    let metrics = part.get(list)?.as_array()?;
    let cpu = metrics.iter().find(|m| m.pointer("/resource/name").and_then(Value::as_str) == Some("cpu"))?;
    cpu.get("resource")?.get(inner)?.get("averageUtilization").cloned()
}

/// From the stored version to the request's one. Metrics of an autoscaler that v1 has no field for are left out.
pub fn from_storage(info: &ResourceInfo, object: &mut Value) {
    let Some(map) = object.as_object_mut().filter(|_| shared(info)) else { return };
    set_version(map, info.api_version());
    match info.kind.as_str() {
        "Event" => EVENT.iter().for_each(|(new, core)| rename(map, core, new)),
        "HorizontalPodAutoscaler" => {
            for (part, list, inner, field) in [
                ("spec", "metrics", "target", "targetCPUUtilizationPercentage"),
                ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage"),
            ] {
                if let Some(part) = map.get_mut(part).and_then(Value::as_object_mut) {
                    let percent = cpu_percent(part, list, inner);
                    part.remove(list);
                    part.remove("behavior");
                    part.remove("conditions");
                    if let Some(percent) = percent {
                        part.insert(field.into(), percent);
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;

    #[test]
    fn events_keep_every_field() {
        let info = table::find("events.k8s.io", "v1", "events").unwrap();
        let event = json!({"apiVersion":"events.k8s.io/v1","kind":"Event","note":"n","reason":"r","type":"Normal",
            "regarding":{"kind":"Pod"},"reportingController":"c","reportingInstance":"i","deprecatedCount":3,
            "eventTime":"2026-01-01T00:00:00.000000Z"});
        let mut stored = event.clone();
        to_storage(info, &mut stored);
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        from_storage(info, &mut stored);
        assert_eq!(stored, event);
    }

    #[test]
    fn autoscalers_of_both_versions() {
        let info = table::find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v1 = json!({"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler",
            "spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":80}});
        let mut stored = v1.clone();
        to_storage(info, &mut stored);
        assert_eq!(stored["apiVersion"], "autoscaling/v2");
        assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        from_storage(info, &mut stored);
        assert_eq!(stored, v1);
    }
}
