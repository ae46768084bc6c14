//! Why a pod cannot be attached.

use alloc::string::String;

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
    /// There is nothing to attach.
    #[error("the pod has no address")]
    NoAddress,
}
