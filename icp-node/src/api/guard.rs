//! Who may use the API of a node on a socket.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use icp_core::server::{Body, UserInfo};
use icp_core::shell::listener::Handler;

use super::node_api::{NodeApi, text};

/// Largest body of a request, in bytes: no request of the API has one to speak of.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Lets in those whose client certificate, checked against the cluster's authority by the listener, names a user or
/// group of the list. `/healthz` is open to all.
///
/// The real kubelet asks the API server by SubjectAccessReview; this one has a list, so that it depends on nothing
/// else when it is asked what goes on.
#[derive(Clone, Debug)]
pub struct Guard {
    api: NodeApi,
    users: Vec<String>,
    groups: Vec<String>,
}

impl Guard {
    /// Lets in API servers (`kube-apiserver-kubelet-client`) and administrators (`system:masters`,
    /// `kubeadm:cluster-admins`).
    #[must_use]
    pub fn new(api: NodeApi) -> Self {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Self {
            api,
            users: own(&["kube-apiserver-kubelet-client"]),
            groups: own(&["system:masters", "kubeadm:cluster-admins"]),
        }
    }

    /// Lets in these users and groups instead.
    #[must_use]
    pub fn allow(mut self, users: Vec<String>, groups: Vec<String>) -> Self {
        (self.users, self.groups) = (users, groups);
        self
    }

    fn check(&self, path: &str, user: Option<&UserInfo>) -> Result<(), Box<Response<Body>>> {
        if path == "/healthz" {
            return Ok(());
        }
        let Some(user) = user else {
            return Err(Box::new(text(StatusCode::UNAUTHORIZED, "Unauthorized")));
        };
        if self.users.contains(&user.name) || self.groups.iter().any(|g| user.in_group(g)) {
            return Ok(());
        }
        let why = format!("Forbidden (user={}, path={path})", user.name);
        Err(Box::new(text(StatusCode::FORBIDDEN, why)))
    }
}

#[async_trait]
impl Handler for Guard {
    async fn answer(&self, request: Request<Incoming>, user: Option<UserInfo>) -> Response<Body> {
        if let Err(refusal) = self.check(request.uri().path(), user.as_ref()) {
            return *refusal;
        }
        let (parts, body) = request.into_parts();
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => self.api.handle(Request::from_parts(parts, body.to_bytes())).await,
            Err(e) => text(StatusCode::BAD_REQUEST, format!("reading the body: {e}")),
        }
    }
}
