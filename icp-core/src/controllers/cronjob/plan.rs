//! The plan.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::times::Times;
use crate::api::{Gvr, Object, ObjectMeta, cron, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, IndexFn, ObjectKey, Operation, Propagation, Reply, index};
use crate::controllers::support::{self, Condition};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// The annotation of a Job that tells the time that it is for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The CronJob.
    pub cron_job: Arc<Object>,
    /// The Jobs that it controls.
    pub jobs: Vec<Arc<Object>>,
    /// Names of Jobs of its namespace that it does not control.
    pub taken: BTreeSet<String>,
    /// The uids of Jobs of which the server said that they are gone.
    pub gone: BTreeSet<String>,
    /// The time for which this controller made a Job last, if it knows.
    pub made: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    schedule: String,
    time_zone: Option<String>,
    suspend: bool,
    concurrency_policy: String,
    starting_deadline_seconds: Option<u64>,
    successful_jobs_history_limit: Option<i64>,
    failed_jobs_history_limit: Option<i64>,
}

/// A reference to a Job that is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobRef {
    api_version: String,
    kind: String,
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    active: Vec<JobRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_schedule_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_successful_time: Option<Time>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `Complete` or `Failed`, if a Job is that.
fn outcome(job: &Object) -> Option<&'static str> {
    let conditions: Vec<Condition> =
        job.at("/status/conditions").and_then(|c| Vec::deserialize(c).ok()).unwrap_or_default();
    ["Complete", "Failed"].into_iter().find(|kind| conditions.iter().any(|c| c.kind == *kind && c.is_true()))
}

fn time_at(object: &Object, pointer: &str) -> Option<Time> {
    object.str_at(pointer).parse().ok()
}

/// The name of the Job for a time: the minutes since the epoch.
fn job_name(cron_job: &Object, at: Time) -> String {
    format!("{}-{}", cron_job.metadata.name, at.as_secs().div_euclid(60))
}

/// The time that a Job is for, if this controller made it.
fn scheduled_time(cron_job: &Object, job: &Object) -> Option<Time> {
    let told: Time = job.metadata.annotations.get(SCHEDULED)?.parse().ok()?;
    (job_name(cron_job, told) == job.metadata.name).then_some(told)
}

/// The Jobs that are finished beyond the limits, those that started first.
fn excess<'a>(spec: &Spec, jobs: &'a [Arc<Object>]) -> Vec<&'a Arc<Object>> {
    let mut gone = Vec::new();
    for (kind, limit) in
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit else { continue };
        let mut finished: Vec<&Arc<Object>> = jobs.iter().filter(|j| outcome(j) == Some(kind)).collect();
        let start = |j: &Object| time_at(j, "/status/startTime");
        finished.sort_by_key(|j| (start(j).is_none(), start(j), j.metadata.name.clone()));
        let many = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        gone.extend(finished.into_iter().take(many).filter(|j| !j.is_terminating()));
    }
    gone
}

fn delete(cron_job: &Arc<Object>, job: &Object) -> Action {
    let told = Note::normal(cron_job, "SuccessfulDelete", format!("Deleted job {}", job.metadata.name));
    Action::delete(&resources::JOBS, job, Some(Propagation::Background))
        .told(told)
        .told_failure(Note::warning(cron_job, "FailedDelete", "Deleted job: "))
}

