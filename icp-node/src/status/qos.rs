//! Requests, limits and quality of service.

use alloc::collections::BTreeMap;
use alloc::format;

use icp_core::api::Quantity;

use crate::pod::{Container, PodSpec, QuantityText, ResourceRequirements};
use crate::runtime::QosClass;

/// A quantity as it may stand in JSON; `None` if it cannot be parsed.
#[must_use]
pub fn parse_quantity(text: &QuantityText) -> Option<Quantity> {
    match text {
        QuantityText::Text(text) => text.parse().ok(),
        QuantityText::Number(n) => format!("{n}").parse().ok(),
    }
}

fn amount<'a>(
    list: &'a BTreeMap<alloc::string::String, QuantityText>,
    name: &str,
) -> Option<&'a QuantityText> {
    list.get(name)
}

/// Thousandths of a core under `cpu`; 0 if there is none.
#[must_use]
pub fn cpu_millis(list: &BTreeMap<alloc::string::String, QuantityText>) -> u64 {
    let quantity = amount(list, "cpu").and_then(parse_quantity);
    quantity.and_then(|q| u64::try_from(q.millis()).ok()).unwrap_or(0)
}

/// Bytes under `memory`; 0 if there is none.
#[must_use]
pub fn memory_bytes(list: &BTreeMap<alloc::string::String, QuantityText>) -> u64 {
    let quantity = amount(list, "memory").and_then(parse_quantity);
    quantity.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0)
}

/// The quality of service (`k8s.io/kubernetes/pkg/apis/core/v1/helper/qos/qos.go`): `Guaranteed` if every
/// container has limits for cpu and memory and no other requests, `BestEffort` if none has any.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let own = |r: &ResourceRequirements| {
        let mut any = false;
        let mut guaranteed = true;
        for name in ["cpu", "memory"] {
            let limit = r.limits.get(name).and_then(parse_quantity).filter(|q| !q.is_zero());
            let request = r.requests.get(name).and_then(parse_quantity).filter(|q| !q.is_zero());
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
        (any, guaranteed)
    };
    let pod_level = own(&spec.resources);
    if pod_level.0 {
        return if pod_level.1 { QosClass::Guaranteed } else { QosClass::Burstable };
    }
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.init_containers.iter().chain(&spec.containers) {
        let (has, full) = own(&container.resources);
        any |= has;
        guaranteed &= full;
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// What the pod sets aside, by resource, in thousandths of the resource's unit: the larger of the sum of its
/// containers (and sidecars) and of its init containers one by one, plus overhead.
#[must_use]
pub fn pod_requests(spec: &PodSpec) -> BTreeMap<alloc::string::String, i64> {
    let of = |c: &Container, name: &str| {
        let r = &c.resources;
        let text = r.requests.get(name).or_else(|| r.limits.get(name));
        text.and_then(parse_quantity).map_or(0, Quantity::millis)
    };
    let mut names: alloc::vec::Vec<&str> = alloc::vec::Vec::new();
    for c in spec.init_containers.iter().chain(&spec.containers) {
        for name in c.resources.requests.keys().chain(c.resources.limits.keys()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let mut all = BTreeMap::new();
    for name in names {
        let mut sum: i64 = spec.containers.iter().map(|c| of(c, name)).sum();
        let (mut sidecars, mut peak) = (0_i64, 0_i64);
        for c in &spec.init_containers {
            if c.is_sidecar() {
                sidecars = sidecars.saturating_add(of(c, name));
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars.saturating_add(of(c, name)));
            }
        }
        sum = sum.saturating_add(sidecars).max(peak);
        let overhead = spec.overhead.get(name).and_then(parse_quantity).map_or(0, Quantity::millis);
        all.insert(name.into(), sum.saturating_add(overhead));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(containers: serde_json::Value) -> QosClass {
        qos_class(&serde_json::from_value(json!({ "containers": containers })).unwrap())
    }

    #[test]
    fn classes() {
        assert_eq!(class(json!([{ "name": "a" }])), QosClass::BestEffort);
        let full = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m" } });
        assert_eq!(class(json!([{ "resources": full }])), QosClass::Guaranteed);
        assert_eq!(class(json!([{ "resources": full }, { "name": "b" }])), QosClass::Burstable);
        let half = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } });
        assert_eq!(class(json!([{ "resources": half }])), QosClass::Burstable);
    }

    #[test]
    fn requests_take_the_peak_of_init_containers() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                { "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                { "resources": { "requests": { "cpu": "2" } } },
            ],
            "containers": [{ "resources": { "requests": { "cpu": "500m" } } }],
            "overhead": { "cpu": "50m" },
        }))
        .unwrap();
        assert_eq!(pod_requests(&spec)["cpu"], 2150);
    }
}
