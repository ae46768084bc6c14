use alloc::boxed::Box;

use serde_json::json;

use super::*;
use crate::client::DeleteOptions;
use crate::controllers::manager::harness::{Faults, World};
use crate::controllers::{Manager, ManagerConfig};

/// Minutes since the epoch at noon of a day.
const NOON: i64 = 29_452_320;

fn minute(n: i64) -> Time {
    Time::from_secs((NOON + n) * 60)
}

fn cron_job(spec: &Value, status: &Value) -> Arc<Object> {
    let mut o = Object::new("batch/v1", "CronJob", "default", "tick");
    o.metadata.uid = "cron".into();
    o.metadata.creation_timestamp = Some(minute(0));
    let mut all = json!({"schedule": "*/5 * * * *", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "concurrencyPolicy": "Allow",
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"parallelism": 2}}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    o.rest.insert("spec".into(), all);
    o.rest.insert("status".into(), status.clone());
    Arc::new(o)
}

/// The Job for a minute.
fn job(n: i64, condition: &str) -> Arc<Object> {
    let mut o = Object::new("batch/v1", "Job", "default", &format!("tick-{}", NOON + n));
    o.metadata.uid = format!("job-{n}");
    o.metadata.annotations.insert(SCHEDULED.into(), minute(n).to_rfc3339());
    let mut status = json!({"startTime": minute(n).to_rfc3339()});
    if !condition.is_empty() {
        status["conditions"] = json!([{"type": condition, "status": "True"}]);
        status["completionTime"] = json!(minute(n + 1).to_rfc3339());
    }
    o.rest.insert("status".into(), status);
    Arc::new(o)
}

fn active(jobs: &[&Arc<Object>]) -> Value {
    let refs: Vec<Value> = jobs
        .iter()
        .map(|j| json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": "default", "name": j.metadata.name, "uid": j.metadata.uid}))
        .collect();
    refs.into()
}

fn observed(spec: Value, status: Value, jobs: Vec<Arc<Object>>) -> Observed {
    Observed {
        cron_job: cron_job(&spec, &status),
        jobs,
        taken: BTreeSet::new(),
        gone: BTreeSet::new(),
        made: None,
    }
}

fn created(plan: &Plan) -> Vec<&Arc<Object>> {
    let made = plan.actions().filter_map(|a| match &a.request.op {
        Operation::Create(job) => Some(job),
        _ => None,
    });
    made.collect()
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let gone = plan.actions().filter(|a| matches!(a.request.op, Operation::Delete(_)));
    gone.filter_map(|a| a.request.name.as_deref()).collect()
}

fn written(plan: &Plan) -> Option<Value> {
    plan.actions().find_map(|a| match &a.request.op {
        Operation::Update(object) => object.at("/status").cloned(),
        _ => None,
    })
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|n| n.note.reason).collect()
}

const NEXT: Duration = Duration::from_millis(100);

#[test]
fn a_job_is_made_when_its_time_has_come() {
    let observed = observed(json!({"timeZone": "Asia/Kathmandu"}), json!({}), vec![]);
    let early = plan(&observed, minute(4));
    assert!(early.is_empty());
    assert_eq!(early.again_at, Some(minute(5) + NEXT));
    let plan = plan(&observed, minute(5) + NEXT);
    let made = created(&plan);
    assert_eq!(made[0].metadata.name, format!("tick-{}", NOON + 5));
    assert_eq!(
        (made[0].metadata.labels["a"].as_str(), &made[0].rest["spec"]),
        ("b", &json!({"parallelism": 2}))
    );
    assert_eq!(made[0].controller().unwrap().uid, "cron");
    let told = &made[0].metadata.annotations[SCHEDULED];
    assert!(told.ends_with("+05:45") && told.parse::<Time>().unwrap() == minute(5), "{told}");
    assert_eq!(plan.again_at, Some(minute(10) + NEXT));
    assert_eq!(plan.actions().next().unwrap().success.as_ref().unwrap().note.reason, "SuccessfulCreate");
}

