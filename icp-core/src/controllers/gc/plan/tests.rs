use alloc::vec;

use super::*;
use crate::api::Status;
use crate::controllers::ManagerConfig;

fn object(kind: &str, name: &str, owners: &[(&str, &str, bool)]) -> Object {
    let api = if kind == "ConfigMap" || kind == "Pod" { "v1" } else { "apps/v1" };
    let mut o = Object::new(api, kind, "default", name);
    o.metadata.uid = name.into();
    o.metadata.resource_version = "1".into();
    o.metadata.owner_references = owners
        .iter()
        .map(|(kind, uid, block)| OwnerReference {
            api_version: "apps/v1".into(),
            kind: (*kind).into(),
            name: (*uid).into(),
            uid: (*uid).into(),
            controller: None,
            block_owner_deletion: Some(*block),
        })
        .collect();
    o
}

struct Gc(GarbageCollector, Cache);

impl Gc {
    fn new(objects: Vec<(Gvr, Object)>) -> Self {
        let mut gc = Self(GarbageCollector::new(ManagerConfig::builtin_resources()), Cache::default());
        for (gvr, object) in objects {
            gc.see(&gvr, Delta::Added(Arc::new(object)));
        }
        gc
    }

    fn see(&mut self, gvr: &Gvr, delta: Delta) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        self.0.concerns(Time::ZERO, &self.1, gvr, &delta, &mut keys);
        keys
    }

    fn plan(&mut self, uid: &str) -> Plan {
        self.0.plan(Time::ZERO, &self.1, &ObjectKey::new("", uid), &mut Rng::new(0))
    }

    fn answer(&mut self, uid: &str, answer: &Result<Reply, ApiError>) {
        let action = self.plan(uid).steps.remove(0).remove(0);
        assert_eq!(action.request.op, Operation::Get);
        self.0.answered(Time::ZERO, &ObjectKey::new("", uid), &action.request, answer);
    }
}

fn ops(plan: &Plan) -> Vec<&Operation> {
    plan.actions().map(|a| &a.request.op).collect()
}

fn not_found() -> Result<Reply, ApiError> {
    Err(ApiError::Status(Status::failure(404, reason::NOT_FOUND, "not found")))
}

#[test]
fn an_owner_that_no_watch_shows_is_asked_for() {
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)]))]);
    gc.answer("p", &not_found());
    let plan = gc.plan("p");
    let [Operation::Delete(options)] = ops(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(options.propagation, Some(Propagation::Background));
    assert_eq!((options.uid.as_deref(), options.resource_version.as_deref()), (Some("p"), Some("1")));
}

#[test]
fn an_owner_that_the_server_knows_saves_its_dependents() {
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)]))]);
    gc.answer("p", &Ok(Reply::Object(Arc::new(object("ReplicaSet", "rs", &[])))));
    assert!(gc.plan("p").is_empty());
    // Another object of that name does not.
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)]))]);
    let mut other = object("ReplicaSet", "rs", &[]);
    other.metadata.uid = "other".into();
    gc.answer("p", &Ok(Reply::Object(Arc::new(other))));
    assert!(matches!(ops(&gc.plan("p"))[..], [Operation::Delete(_)]));
}

#[test]
fn an_owner_that_was_asked_for_and_then_seen_is_not_asked_for_again() {
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)]))]);
    gc.answer("p", &Ok(Reply::Object(Arc::new(object("ReplicaSet", "rs", &[])))));
    gc.see(&resources::REPLICA_SETS, Delta::Added(Arc::new(object("ReplicaSet", "rs", &[]))));
    let later = Time::ZERO + PRESENT_FOR + Duration::from_secs(1);
    let plan = gc.0.plan(later, &gc.1, &ObjectKey::new("", "p"), &mut Rng::new(0));
    assert!(plan.is_empty() && plan.again_at.is_none(), "{plan:?}");
}

#[test]
fn an_error_proves_nothing_and_an_unknown_kind_neither() {
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)]))]);
    gc.answer("p", &Err(ApiError::Unreachable("lost".into())));
    assert_eq!(ops(&gc.plan("p")), [&Operation::Get]);
    let mut gc = Gc::new(vec![(resources::PODS, object("Pod", "p", &[("Mystery", "m", true)]))]);
    assert!(gc.plan("p").is_empty());
}

#[test]
fn one_owner_of_two_is_enough() {
    let mut gc = Gc::new(vec![
        (resources::REPLICA_SETS, object("ReplicaSet", "a", &[])),
        (resources::PODS, object("Pod", "p", &[("ReplicaSet", "a", true), ("ReplicaSet", "b", true)])),
    ]);
    gc.answer("p", &not_found());
    let plan = gc.plan("p");
    let [Operation::Patch { body, .. }] = ops(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(body["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "a");
}

#[test]
fn foreground_waits_for_those_that_block() {
    let mut owner = object("ReplicaSet", "rs", &[]);
    owner.metadata.deletion_timestamp = Some(Time::ZERO);
    owner.metadata.finalizers = vec![FOREGROUND.into()];
    let mut gc = Gc::new(vec![
        (resources::REPLICA_SETS, owner),
        (resources::PODS, object("Pod", "blocks", &[("ReplicaSet", "rs", true)])),
        (resources::PODS, object("Pod", "free", &[("ReplicaSet", "rs", false)])),
    ]);
    assert!(gc.plan("rs").is_empty());
    assert!(matches!(ops(&gc.plan("blocks"))[..], [Operation::Delete(_)]));
    let gone = Arc::new(object("Pod", "blocks", &[("ReplicaSet", "rs", true)]));
    assert_eq!(gc.see(&resources::PODS, Delta::Deleted(gone)), [ObjectKey::new("", "rs")]);
    let plan = gc.plan("rs");
    let [Operation::Patch { body, .. }] = ops(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(body["metadata"]["finalizers"], json!([]));
}

#[test]
fn orphans_forget_their_owner_before_it_goes() {
    let mut owner = object("ReplicaSet", "rs", &[]);
    owner.metadata.deletion_timestamp = Some(Time::ZERO);
    owner.metadata.finalizers = vec![ORPHAN.into(), "mine".into()];
    let mut gc = Gc::new(vec![
        (resources::REPLICA_SETS, owner),
        (resources::PODS, object("Pod", "p", &[("ReplicaSet", "rs", true)])),
    ]);
    let plan = gc.plan("rs");
    assert_eq!(plan.steps.len(), 2, "in this order");
    let [Operation::Patch { body: forget, .. }, Operation::Patch { body: last, .. }] = ops(&plan)[..] else {
        panic!()
    };
    assert_eq!(forget["metadata"]["ownerReferences"], json!([]));
    assert_eq!(last["metadata"]["finalizers"], json!(["mine"]));
}
