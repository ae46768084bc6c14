//! How long syncs take, for `/metrics`.
#![expect(clippy::disallowed_methods, reason = "a shell: it measures with the system's clock")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{self, Read};
use std::time::Instant;

use icp_core::base::Duration;

use crate::log::{File, Files};

/// Bounds of the buckets, as etcd has them: from a millisecond on, each twice the one before.
const BUCKETS: usize = 14;

/// The durations of the syncs of a log; clones share them.
///
/// ```
/// use core::time::Duration;
/// use icp_store::etcd::SyncTimes;
/// let times = SyncTimes::default();
/// times.note(Duration::from_micros(1_500));
/// let at_most_2_ms = times.buckets().find(|(bound, _)| *bound == 0.002);
/// assert_eq!((at_most_2_ms, times.count()), (Some((0.002, 1)), 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct SyncTimes(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl SyncTimes {
    /// Notes one sync.
    pub fn note(&self, took: Duration) {
        let bucket = (0..BUCKETS).find(|n| took <= Duration::from_millis(1 << n));
        if let Some(count) = bucket.and_then(|n| self.0.buckets.get(n)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The upper bounds of the buckets in seconds, and how many syncs took at most that long.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.0.buckets.iter().enumerate().scan(0, |sum, (n, count)| {
            *sum += count.load(Ordering::Relaxed);
            Some(((1_u64 << n) as f64 / 1_000.0, *sum))
        })
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How long all together took, in seconds.
    #[must_use]
    pub fn sum_secs(&self) -> f64 {
        self.0.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// The same files, with the syncs noted here.
    pub fn files<F: Files>(&self, files: F) -> TimedFiles<F> {
        TimedFiles { files, times: self.clone() }
    }
}

/// Files whose syncs are measured; made by [`SyncTimes::files`].
#[derive(Clone, Debug)]
pub struct TimedFiles<F> {
    files: F,
    times: SyncTimes,
}

/// One of [`TimedFiles`].
#[derive(Debug)]
pub struct TimedFile<F> {
    file: F,
    times: SyncTimes,
}

impl<F: File> File for TimedFile<F> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let done = self.file.sync();
        self.times.note(began.elapsed());
        done
    }
}

impl<F: Files> Files for TimedFiles<F> {
    type File = TimedFile<F::File>;

    fn shown(&self, name: &str) -> String {
        self.files.shown(name)
    }

    fn salt(&self) -> io::Result<u32> {
        self.files.salt()
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.files.len(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.files.read(name)
    }

    fn create(&self, name: &str, reserved_bytes: u64) -> io::Result<Self::File> {
        let file = self.files.create(name, reserved_bytes)?;
        Ok(TimedFile { file, times: self.times.clone() })
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        let file = self.files.open(name)?;
        Ok(TimedFile { file, times: self.times.clone() })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }
}
