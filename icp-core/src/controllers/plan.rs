//! What a controller wants done, as data.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::Value;

use crate::api::{Gvr, Object};
use crate::base::Time;
use crate::client::{
    ApiRequest, DeleteOptions, EventNote, EventType, ListOptions, ObjectKey, Operation, PatchKind,
    Propagation,
};

/// Actions of one step of a slow start are at most this many (`replicaset.BurstReplicas`).
pub(super) const BURST_MAX: usize = 500;

/// An Event about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object that the Event regards.
    pub about: Arc<Object>,
    /// What it tells.
    pub note: EventNote,
}

impl Note {
    /// A note of type Normal.
    #[must_use]
    pub fn normal(about: &Arc<Object>, reason: &'static str, text: impl Into<String>) -> Self {
        let note = EventNote { kind: EventType::Normal, reason, action: reason, note: text.into() };
        Self { about: Arc::clone(about), note }
    }

    /// A note of type Warning.
    #[must_use]
    pub fn warning(about: &Arc<Object>, reason: &'static str, text: impl Into<String>) -> Self {
        let note = EventNote { kind: EventType::Warning, reason, action: reason, note: text.into() };
        Self { about: Arc::clone(about), note }
    }
}

/// One request, and what is told about its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The request.
    pub request: ApiRequest,
    /// Told when it succeeded.
    pub success: Option<Note>,
    /// Told when it failed, with the error appended.
    pub failure: Option<Note>,
    /// Failures with these reasons (see [`crate::api::reason`]) count as success.
    pub tolerate: &'static [&'static str],
}

impl Action {
    /// An action without notes.
    #[must_use]
    pub const fn new(request: ApiRequest) -> Self {
        Self { request, success: None, failure: None, tolerate: &[] }
    }

    /// Creates `object`.
    #[must_use]
    pub fn create(gvr: &Gvr, object: Object) -> Self {
        let namespace = object.metadata.namespace.clone();
        Self::new(ApiRequest::collection(gvr, &namespace, Operation::Create(Arc::new(object))))
    }

    /// Replaces an object by `object`, which carries the resourceVersion that it was computed from.
    #[must_use]
    pub fn update(gvr: &Gvr, object: Object) -> Self {
        let key = ObjectKey::of(&object);
        Self::new(ApiRequest::object(gvr, &key.namespace, &key.name, Operation::Update(Arc::new(object))))
    }

    /// Replaces the status of an object.
    #[must_use]
    pub fn update_status(gvr: &Gvr, object: Object) -> Self {
        let mut action = Self::update(gvr, object);
        action.request.subresource = Some("status");
        action
    }

    /// Merges `body` (RFC 7396) into an object. A uid and a resourceVersion in `body` are preconditions.
    #[must_use]
    pub fn merge(gvr: &Gvr, key: &ObjectKey, body: Value) -> Self {
        let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
        Self::new(ApiRequest::object(gvr, &key.namespace, &key.name, op))
    }

    /// Deletes `object`, and no other of its name.
    #[must_use]
    pub fn delete(gvr: &Gvr, object: &Object, propagation: Option<Propagation>) -> Self {
        Self::delete_uid(gvr, &ObjectKey::of(object), &object.metadata.uid, propagation)
    }

    /// Deletes the object `key` if it still has this uid.
    #[must_use]
    pub fn delete_uid(gvr: &Gvr, key: &ObjectKey, uid: &str, propagation: Option<Propagation>) -> Self {
        let options = DeleteOptions { uid: Some(uid.into()), propagation, ..DeleteOptions::default() };
        Self::new(ApiRequest::object(gvr, &key.namespace, &key.name, Operation::Delete(options)))
    }

    /// Deletes `object`, and no other of its name, without a grace period.
    #[must_use]
    pub fn delete_at_once(gvr: &Gvr, object: &Object) -> Self {
        let mut action = Self::delete(gvr, object, None);
        if let Operation::Delete(options) = &mut action.request.op {
            options.grace_period_seconds = Some(0);
        }
        action
    }

    /// Deletes all objects of a collection in the background.
    #[must_use]
    pub fn delete_collection(gvr: &Gvr, namespace: &str) -> Self {
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        let op = Operation::DeleteCollection(options, ListOptions::default());
        Self::new(ApiRequest::collection(gvr, namespace, op))
    }

    /// Reads an object from the server, past the cache.
    #[must_use]
    pub fn get(gvr: &Gvr, key: &ObjectKey) -> Self {
        Self::new(ApiRequest::object(gvr, &key.namespace, &key.name, Operation::Get))
    }

    /// Reads the first `limit` objects of a collection from the server, past the cache.
    #[must_use]
    pub fn list(gvr: &Gvr, namespace: &str, limit: u32) -> Self {
        let op = Operation::List(ListOptions { limit, ..ListOptions::default() });
        Self::new(ApiRequest::collection(gvr, namespace, op))
    }

    /// The same for a subresource.
    #[must_use]
    pub const fn at_subresource(mut self, subresource: &'static str) -> Self {
        self.request.subresource = Some(subresource);
        self
    }

    /// The same with a note about success.
    #[must_use]
    pub fn told(mut self, note: Note) -> Self {
        self.success = Some(note);
        self
    }

    /// The same with a note about failure; the error is appended to its text.
    #[must_use]
    pub fn told_failure(mut self, note: Note) -> Self {
        self.failure = Some(note);
        self
    }

    /// The same, where failures of these reasons count as success.
    #[must_use]
    pub const fn tolerating(mut self, reasons: &'static [&'static str]) -> Self {
        self.tolerate = reasons;
        self
    }
}

/// What a controller wants done about one key.
///
/// Steps are done in order, the actions of a step at once; the first failure ends the plan, and the key is planned
/// again after a pause. A plan without steps says that the observed state is as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Vec<Action>>,
    /// Told when the plan begins.
    pub notes: Vec<Note>,
    /// When the key wants to be planned again even if nothing changes.
    pub again_at: Option<Time>,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.notes.is_empty()
    }

    /// All actions in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flatten()
    }

    /// Adds a step of one action.
    pub fn one(&mut self, action: Action) {
        self.steps.push(vec![action]);
    }

    /// Adds a step of actions done at once; none adds no step.
    pub fn all(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.steps.push(actions);
        }
    }

    /// Adds steps of 1, 2, 4, ... actions, so that a failure that would hit all of them hits few
    /// (`slowStartBatch` upstream).
    pub fn slow_start(&mut self, actions: Vec<Action>) {
        let mut size = 1;
        let mut actions = actions.into_iter();
        loop {
            let step: Vec<Action> = actions.by_ref().take(size).collect();
            if step.is_empty() {
                return;
            }
            self.steps.push(step);
            size = (size * 2).min(BURST_MAX);
        }
    }

    /// Asks to be planned again at `due`, or earlier if that was already asked.
    pub fn again(&mut self, due: Time) {
        self.again_at = Some(self.again_at.map_or(due, |old| old.min(due)));
    }
}
