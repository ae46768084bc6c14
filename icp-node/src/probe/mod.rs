//! Probes: when to ask, and what a row of answers means.

use icp_core::base::{Duration, Time};

use crate::pod::{Probe, seconds};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds the others until it succeeds once.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of services while it fails.
    Readiness,
}

impl ProbeKind {
    /// How events name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// One probe of one running container (`k8s.io/kubernetes/pkg/kubelet/prober/worker.go`).
///
/// ```
/// use icp_core::base::{Duration, Time};
/// use icp_node::pod::Probe;
/// use icp_node::probe::{Prober, ProbeKind};
/// let spec = Probe { period_seconds: Some(5), failure_threshold: Some(2), ..Probe::default() };
/// let mut p = Prober::new(ProbeKind::Liveness, &spec, Time::ZERO);
/// assert_eq!(p.due(), Some(Time::ZERO));
/// p.begin(Time::ZERO);
/// assert_eq!(p.finish(false), None, "one failure is not enough");
/// p.begin(Time::from_secs(5));
/// assert_eq!(p.finish(false), Some(false));
/// ```
#[derive(Clone, Debug)]
pub struct Prober {
    kind: ProbeKind,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    due: Time,
    in_flight: bool,
    last: Option<bool>,
    run: u32,
    verdict: bool,
}

impl Prober {
    /// A probe of a container that was started at `started_at`.
    #[must_use]
    pub fn new(kind: ProbeKind, spec: &Probe, started_at: Time) -> Self {
        Self {
            kind,
            period: seconds(spec.period_seconds.unwrap_or(10).max(1)),
            timeout: seconds(spec.timeout_seconds.unwrap_or(1).max(1)),
            success_threshold: spec.success_threshold.unwrap_or(1).max(1),
            failure_threshold: spec.failure_threshold.unwrap_or(3).max(1),
            due: started_at + seconds(spec.initial_delay_seconds),
            in_flight: false,
            last: None,
            run: 0,
            verdict: kind == ProbeKind::Liveness,
        }
    }

    /// What the probe is for.
    #[must_use]
    pub const fn kind(&self) -> ProbeKind {
        self.kind
    }

    /// How long an answer may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What the answers so far mean: liveness holds until it fails, the others fail until they hold.
    #[must_use]
    pub const fn verdict(&self) -> bool {
        self.verdict
    }

    /// When to ask next; `None` while an answer is awaited.
    #[must_use]
    pub const fn due(&self) -> Option<Time> {
        if self.in_flight { None } else { Some(self.due) }
    }

    /// Asks not before `at` (other probes were held until then).
    pub fn hold_until(&mut self, at: Time) {
        self.due = self.due.max(at);
    }

    /// A question goes out; the next one is due a period later.
    pub fn begin(&mut self, now: Time) {
        self.in_flight = true;
        self.due = now + self.period;
    }

    /// The question could not be put; it counts as none.
    pub const fn cancel(&mut self) {
        self.in_flight = false;
    }

    /// An answer came. Returns the new verdict once a threshold is reached: each time for a failed startup or
    /// liveness probe, else only if it changes.
    pub fn finish(&mut self, success: bool) -> Option<bool> {
        self.in_flight = false;
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return None;
        }
        let told = self.verdict != success || (!success && self.kind != ProbeKind::Readiness);
        self.verdict = success;
        told.then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prober(kind: ProbeKind, success: u32, failure: u32) -> Prober {
        let spec = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            initial_delay_seconds: 7,
            ..Probe::default()
        };
        Prober::new(kind, &spec, Time::from_secs(100))
    }

    #[test]
    fn waits_initial_delay_then_period() {
        let mut p = prober(ProbeKind::Readiness, 1, 3);
        assert_eq!(p.due(), Some(Time::from_secs(107)));
        p.begin(Time::from_secs(107));
        assert_eq!(p.due(), None);
        assert_eq!(p.finish(true), Some(true));
        assert_eq!(p.due(), Some(Time::from_secs(117)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The verdict is what the last full run of equal answers says.
        #[test]
        fn verdict_follows_runs(
            answers in proptest::collection::vec(any::<bool>(), 0..30),
            success in 1_u32..4,
            failure in 1_u32..4,
        ) {
            let mut p = prober(ProbeKind::Readiness, success, failure);
            let mut expected = false;
            for (i, &answer) in answers.iter().enumerate() {
                p.begin(Time::ZERO);
                let told = p.finish(answer);
                let run = answers[..=i].iter().rev().take_while(|a| **a == answer).count() as u32;
                let before = expected;
                if run >= if answer { success } else { failure } {
                    expected = answer;
                }
                prop_assert_eq!(p.verdict(), expected);
                prop_assert_eq!(told, (before != expected).then_some(expected));
            }
        }
    }
}
