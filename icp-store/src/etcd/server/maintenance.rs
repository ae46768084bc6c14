//! Maintenance: figures, hashes, alarms, snapshots.
#![expect(clippy::disallowed_methods, reason = "a shell: a snapshot is sent by a task of its own")]

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::{AlarmKind, StorageError};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::metrics::Call;
use super::route::Method;
use super::{Answer, Server};
use crate::etcd::grpc::{
    FAILED_PRECONDITION, GrpcBody, INTERNAL, INVALID_ARGUMENT, Messages, OK, Status, frame,
};
use crate::etcd::proto as pb;
use crate::etcd::{convert, snapshot};

/// What one message of a snapshot holds, as in etcd.
const CHUNK_BYTES: usize = 32 * 1024;

pub(super) async fn unary(server: &Server, method: Method, messages: &mut Messages) -> Answer {
    let storage = &server.storage;
    match method {
        Method::Status => {
            let _: pb::Empty = messages.only().await?;
            status(server).await
        }
        Method::Alarm => alarm(server, messages.only().await?).await,
        Method::Defragment => {
            let _: pb::Empty = messages.only().await?;
            storage.defragment().await.map_err(failed)?;
            server.header_only().await
        }
        Method::Hash => {
            let _: pb::Empty = messages.only().await?;
            // etcd hashes its whole file, whose ids and index no other server has; of ours the keys are hashed.
            let hash = storage.hash_kv(0).await.map_err(failed)?;
            let header = server.header(hash.revision);
            Ok(GrpcBody::unary(&pb::HashKvResponse { header, hash: hash.hash, compact_revision: 0 }))
        }
        Method::HashKv => {
            let request: pb::HashKvRequest = messages.only().await?;
            let hash = storage.hash_kv(request.revision).await.map_err(failed)?;
            Ok(GrpcBody::unary(&pb::HashKvResponse {
                header: server.header(hash.revision),
                hash: hash.hash,
                compact_revision: hash.compacted,
            }))
        }
        _ => {
            // MoveLeader; its request names the member in the field that others have for a lease.
            let request: pb::LeaseRequest = messages.only().await?;
            if request.id as u64 != server.options.member_id {
                return Err(Status::new(FAILED_PRECONDITION, "etcdserver: bad leader transferee"));
            }
            server.header_only().await
        }
    }
}

async fn status(server: &Server) -> Answer {
    let options = &server.options;
    let figures = server.storage.status().await.map_err(failed)?;
    let index = u64::try_from(figures.revision).unwrap_or(0);
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(GrpcBody::unary(&pb::StatusResponse {
        header: server.header(figures.revision),
        version: options.version.clone(),
        db_size: size(figures.size_bytes),
        leader: options.member_id,
        raft_index: index,
        raft_term: 1,
        raft_applied_index: index,
        errors: alarms(server).await?.into_iter().map(|alarm| text(options.member_id, alarm)).collect(),
        db_size_in_use: size(figures.in_use_bytes),
        is_learner: false,
    }))
}

/// An alarm as etcd writes it among the errors of a status.
fn text(member_id: u64, alarm: AlarmKind) -> String {
    alloc::format!("memberID:{member_id} alarm:{} ", name(alarm))
}

pub(super) fn name(alarm: AlarmKind) -> &'static str {
    match alarm {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
        _ => "UNKNOWN",
    }
}

/// The alarms that are raised; a backend without alarms has none.
pub(super) async fn alarms(server: &Server) -> Result<Vec<AlarmKind>, Status> {
    match server.storage.alarms().await {
        Err(StorageError::Unimplemented(_)) => Ok(Vec::new()),
        other => other.map_err(failed),
    }
}

async fn alarm(server: &Server, request: pb::AlarmRequest) -> Answer {
    const GET: i32 = 0;
    const ACTIVATE: i32 = 1;
    const DEACTIVATE: i32 = 2;
    let kind = match (request.alarm, convert::alarm(request.alarm)) {
        (0, _) => None,
        (_, Some(kind)) => Some(kind),
        (unknown, None) => {
            return Err(Status::new(INVALID_ARGUMENT, alloc::format!("etcdserver: unknown alarm {unknown}")));
        }
    };
    let named: Vec<AlarmKind> = match (request.action, kind) {
        (GET, None) => alarms(server).await?,
        (GET, Some(kind)) => alarms(server).await?.into_iter().filter(|a| *a == kind).collect(),
        (ACTIVATE | DEACTIVATE, Some(kind)) => {
            let changed = server.storage.set_alarm(kind, request.action == ACTIVATE).await.map_err(failed)?;
            // An alarm that is raised already is told again, as etcd does.
            if changed || request.action == ACTIVATE { alloc::vec![kind] } else { Vec::new() }
        }
        // No alarm is named: there is nothing to raise or to disarm.
        _ => Vec::new(),
    };
    let member_id = server.options.member_id;
    let members =
        named.into_iter().filter_map(convert::alarm_to).map(|alarm| pb::AlarmMember { member_id, alarm });
    let alarms = members.collect();
    Ok(GrpcBody::unary(&pb::AlarmResponse { header: server.current_header().await?, alarms }))
}

pub(super) fn snapshot(server: Arc<Server>, mut messages: Messages, call: Call) -> GrpcBody {
    // A client that does not read holds these few chunks and a view of the store.
    let (chunks, body) = mpsc::channel(4);
    tokio::spawn(async move {
        let done = async {
            let _: pb::Empty = messages.only().await?;
            send(&server, &chunks).await
        };
        match done.await {
            Ok(()) => call.end(OK),
            Err(status) => {
                call.end(status.code);
                // The client may be gone; then nobody is to be told.
                let _ = chunks.send(Err(status)).await;
            }
        }
    });
    GrpcBody::stream(body)
}

async fn send(server: &Server, chunks: &mpsc::Sender<Result<Bytes, Status>>) -> Result<(), Status> {
    let view = server.storage.snapshot().await.map_err(failed)?;
    let header = server.header(view.revision);
    let member_id = server.options.member_id;
    // Sorting and numbering the pages of a large store takes a while.
    let planned = tokio::task::spawn_blocking(move || snapshot::export(view, member_id)).await;
    let mut file = planned.map_err(|_| Status::new(INTERNAL, "the snapshot could not be planned"))?;
    let (mut left, mut sum) = (file.bytes(), Sha256::new());
    let (mut buffer, mut more) = (Vec::new(), true);
    while more {
        more = file.next(&mut buffer);
        while buffer.len() >= CHUNK_BYTES || (!more && !buffer.is_empty()) {
            let rest = buffer.split_off(buffer.len().min(CHUNK_BYTES));
            let blob = Bytes::from(core::mem::replace(&mut buffer, rest));
            sum.update(&blob);
            left = left.saturating_sub(blob.len() as u64);
            put(server, chunks, pb::SnapshotResponse { header: header.clone(), remaining_bytes: left, blob })
                .await?;
        }
    }
    let blob = Bytes::copy_from_slice(&sum.finalize());
    put(server, chunks, pb::SnapshotResponse { header, remaining_bytes: 0, blob }).await
}

async fn put(
    server: &Server,
    chunks: &mpsc::Sender<Result<Bytes, Status>>,
    chunk: pb::SnapshotResponse,
) -> Result<(), Status> {
    let message = frame(&chunk);
    server.metrics.sent_bytes.add(message.len() as u64);
    chunks
        .send(Ok(message))
        .await
        .map_err(|_| Status::new(crate::etcd::grpc::CANCELLED, "the client is gone"))
}

fn failed(error: StorageError) -> Status {
    convert::status(&error)
}
