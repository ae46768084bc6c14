//! A client in the same process is told the same as one that sends HTTP messages: replies, errors and watches.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code outside of a test function")]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use icp_core::api::{Gvr, Object, resources};
use icp_core::base::{Rng, Time};
use icp_core::client::{
    ApiError, ApiRequest, Client, DeleteOptions, EventStream, ListOptions, Operation, PatchKind, Propagation,
    Reply,
};
use icp_core::server::client::{InProcessClient, wire};
use icp_core::server::{ApiServer, Clock, Options, UserInfo};
use icp_core::storage::{KeyRange, RangeRequest, Storage as _};
use icp_store::Memory;
use proptest::prelude::*;
use serde_json::{Value, json};
use server::now;

/// A clock that the test moves.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> Time {
        Time::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, due: Time) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(
            move |_| {
                if clock.now() >= due { Poll::Ready(()) } else { Poll::Pending }
            },
        ))
    }
}

/// A client that writes every request as an HTTP message and reads the answer's bytes.
struct ByMessage {
    api: ApiServer,
    user: Option<UserInfo>,
}

impl ByMessage {
    fn call(&self, request: &ApiRequest) -> Result<http::Response<icp_core::server::Body>, ApiError> {
        let mut http = wire::encode(request)?.map(Full::<Bytes>::new);
        if let Some(user) = &self.user {
            http.extensions_mut().insert(user.clone());
        }
        Ok(now(self.api.handle(http)))
    }

    fn request(&self, request: &ApiRequest) -> Result<Reply, ApiError> {
        let (parts, body) = self.call(request)?.into_parts();
        wire::decode(request, parts.status.as_u16(), &now(body.collect()).unwrap().to_bytes())
    }

    fn watch(&self, request: &ApiRequest) -> Result<EventStream, ApiError> {
        let (parts, body) = self.call(request)?.into_parts();
        if parts.status != http::StatusCode::OK {
            return Err(wire::decode_failure(parts.status.as_u16(), &body.into_bytes().unwrap_or_default()));
        }
        Ok(wire::events(body.into_stream().unwrap().map(|chunk| Ok(Vec::from(chunk)))))
    }
}

/// Two servers with the same seed: one is asked directly, one by messages.
struct Pair {
    clock: Hand,
    stores: [Memory; 2],
    direct: InProcessClient,
    message: ByMessage,
    watches: Vec<[EventStream; 2]>,
}

impl Pair {
    fn new(user: Option<&UserInfo>) -> Self {
        let clock = Hand::default();
        clock.0.store(1_795_000_000, Ordering::Relaxed);
        let stores = [Memory::new(), Memory::new()];
        let options = Options { rbac: true, ..Options::default() };
        let [a, b] = stores.clone().map(|store| {
            let api = ApiServer::builder(Arc::new(store)).clock(clock.clone()).rng(Rng::new(7));
            api.options(options.clone()).build()
        });
        let direct = InProcessClient::new(a);
        let direct = match user {
            Some(user) => direct.as_user(user.clone()),
            None => direct,
        };
        Self {
            clock,
            stores,
            direct,
            message: ByMessage { api: b, user: user.cloned() },
            watches: Vec::new(),
        }
    }

    fn ask(&self, request: &ApiRequest) -> Result<Reply, ApiError> {
        let direct = now(self.direct.request(request.clone()));
        assert_eq!(direct, self.message.request(request), "{request:?}");
        direct
    }

    fn watch(&mut self, request: &ApiRequest) -> Option<ApiError> {
        match (now(self.direct.watch(request.clone())), self.message.watch(request)) {
            (Ok(a), Ok(b)) => {
                self.watches.push([a, b].map(|stream| Box::pin(stream.fuse()) as EventStream));
                None
            }
            (Err(a), Err(b)) => {
                assert_eq!(a, b, "{request:?}");
                Some(a)
            }
            (a, b) => panic!("{request:?}: {:?} {:?}", a.err(), b.err()),
        }
    }

