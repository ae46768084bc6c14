//! The disk under test: a directory that is removed afterwards, and what the disk can do by itself.
#![expect(clippy::disallowed_methods, reason = "a program: it measures with the clock")]

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Failure;
use super::load::Sample;

/// Bytes of the file that the limit is measured on.
const LIMIT_FILE_BYTES: u64 = 16 << 20;

/// A directory of this run; it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a directory under `parent`, which must be on a disk.
    pub(super) fn new(parent: &Path) -> Result<Self, Failure> {
        let failed = |detail: String| Failure::Directory { path: parent.display().to_string(), detail };
        let path = parent.join(format!("store-vs-etcd-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| failed(e.to_string()))?;
        let scratch = Self(path);
        let kind = rustix::fs::statfs(&scratch.0).map_err(|e| failed(e.to_string()))?.f_type;
        // `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
        if kind == 0x0102_1994 || kind == 0x8584_58f6 {
            return Err(failed(
                "it lies in memory (tmpfs), where a sync costs nothing; give --dir on a disk".into(),
            ));
        }
        Ok(scratch)
    }

    /// A new, empty directory in it.
    pub(super) fn sub(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        let failed =
            |e: io::Error| Failure::Directory { path: path.display().to_string(), detail: e.to_string() };
        if path.exists() {
            fs::remove_dir_all(&path).map_err(failed)?;
        }
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(path)
    }

    /// Removes a directory of it, to give its space back.
    pub(super) fn discard(&self, path: &Path) {
        if path.starts_with(&self.0) {
            // What is left is removed at the end.
            let _ = fs::remove_dir_all(path);
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {e}", self.0.display());
        }
    }
}

/// Where the data goes if nothing is said: `$TMPDIR`, the build's `target` directory, or the system's temporary one.
pub(super) fn default_parent() -> PathBuf {
    if let Some(dir) = std::env::var_os("TMPDIR") {
        return dir.into();
    }
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|p| p.file_name().is_some_and(|n| n == "target"));
    target.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// How often per second `write` + `fdatasync` of `bytes` succeed in a file whose space is written already: no log can
/// be faster with one writer.
pub(super) fn limit(scratch: &Scratch, bytes: usize, window: Duration) -> Result<Sample, Failure> {
    let path = scratch.path().join("limit");
    let go = || {
        let file = fs::OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        file.write_all_at(&vec![0; LIMIT_FILE_BYTES as usize], 0)?;
        file.sync_all()?;
        let (block, mut at, mut micros) = (vec![b'x'; bytes], 0_u64, Vec::new());
        let began = Instant::now();
        while began.elapsed() < window {
            if at + bytes as u64 > LIMIT_FILE_BYTES {
                at = 0;
            }
            let one = Instant::now();
            file.write_all_at(&block, at)?;
            file.sync_data()?;
            micros.push(u64::try_from(one.elapsed().as_micros()).unwrap_or(u64::MAX));
            at += bytes as u64;
        }
        let rate = micros.len() as f64 / began.elapsed().as_secs_f64();
        let mut sample = Sample { rate, syncs: rate, records_per_sync: 1.0, ..Sample::default() };
        sample.latencies(micros);
        Ok::<Sample, io::Error>(sample)
    };
    let measured = go();
    let _ = fs::remove_file(&path);
    measured.map_err(|e| Failure::Directory { path: path.display().to_string(), detail: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_removed_and_a_bad_one_is_refused() {
        let parent = std::env::temp_dir().join(format!("icp-vs-{}", std::process::id()));
        fs::create_dir_all(&parent).unwrap();
        if let Ok(scratch) = Scratch::new(&parent) {
            let sub = scratch.sub("a").unwrap();
            fs::write(sub.join("f"), "x").unwrap();
            assert!(fs::read_dir(scratch.sub("a").unwrap()).unwrap().next().is_none(), "it is empty again");
            let path = scratch.path().to_path_buf();
            drop(scratch);
            assert!(!path.exists());
        }
        fs::remove_dir_all(&parent).unwrap();
        let refused = Scratch::new(Path::new("/proc/nowhere")).unwrap_err();
        assert!(refused.to_string().starts_with("/proc/nowhere: "), "{refused}");
    }
}
