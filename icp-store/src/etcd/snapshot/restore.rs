//! A file of etcd into the directory of a store.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Imported, import};
use crate::etcd::bolt::{BoltError, Source};
use crate::log::{DiskLog, Log, LogError, LogOptions, OsFiles, approximate_bytes};
use crate::store::Entry;

/// Why a file could not be restored.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The file cannot be read.
    #[error("{file}: {detail}")]
    File {
        /// Which.
        file: String,
        /// What the system said.
        detail: String,
    },
    /// The checksum at the end of the file is not that of the file.
    #[error("{file}: the SHA-256 at its end is not that of its contents")]
    Checksum {
        /// Which.
        file: String,
    },
    /// The file is not one that can be taken.
    #[error(transparent)]
    Bolt(#[from] BoltError),
    /// The directory holds a store already.
    #[error("{directory} holds a store already")]
    NotEmpty {
        /// Which.
        directory: String,
    },
    /// The directory cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What shares one sync while the directory is written.
const BATCH_BYTES: usize = 1 << 20;
/// What `etcdctl snapshot save` adds to the file.
const SHA_BYTES: u64 = 32;

struct OpenFile {
    file: std::fs::File,
    bytes: u64,
}

impl Source for OpenFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), String> {
        self.file.read_exact_at(out, offset).map_err(|e| e.to_string())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Makes `directory` the store that `file` describes: a snapshot of `etcdctl snapshot save`, whose checksum is proven, or
/// the `member/snap/db` of an etcd that was stopped (what such an etcd has only in its WAL is not taken). Leases begin
/// with their full time to live.
///
/// The work is done by the calling thread. What is left after an error is no store: remove the directory.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(file: &Path, directory: &Path, options: LogOptions) -> Result<Imported, RestoreError> {
    let name = file.display().to_string();
    let failed = |e: std::io::Error| RestoreError::File { file: name.clone(), detail: e.to_string() };
    let opened = std::fs::File::open(file).map_err(failed)?;
    let bytes = opened.metadata().map_err(failed)?.len();
    let mut source = OpenFile { file: opened, bytes };
    // Pages are multiples of this.
    if bytes % 512 == SHA_BYTES {
        source.bytes = bytes - SHA_BYTES;
        if !sum_is_right(&source).map_err(|detail| RestoreError::File { file: name.clone(), detail })? {
            return Err(RestoreError::Checksum { file: name });
        }
    }
    let mut held = false;
    let mut log = DiskLog::open(OsFiles::open(directory)?, options, &mut |_| {
        held = true;
        Ok(())
    })?;
    if held {
        return Err(RestoreError::NotEmpty { directory: directory.display().to_string() });
    }
    let (mut batch, mut batch_bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
    let mut write = |batch: &mut Vec<Entry>| -> Result<(), LogError> {
        log.append(batch)?;
        log.sync()?;
        log.reserve()?;
        batch.clear();
        Ok(())
    };
    let imported = import(&source, &mut |entry| {
        batch_bytes += approximate_bytes(&entry);
        batch.push(entry);
        if batch_bytes >= BATCH_BYTES {
            batch_bytes = 0;
            write(&mut batch).map_err(|e| e.to_string())?;
        }
        Ok(())
    })?;
    write(&mut batch)?;
    log.close()?;
    Ok(imported)
}

fn sum_is_right(source: &OpenFile) -> Result<bool, String> {
    let mut sum = Sha256::new();
    let (mut at, mut buffer) = (0, alloc::vec![0; 1 << 16]);
    while at < source.bytes {
        let left = usize::try_from(source.bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..left) else { break };
        source.read_at(at, part)?;
        sum.update(&*part);
        at += left as u64;
    }
    let mut wanted = [0; SHA_BYTES as usize];
    source.read_at(source.bytes, &mut wanted)?;
    Ok(sum.finalize()[..] == wanted)
}
