//! The machine of one pod.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;

use icp_core::base::{Backoff, Duration, Machine, Time};

use super::desired::{Condition, Pod, RememberedContainer};
use super::effect::{PodEffect, PodNotice};
use super::event::PodEvent;
use super::plan::{Action, Phase, phase, unsupported};
use super::seconds;
use super::slot::{CRASH_RESET_AFTER, Ended, Hook, Run, Running, Slot, Stop, Wait, restarts_after};
use super::spec::{Container, Handler, RestartPolicy};
use crate::probe::{ProbeKind, Prober};
use crate::runtime::{
    CallId, ContainerKey, ContainerKind, ContainerState, Exit, Image, Outcome, PodListing, RuntimeError,
    RuntimeOp,
};
use crate::status;

/// A container that was not given more time gets this between its preStop hook and the kill
/// (`minimumGracePeriodInSeconds`).
const GRACE_MIN: Duration = Duration::from_secs(2);
/// Between tries of what failed for want of an object that the pod names.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// How long a failed pull shows its error before it shows the back-off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// Something that is made once and tried again with back-off.
#[derive(Clone, Debug)]
struct Step {
    state: StepState,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    Idle(Time),
    Busy(CallId),
    Ready,
}

impl Step {
    const fn new() -> Self {
        Self {
            state: StepState::Idle(Time::ZERO),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }

    fn is_due(&self, now: Time) -> bool {
        matches!(self.state, StepState::Idle(at) if at <= now)
    }

    const fn is_busy(&self) -> bool {
        matches!(self.state, StepState::Busy(_))
    }

    const fn retry_at(&self) -> Option<Time> {
        match self.state {
            StepState::Idle(at) => Some(at),
            _ => None,
        }
    }

    fn failed(&mut self, now: Time) {
        self.state = StepState::Idle(now + self.backoff.next_delay());
    }
}

/// Where the pod stands.
#[derive(Clone, Debug)]
enum Stage {
    /// It shall run.
    Sync,
    /// Its containers shall end by then.
    Terminating { kill_by: Time },
    /// Nothing runs any more; its sandbox goes, and with `remove` all that is known of it.
    Teardown { remove: bool, step: Step },
    /// Nothing runs any more; logs are kept.
    Completed,
    /// Nothing is left.
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Volumes,
    Sandbox,
    Image(usize),
    Start(usize, u32),
    PostStart(usize, u32),
    PreStop(usize, u32),
    Stop(usize, u32),
    Probe(usize, u32, ProbeKind),
    Teardown,
}

/// Why the pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) disruption: bool,
}

/// The machine of one pod.
///
/// ```
/// use icp_core::base::{Machine, Time};
/// use icp_node::pod::{Pod, PodEffect, PodEvent, PodMachine};
/// let object = serde_json::from_str(
///     r#"{"metadata":{"name":"web","uid":"u1"},"spec":{"containers":[{"name":"c","image":"nginx"}]}}"#).unwrap();
/// let pod = std::sync::Arc::new(Pod::from_object(&object).unwrap());
/// let mut machine = PodMachine::new(pod.clone(), Time::ZERO);
/// let mut out = Vec::new();
/// machine.on(Time::ZERO, PodEvent::Update(pod), &mut out);
/// assert!(matches!(out[0], PodEffect::PrepareVolumes { .. }));
/// ```
#[derive(Clone, Debug)]
pub struct PodMachine {
    pub(crate) pod: Arc<Pod>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) start_time: Time,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) initialized: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) phase: Phase,
    stage: Stage,
    gone: bool,
    sandbox_lost: bool,
    volumes: Step,
    sandbox: Step,
    calls: Vec<(CallId, Purpose)>,
    next_call: u64,
    /// All that was due by then is done or waits for an event.
    stepped_at: Time,
    touched: bool,
}

impl Machine for PodMachine {
    type Event = PodEvent;
    type Effect = PodEffect;

    fn on(&mut self, now: Time, event: PodEvent, out: &mut Vec<PodEffect>) {
        match event {
            PodEvent::Update(pod) => self.update(now, pod),
            PodEvent::Gone => {
                self.gone = true;
                self.touched = true;
            }
            PodEvent::Adopt(listing) => self.adopt(now, &listing),
            PodEvent::Done { call, result } => self.done(now, call, result, out),
            PodEvent::Exited { container, exit } => self.exited(now, &container, exit, out),
            PodEvent::SandboxDied { message } => self.sandbox_died(now, &message, out),
            PodEvent::Retry => self.retry(now),
            PodEvent::Evict { reason, message, at_once } => {
                if self.failure.is_none() && matches!(self.stage, Stage::Sync) {
                    self.fail(reason, message, true);
                    let grace = if at_once { Duration::ZERO } else { self.pod.grace() };
                    self.stage = Stage::Terminating { kill_by: now + grace };
                }
            }
        }
        self.step(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        if self.deadline().is_some_and(|due| due <= now) {
            self.step(now, out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let mut due: Option<Time> = None;
        let mut at = |t: Option<Time>| {
            if let Some(t) = t.filter(|t| *t > self.stepped_at) {
                due = Some(due.map_or(t, |d| d.min(t)));
            }
        };
        match &self.stage {
            Stage::Sync => {
                at(self.active_deadline());
                if self.volumes.state != StepState::Ready {
                    at(self.volumes.retry_at());
                } else if self.sandbox.state != StepState::Ready {
                    at(self.sandbox.retry_at());
                }
                for slot in &self.slots {
                    if matches!(slot.run, Run::Idle) {
                        at(slot.wait.as_ref().map(|w| w.flip_at.unwrap_or(w.retry_at)));
                        at(slot.restart_at);
                    }
                    self.running_deadline(slot, &mut at);
                }
            }
            Stage::Terminating { .. } => {
                for slot in &self.slots {
                    self.running_deadline(slot, &mut at);
                }
            }
            Stage::Teardown { step, .. } => at(step.retry_at()),
            Stage::Completed | Stage::Removed => {}
        }
        due
    }
}

impl PodMachine {
    /// The machine of a pod that the node sees for the first time at `now` (in this run of the agent).
    #[must_use]
    pub fn new(pod: Arc<Pod>, now: Time) -> Self {
        let phase = Phase::parse(&pod.remembered.phase);
        let failure = (!pod.remembered.reason.is_empty()).then(|| Failure {
            reason: pod.remembered.reason.clone(),
            message: pod.remembered.message.clone(),
            disruption: false,
        });
        let mut machine = Self {
            start_time: pod.remembered.start_time.unwrap_or(now),
            conditions: pod.remembered.conditions.clone(),
            slots: Vec::new(),
            ips: Vec::new(),
            initialized: false,
            failure,
            phase,
            stage: if phase.is_terminal() { Stage::Terminating { kill_by: now } } else { Stage::Sync },
            gone: false,
            sandbox_lost: false,
            volumes: Step::new(),
            sandbox: Step::new(),
            calls: Vec::new(),
            next_call: 0,
            stepped_at: Time::ZERO,
            touched: true,
            pod,
        };
        machine.add_slots();
        machine.remember(now);
        machine
    }

    /// The machine of a pod that the node refuses: it fails with `reason` and nothing is started.
    #[must_use]
    pub fn rejected(pod: Arc<Pod>, now: Time, reason: &str, message: String) -> Self {
        let mut machine = Self::new(pod, now);
        machine.fail(reason, message, false);
        machine.phase = Phase::Failed;
        machine.stage = Stage::Completed;
        machine
    }

    /// The pod.
    #[must_use]
    pub const fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The addresses of the pod.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// The status as it shall stand in the API, as the value of `status`.
    #[must_use]
    pub fn status(&self, host_ips: &[IpAddr]) -> serde_json::Value {
        status::pod_status(self, host_ips)
    }

    /// Whether the pod failed as a whole (evicted, refused, out of time).
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether no container runs or will run again.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Completed | Stage::Removed | Stage::Teardown { .. })
    }

    /// Whether the pod's resources are given back, and its object may go once deletion was asked for.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        matches!(self.stage, Stage::Removed)
    }

