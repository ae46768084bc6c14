//! Why a pod cannot be attached.

use alloc::string::String;
use core::net::IpAddr;

use crate::service::Protocol;

/// Why a pod cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// There is an interface of the pod's name that this plan did not make and must not touch.
    #[error("{link} exists and is not a virtual cable")]
    ForeignLink {
        /// Its name.
        link: String,
    },
    /// Another pod has the port of the machine already.
    #[error("{protocol:?} port {port} of the machine leads to {by} already")]
    HostPortTaken {
        /// Its protocol.
        protocol: Protocol,
        /// Its number.
        port: u16,
        /// The pod's address.
        by: IpAddr,
    },
    /// There is nothing to attach.
    #[error("the pod has no address")]
    NoAddress,
}
