//! The log in a directory.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Read};

use super::frame::{
    ALIGN, FILE_BYTES_MAX, FRAME_HEADER_BYTES, HEADER_BYTES, Header, LOG_MAGIC, PAYLOAD_BYTES_MAX, frame,
};
use super::recover::{Recovered, Tail, recover};
use super::snapshot::{write_snapshot, written_for};
use super::{File, Files, Log, LogError, SnapshotEntries, SnapshotJob};
use crate::store::Entry;

pub(super) const SPARE: &str = "spare.log";
pub(super) const SNAPSHOT_TMP: &str = "snapshot.tmp";
/// Most files that are removed between two batches.
const REMOVED_AT_ONCE_MAX: usize = 2;

/// Settings of a [`DiskLog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a segment; one more is always reserved. What is appended between two calls of [`Log::reserve`] must not
    /// exceed it.
    pub segment_bytes: u64,
    /// Bytes of entries that share a frame of a snapshot.
    pub snapshot_frame_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, snapshot_frame_bytes: 1 << 20 }
    }
}

/// A log in a directory; see the [module](super) for its format and rules.
#[derive(Debug)]
pub struct DiskLog<F: Files> {
    files: F,
    options: LogOptions,
    /// All segments by their first sequence number, with the bytes used; the last one is written to.
    segments: BTreeMap<u64, u64>,
    current: Segment<F::File>,
    /// Reserved for the next segment, and open: at the change no descriptor and no space is needed.
    spare: Option<F::File>,
    /// Whether a frame was written that is not synced.
    unsynced: bool,
    last_seq: u64,
    snapshot: Option<(u64, u64)>,
    /// Files that the snapshot has replaced. They are removed a few at a time, for removing many large files takes longer
    /// than a writer should wait.
    superfluous: VecDeque<String>,
    poisoned: Option<String>,
    /// Ends the writers of snapshots.
    closed: Arc<AtomicBool>,
}

/// The segment that is written to.
#[derive(Debug)]
struct Segment<F> {
    file: F,
    salt: u32,
    /// Where the next frame goes.
    offset: u64,
    /// How far it reaches.
    capacity: u64,
}

impl<F: Files> DiskLog<F> {
    /// Opens the log of a directory, or begins one, and hands all entries that it holds to `replay`: those of the
    /// snapshot, then those after it. Nothing is changed on the disk before all was read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Version`], [`LogError::Io`], [`LogError::NoSpace`], and what `replay` says.
    pub fn open(
        files: F,
        options: LogOptions,
        replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        let segment_bytes = options
            .segment_bytes
            .clamp(4 * HEADER_BYTES as u64, FILE_BYTES_MAX)
            .next_multiple_of(ALIGN as u64);
        let options = LogOptions { segment_bytes, ..options };
        let Recovered { mut segments, last_seq, snapshot, tail, leftovers } = recover(&files, replay)?;
        // An opener that was killed may not have made its last names durable: that of the segment that is written to from
        // now on, and that of the snapshot whose predecessors are removed.
        files.sync_directory().map_err(|e| LogError::io("sync", &files.shown(""), &e))?;
        for name in &leftovers {
            files.remove(name).map_err(|e| LogError::io("remove", &files.shown(name), &e))?;
        }
        let (current, spare) = match tail {
            Some(tail) => (repair(&files, tail)?, reuse_spare(&files, segment_bytes)),
            None => {
                let spare = make_spare(&files, segment_bytes)?;
                segments.insert(1, HEADER_BYTES as u64);
                (begin(&files, spare, 1, segment_bytes)?, None)
            }
        };
        let mut log = Self {
            files,
            options,
            segments,
            current,
            spare,
            unsynced: false,
            last_seq,
            snapshot,
            superfluous: VecDeque::new(),
            poisoned: None,
            closed: Arc::default(),
        };
        match log.reserve() {
            Ok(()) | Err(LogError::NoSpace { .. }) => Ok(log),
            Err(e) => Err(e),
        }
    }

