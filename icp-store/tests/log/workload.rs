//! A fixed workload on a log, and the states that a store has while it runs.

use icp_core::base::{Rng, Time};
use icp_core::storage::{DeleteRangeRequest, KeyRange, Op, PutRequest, Txn};
use icp_store::log::{DiskLog, Files, Log, LogError, LogOptions, SimFiles, SnapshotJob};
use icp_store::{Config, Entry, Store};

/// Small, so that a short workload has several segments and the snapshot several frames.
pub const SMALL: LogOptions = LogOptions { segment_bytes: 4096, snapshot_frame_bytes: 512 };

/// All that a store holds, as text: leases, the keys at the compacted revision, and all commits since.
pub fn state(store: &Store) -> String {
    format!("{:?}", store.snapshot())
}

pub fn open<F: Files>(files: F) -> Result<(DiskLog<F>, Store), LogError> {
    let mut store = Store::new(Config::default());
    let log = DiskLog::open(files, SMALL, &mut |entry| {
        store.replay(Time::ZERO, &entry).map_err(|e| LogError::Corrupt {
            file: String::new(),
            offset: 0,
            detail: e.to_string(),
        })
    })?;
    Ok((log, store))
}

pub fn put(key: impl Into<String>, value: impl Into<String>) -> Op {
    Op::Put(PutRequest::new(key.into(), value.into()))
}

pub fn txn(ops: Vec<Op>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}

/// One random change of the store.
fn change(store: &mut Store, rng: &mut Rng, n: u64) {
    let key = format!("k{}", rng.below(8));
    let value = "x".repeat(rng.below(300) as usize);
    let _ = match rng.below(12) {
        0..5 => store.txn(Time::ZERO, &txn(vec![put(key, value)])).map(drop),
        5 | 6 => {
            let ops = (0..4).map(|i| put(format!("m{i}"), format!("{n}"))).collect();
            store.txn(Time::ZERO, &txn(ops)).map(drop)
        }
        7 | 8 => {
            let range = KeyRange::between(key, "k5");
            let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
            store.txn(Time::ZERO, &txn(vec![delete])).map(drop)
        }
        9 => store.lease_grant(Time::ZERO, n as i64 + 1, 60).and_then(|lease| {
            let mut put = PutRequest::new(key, "leased");
            put.lease = lease.id;
            store.txn(Time::ZERO, &txn(vec![Op::Put(put)])).map(drop)
        }),
        10 => match store.lease_ids().first() {
            Some(id) => store.lease_revoke(Time::ZERO, *id),
            None => Ok(()),
        },
        _ => store.compact(store.visible() - rng.below(4) as i64),
    };
}

/// A workload of so many batches, each a few changes that share a frame; the snapshot is written and put into force
/// while later batches are appended.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub seed: u64,
    pub batches: usize,
}

/// How far a workload came.
#[derive(Debug)]
pub struct Run {
    /// Batches that were made durable.
    pub acknowledged: usize,
    /// What ended it early.
    pub error: Option<LogError>,
}

impl Workload {
    /// The states before the first batch and after each.
    pub fn states(self) -> Vec<String> {
        let mut states = Vec::new();
        let mut sink = |store: &Store| states.push(state(store));
        let run = self.run_with(&SimFiles::new(0), &mut |_| false, &mut sink);
        assert!(run.error.is_none(), "{run:?}");
        states
    }

    /// Runs it until something fails.
    pub fn run(self, files: &SimFiles) -> Run {
        self.run_with(files, &mut |_| false, &mut |_| {})
    }

    /// Runs it until something fails; `mend` is asked whether to go on after the disk is full.
    pub fn run_with(
        self,
        files: &SimFiles,
        mend: &mut dyn FnMut(&SimFiles) -> bool,
        each: &mut dyn FnMut(&Store),
    ) -> Run {
        let mut acknowledged = 0;
        let error = self.try_run(files, mend, each, &mut acknowledged).err();
        Run { acknowledged, error }
    }

    fn try_run(
        self,
        files: &SimFiles,
        mend: &mut dyn FnMut(&SimFiles) -> bool,
        each: &mut dyn FnMut(&Store),
        acknowledged: &mut usize,
    ) -> Result<(), LogError> {
        let mut opened = open(files.clone());
        if matches!(opened, Err(LogError::NoSpace { .. })) && mend(files) {
            opened = open(files.clone());
        }
        let (mut log, mut store) = opened?;
        each(&store);
        let mut rng = Rng::new(self.seed);
        let mut snapshot: Option<(u64, SnapshotJob)> = None;
        let mut written: Option<u64> = None;
        for n in 0..self.batches {
            for _ in 0..=rng.below(3) {
                change(&mut store, &mut rng, n as u64);
                store.publish_all();
            }
            let entries = store.take_entries();
            retry(files, mend, || log.append(&entries).map(drop))?;
            log.sync()?;
            *acknowledged = n + 1;
            each(&store);
            retry(files, mend, || log.reserve())?;
            // A snapshot that fails is none; the log goes on.
            if n % 9 == 3 {
                snapshot = Some((log.last_seq(), log.snapshot_writer(log.last_seq(), store.snapshot())));
            } else if n % 9 == 5 {
                written = snapshot.take().and_then(|(seq, job)| job().ok().map(|()| seq));
            } else if n % 9 == 6
                && let Some(seq) = written.take()
            {
                let _ = log.install_snapshot(seq);
            }
        }
        Ok(())
    }
}

fn retry(
    files: &SimFiles,
    mend: &mut dyn FnMut(&SimFiles) -> bool,
    mut go: impl FnMut() -> Result<(), LogError>,
) -> Result<(), LogError> {
    match go() {
        Err(LogError::NoSpace { .. }) if mend(files) => go(),
        other => other,
    }
}

/// Appends one more batch and makes it durable.
pub fn one_more<F: Files>(log: &mut DiskLog<F>, store: &mut Store, key: &str) {
    store.txn(Time::ZERO, &txn(vec![put(key, "y".repeat(900))])).unwrap();
    store.publish_all();
    let entries: Vec<Entry> = store.take_entries();
    log.append(&entries).unwrap();
    log.sync().unwrap();
    log.reserve().unwrap();
}

/// How many times a sweep is repeated with another seed: more with `ICP_DEEP`, which may say how many.
pub fn rounds(default: u64) -> u64 {
    super::peer::deep(default, 100)
}
