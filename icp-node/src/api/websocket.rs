//! WebSocket frames (RFC 6455), the server's side, as a codec without I/O.
//!
//! ```
//! use icp_node::api::websocket::{Decoder, Message, Opcode, accept_key, encode};
//! assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//! assert_eq!(&encode(Opcode::Text, b"Hello")[..], b"\x81\x05Hello");
//! let mut decoder = Decoder::new(1024);
//! decoder.feed(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
//! assert_eq!(decoder.next_message(), Ok(Some(Message::Data(b"Hello"[..].into()))));
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use sha1::{Digest as _, Sha1};

/// Appended to the client's key before it is hashed (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Most bytes of a control frame's payload (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// The value of `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a message.
    Continuation,
    /// Begins a message of text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self.number() >= 8
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A client's frame without a mask.
    #[error("a frame of the client is not masked")]
    Unmasked,
    /// Reserved bits, an unknown opcode, or a control frame that is long or in parts.
    #[error("malformed frame")]
    Malformed,
    /// A new message within a message, or a continuation of nothing.
    #[error("frames out of order")]
    Order,
    /// A message is longer than allowed.
    #[error("a message is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
}

impl WebSocketError {
    /// The code of the close frame that tells it (RFC 6455, 7.4.1).
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TooLong { .. } => 1009,
            _ => 1002,
        }
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole message, binary or text.
    Data(Bytes),
    /// A ping, to be answered with a pong of the same payload.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The end, with its code if it has one.
    Close(Option<u16>),
}

/// A frame as a server sends it: whole and without a mask.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 10);
    header(opcode, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.into()
}

/// The same for a payload that begins with one more byte, such as a channel number.
#[must_use]
pub fn encode_prefixed(prefix: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 11);
    header(Opcode::Binary, payload.len() + 1, &mut out);
    out.push(prefix);
    out.extend_from_slice(payload);
    out.into()
}

/// A close frame.
#[must_use]
pub fn encode_close(code: u16) -> Bytes {
    encode(Opcode::Close, &code.to_be_bytes())
}

fn header(opcode: Opcode, len: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode.number());
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Takes bytes of a client as they come and gives its messages.
#[derive(Clone, Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// The message whose frames are coming in.
    message: Option<BytesMut>,
    max: usize,
}

struct Head {
    fin: bool,
    opcode: Opcode,
    len: usize,
    mask: [u8; 4],
    /// Bytes of the header.
    size: usize,
}

