//! Fields of the pod that its containers can read (downward API).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Quantity;

use super::{NodeFacts, ResolveError, field_error};
use crate::pod::{Container, Pod, ResourceFieldRef};
use crate::status::parse_quantity;

/// The value of a field of the pod.
///
/// # Errors
/// If the path is none that can be read.
pub fn field_value(pod: &Pod, path: &str, ips: &[IpAddr], node: &NodeFacts) -> Result<String, ResolveError> {
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Ok(pod.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Ok(pod.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.as_str().into(),
        "metadata.labels" => lines(&pod.labels),
        "metadata.annotations" => lines(&pod.annotations),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => match pod.spec.service_account_name.as_str() {
            "" => "default".into(),
            name => name.into(),
        },
        "status.hostIP" => first(&node.ips),
        "status.hostIPs" => join(&node.ips),
        "status.podIP" => first(ips),
        "status.podIPs" => join(ips),
        _ => return Err(field_error("fieldRef.fieldPath", format!("unsupported field path {path:?}"))),
    })
}

/// `key="escaped value"` lines, sorted by key.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
}

/// A request or limit of a container, in units of the divisor, rounded up. A missing limit is what the node has.
///
/// # Errors
/// If the container, the resource or the divisor is not valid.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldRef,
    node: &NodeFacts,
) -> Result<String, ResolveError> {
    let container = match field.container_name.as_str() {
        "" => container,
        name => pod.container(name).ok_or_else(|| {
            field_error("resourceFieldRef.containerName", format!("no container named {name:?}"))
        })?,
    };
    let (list, name) = field.resource.split_once('.').ok_or_else(|| {
        field_error("resourceFieldRef.resource", format!("{:?} is not known", field.resource))
    })?;
    let resources = &container.resources;
    let amount = match list {
        "limits" => resources
            .limits
            .get(name)
            .and_then(parse_quantity)
            .map_or_else(|| node.allocatable.get(name).copied().unwrap_or(0), Quantity::millis),
        "requests" => resources.requests.get(name).and_then(parse_quantity).map_or(0, Quantity::millis),
        _ => {
            let message = format!("{:?} is not known", field.resource);
            return Err(field_error("resourceFieldRef.resource", message));
        }
    };
    let divisor = match &field.divisor {
        None => 1000,
        Some(text) => {
            let quantity = parse_quantity(text)
                .ok_or_else(|| field_error("resourceFieldRef.divisor", "is not a quantity"))?;
            if quantity.is_zero() { 1000 } else { quantity.millis() }
        }
    };
    if divisor <= 0 {
        return Err(field_error("resourceFieldRef.divisor", "must be positive"));
    }
    let whole = amount / divisor + i64::from(amount % divisor > 0);
    Ok(whole.to_string())
}
