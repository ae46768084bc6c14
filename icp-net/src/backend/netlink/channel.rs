//! A synchronous channel to one netlink family.

use std::string::{String, ToString};
use std::vec::Vec;

use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::{Encoder, Errno, Header, NetlinkError, attributes, flag, messages};

const RECEIVE_BYTES: usize = 64 * 1024;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const ERROR_TEXT: u16 = 1;
const EXT_ACK: u16 = 0x200;
const CAPPED: u16 = 0x100;
/// How often an inconsistent dump is taken again before it is given up.
const DUMP_TRIES_MAX: usize = 8;

/// A netlink family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Route => "rtnetlink",
            Self::Netfilter => "nfnetlink",
        }
    }

    const fn number(self) -> isize {
        match self {
            Self::Route => libc::NETLINK_ROUTE as isize,
            Self::Netfilter => libc::NETLINK_NETFILTER as isize,
        }
    }
}

/// A socket to one netlink family, in the network namespace of the thread that opened it.
///
/// These families answer inside `send`, so that a request never blocks: what is not there after `send` will not
/// come, and is reported as [`NetlinkError::Malformed`].
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    seq: u32,
    send_bytes_max: usize,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens a socket; it stays in the network namespace that the calling thread is in now.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        let failed = |e: std::io::Error| NetlinkError::Open { family: family.name(), errno: Errno::of(&e) };
        let mut socket = Socket::new(family.number()).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Kernels before 4.12 lack both; errors then come without their text.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Large batches need large buffers. The forcing calls need rights on the machine itself; without them
        // the buffers stay at what the administrator allows, and batches are cut smaller.
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES_WANTED).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES_WANTED);
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_WANTED).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_WANTED);
        }
        let size = sockopt::socket_send_buffer_size(&socket).unwrap_or(200 * 1024);
        Ok(Self { socket, seq: 0, send_bytes_max: size.saturating_sub(64), buffer: Vec::new() })
    }

    /// The most bytes that one [`Channel::send`] takes.
    #[must_use]
    pub const fn send_bytes_max(&self) -> usize {
        self.send_bytes_max
    }

    /// A sequence number that no earlier request of this channel had.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Hands `bytes` (one or more messages) to the kernel.
    ///
    /// # Errors
    /// [`NetlinkError::Send`] naming `object`.
    pub fn send(&mut self, bytes: &[u8], object: &str) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::Send { object: object.into(), errno: Errno::of(&e) }),
            }
        }
    }

    /// Reads one datagram that is already there; `None` if there is none.
    ///
    /// # Errors
    /// [`NetlinkError::Overrun`] and [`NetlinkError::Receive`], naming `object`.
    pub fn receive(&mut self, object: &str) -> Result<Option<&[u8]>, NetlinkError> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_BYTES);
        loop {
            return match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => Ok(Some(&self.buffer)),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    Err(NetlinkError::Overrun { object: object.into() })
                }
                Err(e) => Err(NetlinkError::Receive { object: object.into(), errno: Errno::of(&e) }),
            };
        }
    }

    /// Throws away what is still unread, so that a request is not answered by the leftovers of a failed one.
    pub fn drain(&mut self) {
        while !matches!(self.receive(""), Ok(None) | Err(NetlinkError::Receive { .. })) {}
    }

    /// Sends one message and waits for its acknowledgement; `object` names it in errors.
    ///
    /// # Errors
    /// Any of [`NetlinkError`]; [`NetlinkError::Kernel`] when the kernel refuses.
    pub fn request(
        &mut self,
        kind: u16,
        flags: u16,
        object: &str,
        body: impl FnOnce(&mut Encoder),
    ) -> Result<(), NetlinkError> {
        let seq = self.next_seq();
        let mut message = Encoder::new();
        message.message(kind, flags | flag::REQUEST | flag::ACK, seq, body);
        if message.is_too_long() {
            return Err(NetlinkError::TooLong { object: object.into() });
        }
        self.send(message.bytes(), object)?;
        while let Some(bytes) = self.receive(object)? {
            for (header, payload) in messages(bytes) {
                if header.seq == seq && header.kind == NLMSG_ERROR {
                    return outcome(header, payload, object);
                }
            }
        }
        Err(NetlinkError::Malformed { object: object.into() })
    }

    /// Sends one message and gives each message of its answer to `on`, until the end of the dump.
    ///
    /// A dump during which the table changed is taken again; `on` is then told by `restart`.
    ///
    /// # Errors
    /// Any of [`NetlinkError`]; [`NetlinkError::Interrupted`] after 8 inconsistent dumps.
    pub fn dump<S>(
        &mut self,
        kind: u16,
        object: &str,
        body: impl Fn(&mut Encoder),
        restart: impl Fn() -> S,
        mut on: impl FnMut(&mut S, u16, &[u8]),
    ) -> Result<S, NetlinkError> {
        for _ in 0..DUMP_TRIES_MAX {
            let mut state = restart();
            if self.dump_once(kind, object, &body, &mut state, &mut on)? {
                return Ok(state);
            }
        }
        Err(NetlinkError::Interrupted { object: object.into() })
    }

    fn dump_once<S>(
        &mut self,
        kind: u16,
        object: &str,
        body: &impl Fn(&mut Encoder),
        state: &mut S,
        on: &mut impl FnMut(&mut S, u16, &[u8]),
    ) -> Result<bool, NetlinkError> {
        let seq = self.next_seq();
        let mut message = Encoder::new();
        message.message(kind, flag::REQUEST | flag::DUMP, seq, body);
        self.send(message.bytes(), object)?;
        let mut consistent = true;
        while let Some(bytes) = self.receive(object)? {
            for (header, payload) in messages(bytes) {
                if header.seq != seq {
                    continue;
                }
                consistent &= header.flags & flag::DUMP_INTERRUPTED == 0;
                match header.kind {
                    NLMSG_DONE => {
                        let errno =
                            payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        return match -errno {
                            libc::EINTR => Ok(false),
                            e if e > 0 => Err(kernel(e, String::new(), object)),
                            _ => Ok(consistent),
                        };
                    }
                    NLMSG_ERROR => return outcome(header, payload, object).map(|()| consistent),
                    kind => on(state, kind, payload),
                }
            }
        }
        Err(NetlinkError::Malformed { object: object.into() })
    }

    /// Sends one message and returns the payload of the first message that answers it.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn get(
        &mut self,
        kind: u16,
        object: &str,
        body: impl FnOnce(&mut Encoder),
    ) -> Result<Vec<u8>, NetlinkError> {
        let seq = self.next_seq();
        let mut message = Encoder::new();
        message.message(kind, flag::REQUEST, seq, body);
        self.send(message.bytes(), object)?;
        while let Some(bytes) = self.receive(object)? {
            for (header, payload) in messages(bytes) {
                if header.seq != seq {
                    continue;
                }
                if header.kind == NLMSG_ERROR {
                    outcome(header, payload, object)?;
                }
                return Ok(payload.to_vec());
            }
        }
        Err(NetlinkError::Malformed { object: object.into() })
    }
}