/// Brings `status` up to what is known of the Jobs, and tells of it.
fn follow(observed: &Observed, status: &mut Status, plan: &mut Plan) {
    let Observed { cron_job, jobs, gone, .. } = observed;
    for job in jobs {
        let (name, uid) = (&job.metadata.name, &job.metadata.uid);
        let active = status.active.iter().any(|r| r.uid == *uid);
        match outcome(job) {
            None if active => {}
            None => match scheduled_time(cron_job, job) {
                // It was made by this controller, which then writes it down.
                Some(at) => {
                    status.last_schedule_time = status.last_schedule_time.max(Some(at));
                    status.active.push(JobRef {
                        api_version: "batch/v1".into(),
                        kind: "Job".into(),
                        name: name.clone(),
                        namespace: job.metadata.namespace.clone(),
                        resource_version: job.metadata.resource_version.clone(),
                        uid: uid.clone(),
                    });
                }
                None => {
                    let text = format!("Saw a job that the controller did not create or forgot: {name}");
                    plan.notes.push(Note::warning(cron_job, "UnexpectedJob", text));
                }
            },
            Some(kind) => {
                if active {
                    status.active.retain(|r| r.uid != *uid);
                    let text = format!("Saw completed job: {name}, condition: {kind}");
                    plan.notes.push(Note::normal(cron_job, "SawCompletedJob", text));
                }
                // A Job may be over before it was ever seen under way.
                status.last_schedule_time = status.last_schedule_time.max(scheduled_time(cron_job, job));
                if kind == "Complete" {
                    let done = time_at(job, "/status/completionTime");
                    status.last_successful_time = status.last_successful_time.max(done);
                }
            }
        }
    }
    status.active.retain(|r| {
        let missing = gone.contains(&r.uid);
        if missing {
            let text = format!("Active job went missing: {}", r.name);
            plan.notes.push(Note::normal(cron_job, "MissingJob", text));
        }
        !missing
    });
}

/// Deletes Jobs beyond the limits of the history, writes down which are under way, and makes the one whose time has come
/// last, as far as `suspend`, `startingDeadlineSeconds` and `concurrencyPolicy` let it.
#[must_use]
pub fn plan(observed: &Observed, now: Time) -> Plan {
    let Observed { cron_job, jobs, .. } = observed;
    let spec: Spec = cron_job.view("spec").unwrap_or_default();
    let mut plan = Plan::none();
    let old: Status = cron_job.view("status").unwrap_or_default();
    let mut status = old.clone();
    follow(observed, &mut status, &mut plan);
    if status != old {
        let mut next = Object::clone(cron_job);
        next.rest.insert("status".into(), serde_json::to_value(&status).unwrap_or(Value::Null));
        plan.one(Action::update_status(&resources::CRON_JOBS, next));
    }
    plan.all(excess(&spec, jobs).into_iter().map(|job| delete(cron_job, job)).collect());
    if !cron_job.is_terminating()
        && let Some(times) = times(&spec, observed, &status, &mut plan)
    {
        start(observed, &spec, &times, &status, now, &mut plan);
        if let Some(due) = times.look_again(now) {
            plan.again(due);
        }
    }
    plan
}

/// The times of the CronJob, unless it is suspended or they cannot be read.
fn times(spec: &Spec, observed: &Observed, status: &Status, plan: &mut Plan) -> Option<Times> {
    let cron_job = &observed.cron_job;
    let zone = match spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => match cron::zone(name) {
            Ok(zone) => zone,
            Err(why) => {
                let text = format!("invalid timeZone: {name:?}: {why}");
                plan.notes.push(Note::warning(cron_job, "UnknownTimeZone", text));
                return None;
            }
        },
    };
    if spec.suspend {
        return None;
    }
    let schedule = match cron::Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            let text = format!("unparseable schedule: {:?} : {why}", spec.schedule);
            plan.notes.push(Note::warning(cron_job, "UnparseableSchedule", text));
            return None;
        }
    };
    let created = cron_job.metadata.creation_timestamp.unwrap_or(Time::ZERO);
    let last = status.last_schedule_time.max(observed.made).unwrap_or(created);
    Some(Times { schedule, zone, last, deadline: spec.starting_deadline_seconds.map(Duration::from_secs) })
}