    /// Whether the sandbox (and with it the pod's network) is up.
    #[must_use]
    pub fn has_sandbox(&self) -> bool {
        self.sandbox.state == StepState::Ready && !self.sandbox_lost && !self.is_over()
    }

    /// The attempt of a container that runs, if any.
    #[must_use]
    pub fn running_attempt(&self, container: &str) -> Option<u32> {
        self.slots.iter().find(|s| &*s.name == container)?.running().map(|r| r.attempt)
    }

    fn fail(&mut self, reason: &str, message: String, disruption: bool) {
        self.failure = Some(Failure { reason: reason.into(), message, disruption });
        self.touched = true;
    }

    fn call(&mut self, purpose: Purpose) -> CallId {
        self.next_call += 1;
        let id = CallId(self.next_call);
        self.calls.push((id, purpose));
        id
    }

    /// Forgets the calls that `gone` names: their answers mean nothing any more.
    fn forget(&mut self, gone: impl Fn(Purpose) -> bool) {
        self.calls.retain(|(_, purpose)| !gone(*purpose));
    }

    fn spec_of(&self, slot: usize) -> Option<&Container> {
        let name = &self.slots.get(slot)?.name;
        self.pod.container(name)
    }

    fn active_deadline(&self) -> Option<Time> {
        self.pod.spec.active_deadline_seconds.map(|s| self.start_time + seconds(s))
    }

    fn describe(&self, slot: &Slot) -> String {
        format!("{} in pod {}_{}({})", slot.name, self.pod.name, self.pod.namespace, self.pod.uid)
    }

    fn notice(
        &self,
        slot: Option<usize>,
        warning: bool,
        reason: &'static str,
        message: String,
        out: &mut Vec<PodEffect>,
    ) {
        let container = slot.and_then(|i| self.slots.get(i)).map(|s| s.name.clone());
        out.push(PodEffect::Event(PodNotice { warning, reason, message, container }));
    }

    // ---- input ----------------------------------------------------------------------------------------------

    fn add_slots(&mut self) {
        let pod = self.pod.clone();
        for (kind, container) in pod.containers() {
            if !self.slots.iter().any(|s| *s.name == *container.name) {
                self.slots.push(Slot::new(&container.name, kind));
            }
        }
    }

    fn update(&mut self, now: Time, pod: Arc<Pod>) {
        let old = mem::replace(&mut self.pod, pod);
        self.touched = true;
        self.add_slots();
        for slot in &mut self.slots {
            let (Some(was), Some(is)) = (old.container(&slot.name), self.pod.container(&slot.name)) else {
                continue;
            };
            if was.image != is.image {
                slot.force_restart = slot.running().is_some();
                slot.pull.reset();
                if let Some(wait) = &mut slot.wait {
                    wait.retry_at = now;
                    wait.flip_at = None;
                }
            }
        }
    }

    /// Takes over what the API server remembers, for containers that the runtime may no longer know.
    fn remember(&mut self, now: Time) {
        let pod = self.pod.clone();
        for memory in &pod.remembered.containers {
            let Some(slot) = self.slots.iter_mut().find(|s| *s.name == *memory.name) else { continue };
            let ended = memory.state.terminated.as_ref().or(memory.last_state.terminated.as_ref());
            if memory.container_id.is_empty() && ended.is_none() {
                continue;
            }
            slot.next_attempt = memory.restart_count.saturating_add(1);
            slot.exit = Some(match ended {
                Some(end) => Ended {
                    attempt: memory.restart_count,
                    id: end.container_id.clone(),
                    reason: end.reason.clone(),
                    exit: Exit {
                        code: end.exit_code,
                        signal: None,
                        oom_killed: end.reason == "OOMKilled",
                        started_at: end.started_at.unwrap_or(now),
                        finished_at: end.finished_at.unwrap_or(now),
                        message: end.message.clone(),
                    },
                },
                None => lost(memory, now),
            });
            if memory.state.terminated.is_none() && memory.last_state.terminated.is_some() {
                // It ran (or waited for its next try) when it was last seen; only the try before is known.
                if !memory.container_id.is_empty()
                    && slot.exit.as_ref().is_some_and(|e| e.id != memory.container_id)
                {
                    slot.last = slot.exit.replace(lost(memory, now));
                }
            }
        }
        self.initialized = self.slots.iter().any(|s| s.kind == ContainerKind::Regular && s.was_started());
        self.plan_restarts(now);
    }

