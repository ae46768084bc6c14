//! Messages between the lab's processes: JSON and file descriptors over local sockets that keep message borders.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::{Exit, Program};

/// The largest message, in bytes; a started program's arguments and environment must fit.
pub(super) const MESSAGE_BYTES_MAX: usize = 96 * 1024;
/// The most file descriptors beside one message.
const FDS_MAX: usize = 4;
/// The most messages that wait for a peer that does not read.
const OUTBOX_MAX: usize = 4096;

/// From the host to the lab's root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ToRoot {
    pub id: u64,
    pub call: RootCall,
}

/// What the root is asked to do; descriptors come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RootCall {
    /// With the init's end of the machine's channel.
    PowerOn {
        name: String,
        address: Ipv4Addr,
    },
    PowerOff {
        name: String,
    },
    /// Plugs a machine's cable in, or pulls it.
    Cable {
        name: String,
        plugged: bool,
    },
    /// Answered with a new socket of the machine's network, or of the root's.
    Socket {
        machine: Option<String>,
        kind: SocketKind,
    },
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SocketKind {
    Tcp,
    Udp,
}

/// From the lab's root to the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromRoot {
    /// The network stands.
    Ready,
    /// It does not, and the root is gone.
    Failed {
        reason: String,
    },
    Answer {
        id: u64,
        result: Result<(), String>,
    },
    /// A machine's init ended unasked.
    Down {
        name: String,
    },
}

/// From the host to the init of a machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInit {
    /// With standard input, output and error.
    Start(Start),
    Signal {
        id: u64,
        signal: i32,
        group: bool,
    },
}

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub id: u64,
    pub program: Program,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub dir: Option<PathBuf>,
}

/// From the init of a machine to the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// The machine is up.
    Ready,
    Failed {
        reason: String,
    },
    Started {
        id: u64,
        pid: u32,
    },
    NotStarted {
        id: u64,
        reason: String,
    },
    Exited {
        id: u64,
        exit: Exit,
    },
}

/// A connected pair.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Encodes a message.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        let text = format!("{} bytes of arguments and environment; at most {MESSAGE_BYTES_MAX}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}

/// Sends a message without waiting: `WouldBlock` if the peer is behind.
pub(super) fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(to, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Reads one message without waiting: `WouldBlock` if there is none, `Ok(None)` if the peer is gone.
pub(super) fn receive<T: DeserializeOwned>(from: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = loop {
        match recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            got => break got?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((message, fds)))
}

/// One end of a channel in a process that must never wait for its peer.
#[derive(Debug)]
pub(super) struct Port {
    socket: OwnedFd,
    outbox: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

impl Port {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, outbox: VecDeque::new() }
    }

    /// Sends a message, now or when the peer has read others.
    pub(super) fn send<T: Serialize>(&mut self, message: &T, fd: Option<OwnedFd>) -> io::Result<()> {
        if self.outbox.len() >= OUTBOX_MAX {
            return Err(io::Error::other("the other side does not read its messages"));
        }
        self.outbox.push_back((encode(message)?, fd));
        self.flush()
    }

    /// Sends what waits, as far as the peer takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fd)) = self.outbox.front() {
            let fds = fd.as_ref().map(OwnedFd::as_fd);
            match send(self.socket.as_fd(), bytes, fds.as_slice()) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub(super) fn is_behind(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        receive(self.socket.as_fd())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_carries_descriptors_and_keeps_its_borders() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(a.as_fd(), &encode(&FromRoot::Ready).unwrap(), &[writer.as_fd()]).unwrap();
        send(a.as_fd(), &encode(&FromRoot::Down { name: "m1".into() }).unwrap(), &[]).unwrap();
        drop(writer);
        let (first, mut fds) = receive::<FromRoot>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(first, FromRoot::Ready));
        let mut writer = std::fs::File::from(fds.pop().unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let (second, fds) = receive::<FromRoot>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(second, FromRoot::Down { name } if name == "m1") && fds.is_empty());
        assert_eq!(receive::<FromRoot>(b.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert!(receive::<FromRoot>(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_port_keeps_order_when_its_peer_is_behind_and_gives_up_at_its_limit() {
        let (a, b) = pair().unwrap();
        let mut port = Port::new(a);
        let big = "x".repeat(16 * 1024);
        let mut sent = 0_u64;
        while port.send(&FromInit::NotStarted { id: sent, reason: big.clone() }, None).is_ok() {
            sent += 1;
        }
        assert!(port.is_behind() && sent >= OUTBOX_MAX as u64);
        for expected in 0..sent {
            let (message, _) = receive::<FromInit>(b.as_fd()).unwrap().unwrap();
            assert!(matches!(message, FromInit::NotStarted { id, .. } if id == expected));
            port.flush().unwrap();
        }
        assert!(!port.is_behind());
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let reason = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(encode(&FromRoot::Failed { reason }).is_err());
    }
}
