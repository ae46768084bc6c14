//! The plan.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::{Effect, Policy, next_try};
use super::indexes;
use super::status::Status;
use crate::api::{Gvr, Object, reason, resources, set_at};
use crate::base::{Duration, Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, Propagation, index};
use crate::controllers::plan::BURST_MAX;
use crate::controllers::support::{
    self, Condition, PodPhase, deletion_order, is_active, is_ready, pod_from_template, set_condition,
};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// Keeps a pod until its end is counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and the label of a pod that tell its index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The index of pods that carry the finalizer, by the name of their Job.
const TRACKED: &str = "job-tracked";

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Job.
    pub job: Arc<Object>,
    /// The pods that it controls.
    pub pods: Vec<Arc<Object>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    parallelism: Option<i64>,
    completions: Option<i64>,
    backoff_limit: Option<i64>,
    active_deadline_seconds: Option<u64>,
    ttl_seconds_after_finished: Option<u64>,
    completion_mode: String,
    suspend: bool,
    pod_failure_policy: Policy,
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn is_tracked(pod: &Object) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == TRACKING)
}

fn succeeded(pod: &Object) -> bool {
    PodPhase::of(pod) == PodPhase::Succeeded
}

/// A pod that is deleted before its end counts as failed: it may never get further.
fn failed(pod: &Object) -> bool {
    PodPhase::of(pod) == PodPhase::Failed || (pod.is_terminating() && !succeeded(pod))
}

fn index_of(pod: &Object) -> Option<i64> {
    pod.metadata.annotations.get(INDEX)?.parse().ok()
}

/// Takes the finalizer off a pod.
fn untrack(pod: &Object) -> Action {
    let left: Vec<&String> = pod.metadata.finalizers.iter().filter(|f| *f != TRACKING).collect();
    let body = json!({"metadata": {
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": left,
    }});
    Action::merge(&resources::PODS, &ObjectKey::of(pod), body).tolerating(&[reason::NOT_FOUND])
}

fn untrack_all(plan: &mut Plan, pods: &[Arc<Object>]) {
    plan.all(pods.iter().filter(|p| is_tracked(p)).map(|p| untrack(p)).collect());
}

/// Brings a Job towards its end.
#[must_use]
pub fn plan(observed: &Observed, now: Time, rng: &mut Rng) -> Plan {
    let Observed { job, pods } = observed;
    let spec: Spec = job.view("spec").unwrap_or_default();
    let old: Status = job.view("status").unwrap_or_default();
    let mut plan = Plan::none();
    if let Some(since) = old.finished() {
        untrack_all(&mut plan, pods);
        if let Some(ttl) = spec.ttl_seconds_after_finished.filter(|_| !job.is_terminating()) {
            let due = since + Duration::from_secs(ttl);
            if due <= now {
                plan.one(Action::delete(&resources::JOBS, job, Some(Propagation::Foreground)));
            } else {
                plan.again(due);
            }
        }
        return plan;
    }
    if job.is_terminating() {
        untrack_all(&mut plan, pods);
        return plan;
    }
    Round { job, pods, spec: &spec, now, new: old.clone(), counted: Vec::new(), notes: Vec::new() }
        .run(&old, plan, rng)
}

/// One look at a Job that is not finished.
struct Round<'a> {
    job: &'a Arc<Object>,
    pods: &'a [Arc<Object>],
    spec: &'a Spec,
    now: Time,
    new: Status,
    /// Pods whose finalizer may go once the new status is written.
    counted: Vec<Action>,
    notes: Vec<Note>,
}

