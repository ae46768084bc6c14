//! Between the port's types and those of the crate.

use alloc::string::ToString;
use alloc::vec::Vec;

use ::etcd_client::proto::{PbEvent, PbKeyValue};
use ::etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, GetOptions, GetResponse, PutOptions, ResponseHeader, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use icp_core::storage as port;
use icp_core::storage::{KeyRange, StorageError};

use crate::etcd::convert::{self as shared, Asked};
use crate::etcd::grpc::Status;

/// A range as the API writes it.
pub(super) fn key_and_end(range: KeyRange) -> (Vec<u8>, Vec<u8>) {
    let (key, end) = shared::range_to(range);
    (key.into(), end.into())
}

pub(super) fn range_to(r: port::RangeRequest) -> (Vec<u8>, GetOptions) {
    let (key, end) = key_and_end(r.range);
    let by = match r.sort_by {
        port::SortBy::Key => SortTarget::Key,
        port::SortBy::Version => SortTarget::Version,
        port::SortBy::CreateRevision => SortTarget::Create,
        port::SortBy::ModRevision => SortTarget::Mod,
        port::SortBy::Value => SortTarget::Value,
    };
    let order = match r.sort_order {
        port::SortOrder::None => SortOrder::None,
        port::SortOrder::Ascend => SortOrder::Ascend,
        port::SortOrder::Descend => SortOrder::Descend,
    };
    let mut options = GetOptions::new()
        .with_range(end)
        .with_limit(r.limit)
        .with_revision(r.revision)
        .with_sort(by, order)
        .with_min_mod_revision(r.min_mod_revision)
        .with_max_mod_revision(r.max_mod_revision)
        .with_min_create_revision(r.min_create_revision)
        .with_max_create_revision(r.max_create_revision);
    if r.serializable {
        options = options.with_serializable();
    }
    if r.keys_only {
        options = options.with_keys_only();
    }
    if r.count_only {
        options = options.with_count_only();
    }
    (key, options)
}

pub(super) fn txn_to(t: port::Txn) -> Txn {
    let ops = |ops: Vec<port::Op>| ops.into_iter().map(op_to).collect::<Vec<_>>();
    let compares: Vec<Compare> = t.compare.into_iter().map(compare_to).collect();
    Txn::new().when(compares).and_then(ops(t.success)).or_else(ops(t.failure))
}

fn op_to(op: port::Op) -> TxnOp {
    match op {
        port::Op::Range(r) => {
            let (key, options) = range_to(r);
            TxnOp::get(key, Some(options))
        }
        port::Op::Put(p) => {
            let mut options = PutOptions::new().with_lease(p.lease);
            if p.prev_kv {
                options = options.with_prev_key();
            }
            if p.ignore_value {
                options = options.with_ignore_value();
            }
            if p.ignore_lease {
                options = options.with_ignore_lease();
            }
            TxnOp::put(p.key, p.value, Some(options))
        }
        port::Op::DeleteRange(d) => {
            let (key, end) = key_and_end(d.range);
            let options = DeleteOptions::new().with_range(end);
            TxnOp::delete(key, Some(if d.prev_kv { options.with_prev_key() } else { options }))
        }
        port::Op::Txn(t) => TxnOp::txn(txn_to(t)),
    }
}

fn compare_to(c: port::Compare) -> Compare {
    let (key, end) = key_and_end(c.range);
    let op = match c.op {
        port::CompareOp::Equal => CompareOp::Equal,
        port::CompareOp::Greater => CompareOp::Greater,
        port::CompareOp::Less => CompareOp::Less,
        port::CompareOp::NotEqual => CompareOp::NotEqual,
    };
    let compare = match c.target {
        port::CompareTarget::Version(n) => Compare::version(key, op, n),
        port::CompareTarget::CreateRevision(n) => Compare::create_revision(key, op, n),
        port::CompareTarget::ModRevision(n) => Compare::mod_revision(key, op, n),
        port::CompareTarget::Value(v) => Compare::value(key, op, v),
        port::CompareTarget::Lease(n) => Compare::lease(key, op, n),
    };
    compare.with_range(end)
}

fn kv(kv: PbKeyValue) -> port::KeyValue {
    port::KeyValue {
        key: kv.key.into(),
        value: kv.value.into(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

pub(super) fn event(e: PbEvent) -> port::Event {
    port::Event {
        kind: if e.r#type == 1 { port::EventKind::Delete } else { port::EventKind::Put },
        kv: kv(e.kv.unwrap_or_default()),
        prev_kv: e.prev_kv.map(kv),
    }
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

pub(super) fn range_response(r: GetResponse) -> port::RangeResponse {
    port::RangeResponse {
        revision: revision(r.header()),
        more: r.more(),
        count: r.count(),
        kvs: r.0.kvs.into_iter().map(kv).collect(),
    }
}

/// Fails if an answer is of a kind that is not known; the crate would panic.
pub(super) fn txn_response(t: &TxnResponse) -> Result<port::TxnResponse, StorageError> {
    if t.0.responses.iter().any(|r| r.response.is_none()) {
        return Err(StorageError::Unavailable {
            detail: "the answer to a transaction has no content".into(),
        });
    }
    let answer = |r| {
        Ok(match r {
            TxnOpResponse::Get(r) => port::OpResponse::Range(range_response(r)),
            TxnOpResponse::Put(p) => {
                port::OpResponse::Put(port::PutResponse { prev_kv: p.0.prev_kv.map(kv) })
            }
            TxnOpResponse::Delete(d) => port::OpResponse::DeleteRange(port::DeleteRangeResponse {
                deleted: d.deleted(),
                prev_kvs: d.0.prev_kvs.into_iter().map(kv).collect(),
            }),
            TxnOpResponse::Txn(t) => port::OpResponse::Txn(txn_response(&t)?),
        })
    };
    Ok(port::TxnResponse {
        revision: revision(t.header()),
        succeeded: t.succeeded(),
        responses: t.op_responses().into_iter().map(answer).collect::<Result<_, StorageError>>()?,
    })
}

/// What an error of the crate means; that of a server as [`super::super::Client`] says it.
pub(super) fn error(error: &Error, asked: Asked) -> StorageError {
    match error {
        Error::GRpcStatus(status) => {
            let code = u16::try_from(i32::from(status.code())).unwrap_or(0);
            shared::error(&Status::new(code, status.message().to_string()), asked)
        }
        // The crate makes this of an answer with no time left.
        Error::LeaseKeepAliveError(message) if message == "lease not found" => {
            StorageError::LeaseNotFound(asked.lease)
        }
        Error::InvalidArgs(_)
        | Error::InvalidUri(_)
        | Error::EndpointError(_)
        | Error::InvalidMetadataValue(_) => {
            StorageError::Invalid { field: "endpoint", message: error.to_string() }
        }
        _ => StorageError::Unavailable { detail: error.to_string() },
    }
}
