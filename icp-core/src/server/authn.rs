//! Finds out who asks: the shell's word, a bearer token, or nobody; and impersonation.

use alloc::string::ToString;
use alloc::vec::Vec;

use http::header::AUTHORIZATION;
use http::request::Parts;

use super::auth::rbac::Attributes;
use super::auth::token::Claims;
use super::{ApiServer, UserInfo, failure};
use crate::api::Status;
use crate::api::resources::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};

/// How requests of one connection are authenticated; a shell puts it into the request's extensions.
///
/// Without it a request is in-process and comes from [`Options::in_process_user`](super::Options).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthnMode {
    /// The request came through a listener: the extensions hold a [`UserInfo`] if the peer showed a client
    /// certificate; else the request needs a bearer token, or is anonymous.
    Network,
}

impl ApiServer {
    /// From whom a request is that came through no shell and does not say.
    pub(super) fn in_process_user(&self) -> UserInfo {
        self.0.options.in_process_user.clone().unwrap_or_else(UserInfo::anonymous)
    }

    pub(super) async fn authenticate(&self, parts: &Parts) -> Result<UserInfo, Status> {
        let user = match parts.extensions.get::<UserInfo>() {
            Some(user) => user.clone(),
            None => match parts.headers.get(AUTHORIZATION) {
                Some(value) => {
                    let text = value.to_str().map_err(|_| failure::unauthorized())?;
                    let token = text.strip_prefix("Bearer ").ok_or_else(failure::unauthorized)?;
                    let audiences = [self.0.options.issuer.clone()];
                    self.verify_token(token.trim(), &audiences).await.ok_or_else(failure::unauthorized)?.0
                }
                None if parts.extensions.get::<AuthnMode>().is_none() => self.in_process_user(),
                None => UserInfo::anonymous(),
            },
        };
        self.impersonate(parts, user).await
    }

    /// Verifies a service account token, and that the account and the object it is bound to still exist.
    pub(super) async fn verify_token(
        &self,
        token: &str,
        audiences: &[alloc::string::String],
    ) -> Option<(UserInfo, Claims)> {
        let claims = self.token_key()?.verify(token, &self.0.options.issuer, audiences, self.now()).ok()?;
        let account = self.object(&SERVICE_ACCOUNTS, &claims.namespace, &claims.name).await.ok()??;
        if super::codec::meta_str(&account, "uid") != claims.uid {
            return None;
        }
        let mut user = UserInfo::service_account(&claims.namespace, &claims.name, &claims.uid);
        let bound = [
            (&claims.pod, &PODS, claims.namespace.as_str()),
            (&claims.secret, &SECRETS, claims.namespace.as_str()),
            (&claims.node, &NODES, ""),
        ];
        for (reference, gvr, namespace) in bound {
            let Some((name, uid)) = reference else { continue };
            let object = self.object(gvr, namespace, name).await.ok()??;
            if super::codec::meta_str(&object, "uid") != uid {
                return None;
            }
        }
        if let Some((name, uid)) = &claims.pod {
            user.extra.insert("authentication.kubernetes.io/pod-name".into(), alloc::vec![name.clone()]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".into(), alloc::vec![uid.clone()]);
        }
        let id = alloc::format!("JTI={}", claims.id);
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), alloc::vec![id]);
        Some((user, claims))
    }

    async fn impersonate(&self, parts: &Parts, user: UserInfo) -> Result<UserInfo, Status> {
        let text = |v: &http::HeaderValue| v.to_str().unwrap_or_default().to_string();
        let Some(name) = parts.headers.get("impersonate-user").map(text) else {
            let other = parts.headers.keys().find(|name| name.as_str().starts_with("impersonate-"));
            return match other {
                // Who asks for fewer rights must not get all of its own (`buildImpersonationRequests`).
                Some(header) => {
                    Err(failure::internal(alloc::format!("requested {header} without impersonating a user")))
                }
                None => Ok(user),
            };
        };
        let groups: Vec<_> = parts.headers.get_all("impersonate-group").iter().map(text).collect();
        let account = name
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .map(|(ns, sa)| (ns.to_string(), sa.to_string()));
        let asks = core::iter::once(match &account {
            Some((ns, sa)) => {
                Attributes { resource: "serviceaccounts", namespace: ns, name: sa, ..Attributes::default() }
            }
            None => Attributes { resource: "users", name: &name, ..Attributes::default() },
        })
        .chain(groups.iter().map(|g| Attributes {
            resource: "groups",
            name: g,
            ..Attributes::default()
        }));
        for ask in asks {
            self.require(&user, &Attributes { verb: "impersonate", ..ask }).await?;
        }
        if let (Some((ns, sa)), true) = (&account, groups.is_empty()) {
            return Ok(UserInfo::service_account(ns, sa, ""));
        }
        let groups: Vec<&str> = groups.iter().map(alloc::string::String::as_str).collect();
        Ok(if name == "system:anonymous" { UserInfo::anonymous() } else { UserInfo::new(&name, &groups) })
    }
}
