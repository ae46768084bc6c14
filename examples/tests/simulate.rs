//! The simulation: a handful of seeds hold, are the same twice, and every broken shell is found.

use std::time::Duration;

use examples::simulate::replay::{Query, Saved};
use examples::simulate::{Mutant, Options, Totals, run, scheduling};

fn options(seconds: u64) -> Options {
    Options { masters: 3, nodes: 4, time: Duration::from_secs(seconds), mutant: None, keep_trace: false }
}

#[test]
fn a_handful_of_seeds_holds() {
    let mut totals = Totals::default();
    for seed in 1..=2 {
        let outcome = run(seed, &options(300));
        totals.add(&outcome);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.converged_after.is_some(), "seed {seed}");
        assert!(outcome.checks.total() > 1_000, "{:?}", outcome.checks);
    }
    for check in [scheduling::LOST, scheduling::SPLIT, scheduling::STARVED, "preemption"] {
        assert!(totals.checks.iter().any(|(made, _)| made == check), "{check}: {:?}", totals.checks);
    }
}

#[test]
fn the_same_seed_is_the_same_and_its_trace_can_be_replayed() {
    let outcome = run(7, &Options { keep_trace: true, ..options(200) });
    assert_eq!(outcome.hash, run(7, &options(200)).hash);
    assert_ne!(outcome.hash, run(8, &options(200)).hash);
    let saved = Saved::parse(outcome.trace.unwrap()).unwrap();
    assert_eq!(saved.steps() as u64, outcome.lines);
    let healed = saved.find(&Query { grep: Some("everything is healed".into()), ..Query::default() });
    assert_eq!(healed.len(), 1);
    let before = saved.find(&Query { until: Some(99.0), ..Query::default() });
    assert!(before.last().unwrap() < &healed[0], "the healing is at 100 s");
    assert!(saved.state().any(|line| line.starts_with("= node n3 ")));
}

/// Seeds that one mutant may need.
const SEEDS_MAX: u64 = 24;

#[test]
fn every_broken_shell_is_found_by_its_check() {
    let find = |mutant: Mutant| {
        (1..=SEEDS_MAX).find_map(|seed| {
            let outcome = run(seed, &Options { mutant: Some(mutant), ..options(240) });
            outcome.violation.map(|(_, violation)| (seed, violation))
        })
    };
    // Without optimization, those that one short seed finds, of each kind of rule.
    let quick = [
        Mutant::Rebind,
        Mutant::LosePod,
        Mutant::DropEvent,
        Mutant::RepeatEvent,
        Mutant::BookmarkAhead,
        Mutant::OldDisk,
        Mutant::StaleRead,
        Mutant::SamePodRange,
        Mutant::SlowClock,
        Mutant::SameUid,
        Mutant::Undelete,
        Mutant::FlipSelector,
        Mutant::Generation,
    ];
    let all = if cfg!(debug_assertions) { &quick[..] } else { &Mutant::ALL[..] };
    for mutant in all.iter().copied() {
        let (seed, violation) = find(mutant).unwrap_or_else(|| panic!("nothing finds {}", mutant.name()));
        assert!(
            mutant.caught_by().contains(&violation.check),
            "{} at seed {seed} is found by {:?}: {}",
            mutant.name(),
            violation.check,
            violation.detail
        );
    }
}
