use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::{Rng, Time};
use icp_core::storage::{DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Txn};

use super::*;
use crate::store::{Config, Store};

const SMALL: LogOptions = LogOptions { segment_bytes: 4096, snapshot_frame_bytes: 512 };

fn put(key: &str, value: String) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key.to_string(), value))], ..Txn::default() }
}

/// The state that matters, as text.
fn state(store: &Store) -> String {
    let all = store.range(&RangeRequest::new(KeyRange::prefix(""))).unwrap();
    format!("{all:?} {:?} {:?}", store.lease_ids(), store.status().compacted)
}

fn open(files: SimFiles) -> Result<(DiskLog<SimFiles>, Store), LogError> {
    let mut store = Store::new(Config::default());
    let log = DiskLog::open(files, SMALL, &mut |entry| {
        store.replay(Time::ZERO, &entry).map_err(|e| LogError::corrupt("replay", 0, format!("{e}")))
    })?;
    Ok((log, store))
}

/// One step of a random workload.
fn step(store: &mut Store, rng: &mut Rng, n: u64) {
    let key = format!("k{}", rng.below(8));
    let _ = match rng.below(10) {
        0..6 => store.txn(Time::ZERO, &put(&key, "x".repeat(rng.below(300) as usize))).map(drop),
        6 | 7 => {
            let range = KeyRange::between(key, "k5");
            let op = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
            store.txn(Time::ZERO, &Txn { success: vec![op], ..Txn::default() }).map(drop)
        }
        8 => store.lease_grant(Time::ZERO, n as i64 + 1, 60).map(drop),
        _ => store.compact(store.visible() - rng.below(4) as i64),
    };
}

/// Runs a workload of `steps` batches until something fails; returns the states after each batch and the number of
/// batches that were acknowledged. `states[i]` is the state after `i` batches.
fn run(files: &SimFiles, steps: u64, seed: u64) -> (Vec<String>, usize) {
    let mut states = Vec::new();
    let Ok((mut log, mut store)) = open(files.clone()) else {
        return (vec![state(&Store::new(Config::default()))], 0);
    };
    states.push(state(&store));
    let mut rng = Rng::new(seed);
    for n in 0..steps {
        for _ in 0..=rng.below(3) {
            step(&mut store, &mut rng, n);
            store.publish_all();
        }
        let entries = store.take_entries();
        states.push(state(&store));
        if log.append(&entries).is_err() || log.sync().is_err() || log.reserve().is_err() {
            return (states, n as usize);
        }
        if n % 7 == 6 {
            let job = log.snapshot_writer(log.last_seq(), store.snapshot());
            if job().is_err() || log.install_snapshot(log.last_seq()).is_err() {
                return (states, n as usize + 1);
            }
        }
    }
    (states, steps as usize)
}

#[test]
fn what_was_appended_is_replayed() {
    let files = SimFiles::new(1);
    let (states, acknowledged) = run(&files, 40, 1);
    assert_eq!(acknowledged, 40);
    let (_, store) = open(files.crash()).unwrap();
    assert_eq!(&state(&store), states.last().unwrap());
    assert!(files.list().unwrap().iter().any(|n| n.ends_with(".snap")));
}

/// etcd 13766 and 14370: power fails at every operation of a workload, with a random choice of unsynced sectors and
/// names on the disk. What was acknowledged is there, and the state is one that the store had.
#[test]
fn power_loss_at_every_operation_loses_nothing_acknowledged() {
    let whole = SimFiles::new(0);
    run(&whole, 30, 5);
    for at in 0..whole.operations() {
        for seed in 0..3 {
            let files = SimFiles::new(seed);
            files.set_fault(Some(Fault::PowerLoss(at)));
            let (states, acknowledged) = run(&files, 30, 5);
            let (_, store) =
                open(files.crash()).unwrap_or_else(|e| panic!("operation {at}, seed {seed}: {e}"));
            let found = state(&store);
            let possible = &states[acknowledged..];
            assert!(possible.contains(&found), "operation {at}, seed {seed}: acknowledged {acknowledged}");
        }
    }
}

/// A failed write or sync poisons the log, and what was acknowledged before is there after a restart.
#[test]
fn an_error_at_every_operation_is_never_ignored() {
    let whole = SimFiles::new(0);
    run(&whole, 30, 5);
    for at in 0..whole.operations() {
        let files = SimFiles::new(at);
        files.set_fault(Some(Fault::Error(at)));
        let (states, acknowledged) = run(&files, 30, 5);
        files.set_fault(None);
        let (_, store) = open(files.crash()).unwrap_or_else(|e| panic!("operation {at}: {e}"));
        assert!(states[acknowledged..].contains(&state(&store)), "operation {at}");
    }
}

