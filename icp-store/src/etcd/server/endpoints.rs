//! What is served without gRPC: `/health`, `/version`, `/metrics`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{Display, Write};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode};
use hyper::body::Incoming;
use icp_core::storage::{KeyRange, RangeRequest};

use super::route::Method;
use super::{Server, maintenance};
use crate::etcd::grpc::GrpcBody;

pub(super) async fn handle(server: &Arc<Server>, request: &Request<Incoming>) -> Response<GrpcBody> {
    if !matches!(*request.method(), Verb::GET | Verb::HEAD) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is served here\n");
    }
    match request.uri().path() {
        "/health" => health(server, request.uri().query().unwrap_or_default()).await,
        "/version" => {
            let version = &server.options.version;
            let cluster = version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor);
            let text = format!("{{\"etcdserver\":\"{version}\",\"etcdcluster\":\"{cluster}.0\"}}");
            answer(StatusCode::OK, "application/json", text)
        }
        "/metrics" => {
            let text = metrics(server).await;
            answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n"),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody::plain(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Healthy is a store that answers and has no alarm; `?exclude=NOSPACE` leaves one out.
async fn health(server: &Server, query: &str) -> Response<GrpcBody> {
    let excluded: Vec<&str> = query.split('&').filter_map(|q| q.strip_prefix("exclude=")).collect();
    let alarms = maintenance::alarms(server).await;
    let raised = alarms.map(|all| {
        all.into_iter()
            .map(maintenance::name)
            .find(|name| !excluded.contains(name))
            .map(|n| format!("ALARM {n}"))
    });
    let probe = server.storage.range(RangeRequest::new(KeyRange::key("health"))).await;
    let reason = match (raised, probe) {
        (Ok(None), Ok(_)) => None,
        (Ok(Some(alarm)), _) => Some(alarm),
        (Err(status), _) => Some(status.message.into_owned()),
        (_, Err(e)) => Some(format!("RANGE ERROR:{e}")),
    };
    match reason {
        None => answer(StatusCode::OK, "application/json", "{\"health\":\"true\",\"reason\":\"\"}"),
        Some(reason) => {
            let reason = serde_json::Value::from(reason);
            let text = format!("{{\"health\":\"false\",\"reason\":{reason}}}");
            answer(StatusCode::SERVICE_UNAVAILABLE, "application/json", text)
        }
    }
}

/// Text in the form that Prometheus reads.
#[derive(Default)]
struct Text(String);

impl Text {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }
}

