use super::*;
use crate::client::Operation;

/// A Job and its pods, to which plans are applied.
struct Model {
    job: Object,
    pods: Vec<Object>,
    now: Time,
    rng: Rng,
    notes: Vec<String>,
    again: Option<Time>,
    gone: bool,
    created: usize,
}

impl Model {
    fn new(spec: Value) -> Self {
        let mut job = Object::new("batch/v1", "Job", "ns", "j");
        job.metadata.uid = "uid".into();
        let mut spec = spec;
        set_at(
            &mut spec,
            &["template"],
            json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}),
        );
        job.rest.insert("spec".into(), spec);
        let (now, rng) = (Time::from_secs(1000), Rng::new(1));
        Self { job, pods: Vec::new(), now, rng, notes: Vec::new(), again: None, gone: false, created: 0 }
    }

    /// Plans and acts until there is nothing more to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            let pods = self.pods.iter().cloned().map(Arc::new).collect();
            let plan = plan(&Observed { job: Arc::new(self.job.clone()), pods }, self.now, &mut self.rng);
            self.again = plan.again_at;
            self.notes.extend(plan.notes.iter().map(|n| n.note.reason.to_string()));
            if plan.steps.is_empty() {
                return;
            }
            for action in plan.actions() {
                self.act(action);
            }
        }
        panic!("it does not settle: {:?}", self.job);
    }

    fn act(&mut self, action: &Action) {
        let name = action.request.name.clone().unwrap_or_default();
        match &action.request.op {
            Operation::Create(pod) => {
                let mut pod = Object::clone(pod);
                pod.metadata.uid = pod.metadata.name.clone();
                self.pods.push(pod);
                self.created += 1;
            }
            Operation::Update(job) => self.job = Object::clone(job),
            Operation::Delete(_) if name == "j" => self.gone = true,
            Operation::Delete(_) => {
                let pod = self.pods.iter_mut().find(|p| p.metadata.name == name).unwrap();
                pod.metadata.deletion_timestamp = Some(self.now);
            }
            Operation::Patch { body, .. } => {
                let pod = self.pods.iter_mut().find(|p| p.metadata.name == name).unwrap();
                pod.metadata.finalizers = Vec::deserialize(&body["metadata"]["finalizers"]).unwrap();
            }
            other => panic!("{other:?}"),
        }
        self.pods.retain(|p| !p.is_terminating() || !p.metadata.finalizers.is_empty());
    }

    fn active(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|i| is_active(&self.pods[*i])).collect()
    }

    fn end(&mut self, pod: usize, code: i64) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let end = json!({"exitCode": code, "finishedAt": self.now.to_rfc3339()});
        let status =
            json!({"phase": phase, "containerStatuses": [{"name": "c", "state": {"terminated": end}}]});
        self.pods[pod].rest.insert("status".into(), status);
    }

    fn number(&self, field: &str) -> i64 {
        self.job.at(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0)
    }

    fn has(&self, kind: &str) -> Option<String> {
        let status: Status = self.job.view("status").unwrap();
        status.conditions.iter().find(|c| c.kind == kind && c.is_true()).map(|c| c.reason.clone())
    }
}

#[test]
fn pods_run_to_the_number_of_completions() {
    let mut m = Model::new(json!({"completions": 3, "parallelism": 2}));
    m.settle();
    assert_eq!((m.active().len(), m.number("active"), m.number("succeeded")), (2, 2, 0));
    assert!(m.pods.iter().all(|p| is_tracked(p) && p.controller().unwrap().uid == "uid"));
    let first = m.active()[0];
    m.end(first, 0);
    m.settle();
    assert_eq!((m.active().len(), m.number("succeeded"), m.has("Complete")), (2, 1, None));
    for pod in m.active() {
        m.end(pod, 0);
    }
    m.settle();
    assert_eq!((m.number("succeeded"), m.number("active"), m.created), (3, 0, 3));
    assert_eq!(m.has("Complete").as_deref(), Some("CompletionsReached"));
    assert!(m.job.at("/status/completionTime").is_some() && m.notes.ends_with(&["Completed".into()]));
    assert!(!m.pods.iter().any(is_tracked));
    assert_eq!(m.job.at("/status/uncountedTerminatedPods"), Some(&json!({})));
}

