//! The same requests to our stores and to a real etcd, through our client: the same answers.
#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use futures_util::StreamExt;
use icp_core::base::Rng;
use icp_core::storage::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, KeyRange, KvHash, Op, OpResponse, PutRequest,
    RangeRequest, SortBy, SortOrder, Storage, StorageError, Txn, TxnResponse, WatchRequest, WatchResponse,
};
use icp_store::Memory;
use icp_store::etcd::{Client, ClientOptions};

fn key(rng: &mut Rng) -> String {
    format!("k{}", rng.below(5))
}

fn range(rng: &mut Rng) -> KeyRange {
    match rng.below(4) {
        0 | 1 => KeyRange::key(key(rng)),
        2 => KeyRange::between(key(rng), key(rng)),
        _ => KeyRange::between(key(rng), ""),
    }
}

fn number(rng: &mut Rng, revision: i64) -> i64 {
    match rng.below(3) {
        0 => 0,
        1 => rng.below(4) as i64,
        _ => (revision - rng.below(6) as i64).max(0),
    }
}

fn range_request(rng: &mut Rng, revision: i64) -> RangeRequest {
    let mut r = RangeRequest::new(range(rng)).limit(rng.below(4) as i64);
    if rng.chance(400_000) {
        r.revision = (revision + 2 - rng.below(12) as i64).max(0);
    }
    // Without an order etcd sorts unstably by what is not unique, so only keys and revisions of change are compared.
    r.sort_order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][rng.below(3) as usize];
    r.sort_by = [SortBy::Key, SortBy::ModRevision, SortBy::Key][rng.below(3) as usize];
    if r.sort_order != SortOrder::None {
        r.sort_by = SortBy::Key;
    }
    r.keys_only = rng.chance(200_000);
    r.count_only = rng.chance(100_000);
    if rng.chance(200_000) {
        r.min_mod_revision = number(rng, revision);
        r.max_create_revision = number(rng, revision);
    }
    r
}

fn op(rng: &mut Rng, revision: i64, depth: u32) -> Op {
    match rng.below(if depth > 0 { 8 } else { 7 }) {
        0..4 => {
            let mut put = PutRequest::new(key(rng), format!("v{}", rng.below(4)));
            put.prev_kv = rng.chance(300_000);
            if rng.chance(100_000) {
                put.ignore_value = true;
                if rng.chance(900_000) {
                    put.value = Default::default();
                }
            }
            if rng.chance(200_000) {
                put.lease = 7 + rng.below(2) as i64;
            }
            Op::Put(put)
        }
        4 => {
            // etcd overlooks puts that overlap a deletion without an upper end; we refuse them, as its API says.
            let range = Some(range(rng)).filter(|r| r.end.as_ref().is_none_or(|e| !e.is_empty()));
            let range = range.unwrap_or(KeyRange::between("k2", "k9"));
            Op::DeleteRange(DeleteRangeRequest { range, prev_kv: rng.chance(500_000) })
        }
        5 | 6 => Op::Range(range_request(rng, revision)),
        _ => Op::Txn(txn(rng, revision, depth - 1)),
    }
}

fn compare(rng: &mut Rng, revision: i64) -> Compare {
    let op =
        [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual][rng.below(4) as usize];
    let target = match rng.below(5) {
        0 => CompareTarget::Version(number(rng, revision)),
        1 => CompareTarget::CreateRevision(number(rng, revision)),
        2 => CompareTarget::ModRevision(number(rng, revision)),
        3 => CompareTarget::Value(format!("v{}", rng.below(4)).into()),
        _ => CompareTarget::Lease(rng.below(2) as i64 * 7),
    };
    Compare { range: range(rng), op, target }
}

fn txn(rng: &mut Rng, revision: i64, depth: u32) -> Txn {
    let ops = |rng: &mut Rng| (0..rng.below(4)).map(|_| op(rng, revision, depth)).collect::<Vec<_>>();
    let (success, failure) = (ops(rng), ops(rng));
    Txn { compare: (0..rng.below(3)).map(|_| compare(rng, revision)).collect(), success, failure }
}

