//! PodDisruptionBudgets, and whose eviction they do not allow.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::labels::Selector;
use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use crate::cache::{Log, Shared};
use crate::model::{Pod, PodSpec};

/// A PodDisruptionBudget, as far as preemption minds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// The pods that it protects, of its namespace; an empty selector protects none.
    pub selector: Selector,
    /// How many may be evicted now (`status.disruptionsAllowed`).
    pub allowed: i64,
    /// Pods whose eviction is counted already (`status.disruptedPods`).
    pub disrupted: BTreeSet<String>,
}

impl DisruptionBudget {
    fn selects(&self, spec: &PodSpec) -> bool {
        !spec.labels.is_empty() && !self.selector.is_everything() && self.selector.matches(&spec.labels)
    }
}

/// The pods that a budget which came, went or changed protects, or protected before.
#[derive(Clone, Debug)]
pub(super) struct Protected {
    namespace: String,
    budgets: SmallVec<[DisruptionBudget; 2]>,
}

impl Protected {
    pub(super) fn has(&self, spec: &PodSpec) -> bool {
        self.namespace == spec.namespace && self.budgets.iter().any(|b| b.selects(spec))
    }
}

/// Changes of budgets that are followed one by one; who missed more begins anew.
const CHANGES_MAX: usize = 8;

/// Budgets by namespace and name, and the last changes of them.
#[derive(Debug)]
pub(crate) struct Budgets {
    by_key: Shared<BTreeMap<ObjectKey, DisruptionBudget>>,
    pub(super) changes: Log<Protected>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { by_key: Shared::default(), changes: Log::keeping(CHANGES_MAX) }
    }
}

impl Budgets {
    /// The same budgets for a snapshot; the first change on either side copies them.
    pub(in crate::scheduler) fn share(&mut self) -> Self {
        Self { by_key: self.by_key.share(), changes: Log::keeping(CHANGES_MAX) }
    }

    pub(super) fn set(&mut self, key: ObjectKey, budget: Option<DisruptionBudget>) {
        let namespace = key.namespace.clone();
        let before = match &budget {
            Some(budget) => self.by_key.get_mut().insert(key, budget.clone()),
            None => self.by_key.get_mut().remove(&key),
        };
        if before != budget {
            let budgets = before.into_iter().chain(budget).collect();
            self.changes.push(Protected { namespace, budgets });
        }
    }

    fn in_namespace<'b>(
        &'b self,
        namespace: &'b str,
    ) -> impl Iterator<Item = (&'b ObjectKey, &'b DisruptionBudget)> {
        let first = ObjectKey::new(namespace, "");
        self.by_key.get().range(first..).take_while(move |(key, _)| key.namespace == namespace)
    }

    /// The budgets that count the eviction of a pod.
    pub(super) fn protecting(&self, pod: &Pod) -> Vec<ObjectKey> {
        if self.by_key.get().is_empty() {
            return Vec::new();
        }
        let counts = |b: &DisruptionBudget| b.selects(&pod.spec) && !b.disrupted.contains(&pod.key.name);
        let mine = self.in_namespace(&pod.key.namespace).filter(|(_, b)| counts(b));
        mine.map(|(key, _)| key.clone()).collect()
    }

    /// How many pods of a budget may be evicted.
    pub(super) fn allowed(&self, key: &ObjectKey) -> i64 {
        self.by_key.get().get(key).map_or(i64::MAX, |b| b.allowed)
    }

    /// Which of the pods their budgets do not allow to evict, when all of them go in this order
    /// (`filterPodsWithPDBViolation`).
    pub(super) fn violating<'p>(&self, pods: impl ExactSizeIterator<Item = &'p Pod>) -> SmallVec<[bool; 8]> {
        if self.by_key.get().is_empty() {
            return core::iter::repeat_n(false, pods.len()).collect();
        }
        let mut left: Vec<(&ObjectKey, i64)> = Vec::new();
        let mut violates = SmallVec::new();
        for pod in pods {
            let mut broken = false;
            for (key, budget) in self.in_namespace(&pod.key.namespace) {
                if !budget.selects(&pod.spec) || budget.disrupted.contains(&pod.key.name) {
                    continue;
                }
                let at = left.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
                    left.push((key, budget.allowed));
                    left.len() - 1
                });
                if let Some((_, left)) = left.get_mut(at) {
                    *left = left.saturating_sub(1);
                    broken |= *left < 0;
                }
            }
            violates.push(broken);
        }
        violates
    }
}
