//! Create, update and patch.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use bytes::Bytes;
use http::Response;
use serde_json::Value;

use super::api_server::lock;
use super::context::Context;
use super::input::Input;
use super::store::Commit;
use super::{Body, codec, failure, negotiate, plan};
use crate::api::schema::{BodyFormat, decode};
use crate::api::table::strategy;
use crate::api::{FieldError, Status, apply, defaults, invalid, invalid_kind, names, patch, validate};
use crate::base::limits::OBJECT_BYTES_MAX;
use crate::client::PatchKind;
use crate::storage::Revision;

/// Most tries of a write that somebody else gets ahead of.
pub(super) const TRIES_MAX: usize = 16;
/// Most generated names that are tried (`names.maxNameLength` retries upstream).
const NAMES_MAX: usize = 8;

/// A pure change of an object.
pub(super) type ChangeFn = Box<dyn Fn(&Value) -> Result<Value, Status> + Send + Sync>;

/// How an existing object is changed.
pub(super) enum Change {
    /// It is replaced.
    Put(Value),
    /// It is patched.
    Patch(PatchKind, Value),
    /// A configuration is applied.
    Apply { config: Value, force: bool },
    /// A function of the object as it is.
    With(ChangeFn),
}

/// An object that was written, or would have been.
pub(super) struct Written {
    pub(super) stored: Bytes,
    pub(super) revision: Revision,
    pub(super) created: bool,
}

pub(super) fn checked_size(stored: Bytes) -> Result<Bytes, Status> {
    if stored.len() > OBJECT_BYTES_MAX { Err(failure::too_large(OBJECT_BYTES_MAX)) } else { Ok(stored) }
}

impl Context {
    pub(super) async fn create(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let object = self.decode(body)?;
        let written = self.insert(object, true).await?;
        self.respond_stored(201, &written.stored, written.revision)
    }

    pub(super) async fn update(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let object = self.decode(body)?;
        let written = self.change(&Change::Put(object)).await?;
        self.respond_written(&written)
    }

    pub(super) async fn patch(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let change = self.decode_patch(body)?;
        let written = self.change(&change).await?;
        self.respond_written(&written)
    }

    pub(super) fn respond_written(&self, written: &Written) -> Result<Response<Body>, Status> {
        self.respond_stored(if written.created { 201 } else { 200 }, &written.stored, written.revision)
    }

    pub(super) fn decode_patch(&mut self, body: &Input) -> Result<Change, Status> {
        let kind = negotiate::patch_kind(&self.headers)?;
        if kind != PatchKind::Apply {
            let patch = serde_json::from_slice(&body.bytes())
                .map_err(|e| failure::bad_request(alloc::format!("error decoding patch: {e}")))?;
            return Ok(Change::Patch(kind, patch));
        }
        let decoded =
            decode(&self.info, &body.bytes(), BodyFormat::Yaml).map_err(|e| e.to_status(&self.info))?;
        self.check_kind(&decoded.value)?;
        let config = self.check_fields(decoded).map_err(|why| self.unreadable(&why))?;
        let config = self.with_kind(config);
        Ok(Change::Apply { config, force: self.query.flag("force") })
    }

