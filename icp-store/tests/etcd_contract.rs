//! What the Storage port promises, asked of each client of a real etcd: ours, and with the feature `etcd-client` the one
//! over that crate. `etcd_differential` compares both with the embedded store, request by request.
#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use icp_core::storage::{
    AlarmKind, Compare, CompareOp, CompareTarget, DeleteRangeRequest, EventKind, KeyRange, Op, OpResponse,
    PutRequest, RangeRequest, Storage, StorageError, Txn, WatchRequest, WatchResponse, WatchStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

type Store = Arc<dyn Storage>;

/// Forwards to an etcd; its connections can be cut, and it can be closed for a time.
struct Proxy {
    url: String,
    /// Whether it is open; every change of it cuts all connections.
    open: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: &str) -> Self {
        let to = to.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let open = watch::Sender::new(true);
        let state = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, to) = (state.clone(), to.clone());
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Self { url, open }
    }

    fn cut(&self) {
        self.open.send_replace(true);
    }
}

fn put(key: &str, value: impl ToString) -> Op {
    Op::Put(PutRequest::new(key.as_bytes().to_vec(), value.to_string()))
}

fn all(success: Vec<Op>) -> Txn {
    Txn { success, ..Txn::default() }
}

async fn next(watch: &mut WatchStream) -> Result<WatchResponse, StorageError> {
    let next = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    next.expect("in time").expect("a live watch")
}

/// Events until `revision`, as revision and key; each batch begins after the one before it.
async fn keys_until(watch: &mut WatchStream, revision: i64) -> Vec<(i64, String)> {
    let (mut seen, mut delivered) = (Vec::new(), 0);
    while delivered < revision {
        let batch = next(watch).await.unwrap();
        assert!(batch.events.iter().all(|e| e.kv.mod_revision > delivered), "{batch:?} after {delivered}");
        delivered = batch.revision;
        seen.extend(
            batch
                .events
                .into_iter()
                .map(|e| (e.kv.mod_revision, String::from_utf8(e.kv.key.into()).unwrap())),
        );
    }
    seen
}

async fn comparisons(store: Store) {
    let revision = store.txn(all(vec![put("a", 1), put("b", 1), put("d", 2)])).await.unwrap().revision;
    let lease = store.lease_grant(0, 600).await.unwrap().id;
    let bound = Op::Put(PutRequest { lease, ..PutRequest::new("c", "1") });
    assert_eq!(store.txn(all(vec![bound])).await.unwrap().revision, revision + 1);
    use CompareOp::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{CreateRevision, Lease, ModRevision, Value, Version};
    let (key, some, open) = (KeyRange::key("a"), KeyRange::between("a", "c"), KeyRange::between("a", ""));
    for (range, op, target, holds) in [
        (key.clone(), Equal, Version(1), true),
        (key.clone(), Greater, Version(0), true),
        (KeyRange::key("none"), Equal, Version(0), true),
        (key.clone(), Less, CreateRevision(revision), false),
        (key, NotEqual, Lease(0), false),
        (KeyRange::key("c"), Equal, Lease(lease), true),
        // A comparison of a range holds if it holds for each key of it.
        (some.clone(), Equal, ModRevision(revision), true),
        (open.clone(), Equal, ModRevision(revision), false),
        (open.clone(), Less, ModRevision(revision + 2), true),
        (some.clone(), Equal, Value("1".into()), true),
        (open.clone(), Equal, Value("1".into()), false),
        (some, Equal, Lease(0), true),
        (open, Equal, Lease(0), false),
    ] {
        let compare = vec![Compare { range, op, target }];
        let answer = store.txn(Txn { compare: compare.clone(), ..Txn::default() }).await.unwrap();
        assert_eq!(answer.succeeded, holds, "{compare:?}");
    }
    let inner = Txn {
        compare: vec![Compare::mod_revision("a", 0)],
        success: vec![],
        failure: vec![
            Op::DeleteRange(DeleteRangeRequest { range: KeyRange::between("a", "c"), prev_kv: true }),
            Op::Range(RangeRequest::new(KeyRange::between("a", "")).limit(1)),
        ],
    };
    let answer = store.txn(all(vec![put("z", 1), Op::Txn(inner)])).await.unwrap();
    let [OpResponse::Put(_), OpResponse::Txn(inner)] = &answer.responses[..] else { panic!("{answer:?}") };
    let [OpResponse::DeleteRange(deleted), OpResponse::Range(left)] = &inner.responses[..] else {
        panic!("{inner:?}")
    };
    assert!(!inner.succeeded && deleted.deleted == 2 && deleted.prev_kvs[1].key == "b");
    assert_eq!((&left.kvs[0].key[..], left.kvs[0].lease, left.more, left.count), (&b"c"[..], lease, true, 3));
}

