//! What can go wrong with a lab.

use std::io;
use std::net::SocketAddr;

/// Why the lab did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Another program listens where the host's clients are to connect.
    #[error(
        "{address} is in use: end the program that listens there (`ss -ltnp` names it), or pass another --listen"
    )]
    Busy {
        /// The address.
        address: SocketAddr,
    },
    /// The configuration contradicts itself.
    #[error("the lab's configuration: {detail}")]
    Config {
        /// What is wrong with it.
        detail: String,
    },
    /// This system does not allow what a lab is made of; the reason is one line for people.
    #[error("{reason}")]
    Unsupported {
        /// What was refused, and what may help.
        reason: String,
    },
    /// There is no such machine.
    #[error("there is no machine {name}")]
    NoMachine {
        /// Its name.
        name: String,
    },
    /// The machine is off, or went off meanwhile.
    #[error("machine {name} is off")]
    Off {
        /// Its name.
        name: String,
    },
    /// The machine is on already.
    #[error("machine {name} is on")]
    On {
        /// Its name.
        name: String,
    },
    /// A program could not be started in a machine.
    #[error("{machine}: starting {process}: {reason}")]
    Start {
        /// The machine.
        machine: String,
        /// The name of the process.
        process: String,
        /// Why.
        reason: String,
    },
    /// A command in a machine took too long and was killed.
    #[error("{machine}: {process} was killed after {limit_ms} ms")]
    Timeout {
        /// The machine.
        machine: String,
        /// The name of the process.
        process: String,
        /// How long it was waited for, in milliseconds.
        limit_ms: u128,
    },
    /// The lab's own processes refused a request.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why it was not done.
        reason: String,
    },
    /// The lab ended; its log says why.
    #[error("the lab ended; see its log {log}")]
    Gone {
        /// The file.
        log: String,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LabError {
    pub(super) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }
}
