//! A second client of a real etcd: the [`Storage`] port over the crate `etcd-client`.
//!
//! [`super::Client`] is the one to take. This one is for who has an `etcd_client::Client` already, or needs what that
//! crate has beside the port: user names with passwords, endpoints that come and go, a channel of one's own. The crate
//! compiles etcd's `.proto` files when it is built, so that the feature `etcd-client` needs `protoc`; no other feature
//! does.
//!
//! What differs from [`super::Client`]:
//! * The crate sends each request to one of the endpoints, whether it answers or not: a write that meets an endpoint that
//!   is down is [`StorageError::Unavailable`]. Reads are tried three times.
//! * `https` endpoints need a TLS feature of the crate (`tls-ring`), which is the user's to switch on; without one they
//!   are [`StorageError::Invalid`].
//! * A watch is read when its events are taken. Hundreds of small frames that stay unread, or that come for watches which
//!   were dropped, may end the connection that all share: watches resume, requests under way are
//!   [`StorageError::Unavailable`].
//! * [`StorageError::TooLarge`] does not tell the size of the request.
//! * The keys of one lease are read up to 4 MB, which is the crate's limit.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, Txn};
//! use icp_store::{Memory, etcd};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let url = format!("http://{}", listener.local_addr().unwrap());
//! let server = etcd::server::serve(listener, Arc::new(Memory::new()), etcd::server::ServerOptions::default());
//! let server = tokio::spawn(server);
//!
//! let client = etcd::foreign::Client::connect(&[&url], etcd::foreign::ClientOptions::default()).await?;
//! let put = Txn { success: vec![Op::Put(PutRequest::new("k", "v"))], ..Txn::default() };
//! assert_eq!(client.txn(put).await?.revision, 2);
//! assert_eq!(client.range(RangeRequest::new(KeyRange::key("k"))).await?.kvs[0].value, "v");
//! server.abort();
//! # Ok::<(), icp_core::storage::StorageError>(()) }).unwrap();
//! ```

mod convert;
mod watch;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;

use ::etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, ConnectOptions, Error, KvClient, LeaseClient, LeaseGrantOptions,
    LeaseTimeToLiveOptions, MaintenanceClient, WatchClient,
};
use async_trait::async_trait;
use icp_core::base::Duration;
use icp_core::storage::{
    AlarmKind, KvHash, LeaseId, LeaseStatus, LeaseTtl, RangeRequest, RangeResponse, Revision, Storage,
    StorageError, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};
use tokio::sync::watch as signal;

use super::convert::{Asked, alarm, alarm_to};

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long one try to connect may take. Of [`Client::connect`] alone.
    pub connect_timeout: Duration,
    /// How often an idle connection is probed; it is given up after as long again without an answer. Of
    /// [`Client::connect`] alone.
    pub keep_alive_interval: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// Longest wait before a watch tries to connect again.
    pub retry_delay_max: Duration,
    /// Largest answer to a range or a transaction, and largest batch of a watch, in bytes.
    pub message_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            retry_delay_max: Duration::from_secs(5),
            message_bytes_max: 1 << 30,
        }
    }
}

/// How often a read is tried while the store is unavailable.
const READ_TRIES: u32 = 3;
/// A write whose outcome is unknown is not repeated.
const WRITE_TRIES: u32 = 1;

