//! The machine against a naive runtime, on a virtual clock.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Duration, Machine, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Pod, PodEffect, PodEvent, PodMachine};
use crate::runtime::{
    CallId, ContainerKey, ExecOutput, Exit, Image, Outcome, ProbeOutcome, RuntimeError, RuntimeOp,
};

fn object(spec: Value) -> Object {
    let mut o = Object::new("v1", "Pod", "default", "web");
    o.metadata.uid = "u1".into();
    o.rest.insert("spec".into(), spec);
    o
}

fn pod(spec: Value) -> Arc<Pod> {
    Arc::new(Pod::from_object(&object(spec)).unwrap())
}

fn deleted(spec: Value, grace: i64) -> Arc<Pod> {
    let mut o = object(spec);
    o.metadata.deletion_timestamp = Some(Time::ZERO);
    o.metadata.deletion_grace_period_seconds = Some(grace);
    Arc::new(Pod::from_object(&o).unwrap())
}

/// A pod and a runtime that does what it is told at once, except what `hold` names.
struct Lab {
    now: Time,
    machine: PodMachine,
    effects: Vec<PodEffect>,
    /// Containers that run, with the time of their start.
    live: BTreeMap<ContainerKey, Time>,
    started: Vec<String>,
    stopped: Vec<(String, u64)>,
    notices: Vec<&'static str>,
    probes: BTreeMap<String, bool>,
    image_error: Option<RuntimeError>,
    start_error: Option<RuntimeError>,
    ignore_stop: bool,
    finished: bool,
}

impl Lab {
    fn new(spec: Value) -> Self {
        let pod = pod(spec);
        let mut lab = Self {
            now: Time::from_secs(1000),
            machine: PodMachine::new(pod.clone(), Time::from_secs(1000)),
            effects: Vec::new(),
            live: BTreeMap::new(),
            started: Vec::new(),
            stopped: Vec::new(),
            notices: Vec::new(),
            probes: BTreeMap::new(),
            image_error: None,
            start_error: None,
            ignore_stop: false,
            finished: false,
        };
        lab.on(PodEvent::Update(pod));
        lab
    }

    fn on(&mut self, event: PodEvent) {
        self.machine.on(self.now, event, &mut self.effects);
        self.pump();
    }