    fn check(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(detail) => Err(LogError::Poisoned { detail: detail.clone() }),
            None => Ok(()),
        }
    }

    fn poison<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(e) = &result {
            self.poisoned.get_or_insert_with(|| e.to_string());
        }
        result
    }

    fn current_name(&self) -> String {
        let seq = self.segments.keys().next_back().copied().unwrap_or_default();
        self.files.shown(&segment_name(seq))
    }

    fn remove_superfluous(&mut self, files_max: usize) -> Result<(), LogError> {
        for _ in 0..files_max {
            let Some(name) = self.superfluous.pop_front() else { break };
            // One that stays is removed by the next opener.
            self.files.remove(&name).map_err(|e| LogError::io("remove", &self.files.shown(&name), &e))?;
        }
        Ok(())
    }

    /// Writes a frame of `entries` behind the last one.
    fn write(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        if self.unsynced {
            // A frame that stands behind another says that the other was synced.
            self.sync()?;
        }
        let frame_of = |salt| {
            frame(salt, self.last_seq + 1, entries, PAYLOAD_BYTES_MAX)
                .map_err(|bytes| LogError::TooLarge { bytes, bytes_max: PAYLOAD_BYTES_MAX })
        };
        let mut bytes = frame_of(self.current.salt);
        if let Ok(fitting) = &bytes
            && self.current.offset + fitting.len() as u64 > self.current.capacity
        {
            let capacity = self.options.segment_bytes.max((HEADER_BYTES + fitting.len()) as u64);
            let spare = match self.spare.take() {
                Some(spare) if capacity == self.options.segment_bytes => spare,
                // Nothing was written yet: a full disk leaves the log as it was.
                _ => make_spare(&self.files, capacity)?,
            };
            let begun = begin(&self.files, spare, self.last_seq + 1, capacity);
            self.current = self.poison(begun)?;
            self.segments.insert(self.last_seq + 1, self.current.offset);
            bytes = frame(self.current.salt, self.last_seq + 1, entries, PAYLOAD_BYTES_MAX)
                .map_err(|bytes| LogError::TooLarge { bytes, bytes_max: PAYLOAD_BYTES_MAX });
        }
        let bytes = self.poison(bytes)?;
        self.unsynced = true;
        let written = self.current.file.write_at(self.current.offset, &bytes);
        let written = written.map_err(|e| LogError::io("write", &self.current_name(), &e));
        self.poison(written)?;
        self.current.offset += bytes.len() as u64;
        if let Some(used) = self.segments.values_mut().next_back() {
            *used = self.current.offset;
        }
        Ok(())
    }
}

impl<F: Files> Log for DiskLog<F> {
    fn append(&mut self, entries: &[Entry]) -> Result<u64, LogError> {
        self.check()?;
        if !entries.is_empty() {
            self.write(entries)?;
            self.last_seq += entries.len() as u64;
        }
        Ok(self.last_seq)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        let synced = self.current.file.sync().map_err(|e| LogError::io("sync", &self.current_name(), &e));
        self.poison(synced)?;
        self.unsynced = false;
        Ok(())
    }

    fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn reserve(&mut self) -> Result<(), LogError> {
        self.check()?;
        self.remove_superfluous(REMOVED_AT_ONCE_MAX)?;
        if self.spare.is_none() {
            self.spare = Some(make_spare(&self.files, self.options.segment_bytes)?);
        }
        Ok(())
    }

    fn reserved_bytes(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |_| self.options.segment_bytes - HEADER_BYTES as u64);
        // A frame is never divided, and the end of a segment may stay unused.
        spare.max(self.current.capacity.saturating_sub(self.current.offset))
    }

    fn install_snapshot(&mut self, seq: u64) -> Result<(), LogError> {
        self.check()?;
        let name = snapshot_name(seq);
        let files = self.files.clone();
        let io = |operation: &'static str, file: &str, e: &io::Error| {
            LogError::io(operation, &files.shown(file), e)
        };
        let refused = |detail: &str| {
            let (file, detail) = (files.shown(SNAPSHOT_TMP), format!("{detail}; the one in force stays"));
            Err(LogError::Io { operation: "put into force", file, detail })
        };
        if seq > self.last_seq || self.unsynced {
            return refused("it covers entries that are not durable yet");
        }
        if self.snapshot.is_some_and(|(newest, _)| seq < newest) {
            return refused("a newer one is in force");
        }
        if written_for(&self.files).map_err(|e| io("read", SNAPSHOT_TMP, &e))? != Some(seq) {
            return refused("it was written for other entries");
        }
        self.files.rename(SNAPSHOT_TMP, &name).map_err(|e| io("rename", SNAPSHOT_TMP, &e))?;
        self.files.sync_directory().map_err(|e| io("sync", "", &e))?;
        let bytes = self.files.len(&name).map_err(|e| io("stat", &name, &e))?;
        if let Some((old, _)) = self.snapshot.replace((seq, bytes))
            && old != seq
        {
            self.superfluous.push_back(snapshot_name(old));
        }
        while let Some(first) = self.segments.keys().next().copied()
            && self.segments.keys().nth(1).is_some_and(|second| *second <= seq.saturating_add(1))
        {
            self.superfluous.push_back(segment_name(first));
            self.segments.remove(&first);
        }
        Ok(())
    }

    fn snapshot_writer_of(&self, seq: u64, entries: SnapshotEntries) -> SnapshotJob {
        let (files, closed) = (self.files.clone(), self.closed.clone());
        let frame_bytes = self.options.snapshot_frame_bytes;
        Box::new(move || write_snapshot(&files, seq, &entries(), frame_bytes, &closed))
    }

    fn log_bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    fn snapshot_bytes(&self) -> u64 {
        self.snapshot.map_or(0, |(_, bytes)| bytes)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.closed.store(true, Ordering::Relaxed);
        self.check()?;
        self.write(&[])?;
        self.sync()?;
        self.remove_superfluous(usize::MAX)
    }
}

