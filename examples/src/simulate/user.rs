//! Whoever works with the cluster: makes, scales, rolls out and deletes workloads, and looks at the answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use icp_core::api::{Object, reason, resources};
use icp_core::base::{Duration, Rng, Time};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, DeleteOptions, ListOptions, Operation, PatchKind,
    Propagation, Reply, RequestId,
};
use icp_core::sim::{HostId, Output, StreamId};
use serde_json::{Value, json};

use super::crowd::Crowd;
use super::message::{Component, Payload, Seen};
use super::mutant::Mutant;
use super::node::Neighbour;
use super::port::{Cx, Port, Streams};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What the user does.
#[derive(Clone, Copy, Debug)]
pub struct UserConfig {
    /// Between two actions, on average.
    pub every: Duration,
    /// From then on, nothing.
    pub until: Time,
    /// Most deployments at a time.
    pub deployments_max: usize,
    /// Most replicas of one.
    pub replicas_max: u64,
    /// The most that one replica asks for, in thousandths of a core.
    pub cpu_millis_max: u64,
    /// Most pods at a time that are more than the nodes can hold.
    pub crowd_max: usize,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

enum Step {
    /// Nothing follows.
    Plain,
    /// A deployment was made.
    Made(String, String),
    /// Read; then change it; then write what was read.
    ReadForStale(String, String),
    ChangeForStale(String, String, Arc<Object>),
    WriteStale,
    /// A namespace was to end: what is made in it now must be refused.
    Ended(String),
}

/// The host of the user.
pub struct UserHost {
    config: UserConfig,
    port: Port,
    streams: Streams,
    neighbour: Neighbour,
    rng: Rng,
    next: RequestId,
    act_at: Time,
    open: BTreeMap<RequestId, Step>,
    deployments: Vec<(String, String)>,
    services: Vec<(String, String)>,
    namespaces: Vec<String>,
    made: u64,
    begun: bool,
    crowd: Crowd,
    /// When the crowd acts next, or is cleared.
    crowd_at: Option<Time>,
    /// For the checkers.
    pub seen: Vec<Seen>,
}

impl UserHost {
    /// A user who begins at `now`.
    #[must_use]
    pub fn new(
        host: HostId,
        life: u32,
        masters: Vec<HostId>,
        config: UserConfig,
        now: Time,
        rng: &Rng,
    ) -> Self {
        Self {
            port: Port::new(Component::User, host, life, TIMEOUT, config.mutant, rng.child("port")),
            streams: Streams::new(host, life),
            neighbour: Neighbour::new(masters),
            rng: rng.child("user"),
            next: 0,
            act_at: now + Duration::from_secs(5),
            open: BTreeMap::new(),
            deployments: Vec::new(),
            services: Vec::new(),
            namespaces: vec!["load".into()],
            made: 0,
            begun: false,
            crowd: Crowd::new(rng.child("crowd"), config.crowd_max),
            crowd_at: Some(now + Duration::from_secs(15)),
            config,
            seen: Vec::new(),
        }
    }

    fn ask(&mut self, now: Time, request: ApiRequest, step: Step, out: &mut Vec<Output<Payload>>) {
        self.next += 1;
        self.open.insert(self.next, step);
        let effect = ClientEffect::Request { id: self.next, request };
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.port.perform(now, self.neighbour.known(), None, effect, &mut cx);
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::try_from(self.rng.below(of.len() as u64)).unwrap_or(0);
        of.get(at).cloned()
    }

