//! A bounded log of the recent changes of one resource.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

use super::super::codec;
use crate::api::Object;
use crate::base::{Machine, Time};
use crate::client::WatchKind;
use crate::storage::{self, EventKind, Revision, WatchResponse};

/// Bounds of a [`Cacher`].
#[derive(Clone, Copy, Debug)]
pub struct CacherConfig {
    /// Most changes kept; a watcher that is further behind is cut.
    pub events_max: usize,
    /// Most bytes of objects kept.
    pub bytes_max: usize,
}

impl Default for CacherConfig {
    fn default() -> Self {
        Self { events_max: 16_384, bytes_max: 64 * 1024 * 1024 }
    }
}

/// One change of one object, encoded and decoded at most once for all watchers.
#[derive(Debug)]
pub struct Change {
    /// The revision that made it.
    pub revision: Revision,
    /// The storage key.
    pub key: Bytes,
    /// Added, modified or deleted.
    pub kind: WatchKind,
    /// The object after the change as stored; for a deletion, the last state.
    value: Bytes,
    /// The object before the change, as stored.
    prev: Option<Bytes>,
    object: OnceLock<Bytes>,
    frame: OnceLock<Bytes>,
    parsed: OnceLock<Option<Value>>,
    parsed_prev: OnceLock<Option<Value>>,
    lean: OnceLock<Option<Arc<Object>>>,
}

impl Change {
    fn new(event: storage::Event) -> Self {
        let kind = match (event.kind, event.kv.version) {
            (EventKind::Delete, _) => WatchKind::Deleted,
            (EventKind::Put, 1) => WatchKind::Added,
            (EventKind::Put, _) => WatchKind::Modified,
        };
        let prev = event.prev_kv.map(|kv| kv.value);
        let value =
            if kind == WatchKind::Deleted { prev.clone().unwrap_or_default() } else { event.kv.value };
        Self {
            revision: event.kv.mod_revision,
            key: event.kv.key,
            kind,
            value,
            prev,
            object: OnceLock::new(),
            frame: OnceLock::new(),
            parsed: OnceLock::new(),
            parsed_prev: OnceLock::new(),
            lean: OnceLock::new(),
        }
    }

    /// The object as JSON with its resourceVersion; for a deletion, the last state at the revision of the deletion.
    pub fn object(&self) -> &Bytes {
        self.object.get_or_init(|| codec::with_revision(&self.value, self.revision))
    }

    /// The line of an unfiltered JSON watch.
    pub fn frame(&self) -> &Bytes {
        self.frame.get_or_init(|| codec::watch_frame(self.kind, self.object()))
    }

    /// The object as clients read watches; `None` if it cannot be read so. The clients in this process share it.
    pub fn lean(&self) -> Option<&Arc<Object>> {
        let read = || codec::object(&self.value, self.revision, true).map(Arc::new);
        self.lean.get_or_init(read).as_ref()
    }

    /// The object before the change, as [`Change::lean`] reads one, at the revision of the change.
    #[must_use]
    pub fn lean_prev(&self) -> Option<Arc<Object>> {
        codec::object(self.prev.as_ref()?, self.revision, true).map(Arc::new)
    }

    /// The object, parsed; `None` if it is not JSON.
    pub fn parsed(&self) -> Option<&Value> {
        self.parsed.get_or_init(|| serde_json::from_slice(&self.value).ok()).as_ref()
    }

    /// The object before the change, parsed.
    pub fn parsed_prev(&self) -> Option<&Value> {
        let prev = self.prev.as_ref()?;
        self.parsed_prev.get_or_init(|| serde_json::from_slice(prev).ok()).as_ref()
    }

    /// The object before the change as JSON, at the revision of the change; how a filtered watch tells that it
    /// left the watched set.
    #[must_use]
    pub fn object_prev(&self) -> Option<Bytes> {
        self.prev.as_ref().map(|prev| codec::with_revision(prev, self.revision))
    }