/// The names of the codes of gRPC, as its Go libraries write them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Figures under the names that etcd gives them; what is not known stands not there.
async fn metrics(server: &Arc<Server>) -> String {
    let mut text = Text::default();
    let (m, options) = (&server.metrics, &server.options);
    text.one("etcd_server_has_leader", "gauge", "Whether a leader exists: always, this member.", 1);
    text.one("etcd_server_is_leader", "gauge", "Whether this member leads: always, there is one.", 1);
    text.head("etcd_server_version", "gauge", "The version that clients are told.");
    text.labelled("etcd_server_version", &[("server_version", &options.version)], 1);
    text.head("etcd_server_id", "gauge", "The id of this member in hexadecimal.");
    text.labelled("etcd_server_id", &[("server_id", &format!("{:x}", options.member_id))], 1);
    let counter = "counter";
    for (name, help, value) in [
        ("etcd_server_proposals_committed_total", "Writes that were made.", m.committed.get()),
        ("etcd_server_proposals_applied_total", "Writes that were made.", m.committed.get()),
        ("etcd_server_proposals_failed_total", "Writes that failed in the store.", m.failed.get()),
        ("etcd_mvcc_put_total", "Puts seen by this server.", m.puts.get()),
        ("etcd_mvcc_range_total", "Ranges seen by this server.", m.ranges.get()),
        ("etcd_mvcc_delete_total", "Deletions seen by this server.", m.deletes.get()),
        ("etcd_mvcc_txn_total", "Transactions seen by this server.", m.txns.get()),
        ("etcd_debugging_mvcc_events_total", "Events sent by this server.", m.events.get()),
        ("etcd_debugging_lease_granted_total", "Leases granted.", m.leases_granted.get()),
        ("etcd_debugging_lease_renewed_total", "Renewals of leases.", m.leases_renewed.get()),
        (
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes of messages from clients.",
            m.received_bytes.get(),
        ),
        ("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages to clients.", m.sent_bytes.get()),
        (
            "icp_etcd_slow_watchers_cut_total",
            "Watches ended because their client did not keep up.",
            m.slow_cut.get(),
        ),
    ] {
        text.one(name, counter, help, value);
    }
    for (name, help, value) in [
        ("etcd_server_proposals_pending", "Writes that wait for their answer.", m.pending.get()),
        ("etcd_debugging_mvcc_watch_stream_total", "Open streams of watches.", m.watch_streams.get()),
        ("icp_etcd_client_connections", "Open connections.", m.connections.get()),
    ] {
        text.one(name, "gauge", help, value);
    }
    store(server, &mut text).await;
    if let Some(times) = &options.sync_times {
        let name = "etcd_disk_wal_fsync_duration_seconds";
        text.head(name, "histogram", "How long syncs of the log took.");
        for (bound, count) in times.buckets() {
            text.labelled(&format!("{name}_bucket"), &[("le", &format!("{bound}"))], count);
        }
        text.labelled(&format!("{name}_bucket"), &[("le", "+Inf")], times.count());
        let _ = writeln!(text.0, "{name}_sum {}\n{name}_count {}", times.sum_secs(), times.count());
    }
    calls(server, &mut text);
    for figure in super::process::figures() {
        text.one(figure.name, figure.kind, figure.help, figure.value);
    }
    text.0
}

async fn store(server: &Server, text: &mut Text) {
    let (storage, m) = (&server.storage, &server.metrics);
    if let Ok(status) = storage.status().await {
        for (name, help, value) in [
            ("etcd_mvcc_db_total_size_in_bytes", "Bytes that the data takes.", status.size_bytes),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of all versions that are kept.",
                status.in_use_bytes,
            ),
            ("etcd_server_quota_backend_bytes", "The quota; 0 for none.", status.quota_bytes),
            ("etcd_debugging_mvcc_watcher_total", "Open watches.", status.watches as u64),
            (
                "etcd_debugging_mvcc_current_revision",
                "The newest revision.",
                u64::try_from(status.revision).unwrap_or(0),
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The compacted revision.",
                u64::try_from(status.compacted).unwrap_or(0),
            ),
        ] {
            text.one(name, "gauge", help, value);
        }
    }
    let all = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::prefix("")) };
    if let Ok(read) = storage.range(all).await {
        text.one("etcd_debugging_mvcc_keys_total", "gauge", "Keys.", read.count);
    }
    if let Ok(leases) = storage.leases().await {
        let ever = m.leases_before.get() + m.leases_granted.get();
        let revoked = ever.saturating_sub(leases.len() as u64);
        let help = "Leases that were revoked or ran out.";
        text.one("etcd_debugging_lease_revoked_total", "counter", help, revoked);
    }
}

fn calls(server: &Server, text: &mut Text) {
    let m = &server.metrics;
    text.head("grpc_server_started_total", "counter", "Calls that began.");
    for ((service, method), started) in Method::NAMES.iter().zip(&*m.started) {
        let labels = [("grpc_method", *method), ("grpc_service", *service)];
        text.labelled("grpc_server_started_total", &labels, started.get());
    }
    text.head("grpc_server_handled_total", "counter", "Calls that ended, by code.");
    for (index, (service, method)) in Method::NAMES.iter().enumerate() {
        for (code, name) in CODES.iter().enumerate() {
            let handled = m.handled(index, code);
            if handled > 0 {
                let labels = [("grpc_code", *name), ("grpc_method", *method), ("grpc_service", *service)];
                text.labelled("grpc_server_handled_total", &labels, handled);
            }
        }
    }
}
