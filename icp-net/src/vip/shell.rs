//! The sockets of a host that shares an address.
//!
//! Advertisements leave through a packet socket, because their source is the virtual hardware address; they arrive
//! through a raw IP socket of protocol 112. Both belong to the network namespace of the thread that opens them, and
//! need `CAP_NET_RAW` in it.
#![allow(unsafe_code, reason = "packet sockets and the multicast options have no safe wrapper here")]

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::vec::Vec;

/// The largest packet that is read; an advertisement has 56 bytes.
const PACKET_BYTES_MAX: usize = 2048;

/// The two sockets on one interface.
#[derive(Debug)]
pub struct VipSockets {
    send: OwnedFd,
    receive: OwnedFd,
    index: i32,
    mac: [u8; 6],
}

impl VipSockets {
    /// Opens both sockets, non-blocking, and joins 224.0.0.18 on `interface`.
    ///
    /// # Errors
    /// If the interface does not exist or the process may not open raw sockets.
    pub fn open(interface: &str) -> io::Result<Self> {
        let send = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        let receive = socket(libc::AF_INET, libc::SOCK_RAW, 112)?;
        let (index, mac) = identify(receive.as_fd(), interface)?;
        // SAFETY: all fields of an ip_mreqn may be zero.
        let mut group: libc::ip_mreqn = unsafe { zeroed() };
        group.imr_multiaddr.s_addr = u32::from_ne_bytes([224, 0, 0, 18]);
        group.imr_ifindex = index;
        set_option(receive.as_fd(), libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &group)?;
        // Only this interface: with several, the kernel would hand over what arrived on any of them.
        let name = CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the option takes the bytes of a name that lives through the call.
        let bound = unsafe {
            libc::setsockopt(
                receive.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.as_bytes_with_nul().len() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { send, receive, index, mac })
    }

    /// The interface's hardware address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends one Ethernet frame.
    ///
    /// # Errors
    /// If the interface is down or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: all fields of a sockaddr_ll may be zero.
        let mut to: libc::sockaddr_ll = unsafe { zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.index;
        to.sll_halen = 6;
        // SAFETY: frame and address live through the call and their lengths are right.
        let sent = unsafe {
            libc::sendto(
                self.send.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads one IPv4 packet of protocol 112, or `None` if none waits.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut packet = std::vec![0; PACKET_BYTES_MAX];
        // SAFETY: the buffer is as long as is said and lives through the call.
        let read = unsafe {
            libc::recv(self.receive.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), libc::MSG_DONTWAIT)
        };
        if let Ok(read) = usize::try_from(read) {
            packet.truncate(read);
            return Ok(Some(packet));
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            e => Err(e),
        }
    }
}

impl AsFd for VipSockets {
    /// The receiving socket, to wait on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value lives through the call and its length is right.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            core::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Index and hardware address of an interface.
fn identify(fd: BorrowedFd<'_>, interface: &str) -> io::Result<(i32, [u8; 6])> {
    // SAFETY: all fields of an ifreq may be zero.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name is longer than 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request is complete and lives through the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFINDEX fills this field of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFHWADDR fills this field of the union.
    let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(bytes) {
        *to = from as u8;
    }
    Ok((index, mac))
}
