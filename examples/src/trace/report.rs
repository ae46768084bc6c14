//! What is told of the runs.

use std::fmt::Write as _;

use super::Trace;
use super::fragments::Typical;
use super::policy::Policy;
use super::replay::{Outcome, Sample, fill, replay};
use super::svg::{Chart, Line, render};

const DAY: f64 = 86_400.0;

/// What is drawn of a sample.
type Part = fn(&Sample) -> f64;

/// All runs of a trace.
#[derive(Debug)]
pub struct Runs {
    nodes: usize,
    pods: usize,
    gpus: usize,
    covers: f64,
    replays: Vec<(Policy, Outcome)>,
    fills: Vec<(Policy, Outcome)>,
}

impl Runs {
    /// Runs the trace once per policy, both ways.
    #[must_use]
    pub fn of(trace: &Trace, seed: u64) -> Self {
        let typical = Typical::of(&trace.pods);
        let with = |run: &dyn Fn(Policy) -> Outcome| Policy::ALL.map(|p| (p, run(p))).into();
        Self {
            nodes: trace.nodes.len(),
            pods: trace.pods.len(),
            gpus: trace.nodes.iter().map(|n| n.gpus).sum(),
            covers: typical.covers,
            replays: with(&|p| replay(trace, p, &typical)),
            fills: with(&|p| fill(trace, p, &typical, seed)),
        }
    }

    /// The runs along the trace's own times.
    #[must_use]
    pub fn replays(&self) -> &[(Policy, Outcome)] {
        &self.replays
    }

    /// The runs that fill the cluster up.
    #[must_use]
    pub fn fills(&self) -> &[(Policy, Outcome)] {
        &self.fills
    }

    /// The tables.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "{} nodes with {} GPUs, {} pods; fragments are measured by kinds of pods that are {:.0} % of those with GPUs\n",
            self.nodes,
            self.gpus,
            self.pods,
            100.0 * self.covers
        );
        let heads = [
            (
                "\nalong the trace: pods arrive and depart at their seconds\n",
                "waited mean/max",
                &self.replays,
            ),
            (
                "\nfilled up: pods arrive and stay until they ask for 130 % of the GPUs\n",
                "GPU at 100%",
                &self.fills,
            ),
        ];
        for (filled, (head, note, runs)) in heads.into_iter().enumerate() {
            let filled = filled > 0;
            out.push_str(head);
            let _ = writeln!(
                out,
                "{:<26} {:>10} {:>7} {:>7} {:>16} {:>11} {:>11} {:>11} {:>13}",
                "policy",
                "decide/s",
                "placed",
                "never",
                note,
                "CPU mean/pk",
                "mem mean/pk",
                "GPU mean/pk",
                "fragments/end"
            );
            for (policy, o) in runs {
                let pair = |of: Part| format!("{:.1}/{:.1}%", 100.0 * o.mean(of), 100.0 * o.peak(of));
                let (count, sum, max) = o.waited;
                let note = match o.samples.iter().find(|s| filled && s.asked >= 1.0) {
                    Some(full) => format!("{:.1}%", 100.0 * full.gpu),
                    None => format!("{count}: {}/{max}s", sum / count.max(1) as u64),
                };
                let end = o.samples.last().map_or(0.0, |s| s.fragments);
                let fragments = format!("{:.1}/{:.1}%", 100.0 * o.mean(|s| s.fragments), 100.0 * end);
                let _ = writeln!(
                    out,
                    "{:<26} {:>10.0} {:>7} {:>7} {note:>16} {:>11} {:>11} {:>11} {fragments:>13}",
                    policy.name(),
                    o.rate(),
                    o.placed,
                    o.never,
                    pair(|s| s.cpu),
                    pair(|s| s.memory),
                    pair(|s| s.gpu)
                );
            }
        }
        out
    }

    /// Allocation and fragmentation over time and over load, as an SVG image.
    #[must_use]
    pub fn plot(&self) -> String {
        let line = |name: &str, o: &Outcome, unit: f64, dashed, of: Part| Line {
            name: name.into(),
            points: o.samples.iter().map(|s| (s.at / unit, of(s))).collect(),
            dashed,
        };
        let lines = |runs: &[(Policy, Outcome)], unit, of| -> Vec<Line> {
            runs.iter().map(|(p, o)| line(p.name(), o, unit, false, of)).collect()
        };
        let mut charts = Vec::new();
        if let Some((policy, o)) = self.replays.first() {
            let parts: [(&str, Part); 3] = [("CPU", |s| s.cpu), ("memory", |s| s.memory), ("GPU", |s| s.gpu)];
            charts.push(Chart {
                title: format!("Allocated along the trace, {}", policy.name()),
                x: "days".into(),
                lines: parts.map(|(name, of)| line(name, o, DAY, false, of)).into(),
            });
        }
        charts.push(Chart {
            title: "Fragments, part of the free GPUs, along the trace".into(),
            x: "days".into(),
            lines: lines(&self.replays, DAY, |s| s.fragments),
        });
        let mut gpu = lines(&self.fills, 0.01, |s| s.gpu);
        gpu.extend(self.fills.first().map(|(_, o)| line("asked for", o, 0.01, true, |s| s.asked.min(1.0))));
        let x = "GPUs asked for, % of all";
        charts.push(Chart {
            title: "GPUs allocated while the cluster is filled up".into(),
            x: x.into(),
            lines: gpu,
        });
        charts.push(Chart {
            title: "Fragments, part of the free GPUs, while the cluster is filled up".into(),
            x: x.into(),
            lines: lines(&self.fills, 0.01, |s| s.fragments),
        });
        render(&charts)
    }
}
