//! What happens to the proxy.

use alloc::collections::BTreeMap;
use alloc::string::String;

use icp_core::client::ClientEvent;

use crate::rules::{Snapshot, TableId};

/// What happens to [`super::ProxyMachine`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events and effects are moved once, not kept")]
pub enum Event {
    /// The API server answered.
    Client(ClientEvent),
    /// An [`super::Effect::Observe`] was done.
    Observed {
        /// The generation of the effect.
        generation: u64,
        /// What stands in each table (`None`: there is no such table), or why it could not be read.
        result: Result<BTreeMap<TableId, Option<Snapshot>>, BackendError>,
    },
    /// An [`super::Effect::Apply`] was done.
    Applied {
        /// The generation of the effect.
        generation: u64,
        /// Why not, if it failed. The state of the kernel is then taken to be unknown.
        result: Result<(), BackendError>,
    },
    /// Somebody else touched the tables: they are read and mended at once.
    Disturbed,
}

impl From<ClientEvent> for Event {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}

/// Why a backend could not do what it was asked for, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(pub String);
