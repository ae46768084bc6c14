//! The calls that have no safe form.
#![expect(
    unsafe_code,
    reason = "unshare, signalfd, inherited descriptors and what runs between fork and exec"
)]

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::io::unix::AsyncFd;

/// The signals with names, which end at `SIGSYS`.
const SIGNALS: i32 = libc::SIGSYS;
/// After the standard streams.
const FIRST_OTHER_FD: libc::c_uint = 3;

/// Moves this process, which has one thread, into new namespaces.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only CLONE_FILES can take descriptors away from other threads, and it is refused above.
    unsafe { unshare_unsafe(flags) }.map_err(Into::into)
}

/// Takes a descriptor that was inherited over exec under a number that the command line names, and keeps later
/// programs from inheriting it too.
pub(super) fn inherited(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow does not outlive this check, which fails if the number is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    fcntl_getfd(fd)?;
    fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    // SAFETY: the number is open; a role takes each number of its command line once, before it opens anything.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Signals that are read from a descriptor instead of interrupting.
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` for this process, which has one thread.
    pub(super) fn take(signals: &[Signal]) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set, sigaddset takes a filled one.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            set.assume_init()
        };
        // SAFETY: the set lives through the call; no old set is asked for.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: the set lives through the call.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits, by number.
    pub(super) fn next(&self) -> Option<i32> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(&self.0, &mut bytes).ok()?;
        // `ssi_signo` is the first field.
        (read == bytes.len()).then_some(bytes)?.first_chunk().copied().map(i32::from_ne_bytes)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a child does between fork and exec.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// Descriptors that the program keeps, under the numbers that they have.
    pub inherit: Vec<RawFd>,
    /// Open `cgroup.procs` files to write itself into, where that is possible.
    pub cgroups: Vec<RawFd>,
    /// A network namespace to enter.
    pub network: Option<RawFd>,
    /// New namespaces to make.
    pub unshare: Option<UnshareFlags>,
}

/// Lets the child of `command` start in a session of its own, with no signal blocked or ignored and no descriptor but
/// its standard streams and those of `setup`, and do `setup`.
///
/// The descriptors of `setup` must stay open until the command is spawned.
pub(super) fn prepare(command: &mut Command, setup: Setup) {
    let steps = move || {
        rustix::process::setsid()?;
        // SAFETY: an all-zero signal set is a valid set, the empty one; it lives through the call. The child runs
        // nothing but these steps, so that no handler is missed, and the descriptors are closed by exec, not here.
        unsafe {
            let none: libc::sigset_t = zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            for signal in 1..=SIGNALS {
                libc::signal(signal, libc::SIG_DFL);
            }
            // Whoever started the host may have left descriptors open. Kernels before 5.11 cannot do this.
            libc::syscall(
                libc::SYS_close_range,
                FIRST_OTHER_FD,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        for raw in &setup.cgroups {
            // SAFETY: whoever prepared the command keeps the descriptor open until it is spawned.
            let file = unsafe { BorrowedFd::borrow_raw(*raw) };
            let _ = rustix::io::write(file, b"0");
        }
        if let Some(raw) = setup.network {
            // SAFETY: as above.
            let namespace = unsafe { BorrowedFd::borrow_raw(raw) };
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        }
        if let Some(flags) = setup.unshare {
            unshare(flags)?;
        }
        for raw in &setup.inherit {
            // SAFETY: as above.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*raw) }, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the steps are system calls on memory that was allocated before; none allocates, locks or unwinds.
    unsafe { command.pre_exec(steps) };
}

/// Names the process for `ps`, and lets it die with its parent.
pub(super) fn become_child(name: &CStr) -> io::Result<()> {
    rustix::thread::set_name(name)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Waits on a descriptor under tokio; it must be called in a runtime with I/O.
pub(super) fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open under one number until it is dropped, and it is dropped with the registration.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
