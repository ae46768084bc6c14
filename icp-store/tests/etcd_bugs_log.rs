//! The bugs of durability that etcd once had, by their issue numbers (`etcd-io/etcd tests/robustness/README.md`): each is
//! looked for here.
#![cfg(feature = "std")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use futures_util::FutureExt;
use icp_core::base::Time;
use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, Txn};
use icp_store::log::{DiskLog, Fault, Files, Log, LogError, LogOptions, SimFiles};
use icp_store::{Config, Disk, DiskOptions, Entry, Store};

const SMALL: LogOptions = LogOptions { segment_bytes: 2048, snapshot_frame_bytes: 512 };

fn open(files: SimFiles) -> Result<(DiskLog<SimFiles>, Store), LogError> {
    let mut store = Store::new(Config::default());
    let log = DiskLog::open(files, SMALL, &mut |entry| {
        store.replay(Time::ZERO, &entry).unwrap();
        Ok(())
    })?;
    Ok((log, store))
}

fn put(key: String, value: String) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key, value))], ..Txn::default() }
}

/// Writes one key and makes it durable.
fn write(log: &mut DiskLog<SimFiles>, store: &mut Store, n: u64) -> Result<(), LogError> {
    store.txn(Time::ZERO, &put(format!("k{}", n % 7), format!("{n}/{}", "x".repeat(100)))).unwrap();
    store.publish_all();
    log.append(&store.take_entries())?;
    log.sync()?;
    log.reserve()
}

fn state(store: &Store) -> String {
    format!("{:?}", store.snapshot())
}

fn snapshot(log: &mut DiskLog<SimFiles>, store: &Store) -> Result<(), LogError> {
    let seq = log.last_seq();
    log.snapshot_writer(seq, store.snapshot())()?;
    log.install_snapshot(seq)
}

/// The applied index was committed apart from the data, so that a crash under load let an entry be applied twice or
/// never. Here the index of an entry is its place in the log: after a loss of power at any operation the revision is that
/// of the data, and each entry counts once.
#[test]
fn etcd_13766_index_and_data_are_one_after_a_crash_under_load() {
    let load = |files: &SimFiles| -> u64 {
        let Ok((mut log, mut store)) = open(files.clone()) else { return 0 };
        (0..60)
            .take_while(|n| {
                write(&mut log, &mut store, *n).is_ok()
                    && (n % 13 != 12 || snapshot(&mut log, &store).is_ok())
            })
            .count() as u64
    };
    let whole = SimFiles::new(0);
    assert_eq!(load(&whole), 60);
    for at in 0..whole.operations() {
        let files = SimFiles::new(at);
        files.set_fault(Some(Fault::PowerLoss(at)));
        let acknowledged = load(&files);
        let (log, store) = open(files.crash()).unwrap();
        let written = store.visible() as u64 - 1;
        assert!((acknowledged..=acknowledged + 1).contains(&written), "{at}: {acknowledged}, {written}");
        assert_eq!(log.last_seq(), written, "{at}");
        let mut again = Store::new(Config::default());
        for n in 0..written {
            again.txn(Time::ZERO, &put(format!("k{}", n % 7), format!("{n}/{}", "x".repeat(100)))).unwrap();
        }
        again.publish_all();
        assert_eq!(state(&store), state(&again), "{at}");
    }
}