impl Decoder {
    /// A decoder that takes messages of up to `message_bytes_max` bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), message: None, max: message_bytes_max }
    }

    /// Takes bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn head(&self) -> Result<Option<Head>, WebSocketError> {
        let [first, second, rest @ ..] = self.buffer.as_ref() else { return Ok(None) };
        let opcode = Opcode::from_number(first & 0x0f).ok_or(WebSocketError::Malformed)?;
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 || (opcode.is_control() && !fin) {
            return Err(WebSocketError::Malformed);
        }
        if second & 0x80 == 0 {
            return Err(WebSocketError::Unmasked);
        }
        let (len, rest, extended) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest, 2),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest, 8),
                None => return Ok(None),
            },
            len => (u64::from(len), rest, 0),
        };
        if opcode.is_control() && len > CONTROL_BYTES_MAX {
            return Err(WebSocketError::Malformed);
        }
        let so_far = self.message.as_ref().map_or(0, BytesMut::len);
        let too_long = WebSocketError::TooLong { max: self.max };
        let len = usize::try_from(len).map_err(|_| too_long)?;
        if !opcode.is_control() && len > self.max.saturating_sub(so_far) {
            return Err(too_long);
        }
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Head { fin, opcode, len, mask: *mask, size: 2 + extended + 4 }))
    }

    /// The next message, or `None` until more bytes come.
    ///
    /// # Errors
    /// If the client breaks the protocol; the connection is of no more use then.
    pub fn next_message(&mut self) -> Result<Option<Message>, WebSocketError> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.buffer.len() - head.size < head.len {
                return Ok(None);
            }
            self.buffer.advance(head.size);
            let mut payload = self.buffer.split_to(head.len);
            for (byte, mask) in payload.iter_mut().zip(head.mask.iter().cycle()) {
                *byte ^= mask;
            }
            match head.opcode {
                Opcode::Ping => return Ok(Some(Message::Ping(payload.freeze()))),
                Opcode::Pong => return Ok(Some(Message::Pong)),
                Opcode::Close => {
                    let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Message::Close(code)));
                }
                Opcode::Text | Opcode::Binary if self.message.is_some() => return Err(WebSocketError::Order),
                Opcode::Text | Opcode::Binary => self.message = Some(payload),
                Opcode::Continuation => match &mut self.message {
                    Some(message) => message.unsplit(payload),
                    None => return Err(WebSocketError::Order),
                },
            }
            if head.fin
                && let Some(message) = self.message.take()
            {
                return Ok(Some(Message::Data(message.freeze())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    fn client(fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        header(opcode, payload.len(), &mut out);
        out[0] = (out[0] & 0x0f) | if fin { 0x80 } else { 0 };
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    fn all(decoder: &mut Decoder) -> Vec<Message> {
        core::iter::from_fn(|| decoder.next_message().unwrap()).collect()
    }

    #[test]
    fn what_breaks_the_rules_ends_the_connection() {
        let mask = [1, 2, 3, 4];
        let error = |frames: &[Vec<u8>]| {
            let mut decoder = Decoder::new(300);
            frames.iter().for_each(|f| decoder.feed(f));
            loop {
                match decoder.next_message() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(e) => return Some(e),
                }
            }
        };
        assert_eq!(error(&[client(true, Opcode::Text, b"x", mask)]), None);
        assert_eq!(error(&[encode(Opcode::Text, b"x").to_vec()]), Some(WebSocketError::Unmasked));
        assert_eq!(error(&[client(true, Opcode::Continuation, b"x", mask)]), Some(WebSocketError::Order));
        let begun = client(false, Opcode::Binary, &[0; 200], mask);
        assert_eq!(
            error(&[begun.clone(), client(true, Opcode::Text, b"", mask)]),
            Some(WebSocketError::Order)
        );
        let more = client(true, Opcode::Continuation, &[0; 101], mask);
        assert_eq!(error(&[begun, more]), Some(WebSocketError::TooLong { max: 300 }));
        assert_eq!(error(&[client(false, Opcode::Ping, b"", mask)]), Some(WebSocketError::Malformed));
        assert_eq!(error(&[client(true, Opcode::Close, &[0; 126], mask)]), Some(WebSocketError::Malformed));
        assert_eq!(error(&[Vec::from([0x83, 0x80])]), Some(WebSocketError::Malformed));
        assert_eq!(error(&[Vec::from([0xc1, 0x80])]), Some(WebSocketError::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Messages come out as they went in, however they are cut into frames and reads, with pings in between.
        #[test]
        fn messages_survive_any_cut(
            messages in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..70_000), 1_usize..5, any::<bool>()), 1..4),
            mask in any::<[u8; 4]>(),
            read in 1_usize..5000,
        ) {
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for (payload, parts, ping) in messages {
                let size = payload.len().div_ceil(parts).max(1);
                let chunks: Vec<&[u8]> =
                    if payload.is_empty() { Vec::from([&[][..]]) } else { payload.chunks(size).collect() };
                for (i, chunk) in chunks.iter().enumerate() {
                    let opcode = if i == 0 { Opcode::Binary } else { Opcode::Continuation };
                    wire.extend(client(i + 1 == chunks.len(), opcode, chunk, mask));
                    if ping && i + 1 < chunks.len() {
                        wire.extend(client(true, Opcode::Ping, b"p", mask));
                        expected.push(Message::Ping(Bytes::from_static(b"p")));
                    }
                }
                expected.push(Message::Data(payload.into()));
            }
            let mut decoder = Decoder::new(1 << 20);
            let mut seen = Vec::new();
            for part in wire.chunks(read) {
                decoder.feed(part);
                seen.extend(all(&mut decoder));
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
