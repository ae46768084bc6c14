//! What can be wrong with a configuration.

/// Errors of a [`VipConfig`](super::VipConfig).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VipError {
    /// The virtual host id is 0.
    #[error("vhid: must be 1 to 255")]
    Vhid,
    /// The password is empty or longer than the 19 bytes that UCarp uses.
    #[error("password: must be 1 to 19 bytes, has {bytes}")]
    Password {
        /// Its length.
        bytes: usize,
    },
    /// Both intervals are zero, so that advertisements would have no pause.
    #[error("advbase, advskew: must not both be 0")]
    Interval,
    /// The dead ratio is 0.
    #[error("dead_ratio: must be at least 1")]
    DeadRatio,
}
