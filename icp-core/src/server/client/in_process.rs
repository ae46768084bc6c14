//! A client with no socket between it and the server.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

use super::super::body::Direct;
use super::super::route::Asked;
use super::super::{ApiServer, Body, UserInfo};
use super::direct::{self, Plain};
use super::wire;
use crate::client::{ApiError, ApiRequest, Client, EventStream, Reply};

/// An [`ApiServer`] as a [`Client`]: requests pass through the whole server (authorization, admission, storage),
/// but through no socket and no runtime, and its objects are handed over without being written as JSON where that
/// makes no difference. Objects of watches and lists may be shared with other clients.
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

    /// The answer as values, if the request can be asked so.
    async fn ask(&self, request: &ApiRequest) -> Option<Result<http::Response<Body>, ApiError>> {
        let Plain { info, query, headers, input } =
            direct::read(request, self.server.options().body_bytes_max)?;
        let asked = async {
            self.server.boot().await?;
            let user = self.user.clone().unwrap_or_else(|| self.server.in_process_user());
            let asked = Asked { info, query, headers, user, direct: true };
            self.server.answer(asked, http::Request::new(input)).await
        };
        Some(asked.await.map_err(|mut status| {
            let code = http::StatusCode::from_u16(status.code);
            status.code = code.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR).as_u16();
            ApiError::Status(status)
        }))
    }

    async fn answer(&self, request: &ApiRequest) -> Result<http::Response<Body>, ApiError> {
        match self.ask(request).await {
            Some(answer) => answer,
            None => self.call(request).await,
        }
    }

    async fn call(&self, request: &ApiRequest) -> Result<http::Response<Body>, ApiError> {
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
        let (parts, body) = self.answer(&request).await?.into_parts();
        let body = match body.into_direct() {
            Ok(Direct::Reply(reply)) => return Ok(reply),
            Ok(Direct::Events(_)) => {
                return Err(ApiError::Decode("the answer to the request is a watch".to_string()));
            }
            Err(body) => body,
        };
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        };
        wire::decode(&request, parts.status.as_u16(), &bytes)
    }

    async fn watch(&self, request: ApiRequest) -> Result<EventStream, ApiError> {
        let (parts, body) = self.answer(&request).await?.into_parts();
        let body = match body.into_direct() {
            Ok(Direct::Events(events)) => return Ok(events),
            Ok(Direct::Reply(_)) => {
                return Err(ApiError::Decode("the answer to a watch is not a stream".to_string()));
            }
            Err(body) => body,
        };
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
