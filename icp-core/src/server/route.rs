//! From a request to the conversation that answers it.

use alloc::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::auth::rbac::Attributes;
use super::context::Context;
use super::input::Input;
use super::{ApiServer, Body, Query, RequestInfo, UserInfo, failure, options};
use crate::api::table::{self, ResourceInfo};
use crate::api::{Status, names};

/// A request for a resource, and who asks.
pub(super) struct Asked {
    pub(super) info: RequestInfo,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) user: UserInfo,
    /// Whether the answer may be values instead of bytes.
    pub(super) direct: bool,
}

impl ApiServer {
    pub(super) async fn route(&self, request: Request<Bytes>) -> Result<Response<Body>, Status> {
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let info = RequestInfo::parse(request.method(), request.uri().path(), query.flag("watch"));
        let (parts, body) = request.into_parts();
        let user = self.authenticate(&parts).await?;
        if !info.is_resource {
            let ask = Attributes { verb: info.verb, path: &info.path, ..Attributes::default() };
            if let Err(status) = self.require(&user, &ask).await {
                // Somebody who said nothing about himself is asked to.
                return Err(if user.in_group("system:unauthenticated") {
                    failure::unauthorized()
                } else {
                    status
                });
            }
            return self.nonresource(&parts.headers, &info, &query).await;
        }
        let asked = Asked { info, query, headers: parts.headers.clone(), user, direct: false };
        self.answer(asked, Request::from_parts(parts, body.into())).await
    }

    /// Answers a request for a resource of a user who is known.
    pub(super) async fn answer(
        &self,
        asked: Asked,
        request: Request<Input>,
    ) -> Result<Response<Body>, Status> {
        let Asked { info, query, headers, user, direct } = asked;
        let ask = Attributes {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: "",
        };
        if let Err(status) = self.require(&user, &ask).await {
            return Err(if user.in_group("system:unauthenticated") {
                failure::unauthorized()
            } else {
                status
            });
        }
        let Some(resource) = self.resource(&info.group, &info.version, &info.resource).await? else {
            let here = |i: &Arc<ResourceInfo>| i.gvr.group == info.group && i.gvr.version == info.version;
            return if self.resources().await?.iter().any(here) {
                Err(failure::no_such_path())
            } else {
                Ok(super::nonresource::no_such_page())
            };
        };
        if resource.namespaced == info.namespace.is_empty()
            && !(info.resource == "namespaces" && info.group.is_empty())
            && !(resource.namespaced && info.name.is_empty() && matches!(info.verb, "list" | "watch"))
            && !(resource.namespaced && info.name.is_empty() && info.verb == "deletecollection")
        {
            return Err(failure::no_such_path());
        }
        let context = Context::new(self.clone(), resource, info, query, headers, user, direct)?;
        context.dispatch(request).await
    }

    /// The resource of a group and version: built in, or made by a custom resource definition.
    pub(super) async fn resource(
        &self,
        group: &str,
        version: &str,
        resource: &str,
    ) -> Result<Option<Arc<ResourceInfo>>, Status> {
        match table::find(group, version, resource) {
            Some(info) => Ok(Some(info.clone())),
            None => self.custom_resource(group, version, resource).await,
        }
    }
}

impl Context {
    async fn dispatch(mut self, request: Request<Input>) -> Result<Response<Body>, Status> {
        let verb = self.request.verb;
        let faults = names::path_segment(&self.request.name);
        if !faults.is_empty() {
            return Err(failure::bad_request(alloc::format!(
                "Name parameter invalid: {:?}: {}",
                self.request.name,
                faults.join(";")
            )));
        }
        if !self.request.subresource.is_empty() {
            let allowed = match self.info.subresource(&self.request.subresource) {
                None => return Err(failure::no_such_path()),
                Some(sub) => sub.verbs.iter().any(|v| v == verb),
            };
            return if allowed {
                self.subresource(request).await
            } else {
                Err(failure::method_not_allowed())
            };
        }
        if !self.info.has_verb(verb) {
            return Err(failure::method_not_allowed());
        }
        if self.info.verbs.len() == 1 {
            // What can only be created is a question, and is answered, not stored.
            return self.review(request.body()).await;
        }
        let body = request.body();
        if matches!(verb, "list" | "watch" | "deletecollection") {
            options::list(&self.query, verb == "watch")?;
        }
        match verb {
            "get" => self.get().await,
            "list" => self.list().await,
            "watch" => self.watch().await,
            "create" if self.request.name.is_empty() => self.create(body).await,
            "update" if !self.request.name.is_empty() => self.update(body).await,
            "patch" if !self.request.name.is_empty() => self.patch(body).await,
            "delete" => self.delete(body).await,
            "deletecollection" => self.delete_collection(body).await,
            _ => Err(failure::method_not_allowed()),
        }
    }
}