async fn leases(store: Store) {
    let granted = store.lease_grant(77, 600).await.unwrap();
    assert_eq!((granted.id, granted.ttl_secs), (77, 600));
    assert_eq!(store.lease_grant(77, 600).await, Err(StorageError::LeaseExists(77)));
    let chosen = store.lease_grant(0, 600).await.unwrap().id;
    let mut both = [77, chosen];
    both.sort_unstable();
    assert_eq!(store.leases().await.unwrap(), both);
    assert_eq!(store.lease_keep_alive(77).await.unwrap().ttl_secs, 600);
    store.txn(all(vec![Op::Put(PutRequest { lease: 77, ..PutRequest::new("bound", "") })])).await.unwrap();
    let status = store.lease_status(77).await.unwrap();
    assert_eq!((status.granted_ttl_secs, &status.keys[..]), (600, &["bound".into()][..]));
    assert!((595..=600).contains(&status.ttl_secs), "{status:?}");
    store.lease_revoke(77).await.unwrap();
    assert_eq!(store.range(RangeRequest::new(KeyRange::key("bound"))).await.unwrap().count, 0);
    for gone in [store.lease_revoke(77).await.err(), store.lease_keep_alive(77).await.err()] {
        assert_eq!(gone, Some(StorageError::LeaseNotFound(77)));
    }
    assert_eq!(store.lease_status(77).await.err(), Some(StorageError::LeaseNotFound(77)));
}

async fn errors_and_figures(store: Store) {
    for n in 0..4 {
        store.txn(all(vec![put("k", n)])).await.unwrap();
    }
    let hash = store.hash_kv(0).await.unwrap();
    assert_eq!((hash.revision, hash.compacted), (5, -1));
    assert_eq!(store.hash_kv(5).await.unwrap(), hash);
    store.compact(4).await.unwrap();
    assert_eq!(store.hash_kv(0).await.unwrap().compacted, 4);
    let at = |revision| store.range(RangeRequest::new(KeyRange::key("k")).at(revision));
    assert_eq!(at(2).await, Err(StorageError::Compacted { compacted: 0 }));
    assert_eq!(at(9).await, Err(StorageError::FutureRevision { requested: 9, current: 0 }));
    assert_eq!(store.compact(9).await, Err(StorageError::FutureRevision { requested: 9, current: 0 }));
    assert_eq!(store.compact(3).await, Err(StorageError::Compacted { compacted: 0 }));
    let twice = store.txn(all(vec![put("a", 1), put("a", 2)])).await;
    assert!(
        matches!(&twice, Err(StorageError::Invalid { message, .. }) if message.contains("duplicate key"))
    );
    let large = store.txn(all(vec![put("k", "x".repeat(1_600_000))])).await;
    assert!(matches!(large, Err(StorageError::TooLarge { .. })), "{large:?}");
    // More than a gRPC client takes by default.
    for n in 0..5 {
        store.txn(all(vec![put(&format!("large{n}"), "x".repeat(1_000_000))])).await.unwrap();
    }
    let read = store.range(RangeRequest::new(KeyRange::prefix("large"))).await.unwrap();
    assert_eq!(read.kvs.iter().map(|kv| kv.value.len()).sum::<usize>(), 5_000_000);
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("large"), 6)).await.unwrap();
    assert_eq!(keys_until(&mut watch, 10).await.len(), 5);
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.watches), (10, 1));
    assert!(status.size_bytes >= status.in_use_bytes && status.in_use_bytes > 4_000_000, "{status:?}");
    drop(watch);
    store.defragment().await.unwrap();

    assert_eq!(store.alarms().await.unwrap(), []);
    assert!(store.set_alarm(AlarmKind::NoSpace, true).await.unwrap());
    assert!(!store.set_alarm(AlarmKind::NoSpace, true).await.unwrap());
    assert_eq!(store.alarms().await.unwrap(), [AlarmKind::NoSpace]);
    let full = store.txn(all(vec![put("k", 1)])).await;
    assert!(matches!(full, Err(StorageError::NoSpace { .. })), "{full:?}");
    assert!(store.set_alarm(AlarmKind::NoSpace, false).await.unwrap());
    assert_eq!(store.txn(all(vec![put("k", 1)])).await.unwrap().revision, 11);
    assert_eq!(store.snapshot().await.err(), Some(StorageError::Unimplemented("snapshot")));
}

