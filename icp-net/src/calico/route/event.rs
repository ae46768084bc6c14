//! What happens to the route machine.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ClientEvent;

use super::{RouteEntry, Via};
use crate::rules::{Family, Snapshot, TableId};
pub use crate::service::BackendError;

/// What the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The routes with the machine's protocol number.
    pub routes: BTreeSet<RouteEntry>,
    /// The tables; `None` for one that is not there.
    pub tables: BTreeMap<TableId, Option<Snapshot>>,
    /// The families that are forwarded, as a router of pods does.
    pub forwarding: BTreeSet<Family>,
}

/// A change that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The route; `None` if it is of another sort.
    pub route: Option<RouteEntry>,
    /// Why, in words that name it.
    pub why: String,
}

impl Failure {
    /// Whether the machine's own pods have no network because of it: all but a route to one other node.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self.route, Some(RouteEntry { via: Via::Gateway(_), .. }))
    }
}

/// What happens to [`super::RouteMachine`].
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
        /// What was found, or why it could not be read.
        result: Result<Observed, BackendError>,
    },
    /// An [`super::Effect::Apply`] was done.
    Applied {
        /// The generation of the effect.
        generation: u64,
        /// What could not be done; what else was asked for is done.
        failures: Vec<Failure>,
    },
    /// Somebody else changed routes or tables: they are read and mended at once.
    Disturbed,
}

impl From<ClientEvent> for Event {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}
