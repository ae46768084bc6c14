//! Response bodies: one buffer, several buffers, or a stream.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use crate::client::{EventStream, Reply};

/// A stream of chunks; the body ends with the stream.
pub type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The body of a response of the API server.
///
/// ```
/// use icp_core::server::Body;
/// use http_body::Body as _;
/// assert_eq!(Body::from("ok").size_hint().exact(), Some(2));
/// ```
pub struct Body(Inner);

enum Inner {
    Buffers(VecDeque<Bytes>),
    Stream(Chunks),
    Direct(Box<Direct>),
}

/// An answer for a client in the same process, which asked for values instead of bytes.
#[expect(clippy::large_enum_variant, reason = "a body holds it behind a pointer")]
pub(super) enum Direct {
    /// Of a request.
    Reply(Reply),
    /// Of a watch.
    Events(EventStream),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Buffers(VecDeque::new()))
    }

    /// The bytes of `buffers`, one after the other.
    #[must_use]
    pub fn buffers(buffers: Vec<Bytes>) -> Self {
        Self(Inner::Buffers(buffers.into_iter().filter(|b| !b.is_empty()).collect()))
    }

    /// A body that ends when `chunks` does.
    #[must_use]
    pub fn stream(chunks: Chunks) -> Self {
        Self(Inner::Stream(chunks))
    }

    /// An answer that is no bytes; only a request that asked for it may be answered so.
    pub(super) fn direct(answer: Direct) -> Self {
        Self(Inner::Direct(Box::new(answer)))
    }

    /// The answer as a value, or the body if it is bytes.
    pub(super) fn into_direct(self) -> Result<Direct, Self> {
        match self.0 {
            Inner::Direct(answer) => Ok(*answer),
            other => Err(Self(other)),
        }
    }

    /// The whole body if no part of it has yet to come.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        match self.0 {
            Inner::Buffers(mut buffers) if buffers.len() <= 1 => {
                Some(buffers.pop_front().unwrap_or_default())
            }
            Inner::Buffers(buffers) => Some(buffers.into_iter().collect::<Vec<_>>().concat().into()),
            Inner::Stream(_) | Inner::Direct(_) => None,
        }
    }

    /// The stream, if the body is one.
    #[must_use]
    pub fn into_stream(self) -> Option<Chunks> {
        match self.0 {
            Inner::Buffers(_) | Inner::Direct(_) => None,
            Inner::Stream(chunks) => Some(chunks),
        }
    }
}

impl core::fmt::Debug for Body {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            Inner::Buffers(b) => write!(f, "Body({} bytes)", b.iter().map(Bytes::len).sum::<usize>()),
            Inner::Stream(_) => f.write_str("Body(stream)"),
            Inner::Direct(_) => f.write_str("Body(value)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Inner::Buffers(if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) }))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.get_mut().0 {
            Inner::Buffers(buffers) => Poll::Ready(buffers.pop_front().map(|b| Ok(Frame::data(b)))),
            Inner::Stream(chunks) => {
                chunks.as_mut().poll_next(cx).map(|next| next.map(|b| Ok(Frame::data(b))))
            }
            Inner::Direct(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Buffers(b) => b.is_empty(),
            Inner::Stream(_) => false,
            Inner::Direct(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Buffers(b) => SizeHint::with_exact(b.iter().map(|b| b.len() as u64).sum()),
            Inner::Stream(_) => SizeHint::default(),
            Inner::Direct(_) => SizeHint::with_exact(0),
        }
    }
}
