use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use futures_util::StreamExt;
use icp_core::base::Time;
use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, StorageError, Txn, WatchRequest};

use super::*;
use crate::log::{Fault, Files, LogOptions, SimFiles};

fn put(key: &str, value: &str) -> Txn {
    Txn {
        success: vec![Op::Put(PutRequest::new(key.as_bytes().to_vec(), value.as_bytes().to_vec()))],
        ..Txn::default()
    }
}

fn small() -> DiskOptions {
    DiskOptions {
        log: LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() },
        snapshot_log_bytes: 0,
        ..DiskOptions::default()
    }
}

/// Runs a future on this thread; the handles need no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl alloc::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = core::task::Context::from_waker(&waker);
    let mut future = core::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            core::task::Poll::Ready(out) => return out,
            core::task::Poll::Pending => std::thread::park_timeout(Duration::from_secs(20)),
        }
    }
}

#[test]
fn a_thousand_stores_fit_a_process_and_watch_without_a_runtime() {
    let stores: Vec<Memory> = (0..1_000).map(|_| Memory::new()).collect();
    for store in &stores {
        block_on(async {
            let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("a/"), 0)).await.unwrap();
            store.txn(put("a/1", "x")).await.unwrap();
            let batch = watch.next().await.unwrap().unwrap();
            assert_eq!((batch.revision, batch.events.len()), (2, 1));
        });
    }
}

#[test]
fn leases_run_on_the_time_that_is_told() {
    block_on(async {
        let store = Memory::new();
        let lease = store.lease_grant(0, 10).await.unwrap();
        let mut txn = put("k", "v");
        let Some(Op::Put(p)) = txn.success.first_mut() else { unreachable!() };
        p.lease = lease.id;
        store.txn(txn).await.unwrap();
        store.tick(Time::from_secs(9));
        assert_eq!(store.range(RangeRequest::new(KeyRange::key("k"))).await.unwrap().count, 1);
        assert_eq!(store.lease_status(lease.id).await.unwrap().ttl_secs, 1);
        store.tick(store.deadline().unwrap());
        assert_eq!(store.range(RangeRequest::new(KeyRange::key("k"))).await.unwrap().count, 0);
        assert_eq!(store.revision(), 3);
    });
}

#[test]
fn a_disk_keeps_what_it_acknowledged_over_restarts_snapshots_and_compaction() {
    let files = SimFiles::new(3);
    block_on(async {
        for round in 0..3 {
            let store = Disk::open_files(files.clone(), small()).unwrap();
            assert_eq!(store.revision(), 1 + round * 200);
            for n in 0..200 {
                store.txn(put(&format!("k{}", n % 10), &"x".repeat(200))).await.unwrap();
                if n % 50 == 49 {
                    store.compact(store.revision() - 5).await.unwrap();
                }
            }
            let mut watch =
                store.watch(WatchRequest::new(KeyRange::prefix("k"), store.revision() - 3)).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 4);
        }
    });
    assert!(files.list().unwrap().iter().any(|n| n.ends_with(".snap")));
}

#[test]
fn nothing_shows_before_it_is_durable() {
    let files = SimFiles::new(3);
    let store = Disk::open_files(files.clone(), small()).unwrap();
    block_on(async {
        store.txn(put("k", "1")).await.unwrap();
        let mut watch = store.watch(WatchRequest::new(KeyRange::key("k"), 0)).await.unwrap();
        // The write succeeds, its sync fails.
        files.set_fault(Some(Fault::Error(files.operations() + 1)));
        assert!(matches!(store.txn(put("k", "2")).await, Err(StorageError::Poisoned { .. })));
        let read = store.range(RangeRequest::new(KeyRange::key("k"))).await.unwrap();
        assert_eq!((read.revision, &read.kvs[0].value[..]), (2, &b"1"[..]));
        assert!(matches!(store.txn(put("k", "3")).await, Err(StorageError::Poisoned { .. })));
        let shown = futures_util::FutureExt::now_or_never(watch.next());
        assert!(shown.is_none(), "{shown:?}");
    });
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let files = SimFiles::new(3);
    let store = Disk::open_files(files.clone(), small()).unwrap();
    block_on(async {
        store.txn(put("k", "1")).await.unwrap();
        files.set_fault(Some(Fault::Full(0)));
        let mut refused = None;
        for _ in 0..1_000 {
            if let Err(e) = store.txn(put("k", &"x".repeat(500))).await {
                refused = Some(e);
                break;
            }
        }
        assert!(matches!(refused, Some(StorageError::NoSpace { .. })), "{refused:?}");
        let before = store.revision();
        assert_eq!(store.range(RangeRequest::new(KeyRange::key("k"))).await.unwrap().count, 1);
        let delete = icp_core::storage::DeleteRangeRequest { range: KeyRange::key("k"), prev_kv: false };
        store.txn(Txn { success: vec![Op::DeleteRange(delete)], ..Txn::default() }).await.unwrap();
        assert_eq!(store.revision(), before + 1);
        files.set_fault(None);
        // The committer tries again at each write it makes; a compaction is one that a full disk takes.
        store.compact(before).await.unwrap();
        store.compact(before + 1).await.unwrap();
        store.txn(put("k", "2")).await.unwrap();
    });
}

