//! The controller of PodDisruptionBudgets.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::plan::{Observed, Owner, needs_scale, plan, selector};
use super::scale::{self, Lookup, WORKLOADS};
use crate::api::labels::Selector;
use crate::api::resources::{CUSTOM_RESOURCE_DEFINITIONS, POD_DISRUPTION_BUDGETS, PODS};
use crate::api::{Gvr, Object};
use crate::base::{Duration, Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, ObjectKey, Operation, Reply};
use crate::controllers::support::is_ready;
use crate::controllers::{Action, Cache, Controller, Plan, ResourceKind};

/// Objects whose scale was asked for and whose changes are followed; with more of them, all are forgotten.
const ASKED_MAX: usize = 4_096;
/// How long to wait for the definitions of custom resources to be listed.
const SETTLE: Duration = Duration::from_secs(1);

/// The scales that the server told, by resource and name of the object.
type Answers = BTreeMap<(Gvr, String), Owner>;

/// The controller of PodDisruptionBudgets.
///
/// It follows pods and, for budgets that are a share of the expected pods, the replicas of their controllers. The scale
/// of a custom resource is asked of the server each time that it is needed.
#[derive(Clone, Debug, Default)]
pub struct DisruptionBudgets {
    resources: Vec<ResourceKind>,
    /// By budget; used once.
    answers: BTreeMap<ObjectKey, Answers>,
    /// The uids of the objects whose scale was asked for.
    asked: BTreeSet<String>,
    /// The reasons of the Events that hold since the last plan of a budget and are not told again.
    told: BTreeMap<ObjectKey, BTreeSet<&'static str>>,
}

impl DisruptionBudgets {
    /// Takes the controllers of pods to be of `resources`, or custom resources.
    #[must_use]
    pub fn new(resources: Vec<ResourceKind>) -> Self {
        Self { resources, ..Self::default() }
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.answers.remove(key);
        self.told.remove(key);
    }

    /// The controllers of `pods`, or what must be asked to know them.
    fn owners(
        &mut self,
        cache: &Cache,
        pods: &[Arc<Object>],
        answers: &Answers,
    ) -> Result<BTreeMap<String, Owner>, Vec<Action>> {
        let (mut owners, mut questions) = (BTreeMap::new(), Vec::new());
        for pod in pods {
            let Some(reference) = pod.controller().filter(|c| !owners.contains_key(&c.uid)) else { continue };
            let owner = match scale::look_up(&self.resources, cache, reference, &pod.metadata.namespace) {
                Lookup::Known(owner) => owner,
                Lookup::At(key, gvr) => {
                    if self.asked.len() >= ASKED_MAX {
                        self.asked.clear();
                    }
                    self.asked.insert(reference.uid.clone());
                    let question = scale::ask(&key, &gvr);
                    match answers.get(&(gvr, key.name)) {
                        Some(Owner::Scaled(scale)) if scale.uid != reference.uid => Owner::Missing,
                        Some(owner) => owner.clone(),
                        None => {
                            questions.push(question);
                            Owner::Missing
                        }
                    }
                }
            };
            owners.insert(reference.uid.clone(), owner);
        }
        if questions.is_empty() { Ok(owners) } else { Err(questions) }
    }
}

/// What a budget sees of a pod.
fn seen(pod: &Object) -> impl PartialEq + use<'_> {
    (&pod.metadata.labels, pod.is_terminating(), pod.controller().map(|c| &c.uid), is_ready(pod))
}

/// The keys of the budgets that select one of `pods`, all of one namespace.
fn selecting(cache: &Cache, pods: &[&Arc<Object>], keys: &mut Vec<ObjectKey>) {
    let Some(first) = pods.first() else { return };
    let budgets = cache.store(&POD_DISRUPTION_BUDGETS).list(&first.metadata.namespace);
    keys.extend(
        budgets
            .filter(|b| selector(b).is_ok_and(|s| pods.iter().any(|p| s.matches(&p.metadata.labels))))
            .map(|b| ObjectKey::of(b)),
    );
}

