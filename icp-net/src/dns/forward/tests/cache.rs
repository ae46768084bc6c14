//! The cache against a list that is searched from end to end.

use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use proptest::prelude::*;

use crate::dns::CacheConfig;
use crate::dns::forward::cache::{Answer, Cache, Key};
use crate::dns::wire::{CLASS_IN, Record, Section, rtype};

fn key(n: u8) -> Key {
    Key {
        name: alloc::format!("n{n}.test").parse().unwrap(),
        rtype: rtype::A,
        class: CLASS_IN,
        recursion_desired: true,
        dnssec_ok: n < 6,
        checking_disabled: false,
    }
}

fn answer(n: u8, ttl_secs: u32) -> Arc<Answer> {
    let record =
        Record { name: key(n).name, rtype: rtype::A, class: CLASS_IN, ttl_secs, data: [n, 0, 0, 0].into() };
    Arc::new(Answer { rcode: 0, authentic: false, records: Vec::from([(Section::Answer, record)]) })
}

proptest! {
    #[test]
    fn it_holds_what_was_used_last(
        steps in proptest::collection::vec((any::<bool>(), 0..12_u8, 5..40_u32, 0..10_u64), 1..120),
    ) {
        let config = CacheConfig { success_max: 5, stale_secs: 20, ..CacheConfig::default() };
        let mut cache = Cache::new(config, 1);
        // Least recently used first: (key, stored, ttl).
        let mut model: Vec<(u8, Time, u32)> = Vec::new();
        let mut now = Time::from_secs(1000);
        for (put, n, ttl_secs, wait) in steps {
            now = now + Duration::from_secs(wait);
            let place = model.iter().position(|(k, ..)| *k == n);
            if put {
                cache.put(&key(n), &answer(n, ttl_secs), now);
                place.map(|p| model.remove(p));
                model.push((n, now, ttl_secs));
                if model.len() > 5 {
                    model.remove(0);
                }
            } else {
                let age = |stored: Time| now.since(stored).as_secs() as u32;
                let expected = place.and_then(|p| {
                    let (_, stored, ttl_secs) = model[p];
                    if age(stored) < ttl_secs {
                        let item = model.remove(p);
                        model.push(item);
                        return Some(age(stored));
                    }
                    if age(stored) - ttl_secs >= 20 {
                        model.remove(p);
                    }
                    None
                });
                let got = cache.get(&key(n), now);
                if let Some((found, ..)) = &got {
                    prop_assert_eq!(found.records[0].1.data[0], n);
                }
                prop_assert_eq!(got.map(|(_, age, _)| age), expected);
            }
            let stale = model.iter().find(|(k, ..)| *k == n).is_some_and(|(_, stored, ttl)| {
                (now.since(*stored).as_secs() as u32).saturating_sub(*ttl) < 20
            });
            prop_assert_eq!(cache.stale(&key(n), now).is_some(), stale);
            prop_assert_eq!(cache.entries(super::super::Kind::Success), model.len());
        }
    }
}

#[test]
fn its_bytes_are_bounded() {
    let config = CacheConfig { bytes_max: 10_000, ..CacheConfig::default() };
    let mut cache = Cache::new(config, 1);
    for n in 0..200 {
        let mut big = (*answer(n, 60)).clone();
        big.records[0].1.data = alloc::vec![0; 1000];
        cache.put(&key(n), &Arc::new(big), Time::ZERO);
    }
    let held = (0..200).filter(|n| cache.get(&key(*n), Time::ZERO).is_some()).count();
    assert!((5..10).contains(&held), "{held}");
    assert!(cache.get(&key(199), Time::ZERO).is_some());
    assert_eq!(cache.evictions[0], 200 - held as u64);
}
