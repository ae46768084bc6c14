//! Whether the node takes a pod that was bound to it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use crate::pod::Pod;
use crate::status::pod_requests;

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: String,
    pub(super) message: String,
}

/// Checks what a pod asks for against what is left (`k8s.io/kubernetes/pkg/kubelet/lifecycle/predicate.go`).
/// Amounts are in thousandths of the resource's unit.
pub(super) fn admit<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod>,
    allocatable: &BTreeMap<String, i64>,
    labels: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    if let Some((key, _)) = pod.spec.node_selector.iter().find(|(k, v)| labels.get(*k) != Some(v)) {
        return Err(Rejection {
            reason: "NodeAffinity".into(),
            message: format!(
                "Pod was rejected: Predicate NodeAffinity failed: node has no label {key} as asked"
            ),
        });
    }
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for other in others {
        for (name, amount) in pod_requests(&other.spec) {
            let sum = used.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
        let pods = used.entry("pods".into()).or_default();
        *pods = pods.saturating_add(1000);
    }
    let mut wanted = pod_requests(&pod.spec);
    wanted.insert("pods".into(), 1000);
    for (name, amount) in wanted {
        let (have, taken) =
            (allocatable.get(&name).copied().unwrap_or(0), used.get(&name).copied().unwrap_or(0));
        if amount > 0 && taken.saturating_add(amount) > have {
            // Upstream tells cpu in thousandths, all else in whole units.
            let unit = if name == "cpu" { 1 } else { 1000 };
            let message = format!(
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                amount / unit,
                taken / unit,
                have / unit
            );
            return Err(Rejection { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}
