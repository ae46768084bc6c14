//! The guarantees of watches, by the names that etcd gives them (`etcd-io/etcd tests/robustness/validate/watch.go`).

use std::collections::BTreeSet;

use icp_core::storage::{Event, EventKind, Revision, StorageError, WatchRequest};

use super::{Truth, Violation, Watched, violation};

/// Whether a watch is to be told of an event.
pub fn wants(request: &WatchRequest, event: &Event) -> bool {
    let kind = if event.kind == EventKind::Put { !request.no_put } else { !request.no_delete };
    kind && request.range.contains(&event.kv.key)
}

/// The last revision with an event for this watch.
pub fn last_wanted(truth: &Truth, request: &WatchRequest) -> Option<Revision> {
    let from = request.start_revision;
    (from..=truth.last()).rev().find(|r| truth.events(*r).values().any(|e| wants(request, e)))
}

/// Checks one watch over all its lives; returns how many events it was told.
pub fn check(truth: &Truth, watched: &Watched) -> Result<usize, Violation> {
    let request = &watched.request;
    let mut seen: BTreeSet<(Revision, Vec<u8>)> = BTreeSet::new();
    // All events up to here were told, for a bookmark said so or a later one was told.
    let mut complete = request.start_revision - 1;
    let mut gaps = Vec::new();
    let mut ended: Option<&StorageError> = None;
    for attempt in &watched.attempts {
        match ended {
            // It was told that it has missed something.
            Some(StorageError::Compacted { compacted }) if attempt.from <= *compacted => {
                gaps.push(complete + 1..attempt.from);
            }
            _ if attempt.from > complete + 1 => {
                let detail = format!("it goes on at {} and not at {}", attempt.from, complete + 1);
                return violation("resumable", detail);
            }
            _ => {}
        }
        ended = attempt.ended.as_ref();
        let (mut newest_event, mut bookmark) = (0, attempt.from - 1);
        for response in &attempt.responses {
            let first = response.events.first().map_or(0, |e| e.kv.mod_revision);
            if first != 0 && first == newest_event {
                return violation("atomic", format!("revision {first} is divided"));
            }
            for event in &response.events {
                let revision = event.kv.mod_revision;
                if revision < attempt.from {
                    return violation("resumable", format!("{revision} before its start {}", attempt.from));
                }
                if !wants(request, event) {
                    return violation("filter", format!("{event:?} for {request:?}"));
                }
                if !seen.insert((revision, event.kv.key.to_vec())) {
                    return violation("unique", format!("{event:?} comes twice"));
                }
                if revision < newest_event {
                    return violation("ordered", format!("{revision} after {newest_event}"));
                }
                if revision <= bookmark {
                    return violation("bookmarkable", format!("{revision} after a bookmark at {bookmark}"));
                }
                newest_event = revision;
                same(truth, request, event)?;
            }
            if response.revision < newest_event {
                let detail = format!("complete up to {} after {newest_event}", response.revision);
                return violation("bookmarkable", detail);
            }
            bookmark = bookmark.max(response.revision);
        }
        complete = complete.max(newest_event).max(bookmark);
    }
    for revision in request.start_revision.max(2)..=complete.min(truth.last()) {
        if gaps.iter().any(|gap| gap.contains(&revision)) {
            continue;
        }
        for (key, event) in truth.events(revision) {
            if wants(request, &event) && !seen.contains(&(revision, key)) {
                return violation(
                    "reliable",
                    format!("{event:?} was left out, and all is told up to {complete}"),
                );
            }
        }
    }
    Ok(seen.len())
}

/// The event is what happened.
fn same(truth: &Truth, request: &WatchRequest, event: &Event) -> Result<(), Violation> {
    let Some(expected) = truth.events(event.kv.mod_revision).remove(&event.kv.key[..]) else {
        return violation("reliable", format!("{event:?} never happened"));
    };
    let is_create = |e: &Event| e.kind == EventKind::Put && e.kv.create_revision == e.kv.mod_revision;
    if is_create(event) != is_create(&expected) {
        return violation("is create", format!("{event:?} is {expected:?}"));
    }
    if (event.kind, &event.kv) != (expected.kind, &expected.kv) {
        return violation("reliable", format!("{event:?} is {expected:?}"));
    }
    // What was before may be compacted.
    let compacted = event.prev_kv.is_none() && event.kv.mod_revision <= truth.compacted;
    if event.prev_kv != expected.prev_kv.filter(|_| request.prev_kv) && !compacted {
        return violation("prev kv", format!("{event:?}"));
    }
    Ok(())
}
