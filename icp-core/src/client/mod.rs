//! The port to an API server, as data for machines and as an async trait for shells; and what machines build on
//! it: informers, work queues, leader election.

mod elector;
mod ids;
mod informer;
mod queue;
mod recorder;
mod request;
mod store;

use alloc::boxed::Box;
use core::pin::Pin;

use async_trait::async_trait;
use futures_core::Stream;

pub use elector::{LeaderElector, LeaderElectorConfig, Term};
pub use ids::{IdBlock, RequestIds, block_of};
pub use informer::{Delta, Informer};
pub use queue::WorkQueue;
pub use recorder::{EventNote, EventRecorder, EventType};
pub use request::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, DeleteOptions, ListOptions, Operation, PatchKind,
    Propagation, Reply, RequestId, WatchEvent, WatchKind,
};
pub use store::{IndexFn, ObjectKey, Store, index};

/// Events of one watch. The stream ends when the server closes it, or after an `Err`.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, ApiError>> + Send>>;

/// An API server: in the same process, behind HTTP, or simulated. Objects of lists and watches may come without
/// `metadata.managedFields`.
#[async_trait]
pub trait Client: Send + Sync {
    /// Does everything but watch.
    async fn request(&self, request: ApiRequest) -> Result<Reply, ApiError>;

    /// Opens a watch; `request.op` is [`Operation::Watch`].
    async fn watch(&self, request: ApiRequest) -> Result<EventStream, ApiError>;
}
