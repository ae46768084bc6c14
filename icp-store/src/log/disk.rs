//! The log in a directory.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::io::Read;

use super::frame::{
    ALIGN, FRAME_HEADER_BYTES, HEADER_BYTES, LOG_MAGIC, Parsed, SNAPSHOT_MAGIC, frame, header, parse,
    parse_header,
};
use super::{File, Files, Log, LogError, SnapshotJob, codec};
use crate::store::Entry;

const SPARE: &str = "spare.log";
const SNAPSHOT_TMP: &str = "snapshot.tmp";

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
    current: F::File,
    /// Where the next frame goes in the current segment.
    offset: u64,
    /// How far the current segment reaches.
    capacity: u64,
    spare: bool,
    last_seq: u64,
    snapshot: Option<(u64, u64)>,
    poisoned: Option<String>,
}

impl<F: Files> DiskLog<F> {
    /// Opens the log of a directory, or begins one, and hands all entries that it holds to `replay`: those of the
    /// snapshot, then those after it.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Version`], [`LogError::Io`], [`LogError::NoSpace`], and what `replay` says.
    pub fn open(
        files: F,
        options: LogOptions,
        replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        let io = |file: &'static str| move |e| LogError::io("open", file, &e);
        let names = files.list().map_err(io("the directory"))?;
        let mut segment_seqs: Vec<u64> = names.iter().filter_map(|n| seq_of(n, ".log")).collect();
        let mut snapshot_seqs: Vec<u64> = names.iter().filter_map(|n| seq_of(n, ".snap")).collect();
        segment_seqs.sort_unstable();
        snapshot_seqs.sort_unstable();

        let mut snapshot = None;
        if let Some(seq) = snapshot_seqs.pop() {
            let bytes = read_snapshot(&files, seq, replay)?;
            snapshot = Some((seq, bytes));
        }
        let covered = snapshot.map_or(0, |(seq, _)| seq);
        // What a crash left behind: older snapshots, and segments that the snapshot covers whole.
        let mut leftovers: Vec<String> = snapshot_seqs.iter().map(|s| snapshot_name(*s)).collect();
        leftovers.extend(
            names.iter().filter(|n| n.as_str() == SNAPSHOT_TMP || n.as_str() == SPARE).map(String::clone),
        );
        while let [first, second, ..] = segment_seqs[..]
            && second <= covered + 1
        {
            leftovers.push(segment_name(first));
            segment_seqs.remove(0);
        }
        for name in &leftovers {
            files.remove(name).map_err(|e| LogError::io("remove", name, &e))?;
        }

        let mut reader = Reader { files: &files, covered, last_seq: 0, segments: BTreeMap::new() };
        if let Some(first) = segment_seqs.first()
            && *first > covered + 1
        {
            let name = segment_name(*first);
            return Err(LogError::corrupt(
                &name,
                0,
                format!("the entries from {} on are missing", covered + 1),
            ));
        }
        let mut tail = None;
        for (at, seq) in segment_seqs.iter().enumerate() {
            tail = reader.segment(*seq, at + 1 == segment_seqs.len(), replay)?;
        }
        let (segments, last_seq) = (reader.segments, reader.last_seq);
        if last_seq < covered && !segments.is_empty() {
            let name = segments.keys().next_back().map_or_else(String::new, |s| segment_name(*s));
            return Err(LogError::corrupt(&name, 0, format!("entries up to {covered} are missing")));
        }
        if let (None, Some((seq, _))) = (&tail, snapshot) {
            return Err(LogError::corrupt(&snapshot_name(seq), 0, "the log behind the snapshot is missing"));
        }
        match tail {
            Some(Tail { name, offset, capacity, cut, frame }) => {
                let mut current = files.open(&name).map_err(|e| LogError::io("open", &name, &e))?;
                if let Some((at, frame)) = frame {
                    // If its sync failed, it was read from memory: the system took the pages for clean and forgot to
                    // write them. Written again it is dirty again, before anything stands behind it.
                    current
                        .write_at(at, &frame)
                        .and_then(|()| current.sync())
                        .map_err(|e| LogError::io("write the tail of", &name, &e))?;
                }
                if cut {
                    // Zeros instead of what was torn, so that it can never be read as a frame behind a later one.
                    let zeros = alloc::vec![0; usize::try_from(capacity - offset).unwrap_or(0)];
                    current
                        .write_at(offset, &zeros)
                        .and_then(|()| current.sync())
                        .map_err(|e| LogError::io("cut the tail of", &name, &e))?;
                }
                let mut log = Self {
                    files,
                    options,
                    segments,
                    current,
                    offset,
                    capacity,
                    spare: false,
                    last_seq,
                    snapshot,
                    poisoned: None,
                };
                match log.reserve() {
                    Ok(()) | Err(LogError::NoSpace { .. }) => Ok(log),
                    Err(e) => Err(e),
                }
            }
            None => {
                let last_seq = 0;
                make_spare(&files, options.segment_bytes)?;
                let current = activate(&files, last_seq + 1)?;
                let mut log = Self {
                    files,
                    options,
                    segments: [(last_seq + 1, HEADER_BYTES as u64)].into(),
                    current,
                    offset: HEADER_BYTES as u64,
                    capacity: options.segment_bytes,
                    spare: false,
                    last_seq,
                    snapshot,
                    poisoned: None,
                };
                match log.reserve() {
                    Ok(()) | Err(LogError::NoSpace { .. }) => Ok(log),
                    Err(e) => Err(e),
                }
            }
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
        self.segments.keys().next_back().map_or_else(String::new, |s| segment_name(*s))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        if self.offset + bytes.len() as u64 > self.capacity {
            self.next_segment(bytes.len() as u64)?;
        }
        let offset = self.offset;
        let written = self.current.write_at(offset, bytes);
        written.map_err(|e| LogError::io("write", &self.current_name(), &e))?;
        self.offset += bytes.len() as u64;
        if let Some(used) = self.segments.values_mut().next_back() {
            *used = self.offset;
        }
        Ok(())
    }

    fn next_segment(&mut self, frame_bytes: u64) -> Result<(), LogError> {
        let capacity = self.options.segment_bytes.max(HEADER_BYTES as u64 + frame_bytes);
        if !self.spare || capacity > self.options.segment_bytes {
            make_spare(&self.files, capacity)?;
        }
        self.spare = false;
        let first_seq = self.last_seq + 1;
        self.current = activate(&self.files, first_seq)?;
        self.offset = HEADER_BYTES as u64;
        self.capacity = capacity;
        self.segments.insert(first_seq, self.offset);
        Ok(())
    }
}

impl<F: Files> Log for DiskLog<F> {
    fn append(&mut self, entries: &[Entry]) -> Result<u64, LogError> {
        self.check()?;
        if entries.is_empty() {
            return Ok(self.last_seq);
        }
        let bytes = frame(self.last_seq + 1, entries);
        let written = self.write(&bytes);
        self.poison(written)?;
        self.last_seq += entries.len() as u64;
        Ok(self.last_seq)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        let synced = self.current.sync().map_err(|e| LogError::io("sync", &self.current_name(), &e));
        self.poison(synced)
    }

    fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn reserve(&mut self) -> Result<(), LogError> {
        self.check()?;
        if !self.spare {
            make_spare(&self.files, self.options.segment_bytes)?;
            self.spare = true;
        }
        Ok(())
    }

    fn install_snapshot(&mut self, seq: u64) -> Result<(), LogError> {
        self.check()?;
        let name = snapshot_name(seq);
        let io = |operation: &'static str, file: &str, e| LogError::io(operation, file, &e);
        self.files.rename(SNAPSHOT_TMP, &name).map_err(|e| io("rename", &name, e))?;
        self.files.sync_directory().map_err(|e| io("sync", "the directory", e))?;
        let mut bytes = 0_u64;
        let mut reader = self.files.read(&name).map_err(|e| io("read", &name, e))?;
        let mut buffer = alloc::vec![0; 1 << 16];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            bytes += n as u64;
        }
        let old = self.snapshot.replace((seq, bytes));
        if let Some((old, _)) = old
            && old != seq
        {
            self.files.remove(&snapshot_name(old)).map_err(|e| io("remove", "a snapshot", e))?;
        }
        while let Some(first) = self.segments.keys().next().copied()
            && self.segments.keys().nth(1).is_some_and(|second| *second <= seq + 1)
        {
            let name = segment_name(first);
            self.files.remove(&name).map_err(|e| io("remove", &name, e))?;
            self.segments.remove(&first);
        }
        Ok(())
    }