    /// Takes over what the runtime knows.
    fn adopt(&mut self, now: Time, listing: &PodListing) {
        self.touched = true;
        if let Some(sandbox) = &listing.sandbox {
            self.ips.clone_from(&sandbox.ips);
            self.sandbox.state = StepState::Ready;
        }
        let mut containers: Vec<_> = listing.containers.iter().collect();
        containers.sort_by_key(|c| c.key.attempt);
        for known in containers {
            let pod = self.pod.clone();
            let Some(slot) = self.slots.iter_mut().find(|s| s.name == known.key.name) else { continue };
            if known.key.attempt.saturating_add(1) < slot.next_attempt {
                continue;
            }
            slot.next_attempt = known.key.attempt.saturating_add(1);
            slot.image_id.clone_from(&known.image_id);
            match &known.state {
                ContainerState::Running { started_at } => {
                    if slot.exit.as_ref().is_some_and(|e| e.attempt == known.key.attempt) {
                        slot.exit = None;
                    }
                    slot.last = slot.exit.take().or_else(|| slot.last.take());
                    let probes = probers(pod.container(&slot.name), *started_at, now);
                    slot.run = Run::Running(Box::new(Running {
                        attempt: known.key.attempt,
                        id: known.id.clone(),
                        started_at: *started_at,
                        post_start: Hook::Done,
                        stop: None,
                        probes,
                    }));
                }
                ContainerState::Exited(exit) => {
                    if slot.exit.as_ref().is_some_and(|e| e.attempt < known.key.attempt) {
                        slot.last = slot.exit.take();
                    }
                    slot.exit = Some(Ended {
                        attempt: known.key.attempt,
                        id: known.id.clone(),
                        reason: exit_reason(exit).into(),
                        exit: exit.clone(),
                    });
                }
            }
        }
        self.initialized |= self.slots.iter().any(|s| s.kind == ContainerKind::Regular && s.was_started());
        self.plan_restarts(now);
    }

    /// Sets when containers that had ended before this run of the agent are started again.
    fn plan_restarts(&mut self, now: Time) {
        for i in 0..self.slots.len() {
            let again = self.slots.get(i).is_some_and(|s| s.exit.is_some() && self.restarts(s));
            if let Some(slot) = self.slots.get_mut(i) {
                slot.restart_at = (again && matches!(slot.run, Run::Idle)).then_some(now);
            }
        }
    }

    /// Whether another attempt follows the slot's newest exit.
    pub(crate) fn restarts(&self, slot: &Slot) -> bool {
        if self.failure.is_some() || self.phase.is_terminal() || !matches!(self.stage, Stage::Sync) {
            return false;
        }
        let (Some(end), Some(spec)) = (&slot.exit, self.pod.container(&slot.name)) else { return false };
        slot.force_restart || restarts_after(slot.kind, spec, self.pod.spec.restart_policy, end.exit.code)
    }

    fn retry(&mut self, now: Time) {
        for slot in &mut self.slots {
            if let Some(wait) = &mut slot.wait
                && wait.reason == "CreateContainerConfigError"
            {
                wait.retry_at = now;
            }
        }
        if let StepState::Idle(at) = &mut self.volumes.state {
            *at = now;
        }
    }

