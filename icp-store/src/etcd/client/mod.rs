//! The client: a [`Storage`] in an etcd cluster.

mod channel;
mod watch;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use icp_core::base::Duration;
use icp_core::storage::{
    AlarmKind, KvHash, LeaseId, LeaseStatus, LeaseTtl, RangeRequest, RangeResponse, Revision, Storage,
    StorageError, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};
use prost::Message;

use super::convert::{self, Asked};
use super::grpc::{GrpcBody, Messages};
use super::proto as pb;
use channel::Channel;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How many HTTP/2 connections share the calls, in turn. One carries thousands of calls; more help when one task that
    /// drives a connection is what is waited for.
    pub connections: usize,
    /// How long one try to connect may take.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How often an idle connection is probed; it is given up after as long again without an answer.
    pub keep_alive_interval: Duration,
    /// Longest wait before a watch tries to connect again.
    pub retry_delay_max: Duration,
    /// Largest response, in bytes.
    pub message_bytes_max: usize,
    /// For `https` endpoints; with a client certificate for mutual TLS. The protocol `h2` is set by the client.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connections: 1,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(10),
            retry_delay_max: Duration::from_secs(5),
            message_bytes_max: 1 << 30,
            tls: None,
        }
    }
}

/// A store in an etcd cluster: a real one, or [`super::server`].
///
/// It keeps one HTTP/2 connection or several, connects again when one breaks, to the next endpoint in turn, and resumes watches
/// from the revision after the last delivered one, so that nothing is missed or repeated. Reads are tried once more on a
/// broken connection; writes are not, since their outcome is unknown ([`StorageError::Unavailable`]). It needs a tokio
/// runtime. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Arc<Channel>,
}

impl Client {
    /// A client of the cluster with these endpoints (`http://host:port` or `https://host:port`). It connects with the
    /// first request.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if an endpoint is not understood, or is `https` while no TLS settings are given.
    pub fn new(endpoints: &[impl AsRef<str>], options: ClientOptions) -> Result<Self, StorageError> {
        Ok(Self { channel: Arc::new(Channel::new(endpoints, options)?) })
    }

    async fn call<M: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
        mut asked: Asked,
        idempotent: bool,
    ) -> Result<M, StorageError> {
        asked.bytes = request.encoded_len();
        let mut tries = 0;
        loop {
            let done =
                tokio::time::timeout(self.channel.options().request_timeout, self.once(path, request)).await;
            let error = match done {
                Ok(Ok(message)) => return Ok(message),
                Ok(Err(status)) => convert::error(&status, asked),
                Err(_) => {
                    let detail =
                        alloc::format!("{path}: no answer in {:?}", self.channel.options().request_timeout);
                    return Err(StorageError::Unavailable { detail });
                }
            };
            tries += 1;
            if !idempotent || tries > 2 || !matches!(error, StorageError::Unavailable { .. }) {
                return Err(error);
            }
        }
    }

    async fn once<M: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> Result<M, super::grpc::Status> {
        let mut messages: Messages = self.channel.send(path, GrpcBody::request(request)).await?;
        match messages.next().await? {
            Some(message) => Ok(message),
            None => Err(channel::ended(&messages)),
        }
    }
}

#[async_trait]
impl Storage for Client {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        let asked = Asked { revision: request.revision, ..Asked::default() };
        let request = convert::range_request_to(request);
        Ok(convert::range_response(self.call("/etcdserverpb.KV/Range", &request, asked, true).await?))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        let request = convert::txn_to(txn);
        Ok(convert::txn_response(self.call("/etcdserverpb.KV/Txn", &request, Asked::default(), false).await?))
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        watch::begin(self.channel.clone(), request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        let request = pb::CompactionRequest { revision, physical: false };
        let asked = Asked { revision, ..Asked::default() };
        let _: pb::HeaderResponse = self.call("/etcdserverpb.KV/Compact", &request, asked, false).await?;
        Ok(())
    }

