//! Between the port's types and the API's messages.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage as port;
use icp_core::storage::{AlarmKind, KeyRange, StorageError};

use super::grpc::{
    DATA_LOSS, FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE, RESOURCE_EXHAUSTED,
    Status, UNAVAILABLE, UNIMPLEMENTED,
};
use super::proto as pb;
use super::proto::{compare, request_op, response_op};

/// A range as the API writes it: an end of one zero byte means no upper end.
pub(super) fn range(key: Bytes, range_end: Bytes) -> KeyRange {
    let end = match &range_end[..] {
        [] => None,
        [0] => Some(Bytes::new()),
        _ => Some(range_end),
    };
    KeyRange { start: key, end }
}

/// The API takes no empty key; the port does, as the beginning of all keys.
pub(super) fn range_to(range: KeyRange) -> (Bytes, Bytes) {
    let zero = Bytes::from_static(&[0]);
    match range.end {
        None => (range.start, Bytes::new()),
        Some(end) => {
            let start = if range.start.is_empty() { zero.clone() } else { range.start };
            (start, if end.is_empty() { zero } else { end })
        }
    }
}

fn required(key: &Bytes) -> Result<(), StorageError> {
    if key.is_empty() {
        return Err(StorageError::Invalid { field: "key", message: "key is not provided".into() });
    }
    Ok(())
}

pub(super) fn range_request(r: pb::RangeRequest) -> Result<port::RangeRequest, StorageError> {
    required(&r.key)?;
    let invalid = |field| StorageError::Invalid { field, message: "invalid sort option".into() };
    Ok(port::RangeRequest {
        range: range(r.key, r.range_end),
        limit: r.limit,
        revision: r.revision,
        sort_order: match r.sort_order {
            0 => port::SortOrder::None,
            1 => port::SortOrder::Ascend,
            2 => port::SortOrder::Descend,
            _ => return Err(invalid("sort_order")),
        },
        sort_by: match r.sort_target {
            0 => port::SortBy::Key,
            1 => port::SortBy::Version,
            2 => port::SortBy::CreateRevision,
            3 => port::SortBy::ModRevision,
            4 => port::SortBy::Value,
            _ => return Err(invalid("sort_target")),
        },
        serializable: r.serializable,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod_revision: r.min_mod_revision,
        max_mod_revision: r.max_mod_revision,
        min_create_revision: r.min_create_revision,
        max_create_revision: r.max_create_revision,
    })
}

pub(super) fn range_request_to(r: port::RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = range_to(r.range);
    pb::RangeRequest {
        key,
        range_end,
        limit: r.limit,
        revision: r.revision,
        sort_order: r.sort_order as i32,
        sort_target: r.sort_by as i32,
        serializable: r.serializable,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod_revision: r.min_mod_revision,
        max_mod_revision: r.max_mod_revision,
        min_create_revision: r.min_create_revision,
        max_create_revision: r.max_create_revision,
    }
}

pub(super) fn put_request(p: pb::PutRequest) -> port::PutRequest {
    port::PutRequest {
        key: p.key,
        value: p.value,
        lease: p.lease,
        prev_kv: p.prev_kv,
        ignore_value: p.ignore_value,
        ignore_lease: p.ignore_lease,
    }
}

fn put_request_to(p: port::PutRequest) -> pb::PutRequest {
    pb::PutRequest {
        key: p.key,
        value: p.value,
        lease: p.lease,
        prev_kv: p.prev_kv,
        ignore_value: p.ignore_value,
        ignore_lease: p.ignore_lease,
    }
}

pub(super) fn delete_request(d: pb::DeleteRangeRequest) -> Result<port::DeleteRangeRequest, StorageError> {
    required(&d.key)?;
    Ok(port::DeleteRangeRequest { range: range(d.key, d.range_end), prev_kv: d.prev_kv })
}

/// Deepest nesting of transactions that is read.
const TXN_DEPTH_MAX: usize = 32;

