//! Waits for the end of processes that are no children of this one.
#![expect(
    unsafe_code,
    reason = "the descriptor that tokio watches must stay open, which only the caller can promise"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for the end of a process, given its descriptor.
pub(super) async fn ended(process: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is owned, so that it stays open, and the same, until the registration is gone.
    let fd =
        unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }.map_err(io::Error::from)?;
    fd.readable().await.map(drop)
}