    /// Everything that the watches have to say now, which both say.
    fn events(&mut self) -> Vec<Result<icp_core::client::WatchEvent, ApiError>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        for pair in &mut self.watches {
            let [a, b] = pair.each_mut().map(|stream| {
                let mut told = Vec::new();
                let mut ended = false;
                while let Poll::Ready(next) = stream.as_mut().poll_next(&mut cx) {
                    let Some(event) = next else {
                        ended = true;
                        break;
                    };
                    told.push(event);
                }
                (told, ended)
            });
            assert_eq!(a, b);
            all.extend(a.0);
        }
        all
    }

    /// What both stores hold.
    fn settle(&mut self) {
        self.events();
        let [a, b] = self
            .stores
            .each_ref()
            .map(|store| now(store.range(RangeRequest::new(KeyRange::prefix("/registry/")))).unwrap().kvs);
        assert_eq!(a, b);
    }
}

const MAPS: Gvr = resources::CONFIG_MAPS;
const UNKNOWN: Gvr = Gvr::new("nobody.example", "v1", "things");
const OLD_EVENTS: Gvr = Gvr::new("", "v1", "events");

fn object(gvr: &Gvr, name: &str, seed: u8) -> Object {
    let kind = match gvr.resource.as_ref() {
        "pods" => "Pod",
        "configmaps" => "ConfigMap",
        "nodes" => "Node",
        "namespaces" => "Namespace",
        "events" => "Event",
        "deployments" => "Deployment",
        _ => "Thing",
    };
    let rest = match (gvr.resource.as_ref(), seed % 4) {
        ("pods", 0) => json!({ "spec": { "containers": "none" } }),
        ("pods", 1) => {
            json!({ "spec": { "containers": [{ "name": "c", "image": "i", "odd": 1 }], "priority": null } })
        }
        ("pods", _) => json!({ "spec": { "containers": [{ "name": "c", "image": "i",
            "resources": { "requests": { "cpu": 0.5, "memory": "1024Mi" } } }], "nodeSelector": {} } }),
        ("configmaps", 0) => json!({ "data": { "k": 1 } }),
        ("configmaps", _) => {
            json!({ "data": { "k": format!("{seed}"), "null": null }, "future": { "a": [] } })
        }
        ("events", n) if !gvr.group.is_empty() => json!({
            "eventTime": "2026-11-18T11:06:40.123456Z", "reportingController": "c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": if n == 0 { "Odd" } else { "Normal" },
            "regarding": { "kind": "Pod", "namespace": "default", "name": "p" }, "note": "n\u{1}\"",
        }),
        ("events", _) => json!({ "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" },
            "reason": "r", "message": "m", "type": "Normal", "source": { "component": "c" } }),
        ("deployments", _) => json!({ "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } }),
        _ => json!({ "spec": {} }),
    };
    let mut object = Object::new(&gvr.api_version(), kind, "", name);
    object.rest = rest.as_object().unwrap().clone().into();
    if seed.is_multiple_of(3) {
        object.metadata.labels.insert("l".into(), format!("{}", seed % 2));
    }
    if seed == 7 {
        object.kind = "Wrong".into();
    }
    if seed == 8 {
        object.metadata.resource_version = "3".into();
    }
    if seed == 9 {
        object.metadata.name.clear();
        object.metadata.generate_name = "made-".into();
    }
    if seed == 10 {
        object.rest.insert("kind".into(), json!("Twice"));
    }
    if seed == 11 {
        object.metadata.rest.insert("managedFields".into(), json!([{}]));
    }
    object
}

fn gvr() -> impl Strategy<Value = Gvr> {
    let all = vec![
        resources::PODS,
        MAPS,
        resources::NODES,
        resources::NAMESPACES,
        resources::EVENTS,
        OLD_EVENTS,
        resources::DEPLOYMENTS,
        UNKNOWN,
    ];
    prop::sample::select(all)
}

fn list_options() -> impl Strategy<Value = ListOptions> {
    let texts = |list: &'static [&'static str]| prop::sample::select(list).prop_map(String::from);
    (
        texts(&["", "", "l=1", "l in (0,1),!x", "(("]),
        texts(&["", "", "metadata.name=a", "spec.nodeName=n1", "spec.nodeName!=n1", "odd=1"]),
        prop::option::of(texts(&["", "0", "1", "2", "30", "99999", "x"])),
        prop::sample::select(vec![0_u32, 0, 1, 2]),
        prop::option::weighted(0.1, texts(&["", "x", "bm8"])),
        any::<bool>(),
        prop::sample::select(vec![0_u32, 30, 600]),
    )
        .prop_map(|(labels, fields, version, limit, token, bookmarks, timeout)| ListOptions {
            label_selector: labels,
            field_selector: fields,
            resource_version: version,
            limit,
            continue_token: token,
            allow_bookmarks: bookmarks,
            timeout_seconds: timeout,
        })
}