    fn bytes(&self) -> usize {
        self.value.len() + self.prev.as_ref().map_or(0, Bytes::len)
    }
}

/// What happens to a [`Cacher`].
#[derive(Debug)]
pub enum Event {
    /// Somebody wants every change after this revision.
    Seek(Revision),
    /// The storage watch reported.
    Batch(WatchResponse),
    /// The storage watch ended.
    Ended,
    /// Nobody watches any more.
    Idle,
}

/// What a [`Cacher`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open the storage watch anew, from this revision on, with previous versions.
    Open(Revision),
    /// Close the storage watch.
    Close,
}

/// A watcher is behind what the log holds; it must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Lost {
    /// Where the watcher was.
    pub asked: Revision,
    /// The oldest revision from which the log is complete.
    pub oldest: Revision,
}

/// The watch cache of one resource.
///
/// Every change with a revision in `(oldest, current]` is in the log, in order. A watcher is one revision: it has
/// seen everything up to it.
///
/// ```
/// use icp_core::base::{Machine, Time};
/// use icp_core::server::cacher::{Cacher, CacherConfig, Effect, Event};
/// let (mut cacher, mut out) = (Cacher::new(CacherConfig::default()), Vec::new());
/// cacher.on(Time::ZERO, Event::Seek(7), &mut out);
/// assert_eq!(out, [Effect::Open(8)]);
/// assert!(cacher.after(7, 100).unwrap().is_empty());
/// assert!(cacher.after(6, 100).is_err());
/// ```
#[derive(Debug)]
pub struct Cacher {
    config: CacherConfig,
    log: VecDeque<Arc<Change>>,
    bytes: usize,
    open: bool,
    oldest: Revision,
    current: Revision,
}

impl Cacher {
    /// An empty cache with no storage watch.
    #[must_use]
    pub const fn new(config: CacherConfig) -> Self {
        Self { config, log: VecDeque::new(), bytes: 0, open: false, oldest: 0, current: 0 }
    }

    /// Up to which revision every change has been seen.
    #[must_use]
    pub const fn current(&self) -> Revision {
        self.current
    }

    /// Whether every change after `revision` is, or will be, in the log.
    #[must_use]
    pub const fn covers(&self, revision: Revision) -> bool {
        self.open && revision >= self.oldest
    }

    /// The changes after `revision`: at least all of the next revision's, and about `max` in number.
    ///
    /// # Errors
    /// [`Lost`] if some of them are no longer in the log.
    pub fn after(&self, revision: Revision, max: usize) -> Result<Vec<Arc<Change>>, Lost> {
        if !self.covers(revision) {
            return Err(Lost { asked: revision, oldest: self.oldest });
        }
        let start = self.log.partition_point(|c| c.revision <= revision);
        let mut changes: Vec<Arc<Change>> = Vec::new();
        for change in self.log.range(start..) {
            // One revision's changes are never split: the watcher's place is a revision.
            if changes.len() >= max && changes.last().is_some_and(|last| last.revision < change.revision) {
                break;
            }
            changes.push(change.clone());
        }
        Ok(changes)
    }

    fn clear(&mut self) {
        self.log.clear();
        self.bytes = 0;
    }

    fn trim(&mut self) {
        while self.log.len() > self.config.events_max || self.bytes > self.config.bytes_max {
            let Some(first) = self.log.front().map(|c| c.revision) else { break };
            while self.log.front().is_some_and(|c| c.revision == first) {
                if let Some(change) = self.log.pop_front() {
                    self.bytes -= change.bytes();
                }
            }
            self.oldest = first;
        }
    }
}

