//! One watch.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::storage::{
    Event, EventKind, KeyRange, KeyValue, Revision, StorageError, WatchRequest, WatchResponse,
};

use super::Polled;
use crate::mvcc::{Change, Commit, Mvcc, Version};

/// Most events of one batch; a revision is never split, so that one large transaction may exceed it.
const BATCH_EVENTS_MAX: usize = 1_000;
/// Most commits that one step of catching up looks at.
const CATCH_UP_COMMITS_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Watcher {
    request: WatchRequest,
    start: Revision,
    state: State,
    /// Changes to deliver: the commit and the place in it.
    queue: VecDeque<(Arc<Commit>, u32)>,
    pub(super) progress_wanted: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Reads the shared history; this revision is next.
    CatchingUp(Revision),
    /// Stands in the index and is offered each new commit.
    Live,
    /// Fell behind; what is queued is still delivered.
    Cut,
}

pub(super) enum Offered {
    /// Not for this watch.
    Ignored,
    /// Queued behind others.
    Queued,
    /// Queued first: the watch has become ready.
    First,
    /// Too much is queued; the watch is cut.
    Cut,
}

impl Watcher {
    pub(super) fn new(request: WatchRequest, start: Revision, visible: Revision) -> Self {
        let state = if start > visible { State::Live } else { State::CatchingUp(start) };
        Self { request, start, state, queue: VecDeque::new(), progress_wanted: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    pub(super) fn range(&self) -> &KeyRange {
        &self.request.range
    }

    pub(super) fn progress_notify(&self) -> bool {
        self.request.progress_notify
    }

    fn wants(&self, change: &Change) -> bool {
        !(if change.is_delete() { self.request.no_delete } else { self.request.no_put })
    }

    /// Takes one change of a new commit whose key lies in the range.
    pub(super) fn offer(&mut self, commit: &Arc<Commit>, at: usize, lag_max: usize) -> Offered {
        let Some(change) = commit.changes.get(at) else { return Offered::Ignored };
        if self.state != State::Live || commit.revision < self.start || !self.wants(change) {
            return Offered::Ignored;
        }
        // A revision is delivered whole or not at all: a cut takes back what was queued of this one.
        if self.queue.len() >= lag_max
            && self.queue.front().is_some_and(|(c, _)| c.revision != commit.revision)
        {
            while self.queue.back().is_some_and(|(c, _)| c.revision == commit.revision) {
                self.queue.pop_back();
            }
            self.state = State::Cut;
            return Offered::Cut;
        }
        self.queue.push_back((commit.clone(), at as u32));
        if self.queue.len() == 1 { Offered::First } else { Offered::Queued }
    }

    pub(super) fn poll(&mut self, kv: &Mvcc, visible: Revision, lag_max: usize) -> Polled {
        if let State::CatchingUp(next) = self.state {
            if next < kv.compacted() {
                return Polled::Ended(Some(StorageError::Compacted { compacted: kv.compacted() }));
            }
            return self.catch_up(next, kv, visible);
        }
        if !self.queue.is_empty() {
            return Polled::Batch(self.drain(visible));
        }
        if self.state == State::Cut {
            return Polled::Ended(Some(StorageError::SlowWatcher { lag_max }));
        }
        // A watch that waits for a later revision has nothing to be complete up to.
        if self.progress_wanted && self.start <= visible + 1 {
            self.progress_wanted = false;
            return Polled::Batch(WatchResponse { revision: visible, events: Vec::new() });
        }
        Polled::Pending
    }

    fn catch_up(&mut self, mut next: Revision, kv: &Mvcc, visible: Revision) -> Polled {
        let mut events = Vec::new();
        let mut looked_at = 0;
        while next <= visible && events.len() < BATCH_EVENTS_MAX && looked_at < CATCH_UP_COMMITS_MAX {
            if let Some(commit) = kv.commit(next) {
                let of_range = commit.changes.iter().filter(|c| self.request.range.contains(&c.kv.key));
                events.extend(
                    of_range.filter(|c| self.wants(c)).map(|c| event(commit, c, self.request.prev_kv)),
                );
            }
            next += 1;
            looked_at += 1;
        }
        self.state = if next > visible { State::Live } else { State::CatchingUp(next) };
        if events.is_empty() && self.state == State::Live {
            return match core::mem::take(&mut self.progress_wanted) {
                true => Polled::Batch(WatchResponse { revision: visible, events }),
                false => Polled::Pending,
            };
        }
        Polled::Batch(WatchResponse { revision: next - 1, events })
    }

    fn drain(&mut self, visible: Revision) -> WatchResponse {
        let mut events = Vec::new();
        let mut revision = 0;
        while let Some((commit, at)) = self.queue.front() {
            if events.len() >= BATCH_EVENTS_MAX && commit.revision != revision {
                break;
            }
            revision = commit.revision;
            if let Some(change) = commit.changes.get(*at as usize) {
                events.push(event(commit, change, self.request.prev_kv));
            }
            self.queue.pop_front();
        }
        if self.queue.is_empty() && self.state == State::Live {
            revision = visible;
            // The queue of a watch that once was busy must not hold its memory for good.
            self.queue.shrink_to(16);
        }
        WatchResponse { revision, events }
    }
}

fn event(commit: &Commit, change: &Change, prev_kv: bool) -> Event {
    let before = change.prev.as_deref().filter(|_| prev_kv);
    Event {
        kind: if change.is_delete() { EventKind::Delete } else { EventKind::Put },
        kv: KeyValue::clone(&change.kv),
        prev_kv: before.and_then(|v| before_commit(commit, v)).map(|v| v.kv.clone()),
    }
}

/// The version of a key before a commit. It is not `prev` itself if the commit puts the key and then deletes it.
fn before_commit<'a>(commit: &'a Commit, prev: &'a Version) -> Option<&'a Version> {
    if prev.mod_revision < commit.revision {
        return Some(prev);
    }
    commit.changes.iter().find(|c| c.kv.key == prev.key)?.prev.as_deref()
}
