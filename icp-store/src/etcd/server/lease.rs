//! Leases.
#![expect(clippy::disallowed_methods, reason = "a shell: a stream of renewals is a task")]

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::StorageError;
use tokio::sync::mpsc;

use super::metrics::Call;
use super::route::Method;
use super::{Answer, Server};
use crate::etcd::convert;
use crate::etcd::grpc::{GrpcBody, Messages, OK, Status, frame};
use crate::etcd::proto as pb;

pub(super) async fn unary(server: &Server, method: Method, messages: &mut Messages) -> Answer {
    let storage = &server.storage;
    match method {
        Method::LeaseGrant => {
            let request: pb::LeaseGrantRequest = messages.only().await?;
            let lease = storage.lease_grant(request.id, request.ttl).await.map_err(status)?;
            server.metrics.leases_granted.add(1);
            let header = server.current_header().await?;
            let (id, ttl) = (lease.id, lease.ttl_secs);
            Ok(GrpcBody::unary(&pb::LeaseGrantResponse { header, id, ttl, ..Default::default() }))
        }
        Method::LeaseRevoke => {
            let request: pb::LeaseRequest = messages.only().await?;
            storage.lease_revoke(request.id).await.map_err(status)?;
            server.header_only().await
        }
        Method::LeaseTimeToLive => {
            let request: pb::LeaseTimeToLiveRequest = messages.only().await?;
            let (id, header) = (request.id, server.current_header().await?);
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
        _ => {
            let _: pb::Empty = messages.only().await?;
            let leases = storage.leases().await.map_err(status)?;
            let header = server.current_header().await?;
            let leases = leases.into_iter().map(|id| pb::LeaseRequest { id }).collect();
            Ok(GrpcBody::unary(&pb::LeaseLeasesResponse { header, leases }))
        }
    }
}

pub(super) fn keep_alive(server: Arc<Server>, mut messages: Messages, call: Call) -> GrpcBody {
    let (answers, body) = mpsc::channel(16);
    tokio::spawn(async move {
        match renew(&server, &mut messages, &answers).await {
            Ok(()) => call.end(OK),
            Err(status) => {
                call.end(status.code);
                // The client may be gone; then nobody is to be told.
                let _ = answers.send(Err(status)).await;
            }
        }
    });
    GrpcBody::stream(body)
}

async fn renew(
    server: &Server,
    messages: &mut Messages,
    answers: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<(), Status> {
    while let Some(request) = messages.next::<pb::LeaseRequest>().await? {
        let ttl = match server.storage.lease_keep_alive(request.id).await {
            Ok(lease) => lease.ttl_secs,
            Err(StorageError::LeaseNotFound(_)) => 0,
            Err(e) => return Err(status(e)),
        };
        server.metrics.leases_renewed.add(u64::from(ttl > 0));
        let header = server.current_header().await?;
        let answer = frame(&pb::LeaseKeepAliveResponse { header, id: request.id, ttl });
        server.metrics.sent_bytes.add(answer.len() as u64);
        if answers.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn status(error: StorageError) -> Status {
    convert::status(&error)
}
