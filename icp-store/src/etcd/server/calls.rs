//! The calls with one answer, and the renewal of leases.
#![expect(clippy::disallowed_methods, reason = "a shell: a stream of renewals is a task")]

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::{KeyRange, Op, OpResponse, RangeRequest, StorageError, Txn};
use tokio::sync::mpsc;

use super::{Server, unknown};
use crate::etcd::convert;
use crate::etcd::grpc::{GrpcBody, Messages, Status, UNIMPLEMENTED, frame};
use crate::etcd::proto as pb;

/// `AlarmRequest.AlarmAction.ACTIVATE`.
const ALARM_ACTIVATE: i32 = 1;

type Answer = Result<GrpcBody, Status>;

pub(super) async fn unary(server: &Server, path: &str, messages: &mut Messages) -> Answer {
    match path {
        "/etcdserverpb.KV/Range" => {
            let request = convert::range_request(messages.only().await?).map_err(status)?;
            let read = server.storage.range(request).await.map_err(status)?;
            let header = server.header(read.revision);
            Ok(GrpcBody::unary(&convert::range_response_to(read, header)))
        }
        "/etcdserverpb.KV/Put" => {
            let request = convert::put_request(messages.only().await?);
            let (revision, answer) = one(server, Op::Put(request)).await?;
            let Some(OpResponse::Put(put)) = answer else { return Err(no_answer()) };
            Ok(GrpcBody::unary(&convert::put_response_to(put, server.header(revision))))
        }
        "/etcdserverpb.KV/DeleteRange" => {
            let request = convert::delete_request(messages.only().await?).map_err(status)?;
            let (revision, answer) = one(server, Op::DeleteRange(request)).await?;
            let Some(OpResponse::DeleteRange(deleted)) = answer else { return Err(no_answer()) };
            Ok(GrpcBody::unary(&convert::delete_response_to(deleted, server.header(revision))))
        }
        "/etcdserverpb.KV/Txn" => {
            let request = convert::txn(messages.only().await?).map_err(status)?;
            let done = server.storage.txn(request).await.map_err(status)?;
            let header = server.header(done.revision);
            Ok(GrpcBody::unary(&convert::txn_response_to(done, header)))
        }
        "/etcdserverpb.KV/Compact" => {
            let request: pb::CompactionRequest = messages.only().await?;
            server.storage.compact(request.revision).await.map_err(status)?;
            header_only(server).await
        }
        _ => match path.strip_prefix("/etcdserverpb.Lease/") {
            Some(method) => lease(server, path, method, messages).await,
            None => maintenance(server, path, messages).await,
        },
    }
}

async fn lease(server: &Server, path: &str, method: &str, messages: &mut Messages) -> Answer {
    let storage = &server.storage;
    match method {
        "LeaseGrant" => {
            let request: pb::LeaseGrantRequest = messages.only().await?;
            let lease = storage.lease_grant(request.id, request.ttl).await.map_err(status)?;
            let header = server.header(revision(server).await?);
            let (id, ttl) = (lease.id, lease.ttl_secs);
            Ok(GrpcBody::unary(&pb::LeaseGrantResponse { header, id, ttl, ..Default::default() }))
        }
        "LeaseRevoke" => {
            let request: pb::LeaseRequest = messages.only().await?;
            storage.lease_revoke(request.id).await.map_err(status)?;
            header_only(server).await
        }
        "LeaseTimeToLive" => {
            let request: pb::LeaseTimeToLiveRequest = messages.only().await?;
            let (id, header) = (request.id, server.header(revision(server).await?));
            let answer = match storage.lease_status(id).await {
                Ok(lease) => pb::LeaseTimeToLiveResponse {
                    header,
                    id,
                    ttl: lease.ttl_secs,
                    granted_ttl: lease.granted_ttl_secs,
                    keys: if request.keys { lease.keys } else { Vec::new() },
                },
                Err(StorageError::LeaseNotFound(_)) => {
                    pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() }
                }
                Err(e) => return Err(status(e)),
            };
            Ok(GrpcBody::unary(&answer))
        }
        "LeaseLeases" => {
            let _: pb::Empty = messages.only().await?;
            let leases = storage.leases().await.map_err(status)?;
            let header = server.header(revision(server).await?);
            let leases = leases.into_iter().map(|id| pb::LeaseRequest { id }).collect();
            Ok(GrpcBody::unary(&pb::LeaseLeasesResponse { header, leases }))
        }
        _ => Err(unknown(path)),
    }
}

