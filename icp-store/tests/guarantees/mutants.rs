//! Good histories, each made bad in one way: the check that is to see it does.

use std::sync::Arc;

use icp_core::base::Rng;
use icp_core::storage::{RangeResponse, WatchResponse};
use icp_store::Memory;

use super::checker::record::{reads, run};
use super::checker::{Call, Checked, History, Operation, Truth, Violation, Watched};
use super::runtime;

/// Changes a history and says whether there was something to change.
type Mutant = fn(&mut History, &mut Rng) -> bool;

fn good(seed: u64) -> (History, Truth) {
    let (history, truth) = runtime().block_on(run(Arc::new(Memory::new()), seed, 4, 60));
    history.check(&truth).unwrap();
    (history, truth)
}

/// Picks one of those for which `of` has something.
fn pick<'a, T, R>(rng: &mut Rng, all: &'a mut [T], mut of: impl FnMut(&'a mut T) -> Option<R>) -> Option<R> {
    let first = rng.below(all.len() as u64) as usize;
    let (before, after) = all.split_at_mut(first);
    after.iter_mut().chain(before).find_map(&mut of)
}

fn pick_read<'a>(history: &'a mut History, rng: &mut Rng) -> Option<&'a mut RangeResponse> {
    pick(rng, &mut history.operations, |o| match &mut o.call {
        Call::Range(request, response) if request.revision == 0 && !response.kvs.is_empty() => Some(response),
        _ => None,
    })
}

fn pick_write<'a>(history: &'a mut History, rng: &mut Rng) -> Option<&'a mut Operation> {
    pick(rng, &mut history.operations, |o| match &o.call {
        Call::Txn(_, Some(response)) if super::checker::model::wrote(response) => Some(o),
        _ => None,
    })
}

/// The responses of a life of a watch with at least so many events in all, and in one response.
fn pick_responses<'a>(
    history: &'a mut History,
    rng: &mut Rng,
    fits: impl Fn(&[WatchResponse]) -> bool,
) -> Option<&'a mut Vec<WatchResponse>> {
    pick(rng, &mut history.watches, |w: &'a mut Watched| {
        w.attempts.iter_mut().map(|a| &mut a.responses).find(|r| fits(r))
    })
}

fn has_two_batches(responses: &[WatchResponse]) -> bool {
    responses.iter().filter(|r| !r.events.is_empty()).count() >= 2
}