pub(super) fn txn(t: pb::TxnRequest) -> Result<port::Txn, StorageError> {
    txn_within(t, TXN_DEPTH_MAX)
}

fn txn_within(t: pb::TxnRequest, depth: usize) -> Result<port::Txn, StorageError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(StorageError::Invalid {
            field: "txn",
            message: "too many operations in txn request".into(),
        });
    };
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(|o| op(o, depth)).collect::<Result<Vec<_>, _>>();
    Ok(port::Txn {
        compare: t.compare.into_iter().map(comparison).collect::<Result<_, _>>()?,
        success: ops(t.success)?,
        failure: ops(t.failure)?,
    })
}

fn op(op: pb::RequestOp, depth: usize) -> Result<port::Op, StorageError> {
    Ok(match op.request {
        Some(request_op::Request::Range(r)) => port::Op::Range(range_request(r)?),
        Some(request_op::Request::Put(p)) => port::Op::Put(put_request(p)),
        Some(request_op::Request::DeleteRange(d)) => port::Op::DeleteRange(delete_request(d)?),
        Some(request_op::Request::Txn(t)) => port::Op::Txn(txn_within(t, depth)?),
        None => return Err(StorageError::Invalid { field: "txn.request", message: "key not found".into() }),
    })
}

fn comparison(c: pb::Compare) -> Result<port::Compare, StorageError> {
    required(&c.key)?;
    let invalid = |field: &'static str| StorageError::Invalid { field, message: "is not known".into() };
    let op = match c.result {
        0 => port::CompareOp::Equal,
        1 => port::CompareOp::Greater,
        2 => port::CompareOp::Less,
        3 => port::CompareOp::NotEqual,
        _ => return Err(invalid("compare.result")),
    };
    // A union that is missing or of another kind counts as the zero of the target, as in etcd.
    let number = |want: i32| match (want, &c.target_union) {
        (0, Some(compare::TargetUnion::Version(n)))
        | (1, Some(compare::TargetUnion::CreateRevision(n)))
        | (2, Some(compare::TargetUnion::ModRevision(n)))
        | (4, Some(compare::TargetUnion::Lease(n))) => *n,
        _ => 0,
    };
    let target = match c.target {
        0 => port::CompareTarget::Version(number(0)),
        1 => port::CompareTarget::CreateRevision(number(1)),
        2 => port::CompareTarget::ModRevision(number(2)),
        3 => match &c.target_union {
            Some(compare::TargetUnion::Value(v)) => port::CompareTarget::Value(v.clone()),
            _ => port::CompareTarget::Value(Bytes::new()),
        },
        4 => port::CompareTarget::Lease(number(4)),
        _ => return Err(invalid("compare.target")),
    };
    Ok(port::Compare { range: range(c.key, c.range_end), op, target })
}

pub(super) fn txn_to(t: port::Txn) -> pb::TxnRequest {
    let ops = |ops: Vec<port::Op>| ops.into_iter().map(op_to).collect();
    pb::TxnRequest {
        compare: t.compare.into_iter().map(comparison_to).collect(),
        success: ops(t.success),
        failure: ops(t.failure),
    }
}

fn op_to(op: port::Op) -> pb::RequestOp {
    let request = match op {
        port::Op::Range(r) => request_op::Request::Range(range_request_to(r)),
        port::Op::Put(p) => request_op::Request::Put(put_request_to(p)),
        port::Op::DeleteRange(d) => {
            let (key, range_end) = range_to(d.range);
            request_op::Request::DeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: d.prev_kv })
        }
        port::Op::Txn(t) => request_op::Request::Txn(txn_to(t)),
    };
    pb::RequestOp { request: Some(request) }
}

fn comparison_to(c: port::Compare) -> pb::Compare {
    let (key, range_end) = range_to(c.range);
    let (target, union) = match c.target {
        port::CompareTarget::Version(n) => (0, compare::TargetUnion::Version(n)),
        port::CompareTarget::CreateRevision(n) => (1, compare::TargetUnion::CreateRevision(n)),
        port::CompareTarget::ModRevision(n) => (2, compare::TargetUnion::ModRevision(n)),
        port::CompareTarget::Value(v) => (3, compare::TargetUnion::Value(v)),
        port::CompareTarget::Lease(n) => (4, compare::TargetUnion::Lease(n)),
    };
    pb::Compare { result: c.op as i32, target, key, target_union: Some(union), range_end }
}

