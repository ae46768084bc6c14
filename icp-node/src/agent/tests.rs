//! Simulated nodes against a naive API server, on a virtual clock.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::api::{Gvr, Object, Status, reason, resources};
use icp_core::base::{Duration, Machine, Time};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, Operation, Reply, RequestId, WatchEvent, WatchKind,
};
use serde_json::{Value, json};

use super::{Kubelet, KubeletConfig};
use crate::backend::memory::{MemoryEvent, MemoryRuntime, SimNode, SimRules};
use crate::runtime::PodUid;

type Key = (Gvr, String, String);

/// Objects, watches and nothing else of an API server.
#[derive(Default)]
pub(crate) struct FakeApi {
    objects: BTreeMap<Key, Arc<Object>>,
    watches: BTreeMap<RequestId, ApiRequest>,
    version: u64,
    /// Events for the node.
    mail: Vec<ClientEvent>,
    pub(crate) status_patches: usize,
    pub(crate) tokens: usize,
    /// Answers that are kept back while tokens are slow.
    slow_tokens: Option<Vec<ClientEvent>>,
}

fn matches(object: &Object, request: &ApiRequest) -> bool {
    let (Operation::List(options) | Operation::Watch(options)) = &request.op else { return false };
    if request.namespace.as_ref().is_some_and(|ns| *ns != object.metadata.namespace) {
        return false;
    }
    match options.field_selector.split_once('=') {
        None => true,
        Some(("metadata.name", name)) => object.metadata.name == name,
        Some(("spec.nodeName", name)) => object.str_at("/spec/nodeName") == name,
        Some(other) => panic!("{other:?}"),
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

impl FakeApi {
    fn notify(&mut self, gvr: &Gvr, kind: WatchKind, object: &Arc<Object>) {
        for (id, request) in &self.watches {
            if request.gvr == *gvr && matches(object, request) {
                let event = WatchEvent { kind, object: object.clone() };
                self.mail.push(ClientEvent::Watch { id: *id, event });
            }
        }
    }

    pub(crate) fn put(&mut self, gvr: &Gvr, mut object: Object) -> Arc<Object> {
        self.version += 1;
        object.metadata.resource_version = self.version.to_string();
        if object.metadata.uid.is_empty() {
            object.metadata.uid = format!("uid-{}", self.version);
        }
        let key = (gvr.clone(), object.metadata.namespace.clone(), object.metadata.name.clone());
        let object = Arc::new(object);
        let old = self.objects.insert(key, object.clone());
        self.notify(gvr, if old.is_some() { WatchKind::Modified } else { WatchKind::Added }, &object);
        object
    }

    pub(crate) fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(&(gvr.clone(), namespace.into(), name.into()))
    }

    pub(crate) fn remove(&mut self, gvr: &Gvr, namespace: &str, name: &str) {
        if let Some(object) = self.objects.remove(&(gvr.clone(), namespace.into(), name.into())) {
            self.notify(gvr, WatchKind::Deleted, &object);
        }
    }

    fn request(&mut self, request: ApiRequest) -> Result<Reply, ApiError> {
        let fail = |code, why: &str| Err(ApiError::Status(Status::failure(code, why, why)));
        let namespace = request.namespace.clone().unwrap_or_default();
        let name = request.name.clone().unwrap_or_default();
        let key = (request.gvr.clone(), namespace.clone(), name.clone());
        match &request.op {
            Operation::List(_) => Ok(Reply::List {
                items: self
                    .objects
                    .iter()
                    .filter(|((gvr, ..), o)| *gvr == request.gvr && matches(o, &request))
                    .map(|(_, o)| o.clone())
                    .collect(),
                resource_version: self.version.to_string(),
                continue_token: None,
            }),
            Operation::Create(object) if request.subresource == Some("token") => {
                self.tokens += 1;
                let mut reply = (**object).clone();
                let status = json!({ "token": format!("token-{}", self.tokens), "expirationTimestamp": "1970-01-01T01:20:00Z" });
                reply.rest.insert("status".into(), status);
                Ok(Reply::Object(Arc::new(reply)))
            }
            Operation::Create(object) => {
                let key = (request.gvr.clone(), namespace, object.metadata.name.clone());
                if self.objects.contains_key(&key) {
                    return fail(409, reason::ALREADY_EXISTS);
                }
                Ok(Reply::Object(self.put(&request.gvr, (**object).clone())))
            }
            Operation::Patch { body, .. } => {
                let Some(old) = self.objects.get(&key) else { return fail(404, reason::NOT_FOUND) };
                if let Some(uid) = body.pointer("/metadata/uid")
                    && uid != old.metadata.uid.as_str()
                {
                    return fail(409, reason::CONFLICT);
                }
                self.status_patches += usize::from(request.gvr == resources::PODS);
                let mut value = serde_json::to_value(&**old).unwrap();
                merge(&mut value, body);
                let object = serde_json::from_value(value).unwrap();
                Ok(Reply::Object(self.put(&request.gvr, object)))
            }
            Operation::Delete(options) => {
                let Some(old) = self.objects.get(&key) else { return fail(404, reason::NOT_FOUND) };
                assert_eq!(options.grace_period_seconds, Some(0));
                assert_eq!(options.uid.as_ref(), Some(&old.metadata.uid));
                self.remove(&request.gvr, &namespace, &name);
                Ok(Reply::Status(Status::default()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn perform(&mut self, effect: ClientEffect) {
        match effect {
            ClientEffect::Request { id, request } => {
                let token = request.subresource == Some("token");
                let event = ClientEvent::Reply { id, result: self.request(request) };
                match &mut self.slow_tokens {
                    Some(kept) if token => kept.push(event),
                    _ => self.mail.push(event),
                }
            }
            ClientEffect::Watch { id, request } => {
                self.watches.insert(id, request);
            }
            ClientEffect::CloseWatch { id } => {
                self.watches.remove(&id);
            }
            _ => {}
        }
    }
}

pub(crate) struct Lab {
    pub(crate) now: Time,
    pub(crate) api: FakeApi,
    pub(crate) node: SimNode,
    out: Vec<ClientEffect>,
}

impl Lab {
    fn new() -> Self {
        Self::with(KubeletConfig::new("n1", [192, 168, 0, 1].into()), SimRules::default())
    }

    fn with(config: KubeletConfig, rules: SimRules) -> Self {
        let runtime = MemoryRuntime::new(rules, "10.1.0.0/24".parse().unwrap());
        let mut lab = Self {
            now: Time::from_secs(1000),
            api: FakeApi::default(),
            node: SimNode::new(Kubelet::new(config), runtime),
            out: Vec::new(),
        };
        lab.run(1);
        lab
    }

    fn pump(&mut self) {
        loop {
            for effect in core::mem::take(&mut self.out) {
                self.api.perform(effect);
            }
            if self.api.mail.is_empty() {
                return;
            }
            for event in core::mem::take(&mut self.api.mail) {
                self.node.on(self.now, event, &mut self.out);
            }
        }
    }

    fn run(&mut self, secs: u64) {
        let until = self.now + Duration::from_secs(secs);
        self.pump();
        for _ in 0..10_000 {
            match self.node.deadline() {
                Some(due) if due <= until => {
                    self.now = self.now.max(due);
                    self.node.wake(self.now, &mut self.out);
                    self.pump();
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it spins");
    }

    fn apply(&mut self, name: &str, spec: Value) {
        let mut object = Object::new("v1", "Pod", "default", name);
        let mut spec = spec;
        spec["nodeName"] = "n1".into();
        object.rest.insert("spec".into(), spec);
        self.api.put(&resources::PODS, object);
    }

    fn delete(&mut self, name: &str, grace: i64) {
        let mut object = (**self.api.get(&resources::PODS, "default", name).unwrap()).clone();
        object.metadata.deletion_timestamp = Some(self.now + Duration::from_secs(grace as u64));
        object.metadata.deletion_grace_period_seconds = Some(grace);
        self.api.put(&resources::PODS, object);
    }

    fn status(&self, name: &str) -> Value {
        self.api.get(&resources::PODS, "default", name).unwrap().at("/status").cloned().unwrap_or_default()
    }

    fn reasons(&self) -> Vec<String> {
        let events = self.api.objects.iter().filter(|((gvr, ..), _)| *gvr == resources::EVENTS);
        events.map(|(_, o)| o.str_at("/reason").to_string()).collect()
    }
}

fn web() -> Value {
    json!({ "containers": [{ "name": "c", "image": "nginx:1", "resources": { "requests": { "cpu": "1" } } }] })
}

#[test]
fn registers_renews_and_reports() {
    let mut lab = Lab::new();
    let node = lab.api.get(&resources::NODES, "", "n1").unwrap().clone();
    assert_eq!(node.metadata.labels["kubernetes.io/hostname"], "n1");
    assert_eq!(node.str_at("/status/capacity/cpu"), "4");
    let ready =
        node.at("/status/conditions").unwrap().as_array().unwrap().iter().find(|c| c["type"] == "Ready");
    assert_eq!(ready.unwrap()["status"], "True");
    let renewed = |lab: &Lab| {
        let lease = lab.api.get(&resources::LEASES, "kube-node-lease", "n1").unwrap();
        lease.str_at("/spec/renewTime").to_string()
    };
    lab.run(12);
    let first = renewed(&lab);
    lab.run(10);
    assert!(renewed(&lab) > first);
    // A node that exists is taken over.
    lab.node.restart_agent();
    lab.run(2);
    assert!(lab.node.kubelet().is_registered());
}

#[test]
fn a_node_that_was_given_up_or_deleted_speaks_up() {
    let mut lab = Lab::new();
    lab.run(12);
    let ready = |lab: &Lab| {
        let node = lab.api.get(&resources::NODES, "", "n1")?;
        let conditions = node.at("/status/conditions")?.as_array()?.clone();
        Some(conditions.iter().find(|c| c["type"] == "Ready")?["status"].as_str()?.to_string())
    };
    let mut lost = Object::clone(lab.api.get(&resources::NODES, "", "n1").unwrap());
    lost.rest["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }]);
    lab.api.put(&resources::NODES, lost);
    assert_eq!(ready(&lab).unwrap(), "Unknown");
    lab.run(3);
    assert_eq!(ready(&lab).unwrap(), "True");
    lab.api.remove(&resources::NODES, "", "n1");
    lab.run(3);
    assert_eq!(ready(&lab).unwrap(), "True");
}

#[test]
fn a_pod_that_was_called_not_ready_is_called_ready_again() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.run(5);
    let ready = |lab: &Lab| {
        let conditions = lab.status("web")["conditions"].as_array().unwrap().clone();
        conditions.iter().find(|c| c["type"] == "Ready").unwrap()["status"].as_str().unwrap().to_string()
    };
    assert_eq!(ready(&lab), "True");
    let mut pod = Object::clone(lab.api.get(&resources::PODS, "default", "web").unwrap());
    for c in pod.rest["status"]["conditions"].as_array_mut().unwrap() {
        if c["type"] == "Ready" {
            c["status"] = json!("False");
        }
    }
    lab.api.put(&resources::PODS, pod);
    assert_eq!(ready(&lab), "False");
    lab.run(3);
    assert_eq!(ready(&lab), "True");
}

#[test]
fn a_pod_lives_and_dies() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.run(2);
    let status = lab.status("web");
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.1.0.2");
    assert_eq!(status["hostIP"], "192.168.0.1");
    assert_eq!(status["qosClass"], "Burstable");
    assert!(lab.reasons().contains(&"Started".into()), "{:?}", lab.reasons());
    let patches = lab.api.status_patches;
    lab.run(100);
    assert_eq!(lab.api.status_patches, patches, "a status that does not change is not written");
    lab.delete("web", 30);
    lab.run(2);
    assert!(lab.api.get(&resources::PODS, "default", "web").is_none());
    assert_eq!(lab.node.runtime().running(), 0);
    assert_eq!(lab.node.kubelet().pods().count(), 0);
}

#[test]
fn a_pod_that_was_removed_by_force_is_cleaned_up() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.run(2);
    lab.api.remove(&resources::PODS, "default", "web");
    lab.run(60);
    assert_eq!(lab.node.runtime().running(), 0);
    assert_eq!(lab.node.kubelet().pods().count(), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut lab = Lab::new();
    for i in 0..5 {
        lab.apply(&format!("web{i}"), web());
    }
    lab.run(2);
    let status = lab.status("web4");
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("OutOfcpu")));
    assert!(status["message"].as_str().unwrap().contains("requested: 1000, used: 4000, capacity: 4000"));
    assert_eq!(lab.status("web3")["phase"], "Running");
}

#[test]
fn missing_config_maps_hold_a_container_until_they_come() {
    let mut lab = Lab::new();
    lab.apply(
        "web",
        json!({ "containers": [{ "name": "c", "image": "x:1",
        "envFrom": [{ "configMapRef": { "name": "cm" } }] }] }),
    );
    lab.run(2);
    let waiting = lab.status("web")["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting["reason"], "CreateContainerConfigError");
    assert_eq!(waiting["message"], "configmap \"cm\" not found");
    let mut object = Object::new("v1", "ConfigMap", "default", "cm");
    object.rest.insert("data".into(), json!({ "A": "1" }));
    lab.api.put(&resources::CONFIG_MAPS, object);
    lab.run(1);
    assert_eq!(lab.status("web")["phase"], "Running");
}

#[test]
fn volumes_wait_for_their_objects_and_tokens_are_renewed() {
    let mut lab = Lab::new();
    lab.apply("web", json!({
        "containers": [{ "name": "c", "image": "x:1", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
        "volumes": [{ "name": "v", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
            { "configMap": { "name": "kube-root-ca.crt" } },
        ] } }],
    }));
    lab.run(5);
    assert_eq!(lab.status("web")["phase"], "Pending");
    assert!(lab.reasons().contains(&"FailedMount".into()));
    let object = Object::new("v1", "ConfigMap", "default", "kube-root-ca.crt");
    lab.api.put(&resources::CONFIG_MAPS, object);
    lab.run(5);
    assert_eq!(lab.status("web")["phase"], "Running");
    assert_eq!(lab.api.tokens, 1);
    lab.run(3600);
    assert!(lab.api.tokens > 1, "renewed before it expires at 4800 s");
}

#[test]
fn a_volume_that_is_written_does_not_hide_one_that_waits() {
    let mut lab = Lab::new();
    lab.api.slow_tokens = Some(Vec::new());
    lab.apply(
        "web",
        json!({
            "containers": [{ "name": "c", "image": "x:1", "volumeMounts": [{ "name": "t", "mountPath": "/t" }] }],
            "volumes": [
                { "name": "e", "emptyDir": {} },
                { "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
            ],
        }),
    );
    lab.run(3);
    assert_eq!((lab.api.tokens, lab.node.runtime().running()), (1, 0), "nothing starts without its token");
    let kept = lab.api.slow_tokens.take().unwrap();
    lab.api.mail.extend(kept);
    lab.run(1);
    assert_eq!(lab.status("web")["phase"], "Running");
}

#[test]
fn an_agent_that_restarts_takes_over_what_runs() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.apply("gone", web());
    lab.run(2);
    let before = lab.status("web");
    lab.node.restart_agent();
    lab.api.remove(&resources::PODS, "default", "gone");
    lab.api.watches.clear();
    lab.api.mail.clear();
    lab.run(5);
    assert_eq!(lab.status("web")["containerStatuses"], before["containerStatuses"], "it was not restarted");
    assert_eq!(lab.node.runtime().running(), 1, "what has no pod any more is removed");
}

#[test]
fn containers_lost_by_a_reboot_are_restarted() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.run(2);
    lab.node.disturb(lab.now, MemoryEvent::Reboot, &mut vec![]);
    lab.node.restart_agent();
    lab.api.watches.clear();
    lab.run(5);
    let status = lab.status("web");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(status["phase"], "Running");
}

#[test]
fn a_job_ends_and_a_crash_backs_off() {
    let mut lab = Lab::new();
    lab.apply(
        "job",
        json!({ "restartPolicy": "Never",
        "containers": [{ "name": "c", "image": "x:1", "command": ["sleep", "3"] }] }),
    );
    lab.apply("crash", json!({ "containers": [{ "name": "c", "image": "x:1", "command": ["false"] }] }));
    lab.run(5);
    assert_eq!(lab.status("job")["phase"], "Succeeded");
    let state = &lab.status("crash")["containerStatuses"][0]["state"];
    assert_eq!(state["waiting"]["reason"], "CrashLoopBackOff");
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let mut lab = Lab::new();
    lab.apply("web", web());
    lab.run(2);
    let uid = lab.api.get(&resources::PODS, "default", "web").unwrap().metadata.uid.clone();
    let pod = PodUid::from(uid.as_str());
    let mut out = vec![];
    lab.node.disturb(lab.now, MemoryEvent::LoseSandbox { pod }, &mut out);
    lab.out.extend(out);
    lab.run(2);
    let status = lab.status("web");
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["podIP"], "10.1.0.3");
}