/// Room for 100 000 set elements in one batch.
const SEND_BYTES_WANTED: usize = 8 * 1024 * 1024;
const RECEIVE_BUFFER_WANTED: usize = 2 * 1024 * 1024;

fn kernel(errno: i32, message: String, object: &str) -> NetlinkError {
    NetlinkError::Kernel { object: object.to_string(), errno: Errno(errno), message }
}

/// Reads an `NLMSG_ERROR`: 0 is an acknowledgement.
pub(crate) fn outcome(header: Header, payload: &[u8], object: &str) -> Result<(), NetlinkError> {
    let code = payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            // The offending message follows the code: its header alone if capped, else all of it.
            let quoted = payload.get(4..8).and_then(|b| b.try_into().ok()).map_or(16, u32::from_ne_bytes);
            let quoted = if header.flags & CAPPED != 0 { 16 } else { usize::try_from(quoted).unwrap_or(16) };
            let text = if header.flags & EXT_ACK == 0 {
                ""
            } else {
                let tail = payload.get(4 + ((quoted + 3) & !3)..).unwrap_or(&[]);
                attributes(tail).find(|a| a.kind == ERROR_TEXT).map_or("", |a| a.str())
            };
            Err(kernel(-code, text.to_string(), object))
        }
        None => Err(NetlinkError::Malformed { object: object.into() }),
    }
}
