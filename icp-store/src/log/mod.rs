//! The durable log: what makes an acknowledged write survive.
//!
//! # Format
//! A directory holds *segments* (`<first sequence number>.log`), at most one current *snapshot* (`<last sequence
//! number>.snap`), a `spare.log` that reserves space for the next segment, and `LOCK`. Every file begins with a header
//! of 32 bytes, which has this shape in every version: magic (8), version (u32), salt (u32), sequence number (u64), length
//! of the file in units of 8 bytes (u32; 0 for a snapshot), crc32c of those 28 bytes (u32); all numbers are
//! little-endian. Then follow *frames*, each aligned to 8 bytes: payload length (u32), crc32c of all other bytes of the
//! frame, begun with the salt (u32), sequence number of the first entry (u64), number of entries (u32), one (u32), payload.
//! A frame is what one sync makes durable. A frame of no entries closes a snapshot, and a log that was closed orderly.
//! The salt is random: a value that looks like frames is never taken for some.
//!
//! # Rules
//! * Frame *n + 1* is written only after frame *n* is synced. So in the last segment a damaged frame with no valid frame
//!   behind it was never acknowledged (or the log was not closed): it is a *torn tail* and is cut. Damage anywhere else
//!   is [`LogError::Corrupt`] and nothing is served.
//! * Space for a segment is reserved before it is needed. When the reservation fails, writes are refused before they
//!   change anything, and what is in flight still fits.
//! * After a failed write or sync the state of the disk is unknown: the log is poisoned for good.
//! * A name is durable before anything relies on it: a segment's header before its name, its name before its frames; a
//!   snapshot's bytes before its name, its name before what it replaces is removed.
//! * A segment is as long as its header says, so that a cut file is told from an unwritten one. What no checksum can tell
//!   is a whole tail that reads as zeros.
//!
//! ```
//! use icp_store::log::{DiskLog, Log, LogOptions, SimFiles};
//! use icp_store::store::Entry;
//!
//! let files = SimFiles::new(7);
//! let mut log = DiskLog::open(files.clone(), LogOptions::default(), &mut |_| Ok(()))?;
//! log.append(&[Entry::LeaseGrant { id: 1, ttl_secs: 60 }])?;
//! log.sync()?;
//! let mut seen = Vec::new();
//! DiskLog::open(files.crash(), LogOptions::default(), &mut |entry| Ok(seen.push(entry)))?;
//! assert_eq!(seen.len(), 1);
//! # Ok::<(), icp_store::log::LogError>(())
//! ```

mod codec;
mod disk;
mod error;
mod files;
mod frame;
mod memory;
mod recover;
mod snapshot;

#[cfg(test)]
mod tests;

use crate::store::Entry;

pub(crate) use disk::approximate_bytes;
pub use disk::{DiskLog, LogOptions};
pub use error::LogError;
pub use files::{File, Files, OsFiles};
pub use memory::{Fault, SimFiles};

/// Where entries are kept, in order. The entries that an existing log holds are handed out when it is opened.
pub trait Log: Send {
    /// Adds entries behind the last ones, as one frame; durable after [`Log::sync`]. Returns the sequence number of the
    /// last one.
    ///
    /// # Errors
    /// After [`LogError::NoSpace`] the log is as it was, and the same entries can be appended later, unless the device
    /// filled up within what was reserved. Any other error poisons the log: it is unknown what stands on the disk.
    fn append(&mut self, entries: &[Entry]) -> Result<u64, LogError>;

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// Any error poisons the log.
    fn sync(&mut self) -> Result<(), LogError>;

    /// The sequence number of the last entry.
    fn last_seq(&self) -> u64;

    /// Reserves space for what comes next, if there is not enough; cheap if there is.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: take no new writes and try again later. What [`LogOptions::segment_bytes`] promises to
    /// hold can still be appended.
    fn reserve(&mut self) -> Result<(), LogError>;

    /// Bytes that can be appended whatever happens to the space of the device.
    fn reserved_bytes(&self) -> u64;

    /// Puts a snapshot that was written with [`Log::snapshot_writer`] into force. What it makes superfluous is removed by
    /// and by, with [`Log::reserve`] and [`Log::close`]. All entries that it covers must be durable.
    ///
    /// # Errors
    /// [`LogError::Io`]; the log goes on without the snapshot.
    fn install_snapshot(&mut self, seq: u64) -> Result<(), LogError>;

    /// A job that writes and syncs a snapshot of `entries` beside the log; it may run in another thread while the log
    /// goes on. `seq` is the last entry that the snapshot covers. When the log is closed, the job ends soon with an error.
    fn snapshot_writer(&self, seq: u64, entries: alloc::vec::Vec<Entry>) -> SnapshotJob {
        self.snapshot_writer_of(seq, alloc::boxed::Box::new(move || entries))
    }

    /// The same for entries that the job makes itself when it begins.
    fn snapshot_writer_of(&self, seq: u64, entries: SnapshotEntries) -> SnapshotJob;

    /// Bytes of log that a snapshot could replace.
    fn log_bytes(&self) -> u64;

    /// Bytes of the snapshot in force.
    fn snapshot_bytes(&self) -> u64;

    /// Marks the log as closed orderly, so that no damage of its tail can be taken for a torn write.
    ///
    /// # Errors
    /// Those of [`Log::append`] and [`Log::sync`].
    fn close(&mut self) -> Result<(), LogError>;
}

/// See [`Log::snapshot_writer_of`].
pub type SnapshotEntries = alloc::boxed::Box<dyn FnOnce() -> alloc::vec::Vec<Entry> + Send>;

/// See [`Log::snapshot_writer`].
pub type SnapshotJob = alloc::boxed::Box<dyn FnOnce() -> Result<(), LogError> + Send>;
