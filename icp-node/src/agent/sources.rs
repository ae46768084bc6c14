//! What the pods of the node refer to: config maps and secrets followed one by one, tokens asked for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, resources};
use icp_core::base::Time;
use icp_core::client::{ApiRequest, Informer, ListOptions, Operation, RequestId, RequestIds};
use serde_json::{Value, json};

use super::KubeletEffect;
use crate::pod::{Pod, TokenProjection};
use crate::resolve::{Source, Sources};
use crate::runtime::PodUid;

/// Names a config map or secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RefKey {
    pub(super) secret: bool,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Followed {
    pub(super) informer: Informer,
    pub(super) users: BTreeSet<PodUid>,
}

/// The config maps and secrets that pods of the node refer to, each followed by a watch of its own as upstream's
/// watch-based managers do: the node reads no more than it must.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) followed: BTreeMap<RefKey, Followed>,
    blocks: BTreeMap<u64, RefKey>,
}

impl References {
    pub(super) fn follow(
        &mut self,
        now: Time,
        key: RefKey,
        user: &PodUid,
        ids: &mut RequestIds,
        out: &mut Vec<KubeletEffect>,
    ) {
        let followed = self.followed.entry(key.clone()).or_insert_with(|| {
            let gvr = if key.secret { resources::SECRETS } else { resources::CONFIG_MAPS };
            let options = ListOptions {
                field_selector: format!("metadata.name={}", key.name),
                ..ListOptions::default()
            };
            let mut informer = Informer::new(gvr, options).in_namespace(&key.namespace);
            informer.start(now, ids, out);
            self.blocks.insert(informer.block(), key.clone());
            Followed { informer, users: BTreeSet::new() }
        });
        followed.users.insert(user.clone());
    }

    pub(super) fn release(&mut self, user: &PodUid, out: &mut Vec<KubeletEffect>) {
        self.followed.retain(|_, followed| {
            if followed.users.remove(user) && followed.users.is_empty() {
                self.blocks.remove(&followed.informer.block());
                followed.informer.stop(out);
                return false;
            }
            true
        });
    }

    pub(super) fn by_block(&mut self, block: u64) -> Option<&mut Followed> {
        self.followed.get_mut(self.blocks.get(&block)?)
    }

    fn source(&self, secret: bool, namespace: &str, name: &str) -> Source {
        let key = RefKey { secret, namespace: namespace.into(), name: name.into() };
        match self.followed.get(&key) {
            Some(f) if f.informer.synced() => match f.informer.get(namespace, name) {
                Some(object) => Source::Found(object.clone()),
                None => Source::Missing,
            },
            _ => Source::Unknown,
        }
    }
}

/// A bound token of one projection (or of several alike) of a pod.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) audience: String,
    pub(super) seconds: i64,
    pub(super) text: Option<String>,
    pub(super) asked: Option<RequestId>,
    pub(super) refresh_at: Time,
    /// Why the last request failed.
    pub(super) error: Option<String>,
}

impl Token {
    fn is_for(&self, p: &TokenProjection) -> bool {
        self.audience == p.audience && self.seconds == p.expiration_seconds.unwrap_or(3600)
    }
}

/// The tokens that a pod asks for.
pub(super) fn tokens_of(pod: &Pod) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let projections = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
    for p in projections.filter_map(|s| s.service_account_token.as_ref()) {
        if !tokens.iter().any(|t| t.is_for(p)) {
            tokens.push(Token {
                audience: p.audience.clone(),
                seconds: p.expiration_seconds.unwrap_or(3600),
                text: None,
                asked: None,
                refresh_at: Time::ZERO,
                error: None,
            });
        }
    }
    tokens
}

/// Asks for a token that is bound to the pod (KEP-1205).
pub(super) fn token_request(pod: &Pod, token: &Token) -> ApiRequest {
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let audiences: Vec<&str> =
        if token.audience.is_empty() { Vec::new() } else { Vec::from([token.audience.as_str()]) };
    let mut object = Object::new("authentication.k8s.io/v1", "TokenRequest", "", "");
    object.rest.insert(
        "spec".into(),
        json!({
            "audiences": audiences,
            "expirationSeconds": token.seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid.to_string(),
            },
        }),
    );
    let op = Operation::Create(Arc::new(object));
    ApiRequest::object(&resources::SERVICE_ACCOUNTS, &pod.namespace, account, op).sub("token")
}

/// The text of a token and when to ask for the next: after four fifths of its life, as upstream does.
pub(super) fn token_reply(now: Time, object: &Object) -> Option<(String, Time)> {
    let text = object.at("/status/token").and_then(Value::as_str)?;
    let expires: Time = object.str_at("/status/expirationTimestamp").parse().ok()?;
    Some((text.into(), now + expires.since(now).mul_f64(0.8)))
}

/// What one pod may look up.
pub(super) struct View<'a> {
    pub(super) references: &'a References,
    pub(super) services: Option<&'a Informer>,
    pub(super) tokens: &'a [Token],
}

impl Sources for View<'_> {
    fn config_map(&self, namespace: &str, name: &str) -> Source {
        self.references.source(false, namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Source {
        self.references.source(true, namespace, name)
    }

    fn token(&self, projection: &TokenProjection) -> Option<String> {
        self.tokens.iter().find(|t| t.is_for(projection))?.text.clone()
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.services.map(|s| s.list(namespace).cloned().collect()).unwrap_or_default()
    }
}