    fn snapshot_writer(&self, seq: u64, entries: Vec<Entry>) -> SnapshotJob {
        let (files, frame_bytes_max) = (self.files.clone(), self.options.snapshot_frame_bytes);
        Box::new(move || write_snapshot(&files, seq, &entries, frame_bytes_max))
    }

    fn log_bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    fn snapshot_bytes(&self) -> u64 {
        self.snapshot.map_or(0, |(_, bytes)| bytes)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.check()?;
        let bytes = frame(self.last_seq + 1, &[]);
        let written = self.write(&bytes);
        self.poison(written)?;
        self.sync()
    }
}

fn seq_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix).filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:016x}.log")
}

fn snapshot_name(seq: u64) -> String {
    format!("{seq:016x}.snap")
}

fn make_spare<F: Files>(files: &F, bytes: u64) -> Result<(), LogError> {
    files
        .create(SPARE, bytes)
        .and_then(|mut f| f.sync())
        .map_err(|e| LogError::io("reserve space for", SPARE, &e))
}

/// Makes the spare file the segment that begins with `first_seq`. Its header is durable before its name is.
fn activate<F: Files>(files: &F, first_seq: u64) -> Result<F::File, LogError> {
    let name = segment_name(first_seq);
    let go = || {
        let mut file = files.open(SPARE)?;
        file.write_at(0, &header(LOG_MAGIC, first_seq))?;
        file.sync()?;
        files.rename(SPARE, &name)?;
        files.sync_directory()?;
        Ok(file)
    };
    go().map_err(|e| LogError::io("begin segment", &name, &e))
}

fn write_snapshot<F: Files>(
    files: &F,
    seq: u64,
    entries: &[Entry],
    frame_bytes_max: usize,
) -> Result<(), LogError> {
    let go = || {
        let mut file = files.create(SNAPSHOT_TMP, 0)?;
        let mut offset = 0;
        let mut put = |bytes: &[u8]| {
            file.write_at(offset, bytes)?;
            offset += bytes.len() as u64;
            Ok::<(), std::io::Error>(())
        };
        put(&header(SNAPSHOT_MAGIC, seq))?;
        let (mut first, mut rest) = (1, entries);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|e| {
                bytes += approximate_bytes(e);
                bytes <= frame_bytes_max
            });
            let (some, later) = rest.split_at(fit.count().clamp(1, rest.len()));
            put(&frame(first, some))?;
            first += some.len() as u64;
            rest = later;
        }
        put(&frame(first, &[]))?;
        file.sync()
    };
    go().map_err(|e| LogError::io("write", SNAPSHOT_TMP, &e))
}

/// About how many bytes an entry takes, for grouping.
pub(crate) fn approximate_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Commit(c) => c.changes.iter().map(|c| 64 + c.kv.key.len() + c.kv.value.len()).sum(),
        Entry::Base(kv) => 64 + kv.key.len() + kv.value.len(),
        _ => 64,
    }
}

/// Reads a snapshot frame by frame and returns its bytes. It must be whole: it was synced before it got its name.
fn read_snapshot<F: Files>(
    files: &F,
    seq: u64,
    replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
) -> Result<u64, LogError> {
    let name = snapshot_name(seq);
    let io = |e| LogError::io("read", &name, &e);
    let mut reader = files.read(&name).map_err(io)?;
    let mut buffer = Vec::new();
    let mut fill = |buffer: &mut Vec<u8>, bytes: usize| {
        buffer.clear();
        reader.by_ref().take(bytes as u64).read_to_end(buffer)
    };
    fill(&mut buffer, HEADER_BYTES).map_err(io)?;
    if parse_header(&name, SNAPSHOT_MAGIC, &buffer)? != seq {
        return Err(LogError::corrupt(&name, 0, "the header names another snapshot"));
    }
    let (mut offset, mut next) = (HEADER_BYTES as u64, 1);
    loop {
        let corrupt = |detail: &str| LogError::corrupt(&name, offset, detail);
        fill(&mut buffer, FRAME_HEADER_BYTES).map_err(io)?;
        let payload_bytes = buffer.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let padded = (FRAME_HEADER_BYTES + payload_bytes as usize).next_multiple_of(ALIGN);
        let mut body = Vec::new();
        fill(&mut body, padded - FRAME_HEADER_BYTES).map_err(io)?;
        buffer.append(&mut body);
        let Parsed::Frame { first_seq, count, payload, bytes } = parse(&buffer) else {
            return Err(corrupt("a frame is damaged"));
        };
        if first_seq != next || bytes != buffer.len() {
            return Err(corrupt("a frame is out of order"));
        }
        for entry in codec::decode(payload, count).ok_or_else(|| corrupt("a frame cannot be decoded"))? {
            replay(entry)?;
        }
        offset += bytes as u64;
        next += u64::from(count);
        if count == 0 {
            return Ok(offset);
        }
    }
}