impl Round<'_> {
    fn indexed(&self) -> bool {
        self.spec.completion_mode == "Indexed"
    }

    fn run(mut self, old: &Status, mut plan: Plan, rng: &mut Rng) -> Plan {
        let mut violated = self.count_ends();
        let active: Vec<Arc<Object>> =
            self.pods.iter().filter(|p| is_active(p) && !failed(p)).cloned().collect();
        self.new.ready = count(active.iter().filter(|p| is_ready(p)).count());
        self.new.terminating =
            count(self.pods.iter().filter(|p| p.is_terminating() && !PodPhase::of(p).is_finished()).count());
        if !self.spec.suspend && self.new.start_time.is_none() {
            self.new.start_time = Some(self.now);
        }
        if !self.new.has("FailureTarget") && !self.new.has("SuccessCriteriaMet") {
            violated = violated.or_else(|| self.limit(&active, &mut plan));
            if let Some((why, message)) = violated {
                self.condition("FailureTarget", true, why, &message);
            } else if self.is_complete(active.len()) {
                self.condition("SuccessCriteriaMet", true, "CompletionsReached", COMPLETE);
            }
        }
        let ending = self.new.has("FailureTarget") || self.new.has("SuccessCriteriaMet");
        let (creates, deletes) = if ending || self.spec.suspend {
            (Vec::new(), active.clone())
        } else {
            self.manage(&active, &mut plan, rng)
        };
        self.suspension(old);
        self.new.active = count(active.len() + creates.len()) - count(deletes.len());
        self.finish();
        if self.new != *old || self.job.rest.get("status").is_none() {
            let mut next = Object::clone(self.job);
            next.rest.insert("status".into(), serde_json::to_value(&self.new).unwrap_or(Value::Null));
            plan.one(Action::update_status(&resources::JOBS, next));
        }
        plan.notes.append(&mut self.notes);
        plan.all(self.counted);
        plan.all(deletes.iter().filter(|p| is_tracked(p)).map(|p| untrack(p)).collect());
        let gone = |pod: &Arc<Object>| {
            let told =
                Note::normal(self.job, "SuccessfulDelete", format!("Deleted pod: {}", pod.metadata.name));
            Action::delete(&resources::PODS, pod, None).told(told).tolerating(&[reason::NOT_FOUND])
        };
        plan.all(deletes.iter().map(gone).collect());
        plan.slow_start(creates);
        plan
    }

    /// Writes down which pods ended, and counts those whose finalizer is gone; why the policy fails the Job, if it does.
    fn count_ends(&mut self) -> Option<(&'static str, String)> {
        let tracked: BTreeSet<&str> =
            self.pods.iter().filter(|p| is_tracked(p)).map(|p| p.metadata.uid.as_str()).collect();
        let settle = |uids: &mut Vec<String>| {
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid.as_str()));
            count(before - uids.len())
        };
        let (good, bad) = (
            settle(&mut self.new.uncounted_terminated_pods.succeeded),
            settle(&mut self.new.uncounted_terminated_pods.failed),
        );
        self.new.succeeded += good;
        self.new.failed += bad;
        let mut violated = None;
        let mut done = indexes::parse(&self.new.completed_indexes);
        for pod in self.pods.iter().filter(|p| is_tracked(p)) {
            let uid = &pod.metadata.uid;
            let uncounted = &mut self.new.uncounted_terminated_pods;
            let known = uncounted.succeeded.contains(uid) || uncounted.failed.contains(uid);
            if succeeded(pod) {
                match (self.spec.completion_mode == "Indexed", index_of(pod)) {
                    (true, index) => done.extend(index.filter(|i| *i < self.spec.completions.unwrap_or(0))),
                    (false, _) if !known => uncounted.succeeded.push(uid.clone()),
                    _ => {}
                }
            } else if failed(pod) {
                match self.spec.pod_failure_policy.effect(pod) {
                    Effect::Ignore => {}
                    effect => {
                        if !known {
                            uncounted.failed.push(uid.clone());
                        }
                        if effect == Effect::FailJob {
                            let name = &pod.metadata.name;
                            let message = format!(
                                "Pod {}/{name} failed and a rule of the pod failure policy fails the Job",
                                pod.metadata.namespace
                            );
                            violated = Some(("PodFailurePolicy", message));
                        }
                    }
                }
            } else {
                continue;
            }
            self.counted.push(untrack(pod));
        }
        if self.indexed() {
            self.new.completed_indexes = indexes::print(&done);
            self.new.succeeded = count(done.len());
        }
        violated
    }

    fn succeeded(&self) -> i64 {
        self.new.succeeded + count(self.new.uncounted_terminated_pods.succeeded.len())
    }

    fn failures(&self) -> i64 {
        self.new.failed + count(self.new.uncounted_terminated_pods.failed.len())
    }

    /// Why the Job fails by one of its limits.
    fn limit(&self, active: &[Arc<Object>], plan: &mut Plan) -> Option<(&'static str, String)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i64 = match self.job.str_at("/spec/template/spec/restartPolicy") {
            "OnFailure" => active.iter().map(|pod| restarts(pod)).sum(),
            _ => 0,
        };
        // A limit of 0 allows no restart, but the first run.
        if self.failures() > limit || (restarts > 0 && restarts >= limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
        }
        let (deadline, start) = (self.spec.active_deadline_seconds?, self.new.start_time?);
        let due = start + Duration::from_secs(deadline);
        if self.spec.suspend {
            return None;
        }
        if due <= self.now {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
        }
        plan.again(due);
        None
    }

    fn is_complete(&self, active: usize) -> bool {
        match self.spec.completions {
            Some(want) => self.succeeded() >= want,
            // A work queue is done when one pod succeeded and all have ended.
            None => self.succeeded() > 0 && active == 0,
        }
    }

    /// Pods to make and to delete so that the right number is active.
    fn manage(
        &self,
        active: &[Arc<Object>],
        plan: &mut Plan,
        rng: &mut Rng,
    ) -> (Vec<Action>, Vec<Arc<Object>>) {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let want = match self.spec.completions {
            Some(all) => (all - self.succeeded()).clamp(0, parallelism),
            None if self.succeeded() > 0 => count(active.len()).min(parallelism),
            None => parallelism,
        };
        let want = usize::try_from(want).unwrap_or(0);
        if active.len() > want {
            let mut order = active.to_vec();
            order.sort_by(|a, b| deletion_order((a, 0), (b, 0), self.now));
            order.truncate(active.len() - want);
            return (Vec::new(), order);
        }
        let missing = (want - active.len()).min(BURST_MAX);
        if missing == 0 {
            return Default::default();
        }
        let ended =
            |wanted: fn(&Object) -> bool| self.pods.iter().map(Arc::as_ref).filter(move |p| wanted(p));
        if let Some(due) = next_try(ended(failed), ended(succeeded)).filter(|due| *due > self.now) {
            plan.again(due);
            return Default::default();
        }
        let creates = if self.indexed() {
            let mut taken = indexes::parse(&self.new.completed_indexes);
            taken.extend(active.iter().filter_map(|p| index_of(p)));
            let free = (0..self.spec.completions.unwrap_or(0)).filter(|i| !taken.contains(i));
            free.take(missing).map(|index| self.create(Some(index), rng)).collect()
        } else {
            (0..missing).map(|_| self.create(None, rng)).collect()
        };
        (creates, Vec::new())
    }

    fn create(&self, index: Option<i64>, rng: &mut Rng) -> Action {
        let job = self.job;
        let name = &job.metadata.name;
        let prefix = index.map_or_else(|| format!("{name}-"), |i| format!("{name}-{i}-"));
        let mut pod =
            pod_from_template(job, job.controller_reference(), job.at("/spec/template"), &prefix, rng);
        if !is_tracked(&pod) {
            pod.metadata.finalizers.push(TRACKING.into());
        }
        if let Some(index) = index {
            pod.metadata.annotations.insert(INDEX.into(), index.to_string());
            pod.metadata.labels.insert(INDEX.into(), index.to_string());
            if let Some(spec) = pod.rest.get_mut("spec") {
                for list in ["initContainers", "containers"] {
                    for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                        give_index(container);
                    }
                }
                if spec.get("hostname").is_none() {
                    set_at(spec, &["hostname"], format!("{name}-{index}"));
                }
            }
        }
        let told = Note::normal(job, "SuccessfulCreate", format!("Created pod: {}", pod.metadata.name));
        let failure = Note::warning(job, "FailedCreate", "Error creating: ");
        Action::create(&resources::PODS, pod).told(told).told_failure(failure)
    }

    fn condition(&mut self, kind: &str, status: bool, why: &str, message: &str) {
        set_condition(&mut self.new.conditions, Condition::new(self.now, kind, status, why, message));
    }

    fn suspension(&mut self, old: &Status) {
        if self.spec.suspend && !old.has("Suspended") {
            self.new.start_time = None;
            self.condition("Suspended", true, "JobSuspended", "Job suspended");
            self.notes.push(Note::normal(self.job, "Suspended", "Job suspended"));
        } else if !self.spec.suspend && old.has("Suspended") {
            self.new.start_time = Some(self.now);
            self.condition("Suspended", false, "JobResumed", "Job resumed");
            self.notes.push(Note::normal(self.job, "Resumed", "Job resumed"));
        }
    }

    /// Once no pod runs and all ends are counted, what was decided is final.
    fn finish(&mut self) {
        let uncounted = &self.new.uncounted_terminated_pods;
        let open =
            !uncounted.failed.is_empty() || !uncounted.succeeded.is_empty() || !self.counted.is_empty();
        if open || self.new.active > 0 || self.new.terminating > 0 {
            return;
        }
        let target =
            |kind: &str| support::condition(&self.new.conditions, kind).filter(|c| c.is_true()).cloned();
        if let Some(Condition { reason, message, .. }) = target("FailureTarget") {
            self.condition("Failed", true, &reason, &message);
            let note = crate::client::EventNote {
                kind: crate::client::EventType::Warning,
                reason: failure_reason(&reason),
                action: failure_reason(&reason),
                note: message,
            };
            self.notes.push(Note { about: Arc::clone(self.job), note });
        } else if target("SuccessCriteriaMet").is_some() {
            self.condition("Complete", true, "CompletionsReached", COMPLETE);
            self.new.completion_time = Some(self.now);
            self.notes.push(Note::normal(self.job, "Completed", "Job completed"));
        } else {
            return;
        }
        self.new.ready = 0;
    }
}

