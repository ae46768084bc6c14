//! All kinds of hosts as one machine.

use icp_core::base::{Machine, Time};
use icp_core::sim::{Input, Output};

use super::master::MasterHost;
use super::message::{Payload, Seen};
use super::node::NodeHost;
use super::store::StoreHost;
use super::user::UserHost;

/// A host of the simulated cluster.
pub enum Host {
    /// The store.
    Store(Box<StoreHost>),
    /// A master.
    Master(Box<MasterHost>),
    /// A node.
    Node(Box<NodeHost>),
    /// The user.
    User(Box<UserHost>),
}

impl Host {
    /// Takes what the host saw since the last call.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(match self {
            Self::Store(h) => &mut h.seen,
            Self::Master(h) => &mut h.seen,
            Self::Node(h) => &mut h.seen,
            Self::User(h) => &mut h.seen,
        })
    }

    /// The master, if it is one.
    #[must_use]
    pub fn master(&self) -> Option<&MasterHost> {
        if let Self::Master(h) = self { Some(h) } else { None }
    }

    /// The node, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeHost> {
        if let Self::Node(h) = self { Some(h) } else { None }
    }
}

impl Machine for Host {
    type Event = Input<Payload>;
    type Effect = Output<Payload>;

    fn on(&mut self, now: Time, event: Self::Event, out: &mut Vec<Self::Effect>) {
        match (self, event) {
            (Self::Store(h), Input::Stream { stream, from, payload: Payload::Order(order), .. }) => {
                h.on_order(now, stream, from, order, out);
            }
            (Self::Store(h), Input::Closed { stream }) => h.on_closed(now, stream, out),
            (Self::Store(_), _) => {}
            (Self::Master(h), Input::Packet { from, payload }) => h.on_packet(now, from, payload, out),
            (Self::Master(h), Input::Stream { stream, from, payload, end }) => {
                h.on_stream(now, stream, from, payload, end, out);
            }
            (Self::Master(h), Input::Closed { stream }) => h.on_closed(now, stream, out),
            (Self::Node(h), Input::Packet { payload, .. }) => h.on_packet(now, &payload, out),
            (Self::Node(h), Input::Stream { stream, payload, end, .. }) => {
                h.on_stream(now, stream, &payload, end, out);
            }
            (Self::Node(h), Input::Closed { stream }) => h.on_closed(now, stream, out),
            (Self::User(h), Input::Packet { payload, .. }) => h.on_packet(now, &payload, out),
            (Self::User(h), Input::Stream { stream, payload, end, .. }) => {
                h.on_stream(now, stream, &payload, end, out);
            }
            (Self::User(h), Input::Closed { stream }) => h.on_closed(now, stream, out),
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Self::Effect>) {
        match self {
            Self::Store(h) => h.wake(now, out),
            Self::Master(h) => h.wake(now, out),
            Self::Node(h) => h.wake(now, out),
            Self::User(h) => h.wake(now, out),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Store(h) => h.deadline(),
            Self::Master(h) => h.deadline(),
            Self::Node(h) => h.deadline(),
            Self::User(h) => h.deadline(),
        }
    }
}