async fn watches(store: Store) {
    let watch = |change: fn(&mut WatchRequest)| {
        let mut request = WatchRequest::new(KeyRange::prefix("w/"), 0);
        change(&mut request);
        store.watch(request)
    };
    let mut plain = watch(|_| {}).await.unwrap();
    let mut with_prev = watch(|r| r.prev_kv = true).await.unwrap();
    let mut deletions = watch(|r| r.no_put = true).await.unwrap();
    let mut puts = watch(|r| r.no_delete = true).await.unwrap();
    let mut idle = watch(|r| {
        r.range = KeyRange::key("other");
        r.progress_notify = true;
    })
    .await
    .unwrap();
    store.txn(all(vec![put("w/a", 1), put("w/b", 1), put("v", 1)])).await.unwrap();
    let delete = DeleteRangeRequest { range: KeyRange::key("w/a"), prev_kv: false };
    store.txn(all(vec![Op::DeleteRange(delete)])).await.unwrap();
    let kinds = |batch: WatchResponse| batch.events.into_iter().map(|e| e.kind).collect::<Vec<_>>();
    let first = next(&mut plain).await.unwrap();
    assert_eq!((first.revision, first.events.len()), (2, 2));
    assert_eq!(first.events[0].prev_kv, None);
    assert_eq!(kinds(next(&mut plain).await.unwrap()), [EventKind::Delete]);
    assert_eq!(next(&mut with_prev).await.unwrap().revision, 2);
    let deleted = next(&mut with_prev).await.unwrap();
    assert_eq!(deleted.events[0].prev_kv.as_ref().unwrap().value, "1");
    assert_eq!(kinds(next(&mut deletions).await.unwrap()), [EventKind::Delete]);
    assert_eq!(kinds(next(&mut puts).await.unwrap()), [EventKind::Put; 2]);
    store.request_progress().await.unwrap();
    assert_eq!(next(&mut idle).await.unwrap(), WatchResponse { revision: 3, events: vec![] });
    // From the past on, and from the future on.
    let mut past = store.watch(WatchRequest::new(KeyRange::prefix("w/"), 2)).await.unwrap();
    assert_eq!(keys_until(&mut past, 3).await.len(), 3);
    let mut later = store.watch(WatchRequest::new(KeyRange::prefix("w/"), 5)).await.unwrap();
    for n in 0..2 {
        store.txn(all(vec![put("w/c", n)])).await.unwrap();
    }
    assert_eq!(keys_until(&mut later, 5).await, [(5, "w/c".into())]);
    store.compact(4).await.unwrap();
    let mut lost = match store.watch(WatchRequest::new(KeyRange::prefix("w/"), 2)).await {
        Ok(watch) => watch,
        Err(e) => return assert_eq!(e, StorageError::Compacted { compacted: 4 }),
    };
    assert_eq!(next(&mut lost).await, Err(StorageError::Compacted { compacted: 4 }));
    assert!(lost.next().await.is_none());
}