const COMPLETE: &str = "Reached expected number of succeeded pods";

fn failure_reason(reason: &str) -> &'static str {
    match reason {
        "DeadlineExceeded" => "DeadlineExceeded",
        "PodFailurePolicy" => "PodFailurePolicy",
        _ => "BackoffLimitExceeded",
    }
}

fn restarts(pod: &Object) -> i64 {
    let statuses = pod.at("/status/containerStatuses").and_then(Value::as_array);
    statuses.into_iter().flatten().filter_map(|s| s.get("restartCount").and_then(Value::as_i64)).sum()
}

/// Tells a container its index in `JOB_COMPLETION_INDEX`, unless it has a variable of this name.
fn give_index(container: &mut Value) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let path = format!("metadata.labels['{INDEX}']");
    let variable = json!({"name": NAME, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    match container.get_mut("env").and_then(Value::as_array_mut) {
        Some(env) if env.iter().any(|v| v.get("name").and_then(Value::as_str) == Some(NAME)) => {}
        Some(env) => env.push(variable),
        None => set_at(container, &["env"], json!([variable])),
    }
}

fn tracked() -> IndexFn {
    Arc::new(|pod: &Object| match pod.controller() {
        Some(c) if is_tracked(pod) && support::is_kind(c, "batch", "Job") => {
            vec![ObjectKey::new(&pod.metadata.namespace, &c.name).to_string()]
        }
        _ => Vec::new(),
    })
}

/// The controller of Jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::JOBS, resources::PODS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![
            (resources::PODS, index::CONTROLLER_UID, index::controller_uid()),
            (resources::PODS, TRACKED, tracked()),
        ]
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::JOBS {
            keys.push(ObjectKey::of(object));
        } else if let Some(c) = object.controller().filter(|c| support::is_kind(c, "batch", "Job")) {
            keys.push(ObjectKey::new(&object.metadata.namespace, &c.name));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, rng: &mut Rng) -> Plan {
        let pods = cache.store(&resources::PODS);
        let job = cache.store(&resources::JOBS).get_key(key);
        // Nobody counts the pods of a Job that is gone; they shall not wait for it.
        let uid = job.map_or("", |job| job.metadata.uid.as_str());
        let is_orphan = |p: &&Arc<Object>| p.controller().is_some_and(|c| c.uid != uid);
        let orphans: Vec<Arc<Object>> =
            pods.by(TRACKED, &key.to_string()).filter(is_orphan).cloned().collect();
        let mut whole = Plan::none();
        untrack_all(&mut whole, &orphans);
        if let Some(job) = job {
            let pods = pods.by(index::CONTROLLER_UID, uid).cloned().collect();
            let own = plan(&Observed { job: Arc::clone(job), pods }, now, rng);
            whole.steps.extend(own.steps);
            whole.notes.extend(own.notes);
            whole.again_at = own.again_at;
        }
        whole
    }
}

#[cfg(test)]
mod tests;