#[test]
fn what_was_made_is_written_down_and_not_made_again() {
    let spec = json!({});
    let mut observed = observed(spec.clone(), json!({}), vec![job(5, "")]);
    let plan_at = |observed: &Observed, n| plan(observed, minute(n) + NEXT);
    let first = plan_at(&observed, 5);
    let status = written(&first).unwrap();
    assert_eq!(status["lastScheduleTime"], minute(5).to_rfc3339());
    assert_eq!(status["active"], active(&[&job(5, "")]));
    assert!(created(&first).is_empty() && first.notes.is_empty());
    observed.cron_job = cron_job(&spec, &status);
    assert!(plan_at(&observed, 6).is_empty());
    // Several times were missed: one Job, for the latest.
    let late = plan_at(&observed, 33);
    assert_eq!(created(&late)[0].metadata.name, format!("tick-{}", NOON + 30));
    // It ended; another name is taken by somebody else; what was made is known though it is gone already.
    observed.jobs = vec![job(5, "Complete")];
    let done = plan_at(&observed, 6);
    assert_eq!(reasons(&done), ["SawCompletedJob"]);
    assert_eq!(written(&done).unwrap()["lastSuccessfulTime"], minute(6).to_rfc3339());
    assert!(written(&done).unwrap().get("active").is_none());
    observed.taken.insert(format!("tick-{}", NOON + 10));
    assert!(created(&plan_at(&observed, 10)).is_empty());
    observed.taken.clear();
    assert_eq!(created(&plan_at(&observed, 10)).len(), 1);
    observed.made = Some(minute(10));
    assert!(created(&plan_at(&observed, 10)).is_empty());
}

#[test]
fn what_runs_is_kept_from_overlapping_as_the_policy_says() {
    let running = job(5, "");
    let status = json!({"lastScheduleTime": minute(5).to_rfc3339(), "active": active(&[&running])});
    let of = |policy: &str| {
        let observed = observed(json!({"concurrencyPolicy": policy}), status.clone(), vec![job(5, "")]);
        plan(&observed, minute(10) + NEXT)
    };
    assert_eq!((created(&of("Allow")).len(), deleted(&of("Allow")).len()), (1, 0));
    let forbid = of("Forbid");
    assert!(created(&forbid).is_empty());
    assert_eq!((reasons(&forbid), forbid.again_at), (vec!["JobAlreadyActive"], Some(minute(15) + NEXT)));
    let replace = of("Replace");
    assert_eq!((created(&replace).len(), deleted(&replace)), (1, vec![running.metadata.name.as_str()]));
    // Once it is over, the time that was passed over is made up for.
    let over = observed(json!({"concurrencyPolicy": "Forbid"}), status, vec![job(5, "Failed")]);
    assert_eq!(created(&plan(&over, minute(12)))[0].metadata.name, format!("tick-{}", NOON + 10));
}

#[test]
fn suspended_late_and_unreadable_ones_make_nothing() {
    for (spec, n, told) in [
        (json!({"suspend": true}), 5, vec![]),
        (json!({"startingDeadlineSeconds": 60}), 7, vec![]),
        (json!({"schedule": "@sometimes"}), 5, vec!["UnparseableSchedule"]),
        (json!({"schedule": "0 0 31 2 *"}), 5, vec!["InvalidSchedule"]),
        (json!({"timeZone": "Nowhere"}), 5, vec!["UnknownTimeZone"]),
    ] {
        let plan = plan(&observed(spec.clone(), json!({}), vec![]), minute(n));
        assert!(created(&plan).is_empty(), "{spec}");
        assert_eq!(reasons(&plan), told, "{spec}");
    }
    let in_time = observed(json!({"startingDeadlineSeconds": 200}), json!({}), vec![]);
    assert_eq!(created(&plan(&in_time, minute(8))).len(), 1);
    let mut going = Object::clone(&cron_job(&json!({}), &json!({})));
    going.metadata.deletion_timestamp = Some(minute(5));
    let going = Observed { cron_job: Arc::new(going), ..observed(json!({}), json!({}), vec![]) };
    assert!(plan(&going, minute(5)) == Plan::none());
    let many = plan(&observed(json!({"schedule": "* * * * *"}), json!({}), vec![]), minute(102));
    assert_eq!((reasons(&many), created(&many).len()), (vec!["TooManyMissedTimes"], 1));
}

#[test]
fn the_history_is_as_long_as_the_limits() {
    let mut jobs: Vec<Arc<Object>> = (0..5).map(|n| job(n * 5, "Complete")).collect();
    jobs.extend([job(25, "Failed"), job(30, "Failed"), job(35, "")]);
    let name = |n: i64| format!("tick-{}", NOON + n);
    let status = json!({"lastScheduleTime": minute(35).to_rfc3339(), "active": active(&[&job(35, "")])});
    let of = |spec: Value| plan(&observed(spec, status.clone(), jobs.clone()), minute(36));
    assert_eq!(deleted(&of(json!({}))), [name(0), name(5), name(25)]);
    let none = of(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0}));
    assert_eq!(deleted(&none).len(), 7);
    let all = of(json!({"successfulJobsHistoryLimit": null, "failedJobsHistoryLimit": null}));
    assert!(deleted(&all).is_empty());
}

