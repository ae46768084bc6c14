//! Carries the streams of a process: output to a log and to attached clients, their input to the process.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::termios::Winsize;

use super::now;
use crate::backend::native::frame::{Decoder, FRAME_MAX, Frame};
use crate::backend::native::log::{Channel, LogWriter};

/// Input that waits for the process, in bytes; clients wait when it is full.
const INPUT_MAX: usize = 256 * 1024;
/// Output that waits for the client of an exec, in bytes; the process waits when it is full.
const OWNER_MAX: usize = 256 * 1024;
/// Output that waits for an attached client, in bytes; a slower one is cut off, so that the container does not wait.
const GUEST_MAX: usize = 4 << 20;
const CLIENTS_MAX: usize = 64;
/// What is written into a terminal when its input ends (`VEOF`).
const END_OF_INPUT: u8 = 4;

/// Who is connected to the streams.
pub(super) struct Client {
    read: OwnedFd,
    /// `None` writes to `read`.
    write: Option<OwnedFd>,
    decoder: Decoder,
    out: Vec<u8>,
    gone: bool,
    /// Whether it sent input.
    typed: bool,
}

impl Client {
    pub(super) fn new(read: OwnedFd, write: Option<OwnedFd>) -> Self {
        Self { read, write, decoder: Decoder::default(), out: Vec::new(), gone: false, typed: false }
    }

    fn writer(&self) -> BorrowedFd<'_> {
        self.write.as_ref().unwrap_or(&self.read).as_fd()
    }

    fn flush(&mut self) {
        while !self.out.is_empty() && !self.gone {
            match rustix::io::write(self.writer(), &self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        if !self.gone {
            frame.encode(&mut self.out);
            self.flush();
        }
    }

    /// Waits until it has taken everything, for so many tries of 100 ms without progress.
    fn finish(&mut self, mut tries: u32) {
        let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        while !self.out.is_empty() && !self.gone && tries > 0 {
            let before = self.out.len();
            let _ = poll(&mut [PollFd::from_borrowed_fd(self.writer(), PollFlags::OUT)], Some(&step));
            self.flush();
            if self.out.len() == before {
                tries -= 1;
            }
        }
    }
}

/// The streams of one process. All descriptors are non-blocking.
pub(super) struct Pump<'a> {
    /// Readable when the process has ended.
    pub(super) child: BorrowedFd<'a>,
    /// What it writes.
    pub(super) outputs: Vec<(OwnedFd, Channel)>,
    /// What it reads.
    pub(super) input: Option<OwnedFd>,
    /// Its terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// Keeps its output.
    pub(super) log: Option<LogWriter>,
    /// Where clients come in.
    pub(super) listener: Option<OwnedFd>,
    pub(super) clients: Vec<Client>,
    /// The first client owns the process: it is killed if that client goes, and waits if it does not read.
    pub(super) owned: bool,
    /// Close the input when the first client that typed ends its input or goes.
    pub(super) stdin_once: bool,
    /// Kills the process.
    pub(super) kill: &'a dyn Fn(),
}