/// A store in an etcd cluster, through the crate `etcd-client`.
///
/// It resumes watches from the revision after the last delivered one, so that nothing is missed or repeated. It needs a
/// tokio runtime. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    maintenance: MaintenanceClient,
    options: Arc<ClientOptions>,
    /// Counts the requests for progress; each open watch that promised it holds a receiver.
    progress: Arc<signal::Sender<u64>>,
    /// Each open watch holds a receiver.
    watches: Arc<signal::Sender<()>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the cluster with these endpoints (`http://host:port`). It connects with the first request.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if an endpoint is not understood, or if there is none.
    pub async fn connect(
        endpoints: &[impl AsRef<str>],
        options: ClientOptions,
    ) -> Result<Self, StorageError> {
        let connect = ConnectOptions::new()
            .with_connect_timeout(options.connect_timeout)
            .with_keep_alive(options.keep_alive_interval, options.keep_alive_interval)
            .with_keep_alive_while_idle(true);
        match ::etcd_client::Client::connect(endpoints, Some(connect)).await {
            Ok(client) => Ok(Self::over(&client, options)),
            Err(e) => Err(convert::error(&e, Asked::default())),
        }
    }

    /// The port over a client that is connected in a way of one's own: with a user, with TLS, with another channel.
    #[must_use]
    pub fn over(client: &::etcd_client::Client, options: ClientOptions) -> Self {
        let bytes_max = options.message_bytes_max;
        Self {
            kv: client.kv_client().max_decoding_message_size(bytes_max),
            watch: client.watch_client().max_decoding_message_size(bytes_max),
            lease: client.lease_client(),
            maintenance: client.maintenance_client(),
            options: Arc::new(options),
            progress: Arc::new(signal::Sender::new(0)),
            watches: Arc::new(signal::Sender::new(())),
        }
    }

    /// Asks, at most `tries` times while the store is unavailable, and at most for as long as a request may take.
    async fn call<T, F>(&self, asked: Asked, tries: u32, ask: impl Fn() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tried = 1;
        loop {
            let error = match tokio::time::timeout(self.options.request_timeout, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => convert::error(&e, asked),
                Err(_) => {
                    let detail = alloc::format!("no answer in {:?}", self.options.request_timeout);
                    return Err(StorageError::Unavailable { detail });
                }
            };
            if tried >= tries || !matches!(error, StorageError::Unavailable { .. }) {
                return Err(error);
            }
            tried += 1;
        }
    }

    /// The alarms that are raised, with the members that raised them.
    async fn alarm_members(&self) -> Result<Vec<(u64, i32)>, StorageError> {
        let ask = || {
            let mut maintenance = self.maintenance.clone();
            async move { maintenance.alarm(AlarmAction::Get, AlarmType::None, None).await }
        };
        let answer = self.call(Asked::default(), READ_TRIES, ask).await?;
        Ok(answer.0.alarms.iter().map(|m| (m.member_id, m.alarm)).collect())
    }
}

#[async_trait]
impl Storage for Client {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        let asked = Asked { revision: request.revision, ..Asked::default() };
        let (key, options) = convert::range_to(request);
        let ask = || {
            let (mut kv, key, options) = (self.kv.clone(), key.clone(), options.clone());
            async move { kv.get(key, Some(options)).await }
        };
        Ok(convert::range_response(self.call(asked, READ_TRIES, ask).await?))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        let txn = convert::txn_to(txn);
        let ask = || {
            let (mut kv, txn) = (self.kv.clone(), txn.clone());
            async move { kv.txn(txn).await }
        };
        convert::txn_response(&self.call(Asked::default(), WRITE_TRIES, ask).await?)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        watch::begin(self, request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        let asked = Asked { revision, ..Asked::default() };
        let ask = || {
            let mut kv = self.kv.clone();
            async move { kv.compact(revision, None).await }
        };
        self.call(asked, WRITE_TRIES, ask).await.map(drop)
    }

