//! The system calls that have no safe wrapper.
#![expect(unsafe_code, reason = "fork, setns-like calls and socket options have no safe wrapper")]

use alloc::vec::Vec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, Signal};

use crate::backend::native::plan::seccomp::Instruction;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Splits this process in two; the child gets `None`. The caller has one thread.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the helper never starts a thread, so that the child finds every lock free.
    let pid = unsafe { libc::fork() };
    check(pid.into())?;
    Ok(Pid::from_raw(pid))
}

/// Leaves namespaces for new ones.
pub(super) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: file descriptors are not unshared, and there is one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Ends this process without running what was registered for its end.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// Children that end are forgotten at once, also those that were given to this process.
pub(super) fn ignore_children() {
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Waits for a signal.
pub(super) fn pause() {
    // SAFETY: it has no preconditions.
    unsafe { libc::pause() };
}

/// Changes flags and propagation of a mount (`mount_setattr`); `set` are `MOUNT_ATTR_*`, `propagation` an `MS_*` or 0.
pub(super) fn mount_setattr(fd: impl AsFd, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set, clear: 0, propagation, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string that ends in zero, and the structure lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    check(result).map(drop)
}

/// Installs a filter of system calls for the rest of this process and its children.
pub(super) fn install_filter(filter: &[Instruction]) -> io::Result<()> {
    let list: Vec<libc::sock_filter> =
        filter.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = u16::try_from(list.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: list.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives through the call, and does not write to it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    check(result).map(drop)
}

/// Puts up the loopback interface of this network namespace.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: it has no preconditions.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd.into())?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the structure is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: the request is of the type that this call reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(result.into()).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub(super) fn controlling_terminal(fd: impl AsFd) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(fd).map_err(Into::into)
}

/// A signal by its number, real-time signals included.
pub(crate) fn signal_of(number: i32) -> Option<Signal> {
    const REAL_TIME: core::ops::RangeInclusive<i32> = 34..=64;
    Signal::from_named_raw(number).or_else(|| {
        // SAFETY: these numbers are signals, and none of those that the C library keeps for itself (32 and 33).
        REAL_TIME.contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number) })
    })
}