impl<F: Files> Drop for DiskLog<F> {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

fn seq_of(name: &str, suffix: &str) -> Option<u64> {
    let seq = u64::from_str_radix(name.strip_suffix(suffix)?, 16).ok()?;
    // Entries are counted from 1, and one number has one name: others are not of a log.
    (seq > 0 && name == format!("{seq:016x}{suffix}")).then_some(seq)
}

pub(super) fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:016x}.log")
}

pub(super) fn segment_seq(name: &str) -> Option<u64> {
    seq_of(name, ".log")
}

pub(super) fn snapshot_name(seq: u64) -> String {
    format!("{seq:016x}.snap")
}

pub(super) fn snapshot_seq(name: &str) -> Option<u64> {
    seq_of(name, ".snap")
}

/// Whether a file belongs to a log.
pub(super) fn is_of_store(name: &str) -> bool {
    name == SPARE || name == SNAPSHOT_TMP || segment_seq(name).or_else(|| snapshot_seq(name)).is_some()
}

fn make_spare<F: Files>(files: &F, bytes: u64) -> Result<F::File, LogError> {
    let bytes = bytes.next_multiple_of(ALIGN as u64);
    let go = || {
        let mut file = files.create(SPARE, bytes)?;
        file.sync()?;
        Ok(file)
    };
    go().map_err(|e| LogError::io("reserve space for", &files.shown(SPARE), &e))
}

/// The spare file that was left by the last opener, if it is whole and unwritten: on a full disk no other can be had.
fn reuse_spare<F: Files>(files: &F, bytes: u64) -> Option<F::File> {
    if files.len(SPARE).ok()? != bytes {
        return None;
    }
    let mut reader = files.read(SPARE).ok()?;
    let mut buffer = alloc::vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => break,
            n if buffer.get(..n)?.iter().any(|b| *b != 0) => return None,
            _ => {}
        }
    }
    let mut file = files.open(SPARE).ok()?;
    file.sync().ok()?;
    Some(file)
}

/// Makes the spare file the segment that begins with `first_seq`. Its header is durable before its name is.
fn begin<F: Files>(
    files: &F,
    mut file: F::File,
    first_seq: u64,
    capacity: u64,
) -> Result<Segment<F::File>, LogError> {
    let name = segment_name(first_seq);
    let go = || {
        let capacity = capacity.next_multiple_of(ALIGN as u64);
        let header = Header { salt: files.salt()?, seq: first_seq, file_bytes: capacity };
        file.write_at(0, &header.encode(LOG_MAGIC))?;
        file.sync()?;
        files.rename(SPARE, &name)?;
        files.sync_directory()?;
        Ok(Segment { file, salt: header.salt, offset: HEADER_BYTES as u64, capacity })
    };
    go().map_err(|e| LogError::io("begin segment", &files.shown(&name), &e))
}

/// Makes the end of the log one that can be written behind.
fn repair<F: Files>(files: &F, tail: Tail) -> Result<Segment<F::File>, LogError> {
    let Tail { name, salt, offset, capacity, torn_to, frame } = tail;
    let fail = |operation, e| LogError::io(operation, &files.shown(&name), &e);
    let mut file = files.open(&name).map_err(|e| fail("open", e))?;
    if let Some((at, frame)) = frame {
        // If its sync failed, it was read from memory: the system took the pages for clean and forgot to write them.
        // Written again it is dirty again, before anything stands behind it.
        file.write_at(at, &frame).and_then(|()| file.sync()).map_err(|e| fail("write the tail of", e))?;
    }
    let zeros = alloc::vec![0; 1 << 16];
    let mut at = offset;
    // Zeros instead of what was torn, so that it can never be read as a frame behind a later one.
    while at < torn_to {
        let some = usize::try_from(torn_to - at).map_or(zeros.len(), |n| n.min(zeros.len()));
        file.write_at(at, zeros.get(..some).unwrap_or_default()).map_err(|e| fail("cut the tail of", e))?;
        at += some as u64;
    }
    if offset < torn_to {
        file.sync().map_err(|e| fail("cut the tail of", e))?;
    }
    Ok(Segment { file, salt, offset, capacity })
}

/// About how many bytes an entry takes, for grouping; never fewer than it takes in a frame of its own.
pub(crate) fn approximate_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Commit(c) => {
            2 * FRAME_HEADER_BYTES
                + c.changes.iter().map(|c| 64 + c.kv.key.len() + c.kv.value.len()).sum::<usize>()
        }
        Entry::Base(kv) => 64 + kv.key.len() + kv.value.len(),
        _ => 64,
    }
}