/// Makes the Job whose time has come last.
fn start(observed: &Observed, spec: &Spec, times: &Times, status: &Status, now: Time, plan: &mut Plan) {
    let Observed { cron_job, jobs, taken, .. } = observed;
    let due = match times.due(now) {
        Ok(Some(due)) => due,
        Ok(None) => return,
        Err(why) => {
            let text = format!("invalid schedule: {} : {why}", spec.schedule);
            plan.notes.push(Note::warning(cron_job, "InvalidSchedule", text));
            return;
        }
    };
    if due.many {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.notes.push(Note::warning(cron_job, "TooManyMissedTimes", text));
    }
    let name = job_name(cron_job, due.at);
    if times.deadline.is_some_and(|d| due.at + d < now) {
        let text = format!("Missed scheduled time to start a job: {}", due.at.to_rfc3339());
        plan.notes.push(Note::warning(cron_job, "MissSchedule", text));
        return;
    }
    let made = jobs.iter().any(|j| j.metadata.name == name) || status.active.iter().any(|r| r.name == name);
    // A Job of that name that somebody else controls does the work of this time, as far as anybody can tell.
    if made || taken.contains(&name) {
        return;
    }
    match spec.concurrency_policy.as_str() {
        "Forbid" if !status.active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.notes.push(Note::normal(cron_job, "JobAlreadyActive", text));
            return;
        }
        "Replace" => {
            let active = |j: &&Arc<Object>| status.active.iter().any(|r| r.uid == j.metadata.uid);
            let replaced = jobs.iter().filter(active).filter(|j| !j.is_terminating());
            plan.all(replaced.map(|job| delete(cron_job, job)).collect());
        }
        _ => {}
    }
    let job = job_from_template(cron_job, name, due.at, times);
    let told = Note::normal(cron_job, "SuccessfulCreate", format!("Created job {}", job.metadata.name));
    let failed = Note::warning(cron_job, "FailedCreate", "Error creating job: ");
    plan.one(Action::create(&resources::JOBS, job).told(told).told_failure(failed));
}

fn job_from_template(cron_job: &Object, name: String, at: Time, times: &Times) -> Object {
    let template = cron_job.at("/spec/jobTemplate");
    let meta: ObjectMeta = template
        .and_then(|t| t.get("metadata"))
        .and_then(|m| ObjectMeta::deserialize(m).ok())
        .unwrap_or_default();
    let mut job = Object::new("batch/v1", "Job", &cron_job.metadata.namespace, &name);
    job.metadata.labels = meta.labels;
    job.metadata.annotations = meta.annotations;
    job.metadata.annotations.insert(SCHEDULED.into(), local(at, &times.zone));
    job.metadata.owner_references = vec![cron_job.controller_reference()];
    let spec = template.and_then(|t| t.get("spec")).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    job.rest.insert("spec".into(), spec);
    job
}

/// A time as the clocks of a zone show it (RFC 3339).
fn local(at: Time, zone: &TimeZone) -> String {
    let Ok(stamp) = jiff::Timestamp::from_second(at.as_secs()) else { return at.to_rfc3339() };
    match zone.to_offset(stamp) {
        offset if offset.is_zero() => at.to_rfc3339(),
        offset => stamp.display_with_offset(offset).to_string(),
    }
}

/// The controller of CronJobs.
#[derive(Clone, Debug, Default)]
pub struct CronJobs {
    /// The uids of Jobs of which the server said that they are gone, by CronJob.
    gone: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// The names and uids of Jobs that the server is asked about, by CronJob.
    asked: BTreeMap<ObjectKey, BTreeMap<String, String>>,
    /// For which time a Job was made last, by CronJob and its uid.
    made: BTreeMap<ObjectKey, (String, Time)>,
    /// What was told and still holds.
    told: BTreeMap<ObjectKey, BTreeSet<String>>,
}