fn binding(seed: u8) -> Object {
    let mut binding = Object::new("v1", "Binding", "default", "a");
    let target = match seed % 5 {
        0 => json!({ "kind": "Node" }),
        1 => json!({ "kind": "Pod", "name": "n1" }),
        2 => json!(7),
        _ => json!({ "apiVersion": "v1", "kind": "Node", "name": "n1" }),
    };
    binding.rest.insert("target".into(), target);
    if seed == 9 {
        binding.metadata.uid = "another".into();
    }
    if seed == 13 {
        binding.metadata.annotations.insert("note".into(), "x".into());
    }
    binding
}

fn operation() -> impl Strategy<Value = (Option<&'static str>, u8, u8)> {
    let subs = vec![
        None,
        None,
        None,
        None,
        Some("status"),
        Some("binding"),
        Some("scale"),
        Some("eviction"),
        Some("odd"),
    ];
    (prop::sample::select(subs), 0..9_u8, 0..16_u8)
}

fn request() -> impl Strategy<Value = ApiRequest> {
    let names = prop::sample::select(vec!["a", "a", "b", "bad name/%", ".", ""]);
    let spaces = prop::sample::select(vec![
        Some("default"),
        Some("default"),
        None,
        Some("missing"),
        Some(""),
        Some("a b"),
    ]);
    (gvr(), names, spaces, any::<prop::sample::Index>(), operation(), list_options()).prop_map(
        |(gvr, name, namespace, index, (subresource, op, seed), options)| {
            let collection = matches!(op, 1 | 2 | 8) || (matches!(op, 3 | 4) && subresource.is_none());
            let object = match subresource {
                Some("binding") => Arc::new(binding(seed)),
                _ => Arc::new(object(&gvr, name, seed)),
            };
            let deletion = DeleteOptions {
                grace_period_seconds: [None, Some(0), Some(5)][index.index(3)],
                uid: (seed == 1).then(|| "another".into()),
                resource_version: (seed == 2).then(|| "1".into()),
                propagation: [None, Some(Propagation::Foreground), Some(Propagation::Orphan)][usize::from(seed % 3)],
            };
            let op = match op {
                0 => Operation::Get,
                1 => Operation::List(options),
                2 => Operation::Watch(options),
                3 | 4 => Operation::Create(object),
                5 => Operation::Update(object),
                6 => Operation::Patch {
                    kind: [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply][index.index(4)],
                    body: match seed % 4 {
                        0 => json!([{ "op": "add", "path": "/metadata/labels", "value": { "l": "1" } }]),
                        1 => json!({ "metadata": { "labels": { "l": "0" } }, "spec": { "nodeName": "n1" } }),
                        2 => json!({ "apiVersion": gvr.api_version(), "kind": "ConfigMap",
                            "metadata": { "name": name }, "data": { "k": "v" } }),
                        _ => json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } }),
                    },
                    field_manager: (seed > 3).then(|| "me & you".into()),
                    force: seed == 15,
                },
                7 => Operation::Delete(deletion),
                _ => Operation::DeleteCollection(deletion, options),
            };
            ApiRequest {
                gvr,
                namespace: namespace.map(String::from),
                name: (!collection).then(|| name.into()),
                subresource: subresource.filter(|_| !collection),
                op,
            }
        },
    )
}