    async fn request_progress(&self) -> Result<(), StorageError> {
        self.channel.request_progress();
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        let request = pb::LeaseGrantRequest { ttl: ttl_secs, id };
        let asked = Asked { lease: id, ..Asked::default() };
        let granted: pb::LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", &request, asked, false).await?;
        if !granted.error.is_empty() {
            return Err(StorageError::Unavailable { detail: granted.error });
        }
        Ok(LeaseTtl { id: granted.id, ttl_secs: granted.ttl })
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        let asked = Asked { lease: id, ..Asked::default() };
        // A stream of one request: the server answers it before it sees the end.
        let renewed: pb::LeaseKeepAliveResponse =
            self.call("/etcdserverpb.Lease/LeaseKeepAlive", &pb::LeaseRequest { id }, asked, true).await?;
        if renewed.ttl <= 0 {
            return Err(StorageError::LeaseNotFound(id));
        }
        Ok(LeaseTtl { id, ttl_secs: renewed.ttl })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError> {
        let asked = Asked { lease: id, ..Asked::default() };
        let request = pb::LeaseRequest { id };
        let _: pb::HeaderResponse =
            self.call("/etcdserverpb.Lease/LeaseRevoke", &request, asked, false).await?;
        Ok(())
    }

    async fn lease_status(&self, id: LeaseId) -> Result<LeaseStatus, StorageError> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let left: pb::LeaseTimeToLiveResponse =
            self.call("/etcdserverpb.Lease/LeaseTimeToLive", &request, Asked::default(), true).await?;
        if left.ttl < 0 {
            return Err(StorageError::LeaseNotFound(id));
        }
        Ok(LeaseStatus { id, ttl_secs: left.ttl, granted_ttl_secs: left.granted_ttl, keys: left.keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StorageError> {
        let all: pb::LeaseLeasesResponse =
            self.call("/etcdserverpb.Lease/LeaseLeases", &pb::Empty {}, Asked::default(), true).await?;
        let mut ids: Vec<LeaseId> = all.leases.into_iter().map(|l| l.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, StorageError> {
        let asked = Asked { revision, ..Asked::default() };
        let hash: pb::HashKvResponse = self
            .call("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest { revision }, asked, true)
            .await?;
        Ok(KvHash {
            revision: convert::revision(&hash.header),
            compacted: hash.compact_revision,
            hash: hash.hash,
        })
    }

    async fn alarms(&self) -> Result<Vec<AlarmKind>, StorageError> {
        let request = pb::AlarmRequest::default();
        let all: pb::AlarmResponse =
            self.call("/etcdserverpb.Maintenance/Alarm", &request, Asked::default(), true).await?;
        let mut kinds: Vec<AlarmKind> =
            all.alarms.into_iter().filter_map(|member| convert::alarm(member.alarm)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }

    async fn set_alarm(&self, alarm: AlarmKind, raised: bool) -> Result<bool, StorageError> {
        let alarm = convert::alarm_to(alarm).ok_or(StorageError::Unimplemented("this alarm"))?;
        // etcd notes an alarm for each member that raised it; all of them are disarmed.
        let request = pb::AlarmRequest::default();
        let before: pb::AlarmResponse =
            self.call("/etcdserverpb.Maintenance/Alarm", &request, Asked::default(), true).await?;
        let noted: Vec<u64> =
            before.alarms.iter().filter(|m| m.alarm == alarm).map(|m| m.member_id).collect();
        if raised != noted.is_empty() {
            return Ok(false);
        }
        let (action, members) = if raised { (1, alloc::vec![0]) } else { (2, noted) };
        for member_id in members {
            let request = pb::AlarmRequest { action, member_id, alarm };
            let _: pb::AlarmResponse =
                self.call("/etcdserverpb.Maintenance/Alarm", &request, Asked::default(), true).await?;
        }
        Ok(true)
    }

    async fn defragment(&self) -> Result<(), StorageError> {
        let _: pb::HeaderResponse =
            self.call("/etcdserverpb.Maintenance/Defragment", &pb::Empty {}, Asked::default(), true).await?;
        Ok(())
    }

    async fn status(&self) -> Result<StoreStatus, StorageError> {
        let status: pb::StatusResponse =
            self.call("/etcdserverpb.Maintenance/Status", &pb::Empty {}, Asked::default(), true).await?;
        Ok(StoreStatus {
            revision: convert::revision(&status.header),
            compacted: 0,
            size_bytes: u64::try_from(status.db_size).unwrap_or(0),
            in_use_bytes: u64::try_from(status.db_size_in_use).unwrap_or(0),
            watches: self.channel.watches(),
            ..StoreStatus::default()
        })
    }
}

fn invalid(message: impl ToString) -> StorageError {
    let message: String = message.to_string();
    StorageError::Invalid { field: "endpoint", message }
}
