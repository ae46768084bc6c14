//! Requests to an API server, as data.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::Value;

use crate::api::{Gvr, Object, Status};

/// Names a request of one machine, so that it knows the reply.
pub type RequestId = u64;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRequest {
    /// The resource.
    pub gvr: Gvr,
    /// The namespace; `None` for cluster-scoped resources and for all namespaces.
    pub namespace: Option<String>,
    /// The object; `None` for the collection.
    pub name: Option<String>,
    /// `status`, `scale`, `binding`, `eviction`, `finalize`, `token`, ...
    pub subresource: Option<&'static str>,
    /// What to do.
    pub op: Operation,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Read one object.
    Get,
    /// Read a collection.
    List(ListOptions),
    /// Follow a collection.
    Watch(ListOptions),
    /// Create an object (or a subresource such as `binding`).
    Create(Arc<Object>),
    /// Replace an object.
    Update(Arc<Object>),
    /// Change an object.
    Patch {
        /// The language of the patch.
        kind: PatchKind,
        /// The patch.
        body: Value,
        /// Who changes it; required for [`PatchKind::Apply`].
        field_manager: Option<String>,
        /// Take over fields that others own ([`PatchKind::Apply`] only).
        force: bool,
    },
    /// Delete an object.
    Delete(DeleteOptions),
    /// Delete a collection.
    DeleteCollection(DeleteOptions, ListOptions),
}

/// The language of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes strategic merge patch.
    Strategic,
    /// Server-side apply (KEP-555).
    Apply,
}

impl PatchKind {
    /// The media type of the patch.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// What to list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// A label selector in its text form.
    pub label_selector: String,
    /// A field selector in its text form.
    pub field_selector: String,
    /// The resourceVersion to list at or to watch from.
    pub resource_version: Option<String>,
    /// Most items of a page; 0 for no limit.
    pub limit: u32,
    /// The token of the page before.
    pub continue_token: Option<String>,
    /// Ask for bookmarks (watch only).
    pub allow_bookmarks: bool,
    /// End the watch after so many seconds; 0 for the server's choice (watch only).
    pub timeout_seconds: u32,
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Delete them later.
    Background,
    /// Delete them first.
    Foreground,
    /// Leave them.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; `None` for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object of this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// What happens to dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
}

/// The answer to a request that succeeded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "a reply is moved once, and the success without an object is rare"
)]
pub enum Reply {
    /// One object.
    Object(Arc<Object>),
    /// One page of a collection.
    List {
        /// The objects.
        items: Vec<Arc<Object>>,
        /// The version of the collection, to watch from.
        resource_version: String,
        /// The token of the next page, if there is one.
        continue_token: Option<String>,
    },
    /// Success without an object.
    Status(Status),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "an error is moved once, and its status is what callers match on"
)]
pub enum ApiError {
    /// The server said no.
    #[error(transparent)]
    Status(Status),
    /// The server could not be reached, or the connection broke; the outcome of a write is unknown.
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    /// The server's answer could not be understood.
    #[error("API server answered nonsense: {0}")]
    Decode(String),
}

impl ApiError {
    /// Whether the server answered with `reason` (see [`crate::api::reason`]).
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        matches!(self, Self::Status(status) if status.is(reason))
    }
}

/// What a watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// The object came into the watched set.
    Added,
    /// It changed.
    Modified,
    /// It left the watched set; the object is its last state.
    Deleted,
    /// Nothing; `object.metadata.resource_version` is how far the watch is complete.
    Bookmark,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// To which object.
    pub object: Arc<Object>,
}

/// What a machine wants of the API server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEffect {
    /// Do a request and report a [`ClientEvent::Reply`] of the same id.
    Request {
        /// Chosen by the machine.
        id: RequestId,
        /// The request.
        request: ApiRequest,
    },
    /// Open a watch and report [`ClientEvent::Watch`] of the same id until [`ClientEvent::WatchClosed`].
    Watch {
        /// Chosen by the machine.
        id: RequestId,
        /// The request; its `op` is [`Operation::Watch`].
        request: ApiRequest,
    },
    /// Close a watch; no event of this id comes after it was performed.
    CloseWatch {
        /// The watch.
        id: RequestId,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A request was answered.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        result: Result<Reply, ApiError>,
    },
    /// A watch reported something.
    Watch {
        /// The watch.
        id: RequestId,
        /// What.
        event: WatchEvent,
    },
    /// A watch ended.
    WatchClosed {
        /// The watch.
        id: RequestId,
        /// Why, if not by the server's own time-out.
        error: Option<ApiError>,
    },
}

impl ApiRequest {
    /// A request for one object.
    #[must_use]
    pub fn object(gvr: &Gvr, namespace: &str, name: &str, op: Operation) -> Self {
        Self {
            gvr: gvr.clone(),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            name: Some(name.into()),
            subresource: None,
            op,
        }
    }

    /// A request for a collection; an empty namespace means all.
    #[must_use]
    pub fn collection(gvr: &Gvr, namespace: &str, op: Operation) -> Self {
        Self {
            gvr: gvr.clone(),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            name: None,
            subresource: None,
            op,
        }
    }

    /// The same, for a subresource.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "short for subresource; requests have no arithmetic")]
    pub fn sub(mut self, subresource: &'static str) -> Self {
        self.subresource = Some(subresource);
        self
    }
}
