//! Why a netlink request failed.

use std::string::String;

/// An error number of the kernel, such as `EEXIST`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// `EPERM`: the caller lacks `CAP_NET_ADMIN` in this network namespace.
    pub const EPERM: Self = Self(libc::EPERM);
    /// `ENOENT`: no such object.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// `EEXIST`: the object exists.
    pub const EEXIST: Self = Self(libc::EEXIST);
    /// `ENODEV`: no such link.
    pub const ENODEV: Self = Self(libc::ENODEV);
    /// `ESRCH`: no such route.
    pub const ESRCH: Self = Self(libc::ESRCH);
    /// `EADDRNOTAVAIL`: no such address.
    pub const EADDRNOTAVAIL: Self = Self(libc::EADDRNOTAVAIL);
    /// `ERESTART`: the generation a batch was computed from is no longer current.
    pub const ERESTART: Self = Self(85);
    /// `EOPNOTSUPP`: this kernel lacks the feature.
    pub const EOPNOTSUPP: Self = Self(libc::EOPNOTSUPP);

    pub(super) fn of(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

/// Why a netlink request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket could not be opened or set up.
    #[error("cannot open a {family} socket: {errno}")]
    Open {
        /// The netlink family.
        family: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The request could not be handed to the kernel.
    #[error("cannot send {object}: {errno}")]
    Send {
        /// What was asked for.
        object: String,
        /// Why.
        errno: Errno,
    },
    /// The answer could not be read.
    #[error("cannot read the answer about {object}: {errno}")]
    Receive {
        /// What was asked for.
        object: String,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused the request.
    #[error("{object}: {errno}{}{message}", if message.is_empty() { "" } else { ": " })]
    Kernel {
        /// What was asked for, such as `add route 10.0.0.0/24`.
        object: String,
        /// Why.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), often empty.
        message: String,
    },
    /// Answers were lost because the receive buffer ran over (`ENOBUFS`): what the kernel did is unknown.
    #[error("answers about {object} were lost: the receive buffer ran over")]
    Overrun {
        /// What was asked for.
        object: String,
    },
    /// The table changed during every one of several dumps.
    #[error("{object} kept changing while it was read")]
    Interrupted {
        /// What was read.
        object: String,
    },
    /// The kernel's answer broke off, or has not the shape it must have.
    #[error("the kernel's answer about {object} is not understood")]
    Malformed {
        /// What was asked for.
        object: String,
    },
    /// A value does not fit into its netlink field; `object` names it.
    #[error("{object} is too long for netlink")]
    TooLong {
        /// The value.
        object: String,
    },
    /// What was looked for by name does not exist.
    #[error("{object} does not exist")]
    Missing {
        /// What was looked for.
        object: String,
    },
}

impl NetlinkError {
    /// The error number, where there is one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno, .. }
            | Self::Send { errno, .. }
            | Self::Receive { errno, .. }
            | Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the kernel refused with `errno`.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }

    /// Whether it says that the object is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
            || [Errno::ENOENT, Errno::ENODEV, Errno::ESRCH, Errno::EADDRNOTAVAIL].iter().any(|e| self.is(*e))
    }
}
