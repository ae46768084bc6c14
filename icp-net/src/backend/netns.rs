//! Network namespaces of threads.
#![allow(unsafe_code, reason = "unshare has no safe form in rustix")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Opens the network namespace that the calling thread is in.
///
/// # Errors
/// If `/proc` is not mounted or not readable.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Opens the network namespace of process `pid`.
///
/// # Errors
/// If there is no such process, or the caller may not look at it.
pub fn of_pid(pid: u32) -> io::Result<File> {
    File::open(Path::new("/proc").join(std::format!("{pid}")).join("ns/net"))
}

/// Moves the calling thread into `namespace`. Sockets that are open stay where they were opened.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns `namespace`.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Into::into)
}

/// Moves the calling thread into a new, empty network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn unshare() -> io::Result<()> {
    // SAFETY: only CLONE_FILES can take file descriptors away from other threads; CLONE_NEWNET changes which
    // network namespace later sockets of this thread belong to, and nothing in memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Makes a new network namespace and stays in the present one.
///
/// # Errors
/// As [`unshare`] and [`enter`]; after a failed return the thread may be left in the new namespace.
pub fn create() -> io::Result<File> {
    let home = current()?;
    unshare()?;
    let made = current();
    enter(&home)?;
    made
}

/// Runs `body` in `namespace` and comes back.
///
/// # Errors
/// As [`enter`]. If the way back fails the thread is left in `namespace`, so that the caller must end it.
pub fn within<T>(namespace: impl AsFd, body: impl FnOnce() -> T) -> io::Result<T> {
    let home = current()?;
    enter(namespace)?;
    let value = body();
    enter(&home)?;
    Ok(value)
}