    fn exited(&mut self, now: Time, key: &ContainerKey, exit: Exit, out: &mut Vec<PodEffect>) {
        let Some(i) = self.slots.iter().position(|s| s.name == key.name) else { return };
        let Some(slot) = self.slots.get_mut(i) else { return };
        let id = match &mut slot.run {
            Run::Running(r) if r.attempt == key.attempt => r.id.clone(),
            Run::Starting { attempt, exit: early } if *attempt == key.attempt => {
                *early = Some(Box::new(exit));
                return;
            }
            Run::Idle | Run::Pulling if slot.unknown && slot.next_attempt == key.attempt => String::new(),
            _ => return,
        };
        self.ended(now, i, key.attempt, id, exit_reason(&exit), exit, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one end has that many parts")]
    fn ended(
        &mut self,
        now: Time,
        i: usize,
        attempt: u32,
        id: String,
        reason: &str,
        exit: Exit,
        out: &mut Vec<PodEffect>,
    ) {
        self.touched = true;
        self.forget(|p| match p {
            Purpose::Image(s) => s == i,
            Purpose::Start(s, _)
            | Purpose::PostStart(s, _)
            | Purpose::PreStop(s, _)
            | Purpose::Stop(s, _)
            | Purpose::Probe(s, ..) => s == i,
            Purpose::Volumes | Purpose::Sandbox | Purpose::Teardown => false,
        });
        let Some(slot) = self.slots.get_mut(i) else { return };
        slot.run = Run::Idle;
        slot.unknown = false;
        slot.wait = None;
        slot.next_attempt = attempt.saturating_add(1);
        let ran = exit.finished_at.since(exit.started_at);
        let finished_at = exit.finished_at;
        if let Some(before) = slot.exit.replace(Ended { attempt, id, reason: reason.into(), exit }) {
            slot.last = Some(before);
        }
        if ran >= CRASH_RESET_AFTER {
            slot.crash.reset();
            slot.crashed = false;
        }
        let Some(slot) = self.slots.get(i) else { return };
        if !self.restarts(slot) {
            return;
        }
        let (crashed, name, described) = (slot.crashed, slot.name.clone(), self.describe(slot));
        let Some(slot) = self.slots.get_mut(i) else { return };
        if crashed && !slot.force_restart {
            slot.crash_delay = slot.crash.next_delay();
            slot.restart_at = Some(finished_at.max(now - slot.crash_delay) + slot.crash_delay);
            let message = format!("Back-off restarting failed container {described}");
            out.push(PodEffect::Event(PodNotice {
                warning: true,
                reason: "BackOff",
                message,
                container: Some(name),
            }));
        } else {
            slot.crashed = true;
            slot.restart_at = Some(now);
        }
    }

    fn sandbox_died(&mut self, now: Time, message: &str, out: &mut Vec<PodEffect>) {
        if self.sandbox.state != StepState::Ready {
            return;
        }
        self.sandbox_lost = true;
        self.touched = true;
        self.notice(
            None,
            false,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.".into(),
            out,
        );
        for i in 0..self.slots.len() {
            let Some(running) = self.slots.get(i).and_then(Slot::running) else { continue };
            let (attempt, id) = (running.attempt, running.id.clone());
            let exit = killed(running.started_at, now, message);
            self.ended(now, i, attempt, id, "Error", exit, out);
        }
    }

    // ---- answers --------------------------------------------------------------------------------------------

    fn done(
        &mut self,
        now: Time,
        call: CallId,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<PodEffect>,
    ) {
        let Some(at) = self.calls.iter().position(|(id, _)| *id == call) else { return };
        let (_, purpose) = self.calls.swap_remove(at);
        match purpose {
            Purpose::Volumes => match result {
                Ok(_) => self.volumes.state = StepState::Ready,
                Err(error) => {
                    self.volumes.failed(now);
                    self.notice(None, true, "FailedMount", error.to_string(), out);
                }
            },
            Purpose::Sandbox => match result {
                Ok(Outcome::Sandbox { ips, .. }) => {
                    self.sandbox.state = StepState::Ready;
                    self.sandbox.backoff.reset();
                    self.ips = ips;
                    self.touched = true;
                }
                other => {
                    self.sandbox.failed(now);
                    self.notice(None, true, "FailedCreatePodSandBox", complaint(other), out);
                }
            },
            Purpose::Image(i) => self.image_done(now, i, result, out),
            Purpose::Start(i, attempt) => self.start_done(now, i, attempt, result, out),
            Purpose::PostStart(i, attempt) => self.post_start_done(now, i, attempt, result, out),
            Purpose::PreStop(i, attempt) => {
                if let Some(why) = hook_failure(result) {
                    self.notice(
                        Some(i),
                        true,
                        "FailedPreStopHook",
                        format!("PreStopHook failed: {why}"),
                        out,
                    );
                }
                if let Some(r) = self.slots.get_mut(i).and_then(Slot::running_mut)
                    && r.attempt == attempt
                    && let Some(stop) = &mut r.stop
                {
                    stop.hook = Hook::Done;
                }
            }
            Purpose::Stop(i, attempt) => {
                if let Some(r) = self.slots.get_mut(i).and_then(Slot::running_mut)
                    && r.attempt == attempt
                    && let Some(stop) = &mut r.stop
                    && result.is_err()
                {
                    stop.resend_at = Some(now + Duration::from_secs(1));
                }
            }
            Purpose::Probe(i, attempt, kind) => self.probe_done(now, i, attempt, kind, result, out),
            Purpose::Teardown => {
                if let Stage::Teardown { step, .. } = &mut self.stage {
                    match result {
                        Ok(_) => step.state = StepState::Ready,
                        Err(error) => {
                            step.failed(now);
                            self.notice(None, true, "FailedKillPod", error.to_string(), out);
                        }
                    }
                }
            }
        }
    }

    fn image_done(
        &mut self,
        now: Time,
        i: usize,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<PodEffect>,
    ) {
        let image_name = self.spec_of(i).map(|c| c.image.clone()).unwrap_or_default();
        let wanted = matches!(self.stage, Stage::Sync) && !self.sandbox_lost;
        let Some(slot) = self.slots.get_mut(i) else { return };
        slot.run = Run::Idle;
        match result {
            Ok(Outcome::Image(image)) => {
                slot.pull.reset();
                slot.wait = None;
                slot.image_id.clone_from(&image.id);
                if !wanted {
                    return;
                }
                let message = if image.pulled {
                    format!(
                        "Successfully pulled image \"{image_name}\". Image size: {} bytes.",
                        image.size_bytes
                    )
                } else {
                    format!("Container image \"{image_name}\" already present on machine")
                };
                self.notice(Some(i), false, "Pulled", message, out);
                self.start(i, image, out);
            }
            other => {
                let (reason, message) = match &other {
                    Err(error) => (error.reason(), error.to_string()),
                    Ok(_) => ("ErrImagePull", String::from("the runtime gave no image")),
                };
                let delay = slot.pull.next_delay();
                let is_pull = reason == "ErrImagePull";
                slot.wait = Some(Wait {
                    reason,
                    message: message.clone(),
                    retry_at: now + delay,
                    flip_at: is_pull.then_some(now + PULL_ERROR_SHOWN),
                });
                self.touched = true;
                let told = if is_pull {
                    format!("Failed to pull image \"{image_name}\": {message}")
                } else {
                    message
                };
                let event = if reason == "ErrImageNeverPull" { "ErrImageNeverPull" } else { "Failed" };
                self.notice(Some(i), true, event, told, out);
            }
        }
    }

    fn start(&mut self, i: usize, image: Image, out: &mut Vec<PodEffect>) {
        let Some(slot) = self.slots.get(i) else { return };
        let (attempt, key) = (slot.next_attempt, slot.key(slot.next_attempt));
        let call = self.call(Purpose::Start(i, attempt));
        if let Some(slot) = self.slots.get_mut(i) {
            slot.run = Run::Starting { attempt, exit: None };
        }
        out.push(PodEffect::StartContainer { call, container: key, image: Arc::new(image) });
    }

    fn start_done(
        &mut self,
        now: Time,
        i: usize,
        attempt: u32,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<PodEffect>,
    ) {
        self.touched = true;
        let Some(slot) = self.slots.get_mut(i) else { return };
        let name = slot.name.clone();
        let early = match &mut slot.run {
            Run::Starting { exit, .. } => exit.take(),
            _ => None,
        };
        if let Some(exit) = early {
            let id = match result {
                Ok(Outcome::Started { id, .. }) => id,
                _ => String::new(),
            };
            self.ended(now, i, attempt, id, exit_reason(&exit), *exit, out);
            return;
        }
        match result {
            Ok(Outcome::Started { id, at }) => {
                self.notice(Some(i), false, "Created", format!("Created container: {name}"), out);
                self.notice(Some(i), false, "Started", format!("Started container {name}"), out);
                let spec = self.spec_of(i).cloned().unwrap_or_default();
                let hook = spec.lifecycle.as_ref().and_then(|l| l.post_start.clone());
                let Some(slot) = self.slots.get_mut(i) else { return };
                slot.unknown = false;
                slot.force_restart = false;
                slot.wait = None;
                slot.restart_at = None;
                slot.next_attempt = attempt.saturating_add(1);
                if let Some(before) = slot.exit.take() {
                    slot.last = Some(before);
                }
                slot.run = Run::Running(Box::new(Running {
                    attempt,
                    id: id.clone(),
                    started_at: at,
                    post_start: Hook::Done,
                    stop: None,
                    probes: probers(Some(&spec), at, now),
                }));
                if self.sandbox_lost {
                    // The call overtook the news: what started in a dead sandbox must end.
                    self.stop(now, i, now, None, out);
                } else if let Some(hook) = hook
                    && matches!(self.stage, Stage::Sync)
                {
                    let state = self.hook(i, attempt, &hook, Purpose::PostStart(i, attempt), now, None, out);
                    if let Some(r) = self.slots.get_mut(i).and_then(Slot::running_mut) {
                        r.post_start = state;
                    }
                }
            }
            Err(RuntimeError::Start { message }) => {
                self.notice(Some(i), true, "Failed", format!("Error: {message}"), out);
                let exit = Exit {
                    code: 128,
                    signal: None,
                    oom_killed: false,
                    started_at: Time::ZERO,
                    finished_at: now,
                    message,
                };
                let exit = Exit { started_at: now, ..exit };
                self.ended(now, i, attempt, String::new(), "StartError", exit, out);
            }
            other => {
                let (reason, unknown) = match &other {
                    Err(error) => (
                        error.reason(),
                        matches!(error, RuntimeError::Unavailable { .. } | RuntimeError::Timeout { .. }),
                    ),
                    Ok(_) => ("CreateContainerError", true),
                };
                let message = complaint(other);
                self.notice(Some(i), true, "Failed", format!("Error: {message}"), out);
                let Some(slot) = self.slots.get_mut(i) else { return };
                slot.run = Run::Idle;
                slot.unknown |= unknown;
                let retry_at = now + if unknown { Duration::from_secs(1) } else { CONFIG_RETRY };
                slot.wait = Some(Wait { reason, message, retry_at, flip_at: None });
            }
        }
    }

    fn post_start_done(
        &mut self,
        now: Time,
        i: usize,
        attempt: u32,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<PodEffect>,
    ) {
        let Some(r) = self.slots.get_mut(i).and_then(Slot::running_mut) else { return };
        if r.attempt != attempt {
            return;
        }
        r.post_start = Hook::Done;
        self.touched = true;
        if let Some(why) = hook_failure(result) {
            self.notice(Some(i), true, "FailedPostStartHook", format!("PostStartHook failed: {why}"), out);
            self.stop(now, i, now + self.pod.grace(), Some("FailedPostStartHook".into()), out);
        }
    }

    fn probe_done(
        &mut self,
        now: Time,
        i: usize,
        attempt: u32,
        kind: ProbeKind,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<PodEffect>,
    ) {
        let (success, message) = match result {
            Ok(Outcome::Exec(output)) => {
                (output.code == 0, String::from_utf8_lossy(&output.output).into_owned())
            }
            Ok(Outcome::Probe(answer)) => (answer.success, answer.message),
            Err(RuntimeError::Timeout { millis }) => (false, format!("command timed out after {millis} ms")),
            other => {
                // The question could not be put: upstream throws such results away.
                let _ = other;
                if let Some(p) = self.prober(i, attempt, kind) {
                    p.cancel();
                }
                return;
            }
        };
        let Some(prober) = self.prober(i, attempt, kind) else { return };
        let verdict = prober.finish(success);
        if !success {
            self.notice(
                Some(i),
                true,
                "Unhealthy",
                format!("{} probe failed: {message}", kind.as_str()),
                out,
            );
        }
        let Some(verdict) = verdict else { return };
        self.touched = true;
        if kind == ProbeKind::Startup
            && verdict
            && let Some(r) = self.slots.get_mut(i).and_then(Slot::running_mut)
        {
            for p in &mut r.probes {
                p.hold_until(now);
            }
        }
        if kind != ProbeKind::Readiness && !verdict && matches!(self.stage, Stage::Sync) {
            let Some(slot) = self.slots.get(i) else { return };
            let why = format!(
                "Container {} failed {} probe, will be restarted",
                slot.name,
                kind.as_str().to_ascii_lowercase()
            );
            let grace = self.spec_of(i).and_then(|c| match kind {
                ProbeKind::Startup => c.startup_probe.as_ref(),
                _ => c.liveness_probe.as_ref(),
            });
            let grace = grace
                .and_then(|p| p.termination_grace_period_seconds)
                .map_or_else(|| self.pod.grace(), seconds);
            self.stop(now, i, now + grace, Some(why), out);
        }
    }

    fn prober(&mut self, i: usize, attempt: u32, kind: ProbeKind) -> Option<&mut Prober> {
        let running = self.slots.get_mut(i)?.running_mut()?;
        if running.attempt != attempt {
            return None;
        }
        running.probes.iter_mut().find(|p| p.kind() == kind)
    }

    // ---- what is to be done ---------------------------------------------------------------------------------

    fn step(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        // Each pass can reach the next stage; there are five.
        for _ in 0..5 {
            let before = mem::discriminant(&self.stage);
            match &self.stage {
                Stage::Sync => self.sync(now, out),
                Stage::Terminating { .. } => self.terminate(now, out),
                Stage::Teardown { .. } => self.teardown(now, out),
                Stage::Completed => {
                    if self.pod.deletion.is_some() || self.gone {
                        self.stage = Stage::Teardown { remove: true, step: Step::new() };
                    }
                }
                Stage::Removed => {}
            }
            if mem::discriminant(&self.stage) == before {
                break;
            }
        }
        self.stepped_at = self.stepped_at.max(now);
        self.refresh(now, out);
    }

    fn refresh(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        if !mem::take(&mut self.touched) {
            return;
        }
        if !self.phase.is_terminal() {
            self.phase = phase(&self.slots, self.initialized, |slot| self.restarts(slot));
            // A pod that is being ended is over only when nothing of it runs.
            if self.phase.is_terminal() && self.slots.iter().any(|s| s.is_live() || s.unknown) {
                self.phase = Phase::Running;
            }
            if self.is_over() && !self.phase.is_terminal() {
                self.phase = Phase::Failed;
            }
            if self.is_over() && self.failure.is_some() {
                self.phase = Phase::Failed;
            }
        }
        self.conditions = status::conditions(self, now);
        out.push(PodEffect::StatusChanged);
    }

    fn sync(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        if self.pod.deletion.is_some() || self.gone {
            self.stage = Stage::Terminating { kill_by: now + self.pod.grace() };
            self.touched = true;
            return;
        }
        if self.active_deadline().is_some_and(|at| at <= now) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.notice(None, false, "DeadlineExceeded", message.into(), out);
            self.fail("DeadlineExceeded", message.into(), false);
            self.stage = Stage::Terminating { kill_by: now + self.pod.grace() };
            return;
        }
        let reached = phase(&self.slots, self.initialized, |slot| self.restarts(slot));
        if reached.is_terminal() {
            self.phase = Phase::Pending;
            self.stage = Stage::Terminating { kill_by: now + self.pod.grace() };
            self.touched = true;
            return;
        }
        if self.volumes.state != StepState::Ready {
            if self.volumes.is_due(now) {
                let call = self.call(Purpose::Volumes);
                self.volumes.state = StepState::Busy(call);
                out.push(PodEffect::PrepareVolumes { call });
            }
            // Containers that were taken over run on while the volumes are looked at again.
            if !self.slots.iter().any(Slot::is_live) {
                return;
            }
        }
        if self.sandbox_lost {
            if self.slots.iter().any(Slot::is_live) {
                for i in 0..self.slots.len() {
                    self.drive_stop(now, i, out);
                }
                return;
            }
            if self.pod.spec.restart_policy == RestartPolicy::Never
                && self.slots.iter().any(Slot::was_started)
            {
                self.fail("SandboxChanged", "the pod sandbox died and the pod may not restart".into(), false);
                self.stage = Stage::Terminating { kill_by: now };
                return;
            }
            self.sandbox_lost = false;
            self.sandbox.state = StepState::Idle(now);
            self.initialized = false;
            for slot in self.slots.iter_mut().filter(|s| s.kind == ContainerKind::Init) {
                if let Some(end) = slot.exit.take() {
                    slot.last = Some(end);
                }
            }
        }
        if self.sandbox.state != StepState::Ready {
            if self.sandbox.is_due(now) {
                let call = self.call(Purpose::Sandbox);
                self.sandbox.state = StepState::Busy(call);
                out.push(PodEffect::CreateSandbox { call });
            }
            return;
        }
        let may_start = self.volumes.state == StepState::Ready;
        self.sync_containers(now, may_start, out);
    }

    fn sync_containers(&mut self, now: Time, may_start: bool, out: &mut Vec<PodEffect>) {
        let mut blocked = false;
        if !self.initialized {
            for i in 0..self.slots.len() {
                let Some(slot) = self.slots.get(i) else { continue };
                match slot.kind {
                    ContainerKind::Init => {
                        let done = matches!(slot.run, Run::Idle)
                            && slot.exit.as_ref().is_some_and(|e| e.exit.code == 0);
                        if !done {
                            self.drive(now, i, may_start, out);
                            blocked = true;
                        }
                    }
                    ContainerKind::Sidecar => {
                        self.drive(now, i, may_start, out);
                        blocked = !self.slots.get(i).is_some_and(Slot::is_started);
                    }
                    ContainerKind::Regular | ContainerKind::Ephemeral => {}
                }
                if blocked {
                    break;
                }
            }
            if !blocked {
                self.initialized = true;
                self.touched = true;
            }
        } else {
            for i in 0..self.slots.len() {
                if self.slots.get(i).is_some_and(|s| s.kind == ContainerKind::Sidecar) {
                    self.drive(now, i, may_start, out);
                }
            }
        }
        // One after the other, as upstream does it: a postStart hook holds the containers behind it.
        let mut busy = blocked || !self.initialized;
        for i in 0..self.slots.len() {
            match self.slots.get(i).map(|s| s.kind) {
                Some(ContainerKind::Regular) => {
                    self.drive(now, i, may_start && !busy, out);
                    busy |= self.slots.get(i).is_some_and(Slot::is_busy);
                }
                Some(ContainerKind::Ephemeral) => self.drive(now, i, may_start, out),
                _ => {}
            }
        }
        if blocked {
            // Sidecars behind the one that blocks wait; those that run are looked after all the same.
            for i in 0..self.slots.len() {
                if self.slots.get(i).is_some_and(|s| s.running().is_some()) {
                    self.drive_running(now, i, out);
                }
            }
        }
    }

    /// Brings one container closer to what it shall be.
    fn drive(&mut self, now: Time, i: usize, may_start: bool, out: &mut Vec<PodEffect>) {
        let Some(slot) = self.slots.get(i) else { return };
        if slot.running().is_some() {
            self.drive_running(now, i, out);
            return;
        }
        if !matches!(slot.run, Run::Idle) {
            return;
        }
        let image = self.spec_of(i).map(|c| c.image.clone()).unwrap_or_default();
        let Some(slot) = self.slots.get_mut(i) else { return };
        if let Some(wait) = &mut slot.wait {
            if wait.flip_at.is_some_and(|at| at <= now) {
                wait.flip_at = None;
                wait.reason = "ImagePullBackOff";
                let cause = mem::take(&mut wait.message);
                wait.message = format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
                self.touched = true;
                self.notice(Some(i), false, "BackOff", format!("Back-off pulling image \"{image}\""), out);
                return;
            }
            if wait.retry_at > now {
                return;
            }
        }
        if !may_start {
            return;
        }
        let ended = slot.exit.is_some();
        if ended && slot.restart_at.is_none_or(|at| at > now) {
            return;
        }
        let Some(slot) = self.slots.get(i) else { return };
        if ended && !self.restarts(slot) {
            return;
        }
        let spec = self.spec_of(i);
        if let Some(message) = spec.and_then(unsupported) {
            let first = slot.wait.is_none();
            let wait = Wait {
                reason: "CreateContainerConfigError",
                message: message.clone(),
                retry_at: now + Duration::from_secs(300),
                flip_at: None,
            };
            if let Some(slot) = self.slots.get_mut(i) {
                slot.wait = Some(wait);
            }
            self.touched = true;
            if first {
                self.notice(Some(i), true, "Failed", format!("Error: {message}"), out);
            }
            return;
        }
        let name = slot.name.clone();
        let call = self.call(Purpose::Image(i));
        if let Some(slot) = self.slots.get_mut(i) {
            slot.run = Run::Pulling;
        }
        out.push(PodEffect::EnsureImage { call, container: name });
    }

    /// Hooks that sleep, stops under way and probes of a running container.
    fn drive_running(&mut self, now: Time, i: usize, out: &mut Vec<PodEffect>) {
        let forced = self.slots.get(i).is_some_and(|s| s.force_restart);
        let grace = self.pod.grace();
        let Some(running) = self.slots.get_mut(i).and_then(Slot::running_mut) else { return };
        if let Hook::Sleep(until) = running.post_start
            && until <= now
        {
            running.post_start = Hook::Done;
            self.touched = true;
        }
        let Some(running) = self.slots.get_mut(i).and_then(Slot::running_mut) else { return };
        if running.stop.is_some() {
            self.drive_stop(now, i, out);
        } else if forced {
            let name = self.slots.get(i).map(|s| s.name.clone()).unwrap_or_default();
            let why = format!("Container {name} definition changed, will be restarted");
            self.stop(now, i, now + grace, Some(why), out);
        } else if running.post_start == Hook::Done {
            self.probe(now, i, out);
        }
    }

    fn probe(&mut self, now: Time, i: usize, out: &mut Vec<PodEffect>) {
        let Some(slot) = self.slots.get(i) else { return };
        let started = slot.is_started();
        let Some(running) = slot.running() else { return };
        let attempt = running.attempt;
        let due: Vec<_> = running
            .probes
            .iter()
            .filter(|p| (p.kind() == ProbeKind::Startup) != started && p.due().is_some_and(|at| at <= now))
            .map(|p| (p.kind(), p.timeout()))
            .collect();
        for (kind, timeout) in due {
            let (Some(slot), Some(spec)) = (self.slots.get(i), self.spec_of(i)) else { return };
            let probe = match kind {
                ProbeKind::Startup => &spec.startup_probe,
                ProbeKind::Liveness => &spec.liveness_probe,
                ProbeKind::Readiness => &spec.readiness_probe,
            };
            let Some(probe) = probe else { continue };
            let action = Action {
                exec: probe.exec.as_ref(),
                http: probe.http_get.as_ref(),
                tcp: probe.tcp_socket.as_ref(),
                grpc: probe.grpc.as_ref(),
            };
            let op = action.op(spec, slot.key(attempt), timeout);
            if let Some(p) = self.prober(i, attempt, kind) {
                p.begin(now);
            }
            match op {
                Ok(op) => {
                    let call = self.call(Purpose::Probe(i, attempt, kind));
                    out.push(PodEffect::Call { call, op });
                }
                Err(message) => {
                    let answer = crate::runtime::ProbeOutcome { success: false, message };
                    self.probe_done(now, i, attempt, kind, Ok(Outcome::Probe(answer)), out);
                }
            }
        }
    }

    /// Runs a lifecycle hook of container `i`.
    #[expect(clippy::too_many_arguments, reason = "one hook has that many parts")]
    fn hook(
        &mut self,
        i: usize,
        attempt: u32,
        hook: &Handler,
        purpose: Purpose,
        now: Time,
        until: Option<Time>,
        out: &mut Vec<PodEffect>,
    ) -> Hook {
        if let Some(sleep) = &hook.sleep {
            let at = now + seconds(sleep.seconds);
            return Hook::Sleep(until.map_or(at, |u| at.min(u)));
        }
        // A hook without a bound of its own gets an hour: the container waits for it.
        let timeout = until.map_or(Duration::from_secs(3600), |u| u.since(now));
        let (Some(slot), Some(spec)) = (self.slots.get(i), self.spec_of(i)) else { return Hook::Done };
        let action = Action {
            exec: hook.exec.as_ref(),
            http: hook.http_get.as_ref(),
            tcp: hook.tcp_socket.as_ref(),
            grpc: None,
        };
        match action.op(spec, slot.key(attempt), timeout) {
            Ok(op) => {
                let call = self.call(purpose);
                out.push(PodEffect::Call { call, op });
                Hook::Call(call)
            }
            Err(message) => {
                self.notice(Some(i), true, "FailedLifecycleHook", message, out);
                Hook::Done
            }
        }
    }

    /// Begins to stop container `i`, or brings its kill forward.
    fn stop(&mut self, now: Time, i: usize, kill_by: Time, why: Option<String>, out: &mut Vec<PodEffect>) {
        let name = self.slots.get(i).map(|s| s.name.clone()).unwrap_or_default();
        let Some(running) = self.slots.get_mut(i).and_then(Slot::running_mut) else { return };
        let attempt = running.attempt;
        if let Some(stop) = &mut running.stop {
            if kill_by < stop.kill_by {
                stop.kill_by = kill_by;
                stop.sent = false;
            }
        } else {
            running.stop = Some(Stop { kill_by, hook: Hook::Done, sent: false, resend_at: None });
            self.touched = true;
            let message = why.unwrap_or_else(|| format!("Stopping container {name}"));
            self.notice(Some(i), false, "Killing", message, out);
            let hook = self.spec_of(i).and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
            if let Some(hook) = hook
                && kill_by > now
            {
                let state =
                    self.hook(i, attempt, &hook, Purpose::PreStop(i, attempt), now, Some(kill_by), out);
                if let Some(stop) =
                    self.slots.get_mut(i).and_then(Slot::running_mut).and_then(|r| r.stop.as_mut())
                {
                    stop.hook = state;
                }
            }
        }
        self.drive_stop(now, i, out);
    }

    fn drive_stop(&mut self, now: Time, i: usize, out: &mut Vec<PodEffect>) {
        let Some(slot) = self.slots.get_mut(i) else { return };
        let name = slot.name.clone();
        let Some(running) = slot.running_mut() else { return };
        let attempt = running.attempt;
        let Some(stop) = &mut running.stop else { return };
        let hook_over = match stop.hook {
            Hook::Done => true,
            Hook::Sleep(until) => until <= now,
            Hook::Call(_) => false,
        } || stop.kill_by <= now;
        if stop.sent && stop.resend_at.is_some_and(|at| at <= now) {
            stop.sent = false;
            stop.resend_at = None;
        }
        if stop.sent || !hook_over {
            return;
        }
        let had_hook = stop.hook != Hook::Done;
        stop.hook = Hook::Done;
        stop.sent = true;
        let rest = stop.kill_by.since(now);
        let grace = if had_hook { rest.max(GRACE_MIN) } else { rest };
        let call = self.call(Purpose::Stop(i, attempt));
        out.push(PodEffect::Call {
            call,
            op: RuntimeOp::StopContainer { container: ContainerKey { name, attempt }, grace },
        });
    }

    fn terminate(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        let Stage::Terminating { kill_by } = &mut self.stage else { return };
        let wanted = if self.pod.deletion.is_some() { now + self.pod.grace() } else { *kill_by };
        *kill_by = wanted.min(*kill_by);
        let kill_by = *kill_by;
        self.forget(|p| matches!(p, Purpose::Image(_) | Purpose::Probe(..) | Purpose::Volumes));
        if self.volumes.is_busy() {
            self.volumes.state = StepState::Idle(now);
        }
        for slot in &mut self.slots {
            if matches!(slot.run, Run::Pulling) {
                slot.run = Run::Idle;
            }
        }
        // Sidecars outlive the others and go in reverse order (KEP-753).
        let mut wait = false;
        for i in 0..self.slots.len() {
            let Some(slot) = self.slots.get(i) else { continue };
            if slot.kind != ContainerKind::Sidecar && slot.is_live() {
                wait = true;
                self.stop(now, i, kill_by, None, out);
            }
        }
        for i in (0..self.slots.len()).rev() {
            let Some(slot) = self.slots.get(i) else { continue };
            if slot.kind == ContainerKind::Sidecar && slot.is_live() {
                if !wait {
                    self.stop(
                        now,
                        i,
                        kill_by.max(now + GRACE_MIN.min(kill_by.since(self.start_time))),
                        None,
                        out,
                    );
                } else {
                    self.drive_stop(now, i, out);
                }
                wait = true;
            }
        }
        if wait || self.sandbox.is_busy() {
            return;
        }
        let remove = self.pod.deletion.is_some() || self.gone;
        self.stage = Stage::Teardown { remove, step: Step::new() };
        self.touched = true;
    }

    fn teardown(&mut self, now: Time, out: &mut Vec<PodEffect>) {
        let Stage::Teardown { remove, step } = &self.stage else { return };
        let remove = *remove;
        if step.state == StepState::Ready {
            self.touched = true;
            for slot in &mut self.slots {
                slot.unknown = false;
            }
            if remove {
                self.stage = Stage::Removed;
                out.push(PodEffect::StatusChanged);
                out.push(PodEffect::Finished);
            } else {
                self.stage = Stage::Completed;
            }
        } else if step.is_due(now) {
            let call = self.call(Purpose::Teardown);
            if let Stage::Teardown { step, .. } = &mut self.stage {
                step.state = StepState::Busy(call);
            }
            let op = if remove { RuntimeOp::RemoveSandbox } else { RuntimeOp::StopSandbox };
            out.push(PodEffect::Call { call, op });
        }
    }

    fn running_deadline(&self, slot: &Slot, at: &mut impl FnMut(Option<Time>)) {
        let Some(running) = slot.running() else { return };
        if let Some(stop) = &running.stop {
            if stop.sent {
                at(stop.resend_at);
            } else {
                at(Some(match stop.hook {
                    Hook::Sleep(until) => until.min(stop.kill_by),
                    _ => stop.kill_by,
                }));
            }
            return;
        }
        if !matches!(self.stage, Stage::Sync) {
            return;
        }
        if let Hook::Sleep(until) = running.post_start {
            at(Some(until));
        } else if running.post_start == Hook::Done && !self.sandbox_lost {
            let started = slot.is_started();
            for p in running.probes.iter().filter(|p| (p.kind() == ProbeKind::Startup) != started) {
                at(p.due());
            }
        }
    }
}

fn probers(spec: Option<&Container>, started_at: Time, now: Time) -> Vec<Prober> {
    let Some(spec) = spec else { return Vec::new() };
    [
        (ProbeKind::Startup, &spec.startup_probe),
        (ProbeKind::Liveness, &spec.liveness_probe),
        (ProbeKind::Readiness, &spec.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| {
        let mut prober = Prober::new(kind, probe.as_ref()?, started_at);
        prober.hold_until(now);
        Some(prober)
    })
    .map(|mut p| {
        if p.due().is_some_and(|due| due < now) {
            p.hold_until(now);
        }
        p
    })
    .collect()
}

/// Why a container ended, for its status.
fn exit_reason(exit: &Exit) -> &'static str {
    if exit.oom_killed {
        "OOMKilled"
    } else if exit.code == 0 {
        "Completed"
    } else {
        "Error"
    }
}

fn killed(started_at: Time, now: Time, message: &str) -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        oom_killed: false,
        started_at,
        finished_at: now,
        message: message.into(),
    }
}

/// A container that ran when it was last seen and that nobody knows any more.
fn lost(memory: &RememberedContainer, now: Time) -> Ended {
    Ended {
        attempt: memory.restart_count,
        id: memory.container_id.clone(),
        reason: "ContainerStatusUnknown".into(),
        exit: Exit {
            code: 137,
            signal: None,
            oom_killed: false,
            started_at: now,
            finished_at: now,
            message: "The container could not be located when the pod was terminated".into(),
        },
    }
}

fn complaint(result: Result<Outcome, RuntimeError>) -> String {
    match result {
        Err(error) => error.to_string(),
        Ok(_) => "the runtime's answer does not fit the call".into(),
    }
}

/// Why a hook failed, if it did.
fn hook_failure(result: Result<Outcome, RuntimeError>) -> Option<String> {
    match result {
        Ok(Outcome::Exec(output)) if output.code != 0 => {
            Some(format!("command exited with {}: {}", output.code, String::from_utf8_lossy(&output.output)))
        }
        Ok(Outcome::Probe(answer)) if !answer.success => Some(answer.message),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}
