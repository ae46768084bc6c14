//! What travels over the links.

use std::fmt;

use bytes::Bytes;
use icp_core::sim::{StoreCall, StoreNews, StoreOrder};

/// Which component a request is of, and under which leadership it was sent; travels with it so that checkers can tell
/// whose writes took effect. No component looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Who.
    pub component: Component,
    /// The host's number.
    pub host: u32,
    /// The leadership plus one; 0 without.
    pub term: u32,
}

/// A component that sends requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The API server itself.
    #[default]
    Server,
    /// The controller manager.
    Manager,
    /// The scheduler.
    Scheduler,
    /// A node agent.
    Node,
    /// Whoever works with the cluster.
    User,
}

impl Component {
    /// The name in traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Manager => "manager",
            Self::Scheduler => "scheduler",
            Self::Node => "node",
            Self::User => "user",
        }
    }
}

impl Stamp {
    /// As one number.
    #[must_use]
    pub const fn pack(self) -> u64 {
        ((self.component as u64) << 56) | ((self.host as u64 & 0xff_ffff) << 32) | self.term as u64
    }

    /// From one number.
    #[must_use]
    pub const fn unpack(packed: u64) -> Self {
        let component = match packed >> 56 {
            1 => Component::Manager,
            2 => Component::Scheduler,
            3 => Component::Node,
            4 => Component::User,
            _ => Component::Server,
        };
        Self { component, host: ((packed >> 32) & 0xff_ffff) as u32, term: packed as u32 }
    }
}

/// What travels over a link.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A request to an API server.
    Request {
        /// The message.
        http: http::Request<Bytes>,
        /// Whose it is.
        stamp: Stamp,
    },
    /// Its answer.
    Response {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Bytes,
    },
    /// A piece of the answer to a watch: whole lines.
    Chunk(Bytes),
    /// The address is not of this host.
    Refused,
    /// An Ethernet frame.
    Frame(Vec<u8>),
    /// Who has the shared address?
    WhoHas,
    /// To the store.
    Order(StoreOrder),
    /// From the store.
    News(StoreNews),
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { http, stamp } => {
                write!(f, "{} {} of {}", http.method(), http.uri(), stamp.component.name())?;
                if stamp.term > 0 { write!(f, " in term {}", stamp.term - 1) } else { Ok(()) }
            }
            Self::Response { status, body } => write!(f, "{status}, {} bytes", body.len()),
            Self::Chunk(bytes) => write!(f, "chunk of {} bytes", bytes.len()),
            Self::Refused => f.write_str("refused"),
            Self::Frame(frame) => match frame.get(12..14) {
                Some([0x08, 0x06]) => f.write_str("ARP"),
                _ => f.write_str("CARP"),
            },
            Self::WhoHas => f.write_str("who has?"),
            Self::Order(StoreOrder::Call { id, call, .. }) => write!(f, "call {id} {}", name_of(call)),
            Self::Order(StoreOrder::CancelWatch(id)) => write!(f, "cancel watch {id}"),
            Self::News(StoreNews::Answer { id, answer }) => match answer {
                Ok(_) => write!(f, "answer {id}"),
                Err(e) => write!(f, "answer {id}: {e}"),
            },
            Self::News(StoreNews::Batch { id, batch }) => match batch {
                Ok(batch) => write!(f, "batch {id} of {} at {}", batch.events.len(), batch.revision),
                Err(e) => write!(f, "batch {id}: {e}"),
            },
        }
    }
}

fn name_of(call: &StoreCall) -> &'static str {
    match call {
        StoreCall::Range(_) => "range",
        StoreCall::Txn(_) => "txn",
        StoreCall::Watch(_) => "watch",
        StoreCall::Compact(_) => "compact",
        StoreCall::LeaseGrant { .. } | StoreCall::LeaseKeepAlive(_) | StoreCall::LeaseRevoke(_) => "lease",
        StoreCall::RequestProgress => "progress",
    }
}

/// What a host saw, for the checkers.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The store applied and synced this, in order.
    Committed {
        /// The changes.
        commit: std::sync::Arc<icp_store::mvcc::Commit>,
        /// Whose they are.
        stamp: Stamp,
    },
    /// The store was opened: what its disk holds.
    Recovered {
        /// All commits that it holds, in order.
        commits: Vec<std::sync::Arc<icp_store::mvcc::Commit>>,
        /// Up to where the history is compacted.
        compacted: i64,
        /// The revision that it is at.
        revision: i64,
    },
    /// The store answered a read that it got when this much was acknowledged.
    Read {
        /// The newest revision that was acknowledged to anybody when the read came in.
        acknowledged: i64,
        /// The revision that was read.
        revision: i64,
    },
    /// The store acknowledged the write of this revision.
    Acknowledged(i64),
    /// A client's request was answered.
    Answered {
        /// The request.
        request: Box<icp_core::client::ApiRequest>,
        /// The answer.
        result: Box<Result<icp_core::client::Reply, icp_core::client::ApiError>>,
    },
    /// A client opened a watch.
    WatchOpened {
        /// The client's name of it.
        watch: u64,
        /// What is watched.
        request: Box<icp_core::client::ApiRequest>,
    },
    /// A watch said something.
    Watched {
        /// The watch.
        watch: u64,
        /// What.
        event: icp_core::client::WatchEvent,
    },
    /// A watch is no more.
    WatchOver {
        /// The watch.
        watch: u64,
    },
    /// A check was made, and all was well.
    Checked(&'static str),
    /// The user saw something that must not be.
    Wrong(&'static str, String),
}
