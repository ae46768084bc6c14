//! Events and conditions of pods.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, resources};
use icp_core::base::Time;
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, EventNote, EventType, ObjectKey, Reply, RequestId,
};
use serde::Deserialize;

use super::Effect;
use super::binding::ANSWER_TIMEOUT;
use super::driver::SchedulerMachine;

/// Conditions and Events under way at once, beyond which conditions are dropped: the next attempt writes them.
const NOTES_IN_FLIGHT_MAX: usize = 256;
/// The same for Events, which wait then: bindings must not wait for them.
const EVENTS_IN_FLIGHT_MAX: usize = 32;
/// The same while there are bindings under way.
const EVENTS_BESIDE_BINDINGS_MAX: usize = 4;
/// Events that wait; further ones are dropped.
const EVENTS_WAITING_MAX: usize = 1 << 17;

/// An Event that was not sent yet.
#[derive(Clone, Debug)]
pub(super) struct Told {
    at: Time,
    about: Arc<Object>,
    note: EventNote,
}

/// Of a pod's spec, whose scheduler tells of it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asks {
    scheduler_name: String,
}

impl SchedulerMachine {
    pub(super) fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.informers.get(&resources::PODS)?.store().get_key(key).cloned()
    }

    /// Writes a condition.
    pub(super) fn note(&mut self, now: Time, request: Option<ApiRequest>, out: &mut Vec<Effect>) {
        if let Some(request) = request.filter(|_| self.may_note()) {
            self.send_note(now, request, out);
        }
    }

    /// Whether a condition would be written now, and not dropped.
    pub(super) fn may_note(&self) -> bool {
        self.notes_open.len() < NOTES_IN_FLIGHT_MAX
    }

    pub(super) fn send_note(&mut self, now: Time, request: ApiRequest, out: &mut Vec<Effect>) -> RequestId {
        let id = self.ids.next_id();
        self.notes_open.insert(id);
        self.timers.set(id, now + ANSWER_TIMEOUT);
        out.push(ClientEffect::Request { id, request }.into());
        id
    }

    /// Whether the request was a condition or an Event; then it is over, and one that waits is sent.
    pub(super) fn note_ended(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) -> bool {
        if !self.notes_open.remove(&id) {
            return false;
        }
        self.timers.cancel(&id);
        self.group_told(now, id, answer, out);
        self.send_events(now, out);
        true
    }

    fn send_events(&mut self, now: Time, out: &mut Vec<Effect>) {
        let most = if self.flights.is_empty() { EVENTS_IN_FLIGHT_MAX } else { EVENTS_BESIDE_BINDINGS_MAX };
        while self.notes_open.len() < most {
            let Some(Told { at, about, note }) = self.events_waiting.pop_front() else { return };
            let Asks { scheduler_name } = about.view("spec").unwrap_or_default();
            let profile =
                self.scheduler.profile(&scheduler_name).or_else(|| self.scheduler.profiles().next());
            let recorder = profile.and_then(|p| self.recorders.get_mut(p));
            if let Some(request) = recorder.and_then(|r| r.record(at, &about, &note)) {
                self.send_note(now, request, out);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an Event, at its few call sites")]
    pub(super) fn tell(
        &mut self,
        now: Time,
        about: &Arc<Object>,
        kind: EventType,
        reason: &'static str,
        action: &'static str,
        note: String,
        out: &mut Vec<Effect>,
    ) {
        if self.events_waiting.len() < EVENTS_WAITING_MAX {
            let note = EventNote { kind, reason, action, note };
            self.events_waiting.push_back(Told { at: now, about: Arc::clone(about), note });
        }
        self.send_events(now, out);
    }
}
