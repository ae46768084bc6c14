//! What a request brings along: bytes, or an object of a client in the same process.

use alloc::borrow::Cow;
use alloc::sync::Arc;

use bytes::Bytes;

use crate::api::Object;

/// The body of a request.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// As it came over HTTP.
    Bytes(Bytes),
    /// An object that was never written down.
    Object(Arc<Object>),
}

impl Input {
    /// The body as a client would have sent it.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            // Writing an object into memory cannot fail: its maps have texts for keys.
            Self::Object(object) => Cow::Owned(serde_json::to_vec(&**object).unwrap_or_default()),
        }
    }

    /// The same, kept.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            object @ Self::Object(_) => object.bytes().into_owned().into(),
        }
    }
}

impl From<Bytes> for Input {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