pub(super) fn kv(kv: pb::KeyValue) -> port::KeyValue {
    port::KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

pub(super) fn kv_to(kv: port::KeyValue) -> pb::KeyValue {
    pb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

pub(super) fn event(e: pb::Event) -> port::Event {
    port::Event {
        kind: if e.r#type == 1 { port::EventKind::Delete } else { port::EventKind::Put },
        kv: kv(e.kv.unwrap_or_default()),
        prev_kv: e.prev_kv.map(kv),
    }
}

pub(super) fn event_to(e: port::Event) -> pb::Event {
    pb::Event {
        r#type: i32::from(e.kind == port::EventKind::Delete),
        kv: Some(kv_to(e.kv)),
        prev_kv: e.prev_kv.map(kv_to),
    }
}

/// `AlarmType`; `None` for one that is not known here.
pub(super) fn alarm(alarm: i32) -> Option<AlarmKind> {
    match alarm {
        1 => Some(AlarmKind::NoSpace),
        2 => Some(AlarmKind::Corrupt),
        _ => None,
    }
}

/// The number of an alarm; `None` for one that etcd does not have.
pub(super) fn alarm_to(alarm: AlarmKind) -> Option<i32> {
    match alarm {
        AlarmKind::NoSpace => Some(1),
        AlarmKind::Corrupt => Some(2),
        _ => None,
    }
}

/// The header of an answer within a transaction has the revision alone.
fn inner_header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

pub(super) fn range_response_to(
    r: port::RangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    pb::RangeResponse { header, kvs: r.kvs.into_iter().map(kv_to).collect(), more: r.more, count: r.count }
}

pub(super) fn range_response(r: pb::RangeResponse) -> port::RangeResponse {
    port::RangeResponse {
        revision: revision(&r.header),
        kvs: r.kvs.into_iter().map(kv).collect(),
        more: r.more,
        count: r.count,
    }
}

pub(super) fn put_response_to(p: port::PutResponse, header: Option<pb::ResponseHeader>) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: p.prev_kv.map(kv_to) }
}

pub(super) fn delete_response_to(
    d: port::DeleteRangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::DeleteRangeResponse {
    let prev_kvs = d.prev_kvs.into_iter().map(kv_to).collect();
    pb::DeleteRangeResponse { header, deleted: d.deleted, prev_kvs }
}

pub(super) fn txn_response_to(t: port::TxnResponse, header: Option<pb::ResponseHeader>) -> pb::TxnResponse {
    let inner = inner_header(t.revision);
    let answer = |r| match r {
        port::OpResponse::Range(r) => {
            let header = inner_header(r.revision);
            response_op::Response::Range(range_response_to(r, header))
        }
        port::OpResponse::Put(p) => response_op::Response::Put(put_response_to(p, inner.clone())),
        port::OpResponse::DeleteRange(d) => {
            response_op::Response::DeleteRange(delete_response_to(d, inner.clone()))
        }
        port::OpResponse::Txn(t) => {
            let header = inner_header(t.revision);
            response_op::Response::Txn(txn_response_to(t, header))
        }
    };
    let responses = t.responses.into_iter().map(|r| pb::ResponseOp { response: Some(answer(r)) }).collect();
    pb::TxnResponse { header, succeeded: t.succeeded, responses }
}

pub(super) fn txn_response(t: pb::TxnResponse) -> port::TxnResponse {
    let answer = |r: pb::ResponseOp| {
        Some(match r.response? {
            response_op::Response::Range(r) => port::OpResponse::Range(range_response(r)),
            response_op::Response::Put(p) => {
                port::OpResponse::Put(port::PutResponse { prev_kv: p.prev_kv.map(kv) })
            }
            response_op::Response::DeleteRange(d) => {
                port::OpResponse::DeleteRange(port::DeleteRangeResponse {
                    deleted: d.deleted,
                    prev_kvs: d.prev_kvs.into_iter().map(kv).collect(),
                })
            }
            response_op::Response::Txn(t) => port::OpResponse::Txn(txn_response(t)),
        })
    };
    port::TxnResponse {
        revision: revision(&t.header),
        succeeded: t.succeeded,
        responses: t.responses.into_iter().filter_map(answer).collect(),
    }
}

pub(super) fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |h| h.revision)
}

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const CORRUPT: &str = "etcdserver: corrupt cluster";
const TOO_LARGE: &str = "etcdserver: request is too large";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const LEASE_EXISTS: &str = "etcdserver: lease already exists";
const LEASE_TTL: &str = "too large lease TTL";

