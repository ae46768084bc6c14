//! gRPC framing over HTTP/2: a byte that says whether a message is compressed (never here), its length as four bytes,
//! the message; the status stands in the trailers.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::mpsc;

pub(super) const OK: u16 = 0;
pub(super) const CANCELLED: u16 = 1;
pub(super) const UNKNOWN: u16 = 2;
pub(super) const INVALID_ARGUMENT: u16 = 3;
pub(super) const NOT_FOUND: u16 = 5;
pub(super) const RESOURCE_EXHAUSTED: u16 = 8;
pub(super) const FAILED_PRECONDITION: u16 = 9;
pub(super) const OUT_OF_RANGE: u16 = 11;
pub(super) const UNIMPLEMENTED: u16 = 12;
pub(super) const INTERNAL: u16 = 13;
pub(super) const UNAVAILABLE: u16 = 14;
pub(super) const DATA_LOSS: u16 = 15;

/// How a call ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: Cow<'static, str>,
}

impl Status {
    pub(super) fn new(code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(self.code));
        if !self.message.is_empty()
            && let Ok(value) = HeaderValue::from_str(&percent_encode(&self.message))
        {
            headers.insert("grpc-message", value);
        }
    }

    /// The status of the headers or trailers; `None` if they have none.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(UNKNOWN);
        let message = headers.get("grpc-message").and_then(|m| m.to_str().ok()).map(percent_decode);
        Some(Self { code, message: message.unwrap_or_default().into() })
    }
}

fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&alloc::format!("%{byte:02X}")),
        }
    }
    out
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, later)) = rest.split_first() {
        let hex = later.get(..2).and_then(|h| core::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if *byte == b'%' => {
                out.push(decoded);
                rest = later.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*byte);
                rest = later;
            }
        }
    }
    String::from_utf8_lossy(&out).to_string()
}

/// What stands before each message.
const HEAD_BYTES: usize = 5;

/// One framed message.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut out = Vec::with_capacity(HEAD_BYTES + bytes);
    out.push(0);
    out.extend_from_slice(&(bytes as u32).to_be_bytes());
    // A vector grows as needed, so that encoding cannot fail.
    let _ = message.encode(&mut out);
    out.into()
}

/// What a body sends: framed messages from a channel, then the status as trailers. A request has no trailers.
#[derive(Debug)]
pub(super) struct GrpcBody {
    first: Option<Bytes>,
    more: Option<mpsc::Receiver<Result<Bytes, Status>>>,
    end: Option<Status>,
    /// Bytes whose length is told beforehand.
    plain: bool,
}

impl GrpcBody {
    /// One message and the status OK.
    pub(super) fn unary(message: &impl Message) -> Self {
        Self { first: Some(frame(message)), more: None, end: Some(Status::new(OK, "")), plain: false }
    }

    /// Bytes of plain HTTP, without frame and status.
    pub(super) fn plain(bytes: impl Into<Bytes>) -> Self {
        Self { first: Some(bytes.into()), more: None, end: None, plain: true }
    }

    /// The bytes of the one message.
    pub(super) fn message_bytes(&self) -> u64 {
        self.first.as_ref().map_or(0, |m| m.len().saturating_sub(HEAD_BYTES) as u64)
    }

    /// The messages of a channel; the status is OK if it closes, or what it sends as error.
    pub(super) fn stream(more: mpsc::Receiver<Result<Bytes, Status>>) -> Self {
        Self { first: None, more: Some(more), end: Some(Status::new(OK, "")), plain: false }
    }

    /// One message as a request.
    pub(super) fn request(message: &impl Message) -> Self {
        Self { first: Some(frame(message)), more: None, end: None, plain: false }
    }

    /// The messages of a channel as a request.
    pub(super) fn request_stream(more: mpsc::Receiver<Result<Bytes, Status>>) -> Self {
        Self { first: None, more: Some(more), end: None, plain: false }
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = core::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(more) = &mut self.more {
            match more.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(Some(Err(status))) => self.end = Some(status),
                Poll::Ready(None) => {}
            }
            self.more = None;
        }
        Poll::Ready(self.end.take().map(|status| {
            let mut trailers = HeaderMap::new();
            status.write(&mut trailers);
            Ok(Frame::trailers(trailers))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.first {
            Some(bytes) if self.plain => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }

    /// An answer that is only a status must end with its headers.
    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.more.is_none() && self.end.is_none()
    }
}

/// A response with a body.
pub(super) fn response(body: GrpcBody) -> Response<GrpcBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A response that is only a status.
pub(super) fn failed(status: &Status) -> Response<GrpcBody> {
    let mut response = response(GrpcBody { first: None, more: None, end: None, plain: false });
    *response.status_mut() = StatusCode::OK;
    status.write(response.headers_mut());
    response
}

/// The messages of a body.
#[derive(Debug)]
pub(super) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    bytes_max: usize,
    taken_bytes: u64,
    /// The encoding that compressed messages have, if they have one that is known.
    encoding: String,
    trailers: Option<HeaderMap>,
}

impl Messages {
    /// Messages larger than `bytes_max` are refused.
    pub(super) fn new(body: Incoming, bytes_max: usize) -> Self {
        let (buffer, encoding) = (BytesMut::new(), String::new());
        Self { body, buffer, bytes_max, taken_bytes: 0, encoding, trailers: None }
    }

    /// The same, with the header `grpc-encoding`.
    pub(super) fn encoded(mut self, encoding: &str) -> Self {
        self.encoding = encoding.into();
        self
    }

    /// The bytes of all messages that were taken.
    pub(super) const fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The next message; `None` at the end. What was received is kept when the future is dropped.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                let message = M::decode(message);
                return message.map(Some).map_err(|e| {
                    Status::new(INTERNAL, alloc::format!("grpc: error unmarshalling request: {e}"))
                });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(e)) => return Err(Status::new(UNAVAILABLE, e.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::new(INTERNAL, "unexpected EOF")),
            }
        }
    }

    /// The only message of a body. It is read to its end: an answer before that would reset the stream.
    pub(super) async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self.next().await?.ok_or_else(|| Status::new(INTERNAL, "the body has no message"))?;
        match self.next::<M>().await? {
            None => Ok(message),
            Some(_) => Err(Status::new(INTERNAL, "the body has more than one message")),
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((head, rest)) = self.buffer.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let [compressed, length @ ..] = head else { return Ok(None) };
        match (*compressed, self.encoding.as_str()) {
            (0, _) => {}
            (1, "" | "identity") => {
                let message = "grpc: compressed flag set with identity or empty encoding";
                return Err(Status::new(INTERNAL, message));
            }
            (1, encoding) => {
                let message =
                    alloc::format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
                return Err(Status::new(UNIMPLEMENTED, message));
            }
            (flag, _) => {
                let message = alloc::format!("grpc: received unexpected payload format {flag}");
                return Err(Status::new(INTERNAL, message));
            }
        }
        let bytes = <[u8; 4]>::try_from(length).map_or(0, u32::from_be_bytes) as usize;
        if bytes > self.bytes_max {
            let message =
                alloc::format!("grpc: received message larger than max ({bytes} vs. {})", self.bytes_max);
            return Err(Status::new(RESOURCE_EXHAUSTED, message));
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        self.taken_bytes += bytes as u64;
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }

    /// The status that ended the body, after [`Messages::next`] returned `None`.
    pub(super) fn status(&self) -> Option<Status> {
        self.trailers.as_ref().and_then(Status::read)
    }
}
