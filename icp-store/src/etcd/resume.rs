//! Where a watch stands, so that it goes on over another connection without a gap and without a repeat.

use alloc::vec::Vec;

use icp_core::storage::{Event, Revision, StorageError, WatchRequest, WatchResponse};

#[derive(Debug)]
pub(super) struct Resume {
    /// The first revision that was not delivered yet; 0 if the server chooses it.
    next: Revision,
    /// Events of a response that the server sent in parts.
    partial: Vec<Event>,
    progress_notify: bool,
}

impl Resume {
    pub(super) fn new(request: &WatchRequest) -> Self {
        let next = request.start_revision.max(0);
        Self { next, partial: Vec::new(), progress_notify: request.progress_notify }
    }

    /// The start revision for the next connection.
    pub(super) fn start_revision(&self) -> Revision {
        self.next
    }

    /// The server has the watch, and its revision was `revision` then.
    pub(super) fn created(&mut self, revision: Revision) {
        self.partial.clear();
        if self.next == 0 {
            self.next = revision + 1;
        }
    }

    /// What is delivered of a response with `revision` in its header; `more` if other parts of it follow.
    pub(super) fn take(
        &mut self,
        revision: Revision,
        events: impl IntoIterator<Item = Event>,
        more: bool,
    ) -> Option<WatchResponse> {
        self.partial.extend(events);
        if more || (self.partial.is_empty() && revision < self.next - 1) {
            return None;
        }
        let next = self.next;
        let mut events = core::mem::take(&mut self.partial);
        events.retain(|e| e.kv.mod_revision >= next);
        // The header of events has the server's revision, which may be ahead of what is still to be sent.
        let delivered = events.last().map_or(revision, |e| e.kv.mod_revision);
        if events.is_empty() && !self.progress_notify {
            return None;
        }
        self.next = self.next.max(delivered + 1);
        Some(WatchResponse { revision: delivered, events })
    }
}

/// The error of a watch that the server ended.
pub(super) fn cancelled(compact_revision: Revision, reason: &str) -> StorageError {
    match compact_revision {
        0 => StorageError::Unavailable { detail: reason.into() },
        compacted => StorageError::Compacted { compacted },
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use icp_core::storage::{EventKind, KeyRange, KeyValue};

    use super::*;

    fn event(mod_revision: Revision) -> Event {
        let kv = KeyValue { mod_revision, ..KeyValue::default() };
        Event { kind: EventKind::Put, kv, prev_kv: None }
    }

    #[test]
    fn a_watch_goes_on_after_what_was_delivered() {
        let mut watch = Resume::new(&WatchRequest::new(KeyRange::key("k"), 0));
        watch.created(7);
        assert_eq!(watch.start_revision(), 8);
        // The header is ahead of the events: what it promises is not delivered yet.
        let batch = watch.take(20, [event(8), event(9)], false).unwrap();
        assert_eq!((batch.revision, batch.events.len(), watch.start_revision()), (9, 2, 10));
        // The next server is ahead; that changes nothing.
        watch.created(20);
        assert_eq!(watch.start_revision(), 10);
        let batch = watch.take(20, [event(9), event(10)], false).unwrap();
        assert_eq!(batch.events, [event(10)]);
    }

    #[test]
    fn parts_are_put_together_and_forgotten_with_their_connection() {
        let mut watch = Resume::new(&WatchRequest::new(KeyRange::key("k"), 3));
        watch.created(9);
        assert_eq!(watch.take(9, [event(3)], true), None);
        assert_eq!(watch.take(9, [event(3)], false).unwrap().events, vec![event(3); 2]);
        assert_eq!(watch.take(9, [event(4)], true), None);
        watch.created(9);
        assert_eq!(watch.take(9, [event(4)], false).unwrap().events, [event(4)]);
    }

    #[test]
    fn progress_is_told_to_whom_it_was_promised_and_never_goes_back() {
        let quiet = WatchRequest::new(KeyRange::key("k"), 5);
        let mut watch = Resume::new(&quiet);
        watch.created(9);
        assert_eq!(watch.take(9, [], false), None);
        assert_eq!(watch.start_revision(), 5);
        let mut watch = Resume::new(&WatchRequest { progress_notify: true, ..quiet });
        watch.created(9);
        assert_eq!(watch.take(9, [], false), Some(WatchResponse { revision: 9, events: vec![] }));
        assert_eq!((watch.start_revision(), watch.take(8, [], false)), (10, None));
    }
}