/// The status that etcd answers with (`api/v3rpc/rpctypes/error.go`).
pub(super) fn status(error: &StorageError) -> Status {
    match error {
        StorageError::Compacted { .. } => Status::new(OUT_OF_RANGE, COMPACTED),
        StorageError::FutureRevision { .. } => Status::new(OUT_OF_RANGE, FUTURE),
        StorageError::LeaseNotFound(_) => Status::new(NOT_FOUND, LEASE_NOT_FOUND),
        StorageError::LeaseExists(_) => Status::new(FAILED_PRECONDITION, LEASE_EXISTS),
        StorageError::Invalid { message, .. } if message == LEASE_TTL => {
            Status::new(OUT_OF_RANGE, alloc::format!("etcdserver: {message}"))
        }
        StorageError::Invalid { message, .. } => {
            Status::new(INVALID_ARGUMENT, alloc::format!("etcdserver: {message}"))
        }
        StorageError::TooLarge { .. } => Status::new(INVALID_ARGUMENT, TOO_LARGE),
        StorageError::NoSpace { .. } => Status::new(RESOURCE_EXHAUSTED, NO_SPACE),
        StorageError::CorruptAlarm => Status::new(DATA_LOSS, CORRUPT),
        StorageError::SlowWatcher { .. } | StorageError::Unavailable { .. } => {
            Status::new(UNAVAILABLE, error.to_string())
        }
        StorageError::Unimplemented(_) => Status::new(UNIMPLEMENTED, error.to_string()),
        _ => Status::new(INTERNAL, error.to_string()),
    }
}

/// What was asked, for errors that name it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) revision: i64,
    pub(super) lease: i64,
    pub(super) bytes: usize,
}

/// The error that a status of etcd means. Figures that the status does not carry are 0.
pub(super) fn error(status: &Status, asked: Asked) -> StorageError {
    let message: &str = &status.message;
    match (status.code, message) {
        (OUT_OF_RANGE, COMPACTED) => StorageError::Compacted { compacted: 0 },
        (OUT_OF_RANGE, FUTURE) => StorageError::FutureRevision { requested: asked.revision, current: 0 },
        (NOT_FOUND, LEASE_NOT_FOUND) => StorageError::LeaseNotFound(asked.lease),
        (FAILED_PRECONDITION, LEASE_EXISTS) => StorageError::LeaseExists(asked.lease),
        (RESOURCE_EXHAUSTED, NO_SPACE) => StorageError::NoSpace { detail: message.into() },
        (DATA_LOSS, CORRUPT) => StorageError::CorruptAlarm,
        (INVALID_ARGUMENT, TOO_LARGE) => StorageError::TooLarge { bytes: asked.bytes, bytes_max: 0 },
        (INVALID_ARGUMENT | OUT_OF_RANGE, _) => {
            let message: String = message.strip_prefix("etcdserver: ").unwrap_or(message).into();
            StorageError::Invalid { field: "request", message }
        }
        (UNIMPLEMENTED, _) => StorageError::Unimplemented("this request"),
        _ => StorageError::Unavailable { detail: alloc::format!("{message} (grpc status {})", status.code) },
    }
}
