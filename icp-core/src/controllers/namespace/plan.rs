//! The plan.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, ObjectKey, Operation, Reply};
use crate::controllers::support::{self, Condition, custom_resource, set_condition};
use crate::controllers::{Action, Cache, Controller, Plan, ResourceKind};

/// How long content that did not go at once is left alone before it is counted again.
const RECOUNT: Duration = Duration::from_secs(2);
/// The finalizer that this controller removes.
const FINALIZER: &str = "kubernetes";
/// Objects of one kind that are counted; there may be more.
const COUNT_MAX: u32 = 100;

/// How far the deletion of one namespace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The pods are gone, so that the rest may go: policies and the like outlive what they protect.
    pub pods_gone: bool,
    /// What was counted of each kind since the last deletion.
    pub remaining: BTreeMap<Gvr, usize>,
    /// Finalizers of what was counted.
    pub finalizers: BTreeMap<String, usize>,
    /// When content is to be deleted and counted again.
    pub recount_at: Option<Time>,
}

/// Deletes what is in a namespace that is being deleted: first the pods, then everything else; when the server says that
/// nothing is left, removes the finalizer `kubernetes`. The status says what keeps the namespace.
#[must_use]
pub fn plan(namespace: &Object, content: &[Gvr], progress: &mut Progress, now: Time) -> Plan {
    let mut plan = Plan::none();
    let finalizers = namespace.at("/spec/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !namespace.is_terminating() || !finalizers.iter().any(|f| f == FINALIZER) {
        return plan;
    }
    if namespace.str_at("/status/phase") != "Terminating" {
        let mut next = namespace.clone();
        support::set(&mut next, "status", "phase", json!("Terminating"));
        plan.one(Action::update_status(&resources::NAMESPACES, next));
        return plan;
    }
    let stage: Vec<&Gvr> =
        content.iter().filter(|gvr| (**gvr == resources::PODS) != progress.pods_gone).collect();
    if !stage.iter().all(|gvr| progress.remaining.contains_key(*gvr)) {
        sweep(&mut plan, namespace, &stage);
        return plan;
    }
    if progress.remaining.values().all(|n| *n == 0) {
        if !progress.pods_gone {
            *progress = Progress { pods_gone: true, ..Progress::default() };
            let rest: Vec<&Gvr> = content.iter().filter(|gvr| **gvr != resources::PODS).collect();
            sweep(&mut plan, namespace, &rest);
            return plan;
        }
        let mut next = namespace.clone();
        let left: Vec<Value> = finalizers.into_iter().filter(|f| f != FINALIZER).collect();
        support::set(&mut next, "spec", "finalizers", Value::Array(left));
        plan.one(
            Action::update(&resources::NAMESPACES, next)
                .at_subresource("finalize")
                .tolerating(&[reason::NOT_FOUND]),
        );
        return plan;
    }
    let due = *progress.recount_at.get_or_insert(now + RECOUNT);
    if due <= now {
        *progress = Progress { pods_gone: progress.pods_gone, ..Progress::default() };
        sweep(&mut plan, namespace, &stage);
        return plan;
    }
    plan.again(due);
    tell(&mut plan, namespace, progress, now);
    plan
}

fn sweep(plan: &mut Plan, namespace: &Object, stage: &[&Gvr]) {
    // A kind that cannot be deleted or listed as a collection has no content that could stay.
    const NO_SUCH: &[&str] = &[reason::NOT_FOUND, reason::METHOD_NOT_ALLOWED];
    let name = &namespace.metadata.name;
    plan.all(stage.iter().map(|gvr| Action::delete_collection(gvr, name).tolerating(NO_SUCH)).collect());
    plan.all(stage.iter().map(|gvr| Action::list(gvr, name, COUNT_MAX).tolerating(NO_SUCH)).collect());
}

