use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn written(buckets: &[(&'static [u8], Map)]) -> Vec<u8> {
    let buckets = buckets.iter().map(|(name, map)| {
        let records: Vec<_> = map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Bucket { name, records: Box::new(records) }
    });
    let mut file = File::new(buckets.collect());
    let mut bytes = Vec::new();
    while file.next(&mut bytes) {}
    assert_eq!(bytes.len() as u64, file.bytes());
    bytes
}

type Record = (Vec<u8>, Vec<u8>);

fn read(bytes: &[u8], bucket: &[u8]) -> Result<Vec<Record>, BoltError> {
    let mut seen = Vec::new();
    Reader::open(bytes)?.for_each(bucket, |k, v| {
        seen.push((k.to_vec(), v.to_vec()));
        Ok(())
    })?;
    Ok(seen)
}

fn numbered(count: u64, value_bytes: usize) -> Map {
    (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; value_bytes])).collect()
}

#[test]
fn trees_of_every_depth_are_read_as_they_were_written() {
    for (count, bytes) in [(0, 0), (1, 5), (20, 5), (300, 5), (30_000, 16), (9, 70_000)] {
        let map = numbered(count, bytes);
        let file = written(&[(b"alarm", Map::new()), (b"key", map.clone()), (b"meta", numbered(2, 8))]);
        assert_eq!(read(&file, b"key").unwrap(), map.into_iter().collect::<Vec<_>>(), "{count} of {bytes}");
        assert_eq!(read(&file, b"meta").unwrap().len(), 2);
        assert_eq!(read(&file, b"alarm").unwrap().len() + read(&file, b"none").unwrap().len(), 0);
    }
}

#[test]
fn the_newer_meta_page_counts_and_one_is_enough() {
    let file = written(&[(b"key", numbered(300, 5))]);
    for broken in [0, 4096] {
        let mut file = file.clone();
        file[broken + 20] ^= 1;
        assert_eq!(read(&file, b"key").unwrap().len(), 300);
    }
    let mut file = file;
    file[20] ^= 1;
    file[4096 + 20] ^= 1;
    assert_eq!(read(&file, b"key"), Err(BoltError::NoMeta));
    assert_eq!(read(b"not a database", b"key"), Err(BoltError::NoMeta));
}

#[test]
fn a_page_that_refers_to_itself_is_refused() {
    let mut file = written(&[(b"key", numbered(300, 50))]);
    let branch = (4..file.len() / 4096).find(|p| file[p * 4096 + 8] == 1).unwrap();
    let at = branch * 4096 + 16 + 8;
    file[at..at + 8].copy_from_slice(&(branch as u64).to_le_bytes());
    assert!(matches!(read(&file, b"key"), Err(BoltError::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read(
        map in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..40),
            prop::collection::vec(any::<u8>(), 0..3_000),
            0..200,
        ),
        other in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..9), Just(vec![]), 0..600),
    ) {
        let file = written(&[(b"a", map.clone()), (b"b", other.clone())]);
        prop_assert_eq!(read(&file, b"a").unwrap(), map.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(read(&file, b"b").unwrap(), other.into_iter().collect::<Vec<_>>());
    }

    /// Whatever is broken or cut: an error or records, and an end.
    #[test]
    fn a_broken_file_is_survived(
        at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut file = written(&[(b"a", numbered(40, 300)), (b"b", numbered(3, 3))]);
        let at = at.index(file.len());
        file[at] = to;
        let _ = read(&file, b"a");
        file.truncate(cut.index(file.len()));
        let _ = read(&file, b"a");
        let _ = read(&file, b"b");
    }
}