    async fn request_progress(&self) -> Result<(), StorageError> {
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        let asked = Asked { lease: id, ..Asked::default() };
        let ask = || {
            let mut lease = self.lease.clone();
            async move { lease.grant(ttl_secs, Some(LeaseGrantOptions::new().with_id(id))).await }
        };
        let granted = self.call(asked, WRITE_TRIES, ask).await?;
        if !granted.error().is_empty() {
            return Err(StorageError::Unavailable { detail: granted.error().into() });
        }
        Ok(LeaseTtl { id: granted.id(), ttl_secs: granted.ttl() })
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        let asked = Asked { lease: id, ..Asked::default() };
        // The crate keeps the first answer of its stream to itself, so that the lease is renewed a second time.
        let ask = || {
            let mut lease = self.lease.clone();
            async move {
                let (mut keeper, mut answers) = lease.keep_alive(id).await?;
                keeper.keep_alive().await?;
                let Some(renewed) = answers.message().await? else {
                    return Err(Error::LeaseKeepAliveError("the stream ended".into()));
                };
                Ok(renewed.ttl())
            }
        };
        match self.call(asked, READ_TRIES, ask).await? {
            ..=0 => Err(StorageError::LeaseNotFound(id)),
            ttl_secs => Ok(LeaseTtl { id, ttl_secs }),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError> {
        let asked = Asked { lease: id, ..Asked::default() };
        let ask = || {
            let mut lease = self.lease.clone();
            async move { lease.revoke(id).await }
        };
        self.call(asked, WRITE_TRIES, ask).await.map(drop)
    }

    async fn lease_status(&self, id: LeaseId) -> Result<LeaseStatus, StorageError> {
        let ask = || {
            let mut lease = self.lease.clone();
            async move { lease.time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys())).await }
        };
        let left = self.call(Asked::default(), READ_TRIES, ask).await?;
        if left.ttl() < 0 {
            return Err(StorageError::LeaseNotFound(id));
        }
        let (ttl_secs, granted_ttl_secs) = (left.ttl(), left.granted_ttl());
        let keys = left.0.keys.into_iter().map(Into::into).collect();
        Ok(LeaseStatus { id, ttl_secs, granted_ttl_secs, keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StorageError> {
        let ask = || {
            let mut lease = self.lease.clone();
            async move { lease.leases().await }
        };
        let all = self.call(Asked::default(), READ_TRIES, ask).await?;
        let mut ids: Vec<LeaseId> = all.leases().iter().map(|l| l.id()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn status(&self) -> Result<StoreStatus, StorageError> {
        let ask = || {
            let mut maintenance = self.maintenance.clone();
            async move { maintenance.status().await }
        };
        let status = self.call(Asked::default(), READ_TRIES, ask).await?;
        Ok(StoreStatus {
            revision: convert::revision(status.header()),
            compacted: 0,
            size_bytes: u64::try_from(status.db_size()).unwrap_or(0),
            in_use_bytes: u64::try_from(status.raft_used_db_size()).unwrap_or(0),
            watches: self.watches.receiver_count(),
            ..StoreStatus::default()
        })
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, StorageError> {
        let asked = Asked { revision, ..Asked::default() };
        let ask = || {
            let mut maintenance = self.maintenance.clone();
            async move { maintenance.hash_kv(revision).await }
        };
        let hash = self.call(asked, READ_TRIES, ask).await?;
        Ok(KvHash {
            revision: convert::revision(hash.header()),
            compacted: hash.compact_version(),
            hash: hash.hash(),
        })
    }

    async fn alarms(&self) -> Result<Vec<AlarmKind>, StorageError> {
        let members = self.alarm_members().await?;
        let mut kinds: Vec<AlarmKind> = members.into_iter().filter_map(|(_, kind)| alarm(kind)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }

    async fn set_alarm(&self, kind: AlarmKind, raised: bool) -> Result<bool, StorageError> {
        let (theirs, number) = match (kind, alarm_to(kind)) {
            (AlarmKind::NoSpace, Some(number)) => (AlarmType::Nospace, number),
            (AlarmKind::Corrupt, Some(number)) => (AlarmType::Corrupt, number),
            _ => return Err(StorageError::Unimplemented("this alarm")),
        };
        // etcd notes an alarm for each member that raised it; all of them are disarmed.
        let members = self.alarm_members().await?;
        let noted: Vec<u64> = members.into_iter().filter(|(_, n)| *n == number).map(|(id, _)| id).collect();
        if raised != noted.is_empty() {
            return Ok(false);
        }
        let action = || if raised { AlarmAction::Activate } else { AlarmAction::Deactivate };
        for member in if raised { alloc::vec![0] } else { noted } {
            let ask = || {
                let (mut maintenance, action) = (self.maintenance.clone(), action());
                let mut options = AlarmOptions::new();
                options.with_member(member);
                async move { maintenance.alarm(action, theirs, Some(options)).await }
            };
            self.call(Asked::default(), READ_TRIES, ask).await?;
        }
        Ok(true)
    }

    async fn defragment(&self) -> Result<(), StorageError> {
        let ask = || {
            let mut maintenance = self.maintenance.clone();
            async move { maintenance.defragment().await }
        };
        self.call(Asked::default(), READ_TRIES, ask).await.map(drop)
    }
}
