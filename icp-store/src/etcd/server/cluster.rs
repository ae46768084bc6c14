//! Members, users and roles: one member, no users; certificates are the authentication.

use icp_core::storage::StorageError;

use super::route::Method;
use super::{Answer, Server};
use crate::etcd::convert;
use crate::etcd::grpc::{FAILED_PRECONDITION, GrpcBody, Messages, NOT_FOUND, Status, UNIMPLEMENTED};
use crate::etcd::proto as pb;

const ONE_MEMBER: &str = "etcdserver: this server is the only member of its cluster for good: members cannot be added, \
                          removed or changed";
const NO_USERS: &str =
    "etcdserver: users and roles are not supported: TLS client certificates are the authentication";

pub(super) async fn cluster(server: &Server, method: Method, messages: &mut Messages) -> Answer {
    let options = &server.options;
    let own = match method {
        Method::MemberList | Method::MemberAdd => {
            let _: pb::Empty = messages.only().await?;
            true
        }
        // The others name a member in the field that other requests have for a lease.
        _ => messages.only::<pb::LeaseRequest>().await?.id as u64 == options.member_id,
    };
    match method {
        Method::MemberList => {
            let member = pb::Member {
                id: options.member_id,
                name: options.name.clone(),
                peer_urls: options.peer_urls.clone(),
                client_urls: options.client_urls.clone(),
                is_learner: false,
            };
            let header = server.current_header().await?;
            Ok(GrpcBody::unary(&pb::MemberListResponse { header, members: alloc::vec![member] }))
        }
        Method::MemberAdd => Err(Status::new(FAILED_PRECONDITION, ONE_MEMBER)),
        _ if !own => Err(Status::new(NOT_FOUND, "etcdserver: member not found")),
        Method::MemberPromote => {
            Err(Status::new(FAILED_PRECONDITION, "etcdserver: can only promote a learner member"))
        }
        _ => Err(Status::new(FAILED_PRECONDITION, ONE_MEMBER)),
    }
}

/// What etcd answers while authentication is off and nobody was added.
pub(super) async fn auth(server: &Server, method: Method, messages: &mut Messages) -> Answer {
    let _: pb::Empty = messages.only().await?;
    let precondition = |message| Err(Status::new(FAILED_PRECONDITION, message));
    match method {
        Method::AuthStatus => {
            let header = server.current_header().await?;
            Ok(GrpcBody::unary(&pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
        }
        // The answers with empty lists have a header alone.
        Method::AuthDisable | Method::UserList | Method::RoleList => server.header_only().await,
        Method::AuthEnable => precondition("etcdserver: root user does not exist"),
        Method::Authenticate => precondition("etcdserver: authentication is not enabled"),
        Method::UserAdd | Method::RoleAdd => Err(Status::new(UNIMPLEMENTED, NO_USERS)),
        Method::RoleGet | Method::RoleDelete | Method::RoleGrantPermission | Method::RoleRevokePermission => {
            precondition("etcdserver: role name not found")
        }
        _ => precondition("etcdserver: user name not found"),
    }
}

/// `grpc.health.v1.Health/Check` of the whole server or of one of its services.
pub(super) async fn health(server: &Server, messages: &mut Messages) -> Answer {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    let request: pb::HealthCheckRequest = messages.only().await?;
    let known = request.service.is_empty() || Method::NAMES.iter().any(|(s, _)| *s == request.service);
    if !known {
        return Err(Status::new(NOT_FOUND, "unknown service"));
    }
    let status = match server.storage.status().await {
        Ok(_) => SERVING,
        Err(StorageError::Unavailable { .. } | StorageError::Poisoned { .. }) => NOT_SERVING,
        Err(e) => return Err(convert::status(&e)),
    };
    Ok(GrpcBody::unary(&pb::HealthCheckResponse { status }))
}