    /// Creates an object.
    pub(super) async fn insert(&mut self, mut object: Value, track: bool) -> Result<Written, Status> {
        let info = self.info.clone();
        if !info.has_verb("create") {
            return Err(Status {
                message: "create not allowed while custom resource definition is terminating".into(),
                ..failure::method_not_allowed()
            });
        }
        plan::identify(&info, self.namespace(), &self.request.name, &mut object)?;
        if !codec::meta_str(&object, "resourceVersion").is_empty() {
            return Err(failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if codec::meta_str(&object, "name").is_empty() && codec::meta_str(&object, "generateName").is_empty()
        {
            let error = FieldError::required("metadata.name", "name or generateName is required");
            return Err(invalid(&info, "", &[error]));
        }
        defaults::apply(&info, &mut object);
        if track {
            self.track(None, &mut object);
        }
        self.admit(&mut object, None).await?;
        strategy::prepare_create(&info, &mut object);
        self.decide_status(&mut object);
        self.stamp(&mut object);
        let generated = codec::meta_str(&object, "name").is_empty();
        for _ in 0..NAMES_MAX {
            // A given name is tried once.
            let mut object = if generated { object.clone() } else { core::mem::take(&mut object) };
            if generated {
                let suffix = lock(&self.server.0.rng).name_suffix(5);
                let name = names::generate(codec::meta_str(&object, "generateName"), &suffix);
                if let Some(meta) = codec::metadata_mut(&mut object) {
                    meta.insert("name".into(), name.into());
                }
            }
            strategy::select_own_pods(&info, &mut object);
            let name = codec::meta_str(&object, "name").to_string();
            let errors = validate::create(&info, &object);
            if !errors.is_empty() {
                return Err(invalid(&info, &name, &errors));
            }
            match self.store_new(object, &name).await {
                Err(status) if generated && status.is(crate::api::reason::ALREADY_EXISTS) => {}
                other => return other,
            }
        }
        Err(failure::already_exists(&info, codec::meta_str(&object, "generateName")))
    }

    /// What the server writes into every new object.
    fn stamp(&self, object: &mut Value) {
        let uid = self.server.uuid();
        if let Some(meta) = codec::metadata_mut(object) {
            meta.insert("uid".into(), uid.into());
            meta.insert("creationTimestamp".into(), self.now.to_rfc3339().into());
        }
    }

    async fn store_new(&self, mut object: Value, name: &str) -> Result<Written, Status> {
        let info = &self.info;
        let namespace = self.namespace().to_string();
        let key = info.key(&namespace, name);
        for _ in 0..TRIES_MAX {
            let guard = if namespace.is_empty() {
                None
            } else {
                match self.server.namespace(&namespace).await? {
                    None => return Err(self.no_namespace(&namespace)),
                    Some(state) if state.terminating => {
                        return Err(failure::namespace_terminating(info, name, &namespace));
                    }
                    Some(state) => Some((namespace.as_str(), state.revision)),
                }
            };
            let extra = self.allocate(&mut object, None).await?;
            let stored = if self.stored_form() {
                codec::encode(&object)
            } else {
                let mut stored = object.clone();
                super::version::to_storage(info, &mut stored);
                codec::encode(&stored)
            };
            let stored = checked_size(stored)?;
            if self.dry_run {
                if self.server.kv(&key).await?.is_some() {
                    return Err(failure::already_exists(info, name));
                }
                return Ok(Written { stored, revision: 0, created: true });
            }
            match self.server.commit_create(&key, stored.clone(), guard, extra).await? {
                Commit::Done(revision) => return Ok(Written { stored, revision, created: true }),
                Commit::Refused { object: Some(_), .. } => return Err(failure::already_exists(info, name)),
                Commit::Refused { object: None, namespace: seen } => {
                    if !namespace.is_empty() {
                        self.server.learn_namespace(&namespace, seen.as_ref());
                    }
                }
            }
        }
        Err(failure::conflict(info, name, failure::MODIFIED))
    }

    fn no_namespace(&self, namespace: &str) -> Status {
        match super::store::builtin(&crate::api::resources::NAMESPACES) {
            Some(info) => failure::not_found(info, namespace),
            None => failure::no_such_path(),
        }
    }

    /// Changes an object; a PUT or an apply may create it.
    pub(super) async fn change(&mut self, change: &Change) -> Result<Written, Status> {
        let info = self.info.clone();
        let (key, name) = (self.key(), self.request.name.clone());
        for _ in 0..TRIES_MAX {
            let Some(kv) = self.server.kv(&key).await? else {
                return self.change_missing(change).await;
            };
            let mut old = codec::decode(&kv.value, kv.mod_revision)?;
            super::version::from_storage(&info, &mut old);
            let mut new = self.next(change, &old)?;
            let put = matches!(change, Change::Put(_));
            plan::identify(&info, self.namespace(), &name, &mut new)?;
            plan::preconditions(&info, &new, &old, put)?;
            defaults::apply(&info, &mut new);
            let subresource = self.request.subresource.clone();
            let sub = Some(subresource.as_str()).filter(|s| !s.is_empty());
            // Upstream tracks the managers of the Binding, which is not kept, and not of the pod.
            if !matches!(change, Change::Apply { .. }) && sub != Some("binding") {
                self.track(Some(&old), &mut new);
            }
            if sub.is_none() {
                self.admit(&mut new, Some(&old)).await?;
            }
            strategy::prepare_update(
                &info,
                sub.filter(|s| matches!(*s, "status" | "binding")),
                &mut new,
                &old,
            );
            if sub.is_none() {
                self.decide_status(&mut new);
            }
            codec::set_revision(&mut new, kv.mod_revision);
            let errors = validate::update(&info, sub, &new, &old);
            if !errors.is_empty() {
                return Err(invalid(&info, &name, &errors));
            }
            if plan::is_same(&new, &old) {
                return Ok(Written { stored: kv.value, revision: kv.mod_revision, created: false });
            }
            let ends = plan::ends(&info, &new);
            let extra = if ends { self.release(&new) } else { self.allocate(&mut new, Some(&old)).await? };
            let mut stored = new;
            super::version::to_storage(&info, &mut stored);
            let stored = checked_size(codec::encode(&stored))?;
            if self.dry_run {
                return Ok(Written { stored, revision: kv.mod_revision, created: false });
            }
            let commit = if ends {
                self.server.commit_delete(&key, kv.mod_revision, extra).await?
            } else {
                self.server.commit_update(&key, kv.mod_revision, stored.clone(), extra).await?
            };
            if let Commit::Done(revision) = commit {
                if ends && info.is_custom() {
                    self.server.settle(&info).await?;
                }
                return Ok(Written { stored, revision, created: false });
            }
        }
        Err(failure::conflict(&info, &name, failure::MODIFIED))
    }

    /// The object that a change makes of the present one.
    fn next(&mut self, change: &Change, old: &Value) -> Result<Value, Status> {
        match change {
            Change::Put(new) => Ok(new.clone()),
            Change::With(f) => f(old),
            Change::Patch(kind, body) => {
                let patched = patch::apply(&self.info, *kind, old, body).map_err(|e| e.to_status())?;
                // A patch can put anything anywhere: what came out is read as strictly as a body.
                let bytes = serde_json::to_vec(&patched).unwrap_or_default();
                let unfit = |why: String| {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    invalid_kind(("", ""), "", &[FieldError::invalid("patch", text, why)])
                };
                let decoded =
                    decode(&self.info, &bytes, BodyFormat::Json).map_err(|e| unfit(e.to_string()))?;
                self.check_kind(&decoded.value).map_err(|status| unfit(status.message))?;
                self.warnings.clear();
                self.check_fields(decoded).map(|object| self.with_kind(object)).map_err(unfit)
            }
            Change::Apply { config, force } => self.apply(Some(old), config, *force),
        }
    }

    fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
        let (name, subresource) = (self.manager(), self.request.subresource.as_str());
        let manager = apply::Manager { name: &name, subresource, now: self.now };
        apply::apply(&self.info, live, config, manager, force).map_err(|e| e.to_status())
    }

    async fn change_missing(&mut self, change: &Change) -> Result<Written, Status> {
        let whole = self.request.subresource.is_empty();
        match change {
            Change::Put(object) if whole && self.info.strategy.create_on_update => {
                let mut object = object.clone();
                if let Some(meta) = codec::metadata_mut(&mut object) {
                    // Somebody who knew a version wants to replace it, not to create anew.
                    if meta.remove("resourceVersion").is_some_and(|v| !matches!(v.as_str(), Some("" | "0"))) {
                        return Err(failure::not_found(&self.info, &self.request.name));
                    }
                }
                self.insert(object, true).await
            }
            Change::Apply { config, force } if whole => {
                let mut object = self.apply(None, config, *force)?;
                if let Some(meta) = codec::metadata_mut(&mut object) {
                    meta.remove("resourceVersion");
                }
                self.insert(object, false).await
            }
            _ => Err(failure::not_found(&self.info, &self.request.name)),
        }
    }
}
