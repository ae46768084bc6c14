//! One container of a pod over all its attempts.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::{Backoff, Duration, Time};

use super::spec::{Container, RestartPolicy};
use crate::probe::{ProbeKind, Prober};
use crate::runtime::{CallId, ContainerKey, ContainerKind, Exit};

/// First and longest delay of crash loops and of image pulls (`backOffPeriod`, `MaxContainerBackOff`).
pub(crate) const BACKOFF_INITIAL: Duration = Duration::from_secs(10);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A run of this length ends a crash loop.
pub(crate) const CRASH_RESET_AFTER: Duration = Duration::from_secs(600);

/// An attempt that ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) attempt: u32,
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) exit: Exit,
}

/// Why nothing runs, and when to try again.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_at: Time,
    /// When a failed pull turns into a back-off on display.
    pub(crate) flip_at: Option<Time>,
}

#[derive(Clone, Debug)]
pub(crate) enum Run {
    Idle,
    Pulling,
    /// The call is out; an exit that overtakes its answer waits here for it.
    Starting {
        attempt: u32,
        exit: Option<Box<Exit>>,
    },
    Running(Box<Running>),
}

/// Where a lifecycle hook stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Call(CallId),
    Sleep(Time),
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) attempt: u32,
    pub(crate) id: String,
    pub(crate) started_at: Time,
    pub(crate) post_start: Hook,
    pub(crate) stop: Option<Stop>,
    pub(crate) probes: Vec<Prober>,
}

/// A container that is being stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// When it shall be killed.
    pub(crate) kill_by: Time,
    /// The preStop hook; the stop signal follows when it is done.
    pub(crate) hook: Hook,
    /// Whether the stop was sent.
    pub(crate) sent: bool,
    /// When to send it again after the runtime failed to take it.
    pub(crate) resend_at: Option<Time>,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ContainerKind,
    pub(crate) run: Run,
    pub(crate) next_attempt: u32,
    /// A start of `next_attempt` whose outcome is not known.
    pub(crate) unknown: bool,
    /// The newest attempt that ended, while no later one runs.
    pub(crate) exit: Option<Ended>,
    /// The one before.
    pub(crate) last: Option<Ended>,
    pub(crate) restart_at: Option<Time>,
    pub(crate) force_restart: bool,
    pub(crate) crash: Backoff,
    pub(crate) crash_delay: Duration,
    pub(crate) crashed: bool,
    pub(crate) pull: Backoff,
    pub(crate) wait: Option<Wait>,
    pub(crate) image_id: String,
}

impl Slot {
    pub(crate) fn new(name: &str, kind: ContainerKind) -> Self {
        Self {
            name: name.into(),
            kind,
            run: Run::Idle,
            next_attempt: 0,
            unknown: false,
            exit: None,
            last: None,
            restart_at: None,
            force_restart: false,
            crash: Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX),
            crash_delay: Duration::ZERO,
            crashed: false,
            pull: Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX),
            wait: None,
            image_id: String::new(),
        }
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.run {
            Run::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(crate) fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.run {
            Run::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Whether a process may be there.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.run, Run::Starting { .. } | Run::Running(_))
    }

    /// Whether a pull or start is under way that the next container waits for.
    pub(crate) fn is_busy(&self) -> bool {
        match &self.run {
            Run::Pulling | Run::Starting { .. } => true,
            Run::Running(r) => r.post_start != Hook::Done,
            Run::Idle => false,
        }
    }

    /// Whether it runs, its postStart hook is done and its startup probe succeeded.
    pub(crate) fn is_started(&self) -> bool {
        self.running().is_some_and(|r| {
            r.post_start == Hook::Done
                && r.probes.iter().all(|p| p.kind() != ProbeKind::Startup || p.verdict())
        })
    }

    /// Whether it counts as ready: started, and its readiness probe (if any) holds.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_started()
            && self
                .running()
                .is_some_and(|r| r.probes.iter().all(|p| p.kind() != ProbeKind::Readiness || p.verdict()))
    }

    pub(crate) fn key(&self, attempt: u32) -> ContainerKey {
        ContainerKey { name: self.name.clone(), attempt }
    }

    /// How often it was restarted, as `restartCount` tells.
    pub(crate) fn restarts(&self) -> u32 {
        match &self.run {
            Run::Running(running) => running.attempt,
            _ => self.next_attempt.saturating_sub(1),
        }
    }

    /// Whether it ever ran.
    pub(crate) const fn was_started(&self) -> bool {
        self.next_attempt > 0
    }
}

/// Whether a container that ended with `code` is started again.
pub(crate) fn restarts_after(kind: ContainerKind, spec: &Container, pod: RestartPolicy, code: i32) -> bool {
    let rule = spec.restart_policy_rules.iter().any(|rule| {
        let listed = rule.exit_codes.values.contains(&code);
        rule.action == "Restart" && listed == (rule.exit_codes.operator != "NotIn")
    });
    match kind {
        ContainerKind::Ephemeral => false,
        ContainerKind::Sidecar => true,
        ContainerKind::Init => {
            code != 0 && (rule || spec.restart_policy.unwrap_or(pod) != RestartPolicy::Never)
        }
        ContainerKind::Regular => {
            rule || match spec.restart_policy.unwrap_or(pod) {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => code != 0,
                RestartPolicy::Never => false,
            }
        }
    }
}
