//! What the server counts, where it arises.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use icp_core::storage::{OpResponse, StorageError, TxnResponse};

use super::route::Method;

/// Codes of gRPC: 0 to 16.
const CODES: usize = 17;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of what is there now; the guard of [`Gauge::enter`] is one.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self)
    }

    pub(super) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Entered<'g>(&'g Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    handled: Box<[[Counter; CODES]]>,
    pub(super) started: Box<[Counter]>,
    pub(super) sent_bytes: Counter,
    pub(super) received_bytes: Counter,
    pub(super) puts: Counter,
    pub(super) ranges: Counter,
    pub(super) deletes: Counter,
    pub(super) txns: Counter,
    pub(super) committed: Counter,
    pub(super) failed: Counter,
    pub(super) pending: Gauge,
    pub(super) watch_streams: Gauge,
    pub(super) connections: Gauge,
    pub(super) events: Counter,
    pub(super) slow_cut: Counter,
    pub(super) leases_granted: Counter,
    pub(super) leases_renewed: Counter,
    /// Leases that there were when the server began.
    pub(super) leases_before: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let methods = Method::NAMES.len();
        Self {
            handled: (0..methods).map(|_| core::array::from_fn(|_| Counter::default())).collect(),
            started: (0..methods).map(|_| Counter::default()).collect(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            puts: Counter::default(),
            ranges: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
            committed: Counter::default(),
            failed: Counter::default(),
            pending: Gauge::default(),
            watch_streams: Gauge::default(),
            connections: Gauge::default(),
            events: Counter::default(),
            slow_cut: Counter::default(),
            leases_granted: Counter::default(),
            leases_renewed: Counter::default(),
            leases_before: Counter::default(),
        }
    }

    /// Begins to count a call; it ends with [`Call::end`], or as cancelled when it is dropped before.
    pub(super) fn call(self: &Arc<Self>, method: Method) -> Call {
        if let Some(counter) = self.started.get(method as usize) {
            counter.add(1);
        }
        Call { metrics: self.clone(), method, code: crate::etcd::grpc::CANCELLED }
    }

    /// How often a method ended with a code.
    pub(super) fn handled(&self, method: usize, code: usize) -> u64 {
        self.handled.get(method).and_then(|codes| codes.get(code)).map_or(0, Counter::get)
    }

    /// Counts the outcome of a write, and the operations of one that was done.
    pub(super) fn wrote(&self, done: &Result<TxnResponse, StorageError>) {
        match done {
            Ok(response) => {
                self.committed.add(1);
                self.operations(response);
            }
            // What was refused for its form was never proposed.
            Err(
                StorageError::Unavailable { .. }
                | StorageError::Poisoned { .. }
                | StorageError::NoSpace { .. },
            ) => self.failed.add(1),
            Err(_) => {}
        }
    }

    fn operations(&self, response: &TxnResponse) {
        for op in &response.responses {
            match op {
                OpResponse::Put(_) => self.puts.add(1),
                OpResponse::Range(_) => self.ranges.add(1),
                OpResponse::DeleteRange(_) => self.deletes.add(1),
                OpResponse::Txn(nested) => self.operations(nested),
            }
        }
    }
}

/// One call that is served.
#[derive(Debug)]
pub(super) struct Call {
    metrics: Arc<Metrics>,
    method: Method,
    code: u16,
}

impl Call {
    pub(super) fn end(mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let codes = self.metrics.handled.get(self.method as usize);
        if let Some(counter) = codes.and_then(|c| c.get(usize::from(self.code))) {
            counter.add(1);
        }
    }
}