/// The conditions (`pkg/controller/namespace/deletion/status_condition_utils.go`).
fn tell(plan: &mut Plan, namespace: &Object, progress: &Progress, now: Time) {
    let old: Vec<Condition> = namespace
        .at("/status/conditions")
        .and_then(|c| serde::Deserialize::deserialize(c).ok())
        .unwrap_or_default();
    let kinds: Vec<String> = progress
        .remaining
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(gvr, n)| format!("{gvr} has {n} resource instances"))
        .collect();
    let holders: Vec<String> =
        progress.finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let mut new = old.clone();
    let mut set = |kind, status, reason, message: String| {
        let c = Condition::new(now, kind, status, reason, message);
        // The message counts here, unlike in other conditions.
        new.retain(|o| o.kind != c.kind || o.status == c.status && o.message == c.message);
        set_condition(&mut new, c);
    };
    let resolved = "All resources successfully discovered".into();
    set("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", resolved);
    let parsed = "All legacy kube types successfully parsed".into();
    set("NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions", parsed);
    let deleted = "All content successfully deleted, may be waiting on finalization".into();
    set("NamespaceDeletionContentFailure", false, "ContentDeleted", deleted);
    let remain = format!("Some resources are remaining: {}", kinds.join(", "));
    set("NamespaceContentRemaining", true, "SomeResourcesRemain", remain);
    if holders.is_empty() {
        let none = "All content-preserving finalizers finished".into();
        set("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", none);
    } else {
        let some = format!("Some content in the namespace has finalizers remaining: {}", holders.join(", "));
        set("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", some);
    }
    if new != old {
        let mut next = namespace.clone();
        support::set(&mut next, "status", "conditions", json!(new));
        plan.one(Action::update_status(&resources::NAMESPACES, next));
    }
}

/// The controller of namespaces that are being deleted.
#[derive(Clone, Debug)]
pub struct Namespaces {
    resources: Vec<ResourceKind>,
    progress: BTreeMap<ObjectKey, Progress>,
}

impl Namespaces {
    /// Deletes the objects of those of `resources` that live in namespaces, and of custom resources.
    #[must_use]
    pub const fn new(resources: Vec<ResourceKind>) -> Self {
        Self { resources, progress: BTreeMap::new() }
    }

    fn content(&self, cache: &Cache) -> Vec<Gvr> {
        let custom = cache.store(&resources::CUSTOM_RESOURCE_DEFINITIONS);
        let mut content: Vec<Gvr> = self
            .resources
            .iter()
            .cloned()
            .chain(custom.iter().filter_map(|d| custom_resource(d)))
            .filter(|r| r.namespaced)
            .map(|r| r.gvr)
            .collect();
        content.sort();
        content.dedup();
        content
    }
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NAMESPACES]
    }

    fn watches_optionally(&self) -> Vec<Gvr> {
        vec![resources::CUSTOM_RESOURCE_DEFINITIONS]
    }

    fn reset(&mut self) {
        self.progress.clear();
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        if *gvr == resources::NAMESPACES {
            let key = ObjectKey::of(delta.object());
            if matches!(delta, Delta::Deleted(_)) {
                self.progress.remove(&key);
            }
            keys.push(key);
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(namespace) = cache.store(&resources::NAMESPACES).get_key(key).map(Arc::clone) else {
            return Plan::none();
        };
        if !namespace.is_terminating() {
            return Plan::none();
        }
        // Before custom resources are known, what was counted would not be all there is.
        if !cache.settled_for(&resources::CUSTOM_RESOURCE_DEFINITIONS) {
            return Plan { again_at: Some(now + RECOUNT), ..Plan::none() };
        }
        let content = self.content(cache);
        plan(&namespace, &content, self.progress.entry(key.clone()).or_default(), now)
    }

    fn answered(
        &mut self,
        _now: Time,
        key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        let Some(progress) = self.progress.get_mut(key) else { return };
        if !matches!(request.op, Operation::List(_)) {
            return;
        }
        let items = match answer {
            Ok(Reply::List { items, .. }) => items.as_slice(),
            Err(e) if e.is(reason::NOT_FOUND) || e.is(reason::METHOD_NOT_ALLOWED) => &[],
            _ => return,
        };
        progress.remaining.insert(request.gvr.clone(), items.len());
        for finalizer in items.iter().flat_map(|o| &o.metadata.finalizers) {
            *progress.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}
