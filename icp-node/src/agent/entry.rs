//! What the agent keeps of one pod.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use icp_core::api::resources;
use icp_core::base::{Backoff, Duration, Time};
use icp_core::client::{ApiRequest, DeleteOptions, Operation, PatchKind, RequestId};
use serde_json::{Value, json};

use super::sources::Token;
use crate::pod::{Pod, PodMachine};
use crate::runtime::{CallId, ContainerKey, Image};

/// Set in the ids of calls that the agent makes itself; a pod's machine counts its own from 1.
const AGENT_CALL: u64 = 1 << 63;

/// A volume and what was last written into it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: Arc<str>,
    pub(super) hash: u64,
    pub(super) busy: Option<CallId>,
    pub(super) error: Option<String>,
}

/// Where the status in the API server stands.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) dirty: bool,
    pub(super) sent: u64,
    /// The version of the object that last said something else than this agent while a report was under way.
    pub(super) doubt: u64,
    /// The version of the object that the last report made.
    pub(super) acknowledged: u64,
    pub(super) asked: Option<RequestId>,
    pub(super) retry_at: Option<Time>,
    pub(super) backoff: Backoff,
}

impl Report {
    /// The object says something else than was sent: send it again, after a pause.
    pub(super) fn doubtful(&mut self, now: Time) {
        self.sent = 0;
        self.dirty = true;
        self.retry_at = Some(now + Duration::from_secs(1));
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) machine: PodMachine,
    pub(super) volumes: Vec<Written>,
    /// The machine waits for its volumes.
    pub(super) prepare: Option<CallId>,
    pub(super) prepared: bool,
    /// Starts that wait for what they refer to.
    pub(super) deferred: Vec<(CallId, ContainerKey, Arc<Image>)>,
    pub(super) tokens: Vec<Token>,
    pub(super) report: Report,
    pub(super) finished: bool,
    pub(super) deleting: Option<RequestId>,
    pub(super) delete_at: Option<Time>,
    pub(super) gone: bool,
    pub(super) volumes_retry_at: Option<Time>,
}

impl Entry {
    pub(super) fn new(machine: PodMachine, tokens: Vec<Token>) -> Self {
        Self {
            machine,
            volumes: Vec::new(),
            prepare: None,
            prepared: false,
            deferred: Vec::new(),
            tokens,
            report: Report {
                dirty: true,
                sent: 0,
                doubt: 0,
                acknowledged: 0,
                asked: None,
                retry_at: None,
                backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            },
            finished: false,
            deleting: None,
            delete_at: None,
            gone: false,
            volumes_retry_at: None,
        }
    }

    pub(super) fn pod(&self) -> &Arc<Pod> {
        self.machine.pod()
    }

    /// The request that writes `status`. A pod whose readiness others take part in is written only as it was last
    /// seen, so that no condition of theirs is lost.
    pub(super) fn status_request(&self, mut status: Value) -> ApiRequest {
        let pod = self.pod();
        if let Some(map) = status.as_object_mut() {
            for key in ["reason", "message", "podIP", "podIPs"] {
                map.entry(key).or_insert(Value::Null);
            }
        }
        let mut metadata = json!({ "uid": pod.uid.to_string() });
        if !pod.spec.readiness_gates.is_empty()
            && let Some(map) = metadata.as_object_mut()
        {
            map.insert("resourceVersion".into(), pod.resource_version.clone().into());
        }
        let body = json!({ "metadata": metadata, "status": status });
        let op = Operation::Patch {
            kind: PatchKind::Merge,
            body,
            field_manager: Some("kubelet".into()),
            force: false,
        };
        ApiRequest::object(&resources::PODS, &pod.namespace, &pod.name, op).sub("status")
    }

    /// The request that takes the pod's object away for good.
    pub(super) fn delete_request(&self) -> ApiRequest {
        let pod = self.pod();
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(pod.uid.to_string()),
            ..DeleteOptions::default()
        };
        ApiRequest::object(&resources::PODS, &pod.namespace, &pod.name, Operation::Delete(options))
    }

    /// Whether all volumes are written; the error of the first that is not and never will be without a retry.
    pub(super) fn volumes_done(&self) -> Option<Result<(), String>> {
        if self.volumes.iter().any(|v| v.busy.is_some()) {
            return None;
        }
        if let Some((v, e)) = self.volumes.iter().find_map(|v| Some((v, v.error.as_ref()?))) {
            return Some(Err(format!("MountVolume.SetUp failed for volume {:?} : {e}", v.name)));
        }
        // A volume whose content is not known yet stands in no list: a token that is asked for, say.
        let written = |name: &str| self.volumes.iter().any(|v| *v.name == *name && v.hash != 0);
        self.pod().spec.volumes.iter().all(|v| written(&v.name)).then_some(Ok(()))
    }
}

/// An id for a call of the agent's own.
pub(super) const fn agent_call(n: u64) -> CallId {
    CallId(AGENT_CALL | n)
}

/// Whether a call is the agent's own.
pub(super) const fn is_agent_call(call: CallId) -> bool {
    call.0 & AGENT_CALL != 0
}

/// FNV-1a: fixed on every machine, good enough to tell one content from another.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A number that tells one content from another; never 0.
pub(super) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    hasher.finish().max(1)
}
