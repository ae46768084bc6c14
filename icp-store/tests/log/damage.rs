//! Bytes that change, and files that are cut, on a disk that was quiet.

use icp_core::base::Time;
use icp_store::log::{DiskLog, Files, Log, LogError, LogOptions, SimFiles};

use super::workload::{open, put, state, txn};

/// A small log with a snapshot in the middle and several segments; the states before the last batch and at the end.
fn log_of(close: bool) -> (SimFiles, String, String) {
    let files = SimFiles::new(1);
    let options = LogOptions { segment_bytes: 512, snapshot_frame_bytes: 128 };
    let mut store = icp_store::Store::new(icp_store::Config::default());
    let mut log = DiskLog::open(files.clone(), options, &mut |_| Ok(())).unwrap();
    let mut before = String::new();
    for n in 0..14 {
        before = state(&store);
        store
            .txn(Time::ZERO, &txn(vec![put(format!("k{}", n % 5), format!("value {n}")), put("n", "m")]))
            .unwrap();
        if n == 3 {
            store.lease_grant(Time::ZERO, 7, 60).unwrap();
        }
        store.publish_all();
        log.append(&store.take_entries()).unwrap();
        log.sync().unwrap();
        log.reserve().unwrap();
        if n == 6 {
            log.snapshot_writer(log.last_seq(), store.snapshot())().unwrap();
            log.install_snapshot(log.last_seq()).unwrap();
        }
    }
    if close {
        log.close().unwrap();
    }
    assert!(files.list().unwrap().iter().filter(|n| n.ends_with(".log")).count() >= 3);
    (files, before, state(&store))
}

/// Changes every byte of every file, in each of these ways.
fn every_byte(files: &SimFiles, mut each: impl FnMut(&str, usize, Result<String, LogError>)) {
    for name in files.list().unwrap() {
        let bytes = files.bytes(&name).unwrap();
        for at in 0..bytes.len() {
            for change in [1 << (at % 8), 0xff, bytes[at]] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                if changed == bytes {
                    continue;
                }
                let damaged = files.copy();
                damaged.put(&name, changed);
                each(&name, at, open(damaged).map(|(_, store)| state(&store)));
            }
        }
    }
}

/// After an orderly end every changed byte is found or changes nothing: no silent wrong read, no panic.
#[test]
fn every_changed_byte_of_a_closed_log_is_found_or_harmless() {
    let (files, _, end) = log_of(true);
    let (mut found, mut harmless) = (0, 0);
    every_byte(&files, |name, at, opened| match opened {
        Ok(state) => {
            assert_eq!(state, end, "{name} byte {at}");
            harmless += 1;
        }
        Err(LogError::Corrupt { file, .. }) => {
            assert!(file == name || file.ends_with(".log"), "{name} byte {at} is found in {file}");
            found += 1;
        }
        Err(e) => panic!("{name} byte {at}: {e}"),
    });
    println!("{found} found, {harmless} harmless");
    assert!(found > 2_000, "{found}");
}

/// Without an orderly end the last frame may have been torn: its damage takes back that batch and no other.
#[test]
fn every_changed_byte_of_a_log_that_was_not_closed_costs_the_last_batch_at_most() {
    let (files, before, end) = log_of(false);
    let mut cost = 0;
    every_byte(&files, |name, at, opened| match opened {
        Ok(state) if state == end => {}
        Ok(state) => {
            assert_eq!(state, before, "{name} byte {at}");
            cost += 1;
        }
        Err(LogError::Corrupt { .. }) => {}
        Err(e) => panic!("{name} byte {at}: {e}"),
    });
    assert!(cost > 30, "{cost}");
}

#[test]
fn every_length_of_every_file_is_found_or_harmless() {
    for close in [true, false] {
        let (files, _, end) = log_of(close);
        for name in files.list().unwrap() {
            let bytes = files.bytes(&name).unwrap();
            for length in (0..bytes.len()).chain([bytes.len() + 1, bytes.len() + 8]) {
                let mut changed = bytes.clone();
                changed.resize(length, 0);
                let damaged = files.copy();
                damaged.put(&name, changed);
                match open(damaged) {
                    Ok((_, store)) if name == "spare.log" => assert_eq!(state(&store), end),
                    Err(LogError::Corrupt { file, .. }) => assert_eq!(file, name, "length {length}"),
                    Ok(_) => panic!("{name} of {length} bytes is taken"),
                    Err(e) => panic!("{name} of {length} bytes: {e}"),
                }
            }
        }
    }
}

/// Every file may be missing.
#[test]
fn every_missing_file_is_found() {
    let (files, _, end) = log_of(true);
    for name in files.list().unwrap() {
        let damaged = files.copy();
        damaged.remove(&name).unwrap();
        match open(damaged) {
            Ok((_, store)) => {
                let segments =
                    files.list().unwrap().into_iter().filter(|n| n.ends_with(".log") && n != "spare.log");
                // Nothing on the disk tells of a last segment: it may not have been begun.
                assert!(state(&store) == end || segments.max().as_ref() == Some(&name), "{name}");
            }
            Err(LogError::Corrupt { .. }) => {}
            Err(e) => panic!("{name}: {e}"),
        }
    }
}
