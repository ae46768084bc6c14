//! What the route machine wants done.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use icp_core::client::ClientEffect;
use ipnet::IpNet;

use super::RouteEntry;
use crate::rules::{Batch, Family, TableId};

/// Changes of the kernel's state, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Families to forward.
    pub forward: BTreeSet<Family>,
    /// Routes to delete.
    pub delete: Vec<RouteEntry>,
    /// Routes to add, or to put in the place of those to the same destination.
    pub add: Vec<RouteEntry>,
    /// Changes of the tables.
    pub batch: Batch,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty() && self.delete.is_empty() && self.add.is_empty() && self.batch.is_empty()
    }
}

/// What [`super::RouteMachine`] wants done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events and effects are moved once, not kept")]
pub enum Effect {
    /// Ask the API server.
    Client(ClientEffect),
    /// Read the kernel's state and report [`super::Event::Observed`].
    Observe {
        /// Names the answer.
        generation: u64,
        /// The tables.
        tables: Vec<TableId>,
    },
    /// Change the kernel's state and report [`super::Event::Applied`]. No other is asked for before that.
    Apply {
        /// Names the answer.
        generation: u64,
        /// The changes.
        changes: Changes,
    },
    /// The node's own part of the pod network is now this; where pods get their addresses from. Nothing is reported.
    PodNetworks(Vec<IpNet>),
}

impl From<ClientEffect> for Effect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}
