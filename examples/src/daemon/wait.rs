//! Waiting on a descriptor that no library of ours wraps.
#![expect(unsafe_code, reason = "tokio asks its caller to vouch for the descriptor")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Lets tokio wait on a descriptor of one's own.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the descriptor, which therefore stays open and the same until it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