#[test]
fn a_failed_sync_poisons_for_good() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(files.clone()).unwrap();
    let entry = [Entry::LeaseGrant { id: 1, ttl_secs: 60 }];
    log.append(&entry).unwrap();
    files.set_fault(Some(Fault::Error(files.operations())));
    assert!(matches!(log.sync(), Err(LogError::Io { operation: "sync", .. })));
    files.set_fault(None);
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.append(&entry), Err(LogError::Poisoned { .. })));
    drop(log);
    let (_, store) = open(files.crash()).unwrap();
    assert_eq!(store.lease_ids(), Vec::<i64>::new());
}

#[test]
fn what_a_failed_sync_forgot_is_written_again_before_more_stands_behind_it() {
    let files = SimFiles::new(3);
    let (mut log, mut store) = open(files.clone()).unwrap();
    let write = |store: &mut Store, log: &mut DiskLog<SimFiles>, key: &str| {
        store.txn(Time::ZERO, &put(key, "x".repeat(600))).unwrap();
        store.publish_all();
        log.append(&store.take_entries()).unwrap();
        log.sync()
    };
    write(&mut store, &mut log, "a").unwrap();
    files.set_fault(Some(Fault::Error(files.operations() + 1)));
    write(&mut store, &mut log, "b").unwrap_err();
    // Only the process ends: the next one reads what was written, which the disk does not have.
    drop(log);
    files.set_fault(None);
    let (mut log, mut store) = open(files.clone()).unwrap();
    write(&mut store, &mut log, "c").unwrap();
    for _ in 0..8 {
        let (_, after) = open(files.crash()).unwrap();
        assert_eq!(state(&after), state(&store));
    }
}

/// Space is reserved before it is needed: a full disk is noticed while what is in flight still fits.
#[test]
fn a_full_disk_is_noticed_before_it_hurts() {
    let files = SimFiles::new(1);
    let (mut log, mut store) = open(files.clone()).unwrap();
    files.set_fault(Some(Fault::Full(0)));
    let mut written = 0;
    while log.reserve().is_ok() {
        store.txn(Time::ZERO, &put("k", "x".repeat(500))).unwrap();
        log.append(&store.take_entries()).unwrap();
        log.sync().unwrap();
        written += 1;
    }
    assert!(written > 1);
    assert!(matches!(log.reserve(), Err(LogError::NoSpace { .. })));
    store.txn(Time::ZERO, &put("k", "x".repeat(500))).unwrap();
    log.append(&store.take_entries()).unwrap();
    log.sync().unwrap();
    files.set_fault(None);
    log.reserve().unwrap();
}

/// After an orderly end every flipped bit is found: no silent wrong read, no panic. (etcd 20271)
#[test]
fn every_flipped_bit_of_a_closed_log_is_found() {
    let files = SimFiles::new(1);
    {
        let (mut log, mut store) = open(files.clone()).unwrap();
        for n in 0..12 {
            store.txn(Time::ZERO, &put(&format!("k{n}"), "value".into())).unwrap();
            store.publish_all();
            log.append(&store.take_entries()).unwrap();
            log.sync().unwrap();
            if n == 5 {
                log.snapshot_writer(log.last_seq(), store.snapshot())().unwrap();
                log.install_snapshot(log.last_seq()).unwrap();
            }
        }
        log.close().unwrap();
    }
    let good = state(&open(files.copy()).unwrap().1);
    let mut found = 0;
    for name in files.list().unwrap() {
        if name == "spare.log" {
            continue;
        }
        let mut byte = 0;
        loop {
            let damaged = files.copy();
            if !damaged.flip_bit(&name, byte, byte as u32) {
                break;
            }
            match open(damaged) {
                Ok((_, store)) => assert_eq!(state(&store), good, "{name} byte {byte}"),
                Err(LogError::Corrupt { .. } | LogError::Version { .. }) => found += 1,
                Err(e) => panic!("{name} byte {byte}: {e}"),
            }
            byte += 1;
        }
    }
    assert!(found > 500, "{found}");
}

