//! Linearizability in the order of revisions.
//!
//! In general a check must search for an order of the operations. etcd tells the order: a write carries its revision, and
//! a read the revision that it was evaluated at. So it is enough to see that each answer is the one that the state of its
//! revision gives, that each revision has one write, and that the order of revisions respects real time. Only writes
//! without an answer must be searched for: they are matched with the revisions that nobody else wrote.

use std::collections::BTreeMap;

use icp_core::storage::{Revision, Txn};

use super::model::wrote;
use super::{Call, Checked, Operation, Truth, Violation, violation};

/// A place in the order: twice the revision for its write, one more for what reads it.
type Place = i64;

pub fn check(truth: &Truth, operations: &[Operation]) -> Result<Checked, Violation> {
    truth.check()?;
    let mut checked = Checked::default();
    let mut places: BTreeMap<usize, Place> = BTreeMap::new();
    let mut writers: BTreeMap<Revision, usize> = BTreeMap::new();
    for (at, operation) in operations.iter().enumerate() {
        match &operation.call {
            Call::Range(request, response) => {
                let revision = if request.revision > 0 { request.revision } else { response.revision };
                let Some(state) = truth.at(revision) else {
                    return violation(
                        "read",
                        format!("at revision {revision}, which never was: {operation:?}"),
                    );
                };
                if state.range(request, response.revision) != *response {
                    return violation("read", format!("{operation:?} where the state is {state:?}"));
                }
                checked.reads += 1;
                if !request.serializable {
                    places.insert(at, 2 * response.revision + 1);
                }
            }
            Call::Txn(txn, Some(response)) => {
                let (revision, writes) = (response.revision, wrote(response));
                let before = truth.at(revision - Revision::from(writes));
                let (Some(before), Some(after)) = (before, truth.at(revision)) else {
                    return violation("durable", format!("revision {revision} is gone: {operation:?}"));
                };
                let (next, expected) = before.txn(txn);
                if expected != *response || next != *after {
                    let detail = format!("{operation:?}\nwhere it should be {expected:?}\non {before:?}");
                    return violation("transaction", detail);
                }
                if writes && let Some(other) = writers.insert(revision, at) {
                    let detail = format!("{revision}: {operation:?} and {:?}", operations.get(other));
                    return violation("one revision a write", detail);
                }
                places.insert(at, 2 * revision + Place::from(!writes));
                checked.reads += usize::from(!writes);
                checked.writes += usize::from(writes);
            }
            Call::Txn(_, None) => {}
        }
    }
    checked.unknown = unknown(truth, operations, &mut places, &writers)?;
    real_time(operations, &places)?;
    Ok(checked)
}

/// Matches the revisions that no answered write has with writes that were not answered.
fn unknown(
    truth: &Truth,
    operations: &[Operation],
    places: &mut BTreeMap<usize, Place>,
    writers: &BTreeMap<Revision, usize>,
) -> Result<usize, Violation> {
    let lost: Vec<(usize, &Txn, Place)> = operations
        .iter()
        .enumerate()
        .filter_map(|(at, o)| match &o.call {
            Call::Txn(txn, None) => Some((at, txn, newest_before(operations, places, o.invoked))),
            _ => None,
        })
        .collect();
    let unclaimed: Vec<Revision> = (2..=truth.last()).filter(|r| !writers.contains_key(r)).collect();
    let fits = |revision: Revision, (_, txn, after): &(usize, &Txn, Place)| {
        let (Some(before), Some(state)) = (truth.at(revision - 1), truth.at(revision)) else { return false };
        2 * revision > *after && before.txn(txn).0 == *state
    };
    // Augmenting paths: a revision takes a write from another one that can have a different one.
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, revision) in unclaimed.iter().enumerate() {
        let mut tried = vec![false; lost.len()];
        if !assign(at, &unclaimed, &lost, &fits, &mut tried, &mut taken) {
            return violation("one write a revision", format!("nobody wrote revision {revision}"));
        }
    }
    for (write, revision) in &taken {
        if let (Some((at, ..)), Some(revision)) = (lost.get(*write), unclaimed.get(*revision)) {
            places.insert(*at, 2 * revision);
        }
    }
    Ok(taken.len())
}

fn assign<T>(
    revision: usize,
    unclaimed: &[Revision],
    lost: &[T],
    fits: &impl Fn(Revision, &T) -> bool,
    tried: &mut [bool],
    taken: &mut BTreeMap<usize, usize>,
) -> bool {
    for (write, candidate) in lost.iter().enumerate() {
        if tried[write] || !fits(unclaimed[revision], candidate) {
            continue;
        }
        tried[write] = true;
        let free = match taken.get(&write).copied() {
            None => true,
            Some(other) => assign(other, unclaimed, lost, fits, tried, taken),
        };
        if free {
            taken.insert(write, revision);
            return true;
        }
    }
    false
}

/// The last place among what had returned when something was invoked.
fn newest_before(operations: &[Operation], places: &BTreeMap<usize, Place>, invoked: u64) -> Place {
    let returned = |at: &usize| operations.get(*at).and_then(|o| o.returned).is_some_and(|t| t < invoked);
    places.iter().filter(|(at, _)| returned(at)).map(|(_, place)| *place).max().unwrap_or(0)
}

/// What returned before something else was invoked stands before it, or beside it if both only read.
fn real_time(operations: &[Operation], places: &BTreeMap<usize, Place>) -> Result<(), Violation> {
    let mut moments = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        moments.push((operation.invoked, at, true));
        moments.extend(operation.returned.map(|returned| (returned, at, false)));
    }
    moments.sort_unstable();
    let mut newest: Option<(Place, usize)> = None;
    for (_, at, invoked) in moments {
        let Some(place) = places.get(&at).copied() else { continue };
        match newest {
            // The order of a moment is that of the invocation of one and the return of another.
            Some((before, other)) if invoked && place < before => {
                let detail = format!("{:?}\nreturned before\n{:?}", operations[other], operations[at]);
                return violation("real time", detail);
            }
            _ if !invoked && newest.is_none_or(|(before, _)| before < place) => newest = Some((place, at)),
            _ => {}
        }
    }
    Ok(())
}
