//! Snapshots both ways between our store and the real etcd: status, restore, and what is served afterwards.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::StreamExt;
use icp_core::base::Rng;
use icp_core::storage::{
    DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Storage, Txn, WatchRequest,
};
use icp_store::etcd::server::{ServerOptions, serve};
use icp_store::etcd::{Client, ClientOptions, snapshot};
use icp_store::log::LogOptions;
use icp_store::{Disk, DiskOptions, Memory};

fn client(url: &str) -> Client {
    Client::new(&[url], ClientOptions::default()).unwrap()
}

async fn put(store: &dyn Storage, key: String, value: Vec<u8>, lease: i64) {
    let put = PutRequest { lease, ..PutRequest::new(key, value) };
    store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.unwrap();
}

/// A history with deletions, transactions of several keys, leases, large values and, at the end, a compaction.
async fn write_history(store: &dyn Storage, seed: u64, compact_at_a_deletion: bool) {
    let mut rng = Rng::new(seed);
    for id in [71, 72] {
        store.lease_grant(id, 3_000 + id).await.unwrap();
    }
    for n in 0..400_u32 {
        let key = |rng: &mut Rng| format!("k/{:03}", rng.below(60));
        match rng.below(10) {
            0 | 1 => {
                let range = KeyRange::between(key(&mut rng), format!("k/{:03}", rng.below(60)));
                let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
                store.txn(Txn { success: vec![delete], ..Txn::default() }).await.unwrap();
            }
            2 => {
                let put = |key: &str| Op::Put(PutRequest::new(key.to_string(), format!("t{n}")));
                let success = vec![put("t/b"), put("t/a"), put(&format!("t/{n}"))];
                store.txn(Txn { success, ..Txn::default() }).await.unwrap();
            }
            3 => put(store, key(&mut rng), vec![n as u8; 9_000], 71).await,
            4 => put(store, key(&mut rng), Vec::new(), 72).await,
            _ => put(store, key(&mut rng), format!("v{n}").into_bytes(), 0).await,
        }
    }
    put(store, "last".into(), b"1".to_vec(), 72).await;
    let delete = Op::DeleteRange(DeleteRangeRequest { range: KeyRange::key("last"), prev_kv: false });
    let deleted = store.txn(Txn { success: vec![delete], ..Txn::default() }).await.unwrap().revision;
    let to = if compact_at_a_deletion { deleted } else { deleted - 60 };
    store.compact(to).await.unwrap();
    for n in 0..5 {
        put(store, format!("after/{n}"), b"x".to_vec(), 0).await;
    }
}

/// What both stores must answer alike; revisions from the compacted one on.
async fn served(store: &dyn Storage) -> Vec<String> {
    let all = || RangeRequest::new(KeyRange::prefix(""));
    let now = store.range(all()).await.unwrap();
    let hash = store.hash_kv(0).await.unwrap();
    let mut seen = vec![format!("{hash:?}")];
    for revision in [hash.compacted, hash.compacted + 3, now.revision] {
        seen.push(format!("{revision}: {:?}", store.range(all().at(revision)).await.unwrap()));
        seen.push(format!("{:?}", store.hash_kv(revision.max(hash.compacted + 1)).await.unwrap().hash));
    }
    seen.push(format!("{:?}", store.range(all().at(hash.compacted - 1)).await.is_err()));
    let from = WatchRequest::new(KeyRange::prefix(""), hash.compacted + 1);
    let mut watch = store.watch(from).await.unwrap();
    let mut at = 0;
    while at < now.revision {
        let batch = watch.next().await.unwrap().unwrap();
        at = batch.revision;
        seen.extend(batch.events.iter().map(|e| format!("{e:?}")));
    }
    for id in store.leases().await.unwrap() {
        let mut lease = store.lease_status(id).await.unwrap();
        lease.keys.sort_unstable();
        seen.push(format!("lease {id} {} {:?}", lease.granted_ttl_secs, lease.keys));
    }
    seen
}

async fn same(theirs: &dyn Storage, ours: &dyn Storage, when: &str) {
    let (a, b) = (served(theirs).await, served(ours).await);
    for (a, b) in a.iter().zip(&b) {
        let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let [from_a, from_b] = [a, b].map(|t| &t[same.saturating_sub(200).min(t.len())..]);
        assert!(a == b, "{when}:\netcd {from_a:.400}\nours {from_b:.400}");
    }
    assert_eq!(a.len(), b.len(), "{when}");
}