#[test]
fn a_snapshot_that_is_asked_for_replaces_the_log_before_it() {
    let files = SimFiles::new(3);
    let options = DiskOptions { snapshot_log_bytes: u64::MAX, ..small() };
    block_on(async {
        let store = Disk::open_files(files.clone(), options).unwrap();
        for n in 0..200 {
            store.txn(put(&format!("k{n}"), &"x".repeat(200))).await.unwrap();
        }
        let segments = || files.list().unwrap().iter().filter(|n| n.ends_with(".log")).count();
        assert!(segments() > 3, "{:?}", files.list());
        store.snapshot_log().await.unwrap();
        assert_eq!(store.stats().snapshots, 1);
        store.txn(put("k0", "after")).await.unwrap();
    });
    // The segments before it are removed by and by, at the latest by the end: the one that is written to stays, and the
    // spare one.
    assert_eq!(files.list().unwrap().iter().filter(|n| n.ends_with(".log")).count(), 2);
    let store = Disk::open_files(files.clone(), options).unwrap();
    assert_eq!(store.revision(), 202);
    assert_eq!(files.list().unwrap().iter().filter(|n| n.ends_with(".snap")).count(), 1);
    block_on(async {
        files.set_fault(Some(Fault::Error(files.operations() + 1)));
        assert!(matches!(store.txn(put("k", "2")).await, Err(StorageError::Poisoned { .. })));
        assert!(matches!(store.snapshot_log().await, Err(crate::log::LogError::Poisoned { .. })));
    });
}

/// A write may be polled by a task and then by another one.
#[test]
fn the_last_one_who_polls_a_write_is_woken() {
    struct Tell(std::sync::mpsc::Sender<()>);
    impl alloc::task::Wake for Tell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let store = Disk::open_files(SimFiles::new(3), small()).unwrap();
    let mut waited = 0;
    for n in 0..300 {
        let mut write = core::pin::pin!(store.txn(put("k", &format!("{n}"))));
        let mut nobody = core::task::Context::from_waker(core::task::Waker::noop());
        if write.as_mut().poll(&mut nobody).is_ready() {
            continue;
        }
        let (told, tell) = std::sync::mpsc::channel();
        let waker = Arc::new(Tell(told)).into();
        let mut cx = core::task::Context::from_waker(&waker);
        while write.as_mut().poll(&mut cx).is_pending() {
            waited += 1;
            tell.recv_timeout(Duration::from_secs(20)).expect("nobody is told");
        }
    }
    assert!(waited > 0, "every write was durable at once");
}

#[test]
fn a_directory_has_one_opener_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("icp-store-test-{}-one", std::process::id()));
    let first = Disk::open(&dir, DiskOptions::default()).unwrap();
    let second = Disk::open(&dir, DiskOptions::default());
    assert!(matches!(second, Err(crate::log::LogError::Locked { .. })));
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    drop(first);
    drop(Disk::open(&dir, DiskOptions::default()).unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn alarms_checkpoints_and_places_are_read_back_from_the_disk() {
    use crate::log::{DiskLog, Log};
    use crate::store::{Config, Entry, Store};
    use icp_core::storage::AlarmKind;

    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 1, 3_600).unwrap();
    let both = Txn { success: [put("a", "1"), put("b", "1")].map(|t| t.success).concat(), ..Txn::default() };
    store.txn(Time::ZERO, &both).unwrap();
    store.txn(Time::ZERO, &put("a", "2")).unwrap();
    store.publish_all();
    store.compact(3).unwrap();
    store.set_alarm(AlarmKind::Corrupt, true);
    let mut entries = store.take_entries();
    entries.push(Entry::LeaseCheckpoint { id: 1, left_secs: 100 });
    for entries in [entries.clone(), {
        let mut again = Store::new(Config::default());
        entries.iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
        again.snapshot()
    }] {
        let files = SimFiles::new(3);
        let mut log = DiskLog::open(files.clone(), small().log, &mut |_| Ok(())).unwrap();
        log.append(&entries).unwrap();
        log.sync().unwrap();
        drop(log);
        let disk = Disk::open_files(files, small()).unwrap();
        block_on(async {
            assert!((99..=100).contains(&disk.lease_status(1).await.unwrap().ttl_secs));
            assert_eq!(disk.alarms().await.unwrap(), [AlarmKind::Corrupt]);
            assert_eq!(disk.txn(put("a", "3")).await, Err(StorageError::CorruptAlarm));
            assert_eq!(disk.hash_kv(0).await.unwrap(), store.hash_view(0).unwrap().hash());
            let places: Vec<_> =
                disk.snapshot().await.unwrap().versions.map(|v| (v.kv.mod_revision, v.sub)).collect();
            assert_eq!(places, [(2, 1), (3, 0)]);
            assert!(disk.set_alarm(AlarmKind::Corrupt, false).await.unwrap());
            disk.txn(put("a", "3")).await.unwrap();
        });
    }
}