    fn act(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        if !self.begun {
            self.begun = true;
            return self.ask(now, namespace("load"), Step::Plain, out);
        }
        let deployments = self.deployments.clone();
        match self.rng.below(100) {
            0..22 if deployments.len() < self.config.deployments_max => {
                let namespaces = self.namespaces.clone();
                let Some(ns) = self.pick(&namespaces) else { return };
                self.made += 1;
                let name = format!("d{}", self.made);
                let object = self.deployment(&ns, &name);
                let request = create(&resources::DEPLOYMENTS, &ns, object);
                self.ask(now, request, Step::Made(ns, name), out);
            }
            22..40 => {
                let Some((ns, name)) = self.pick(&deployments) else { return };
                let replicas = self.rng.below(self.config.replicas_max + 1);
                self.patch(now, &ns, &name, json!({ "spec": { "replicas": replicas } }), out);
            }
            40..58 => {
                let Some((ns, name)) = self.pick(&deployments) else { return };
                self.made += 1;
                let image = format!("app:v{}", self.made);
                let body = json!({ "spec": { "template": { "metadata": { "annotations": { "version": image } } } } });
                self.patch(now, &ns, &name, body, out);
            }
            58..66 => {
                let Some((ns, name)) = self.pick(&deployments) else { return };
                self.deployments.retain(|d| *d != (ns.clone(), name.clone()));
                let propagation =
                    if self.rng.below(2) == 0 { Propagation::Background } else { Propagation::Foreground };
                let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
                let request =
                    ApiRequest::object(&resources::DEPLOYMENTS, &ns, &name, Operation::Delete(options));
                self.ask(now, request, Step::Plain, out);
            }
            66..74 => {
                let Some((ns, app)) = self.pick(&deployments) else { return };
                self.made += 1;
                let name = format!("s{}", self.made);
                let object = json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": ns },
                    "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }],
                              "type": if self.rng.below(3) == 0 { "NodePort" } else { "ClusterIP" } },
                });
                self.services.push((ns.clone(), name));
                self.ask(now, create(&resources::SERVICES, &ns, object), Step::Plain, out);
            }
            74..78 if self.services.len() > 4 => {
                let (ns, name) = self.services.remove(0);
                let op = Operation::Delete(DeleteOptions::default());
                self.ask(now, ApiRequest::object(&resources::SERVICES, &ns, &name, op), Step::Plain, out);
            }
            78..86 => {
                let Some((ns, name)) = self.pick(&deployments) else { return };
                let request = ApiRequest::object(&resources::DEPLOYMENTS, &ns, &name, Operation::Get);
                self.ask(now, request, Step::ReadForStale(ns, name), out);
            }
            86..90 if self.namespaces.len() < 3 => {
                self.made += 1;
                let name = format!("ns{}", self.made);
                self.namespaces.push(name.clone());
                self.ask(now, namespace(&name), Step::Plain, out);
            }
            90..93 if self.namespaces.len() > 1 => {
                let name = self.namespaces.remove(1);
                self.deployments.retain(|d| d.0 != name);
                self.services.retain(|d| d.0 != name);
                let op = Operation::Delete(DeleteOptions::default());
                self.ask(
                    now,
                    ApiRequest::object(&resources::NAMESPACES, "", &name, op),
                    Step::Ended(name),
                    out,
                );
            }
            93..96 => {
                let Some((ns, name)) = self.pick(&deployments) else { return };
                let list = ListOptions { label_selector: format!("app={name}"), ..ListOptions::default() };
                let op = Operation::DeleteCollection(DeleteOptions::default(), list);
                self.ask(now, ApiRequest::collection(&resources::PODS, &ns, op), Step::Plain, out);
            }
            _ => {
                let op = Operation::List(ListOptions::default());
                self.ask(now, ApiRequest::collection(&resources::PODS, "", op), Step::Plain, out);
            }
        }
    }

    fn act_crowd(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        if now < self.config.until {
            let every = u64::try_from(self.config.every.as_micros()).unwrap_or(u64::MAX) / 5;
            let next =
                now + Duration::from_micros(every / 10 + self.crowd.below(every.saturating_mul(9) / 5));
            self.crowd_at = Some(next.min(self.config.until));
            for request in self.crowd.act() {
                self.ask(now, request, Step::Plain, out);
            }
        } else {
            let (request, after) = self.crowd.clear();
            self.crowd_at = after.map(|after| now + after);
            self.ask(now, request, Step::Plain, out);
        }
    }

    fn patch(&mut self, now: Time, ns: &str, name: &str, body: Value, out: &mut Vec<Output<Payload>>) {
        let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
        self.ask(now, ApiRequest::object(&resources::DEPLOYMENTS, ns, name, op), Step::Plain, out);
    }

    fn deployment(&mut self, ns: &str, name: &str) -> Value {
        let replicas = 1 + self.rng.below(self.config.replicas_max);
        let (cpu, memory) =
            (self.config.cpu_millis_max * (1 + self.rng.below(5)) / 5, 64 << self.rng.below(3));
        let away = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 15 });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": ns },
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 2,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": {
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 1 + self.rng.below(5),
                        "tolerations": [away("node.kubernetes.io/unreachable"), away("node.kubernetes.io/not-ready")],
                        "containers": [{
                            "name": "app", "image": "app:v1",
                            "ports": [{ "containerPort": 8080 }],
                            "resources": { "requests": { "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") } },
                        }],
                    },
                },
            },
        })
    }

    fn on_event(&mut self, now: Time, event: ClientEvent, out: &mut Vec<Output<Payload>>) {
        let ClientEvent::Reply { id, result } = event else { return };
        match (self.open.remove(&id), result) {
            (Some(Step::Made(ns, name)), Ok(_)) => self.deployments.push((ns, name)),
            (Some(Step::Made(ns, name)), Err(ApiError::Unreachable(_))) => self.deployments.push((ns, name)),
            (Some(Step::Ended(ns)), Ok(_)) => {
                self.made += 1;
                let object = self.deployment(&ns, &format!("late{}", self.made));
                self.ask(now, create(&resources::DEPLOYMENTS, &ns, object), Step::Plain, out);
            }
            (Some(Step::ReadForStale(ns, name)), Ok(Reply::Object(read))) => {
                let body =
                    json!({ "metadata": { "annotations": { "touched": now.as_micros().to_string() } } });
                let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
                let request = ApiRequest::object(&resources::DEPLOYMENTS, &ns, &name, op);
                self.ask(now, request, Step::ChangeForStale(ns, name, read), out);
            }
            (Some(Step::ChangeForStale(ns, name, read)), Ok(Reply::Object(changed))) => {
                if changed.metadata.resource_version == read.metadata.resource_version {
                    let what = format!(
                        "{ns}/{name} is at {} before and after a change",
                        read.metadata.resource_version
                    );
                    self.seen.push(Seen::Wrong("stale write refused", what));
                }
                let op = Operation::Update(read);
                let request = ApiRequest::object(&resources::DEPLOYMENTS, &ns, &name, op);
                self.ask(now, request, Step::WriteStale, out);
            }
            (Some(Step::WriteStale), Ok(Reply::Object(written))) => {
                let what = format!("{} was written over a newer version", written.key());
                self.seen.push(Seen::Wrong("stale write refused", what));
            }
            (Some(Step::WriteStale), Err(ApiError::Status(s))) if s.is(reason::CONFLICT) => {
                self.seen.push(Seen::Checked("stale write refused"));
            }
            _ => {}
        }
    }

    fn settle(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        loop {
            let events = self.port.take_events();
            if events.is_empty() {
                break;
            }
            for event in events {
                self.on_event(now, event, out);
            }
        }
        self.neighbour.ask(now, self.port.is_waiting(), out);
    }

    /// Takes a datagram.
    pub fn on_packet(&mut self, now: Time, payload: &Payload, out: &mut Vec<Output<Payload>>) {
        if let Payload::Frame(frame) = payload
            && let Some(to) = self.neighbour.learn(frame)
        {
            let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
            self.port.connected(now, to, &mut cx);
        }
        self.settle(now, out);
    }

    /// Takes a message of a stream.
    pub fn on_stream(
        &mut self,
        now: Time,
        stream: StreamId,
        payload: &Payload,
        end: bool,
        out: &mut Vec<Output<Payload>>,
    ) {
        if matches!(payload, Payload::Refused) {
            self.neighbour.doubt();
        }
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.port.on_stream(stream, payload, end, &mut cx);
        self.settle(now, out);
    }

    /// A stream is no more.
    pub fn on_closed(&mut self, now: Time, stream: StreamId, out: &mut Vec<Output<Payload>>) {
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        if self.port.on_closed(stream, &mut cx) {
            self.neighbour.doubt();
        }
        self.settle(now, out);
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        if self.port.wake(now, self.neighbour.known(), &mut cx) {
            self.neighbour.doubt();
        }
        if self.act_at <= now && now < self.config.until {
            let every = u64::try_from(self.config.every.as_micros()).unwrap_or(u64::MAX);
            self.act_at =
                now + Duration::from_micros(every / 10 + self.rng.below(every.saturating_mul(9) / 5));
            self.act(now, out);
        }
        if self.crowd_at.is_some_and(|at| at <= now) {
            self.act_crowd(now, out);
        }
        self.settle(now, out);
    }

    /// When [`UserHost::wake`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let act = Some(self.act_at).filter(|at| *at < self.config.until);
        [act, self.crowd_at, self.port.deadline(), self.neighbour.deadline()].into_iter().flatten().min()
    }
}

fn namespace(name: &str) -> ApiRequest {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    create(&resources::NAMESPACES, "", object)
}

/// A request that creates an object.
pub(super) fn create(gvr: &icp_core::api::Gvr, ns: &str, object: Value) -> ApiRequest {
    // What is written above is an object.
    let object: Object = serde_json::from_value(object).unwrap_or_default();
    ApiRequest::collection(gvr, ns, Operation::Create(Arc::new(object)))
}