fn etcdctl(args: &[&str]) -> String {
    let out =
        Command::new(peer::find("etcdctl").unwrap()).env("ETCDCTL_API", "3").args(args).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "etcdctl {args:?}: {error}");
    String::from_utf8_lossy(&out.stdout).trim().to_string()
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Snapshot status as JSON fields: hash, revision, keys.
fn status(file: &Path) -> (u64, i64, u64) {
    let text = etcdctl(&["snapshot", "status", file.to_str().unwrap(), "-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| json[name].as_u64().unwrap();
    (number("hash"), number("revision") as i64, number("totalKey"))
}

/// The numbers that `status` must print, by reading the file ourselves.
fn expected(file: &Path) -> (u64, i64, u64) {
    use icp_store::etcd::bolt::Reader;
    let bytes = std::fs::read(file).unwrap();
    let reader = Reader::open(&bytes[..]).unwrap();
    let (mut hash, mut revision, mut keys) = (0, 0, 0);
    let buckets: [&[u8]; 10] = [
        b"alarm",
        b"auth",
        b"authRoles",
        b"authUsers",
        b"cluster",
        b"key",
        b"lease",
        b"members",
        b"members_removed",
        b"meta",
    ];
    for bucket in buckets {
        hash = crc32c::crc32c_append(hash, bucket);
        let visit = |key: &[u8], value: &[u8]| {
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
            keys += 1;
            if bucket == b"key" {
                revision = i64::from_be_bytes(key[..8].try_into().unwrap());
            }
            Ok(())
        };
        reader.for_each(bucket, visit).unwrap();
    }
    (u64::from(hash), revision, keys)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_real_etcd_serves_what_our_store_held() {
    if peer::find("etcd").is_none() || peer::find("etcdctl").is_none() {
        return;
    }
    for (seed, at_a_deletion) in [(1, false), (2, true)] {
        let (dir, runtime) = (Dir(peer::temp_dir("out")), runtime());
        let ours = Memory::new();
        runtime.block_on(write_history(&ours, seed, at_a_deletion));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(serve(listener, Arc::new(ours.clone()), ServerOptions::default()));
        let file = dir.0.join("snapshot.db");
        etcdctl(&["--endpoints", &address, "snapshot", "save", file.to_str().unwrap()]);
        assert_eq!(status(&file), expected(&file));
        assert_eq!(status(&file).1, ours.revision());

        let etcd = peer::Etcd::start_from(Some(&file)).unwrap();
        let theirs = client(&etcd.url);
        runtime.block_on(same(&theirs, &ours, &format!("seed {seed}")));
        // Both go on from there alike.
        for store in [&theirs as &dyn Storage, &ours] {
            runtime.block_on(write_more(store));
        }
        runtime.block_on(same(&theirs, &ours, &format!("seed {seed}, later")));
    }
}

async fn write_more(store: &dyn Storage) {
    store.lease_revoke(71).await.unwrap();
    for n in 0..30 {
        put(store, format!("k/{n:03}"), b"more".to_vec(), 72).await;
    }
}

#[test]
fn our_store_serves_what_a_real_etcd_held() {
    if peer::find("etcd").is_none() || peer::find("etcdctl").is_none() {
        return;
    }
    for (seed, at_a_deletion) in [(3, false), (4, true)] {
        let (dir, runtime) = (Dir(peer::temp_dir("in")), runtime());
        let etcd = peer::Etcd::start().unwrap();
        let theirs = client(&etcd.url);
        runtime.block_on(write_history(&theirs, seed, at_a_deletion));
        let file = dir.0.join("snapshot.db");
        let endpoint = etcd.url.trim_start_matches("http://").to_string();
        etcdctl(&["--endpoints", &endpoint, "snapshot", "save", file.to_str().unwrap()]);

        let into = dir.0.join("ours");
        let read = snapshot::restore(&file, &into, LogOptions::default()).unwrap();
        let again = snapshot::restore(&file, &into, LogOptions::default());
        assert!(matches!(again, Err(snapshot::RestoreError::NotEmpty { .. })), "{again:?}");
        let ours = Disk::open(&into, DiskOptions::default()).unwrap();
        assert_eq!((read.revision, read.leases), (ours.revision(), 2));
        runtime.block_on(same(&theirs, &ours, &format!("seed {seed}")));
        for store in [&theirs as &dyn Storage, &ours] {
            runtime.block_on(write_more(store));
        }
        runtime.block_on(same(&theirs, &ours, &format!("seed {seed}, later")));

        let mut bytes = std::fs::read(&file).unwrap();
        bytes[5_000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let broken = snapshot::restore(&file, &dir.0.join("broken"), LogOptions::default());
        assert!(matches!(broken, Err(snapshot::RestoreError::Checksum { .. })), "{broken:?}");
    }
}
