//! Services and controllers that select pods, for default spreading.

use alloc::collections::BTreeMap;
use alloc::string::String;

use icp_core::api::labels::{Op, Requirement, Selector};

use crate::model::PodSpec;

type Labels = BTreeMap<String, String>;

/// What selects pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// By namespace and name.
    services: BTreeMap<String, BTreeMap<String, Labels>>,
    /// By namespace, kind and name.
    controllers: BTreeMap<(String, String, String), Selector>,
}

fn requirement(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), op: Op::In, values: alloc::vec![value.into()] }
}

impl Selectors {
    /// The selector of all Services that select the pod, and of the controller that manages it
    /// (`helper.DefaultSelector`); everything if there is none.
    pub(crate) fn of(&self, pod: &PodSpec) -> Selector {
        let mut merged = Labels::new();
        for selector in self.services.get(&pod.namespace).into_iter().flat_map(BTreeMap::values) {
            if selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v)) {
                merged.extend(selector.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        let mut all = Selector::default();
        all.requirements.extend(merged.iter().map(|(k, v)| requirement(k, v)));
        let controller = pod.controller.as_ref().and_then(|(kind, name)| {
            self.controllers.get(&(pod.namespace.clone(), kind.clone(), name.clone()))
        });
        all.requirements.extend(controller.into_iter().flat_map(|s| s.requirements.iter().cloned()));
        all
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.controllers.is_empty()
    }

    pub(super) fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) -> bool {
        let names = self.services.entry(namespace.into()).or_default();
        let changed = match selector.filter(|s| !s.is_empty()) {
            Some(selector) => names.insert(name.into(), selector.clone()) != Some(selector),
            None => names.remove(name).is_some(),
        };
        if names.is_empty() {
            self.services.remove(namespace);
        }
        changed
    }

    pub(super) fn set_controller(
        &mut self,
        namespace: &str,
        kind: &str,
        name: &str,
        selector: Option<Selector>,
    ) -> bool {
        let key = (namespace.into(), kind.into(), name.into());
        match selector.filter(|s| !s.requirements.is_empty()) {
            Some(selector) => self.controllers.insert(key, selector.clone()) != Some(selector),
            None => self.controllers.remove(&key).is_some(),
        }
    }
}