/// The end of the log.
struct Tail {
    name: String,
    offset: u64,
    capacity: u64,
    /// Whether something torn stands behind it.
    cut: bool,
    /// Where the last frame begins, and what it is.
    frame: Option<(u64, Vec<u8>)>,
}

struct Reader<'a, F> {
    files: &'a F,
    covered: u64,
    last_seq: u64,
    segments: BTreeMap<u64, u64>,
}

impl<F: Files> Reader<'_, F> {
    fn segment(
        &mut self,
        seq: u64,
        last: bool,
        replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
    ) -> Result<Option<Tail>, LogError> {
        let name = segment_name(seq);
        let mut bytes = Vec::new();
        let mut reader = self.files.read(&name).map_err(|e| LogError::io("read", &name, &e))?;
        reader.read_to_end(&mut bytes).map_err(|e| LogError::io("read", &name, &e))?;
        if parse_header(&name, LOG_MAGIC, &bytes)? != seq {
            return Err(LogError::corrupt(&name, 0, "the header names another segment"));
        }
        if !self.segments.is_empty() && seq != self.last_seq + 1 {
            let detail = format!("entry {} should come first", self.last_seq + 1);
            return Err(LogError::corrupt(&name, 0, detail));
        }
        self.last_seq = seq - 1;
        let (mut offset, mut cut, mut frame) = (HEADER_BYTES, false, None);
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            let corrupt = |detail: &str| LogError::corrupt(&name, offset as u64, detail);
            match parse(rest) {
                Parsed::Frame { first_seq, count, payload, bytes } => {
                    if first_seq != self.last_seq + 1 {
                        return Err(corrupt("a frame is out of order"));
                    }
                    let entries = codec::decode(payload, count);
                    for entry in entries.ok_or_else(|| corrupt("a frame cannot be decoded"))? {
                        self.last_seq += 1;
                        if self.last_seq > self.covered {
                            replay(entry)?;
                        }
                    }
                    frame = rest.get(..bytes).map(|f| (offset as u64, f));
                    offset += bytes;
                }
                Parsed::Unwritten | Parsed::Damaged if !last && rest.iter().any(|b| *b != 0) => {
                    return Err(corrupt("a frame is damaged"));
                }
                _ if frame_behind(rest, self.last_seq) => {
                    return Err(corrupt("a frame is damaged and valid frames stand behind it"));
                }
                _ => {
                    cut = rest.iter().any(|b| *b != 0);
                    break;
                }
            }
            if offset >= bytes.len() {
                break;
            }
        }
        self.segments.insert(seq, offset as u64);
        let capacity = bytes.len() as u64;
        let frame = frame.map(|(at, f)| (at, f.to_vec()));
        Ok(last.then_some(Tail { name, offset: offset as u64, capacity, cut, frame }))
    }
}

/// Whether a valid frame that follows `last_seq` stands anywhere in `bytes`.
fn frame_behind(bytes: &[u8], last_seq: u64) -> bool {
    (ALIGN..bytes.len()).step_by(ALIGN).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        // The zero word comes first, so that unwritten space is passed quickly.
        rest.get(..8).is_some_and(|w| w.iter().any(|b| *b != 0))
            && matches!(parse(rest), Parsed::Frame { first_seq, .. } if first_seq > last_seq)
    })
}
