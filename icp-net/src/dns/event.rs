//! What happens to cluster DNS.

use icp_core::client::ClientEvent;

use super::hosts::Hosts;

/// What happens to [`super::DnsMachine`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events and effects are moved once, not kept")]
pub enum DnsEvent {
    /// The API server answered.
    Client(ClientEvent),
    /// The hosts file changed.
    Hosts(Hosts),
}

impl From<ClientEvent> for DnsEvent {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}
