//! The plans.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::json;

use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, ObjectKey};
use crate::controllers::{Action, Cache, Controller, Plan};

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

fn wants_content(namespace: &Object) -> bool {
    !namespace.is_terminating() && namespace.str_at("/status/phase") != "Terminating"
}

/// Creates the service account `default` where it is missing.
#[must_use]
pub fn plan_default_account(namespace: &Object, account: Option<&Arc<Object>>) -> Plan {
    let mut plan = Plan::none();
    if wants_content(namespace) && account.is_none() {
        let account = Object::new("v1", "ServiceAccount", &namespace.metadata.name, "default");
        plan.one(Action::create(&resources::SERVICE_ACCOUNTS, account).tolerating(&[reason::ALREADY_EXISTS]));
    }
    plan
}

/// Makes the ConfigMap `kube-root-ca.crt` hold `ca` (PEM).
#[must_use]
pub fn plan_root_ca(namespace: &Object, current: Option<&Arc<Object>>, ca: &str) -> Plan {
    let mut plan = Plan::none();
    if !wants_content(namespace) {
        return plan;
    }
    let mut next = match current {
        Some(current) => Object::clone(current),
        None => Object::new("v1", "ConfigMap", &namespace.metadata.name, ROOT_CA),
    };
    next.rest.insert("data".into(), json!({"ca.crt": ca}));
    next.metadata.annotations.insert("kubernetes.io/description".into(), DESCRIPTION.into());
    match current {
        Some(current) if **current == next => {}
        Some(_) => plan.one(Action::update(&resources::CONFIG_MAPS, next)),
        None => plan.one(Action::create(&resources::CONFIG_MAPS, next).tolerating(&[reason::ALREADY_EXISTS])),
    }
    plan
}

/// The namespace that a change of an object named `name` in it concerns.
fn namespace_of(gvr: &Gvr, delta: &Delta, name: &str, keys: &mut Vec<ObjectKey>) {
    let meta = &delta.object().metadata;
    if *gvr == resources::NAMESPACES {
        keys.push(ObjectKey::new("", &meta.name));
    } else if meta.name == name {
        keys.push(ObjectKey::new("", &meta.namespace));
    }
}

/// The controller of default service accounts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NAMESPACES, resources::SERVICE_ACCOUNTS]
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        namespace_of(gvr, delta, "default", keys);
    }

    fn plan(&mut self, _now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let account = cache.store(&resources::SERVICE_ACCOUNTS).get(&key.name, "default");
        let namespace = cache.store(&resources::NAMESPACES).get_key(key);
        namespace.map_or_else(Plan::none, |ns| plan_default_account(ns, account))
    }
}

/// The controller of `kube-root-ca.crt`.
#[derive(Clone, Debug)]
pub struct RootCaPublisher {
    ca: String,
}

impl RootCaPublisher {
    /// Publishes `ca` (PEM).
    #[must_use]
    pub const fn new(ca: String) -> Self {
        Self { ca }
    }
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NAMESPACES, resources::CONFIG_MAPS]
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        namespace_of(gvr, delta, ROOT_CA, keys);
    }

    fn plan(&mut self, _now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let current = cache.store(&resources::CONFIG_MAPS).get(&key.name, ROOT_CA);
        let namespace = cache.store(&resources::NAMESPACES).get_key(key);
        namespace.map_or_else(Plan::none, |ns| plan_root_ca(ns, current, &self.ca))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_gets_its_content_once_and_not_while_it_ends() {
        let mut ns = Object::new("v1", "Namespace", "", "a");
        assert_eq!(plan_default_account(&ns, None).actions().count(), 1);
        let account = Arc::new(Object::new("v1", "ServiceAccount", "a", "default"));
        assert!(plan_default_account(&ns, Some(&account)).is_empty());
        let created = plan_root_ca(&ns, None, "PEM");
        let map = match &created.actions().next().unwrap().request.op {
            crate::client::Operation::Create(o) => Arc::clone(o),
            other => panic!("{other:?}"),
        };
        assert_eq!(map.str_at("/data/ca.crt"), "PEM");
        assert!(plan_root_ca(&ns, Some(&map), "PEM").is_empty());
        assert_eq!(plan_root_ca(&ns, Some(&map), "NEW").actions().count(), 1);
        ns.metadata.deletion_timestamp = Some(Time::ZERO);
        assert!(plan_default_account(&ns, None).is_empty() && plan_root_ca(&ns, None, "PEM").is_empty());
    }
}
