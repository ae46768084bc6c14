//! SPDY/3.1 frames, the server's side, as a codec without I/O: what `kubectl port-forward` tunnels through a
//! WebSocket (KEP-4006).
//!
//! The source is the draft `draft-mbelshe-httpbis-spdy-00` and `github.com/moby/spdystream`, the peer of all Kubernetes
//! clients. Headers come compressed with a shared dictionary, one stream of zlib for a connection's whole life; what
//! this side sends is stored without compression, which is valid zlib. Flow control is not part of it: that peer
//! neither sends nor heeds window updates.
//!
//! ```
//! use icp_node::api::spdy::{Decoder, Frame, data};
//! let mut decoder = Decoder::new();
//! decoder.feed(&data(5, b"hello", true));
//! let frame = decoder.next_frame().unwrap();
//! assert_eq!(frame, Some(Frame::Data { stream: 5, data: b"hello"[..].into(), fin: true }));
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};

/// What headers are compressed against (draft, 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Longest frame that is taken, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes of the headers of one frame, decompressed.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Most headers of one frame.
const HEADERS_MAX: u32 = 128;

const VERSION: u8 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpdyError {
    /// Another version of the protocol.
    #[error("SPDY version {0} is not spoken")]
    Version(u16),
    /// A frame that is too short for what it says it is, or has malformed headers.
    #[error("malformed frame of type {0}")]
    Malformed(u16),
    /// A frame or its headers are longer than allowed.
    #[error("a frame is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
    /// The headers cannot be decompressed.
    #[error("decompressing headers: {0}")]
    Compression(String),
}

/// What the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A stream begins.
    Open {
        /// Its id.
        stream: u32,
        /// Its headers, names in lower case.
        headers: Vec<(String, String)>,
        /// Whether the client sends nothing on it.
        fin: bool,
    },
    /// Bytes of a stream.
    Data {
        /// Its id.
        stream: u32,
        /// The bytes.
        data: Bytes,
        /// Whether they are the last ones.
        fin: bool,
    },
    /// A stream is broken off.
    Reset {
        /// Its id.
        stream: u32,
    },
    /// A ping, to be sent back as it is.
    Ping(u32),
    /// The client is about to leave.
    GoAway,
    /// Nothing of interest here (settings, late headers, window updates).
    Other(u16),
}

/// Takes bytes of a client as they come and gives its frames.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Raw deflate that has seen the dictionary; `None` until the first header block tells its zlib header.
    inflate: Option<Decompress>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

fn word(bytes: &mut Bytes) -> Option<u32> {
    (bytes.len() >= 4).then(|| bytes.get_u32())
}

/// A stream id: its first bit is reserved.
fn stream_id(bytes: &mut Bytes) -> Option<u32> {
    Some(word(bytes)? & 0x7fff_ffff)
}

fn field(bytes: &mut Bytes) -> Option<String> {
    let len = usize::try_from(word(bytes)?).ok().filter(|len| *len <= bytes.len())?;
    Some(String::from_utf8_lossy(&bytes.split_to(len)).into_owned())
}

fn pairs(mut block: Bytes) -> Option<Vec<(String, String)>> {
    let count = word(&mut block).filter(|n| *n <= HEADERS_MAX)?;
    (0..count).map(|_| Some((field(&mut block)?.to_lowercase(), field(&mut block)?))).collect()
}