async fn maintenance(server: &Server, path: &str, messages: &mut Messages) -> Answer {
    let options = &server.options;
    match path {
        "/etcdserverpb.Cluster/MemberList" => {
            let _: pb::Empty = messages.only().await?;
            let header = server.header(revision(server).await?);
            let member = pb::Member {
                id: options.member_id,
                name: options.name.clone(),
                client_urls: options.client_urls.clone(),
                ..Default::default()
            };
            Ok(GrpcBody::unary(&pb::MemberListResponse { header, members: alloc::vec![member] }))
        }
        "/etcdserverpb.Maintenance/Status" => {
            let _: pb::Empty = messages.only().await?;
            let figures = server.storage.status().await.map_err(status)?;
            let index = u64::try_from(figures.revision).unwrap_or(0);
            Ok(GrpcBody::unary(&pb::StatusResponse {
                header: server.header(figures.revision),
                version: options.version.clone(),
                db_size: i64::try_from(figures.size_bytes).unwrap_or(i64::MAX),
                leader: options.member_id,
                raft_index: index,
                raft_term: 1,
                raft_applied_index: index,
                errors: Vec::new(),
                db_size_in_use: i64::try_from(figures.size_bytes).unwrap_or(i64::MAX),
                is_learner: false,
            }))
        }
        "/etcdserverpb.Maintenance/Alarm" => {
            let request: pb::AlarmRequest = messages.only().await?;
            if request.action == ALARM_ACTIVATE {
                return Err(Status::new(UNIMPLEMENTED, "alarms cannot be raised by a client"));
            }
            // None is ever raised: a full disk refuses writes by itself, and takes them again when there is room.
            let header = server.header(revision(server).await?);
            Ok(GrpcBody::unary(&pb::AlarmResponse { header, alarms: Vec::new() }))
        }
        // Space is given back as history is compacted and snapshots replace the log; there is nothing more to do.
        "/etcdserverpb.Maintenance/Defragment" => {
            let _: pb::Empty = messages.only().await?;
            header_only(server).await
        }
        "/etcdserverpb.Maintenance/Hash" | "/etcdserverpb.Maintenance/HashKV" => {
            let request: pb::HashKvRequest = messages.only().await?;
            let at = if path.ends_with("KV") { request.revision } else { 0 };
            hash(server, at).await
        }
        _ => Err(unknown(path)),
    }
}

/// A hash of all keys at a revision. It is stable for this server, but not the hash that etcd computes over its file.
async fn hash(server: &Server, at: i64) -> Answer {
    let read = server.storage.range(RangeRequest::new(KeyRange::prefix("")).at(at)).await.map_err(status)?;
    let compact_revision = server.storage.status().await.map_err(status)?.compacted;
    let mut hash = 0;
    for kv in &read.kvs {
        hash = crc32c::crc32c_append(hash, &(kv.key.len() as u64).to_le_bytes());
        hash = crc32c::crc32c_append(hash, &kv.key);
        for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
            hash = crc32c::crc32c_append(hash, &number.to_le_bytes());
        }
        hash = crc32c::crc32c_append(hash, &kv.value);
    }
    Ok(GrpcBody::unary(&pb::HashKvResponse { header: server.header(read.revision), hash, compact_revision }))
}

pub(super) fn keep_alive(server: Arc<Server>, mut messages: Messages) -> GrpcBody {
    let (answers, body) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let request: pb::LeaseRequest = match messages.next().await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(status) => return fail(&answers, status).await,
            };
            let ttl = match server.storage.lease_keep_alive(request.id).await {
                Ok(lease) => lease.ttl_secs,
                Err(StorageError::LeaseNotFound(_)) => 0,
                Err(e) => return fail(&answers, status(e)).await,
            };
            let header = server.header(revision(&server).await.unwrap_or(0));
            let answer = pb::LeaseKeepAliveResponse { header, id: request.id, ttl };
            if answers.send(Ok(frame(&answer))).await.is_err() {
                return;
            }
        }
    });
    GrpcBody::stream(body)
}

async fn fail(answers: &mpsc::Sender<Result<Bytes, Status>>, status: Status) {
    // The client may be gone; then nobody is to be told.
    let _ = answers.send(Err(status)).await;
}

async fn one(server: &Server, op: Op) -> Result<(i64, Option<OpResponse>), Status> {
    let txn = Txn { success: alloc::vec![op], ..Txn::default() };
    let mut done = server.storage.txn(txn).await.map_err(status)?;
    Ok((done.revision, done.responses.pop()))
}

async fn revision(server: &Server) -> Result<i64, Status> {
    Ok(server.storage.status().await.map_err(status)?.revision)
}

async fn header_only(server: &Server) -> Answer {
    Ok(GrpcBody::unary(&pb::HeaderResponse { header: server.header(revision(server).await?) }))
}

fn status(error: StorageError) -> Status {
    convert::status(&error)
}

fn no_answer() -> Status {
    Status::new(crate::etcd::grpc::INTERNAL, "the store gave no answer")
}