/// etcd leaves the revision of an inner transaction's answer empty.
fn without_inner_revisions(mut response: TxnResponse, inner: bool) -> TxnResponse {
    if inner {
        response.revision = 0;
    }
    for op in &mut response.responses {
        if let OpResponse::Txn(nested) = op {
            *nested = without_inner_revisions(core::mem::take(nested), true);
        }
    }
    response
}

/// An answer without what only an embedded store knows (figures in errors).
fn plain<T: std::fmt::Debug>(answer: Result<T, StorageError>) -> String {
    match answer {
        Ok(t) => format!("{t:?}"),
        Err(StorageError::Compacted { .. }) => "compacted".into(),
        Err(StorageError::FutureRevision { .. }) => "future".into(),
        Err(StorageError::LeaseNotFound(_)) => "no lease".into(),
        Err(StorageError::Invalid { message, .. }) => format!("invalid {message}"),
        Err(e) => format!("{e:?}"),
    }
}

/// The events of a watch up to a revision.
async fn events(store: &dyn Storage, request: WatchRequest, until: i64) -> Result<Vec<String>, StorageError> {
    let mut watch = store.watch(request).await?;
    let (mut seen, mut revision) = (Vec::new(), 0);
    while revision < until {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), watch.next()).await;
        let WatchResponse { revision: at, events } = next.expect("events in time").expect("a live watch")?;
        assert!(events.iter().all(|e| e.kv.mod_revision > revision), "a revision was split or repeated");
        revision = at.max(events.last().map_or(0, |e| e.kv.mod_revision));
        seen.extend(events.iter().map(|e| format!("{e:?}")));
    }
    Ok(seen)
}

#[tokio::test]
async fn random_requests_get_the_answers_of_etcd() {
    let Some(etcd) = peer::Etcd::start() else { return };
    let theirs = Client::new(&[&etcd.url], ClientOptions::default()).unwrap();
    let ours = Memory::new();
    let mut rng = Rng::new(20_261_124);
    for store in [&theirs as &dyn Storage, &ours] {
        store.lease_grant(7, 3_600).await.unwrap();
    }
    let mut compacted = 0;
    for n in 0..3_000 {
        let revision = ours.revision();
        if rng.chance(20_000) {
            let to = revision + 1 - rng.below(8) as i64;
            let (a, b) = (theirs.compact(to).await, ours.compact(to).await);
            if a.is_ok() {
                compacted = to;
            }
            assert_eq!(plain(a), plain(b), "step {n}: compact {to} at {revision}");
        } else if rng.chance(300_000) {
            let request = range_request(&mut rng, revision);
            let (a, b) = (theirs.range(request.clone()).await, ours.range(request.clone()).await);
            assert_eq!(plain(a), plain(b), "step {n}: {request:?}");
        } else {
            let txn = txn(&mut rng, revision, 2);
            let (a, b) = (theirs.txn(txn.clone()).await, ours.txn(txn.clone()).await);
            let [a, b] = [a, b].map(|r| r.map(|t| without_inner_revisions(t, false)));
            assert_eq!(plain(a), plain(b), "step {n}: {txn:#?}");
        }
    }
    let last = Txn { success: vec![Op::Put(PutRequest::new("k0", "end"))], ..Txn::default() };
    let until = ours.txn(last.clone()).await.unwrap().revision;
    assert_eq!(theirs.txn(last).await.unwrap().revision, until);
    for start in [compacted - 1, compacted + 1, compacted + 2, until - 3] {
        for prev_kv in [false, true] {
            let mut request = WatchRequest::new(KeyRange::prefix("k"), start);
            request.prev_kv = prev_kv;
            let (a, b) = (events(&theirs, request.clone(), until).await, events(&ours, request, until).await);
            assert_eq!(plain(a), plain(b), "watch from {start}, compacted {compacted}");
        }
    }
}

