//! Keys: reads, writes, transactions, compaction.

use icp_core::storage::{Op, OpResponse, StorageError, Txn, TxnResponse};

use super::route::Method;
use super::{Answer, Server, cluster, lease, maintenance};
use crate::etcd::convert;
use crate::etcd::grpc::{GrpcBody, INTERNAL, Messages, Status};
use crate::etcd::proto as pb;

pub(super) async fn unary(server: &Server, method: Method, messages: &mut Messages) -> Answer {
    match method {
        Method::Range => {
            let request = convert::range_request(messages.only().await?).map_err(status)?;
            let read = server.storage.range(request).await.map_err(status)?;
            server.metrics.ranges.add(1);
            let header = server.header(read.revision);
            Ok(GrpcBody::unary(&convert::range_response_to(read, header)))
        }
        Method::Put => {
            let request = convert::put_request(messages.only().await?);
            let (revision, answer) = one(server, Op::Put(request)).await?;
            let Some(OpResponse::Put(put)) = answer else { return Err(no_answer()) };
            Ok(GrpcBody::unary(&convert::put_response_to(put, server.header(revision))))
        }
        Method::DeleteRange => {
            let request = convert::delete_request(messages.only().await?).map_err(status)?;
            let (revision, answer) = one(server, Op::DeleteRange(request)).await?;
            let Some(OpResponse::DeleteRange(deleted)) = answer else { return Err(no_answer()) };
            Ok(GrpcBody::unary(&convert::delete_response_to(deleted, server.header(revision))))
        }
        Method::Txn => {
            let request = convert::txn(messages.only().await?).map_err(status)?;
            let done = write(server, request).await?;
            server.metrics.txns.add(1);
            let header = server.header(done.revision);
            Ok(GrpcBody::unary(&convert::txn_response_to(done, header)))
        }
        Method::Compact => {
            let request: pb::CompactionRequest = messages.only().await?;
            server.storage.compact(request.revision).await.map_err(status)?;
            if request.physical {
                // Asked to wait until the space is given back.
                match server.storage.defragment().await {
                    Err(StorageError::Unimplemented(_)) => {}
                    other => other.map_err(status)?,
                }
            }
            server.header_only().await
        }
        Method::LeaseGrant | Method::LeaseRevoke | Method::LeaseTimeToLive | Method::LeaseLeases => {
            lease::unary(server, method, messages).await
        }
        Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberList
        | Method::MemberPromote => cluster::cluster(server, method, messages).await,
        Method::Alarm
        | Method::Status
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::MoveLeader => maintenance::unary(server, method, messages).await,
        Method::HealthCheck => cluster::health(server, messages).await,
        _ => cluster::auth(server, method, messages).await,
    }
}

async fn one(server: &Server, op: Op) -> Result<(i64, Option<OpResponse>), Status> {
    let txn = Txn { success: alloc::vec![op], ..Txn::default() };
    let mut done = write(server, txn).await?;
    Ok((done.revision, done.responses.pop()))
}

async fn write(server: &Server, txn: Txn) -> Result<TxnResponse, Status> {
    let pending = server.metrics.pending.enter();
    let done = server.storage.txn(txn).await;
    drop(pending);
    server.metrics.wrote(&done);
    done.map_err(status)
}

fn status(error: StorageError) -> Status {
    convert::status(&error)
}

fn no_answer() -> Status {
    Status::new(INTERNAL, "the store gave no answer")
}