/// A store of one member answered before the sync. Here the disk forgets all that is not synced at the moment of each
/// answer.
#[test]
fn etcd_14370_an_answer_comes_after_the_sync() {
    let files = SimFiles::new(3);
    let store =
        Disk::open_files(files.clone(), DiskOptions { log: SMALL, ..DiskOptions::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for n in 0..40 {
        let key = format!("k{n}");
        let revision = runtime.block_on(store.txn(put(key.clone(), "v".into()))).unwrap().revision;
        for _ in 0..4 {
            let (_, after) = open(files.crash()).unwrap();
            let found = after.range(&RangeRequest::new(KeyRange::key(key.clone()))).unwrap();
            assert_eq!((found.count, found.revision), (1, revision));
        }
    }
    // And none comes if the sync fails.
    files.set_fault(Some(Fault::Error(files.operations() + 1)));
    assert!(runtime.block_on(store.txn(put("never".into(), "v".into()))).is_err());
    let read = store.range(RangeRequest::new(KeyRange::key("never"))).now_or_never().unwrap().unwrap();
    assert_eq!(read.count, 0);
}

/// A crash during defragmentation lost data. What makes the files smaller here is a snapshot: power fails at each
/// operation of writing it, of putting it into force and of removing what it replaces.
#[test]
fn etcd_14685_a_crash_while_the_log_is_shortened_loses_nothing() {
    let before = SimFiles::new(5);
    let (mut log, mut store) = open(before.clone()).unwrap();
    for n in 0..40 {
        write(&mut log, &mut store, n).unwrap();
        if n == 20 {
            snapshot(&mut log, &store).unwrap();
        }
    }
    drop(log);
    let shorten = |files: &SimFiles| {
        let (mut log, store) = open(files.clone())?;
        snapshot(&mut log, &store)?;
        log.close()
    };
    let whole = before.copy();
    shorten(&whole).unwrap();
    assert!(whole.list().unwrap().len() < before.list().unwrap().len());
    assert!(whole.operations() > 10);
    for at in 0..=whole.operations() {
        for outcome in 0..4 {
            let files = before.copy();
            files.set_fault(Some(Fault::PowerLoss(at)));
            assert_eq!(shorten(&files).is_err(), at < whole.operations());
            let (_, after) = open(files.crash()).unwrap();
            assert_eq!(state(&after), state(&store), "{at}, {outcome}");
        }
    }
}

/// Two snapshots in a row made a member panic. Here they come twice for the same entry, out of order, before their
/// entries are durable, and for other entries than was said.
#[test]
fn etcd_18055_snapshots_in_any_order_do_no_harm() {
    let files = SimFiles::new(5);
    let (mut log, mut store) = open(files.clone()).unwrap();
    for n in 0..30 {
        write(&mut log, &mut store, n).unwrap();
    }
    snapshot(&mut log, &store).unwrap();
    snapshot(&mut log, &store).unwrap();
    let newest = log.last_seq();
    let refused = |result: Result<(), LogError>, why: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    log.snapshot_writer(newest - 3, store.snapshot())().unwrap();
    refused(log.install_snapshot(newest - 3), "a newer one");
    log.snapshot_writer(newest + 3, store.snapshot())().unwrap();
    refused(log.install_snapshot(newest + 3), "not durable");
    refused(log.install_snapshot(newest), "other entries");
    let entry = [Entry::LeaseGrant { id: 9, ttl_secs: 60 }];
    store.replay(Time::ZERO, &entry[0]).unwrap();
    log.append(&entry).unwrap();
    log.snapshot_writer(newest + 1, store.snapshot())().unwrap();
    refused(log.install_snapshot(newest + 1), "not durable");
    log.sync().unwrap();
    log.install_snapshot(newest + 1).unwrap();
    // None was written since.
    assert!(log.install_snapshot(newest + 1).is_err());
    let (_, after) = open(files.crash()).unwrap();
    assert_eq!(state(&after), state(&store));
}

/// A damaged page of the database was a panic. Here each damaged byte of a directory is a typed error that names the
/// file, or changes nothing.
#[test]
fn etcd_20271_damage_is_a_typed_error_and_not_a_panic() {
    let dir = peer::temp_dir("20271");
    let options = DiskOptions { log: SMALL, snapshot_log_bytes: 0, ..DiskOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let all = |store: &Disk| runtime.block_on(store.range(RangeRequest::new(KeyRange::prefix("")))).unwrap();
    let good = {
        let store = Disk::open(&dir, options).unwrap();
        for n in 0..30 {
            runtime.block_on(store.txn(put(format!("k{n}"), "value".repeat(20)))).unwrap();
        }
        all(&store)
    };
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    let mut found = 0;
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "log" || e == "snap")) {
        let bytes = std::fs::read(file).unwrap();
        for at in (0..bytes.len()).step_by(37) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(file, damaged).unwrap();
            match Disk::open(&dir, options) {
                Ok(store) => assert_eq!(all(&store), good, "{} byte {at}", file.display()),
                Err(LogError::Corrupt { file: named, .. } | LogError::Version { file: named, .. }) => {
                    assert!(named.starts_with(&dir.display().to_string()), "{named}");
                    found += 1;
                }
                Err(e) => panic!("{} byte {at}: {e}", file.display()),
            }
            if !file.exists() || std::fs::read(file).unwrap() != bytes {
                std::fs::write(file, &bytes).unwrap();
            }
        }
    }
    assert!(found > 50, "{found}");
    std::fs::remove_dir_all(dir).unwrap();
}
