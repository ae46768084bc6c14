//! Reading what is there.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::io::Read;

use super::disk::{SNAPSHOT_TMP, segment_name, segment_seq, snapshot_name, snapshot_seq};
use super::frame::{ALIGN, HEADER_BYTES, Header, LOG_MAGIC, Parsed, parse};
use super::snapshot::read_snapshot;
use super::{Files, LogError, codec};
use crate::store::Entry;

/// What a directory holds.
pub(super) struct Recovered {
    /// All segments by their first sequence number, with the bytes used.
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) last_seq: u64,
    /// The last entry that the snapshot covers, and its bytes.
    pub(super) snapshot: Option<(u64, u64)>,
    /// The end of the last segment; `None` if there is no segment.
    pub(super) tail: Option<Tail>,
    /// Files that a crash left behind: older snapshots, and segments that the snapshot covers whole.
    pub(super) leftovers: Vec<String>,
}

/// The end of the log.
pub(super) struct Tail {
    pub(super) name: String,
    pub(super) salt: u32,
    pub(super) offset: u64,
    pub(super) capacity: u64,
    /// How far something torn reaches behind it.
    pub(super) torn_to: u64,
    /// Where the last frame begins, and what it is.
    pub(super) frame: Option<(u64, Vec<u8>)>,
}

/// Reads the newest snapshot and the segments behind it; changes nothing.
pub(super) fn recover<F: Files>(
    files: &F,
    replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
) -> Result<Recovered, LogError> {
    let names = files.list().map_err(|e| LogError::io("list", &files.shown(""), &e))?;
    let mut segment_seqs: Vec<u64> = names.iter().filter_map(|n| segment_seq(n)).collect();
    let mut snapshot_seqs: Vec<u64> = names.iter().filter_map(|n| snapshot_seq(n)).collect();
    segment_seqs.sort_unstable();
    snapshot_seqs.sort_unstable();
    let missing = |name: String, detail: String| Err(LogError::corrupt(&files.shown(&name), 0, detail));

    let mut snapshot = None;
    if let Some(seq) = snapshot_seqs.pop() {
        snapshot = Some((seq, read_snapshot(files, seq, replay)?));
        if segment_seqs.is_empty() {
            return missing(snapshot_name(seq), "the log behind the snapshot is missing".into());
        }
    }
    let covered = snapshot.map_or(0, |(seq, _)| seq);
    let mut leftovers: Vec<String> = snapshot_seqs.iter().map(|s| snapshot_name(*s)).collect();
    leftovers.extend(names.iter().filter(|n| n.as_str() == SNAPSHOT_TMP).cloned());
    while let [first, second, ..] = segment_seqs[..]
        && second <= covered.saturating_add(1)
    {
        leftovers.push(segment_name(first));
        segment_seqs.remove(0);
    }
    if let Some(first) = segment_seqs.first()
        && *first > covered.saturating_add(1)
    {
        return missing(segment_name(*first), format!("the entries from {} on are missing", covered + 1));
    }
    let mut reader = Reader { files, covered, last_seq: 0, segments: BTreeMap::new() };
    let mut tail = None;
    for (at, seq) in segment_seqs.iter().enumerate() {
        tail = reader.segment(*seq, at + 1 == segment_seqs.len(), replay)?;
    }
    let (segments, last_seq) = (reader.segments, reader.last_seq);
    if last_seq < covered {
        let last = segments.keys().next_back().copied().unwrap_or_default();
        return missing(segment_name(last), format!("the entries {} to {covered} are missing", last_seq + 1));
    }
    Ok(Recovered { segments, last_seq, snapshot, tail, leftovers })
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
        let name = self.files.shown(&segment_name(seq));
        let (header, bytes) = self.read(seq, &name)?;
        let first = match self.segments.is_empty() {
            true => seq,
            false => self.last_seq.saturating_add(1),
        };
        if header.seq != seq {
            return Err(LogError::corrupt(&name, 0, "the header names another segment"));
        }
        if seq != first {
            return Err(LogError::corrupt(&name, 0, format!("entry {first} should come first")));
        }
        self.last_seq = seq - 1;
        let (mut offset, mut frame) = (HEADER_BYTES, None);
        while offset < bytes.len() {
            let rest = bytes.get(offset..).unwrap_or_default();
            let corrupt = |detail: &str| LogError::corrupt(&name, offset as u64, detail);
            match parse(header.salt, rest) {
                Parsed::Frame { first_seq, count, payload, bytes } => {
                    if Some(first_seq) != self.last_seq.checked_add(1) {
                        return Err(corrupt("a frame is out of order"));
                    }
                    let entries = codec::decode(payload, count);
                    for entry in entries.ok_or_else(|| corrupt("a frame cannot be decoded"))? {
                        self.last_seq = self.last_seq.saturating_add(1);
                        if self.last_seq > self.covered {
                            replay(entry).map_err(|e| e.at(&name, offset as u64))?;
                        }
                    }
                    frame = rest.get(..bytes).map(|f| (offset as u64, f));
                    offset += bytes;
                }
                _ if !last && rest.iter().any(|b| *b != 0) => return Err(corrupt("a frame is damaged")),
                _ if frame_behind(header.salt, rest, self.last_seq) => {
                    return Err(corrupt("a frame is damaged and valid frames stand behind it"));
                }
                _ => break,
            }
        }
        self.segments.insert(seq, offset as u64);
        if !last {
            return Ok(None);
        }
        Ok(Some(Tail {
            name: segment_name(seq),
            salt: header.salt,
            offset: offset as u64,
            capacity: bytes.len() as u64,
            torn_to: bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1),
            frame: frame.map(|(at, f)| (at, f.to_vec())),
        }))
    }

    /// Reads a whole segment, which must be as long as it was made: a frame that is cut off leaves no trace in itself.
    fn read(&self, seq: u64, name: &str) -> Result<(Header, Vec<u8>), LogError> {
        let io = |e| LogError::io("read", name, &e);
        let file = segment_name(seq);
        let mut reader = self.files.read(&file).map_err(io)?;
        let mut bytes = Vec::new();
        reader.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
        let header = Header::parse(name, LOG_MAGIC, &bytes)?;
        let found = self.files.len(&file).map_err(io)?;
        if found != header.file_bytes {
            let detail = format!("it was made {} bytes long and has {found}", header.file_bytes);
            return Err(LogError::corrupt(name, found.min(header.file_bytes), detail));
        }
        let rest = usize::try_from(found).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES);
        bytes.try_reserve_exact(rest).map_err(|e| io(std::io::Error::other(e)))?;
        reader.take(rest as u64).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != found {
            return Err(LogError::corrupt(name, bytes.len() as u64, "it ends early"));
        }
        Ok((header, bytes))
    }
}

/// Whether a valid frame that follows `last_seq` stands anywhere in `bytes`.
fn frame_behind(salt: u32, bytes: &[u8], last_seq: u64) -> bool {
    (ALIGN..bytes.len()).step_by(ALIGN).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        // The zero word comes first, so that unwritten space is passed quickly.
        rest.get(..8).is_some_and(|w| w.iter().any(|b| *b != 0))
            && matches!(parse(salt, rest), Parsed::Frame { first_seq, .. } if first_seq > last_seq)
    })
}