    fn pump(&mut self) {
        while !self.effects.is_empty() {
            for effect in core::mem::take(&mut self.effects) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: PodEffect) {
        let (call, result) = match effect {
            PodEffect::PrepareVolumes { call } => (call, Ok(Outcome::Done)),
            PodEffect::CreateSandbox { call } => {
                (call, Ok(Outcome::Sandbox { ips: vec!["10.1.0.7".parse().unwrap()], at: self.now }))
            }
            PodEffect::EnsureImage { call, .. } => (
                call,
                match &self.image_error {
                    Some(error) => Err(error.clone()),
                    None => Ok(Outcome::Image(Image::default())),
                },
            ),
            PodEffect::StartContainer { call, container, .. } => match &self.start_error {
                Some(error) => (call, Err(error.clone())),
                None => {
                    self.started.push(container.to_string());
                    self.live.insert(container.clone(), self.now);
                    (call, Ok(Outcome::Started { id: alloc::format!("test://{container}"), at: self.now }))
                }
            },
            PodEffect::Call { call, op } => (call, self.op(op)),
            PodEffect::StatusChanged => return,
            PodEffect::Event(notice) => return self.notices.push(notice.reason),
            PodEffect::Finished => {
                self.finished = true;
                return;
            }
        };
        self.machine.on(self.now, PodEvent::Done { call, result }, &mut self.effects);
    }

    fn op(&mut self, op: RuntimeOp) -> Result<Outcome, RuntimeError> {
        match op {
            RuntimeOp::StopContainer { container, grace } => {
                self.stopped.push((container.to_string(), grace.as_secs()));
                if !self.ignore_stop || grace.is_zero() {
                    self.exit(&container, 143);
                }
                Ok(Outcome::Done)
            }
            RuntimeOp::Exec { command, .. } => {
                let success = self.probes.get(&command[0]).copied().unwrap_or(true);
                Ok(Outcome::Exec(ExecOutput { code: i32::from(!success), ..ExecOutput::default() }))
            }
            RuntimeOp::HttpGet(_) | RuntimeOp::TcpConnect { .. } | RuntimeOp::GrpcHealth { .. } => {
                Ok(Outcome::Probe(ProbeOutcome { success: true, message: String::new() }))
            }
            _ => Ok(Outcome::Done),
        }
    }

    fn exit(&mut self, container: &ContainerKey, code: i32) {
        let Some(started_at) = self.live.remove(container) else { return };
        let exit = Exit {
            code,
            signal: None,
            oom_killed: false,
            started_at,
            finished_at: self.now,
            message: String::new(),
        };
        let event = PodEvent::Exited { container: container.clone(), exit };
        self.machine.on(self.now, event, &mut self.effects);
    }

    fn exits(&mut self, name: &str, attempt: u32, code: i32) {
        self.exit(&ContainerKey::new(name, attempt), code);
        self.pump();
    }

    /// Lets time pass.
    fn run(&mut self, secs: u64) {
        let until = self.now + Duration::from_secs(secs);
        for _ in 0..10_000 {
            match self.machine.deadline() {
                Some(due) if due <= until => {
                    self.now = self.now.max(due);
                    self.machine.wake(self.now, &mut self.effects);
                    self.pump();
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn status(&self) -> Value {
        self.machine.status(&[])
    }

    fn condition(&self, kind: &str) -> String {
        let status = self.status();
        let all = status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == kind).unwrap()["status"].as_str().unwrap().into()
    }
}

#[test]
fn runs_one_container() {
    let lab = Lab::new(json!({ "containers": [{ "name": "c", "image": "busybox" }] }));
    assert_eq!(lab.started, ["c/0"]);
    let status = lab.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.1.0.7");
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(lab.condition("Ready"), "True");
    assert_eq!(lab.notices, ["Pulled", "Created", "Started"]);
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut lab = Lab::new(json!({
        "initContainers": [
            { "name": "i1", "image": "x" },
            { "name": "side", "image": "x", "restartPolicy": "Always" },
            { "name": "i2", "image": "x" },
        ],
        "containers": [{ "name": "c", "image": "x" }],
        "restartPolicy": "Never",
    }));
    assert_eq!(lab.started, ["i1/0"]);
    assert_eq!(lab.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(lab.condition("Initialized"), "False");
    lab.exits("i1", 0, 0);
    assert_eq!(lab.started, ["i1/0", "side/0", "i2/0"]);
    lab.exits("i2", 0, 0);
    assert_eq!(lab.started[3..], ["c/0"]);
    assert_eq!(lab.condition("Initialized"), "True");
    // The sidecar comes back even though the policy is Never; the pod's end ends it.
    lab.exits("side", 0, 1);
    lab.run(1);
    assert_eq!(lab.started[4..], ["side/1"]);
    lab.exits("c", 0, 0);
    assert_eq!(lab.status()["phase"], "Succeeded");
    assert_eq!(lab.stopped.iter().map(|(c, _)| c.as_str()).collect::<Vec<_>>(), ["side/1"]);
    assert!(!lab.finished, "the object was not deleted");
    lab.on(PodEvent::Gone);
    assert!(lab.finished);
}

#[test]
fn failed_init_container_fails_a_pod_that_may_not_restart() {
    let mut lab = Lab::new(json!({
        "initContainers": [{ "name": "i", "image": "x" }],
        "containers": [{ "name": "c", "image": "x" }],
        "restartPolicy": "Never",
    }));
    lab.exits("i", 0, 3);
    assert_eq!(lab.status()["phase"], "Failed");
    assert_eq!(lab.started, ["i/0"]);
}

#[test]
fn crash_loop_doubles_to_five_minutes_and_a_long_run_resets_it() {
    let mut lab = Lab::new(json!({ "containers": [{ "name": "c", "image": "x" }] }));
    let mut delays = vec![];
    for attempt in 0..8 {
        lab.exits("c", attempt, 1);
        let from = lab.now;
        for _ in 0..400 {
            if lab.started.len() as u32 > attempt + 1 {
                break;
            }
            lab.run(1);
        }
        delays.push(lab.now.since(from).as_secs());
    }
    assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    lab.exits("c", 8, 1);
    let status = lab.status();
    let c = &status["containerStatuses"][0];
    assert_eq!(c["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!((&c["restartCount"], &c["ready"]), (&json!(8), &json!(false)));
    assert_eq!(status["phase"], "Running");
    lab.run(300);
    lab.run(601);
    lab.exits("c", 9, 1);
    assert_eq!(lab.started.len(), 11, "after ten good minutes it starts at once");
}

#[test]
fn image_back_off() {
    let mut lab = Lab::new(json!({ "containers": [{ "name": "c", "image": "x" }] }));
    lab.image_error = None;
    let mut lab2 =
        Lab { image_error: Some(RuntimeError::ImagePull { image: "y".into(), message: "no".into() }), ..lab };
    let changed = json!({ "containers": [{ "name": "c", "image": "y" }] });
    lab2.on(PodEvent::Update(pod(changed)));
    lab2.run(0);
    assert_eq!(lab2.stopped, [("c/0".into(), 30)], "another image ends the container");
    assert_eq!(lab2.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "ErrImagePull");
    lab2.run(3);
    let status = lab2.status();
    let state = &status["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["reason"], "ImagePullBackOff");
    lab2.image_error = None;
    lab2.run(10);
    assert_eq!(lab2.started, ["c/0", "c/1"]);
}

#[test]
fn probes_gate_readiness_and_restart() {
    let mut lab = Lab::new(json!({ "containers": [{ "name": "c", "image": "x",
        "startupProbe": { "exec": { "command": ["up"] }, "periodSeconds": 1, "failureThreshold": 30 },
        "readinessProbe": { "exec": { "command": ["ready"] }, "periodSeconds": 1 },
        "livenessProbe": { "exec": { "command": ["live"] }, "periodSeconds": 1, "terminationGracePeriodSeconds": 7 },
    }] }));
    assert_eq!(lab.condition("Ready"), "True", "all probes answer at once in this lab");
    lab.probes.insert("ready".into(), false);
    lab.run(2);
    assert_eq!(lab.condition("Ready"), "True", "two failures are fewer than three");
    lab.run(2);
    assert_eq!(lab.condition("Ready"), "False");
    assert!(lab.stopped.is_empty());
    lab.probes.insert("live".into(), false);
    lab.probes.insert("up".into(), false);
    lab.run(3);
    assert_eq!(lab.stopped, [("c/0".into(), 7)]);
    lab.run(5);
    assert_eq!(lab.started, ["c/0", "c/1"]);
    assert_eq!(lab.status()["containerStatuses"][0]["started"], false);
    lab.run(40);
    assert!(lab.stopped.len() > 1, "the startup probe gives up after its threshold");
}

#[test]
fn deletion_runs_pre_stop_within_grace() {
    let spec = json!({ "terminationGracePeriodSeconds": 20, "containers": [
        { "name": "c", "image": "x", "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } } } ] });
    let mut lab = Lab::new(spec.clone());
    lab.on(PodEvent::Update(deleted(spec, 20)));
    assert!(lab.stopped.is_empty());
    lab.run(5);
    assert_eq!(lab.stopped, [("c/0".into(), 15)]);
    assert!(lab.finished);
    assert_eq!(lab.status()["phase"], "Failed", "exit code 143");
}

#[test]
fn a_shorter_grace_stops_sooner() {
    let spec = json!({ "containers": [{ "name": "c", "image": "x" }] });
    let mut lab = Lab::new(spec.clone());
    lab.ignore_stop = true;
    lab.on(PodEvent::Update(deleted(spec.clone(), 30)));
    assert_eq!(lab.stopped, [("c/0".into(), 30)]);
    assert!(!lab.finished);
    lab.on(PodEvent::Update(deleted(spec, 0)));
    assert_eq!(lab.stopped, [("c/0".into(), 30), ("c/0".into(), 0)]);
    assert!(lab.finished);
}

#[test]
fn sidecars_end_last_in_reverse_order() {
    let spec = json!({
        "initContainers": [
            { "name": "s1", "image": "x", "restartPolicy": "Always" },
            { "name": "s2", "image": "x", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "c", "image": "x" }],
    });
    let mut lab = Lab::new(spec.clone());
    lab.on(PodEvent::Update(deleted(spec, 30)));
    assert_eq!(lab.stopped.iter().map(|(c, _)| c.as_str()).collect::<Vec<_>>(), ["c/0", "s2/0", "s1/0"]);
    assert!(lab.finished);
}

#[test]
fn active_deadline_ends_the_pod() {
    let mut lab =
        Lab::new(json!({ "activeDeadlineSeconds": 60, "containers": [{ "name": "c", "image": "x" }] }));
    lab.run(59);
    assert!(lab.stopped.is_empty());
    lab.run(2);
    let status = lab.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
    assert!(!lab.finished);
}

#[test]
fn config_errors_wait_and_go_on_when_poked() {
    let mut lab =
        Lab::new(json!({ "restartPolicy": "OnFailure", "containers": [{ "name": "c", "image": "x" }] }));
    lab.exits("c", 0, 1);
    lab.start_error = Some(RuntimeError::Config { message: "configmap \"cm\" not found".into() });
    lab.run(1);
    lab.exits("c", 1, 1);
    lab.run(10);
    let status = lab.status();
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "CreateContainerConfigError");
    assert_eq!(waiting["message"], "configmap \"cm\" not found");
    lab.start_error = None;
    lab.on(PodEvent::Retry);
    assert_eq!(lab.live.len(), 1);
}

#[test]
fn a_program_that_cannot_start_counts_as_an_exit() {
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "x" }] });
    let mut lab = Lab::new(json!({ "containers": [{ "name": "c", "image": "x" }] }));
    lab.machine = PodMachine::new(pod(spec.clone()), lab.now);
    lab.start_error = Some(RuntimeError::Start { message: "no such file".into() });
    lab.on(PodEvent::Update(pod(spec)));
    let status = lab.status();
    assert_eq!(status["phase"], "Failed");
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(128), &json!("StartError")));
}

/// A runtime whose answers and events arrive in any order.
#[derive(Default)]
struct Chaos {
    calls: Vec<PodEffect>,
    mail: Vec<PodEvent>,
    live: BTreeSet<ContainerKey>,
    ever: BTreeSet<ContainerKey>,
    exited: BTreeSet<ContainerKey>,
    removed: bool,
    finished: bool,
}

impl Chaos {
    fn answer(&mut self, call: CallId, outcome: Outcome) {
        self.mail.push(PodEvent::Done { call, result: Ok(outcome) });
    }

    fn exit(&mut self, key: ContainerKey, code: i32, now: Time) {
        if self.live.remove(&key) {
            assert!(self.exited.insert(key.clone()));
            let exit = Exit {
                code,
                signal: None,
                oom_killed: false,
                started_at: now,
                finished_at: now,
                message: String::new(),
            };
            self.mail.push(PodEvent::Exited { container: key, exit });
        }
    }

    fn perform(&mut self, effect: PodEffect, fail: bool, now: Time) {
        match effect {
            PodEffect::PrepareVolumes { call } => self.answer(call, Outcome::Done),
            PodEffect::CreateSandbox { call } => self.answer(call, Outcome::Sandbox { ips: vec![], at: now }),
            PodEffect::EnsureImage { call, .. } if fail => self.mail.push(PodEvent::Done {
                call,
                result: Err(RuntimeError::ImagePull { image: "x".into(), message: "no".into() }),
            }),
            PodEffect::EnsureImage { call, .. } => self.answer(call, Outcome::Image(Image::default())),
            PodEffect::StartContainer { call, container, .. } => {
                assert!(!self.removed, "{container} starts in a removed sandbox");
                if self.live.contains(&container) || self.exited.contains(&container) {
                    // Idempotent: a start whose first answer was lost.
                } else {
                    let twin = self.live.iter().find(|k| k.name == container.name);
                    assert_eq!(twin, None, "{container} starts beside another attempt");
                    let newest = self.ever.iter().filter(|k| k.name == container.name).max();
                    assert!(newest.is_none_or(|k| k.attempt < container.attempt), "{container} repeats");
                    self.live.insert(container.clone());
                    self.ever.insert(container.clone());
                }
                if fail {
                    let error = RuntimeError::Unavailable { message: "restarting".into() };
                    self.mail.push(PodEvent::Done { call, result: Err(error) });
                } else {
                    self.answer(call, Outcome::Started { id: container.to_string(), at: now });
                }
            }
            PodEffect::Call { call, op } => {
                match op {
                    RuntimeOp::StopContainer { container, .. } => self.exit(container, 137, now),
                    RuntimeOp::RemoveSandbox | RuntimeOp::StopSandbox => {
                        self.removed = true;
                        for key in self.live.clone() {
                            self.exit(key, 137, now);
                        }
                    }
                    _ => {}
                }
                self.answer(call, Outcome::Done);
            }
            PodEffect::Finished => self.finished = true,
            PodEffect::StatusChanged | PodEffect::Event(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the order of answers and events, no slot ever has two live attempts, attempts never repeat, and a
    /// deleted pod leaves nothing behind.
    #[test]
    fn one_live_attempt_whatever_the_order(
        steps in proptest::collection::vec((0_u8..6, any::<u16>(), any::<bool>()), 0..120),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        sandbox_dies in any::<bool>(),
    ) {
        let spec = json!({
            "restartPolicy": policy,
            "initContainers": [
                { "name": "i", "image": "x" },
                { "name": "s", "image": "x", "restartPolicy": "Always" },
            ],
            "containers": [
                { "name": "a", "image": "x", "lifecycle": { "preStop": { "exec": { "command": ["x"] } } } },
                { "name": "b", "image": "x" },
            ],
        });
        let mut now = Time::from_secs(1000);
        let p = pod(spec.clone());
        let mut machine = PodMachine::new(p.clone(), now);
        let mut chaos = Chaos::default();
        machine.on(now, PodEvent::Update(p), &mut chaos.calls);
        let pick = |n: u16, len: usize| usize::from(n) % len.max(1);
        for (what, which, flag) in steps {
            match what {
                0 | 1 if !chaos.calls.is_empty() => {
                    let effect = chaos.calls.remove(pick(which, chaos.calls.len()));
                    chaos.perform(effect, flag && which % 5 == 0, now);
                }
                2 | 3 if !chaos.mail.is_empty() => {
                    let event = chaos.mail.remove(pick(which, chaos.mail.len()));
                    if flag && which % 7 == 0 {
                        // An event that comes twice means nothing the second time.
                        machine.on(now, event.clone(), &mut chaos.calls);
                    }
                    machine.on(now, event, &mut chaos.calls);
                }
                4 => {
                    if let Some(key) = chaos.live.iter().nth(pick(which, chaos.live.len())).cloned() {
                        chaos.exit(key, i32::from(flag), now);
                    }
                }
                5 if sandbox_dies && which % 11 == 0 && machine.has_sandbox() => {
                    for key in chaos.live.clone() {
                        chaos.exit(key, 137, now);
                    }
                    machine.on(now, PodEvent::SandboxDied { message: "gone".into() }, &mut chaos.calls);
                }
                _ => {
                    now = machine.deadline().unwrap_or(now).max(now);
                    machine.wake(now, &mut chaos.calls);
                }
            }
        }
        machine.on(now, PodEvent::Update(deleted(spec, 30)), &mut chaos.calls);
        for _ in 0..500 {
            if !chaos.calls.is_empty() {
                let effect = chaos.calls.remove(0);
                chaos.perform(effect, false, now);
            } else if !chaos.mail.is_empty() {
                let event = chaos.mail.remove(0);
                machine.on(now, event, &mut chaos.calls);
            } else if let Some(due) = machine.deadline() {
                now = now.max(due);
                machine.wake(now, &mut chaos.calls);
            } else {
                break;
            }
        }
        prop_assert!(chaos.finished, "the pod ends");
        prop_assert!(chaos.live.is_empty(), "nothing is left running");
        let phase = machine.status(&[])["phase"].clone();
        prop_assert!(phase == "Failed" || phase == "Succeeded", "phase {}", phase);
    }
}
