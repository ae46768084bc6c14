//! What cluster DNS wants done.

use alloc::sync::Arc;

use icp_core::client::ClientEffect;

use super::Snapshot;

/// What [`super::DnsMachine`] wants done.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events and effects are moved once, not kept")]
pub enum DnsEffect {
    /// Ask the API server.
    Client(ClientEffect),
    /// Answer from this state of the zone from now on.
    Publish(Arc<Snapshot>),
}

impl From<ClientEffect> for DnsEffect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}
