//! A client with no socket between it and the server.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

use super::super::{ApiServer, UserInfo};
use super::wire;
use crate::client::{ApiError, ApiRequest, Client, EventStream, Reply};

/// An [`ApiServer`] as a [`Client`]: requests pass through the whole server (authorization, admission, storage),
/// but through no socket and no runtime.
#[derive(Clone, Debug)]
pub struct InProcessClient {
    server: ApiServer,
    user: Option<UserInfo>,
}

impl InProcessClient {
    /// A client of `server` with the server's in-process identity (`system:masters` unless configured otherwise).
    #[must_use]
    pub const fn new(server: ApiServer) -> Self {
        Self { server, user: None }
    }

    /// The same, as another user.
    #[must_use]
    pub fn as_user(mut self, user: UserInfo) -> Self {
        self.user = Some(user);
        self
    }

    async fn call(&self, request: &ApiRequest) -> Result<http::Response<super::super::Body>, ApiError> {
        let mut http = wire::encode(request)?.map(Full::<Bytes>::new);
        if let Some(user) = &self.user {
            http.extensions_mut().insert(user.clone());
        }
        Ok(self.server.handle(http).await)
    }
}

#[async_trait]
impl Client for InProcessClient {
    async fn request(&self, request: ApiRequest) -> Result<Reply, ApiError> {
        let (parts, body) = self.call(&request).await?.into_parts();
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        };
        wire::decode(&request, parts.status.as_u16(), &bytes)
    }

    async fn watch(&self, request: ApiRequest) -> Result<EventStream, ApiError> {
        let (parts, body) = self.call(&request).await?.into_parts();
        if parts.status != http::StatusCode::OK {
            let bytes = body.into_bytes().unwrap_or_default();
            return Err(wire::decode_failure(parts.status.as_u16(), &bytes));
        }
        let Some(chunks) = body.into_stream() else {
            return Err(ApiError::Decode("the answer to a watch is not a stream".to_string()));
        };
        let lines = futures_util::StreamExt::map(chunks, |chunk| Ok(Vec::from(chunk)));
        Ok(wire::events(lines))
    }
}