#[test]
fn an_end_is_written_down_before_the_finalizer_goes() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1}));
    m.settle();
    m.end(0, 0);
    let observed = Observed { job: Arc::new(m.job.clone()), pods: vec![Arc::new(m.pods[0].clone())] };
    let plan = plan(&observed, m.now, &mut m.rng);
    let kinds: Vec<&str> = plan
        .actions()
        .map(|a| match &a.request.op {
            Operation::Update(job) => {
                assert_eq!(
                    job.at("/status/uncountedTerminatedPods/succeeded"),
                    Some(&json!([m.pods[0].metadata.uid]))
                );
                assert_eq!(job.at("/status/succeeded"), None);
                "status"
            }
            _ => "untrack",
        })
        .collect();
    assert_eq!(kinds, ["status", "untrack"]);
}

#[test]
fn failures_are_retried_after_a_pause_up_to_the_limit() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    m.settle();
    m.end(0, 1);
    m.settle();
    assert_eq!((m.active().len(), m.number("failed")), (0, 1));
    assert_eq!(m.again, Some(m.now + Duration::from_secs(10)));
    m.now = m.now + Duration::from_secs(10);
    m.settle();
    let next = m.active()[0];
    m.end(next, 1);
    m.settle();
    assert_eq!((m.has("Failed").as_deref(), m.number("failed")), (Some("BackoffLimitExceeded"), 2));
    assert!(m.has("Complete").is_none() && m.notes.contains(&"BackoffLimitExceeded".into()));
}

#[test]
fn indexes_are_run_once_each() {
    let mut m = Model::new(json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}));
    m.settle();
    let indexes = |m: &Model| m.active().iter().filter_map(|i| index_of(&m.pods[*i])).collect::<Vec<_>>();
    assert_eq!(indexes(&m), [0, 1]);
    let env = &m.pods[1].at("/spec/containers/0/env/0").unwrap()["name"];
    assert_eq!((env, m.pods[1].str_at("/spec/hostname")), (&json!("JOB_COMPLETION_INDEX"), "j-1"));
    m.end(0, 0);
    m.settle();
    assert_eq!((indexes(&m), m.job.str_at("/status/completedIndexes")), (vec![1, 2], "0"));
    m.end(1, 1);
    m.settle();
    m.now = m.now + Duration::from_secs(10);
    m.settle();
    assert_eq!(indexes(&m), [2, 1]);
    for pod in m.active() {
        m.end(pod, 0);
    }
    m.settle();
    assert_eq!((m.job.str_at("/status/completedIndexes"), m.number("succeeded")), ("0-2", 3));
    assert!(m.has("Complete").is_some());
}

#[test]
fn deadlines_policies_and_suspension_end_pods() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": 60}));
    m.settle();
    assert_eq!(m.again, Some(m.now + Duration::from_secs(60)));
    m.now = m.now + Duration::from_secs(60);
    m.settle();
    assert_eq!((m.has("Failed").as_deref(), m.pods.len()), (Some("DeadlineExceeded"), 0));

    let rule = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1, "podFailurePolicy": rule}));
    m.settle();
    m.end(0, 42);
    m.settle();
    assert_eq!(m.has("Failed").as_deref(), Some("PodFailurePolicy"));

    let mut m = Model::new(json!({"completions": 2, "parallelism": 2, "suspend": true}));
    m.settle();
    assert_eq!((m.created, m.has("Suspended").as_deref()), (0, Some("JobSuspended")));
    set_at(m.job.rest.get_mut("spec").unwrap(), &["suspend"], false);
    m.settle();
    assert_eq!((m.active().len(), m.has("Suspended")), (2, None));
    set_at(m.job.rest.get_mut("spec").unwrap(), &["suspend"], true);
    m.settle();
    assert_eq!((m.pods.len(), m.number("active"), m.number("failed")), (0, 0, 0));
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1, "ttlSecondsAfterFinished": 5}));
    m.settle();
    m.end(0, 0);
    m.settle();
    assert_eq!((m.gone, m.again), (false, Some(m.now + Duration::from_secs(5))));
    m.now = m.now + Duration::from_secs(5);
    let pods = m.pods.iter().cloned().map(Arc::new).collect();
    let plan = plan(&Observed { job: Arc::new(m.job.clone()), pods }, m.now, &mut m.rng);
    assert!(matches!(&plan.steps[0][0].request.op, Operation::Delete(_)));
}

#[test]
fn pods_that_are_deleted_from_outside_count_as_failed_and_are_replaced() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1}));
    m.settle();
    m.pods[0].metadata.deletion_timestamp = Some(m.now);
    m.settle();
    // Nobody remembers when it ended, so there is no pause.
    assert_eq!((m.number("failed"), m.active().len(), m.created), (1, 1, 2));
}