impl Decoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), inflate: None }
    }

    /// Takes bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// If the client breaks the protocol; the connection is of no more use then.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let [a, b, c, d, flags, len @ ..] = *head;
        let len = len.iter().fold(0_usize, |n, byte| (n << 8) | usize::from(*byte));
        if len > FRAME_BYTES_MAX {
            return Err(SpdyError::TooLong { max: FRAME_BYTES_MAX });
        }
        if self.buffer.len() < 8 + len {
            return Ok(None);
        }
        self.buffer.advance(8);
        let mut body = self.buffer.split_to(len).freeze();
        let fin = flags & FIN != 0;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Some(Frame::Data { stream, data: body, fin }));
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != u16::from(VERSION) {
            return Err(SpdyError::Version(version));
        }
        let kind = u16::from_be_bytes([c, d]);
        let malformed = SpdyError::Malformed(kind);
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = stream_id(&mut body).ok_or(malformed.clone())?;
                // The associated stream, the priority and the slot.
                if body.len() < 6 {
                    return Err(malformed);
                }
                body.advance(6);
                let headers = pairs(self.headers(&body)?).ok_or(malformed)?;
                Frame::Open { stream, headers, fin }
            }
            SYN_REPLY | HEADERS => {
                // Nothing in them matters, but the compression goes through all of them.
                stream_id(&mut body).ok_or(malformed)?;
                self.headers(&body)?;
                Frame::Other(kind)
            }
            RST_STREAM => Frame::Reset { stream: stream_id(&mut body).ok_or(malformed)? },
            PING => Frame::Ping(word(&mut body).ok_or(malformed)?),
            GOAWAY => Frame::GoAway,
            other => Frame::Other(other),
        }))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Bytes, SpdyError> {
        let broken = |why: &str| SpdyError::Compression(why.into());
        let mut block = block;
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            empty => {
                // The zlib header (RFC 1950): method 8, and the checksum of the dictionary if one is used.
                let [method, flags, rest @ ..] = block else { return Err(broken("no zlib header")) };
                if method & 0x0f != 8 {
                    return Err(broken("unknown method"));
                }
                let preset = flags & 0x20 != 0;
                block = if preset { rest.get(4..).ok_or(broken("no dictionary checksum"))? } else { rest };
                let mut inflate = Decompress::new(false);
                if preset {
                    // What has been written as a stored block stands in the window like any preset dictionary.
                    let mut sink = Vec::with_capacity(DICTIONARY.len() + 1);
                    inflate
                        .decompress_vec(&stored(DICTIONARY), &mut sink, FlushDecompress::Sync)
                        .map_err(|_| broken("the dictionary"))?;
                }
                empty.insert(inflate)
            }
        };
        let mut out = Vec::with_capacity(1024);
        loop {
            let before = (inflate.total_in(), inflate.total_out());
            inflate.decompress_vec(block, &mut out, FlushDecompress::Sync).map_err(|_| broken("bad data"))?;
            let taken = usize::try_from(inflate.total_in() - before.0).unwrap_or(usize::MAX);
            block = block.get(taken..).unwrap_or_default();
            if out.len() > HEADERS_BYTES_MAX {
                return Err(SpdyError::TooLong { max: HEADERS_BYTES_MAX });
            }
            let stuck = (inflate.total_in(), inflate.total_out()) == before;
            if out.len() < out.capacity() && (block.is_empty() || stuck) {
                return if block.is_empty() { Ok(out.into()) } else { Err(broken("data after the end")) };
            }
            out.reserve(1024);
        }
    }
}

/// Stored blocks of deflate (RFC 1951, 3.2.4), ended by an empty one that makes the reader give out what it has.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for part in bytes.chunks(0xffff).chain([&[][..]]) {
        let len = part.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&[0x80, VERSION]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.push(flags);
    out.extend(body.len().to_be_bytes().iter().skip(size_of::<usize>() - 3));
    out.extend_from_slice(body);
    out.into()
}

/// Makes the frames that need the connection's own state.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// An encoder at the start of a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { begun: false }
    }

    /// Accepts a stream, without headers.
    #[must_use]
    pub fn reply(&mut self, stream: u32) -> Bytes {
        let mut body = Vec::from(stream.to_be_bytes());
        if !self.begun {
            self.begun = true;
            // The zlib header: deflate with a window of 32 KiB, no dictionary.
            body.extend_from_slice(&[0x78, 0x01]);
        }
        body.extend(stored(&0_u32.to_be_bytes()));
        control(SYN_REPLY, 0, &body)
    }
}

/// A data frame. Of more than 16 MiB, the most that its length can tell, only the first are sent: who calls it cuts.
#[must_use]
pub fn data(stream: u32, bytes: &[u8], fin: bool) -> Bytes {
    let bytes = bytes.get(..0x00ff_ffff).unwrap_or(bytes);
    let mut out = Vec::with_capacity(8 + bytes.len());
    out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
    out.push(if fin { FIN } else { 0 });
    out.extend(bytes.len().to_be_bytes().iter().skip(size_of::<usize>() - 3));
    out.extend_from_slice(bytes);
    out.into()
}

/// Sends a ping back.
#[must_use]
pub fn pong(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

/// Breaks a stream off; `status` is one of the draft's, such as 3 (refused).
#[must_use]
pub fn reset(stream: u32, status: u32) -> Bytes {
    let mut body = Vec::from(stream.to_be_bytes());
    body.extend_from_slice(&status.to_be_bytes());
    control(RST_STREAM, 0, &body)
}

#[cfg(test)]
mod tests;