#[test]
fn damage_before_the_tail_is_refused_and_the_tail_is_cut() {
    let files = SimFiles::new(1);
    let (mut log, mut store) = open(files.clone()).unwrap();
    for n in 0..3 {
        store.txn(Time::ZERO, &put("k", format!("{n}"))).unwrap();
        log.append(&store.take_entries()).unwrap();
        log.sync().unwrap();
    }
    let segment = "0000000000000001.log";
    let last_frame = log.log_bytes() as usize - 40;
    let torn = files.copy();
    assert!(torn.flip_bit(segment, last_frame + 30, 1));
    let (mut log, store) = open(torn.clone()).unwrap();
    assert_eq!(store.visible(), 3);
    // The cut tail is gone for good: what is appended now follows it.
    log.append(&[Entry::LeaseGrant { id: 9, ttl_secs: 5 }]).unwrap();
    log.sync().unwrap();
    assert_eq!(open(torn.crash()).unwrap().1.lease_ids(), [9]);

    let middle = files.copy();
    assert!(middle.flip_bit(segment, 40, 1));
    assert!(matches!(open(middle), Err(LogError::Corrupt { offset: 32, .. })));
}

/// The format of version 1 does not change under its readers.
#[test]
fn the_bytes_are_those_of_version_1() {
    let files = SimFiles::new(1);
    let (mut log, mut store) = open(files.clone()).unwrap();
    store.lease_grant(Time::ZERO, 7, 60).unwrap();
    let mut txn = put("k", "v".into());
    let Some(Op::Put(p)) = txn.success.first_mut() else { unreachable!() };
    p.lease = 7;
    store.txn(Time::ZERO, &txn).unwrap();
    log.append(&store.take_entries()).unwrap();
    let bytes = files.bytes("0000000000000001.log").unwrap();
    let hex: Vec<String> =
        bytes[..72].chunks(8).map(|w| w.iter().map(|b| format!("{b:02x}")).collect()).collect();
    expect_test::expect![[r#"
        69637073746c6f67
        010000009e1051bf
        0100000000000000
        00020000fdbaf8f2
        0d0000000614cd62
        0100000000000000
        0200000001000000
        02073c0102010101
        6b02070176000000"#]]
    .assert_eq(&hex.join("\n"));
}

/// Two frames without a sync between them would make damage of the first look like damage before the tail, and a change
/// of segments would leave the first without any sync.
#[test]
fn what_was_appended_before_is_synced_first() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(files.clone()).unwrap();
    for id in 1..=300 {
        log.append(&[Entry::LeaseGrant { id, ttl_secs: 60 }]).unwrap();
    }
    log.sync().unwrap();
    for _ in 0..8 {
        let (_, store) = open(files.crash()).unwrap();
        assert_eq!(store.lease_ids().len(), 300);
    }
}

/// A value may hold the bytes of a log, with sequence numbers far ahead. Torn in front of them it is still a torn tail.
#[test]
fn a_value_that_looks_like_frames_is_not_taken_for_some() {
    let files = SimFiles::new(1);
    let (mut log, mut store) = open(files.clone()).unwrap();
    let lure = frame::frame(0, 1_000, &[Entry::LeaseGrant { id: 1, ttl_secs: 60 }], 1 << 20).unwrap();
    // At one of eight offsets the frame is aligned in the file.
    let value: Vec<u8> = (0..8).flat_map(|n| [vec![b'x'; n], lure.clone()].concat()).collect();
    let txn = Txn { success: vec![Op::Put(PutRequest::new("k", value))], ..Txn::default() };
    store.txn(Time::ZERO, &txn).unwrap();
    log.append(&store.take_entries()).unwrap();
    log.sync().unwrap();
    assert!(files.flip_bit("0000000000000001.log", 32 + 10, 1));
    assert_eq!(open(files).unwrap().1.visible(), 1);
}

/// A frame that could be written but never read again must not be acknowledged.
#[test]
fn a_frame_has_a_largest_payload() {
    let kv = icp_core::storage::KeyValue { value: vec![0; 100].into(), version: 1, ..Default::default() };
    let entry = [Entry::Base(alloc::sync::Arc::new(crate::mvcc::Version { kv, sub: 0 }))];
    let bytes = frame::frame(0, 1, &entry, usize::MAX).unwrap().len() - frame::FRAME_HEADER_BYTES;
    assert!(matches!(frame::frame(0, 1, &entry, 99), Err(payload) if (100..=bytes).contains(&payload)));
}
