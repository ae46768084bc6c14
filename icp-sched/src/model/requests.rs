//! Amounts of resources, and what a pod asks for in all.

use alloc::collections::BTreeMap;
use alloc::string::String;

use icp_core::api::Quantity;

use super::raw::{Container, Spec};

/// What a container without a request for CPU is taken for when nodes are scored, in thousandths
/// (`schedutil.DefaultMilliCPURequest`).
const DEFAULT_CPU: Quantity = Quantity::from_millis(100);
/// The same for memory, in bytes (`schedutil.DefaultMemoryRequest`).
const DEFAULT_MEMORY: Quantity = Quantity::from_bytes(200 << 20);

/// Amounts by resource name, exact.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// CPU, in thousandths.
    pub cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Ephemeral storage, in bytes.
    pub ephemeral: i64,
    /// Extended resources, huge pages and the like, by name.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of a resource list; names that are no resources of nodes are left out.
    pub(crate) fn of(list: &Amounts) -> Self {
        let mut r = Self::default();
        for (name, amount) in list {
            match name.as_str() {
                "cpu" => r.cpu = amount.millis(),
                "memory" => r.memory = amount.value(),
                "ephemeral-storage" => r.ephemeral = amount.value(),
                name if is_scalar(name) => {
                    r.scalars.insert(name.into(), amount.value());
                }
                _ => {}
            }
        }
        r
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.ephemeral == 0 && self.scalars.is_empty()
    }
}

/// `schedutil.IsScalarResourceName`: extended resources, huge pages, `kubernetes.io/` and attachable volumes.
fn is_scalar(name: &str) -> bool {
    if name.starts_with("hugepages-") || name.starts_with("attachable-volumes-") {
        return true;
    }
    match name.split_once('/') {
        Some(_) => !name.starts_with("requests."),
        None => false,
    }
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = *sum + *amount;
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let max = to.entry(name.clone()).or_default();
        *max = (*max).max(*amount);
    }
}

fn requests_of(container: &Container, missing: &Amounts) -> Amounts {
    let mut requests = container.resources.requests.clone();
    for (name, amount) in missing {
        requests.entry(name.clone()).or_insert(*amount);
    }
    requests
}

/// What a pod asks for (`k8s.io/component-helpers/resource.PodRequests`): the larger of all containers together with
/// the sidecars, and any init container with the sidecars that started before it; amounts of the pod itself replace
/// those of its containers; then the overhead. `missing` is assumed where a container says nothing.
fn total(spec: &Spec, missing: &Amounts) -> Amounts {
    let mut sum = Amounts::new();
    for c in &spec.containers {
        add(&mut sum, &requests_of(c, missing));
    }
    let (mut sidecars, mut first) = (Amounts::new(), Amounts::new());
    for c in &spec.init_containers {
        let mut own = requests_of(c, missing);
        if c.is_sidecar() {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut first, &own);
    }
    raise(&mut sum, &first);
    for (name, amount) in &spec.resources.requests {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name.clone(), *amount);
        }
    }
    add(&mut sum, &spec.overhead);
    sum
}

/// What a pod asks for, and the amounts of CPU and memory that it is taken for when nodes are scored.
pub(crate) fn of_pod(spec: &Spec) -> (Resources, i64, i64) {
    let exact = total(spec, &Amounts::new());
    let mut missing = Amounts::from([("cpu".into(), DEFAULT_CPU), ("memory".into(), DEFAULT_MEMORY)]);
    let own = &spec.resources;
    if own.is_set() {
        // What the pod asks for as a whole is not filled up by its containers.
        missing.retain(|name, _| !own.requests.contains_key(name));
    }
    let filled = Resources::of(&total(spec, &missing));
    (Resources::of(&exact), filled.cpu, filled.memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> (Resources, i64, i64) {
        of_pod(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn init_containers_sidecars_and_overhead() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}});
        let (r, ..) = pod(json!({"containers": [c("100m"), c("200m")], "initContainers": [c("250m")]}));
        assert_eq!(r.cpu, 300);
        let (r, ..) =
            pod(json!({"containers": [c("100m")], "initContainers": [c("250m"), sidecar, c("250m")],
            "overhead": {"cpu": "7m"}}));
        assert_eq!(r.cpu, 307);
        let (r, cpu, memory) = pod(json!({"containers": [{}, c("1")], "initContainers": [sidecar]}));
        assert_eq!((r.cpu, cpu, memory), (1050, 1150, 3 * (200 << 20)));
    }

    #[test]
    fn a_pods_own_amounts_replace_the_containers() {
        let (r, cpu, memory) =
            pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}],
            "resources": {"requests": {"cpu": "2"}}}));
        assert_eq!((r.cpu, cpu, memory), (2000, 2000, 200 << 20));
    }

    #[test]
    fn names_that_nodes_have() {
        for (name, want) in [
            ("example.com/gpu", true),
            ("hugepages-2Mi", true),
            ("kubernetes.io/x", true),
            ("gpu", false),
            ("requests.example.com/gpu", false),
            ("attachable-volumes-x", true),
        ] {
            assert_eq!(is_scalar(name), want, "{name}");
        }
    }
}
