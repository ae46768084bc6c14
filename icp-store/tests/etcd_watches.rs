//! Many watches of one client, dropped or left unread: they share its connection, and must not end it.
#![cfg(feature = "etcd")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use icp_core::storage::{KeyRange, Op, PutRequest, Storage, Txn, WatchRequest, WatchStream};
use icp_store::Memory;
use icp_store::etcd::server::{ServerOptions, serve};
use icp_store::etcd::{Client, ClientOptions};
use tokio::net::{TcpListener, TcpStream};

/// A client whose connections to `to` are counted.
async fn counted(to: String) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut to = TcpStream::connect(&to).await.unwrap();
            from.set_nodelay(true).unwrap();
            to.set_nodelay(true).unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    (Client::new(&[url], ClientOptions::default()).unwrap(), count)
}

async fn ours() -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, Arc::new(Memory::new()), ServerOptions::default()));
    counted(address).await
}

async fn put(client: &Client) -> i64 {
    let put = Op::Put(PutRequest::new("k", "v"));
    client.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap().revision
}

async fn watch(client: &Client) -> WatchStream {
    client.watch(WatchRequest::new(KeyRange::prefix("k"), 0)).await.unwrap()
}

/// The revisions of a watch's events up to `last`.
async fn revisions(watch: &mut WatchStream, last: i64) -> Vec<i64> {
    let mut seen: Vec<i64> = Vec::new();
    while seen.last().is_none_or(|seen| *seen < last) {
        let next = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
        seen.extend(next.unwrap().unwrap().events.into_iter().map(|e| e.kv.mod_revision));
    }
    seen
}

/// Input: 3,000 watches, each with a few events, are dropped with events taken, unread or still to come.
/// Output: one connection, every write is answered, and a watch beside them sees every revision once.
async fn dropped(client: Client, connections: Arc<AtomicUsize>) {
    let mut kept = watch(&client).await;
    let mut revision = 1;
    for _ in 0..30 {
        let mut watches = Vec::new();
        for _ in 0..100 {
            watches.push(watch(&client).await);
        }
        for n in 0..3 {
            revision = put(&client).await;
            if n == 1 {
                watches.truncate(50);
            }
        }
        for watch in watches.iter_mut().take(25) {
            revisions(watch, revision).await;
        }
    }
    assert_eq!(revision, 91);
    assert_eq!(revisions(&mut kept, revision).await, (2..=revision).collect::<Vec<i64>>());
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

/// Input: watches are left unread while more is written than they queue, and more small frames are sent than a connection
/// bears unread; then some are read.
/// Output: one connection, every write is answered, and the watches that are read see every revision once.
async fn unread(client: Client, connections: Arc<AtomicUsize>) {
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(watch(&client).await);
    }
    let mut revision = 1;
    while revision < 5_000 {
        revision = put(&client).await;
    }
    for watch in watches.iter_mut().take(2) {
        assert_eq!(revisions(watch, revision).await, (2..=revision).collect::<Vec<i64>>());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn dropped_watches_leave_the_connection_of_our_server_open() {
    let (client, connections) = ours().await;
    dropped(client, connections).await;
}

#[tokio::test]
async fn dropped_watches_leave_the_connection_of_etcd_open() {
    let Some(etcd) = peer::Etcd::start() else { return };
    let (client, connections) = counted(etcd.url.trim_start_matches("http://").into()).await;
    dropped(client, connections).await;
}

#[tokio::test]
async fn unread_watches_leave_the_connection_of_our_server_open_and_miss_nothing() {
    let (client, connections) = ours().await;
    unread(client, connections).await;
}

#[tokio::test]
async fn unread_watches_leave_the_connection_of_etcd_open_and_miss_nothing() {
    let Some(etcd) = peer::Etcd::start() else { return };
    let (client, connections) = counted(etcd.url.trim_start_matches("http://").into()).await;
    unread(client, connections).await;
}
