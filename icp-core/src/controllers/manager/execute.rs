//! Plans under way: what is in flight, and what the cache must show before the next plan.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::api::{Gvr, Object, Status, reason};
use crate::base::Time;
use crate::client::{ApiError, ApiRequest, ListOptions, ObjectKey, Operation, Reply};
use crate::controllers::{Action, Cache};

/// What the cache must show before the key is planned again, so that no plan is made from a state older than
/// what the last plan wrote.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expect {
    /// The watch of the resource reached this version. Versions are numbers that grow over all resources
    /// (KEP-5504).
    Seen { gvr: Gvr, version: u64 },
    /// The object of this uid is gone or going.
    Gone { gvr: Gvr, key: ObjectKey, uid: String, at_once: bool },
}

impl Expect {
    pub(super) fn holds(&self, cache: &Cache) -> bool {
        match self {
            Self::Seen { gvr, version } => {
                // What is not watched cannot be planned from.
                cache.informers.get(gvr).is_none_or(|i| version_of(i.resource_version()) >= *version)
            }
            Self::Gone { gvr, key, uid, at_once } => cache.store(gvr).get_key(key).is_none_or(|o| {
                o.metadata.uid != *uid
                    || o.is_terminating() && (!at_once || o.metadata.deletion_grace_period_seconds == Some(0))
            }),
        }
    }

    fn seen(gvr: &Gvr, resource_version: &str) -> Self {
        Self::Seen { gvr: gvr.clone(), version: version_of(resource_version) }
    }
}

fn version_of(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// A plan under way.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Steps that were not begun.
    pub(super) steps: VecDeque<Vec<Action>>,
    /// Requests without a definite outcome.
    pub(super) open: usize,
    pub(super) failed: bool,
    pub(super) expects: Vec<Expect>,
    pub(super) again_at: Option<Time>,
    /// When the expectations are given up.
    pub(super) give_up: Option<Time>,
}

/// Why a request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is an action of the plan.
    Action,
    /// It reads an object that exists already, to learn the version from which the cache shows it.
    Catch,
    /// It lists one object, to learn the present version after an unknown outcome.
    Barrier,
}

/// What an answer means for the plan.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Done(Option<Expect>),
    /// The outcome is unknown, or the server is busy: the same request once more, later.
    Again,
    /// It failed for good; the plan ends.
    Failed(Option<Expect>),
    /// An object of that name exists: read it. It is the one of an earlier try if `ours`.
    Catch {
        ours: bool,
    },
}

/// Judges the answer to `action` at its try number `tries` (the first is 1).
pub(super) fn judge(action: &Action, role: Role, tries: u32, answer: &Result<Reply, ApiError>) -> Verdict {
    let request = &action.request;
    let gvr = &request.gvr;
    match answer {
        Ok(Reply::List { resource_version, .. }) if role == Role::Barrier => {
            Verdict::Done(Some(Expect::seen(gvr, resource_version)))
        }
        Ok(reply) => Verdict::Done(expect(request, reply)),
        Err(e) if role == Role::Catch && e.is(reason::NOT_FOUND) => Verdict::Done(None),
        Err(e) if unsure(e) => Verdict::Again,
        Err(_) if role == Role::Barrier => Verdict::Again,
        Err(e) => match &request.op {
            Operation::Create(_) if e.is(reason::ALREADY_EXISTS) => Verdict::Catch { ours: tries > 1 },
            // The object changed since: it is to be looked at again, not to be waited for.
            Operation::Delete(options) if e.is(reason::CONFLICT) && options.resource_version.is_some() => {
                Verdict::Failed(None)
            }
            Operation::Delete(_) if e.is(reason::NOT_FOUND) || e.is(reason::CONFLICT) => {
                Verdict::Done(gone(request))
            }
            _ if tolerated(action, e) => Verdict::Done(None),
            _ => Verdict::Failed(None),
        },
    }
}

/// The action that stands in for `action` to learn a version.
pub(super) fn stand_in(action: &Action, role: Role) -> Action {
    let request = &action.request;
    let namespace = request.namespace.clone().unwrap_or_default();
    match (&request.op, role) {
        (Operation::Create(object), Role::Catch) => {
            Action::new(ApiRequest::object(&request.gvr, &namespace, &object.metadata.name, Operation::Get))
        }
        _ => {
            let op = Operation::List(ListOptions { limit: 1, ..ListOptions::default() });
            Action::new(ApiRequest::collection(&request.gvr, &namespace, op))
        }
    }
}

fn tolerated(action: &Action, error: &ApiError) -> bool {
    action.tolerate.iter().any(|reason| error.is(reason))
}

/// Nothing can be created where everything is being deleted: that is no news to anybody.
pub(super) fn namespace_ends(error: &ApiError) -> bool {
    let ends = |s: &Status| {
        s.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    };
    matches!(error, ApiError::Status(s) if s.code == 403 && ends(s))
}

fn unsure(error: &ApiError) -> bool {
    match error {
        ApiError::Status(s) => matches!(s.code, 429 | 500 | 502 | 503 | 504),
        _ => true,
    }
}

fn expect(request: &ApiRequest, reply: &Reply) -> Option<Expect> {
    let of = |object: &Object| Expect::seen(&request.gvr, &object.metadata.resource_version);
    match (&request.op, reply) {
        (Operation::Create(_) | Operation::Update(_) | Operation::Patch { .. }, Reply::Object(object)) => {
            // A subresource such as `binding` or `eviction` answers with another kind.
            request
                .subresource
                .is_none_or(|s| matches!(s, "status" | "scale" | "finalize"))
                .then(|| of(object))
        }
        (Operation::Get, Reply::Object(object)) => Some(of(object)),
        (Operation::Delete(_), _) => gone(request),
        _ => None,
    }
}

fn gone(request: &ApiRequest) -> Option<Expect> {
    let Operation::Delete(options) = &request.op else { return None };
    let key = ObjectKey::new(request.namespace.as_deref().unwrap_or(""), request.name.as_deref()?);
    let at_once = options.grace_period_seconds == Some(0);
    Some(Expect::Gone { gvr: request.gvr.clone(), key, uid: options.uid.clone()?, at_once })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources;
    use crate::client::DeleteOptions;

    #[test]
    fn a_deletion_of_another_version_is_planned_anew() {
        let delete = |version: Option<&str>| {
            let options = DeleteOptions {
                uid: Some("u".into()),
                resource_version: version.map(String::from),
                ..DeleteOptions::default()
            };
            Action::new(ApiRequest::object(&resources::PODS, "a", "web", Operation::Delete(options)))
        };
        let conflict = Err(ApiError::Status(Status::failure(409, reason::CONFLICT, "it changed")));
        assert_eq!(judge(&delete(Some("7")), Role::Action, 1, &conflict), Verdict::Failed(None));
        // With the uid alone, a conflict says that this object is gone.
        let verdict = judge(&delete(None), Role::Action, 1, &conflict);
        assert!(matches!(verdict, Verdict::Done(Some(Expect::Gone { .. }))), "{verdict:?}");
    }
}