/// Connections break under a watch at every fifth transaction; `direct` writes meanwhile.
async fn resumption(direct: Store, proxied: Store, proxy: Proxy) {
    let mut watch = proxied.watch(WatchRequest::new(KeyRange::prefix("r/"), 0)).await.unwrap();
    let mut idle = WatchRequest::new(KeyRange::key("idle"), 0);
    idle.progress_notify = true;
    let mut idle = proxied.watch(idle).await.unwrap();
    let mut expected = Vec::new();
    let mut revision = 1;
    for round in 0..8 {
        for n in 0..5 {
            let keys = [format!("r/{round}/{n}/a"), format!("r/{round}/{n}/b"), format!("not/{round}")];
            revision = direct.txn(all(keys.iter().map(|k| put(k, n)).collect())).await.unwrap().revision;
            expected.extend(keys[..2].iter().map(|k| (revision, k.clone())));
            if n == 2 {
                proxy.cut();
            }
        }
        // Some rounds are read when the next cut has come already.
        if round % 3 == 2 {
            let seen = keys_until(&mut watch, revision).await;
            assert_eq!(seen, std::mem::take(&mut expected));
        }
    }
    assert_eq!(keys_until(&mut watch, revision).await, expected);
    // A watch that nothing happened to has a new connection too. Who asks for progress asks until it is told.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let told = loop {
        proxied.request_progress().await.unwrap();
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(200), idle.next()).await {
            break told.unwrap().unwrap();
        }
        assert!(tokio::time::Instant::now() < deadline, "no progress");
    };
    assert_eq!(told, WatchResponse { revision, events: vec![] });
    // What is compacted while nobody is connected cannot be resumed.
    proxy.open.send_replace(false);
    for n in 0..4 {
        revision = direct.txn(all(vec![put("r/late", n)])).await.unwrap().revision;
    }
    direct.compact(revision).await.unwrap();
    let refused = proxied.txn(all(vec![put("never", 1)])).await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    proxy.open.send_replace(true);
    assert_eq!(next(&mut watch).await, Err(StorageError::Compacted { compacted: revision }));
    assert!(watch.next().await.is_none());
    let never = proxied.range(RangeRequest::new(KeyRange::key("never"))).await.unwrap();
    assert_eq!((never.revision, never.count), (revision, 0));
}

async fn ours(url: &str) -> Store {
    use icp_store::etcd::{Client, ClientOptions};
    Arc::new(Client::new(&[url], ClientOptions::default()).unwrap())
}

#[cfg(feature = "etcd-client")]
async fn foreign(url: &str) -> Store {
    use icp_store::etcd::foreign::{Client, ClientOptions};
    for bad in [&[][..], &["http://"], &["https://127.0.0.1:1"]] {
        let refused = Client::connect(bad, ClientOptions::default()).await;
        assert!(matches!(refused, Err(StorageError::Invalid { field: "endpoint", .. })), "{bad:?}");
    }
    Arc::new(Client::connect(&[url], ClientOptions::default()).await.unwrap())
}

macro_rules! contract {
    ($module:ident, $connect:path) => {
        mod $module {
            use super::*;

            contract!($connect: comparisons leases errors_and_figures watches);

            #[tokio::test]
            async fn resumption() {
                let Some(etcd) = peer::Etcd::start() else { return };
                let proxy = Proxy::start(&etcd.url).await;
                let (direct, proxied) = ($connect(&etcd.url).await, $connect(&proxy.url).await);
                super::resumption(direct, proxied, proxy).await;
            }
        }
    };
    ($connect:path: $($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let Some(etcd) = peer::Etcd::start() else { return };
            super::$name($connect(&etcd.url).await).await;
        }
    )*};
}

contract!(our_client, super::ours);
#[cfg(feature = "etcd-client")]
contract!(foreign_client, super::foreign);
