//! Deciding again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use icp_core::api::{Status, reason};
use icp_core::base::{Machine as _, Time};
use icp_core::client::{ApiError, ClientEffect, ClientEvent, ObjectKey, Reply, RequestId};

use super::error::HistoryError;
use super::line::purpose;
use super::read::{Input, Reader, Step};
use crate::config::{Registry, SchedulerConfiguration};
use crate::framework::{NodeReport, Verdict};
use crate::machine::{Decision, Effect, Event, NoNode, SchedulerMachine};

/// A decision that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the history.
    pub line: u64,
    /// When it was decided.
    pub at: Time,
    /// About which pod.
    pub pod: ObjectKey,
    /// What was recorded, if anything was decided about the pod then.
    pub recorded: Option<Result<String, NoNode>>,
    /// What is decided now.
    pub now: Option<Result<String, NoNode>>,
    /// What every plugin says now of the node that was recorded, and of the one that is chosen.
    pub nodes: Vec<NodeReport>,
    /// The two nodes have the same points, and no other has more: another draw decided.
    pub tie: bool,
}

fn outcome(f: &mut fmt::Formatter<'_>, of: Option<&Result<String, NoNode>>) -> fmt::Result {
    match of {
        None => f.write_str("nothing"),
        Some(Ok(node)) => write!(f, "node {node}"),
        Some(Err(none)) => {
            write!(f, "no node ({})", none.message)?;
            if !none.victims.is_empty() {
                let names: Vec<String> = none.victims.iter().map(|v| format!("{v}")).collect();
                write!(f, ", evicting {}", names.join(", "))?;
            }
            match none.nominated.as_deref() {
                Some(node) => write!(f, ", room on {node}"),
                None => Ok(()),
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, at, pod, recorded, now, nodes, tie } = self;
        write!(f, "line {line}, {}, pod {pod}: recorded ", at.to_rfc3339_micros())?;
        outcome(f, recorded.as_ref())?;
        f.write_str("; now ")?;
        outcome(f, now.as_ref())?;
        if *tie {
            f.write_str(" (a tie)")?;
        }
        for report in nodes {
            write!(f, "\n  {}: ", report.node)?;
            match &report.verdict {
                Verdict::Rejected(rejection) => {
                    write!(f, "rejected by {}: {}", rejection.plugin, rejection.message())?;
                }
                Verdict::Feasible { total, scores } => {
                    write!(f, "{total} points")?;
                    for (plugin, points) in scores {
                        write!(f, ", {plugin} {points}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines of the history.
    pub lines: u64,
    /// Inputs.
    pub inputs: u64,
    /// Decisions that were compared.
    pub decisions: u64,
    /// Those that are equal: node, or reasons, victims and nominated node.
    pub equal: u64,
    /// Another node is chosen, with as many points.
    pub ties: u64,
    /// Another node is chosen, which has more points now.
    pub elsewhere: u64,
    /// A node is found now where none was.
    pub found: u64,
    /// No node is found now where one was.
    pub lost: u64,
    /// No node is found, but for other reasons, or others are evicted.
    pub otherwise: u64,
    /// Decided about at another time, or not at all.
    pub misplaced: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// The last line was not written completely and is left out.
    pub torn: bool,
    /// A hash (FNV-1a) of what is decided now: pods, and their nodes or victims. It is the same on every machine.
    pub hash: u64,
}

impl Report {
    /// Whether everything was decided as recorded.
    #[must_use]
    pub const fn is_equal(&self) -> bool {
        self.decisions == self.equal && self.misplaced == 0
    }
}

/// No request has this id.
const NOBODY: RequestId = 0;

/// The ids of the machine that decides now, by those that were recorded.
#[derive(Debug, Default)]
struct Ids {
    now: BTreeMap<RequestId, RequestId>,
    /// Events and conditions that were not answered yet.
    notes: VecDeque<RequestId>,
}

impl Ids {
    /// Compares what is asked now with what was asked then; gives the lists that were not asked for then.
    fn asked(&mut self, effects: &[Effect], recorded: &[(RequestId, String)]) -> Vec<RequestId> {
        let mut own: Vec<(RequestId, String)> = Vec::new();
        for effect in effects {
            match (purpose(effect), effect) {
                (Some(asked), _) => own.push(asked),
                (None, Effect::Client(ClientEffect::Request { id, .. })) => self.notes.push_back(*id),
                (None, Effect::Client(ClientEffect::CloseWatch { id })) => {
                    self.now.retain(|_, now| now != id)
                }
                _ => {}
            }
        }
        for (id, purpose) in recorded {
            if let Some(at) = own.iter().position(|(_, own)| own == purpose) {
                self.now.insert(*id, own.remove(at).0);
            }
        }
        own.into_iter().filter(|(_, purpose)| purpose.starts_with("list ")).map(|(id, _)| id).collect()
    }

    fn translated(&mut self, mut event: Event) -> Event {
        match &mut event {
            Event::Client(ClientEvent::Watch { id, .. }) => {
                *id = self.now.get(id).copied().unwrap_or(NOBODY);
            }
            Event::Client(ClientEvent::Reply { id, .. } | ClientEvent::WatchClosed { id, .. })
            | Event::Extender { id, .. }
            | Event::Bound { id, .. } => *id = self.now.remove(id).unwrap_or(NOBODY),
            _ => {}
        }
        event
    }
}

/// Lets a fresh machine decide on the inputs of a history, and compares.
pub struct Replayer {
    registry: Registry,
    reader: Reader,
    machine: Option<SchedulerMachine>,
    under: Option<SchedulerConfiguration>,
    ties: Option<u64>,
    ids: Ids,
    differences_max: usize,
    report: Report,
}

impl fmt::Debug for Replayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayer").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Replayer {
    /// A replay; `registry` knows the plugins of one's own that the history's configuration names.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            reader: Reader::new(),
            machine: None,
            under: None,
            ties: None,
            ids: Ids::default(),
            differences_max: 10,
            report: Report { hash: 0xcbf2_9ce4_8422_2325, ..Report::default() },
        }
    }

    /// Decides by the profiles of another configuration. All else stays: pauses, extenders and the order of inputs are those
    /// of the history, and what was recorded is what happened, so that each decision is about the cluster as it was then.
    #[must_use]
    pub fn under(mut self, configuration: SchedulerConfiguration) -> Self {
        self.under = Some(configuration);
        self
    }

    /// Draws ties from another seed than the one that was recorded.
    #[must_use]
    pub const fn ties_from(mut self, seed: u64) -> Self {
        self.ties = Some(seed);
        self
    }

    /// Keeps so many differences instead of ten.
    #[must_use]
    pub const fn differences_max(mut self, most: usize) -> Self {
        self.differences_max = most;
        self
    }

    /// What came of it so far.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// What came of it.
    #[must_use]
    pub fn into_report(self) -> Report {
        self.report
    }

    /// Replays a history that is in memory.
    ///
    /// # Errors
    /// As [`Replayer::line`].
    pub fn replay(mut self, history: &[u8]) -> Result<Report, HistoryError> {
        let mut lines = history.split(|b| *b == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_some() {
                self.line(line)?;
            } else {
                self.rest(line)?;
            }
        }
        Ok(self.report)
    }

    /// Replays what stands after the end of the last line: nothing, or a line that was not written completely.
    ///
    /// # Errors
    /// As [`Replayer::line`], but for a line that breaks off.
    pub fn rest(&mut self, text: &[u8]) -> Result<(), HistoryError> {
        if text.is_empty() {
            return if self.reader.begun() { Ok(()) } else { Err(HistoryError::Empty) };
        }
        match self.line(text) {
            Err(HistoryError::Json { .. }) => {
                self.report.torn = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Replays the next line.
    ///
    /// # Errors
    /// If it is damaged, or if the scheduler cannot be made.
    pub fn line(&mut self, text: &[u8]) -> Result<(), HistoryError> {
        let step = self.reader.read(text, &self.registry)?;
        self.report.lines = self.reader.lines();
        match step {
            Step::Object => {}
            Step::Begin(mut settings) => {
                if let Some(other) = self.under.take() {
                    settings.configuration = Some(other);
                }
                let ties = self.ties.unwrap_or(settings.seed);
                let machine = settings.drawing_ties_from(ties, &self.registry);
                self.machine = Some(machine.map_err(HistoryError::Configuration)?);
            }
            Step::Input { at, input, decided, asked } => self.input(at, input, decided, &asked),
        }
        Ok(())
    }

    fn input(&mut self, at: Time, input: Input, decided: Vec<Decision>, asked: &[(RequestId, String)]) {
        let Some(machine) = &mut self.machine else { return };
        self.report.inputs += 1;
        machine.follow(decided, self.report.differences.len() < self.differences_max);
        let mut out = Vec::new();
        match input {
            Input::Event(event) => machine.on(at, self.ids.translated(event), &mut out),
            Input::Wake => machine.wake(at, &mut out),
            Input::Noted => {
                let id = self.ids.notes.pop_front().unwrap_or(NOBODY);
                let result = Ok(Reply::Status(Status::default()));
                machine.on(at, ClientEvent::Reply { id, result }.into(), &mut out);
            }
        }
        // What this version follows, and the one that recorded did not, was not there for it.
        let mut answers = self.ids.asked(&out, asked);
        while let Some(id) = answers.pop() {
            let mut out = Vec::new();
            let result = Err(ApiError::Status(Status::failure(404, reason::NOT_FOUND, "not in the history")));
            machine.on(at, ClientEvent::Reply { id, result }.into(), &mut out);
            answers.extend(self.ids.asked(&out, &[]));
        }
        let (judged, missing) = machine.take_judged();
        for judged in judged {
            let Decision { pod, result } = judged.decision;
            self.report.eat(&pod, &result);
            let recorded = judged.recorded.map(|d| d.result);
            let difference = Difference {
                line: 0,
                at,
                pod,
                recorded,
                now: Some(result),
                nodes: judged.nodes,
                tie: judged.tie,
            };
            self.compare(difference);
        }
        for Decision { pod, result } in missing {
            let difference = Difference {
                line: 0,
                at,
                pod,
                recorded: Some(result),
                now: None,
                nodes: Vec::new(),
                tie: false,
            };
            self.compare(difference);
        }
    }

    fn compare(&mut self, difference: Difference) {
        let report = &mut self.report;
        match (&difference.recorded, &difference.now) {
            (Some(recorded), Some(now)) => {
                report.decisions += 1;
                match (recorded, now) {
                    (a, b) if a == b => {
                        report.equal += 1;
                        return;
                    }
                    (Ok(_), Ok(_)) if difference.tie => report.ties += 1,
                    (Ok(_), Ok(_)) => report.elsewhere += 1,
                    (Err(_), Ok(_)) => report.found += 1,
                    (Ok(_), Err(_)) => report.lost += 1,
                    (Err(_), Err(_)) => report.otherwise += 1,
                }
            }
            _ => report.misplaced += 1,
        }
        if report.differences.len() < self.differences_max {
            report.differences.push(Difference { line: report.lines, ..difference });
        }
    }
}

impl Report {
    fn eat(&mut self, pod: &ObjectKey, result: &Result<String, NoNode>) {
        let mut eat = |text: &str| {
            for byte in text.bytes().chain([0]) {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(&pod.namespace);
        eat(&pod.name);
        match result {
            Ok(node) => eat(node),
            Err(none) => none.victims.iter().for_each(|v| {
                eat(&v.namespace);
                eat(&v.name);
            }),
        }
    }
}