fn run(user: Option<&UserInfo>, requests: &[ApiRequest]) {
    let mut pair = Pair::new(user);
    for name in ["a", "b"] {
        let pod = Arc::new(object(&resources::PODS, name, 3));
        let create = ApiRequest::collection(&resources::PODS, "default", Operation::Create(pod));
        let made = pair.ask(&create);
        assert!(user.is_some() || made.is_ok(), "{made:?}");
    }
    for (n, request) in requests.iter().enumerate() {
        if matches!(request.op, Operation::Watch(_)) {
            pair.watch(request);
        } else {
            let _ = pair.ask(request);
        }
        // Bookmarks become due, and at last the watches end.
        pair.clock.0.fetch_add(if n % 5 == 4 { 61 } else { 1 }, Ordering::Relaxed);
        pair.events();
    }
    pair.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn both_ways_say_the_same(requests in prop::collection::vec(request(), 1..25)) {
        run(None, &requests);
    }

    #[test]
    fn whoever_asks(requests in prop::collection::vec(request(), 1..8)) {
        run(Some(&UserInfo::new("eve", &["some"])), &requests);
        run(Some(&UserInfo::anonymous()), &requests);
    }
}

/// The random requests reach what they are about: a sample that must happen.
#[test]
fn a_life_of_a_pod_is_the_same_both_ways() {
    let mut pair = Pair::new(None);
    let watch = |version: &str, fields: &str| {
        let options = ListOptions {
            field_selector: fields.into(),
            resource_version: Some(version.into()),
            allow_bookmarks: true,
            timeout_seconds: 200,
            ..ListOptions::default()
        };
        ApiRequest::collection(&resources::PODS, "", Operation::Watch(options))
    };
    assert!(pair.watch(&watch("0", "")).is_none());
    assert!(pair.watch(&watch("0", "spec.nodeName=n1")).is_none());
    let pod = Arc::new(object(&resources::PODS, "a", 3));
    let created = pair.ask(&ApiRequest::collection(&resources::PODS, "default", Operation::Create(pod)));
    let Ok(Reply::Object(created)) = created else { panic!("{created:?}") };
    assert!(created.metadata.rest.contains_key("managedFields"));
    let mut bind = binding(4);
    bind.metadata.uid.clone_from(&created.metadata.uid);
    let bind = Operation::Create(Arc::new(bind));
    let bind = ApiRequest::object(&resources::PODS, "default", "a", bind).sub("binding");
    assert!(matches!(pair.ask(&bind), Ok(Reply::Status(s)) if s.code == 201));
    assert!(matches!(pair.ask(&bind), Err(ApiError::Status(s)) if s.code == 409));
    let kinds = |pair: &mut Pair| -> Vec<String> {
        pair.events().into_iter().map(|e| e.map_or("lost".into(), |e| format!("{:?}", e.kind))).collect()
    };
    assert_eq!(kinds(&mut pair), ["Added", "Modified", "Added"]);
    pair.clock.0.fetch_add(100, Ordering::Relaxed);
    assert_eq!(kinds(&mut pair), ["Bookmark", "Bookmark"]);
    let list = ApiRequest::collection(&resources::PODS, "", Operation::List(ListOptions::default()));
    let Ok(Reply::List { items, .. }) = pair.ask(&list) else { panic!("no list") };
    assert!(!items[0].metadata.rest.contains_key("managedFields"));
    assert_eq!(items[0].str_at("/spec/nodeName"), "n1");
    pair.watches.clear();
    for store in pair.stores.clone() {
        now(store.compact(store.revision())).unwrap();
    }
    assert!(pair.watch(&watch("1", "")).is_none());
    let lost = pair.events().pop().unwrap().unwrap_err();
    assert!(matches!(&lost, ApiError::Status(s) if s.code == 410), "{lost:?}");
    let eve = Pair::new(Some(&UserInfo::new("eve", &[])));
    assert!(matches!(eve.ask(&list), Err(ApiError::Status(s)) if s.code == 403));
    let big = json!({ "k": "x".repeat(4 << 20) });
    let mut map = object(&MAPS, "big", 1);
    map.rest.insert("data".into(), big);
    let create = ApiRequest::collection(&MAPS, "default", Operation::Create(Arc::new(map)));
    assert!(matches!(pair.ask(&create), Err(ApiError::Status(s)) if s.code == 413));
    let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
    let mut map = object(&MAPS, "deep", 1);
    map.rest.insert("future".into(), deep);
    let create = ApiRequest::collection(&MAPS, "default", Operation::Create(Arc::new(map)));
    let _ = pair.ask(&create);
    pair.settle();
}
