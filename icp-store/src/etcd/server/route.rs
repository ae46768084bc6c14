//! What is served, by path.

use alloc::format;

use crate::etcd::grpc::{Status, UNIMPLEMENTED};

macro_rules! methods {
    ($($name:ident = $service:literal $method:literal,)*) => {
        /// A method that is served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Method {
            $($name,)*
        }

        impl Method {
            /// Service and method, in the order of the enum.
            pub(super) const NAMES: &[(&str, &str)] = &[$(($service, $method),)*];

            pub(super) fn find(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $method) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" "Range",
    Put = "etcdserverpb.KV" "Put",
    DeleteRange = "etcdserverpb.KV" "DeleteRange",
    Txn = "etcdserverpb.KV" "Txn",
    Compact = "etcdserverpb.KV" "Compact",
    Watch = "etcdserverpb.Watch" "Watch",
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant",
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke",
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive",
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive",
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases",
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd",
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove",
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate",
    MemberList = "etcdserverpb.Cluster" "MemberList",
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote",
    Alarm = "etcdserverpb.Maintenance" "Alarm",
    Status = "etcdserverpb.Maintenance" "Status",
    Defragment = "etcdserverpb.Maintenance" "Defragment",
    Hash = "etcdserverpb.Maintenance" "Hash",
    HashKv = "etcdserverpb.Maintenance" "HashKV",
    Snapshot = "etcdserverpb.Maintenance" "Snapshot",
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader",
    AuthEnable = "etcdserverpb.Auth" "AuthEnable",
    AuthDisable = "etcdserverpb.Auth" "AuthDisable",
    AuthStatus = "etcdserverpb.Auth" "AuthStatus",
    Authenticate = "etcdserverpb.Auth" "Authenticate",
    UserAdd = "etcdserverpb.Auth" "UserAdd",
    UserGet = "etcdserverpb.Auth" "UserGet",
    UserList = "etcdserverpb.Auth" "UserList",
    UserDelete = "etcdserverpb.Auth" "UserDelete",
    UserChangePassword = "etcdserverpb.Auth" "UserChangePassword",
    UserGrantRole = "etcdserverpb.Auth" "UserGrantRole",
    UserRevokeRole = "etcdserverpb.Auth" "UserRevokeRole",
    RoleAdd = "etcdserverpb.Auth" "RoleAdd",
    RoleGet = "etcdserverpb.Auth" "RoleGet",
    RoleList = "etcdserverpb.Auth" "RoleList",
    RoleDelete = "etcdserverpb.Auth" "RoleDelete",
    RoleGrantPermission = "etcdserverpb.Auth" "RoleGrantPermission",
    RoleRevokePermission = "etcdserverpb.Auth" "RoleRevokePermission",
    HealthCheck = "grpc.health.v1.Health" "Check",
}

/// The status of a path that is not served, in the words of gRPC.
pub(super) fn unknown(path: &str) -> Status {
    let message = match path.strip_prefix('/').and_then(|p| p.rsplit_once('/')) {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if Method::NAMES.iter().any(|(s, _)| *s == service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(UNIMPLEMENTED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_or_refused_in_the_words_of_grpc() {
        assert_eq!(Method::find("/etcdserverpb.Maintenance/HashKV"), Some(Method::HashKv));
        assert_eq!(Method::NAMES[Method::HashKv as usize], ("etcdserverpb.Maintenance", "HashKV"));
        for (path, message) in [
            ("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
            ("/v3lockpb.Lock/Lock", "unknown service v3lockpb.Lock"),
            ("nothing", "malformed method name: \"nothing\""),
        ] {
            assert_eq!(Method::find(path), None);
            assert_eq!(unknown(path), Status::new(UNIMPLEMENTED, message));
        }
    }
}