/// The keys of the budgets of a namespace that are a share of the expected pods.
fn shares<'c>(budgets: impl Iterator<Item = &'c Arc<Object>>, keys: &mut Vec<ObjectKey>) {
    keys.extend(budgets.filter(|b| needs_scale(b)).map(|b| ObjectKey::of(b)));
}

impl Controller for DisruptionBudgets {
    fn name(&self) -> &'static str {
        "controllermanager"
    }

    fn watches(&self) -> Vec<Gvr> {
        let mut watches = vec![POD_DISRUPTION_BUDGETS, PODS];
        watches.extend(WORKLOADS.iter().map(|(gvr, _)| gvr.clone()));
        watches
    }

    fn watches_optionally(&self) -> Vec<Gvr> {
        vec![CUSTOM_RESOURCE_DEFINITIONS]
    }

    fn reset(&mut self) {
        *self = Self::new(core::mem::take(&mut self.resources));
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        let budgets = cache.store(&POD_DISRUPTION_BUDGETS);
        if *gvr == POD_DISRUPTION_BUDGETS {
            if matches!(delta, Delta::Deleted(_)) {
                self.forget(&ObjectKey::of(object));
            }
            keys.push(ObjectKey::of(object));
        } else if *gvr == PODS {
            match delta {
                Delta::Added(pod) | Delta::Deleted(pod) => selecting(cache, &[pod], keys),
                Delta::Updated { old, new } if seen(old) != seen(new) => selecting(cache, &[old, new], keys),
                Delta::Updated { .. } => {}
            }
        } else if *gvr == CUSTOM_RESOURCE_DEFINITIONS {
            // What was unknown may be known now.
            shares(budgets.iter(), keys);
        } else if WORKLOADS.iter().any(|(workload, _)| workload == gvr) {
            let scale = |o: &Object| (scale::replicas(o), o.controller().map(|c| c.uid.clone()));
            if !matches!(delta, Delta::Updated { old, new } if scale(old) == scale(new)) {
                shares(budgets.list(&object.metadata.namespace), keys);
            }
        } else if self.asked.contains(&object.metadata.uid) {
            let generation = |o: &Object| o.metadata.generation;
            if !matches!(delta, Delta::Updated { old, new } if generation(old) == generation(new)) {
                shares(budgets.list(&object.metadata.namespace), keys);
            }
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(budget) = cache.store(&POD_DISRUPTION_BUDGETS).get_key(key) else {
            self.forget(key);
            return Plan::none();
        };
        let selector = selector(budget).unwrap_or_else(|_| Selector::nothing());
        let pods: Vec<Arc<Object>> = cache
            .store(&PODS)
            .list(&key.namespace)
            .filter(|p| selector.matches(&p.metadata.labels))
            .cloned()
            .collect();
        let mut owners = BTreeMap::new();
        if needs_scale(budget) {
            if !cache.settled_for(&CUSTOM_RESOURCE_DEFINITIONS) {
                return Plan { again_at: Some(now + SETTLE), ..Plan::none() };
            }
            let answers = self.answers.remove(key).unwrap_or_default();
            owners = match self.owners(cache, &pods, &answers) {
                Ok(owners) => owners,
                Err(questions) => {
                    self.answers.insert(key.clone(), answers);
                    return Plan { steps: vec![questions], ..Plan::none() };
                }
            };
        }
        let mut plan = plan(&Observed { budget: Arc::clone(budget), pods, owners }, now);
        let reasons: BTreeSet<&'static str> = plan.notes.iter().map(|n| n.note.reason).collect();
        let told = self.told.insert(key.clone(), reasons).unwrap_or_default();
        // About a pod that was not deleted is told once anyway: it is no longer expected to be.
        plan.notes.retain(|n| n.about.kind == "Pod" || !told.contains(n.note.reason));
        plan
    }

    fn answered(
        &mut self,
        _now: Time,
        key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        let (Operation::Get, Some(name)) = (&request.op, &request.name) else { return };
        let answers = self.answers.entry(key.clone()).or_default();
        answers.insert((request.gvr.clone(), name.clone()), scale::answer(answer));
    }
}