impl Pump<'_> {
    /// Runs until the process has ended and its output is read.
    pub(super) fn run(&mut self) {
        let mut queue = VecDeque::new();
        let mut closing = false;
        let mut ended = false;
        while !ended {
            ended = self.turn(&mut queue, &mut closing);
        }
        self.drain();
        if let Some(log) = &mut self.log {
            let (at, nanos) = now();
            let _ = log.finish(at, nanos);
        }
    }

    /// Tells the clients the end, and waits a while for them to hear it.
    pub(super) fn finish(&mut self, code: i32) {
        for client in &mut self.clients {
            Frame::Exit(code).encode(&mut client.out);
            client.flush();
            client.finish(if self.owned { 100 } else { 5 });
        }
    }

    /// Waits for something to happen and does it; answers whether the process has ended.
    fn turn(&mut self, queue: &mut VecDeque<u8>, closing: &mut bool) -> bool {
        let full = self.owned && self.clients.first().is_some_and(|c| c.out.len() > OWNER_MAX);
        let mut fds = Vec::from([PollFd::from_borrowed_fd(self.child, PollFlags::IN)]);
        let outputs = if full { &[][..] } else { &self.outputs[..] };
        fds.extend(outputs.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.listener.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if !queue.is_empty() {
            fds.extend(self.input.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        }
        for client in &self.clients {
            let wish = if queue.len() < INPUT_MAX { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(&client.read, wish));
            if !client.out.is_empty() {
                fds.push(PollFd::from_borrowed_fd(client.writer(), PollFlags::OUT));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            // Nothing that can be waited for: the end of the process is looked at below.
            Err(_) => return true,
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if !full {
            self.read_outputs(1);
        }
        self.accept();
        for client in &mut self.clients {
            client.flush();
        }
        if queue.len() < INPUT_MAX {
            self.read_clients(queue, closing);
        }
        self.write_input(queue, *closing);
        if self.owned && self.clients.first().is_some_and(|c| c.gone) {
            (self.kill)();
            self.clients.clear();
        }
        self.clients.retain(|c| !c.gone);
        ended
    }

    /// Reads what is there, at most so many times from each output.
    fn read_outputs(&mut self, times: usize) {
        let mut buffer = alloc::vec![0_u8; FRAME_MAX];
        let mut at = 0;
        while let Some((fd, channel)) = self.outputs.get(at) {
            let channel = *channel;
            let mut open = true;
            for _ in 0..times {
                match rustix::io::read(fd, &mut buffer) {
                    Ok(0) => open = false,
                    Ok(n) => {
                        let data = buffer.get(..n).unwrap_or_default();
                        if let Some(log) = &mut self.log {
                            let (at, nanos) = now();
                            // A full disk must not stop the container.
                            let _ = log.push(at, nanos, channel, data);
                        }
                        let frame = match channel {
                            Channel::Stdout => Frame::Stdout(data.into()),
                            Channel::Stderr => Frame::Stderr(data.into()),
                        };
                        for client in &mut self.clients {
                            client.send(&frame);
                            if !self.owned && client.out.len() > GUEST_MAX {
                                client.gone = true;
                            }
                        }
                        continue;
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // A terminal without the other end says EIO.
                    Err(_) => open = false,
                }
                break;
            }
            if open {
                at += 1;
            } else {
                self.outputs.remove(at);
            }
        }
    }

    fn drain(&mut self) {
        // What a process left in its pipes is bounded by their size; what others still write is not its output.
        for _ in 0..64 {
            let before = self.outputs.len();
            self.read_outputs(16);
            if let (true, Some(owner)) = (self.owned, self.clients.first_mut()) {
                owner.finish(100);
            }
            let more = self.outputs.iter().any(|(fd, _)| {
                let none = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&none)).is_ok_and(|n| n > 0)
            });
            if !more && self.outputs.len() == before {
                break;
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(fd) = rustix::net::accept_with(listener, flags) {
            if self.clients.len() < CLIENTS_MAX {
                let mut client = Client::new(fd, None);
                client.send(&Frame::Started);
                self.clients.push(client);
            }
        }
    }

    fn read_clients(&mut self, queue: &mut VecDeque<u8>, closing: &mut bool) {
        let mut buffer = alloc::vec![0_u8; FRAME_MAX];
        let close = |closing: &mut bool, queue: &mut VecDeque<u8>, terminal: bool| {
            if terminal {
                queue.push_back(END_OF_INPUT);
            } else {
                *closing = true;
            }
        };
        for client in &mut self.clients {
            match rustix::io::read(&client.read, &mut buffer) {
                Ok(0) => client.gone = true,
                Ok(n) => client.decoder.push(buffer.get(..n).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => client.gone = true,
            }
            loop {
                match client.decoder.next() {
                    Ok(Some(Frame::Stdin(data))) if data.is_empty() => {
                        client.typed = false;
                        if self.owned || self.stdin_once {
                            close(closing, queue, self.terminal.is_some());
                        }
                    }
                    Ok(Some(Frame::Stdin(data))) => {
                        client.typed = true;
                        queue.extend(data);
                    }
                    Ok(Some(Frame::Resize { width, height })) => {
                        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
                        if let Some(terminal) = &self.terminal {
                            let _ = rustix::termios::tcsetwinsize(terminal, size);
                        }
                    }
                    Ok(Some(Frame::Kill)) if self.owned => (self.kill)(),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        client.gone = true;
                        break;
                    }
                }
            }
            if client.gone && client.typed && self.stdin_once {
                close(closing, queue, self.terminal.is_some());
            }
        }
    }

    fn write_input(&mut self, queue: &mut VecDeque<u8>, closing: bool) {
        let Some(input) = &self.input else {
            queue.clear();
            return;
        };
        let mut broken = false;
        while !queue.is_empty() {
            let (front, _) = queue.as_slices();
            match rustix::io::write(input, front) {
                Ok(n) => drop(queue.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => {
                    broken = true;
                    queue.clear();
                }
            }
        }
        if broken || closing && queue.is_empty() {
            self.input = None;
        }
    }
}