#[tokio::test]
async fn our_client_uses_a_real_etcd_and_resumes_watches() {
    let Some(etcd) = peer::Etcd::start() else { return };
    let store = Client::new(&["http://127.0.0.1:1", &etcd.url], ClientOptions::default()).unwrap();
    let put = |v: String| Txn { success: vec![Op::Put(PutRequest::new("w/k", v))], ..Txn::default() };
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("w/"), 0)).await.unwrap();
    for n in 0..3 {
        let revision = store.txn(put(n.to_string())).await.unwrap().revision;
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (revision, 1));
    }
    let mut request = WatchRequest::new(KeyRange::key("other"), 0);
    request.progress_notify = true;
    let mut idle = store.watch(request).await.unwrap();
    store.request_progress().await.unwrap();
    let progress = idle.next().await.unwrap().unwrap();
    assert_eq!((progress.revision, progress.events.len()), (4, 0));

    let lease = store.lease_grant(0, 30).await.unwrap();
    assert_eq!(store.lease_keep_alive(lease.id).await.unwrap().ttl_secs, 30);
    assert_eq!(store.lease_status(lease.id).await.unwrap().granted_ttl_secs, 30);
    assert_eq!(store.leases().await.unwrap(), [lease.id]);
    store.lease_revoke(lease.id).await.unwrap();
    assert_eq!(store.lease_keep_alive(lease.id).await, Err(StorageError::LeaseNotFound(lease.id)));
    assert_eq!(store.status().await.unwrap().revision, 4);
}

/// etcd's hash of everything up to a revision, or its error.
fn their_hash(etcdctl: &std::path::Path, url: &str, revision: i64) -> Result<KvHash, String> {
    let out = std::process::Command::new(etcdctl)
        .args(["--endpoints", url, "endpoint", "hashkv", "-w", "json", "--rev", &revision.to_string()])
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let answer = &answer[0]["HashKV"];
    let number = |v: &serde_json::Value| v.as_i64().unwrap_or(0);
    Ok(KvHash {
        revision: number(&answer["header"]["revision"]),
        compacted: number(&answer["compact_revision"]),
        hash: number(&answer["hash"]) as u32,
    })
}

#[tokio::test]
async fn hashes_are_the_numbers_of_etcd() {
    let (Some(etcd), Some(etcdctl)) = (peer::Etcd::start(), peer::find("etcdctl")) else { return };
    let theirs = Client::new(&[&etcd.url], ClientOptions::default()).unwrap();
    let ours = Memory::new();
    let mut rng = Rng::new(20_261_125);
    for store in [&theirs as &dyn Storage, &ours] {
        store.lease_grant(7, 3_600).await.unwrap();
    }
    let mut compacted = 0;
    for round in 0..8 {
        let mut n = 0;
        while n < 40 {
            let txn = txn(&mut rng, ours.revision(), 1);
            let done = ours.txn(txn.clone()).await;
            assert_eq!(theirs.txn(txn).await.is_ok(), done.is_ok());
            n += i64::from(done.is_ok());
        }
        if round == 5 {
            // Without a key the hash counts what the compaction left.
            let range = KeyRange::prefix("");
            let op = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
            let all = Txn { success: vec![op], ..Txn::default() };
            let revision = ours.txn(all.clone()).await.unwrap().revision;
            assert_eq!(theirs.txn(all).await.unwrap().revision, revision);
        }
        let now = ours.revision();
        let back = |n: i64| (now - n).max(0);
        for revision in
            [0, now + 1, now, back(1), back(7), back(20), compacted + 1, compacted, (compacted - 1).max(0)]
        {
            let (a, b) = (their_hash(&etcdctl, &etcd.url, revision), ours.hash_kv(revision).await);
            match (a, b) {
                (Ok(a), Ok(b)) => assert_eq!(a, b, "round {round}: revision {revision} of {now}"),
                (Err(a), Err(b)) => {
                    let known = if revision > now { "future revision" } else { "compacted" };
                    assert!(a.contains(known) && b.to_string().contains(known), "{revision}: {a} {b}");
                }
                (a, b) => panic!("revision {revision} of {now}, compacted {compacted}: {a:?} {b:?}"),
            }
        }
        compacted = now - rng.below(12) as i64;
        ours.compact(compacted).await.unwrap();
        let done = std::process::Command::new(&etcdctl)
            .args(["--endpoints", &etcd.url, "compaction", "--physical", &compacted.to_string()])
            .env("ETCDCTL_API", "3")
            .output();
        assert!(done.unwrap().status.success());
    }
}