#[test]
fn jobs_of_others_and_missing_ones_are_told() {
    let mut manual = Object::clone(&job(5, ""));
    manual.metadata.name = "by-hand".into();
    let gone = job(0, "");
    let status = json!({"lastScheduleTime": minute(5).to_rfc3339(), "active": active(&[&gone])});
    let mut observed = observed(json!({}), status, vec![Arc::new(manual)]);
    observed.gone.insert(gone.metadata.uid.clone());
    let plan = plan(&observed, minute(6));
    assert_eq!(reasons(&plan), ["UnexpectedJob", "MissingJob"]);
    assert!(written(&plan).unwrap().get("active").is_none());
}

fn manager(epoch: u64) -> Manager {
    let rng = Rng::new(5).child(&format!("{epoch}"));
    Manager::with_controllers(ManagerConfig::default(), rng, vec![Box::new(CronJobs::new())])
}

/// No time has two Jobs, not even one after the other, and no two of them run at once.
fn once(world: &World) {
    let mut seen = world.memory.borrow_mut();
    let jobs = world.all(&resources::JOBS);
    for job in &jobs {
        let (name, uid) = (&job.metadata.name, &job.metadata.uid);
        seen.insert(format!("{name} {uid}"), 1);
        let same = seen.keys().filter(|k| k.split(' ').next() == Some(name)).count();
        assert_eq!(same, 1, "{name} was made again: {:#?}", world.trace);
    }
    let running = jobs.iter().filter(|j| outcome(j).is_none()).count();
    assert!(running <= 1, "{running} at once: {:#?}", world.trace);
}

/// Half an hour of a Job every minute, of which each is over after a while; one is deleted by hand.
fn story(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults, manager);
    world.check = once;
    let mut rng = Rng::new(seed).child("jobs");
    world.create(
        &resources::CRON_JOBS,
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 3,
                "jobTemplate": {"spec": {}}}}),
    );
    let mut seen = BTreeSet::new();
    for step in 0..60 {
        world.run_for(Duration::from_secs(30));
        let jobs = world.all(&resources::JOBS);
        let running: Vec<_> = jobs.iter().filter(|j| outcome(j).is_none()).collect();
        seen.extend(jobs.iter().map(|j| j.metadata.name.clone()));
        let Some(name) = running.first().map(|j| j.metadata.name.clone()) else { continue };
        if step == 20 {
            let options = Operation::Delete(DeleteOptions::default());
            world.user(&ApiRequest::object(&resources::JOBS, "default", &name, options));
        } else if rng.chance(600_000) {
            let now = world.now.to_rfc3339();
            let over = json!({"completionTime": now, "conditions": [{"type": "Complete", "status": "True"}]});
            world.patch_status(&resources::JOBS, "default", &name, json!({"status": over}));
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
    world.faults = Faults { delay_ms: world.faults.delay_ms, ..Faults::default() };
    world.patch(&resources::CRON_JOBS, "default", "tick", json!({"spec": {"suspend": true}}));
    world.run_for(Duration::from_secs(400));
    let cron_job = world.get(&resources::CRON_JOBS, "default", "tick").unwrap().clone();
    let jobs = world.all(&resources::JOBS);
    let running = jobs.iter().filter(|j| outcome(j).is_none()).count();
    let status: Status = cron_job.view("status").unwrap();
    assert_eq!(status.active.len(), running);
    assert!(jobs.len() - running <= 3, "{}", jobs.len());
    let writes = world.writes;
    world.run_for(Duration::from_secs(1_000));
    assert_eq!(world.writes, writes, "a fixed point: {:#?}", world.trace);
    world
}

#[test]
fn jobs_follow_the_clock_whatever_is_lost_or_late() {
    for seed in 0..12 {
        story(seed, Faults::lossy(seed));
    }
}

#[test]
fn a_crash_after_any_write_makes_no_job_twice() {
    let writes = story(1, Faults { delay_ms: 50, ..Faults::default() }).writes;
    for k in (1..writes).step_by(4) {
        story(1, Faults::crash_after(k));
    }
}
