//! The streams of a process over one connection: frames of a kind, a length and bytes.
//!
//! It is spoken on the socket of a container's shim (attach) and on stdin and stdout of the helper that runs an exec.

use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of a frame.
pub(crate) const FRAME_MAX: usize = 64 * 1024;
const HEADER: usize = 5;

/// What one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// To the process: its stdin. Empty means that there is no more.
    Stdin(Vec<u8>),
    /// To the process: the size of its terminal.
    Resize { width: u16, height: u16 },
    /// To the helper: kill the process.
    Kill,
    /// From the helper: the process runs.
    Started,
    /// From the process.
    Stdout(Vec<u8>),
    /// From the process.
    Stderr(Vec<u8>),
    /// From the helper: the process ended with this exit code.
    Exit(i32),
    /// From the helper: the process could not be started.
    Failed(String),
}

impl Frame {
    /// Appends the frame to a buffer. Longer content than [`FRAME_MAX`] is split.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, data: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(data);
        };
        match self {
            Self::Stdin(data) if data.is_empty() => put(0, data),
            Self::Stdin(data) => data.chunks(FRAME_MAX).for_each(|c| put(0, c)),
            Self::Resize { width, height } => {
                let [a, b] = width.to_be_bytes();
                let [c, d] = height.to_be_bytes();
                put(1, &[a, b, c, d]);
            }
            Self::Kill => put(2, &[]),
            Self::Started => put(16, &[]),
            Self::Stdout(data) => data.chunks(FRAME_MAX).for_each(|c| put(17, c)),
            Self::Stderr(data) => data.chunks(FRAME_MAX).for_each(|c| put(18, c)),
            Self::Exit(code) => put(19, &code.to_be_bytes()),
            Self::Failed(text) => put(20, text.as_bytes().get(..FRAME_MAX).unwrap_or(text.as_bytes())),
        }
    }

    fn decode(kind: u8, data: &[u8]) -> Option<Self> {
        Some(match kind {
            0 => Self::Stdin(data.into()),
            1 => {
                let [a, b, c, d] = <[u8; 4]>::try_from(data).ok()?;
                Self::Resize { width: u16::from_be_bytes([a, b]), height: u16::from_be_bytes([c, d]) }
            }
            2 => Self::Kill,
            16 => Self::Started,
            17 => Self::Stdout(data.into()),
            18 => Self::Stderr(data.into()),
            19 => Self::Exit(i32::from_be_bytes(<[u8; 4]>::try_from(data).ok()?)),
            20 => Self::Failed(String::from_utf8_lossy(data).into_owned()),
            _ => return None,
        })
    }
}

/// The other side does not speak this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame")]
pub(crate) struct BadFrame;

/// Takes bytes as they come and gives frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// Takes bytes.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// The next frame, if it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, a, b, c, d] = *header;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > FRAME_MAX {
            return Err(BadFrame);
        }
        let Some(data) = body.get(..len) else { return Ok(None) };
        let frame = Frame::decode(kind, data).ok_or(BadFrame)?;
        self.at += HEADER + len;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn round_trip_in_pieces() {
        let frames = vec![
            Frame::Stdin(b"abc".to_vec()),
            Frame::Stdin(Vec::new()),
            Frame::Resize { width: 80, height: 24 },
            Frame::Kill,
            Frame::Started,
            Frame::Stdout(vec![7; FRAME_MAX]),
            Frame::Stderr(b"x".to_vec()),
            Frame::Exit(-1),
            Frame::Failed("no".into()),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| f.encode(&mut bytes));
        for step in [1, 3, 1000, bytes.len()] {
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
        }
    }

    #[test]
    fn long_content_is_split_and_garbage_refused() {
        let mut bytes = Vec::new();
        Frame::Stdout(vec![1; FRAME_MAX + 1]).encode(&mut bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert!(matches!(decoder.next(), Ok(Some(Frame::Stdout(d))) if d.len() == FRAME_MAX));
        assert_eq!(decoder.next(), Ok(Some(Frame::Stdout(vec![1]))));
        decoder.push(&[99, 0, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(BadFrame));
        let mut decoder = Decoder::default();
        decoder.push(&[0, 255, 255, 255, 255]);
        assert_eq!(decoder.next(), Err(BadFrame));
    }
}
