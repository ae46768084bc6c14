//! Snapshots: the whole state as entries, in one file.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Read};

use super::disk::{SNAPSHOT_TMP, approximate_bytes, snapshot_name};
use super::frame::{
    FRAME_HEADER_BYTES, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, Parsed, SNAPSHOT_MAGIC, frame, frame_bytes,
    parse,
};
use super::{File, Files, LogError, codec};
use crate::store::Entry;

/// Bytes between two syncs: what the log waits for, when its sync has to wait for that of a snapshot.
const SYNC_BYTES: u64 = 8 << 20;

/// Writes and syncs a snapshot beside the one in force. If it fails, nothing of it stays.
pub(super) fn write_snapshot<F: Files>(
    files: &F,
    seq: u64,
    entries: &[Entry],
    frame_bytes_max: usize,
    closed: &AtomicBool,
) -> Result<(), LogError> {
    let written = write(files, seq, entries, frame_bytes_max, closed);
    if written.is_err() && !closed.load(Ordering::Relaxed) {
        // On a full disk the log needs the space.
        let _ = files.remove(SNAPSHOT_TMP);
    }
    written
}

fn write<F: Files>(
    files: &F,
    seq: u64,
    entries: &[Entry],
    frame_bytes_max: usize,
    closed: &AtomicBool,
) -> Result<(), LogError> {
    let fail = |e| LogError::io("write", &files.shown(SNAPSHOT_TMP), &e);
    let salt = files.salt().map_err(fail)?;
    let mut file = files.create(SNAPSHOT_TMP, 0).map_err(fail)?;
    let (mut offset, mut synced) = (0, 0);
    let mut put = |bytes: &[u8]| {
        if closed.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is closed"));
        }
        file.write_at(offset, bytes)?;
        offset += bytes.len() as u64;
        if offset - synced > SYNC_BYTES || bytes.is_empty() {
            file.sync()?;
            synced = offset;
        }
        Ok(())
    };
    put(&Header { salt, seq, file_bytes: 0 }.encode(SNAPSHOT_MAGIC)).map_err(fail)?;
    let (mut first, mut rest) = (1, entries);
    loop {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|e| {
            bytes += approximate_bytes(e);
            bytes <= frame_bytes_max
        });
        let (some, later) = rest.split_at(fit.count().max(1).min(rest.len()));
        let framed = frame(salt, first, some, PAYLOAD_BYTES_MAX)
            .map_err(|bytes| LogError::TooLarge { bytes, bytes_max: PAYLOAD_BYTES_MAX })?;
        put(&framed).map_err(fail)?;
        first += some.len() as u64;
        rest = later;
        if some.is_empty() {
            return put(&[]).map_err(fail);
        }
    }
}

/// The last entry that the snapshot covers which was written beside the one in force.
pub(super) fn written_for<F: Files>(files: &F) -> io::Result<Option<u64>> {
    let mut header = Vec::new();
    files.read(SNAPSHOT_TMP)?.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(Header::parse(SNAPSHOT_TMP, SNAPSHOT_MAGIC, &header).ok().map(|h| h.seq))
}

/// Reads a snapshot frame by frame and returns its bytes. It must be whole: it was synced before it got its name.
pub(super) fn read_snapshot<F: Files>(
    files: &F,
    seq: u64,
    replay: &mut dyn FnMut(Entry) -> Result<(), LogError>,
) -> Result<u64, LogError> {
    let name = files.shown(&snapshot_name(seq));
    let io = |e| LogError::io("read", &name, &e);
    let mut reader = files.read(&snapshot_name(seq)).map_err(io)?;
    let mut buffer = Vec::new();
    // `take` bounds what is read, so that a damaged length costs no more memory than the file has bytes.
    let mut fill =
        |buffer: &mut Vec<u8>, bytes: usize| reader.by_ref().take(bytes as u64).read_to_end(buffer);
    fill(&mut buffer, HEADER_BYTES).map_err(io)?;
    let header = Header::parse(&name, SNAPSHOT_MAGIC, &buffer)?;
    if header.seq != seq {
        return Err(LogError::corrupt(&name, 0, "the header names another snapshot"));
    }
    let (mut offset, mut next) = (HEADER_BYTES as u64, 1);
    loop {
        let corrupt = |detail: &str| LogError::corrupt(&name, offset, detail);
        buffer.clear();
        fill(&mut buffer, FRAME_HEADER_BYTES).map_err(io)?;
        let rest = frame_bytes(&buffer).ok_or_else(|| corrupt("a frame is damaged"))? - FRAME_HEADER_BYTES;
        fill(&mut buffer, rest).map_err(io)?;
        let Parsed::Frame { first_seq, count, payload, bytes } = parse(header.salt, &buffer) else {
            return Err(corrupt("a frame is damaged"));
        };
        if first_seq != next || bytes != buffer.len() {
            return Err(corrupt("a frame is out of order"));
        }
        for entry in codec::decode(payload, count).ok_or_else(|| corrupt("a frame cannot be decoded"))? {
            replay(entry).map_err(|e| e.at(&name, offset))?;
        }
        offset += bytes as u64;
        next += u64::from(count);
        if count == 0 {
            buffer.clear();
            return match fill(&mut buffer, 1).map_err(io)? {
                0 => Ok(offset),
                _ => Err(LogError::corrupt(&name, offset, "something stands behind the end")),
            };
        }
    }
}
