//! What the proxy wants done.

use alloc::vec::Vec;

use icp_core::client::ClientEffect;

use super::StaleFlows;
use crate::rules::{Batch, TableId};

/// What [`super::ProxyMachine`] wants done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events and effects are moved once, not kept")]
pub enum Effect {
    /// Ask the API server.
    Client(ClientEffect),
    /// Read these tables back and report [`super::Event::Observed`].
    Observe {
        /// Names the answer.
        generation: u64,
        /// The tables.
        tables: Vec<TableId>,
    },
    /// Change the tables and report [`super::Event::Applied`]. No other is asked for before that.
    Apply {
        /// Names the answer.
        generation: u64,
        /// The changes.
        batch: Batch,
    },
    /// Make the kernel forget UDP flows that go elsewhere than these frontends' endpoints. Nothing is reported; a
    /// backend that cannot may leave it.
    ForgetFlows(Vec<StaleFlows>),
}

impl From<ClientEffect> for Effect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}