impl CronJobs {
    /// A controller that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.gone.remove(key);
        self.asked.remove(key);
        self.made.remove(key);
        self.told.remove(key);
    }
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::CRON_JOBS, resources::JOBS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![(resources::JOBS, index::CONTROLLER_UID, index::controller_uid())]
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::CRON_JOBS {
            if matches!(delta, Delta::Deleted(_)) {
                self.forget(&ObjectKey::of(object));
            }
            keys.push(ObjectKey::of(object));
            return;
        }
        let old = match delta {
            Delta::Updated { old, .. } => Some(old),
            _ => None,
        };
        let owners = [Some(object), old].into_iter().flatten().filter_map(|job| job.controller());
        keys.extend(
            owners
                .filter(|c| support::is_kind(c, "batch", "CronJob"))
                .map(|c| ObjectKey::new(&object.metadata.namespace, &c.name)),
        );
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(cron_job) = cache.store(&resources::CRON_JOBS).get_key(key) else {
            self.forget(key);
            return Plan::none();
        };
        let store = cache.store(&resources::JOBS);
        let uid = &cron_job.metadata.uid;
        let jobs: Vec<Arc<Object>> = store.by(index::CONTROLLER_UID, uid).cloned().collect();
        let gone = self.gone.entry(key.clone()).or_default();
        // A Job that is not in the cache may only not have been seen yet: the server itself says that it is gone.
        let status: Status = cron_job.view("status").unwrap_or_default();
        gone.retain(|uid| status.active.iter().any(|r| r.uid == *uid));
        let unseen: BTreeMap<String, String> = status
            .active
            .iter()
            .filter(|r| !gone.contains(&r.uid))
            .filter(|r| store.get(&key.namespace, &r.name).is_none_or(|job| job.metadata.uid != r.uid))
            .map(|r| (r.name.clone(), r.uid.clone()))
            .collect();
        if !unseen.is_empty() {
            let ask = |name| {
                let key = ObjectKey::new(&key.namespace, name);
                Action::get(&resources::JOBS, &key).tolerating(&[reason::NOT_FOUND])
            };
            let questions = unseen.keys().map(|name| ask(name)).collect();
            self.asked.insert(key.clone(), unseen);
            return Plan { steps: vec![questions], ..Plan::none() };
        }
        let prefix = format!("{}-", key.name);
        let foreign = |job: &&Arc<Object>| {
            job.metadata.name.starts_with(&prefix) && job.controller().is_none_or(|c| c.uid != *uid)
        };
        let observed = Observed {
            taken: store.list(&key.namespace).filter(foreign).map(|j| j.metadata.name.clone()).collect(),
            jobs,
            gone: gone.clone(),
            made: self.made.get(key).filter(|(of, _)| of == uid).map(|(_, at)| *at),
            cron_job: Arc::clone(cron_job),
        };
        let mut plan = plan(&observed, now);
        let text = |n: &Note| format!("{} {}", n.note.reason, n.note.note);
        let texts: BTreeSet<String> = plan.notes.iter().map(text).collect();
        let told = self.told.insert(key.clone(), texts).unwrap_or_default();
        plan.notes.retain(|n| !told.contains(&text(n)));
        plan
    }

    fn answered(
        &mut self,
        _now: Time,
        key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        match (&request.op, answer) {
            (Operation::Create(job), Ok(_)) => {
                let at = job.metadata.annotations.get(SCHEDULED).and_then(|t| t.parse::<Time>().ok());
                if let (Some(at), Some(owner)) = (at, job.controller()) {
                    self.made.insert(key.clone(), (owner.uid.clone(), at));
                }
            }
            (Operation::Get, answer) => {
                let found = match answer {
                    Ok(Reply::Object(job)) => job.metadata.uid.as_str(),
                    Err(e) if e.is(reason::NOT_FOUND) => "",
                    _ => return,
                };
                let asked = self.asked.get_mut(key).zip(request.name.as_ref());
                if let Some(uid) = asked.and_then(|(asked, name)| asked.remove(name))
                    && uid != found
                {
                    self.gone.entry(key.clone()).or_default().insert(uid);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
