//! From a node to the binding: what must be done first, the writes that decide about a pod, and their answers.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::api::resources;
use icp_core::base::{Duration, Time};
use icp_core::client::{ApiError, ApiRequest, ClientEffect, EventType, ObjectKey, Reply, RequestId};

use super::driver::SchedulerMachine;
use super::requests::{self, Outcome};
use super::{BindCall, Effect};
use crate::framework::Bind;
use crate::model::{Claim, Pod, VolumeSource};
use crate::plugins::Preparation;
use crate::queue::{Changed, ClusterEvent};

/// A request without an answer counts as failed with unknown outcome.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The plugin that creates the pod's `binding`.
const DEFAULT_BINDER: &str = "DefaultBinder";
/// Pause before a pod is read again to learn what became of its binding.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What must be done before a pod is bound.
#[derive(Clone, Debug)]
pub(super) struct Preparing {
    pub(super) pod: Pod,
    pub(super) node: String,
    /// Requests without an answer.
    pub(super) open: BTreeSet<RequestId>,
}

/// A write that decides about a pod.
#[derive(Clone, Debug)]
pub(super) enum Flight {
    /// A binding was sent, by this plugin.
    Bind { pod: Pod, node: String, plugin: &'static str },
    /// A shell was told to bind, by this plugin.
    Shell { pod: Pod, node: String, plugin: &'static str },
    /// An extender was told to bind.
    Delegate { pod: Pod, node: String, extender: usize },
    /// What became of a binding is being read.
    Read { pod: Pod, node: String },
    /// It is read at the end of a pause.
    ReadLater { pod: Pod, node: String },
    /// Something is being done that the pod's binding needs.
    Prepare { pod: Pod },
    /// A pod is being evicted for this one.
    Evict { preemptor: ObjectKey },
}

impl Flight {
    /// Whether it is a binding under way.
    pub(super) const fn is_binding(&self) -> bool {
        !matches!(self, Self::Prepare { .. } | Self::Evict { .. })
    }
}

impl SchedulerMachine {
    pub(super) fn bind(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        if !self.delegate(now, &pod, &node, out) {
            self.bind_here(now, pod, node, out);
        }
    }

    /// Binds whatever extenders there are.
    pub(super) fn bind_here(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        match self.scheduler.binder(&pod, &node) {
            Err(rejection) => {
                self.not_bound(now, &pod, rejection.plugin, &rejection.message(), out);
            }
            Ok(Some((plugin, Bind::Request(request)))) => {
                self.send(now, request, Flight::Bind { pod, node, plugin }, out);
            }
            Ok(Some((plugin, Bind::Shell(timeout)))) => {
                let id = self.ids.next_id();
                let call = BindCall {
                    id,
                    plugin,
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                    node: node.clone(),
                    timeout,
                };
                self.timers.set(id, now + timeout);
                self.flights.insert(id, Flight::Shell { pod, node, plugin });
                out.push(Effect::Bind(call));
            }
            Ok(Some((_, Bind::Skip)) | None) if !self.scheduler.binds_by_default(&pod) => {
                self.take_back(now, &pod);
                self.erred(now, &pod, "every Bind plugin skipped the pod".into(), out);
            }
            Ok(Some((_, Bind::Skip)) | None) => {
                let request = requests::binding(&pod, &node);
                self.send(now, request, Flight::Bind { pod, node, plugin: DEFAULT_BINDER }, out);
            }
        }
    }

    /// A shell bound a pod, or did not; whoever nobody waits for any more is ignored.
    pub(super) fn shell_bound(
        &mut self,
        now: Time,
        id: RequestId,
        result: Result<(), String>,
        out: &mut Vec<Effect>,
    ) {
        match self.flights.remove(&id) {
            Some(Flight::Shell { pod, node, plugin }) => {
                self.timers.cancel(&id);
                match result {
                    Ok(()) => self.bound(now, &pod, &node, out),
                    Err(why) => self.not_bound(now, &pod, plugin, &why, out),
                }
            }
            Some(other) => {
                self.flights.insert(id, other);
            }
            None => {}
        }
    }

    /// A plugin did not bind a pod.
    fn not_bound(&mut self, now: Time, pod: &Pod, plugin: &str, why: &str, out: &mut Vec<Effect>) {
        self.take_back(now, pod);
        self.erred(now, pod, format!("running Bind plugin {plugin:?}: {why}"), out);
    }

    /// Asks for the pod's volumes and for what plugins want done; it is bound when all of that is done.
    pub(super) fn prepare(
        &mut self,
        now: Time,
        pod: Pod,
        node: String,
        todo: &[Preparation],
        wanted: Vec<ApiRequest>,
        out: &mut Vec<Effect>,
    ) {
        let mut requests = wanted;
        for preparation in todo {
            let (Preparation::Keep { claim, .. } | Preparation::Provision { claim }) = preparation;
            let gvr = &resources::PERSISTENT_VOLUME_CLAIMS;
            let Some(object) = self.informers.get(gvr).and_then(|i| i.store().get_key(claim)).cloned() else {
                continue;
            };
            requests.push(match preparation {
                Preparation::Keep { volume, .. } => requests::keep(volume, &object),
                Preparation::Provision { .. } => requests::provision(&object, &node),
            });
        }
        let mut open = BTreeSet::new();
        for request in requests {
            open.insert(self.send(now, request, Flight::Prepare { pod: pod.clone() }, out));
        }
        let id = self.ids.next_id();
        self.timers.set(id, now + self.config.volumes_timeout);
        self.preparing.insert(id, Preparing { pod, node, open });
    }

    /// Binds the pods for which all is done.
    pub(super) fn bind_prepared(&mut self, now: Time, out: &mut Vec<Effect>) {
        let cluster = self.scheduler.cluster();
        let ready = |p: &Preparing| {
            p.open.is_empty()
                && p.pod.spec.volumes.iter().all(|v| match v {
                    VolumeSource::Claim { name, .. } => {
                        let key = ObjectKey::new(&p.pod.key.namespace, name);
                        cluster.storage().claims.get(&key).is_some_and(Claim::is_bound)
                    }
                    _ => true,
                })
        };
        let ready = self.preparing.iter().filter(|(_, p)| ready(p));
        let ids: Vec<RequestId> = ready.map(|(id, _)| *id).collect();
        for id in ids {
            self.timers.cancel(&id);
            if let Some(Preparing { pod, node, .. }) = self.preparing.remove(&id)
                && self.leading(now).is_some()
                && self.scheduler.cluster().is_assumed(&pod.key)
            {
                self.bind(now, pod, node, out);
            }
        }
    }

    /// What must be done before a pod is bound cannot be done on its node.
    fn give_up_preparing(&mut self, now: Time, pod: &Pod) {
        let ids = self.preparing.iter().filter(|(_, p)| p.pod.key == pod.key && p.pod.uid == pod.uid);
        let ids: Vec<RequestId> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            self.timers.cancel(&id);
            self.preparing.remove(&id);
            self.take_back(now, pod);
            self.try_again(now, pod);
        }
    }

    pub(super) fn send(
        &mut self,
        now: Time,
        request: ApiRequest,
        flight: Flight,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = self.ids.next_id();
        out.push(ClientEffect::Request { id, request }.into());
        self.timers.set(id, now + ANSWER_TIMEOUT);
        self.flights.insert(id, flight);
        id
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.timers.cancel(&id);
        match flight {
            Flight::Bind { pod, node, plugin } => self.on_binding(now, pod, node, plugin, answer, out),
            // Nothing came in time.
            Flight::Shell { pod, node, .. } => {
                self.send(now, requests::read(&pod.key), Flight::Read { pod, node }, out);
            }
            Flight::Read { pod, node } => match (requests::outcome(answer), answer) {
                (Outcome::Bound, Ok(Reply::Object(object))) if object.metadata.uid == pod.uid => {
                    if object.str_at("/spec/nodeName").is_empty() {
                        self.take_back(now, &pod);
                        self.try_again(now, &pod);
                    } else {
                        self.bound(now, &pod, &node, out);
                    }
                }
                (Outcome::Bound | Outcome::Gone, _) => {
                    self.take_back(now, &pod);
                    self.queue.remove(&pod.key);
                    self.leave_group(now, &pod);
                }
                _ => {
                    let id = self.ids.next_id();
                    self.timers.set(id, now + READ_AGAIN);
                    self.flights.insert(id, Flight::ReadLater { pod, node });
                }
            },
            Flight::Prepare { pod } => {
                if requests::outcome(answer) == Outcome::Bound {
                    self.preparing.values_mut().for_each(|p| {
                        p.open.remove(&id);
                    });
                    self.bind_prepared(now, out);
                } else {
                    self.give_up_preparing(now, &pod);
                }
            }
            Flight::Evict { preemptor } => {
                if !matches!(requests::outcome(answer), Outcome::Bound | Outcome::Gone) {
                    // The room is not made; the pod looks for another way after its pause.
                    self.scheduler.clear_nomination(&preemptor);
                    self.queue.retry(now, &preemptor);
                }
            }
            later @ (Flight::ReadLater { .. } | Flight::Delegate { .. }) => {
                self.flights.insert(id, later);
            }
        }
    }

    fn on_binding(
        &mut self,
        now: Time,
        pod: Pod,
        node: String,
        plugin: &str,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        match requests::outcome(answer) {
            Outcome::Bound => self.bound(now, &pod, &node, out),
            // What is not there may be something else that the plugin's request names.
            Outcome::Gone if plugin != DEFAULT_BINDER => {
                self.send(now, requests::read(&pod.key), Flight::Read { pod, node }, out);
            }
            Outcome::Gone => {
                self.take_back(now, &pod);
                if self.queue.get(&pod.key).is_some_and(|p| p.uid == pod.uid) {
                    self.queue.remove(&pod.key);
                    self.leave_group(now, &pod);
                }
            }
            Outcome::Refused => {
                let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                self.not_bound(now, &pod, plugin, &why, out);
            }
            Outcome::Unknown => {
                let request = requests::read(&pod.key);
                self.send(now, request, Flight::Read { pod, node }, out);
            }
        }
    }

    pub(super) fn bound(&mut self, now: Time, pod: &Pod, node: &str, out: &mut Vec<Effect>) {
        self.placed(now, pod);
        if self.queue.get(&pod.key).is_some_and(|p| p.uid == pod.uid) {
            self.queue.remove(&pod.key);
        }
        if let Some(object) = self.object(&pod.key) {
            let message = format!("Successfully assigned {} to {node}", pod.key);
            self.tell(now, &object, EventType::Normal, "Scheduled", "Binding", message, out);
        }
    }

    /// The pod is not on the node that it was assumed to be on.
    pub(super) fn take_back(&mut self, now: Time, pod: &Pod) {
        if let Some(old) = self.unseat(now, pod) {
            let what = Changed::Pod { old: Some(&old), new: None };
            self.happened_to(now, ClusterEvent::PodRemoved, what);
        }
    }

    pub(super) fn on_timer(&mut self, now: Time, id: RequestId, out: &mut Vec<Effect>) {
        let silence = Err(ApiError::Unreachable("no answer in time".into()));
        if self.note_ended(now, id, &silence, out) {
            return;
        }
        if let Some(pod) = self.preparing.get(&id).map(|p| p.pod.clone()) {
            self.give_up_preparing(now, &pod);
            return;
        }
        if self.permit_timed_out(now, id, out) {
            return;
        }
        if self.extender_answered(now, id, Err("no answer in time".into()), out) {
            return;
        }
        match self.flights.remove(&id) {
            Some(Flight::ReadLater { pod, node }) => {
                let request = requests::read(&pod.key);
                self.send(now, request, Flight::Read { pod, node }, out);
            }
            Some(flight) => {
                self.flights.insert(id, flight);
                self.on_answer(now, id, &silence, out);
            }
            None => {}
        }
    }
}