impl Machine for Cacher {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, _now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Seek(revision) => {
                if !self.covers(revision) {
                    // Watchers that are ahead skip what is replayed for the newcomer.
                    self.clear();
                    self.open = true;
                    self.oldest = revision;
                    self.current = revision;
                    out.push(Effect::Open(revision + 1));
                }
            }
            Event::Batch(batch) => {
                for event in batch.events {
                    let change = Change::new(event);
                    self.bytes += change.bytes();
                    self.log.push_back(Arc::new(change));
                }
                self.current = self.current.max(batch.revision);
                self.trim();
            }
            Event::Ended => {
                self.clear();
                self.open = false;
            }
            Event::Idle => {
                self.clear();
                self.open = false;
                out.push(Effect::Close);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::KeyValue;
    use proptest::prelude::*;

    fn put(revision: Revision, key: &str, version: i64) -> storage::Event {
        storage::Event {
            kind: EventKind::Put,
            kv: KeyValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::from_static(b"{}"),
                mod_revision: revision,
                version,
                ..KeyValue::default()
            },
            prev_kv: None,
        }
    }

    fn batch(revision: Revision, keys: usize) -> Event {
        let events = (0..keys).map(|k| put(revision, &alloc::format!("k{k}"), 1)).collect();
        Event::Batch(WatchResponse { revision, events })
    }

    #[test]
    fn a_late_watcher_reopens_and_others_skip_the_replay() {
        let (mut c, mut out) = (Cacher::new(CacherConfig::default()), Vec::new());
        c.on(Time::ZERO, Event::Seek(10), &mut out);
        c.on(Time::ZERO, batch(11, 1), &mut out);
        assert_eq!(c.after(10, 9).unwrap().len(), 1);
        c.on(Time::ZERO, Event::Seek(8), &mut out);
        assert_eq!(out, [Effect::Open(11), Effect::Open(9)]);
        for r in 9..=12 {
            c.on(Time::ZERO, batch(r, 1), &mut out);
        }
        assert_eq!(c.after(11, 9).unwrap().len(), 1, "the first watcher sees revision 12 alone");
        assert_eq!(c.after(8, 9).unwrap().len(), 4);
    }

    #[test]
    fn a_revision_is_never_split() {
        let (mut c, mut out) = (Cacher::new(CacherConfig { events_max: 5, bytes_max: 1 << 20 }), Vec::new());
        c.on(Time::ZERO, Event::Seek(0), &mut out);
        c.on(Time::ZERO, batch(1, 3), &mut out);
        c.on(Time::ZERO, batch(2, 1), &mut out);
        assert_eq!(c.after(0, 1).unwrap().len(), 3);
        c.on(Time::ZERO, batch(3, 2), &mut out);
        assert_eq!(c.after(0, 1).unwrap_err(), Lost { asked: 0, oldest: 1 });
        assert_eq!(c.after(1, 9).unwrap().len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever the sizes, a watcher sees each change once and in order, or is told that it is lost.
        #[test]
        fn watchers_see_everything_or_are_told(
            sizes in proptest::collection::vec(1_usize..4, 1..60),
            max in 1_usize..8,
            reads in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let (mut c, mut out) = (Cacher::new(CacherConfig { events_max: 12, bytes_max: 1 << 20 }), Vec::new());
            c.on(Time::ZERO, Event::Seek(0), &mut out);
            let (mut at, mut seen, mut lost) = (0, 0, false);
            let mut total = 0;
            for (i, size) in sizes.iter().enumerate() {
                let revision = i as Revision + 1;
                c.on(Time::ZERO, batch(revision, *size), &mut out);
                total += size;
                if reads[i] && !lost {
                    match c.after(at, max) {
                        Ok(changes) => {
                            for change in &changes {
                                prop_assert!(change.revision >= at);
                            }
                            seen += changes.len();
                            if let Some(last) = changes.last() { at = last.revision; }
                        }
                        Err(_) => lost = true,
                    }
                }
            }
            while let (false, Ok(changes)) = (lost, c.after(at, max)) {
                let Some(last) = changes.last() else { break };
                at = last.revision;
                seen += changes.len();
            }
            prop_assert!(lost || c.after(at, max).is_err() || seen == total);
        }
    }
}