const MUTANTS: &[(&str, Mutant)] = &[
    ("read", |history, rng| {
        // A value that was not there.
        pick_read(history, rng).map(|r| r.kvs[0].value = "never".into()).is_some()
    }),
    ("read", |history, rng| pick_read(history, rng).map(|r| r.kvs.pop()).is_some()),
    ("read", |history, rng| {
        // A state that never was.
        pick_read(history, rng).map(|r| r.revision += 1_000_000).is_some()
    }),
    ("real time", |history, _| {
        // A stale answer, right for its revision: what was read first is read again at the end.
        let Some(read) =
            history.operations.iter().find(|o| matches!(&o.call, Call::Range(r, _) if r.revision == 0))
        else {
            return false;
        };
        let mut stale = read.clone();
        stale.invoked = u64::MAX - 1;
        stale.returned = Some(u64::MAX);
        history.operations.push(stale);
        true
    }),
    ("transaction", |history, rng| {
        // An answer that says the comparison came out the other way.
        pick_write(history, rng)
            .map(|o| {
                let Call::Txn(_, Some(response)) = &mut o.call else { unreachable!() };
                response.succeeded = !response.succeeded;
            })
            .is_some()
    }),
    ("transaction", |history, rng| {
        // A read in a transaction that does not see the writes before it.
        pick(rng, &mut history.operations, |o| match &mut o.call {
            Call::Txn(_, Some(response)) => reads(response).and_then(|kvs| kvs.pop()),
            _ => None,
        })
        .is_some()
    }),
    ("durable", |history, rng| {
        // An acknowledged write that is nowhere.
        pick_write(history, rng)
            .map(|o| {
                let Call::Txn(_, Some(response)) = &mut o.call else { unreachable!() };
                response.revision += 1_000_000;
            })
            .is_some()
    }),
    ("one revision a write", |history, rng| {
        // Two writes with one revision.
        let Some(write) = pick_write(history, rng).map(|o| o.clone()) else { return false };
        history.operations.push(write);
        true
    }),
    ("one write a revision", |history, rng| {
        // A revision that nobody wrote: its writer was refused.
        let Some(invoked) = pick_write(history, rng).map(|o| o.invoked) else { return false };
        history.operations.retain(|o| o.invoked != invoked);
        true
    }),
    ("one write a revision", |history, rng| {
        // A write that took effect before it was made.
        pick_write(history, rng)
            .map(|o| {
                let Call::Txn(_, response) = &mut o.call else { unreachable!() };
                *response = None;
                (o.invoked, o.returned) = (u64::MAX, None);
            })
            .is_some()
    }),
    ("ordered", |history, rng| {
        let fits = |r: &[WatchResponse]| {
            r.iter().any(|r| {
                r.events.first().map(|e| e.kv.mod_revision) < r.events.last().map(|e| e.kv.mod_revision)
            })
        };
        pick_responses(history, rng, fits)
            .map(|r| {
                let batch = r.iter_mut().find(|r| {
                    r.events.first().map(|e| e.kv.mod_revision) < r.events.last().map(|e| e.kv.mod_revision)
                });
                batch.unwrap().events.reverse();
            })
            .is_some()
    }),
    ("unique", |history, rng| {
        pick_responses(history, rng, |r| r.iter().any(|r| !r.events.is_empty()))
            .map(|r| {
                let batch = r.iter_mut().find(|r| !r.events.is_empty()).unwrap();
                let event = batch.events[0].clone();
                batch.events.insert(1, event);
            })
            .is_some()
    }),
    ("atomic", |history, rng| {
        // One revision in two batches.
        let divided = |r: &WatchResponse| {
            r.events.windows(2).position(|e| e[0].kv.mod_revision == e[1].kv.mod_revision)
        };
        pick_responses(history, rng, |r| r.iter().any(|r| divided(r).is_some()))
            .map(|r| {
                let at = r.iter().position(|r| divided(r).is_some()).unwrap();
                let cut = divided(&r[at]).unwrap() + 1;
                let later = r[at].events.split_off(cut);
                let revision = r[at].revision;
                r[at].revision = later[0].kv.mod_revision;
                r.insert(at + 1, WatchResponse { revision, events: later });
            })
            .is_some()
    }),
    ("reliable", |history, rng| {
        // An event that is left out, with others after it.
        pick_responses(history, rng, has_two_batches)
            .map(|r| r.iter_mut().find(|r| !r.events.is_empty()).unwrap().events.remove(0))
            .is_some()
    }),
    ("reliable", |history, rng| {
        // A value that was never written.
        pick_responses(history, rng, |r| r.iter().any(|r| !r.events.is_empty()))
            .map(|r| {
                let batch = r.iter_mut().find(|r| !r.events.is_empty()).unwrap();
                batch.events[0].kv.value = "never".into();
            })
            .is_some()
    }),
    ("resumable", |history, rng| {
        // It goes on one revision too late.
        pick(rng, &mut history.watches, |w| {
            let at = w.attempts.iter().skip(1).position(|a| !a.responses.is_empty())? + 1;
            w.attempts[at - 1].ended = None;
            w.attempts[at].from += 1;
            Some(())
        })
        .is_some()
    }),
    ("resumable", |history, rng| {
        // It is told of what was before its start.
        pick(rng, &mut history.watches, |w| {
            let first = w.attempts.first_mut()?;
            let revision = first.responses.iter().find_map(|r| r.events.first())?.kv.mod_revision;
            w.request.start_revision = revision + 1;
            first.from = revision + 1;
            Some(())
        })
        .is_some()
    }),
    ("filter", |history, rng| {
        // A key of others.
        pick_responses(history, rng, |r| r.iter().any(|r| !r.events.is_empty()))
            .map(|r| {
                let batch = r.iter_mut().find(|r| !r.events.is_empty()).unwrap();
                batch.events[0].kv.key = "other".into();
            })
            .is_some()
    }),
    ("prev kv", |history, rng| {
        pick(rng, &mut history.watches, |w| {
            let mut events = w.attempts.iter_mut().flat_map(|a| &mut a.responses).flat_map(|r| &mut r.events);
            events.find_map(|e| e.prev_kv.as_mut()).map(|prev| prev.version += 1)
        })
        .is_some()
    }),
    ("is create", |history, rng| {
        pick(rng, &mut history.watches, |w| {
            let mut events = w.attempts.iter_mut().flat_map(|a| &mut a.responses).flat_map(|r| &mut r.events);
            let update = events.find(|e| e.kv.version > 1)?;
            update.kv.create_revision = update.kv.mod_revision;
            Some(())
        })
        .is_some()
    }),
    ("bookmarkable", |history, rng| {
        // A bookmark that runs ahead of events.
        pick_responses(history, rng, has_two_batches)
            .map(|r| {
                let last = r.iter().rposition(|r| !r.events.is_empty()).unwrap();
                let revision = r[last].events[0].kv.mod_revision;
                r.insert(last, WatchResponse { revision, events: Vec::new() });
            })
            .is_some()
    }),
    ("bookmarkable", |history, rng| {
        // A batch that says less than it holds.
        pick_responses(history, rng, |r| r.iter().any(|r| !r.events.is_empty()))
            .map(|r| r.iter_mut().find(|r| !r.events.is_empty()).unwrap().revision = 0)
            .is_some()
    }),
];

#[test]
fn every_mutant_is_seen_by_the_check_that_is_for_it() {
    let histories: Vec<(History, Truth)> = (0..3).map(good).collect();
    for (number, (guarantee, mutate)) in MUTANTS.iter().enumerate() {
        let mut seen = 0;
        for (seed, (history, truth)) in histories.iter().enumerate() {
            for draw in 0..4 {
                let mut rng = Rng::new(seed as u64 * 100 + draw);
                let mut mutant = history.clone();
                if mutate(&mut mutant, &mut rng) {
                    let result: Result<Checked, Violation> = mutant.check(truth);
                    let violation = result.expect_err(&format!("mutant {number} ({guarantee}) passes"));
                    assert_eq!(violation.guarantee, *guarantee, "mutant {number}: {violation:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 0, "mutant {number} ({guarantee}) had nothing to change");
    }
}
