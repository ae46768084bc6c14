use alloc::format;

use super::*;
use crate::client::Operation;
use crate::controllers::endpointslice::plan_endpoints;

fn service(spec: Value) -> Arc<Object> {
    let mut o = Object::new("v1", "Service", "default", "web");
    o.metadata.uid = "svc".into();
    o.rest.insert("spec".into(), spec);
    Arc::new(o)
}

fn pod(i: usize, ready: bool) -> Object {
    let mut o = Object::new("v1", "Pod", "default", &format!("p{i:03}"));
    o.metadata.uid = format!("u{i:03}");
    o.metadata.labels.insert("app".into(), "web".into());
    o.rest.insert("spec".into(), json!({"nodeName": "w1", "containers": [
        {"ports": [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}));
    o.rest.insert(
        "status".into(),
        json!({"phase": "Running", "podIPs": [
        {"ip": format!("10.0.{}.{}", i / 200, i % 200)}, {"ip": format!("fd00::{i:x}")}],
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}),
    );
    o
}

fn observe(service: &Arc<Object>, pods: Vec<Object>, slices: &[Arc<Object>]) -> Observed {
    Observed {
        service: Arc::clone(service),
        pods: pods.into_iter().map(Arc::new).collect(),
        zones: BTreeMap::from([("w1".into(), "z1".into())]),
        slices: slices.to_vec(),
    }
}

/// The slices after the plan is done.
fn apply(observed: &Observed) -> Vec<Arc<Object>> {
    let mut slices: BTreeMap<String, Arc<Object>> =
        observed.slices.iter().map(|s| (s.metadata.name.clone(), Arc::clone(s))).collect();
    for action in plan(observed, &mut Rng::new(slices.len() as u64)).actions() {
        match &action.request.op {
            Operation::Create(o) | Operation::Update(o) => {
                slices.insert(o.metadata.name.clone(), Arc::clone(o));
            }
            Operation::Delete(_) => {
                slices.remove(action.request.name.as_ref().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    slices.into_values().collect()
}

fn counts(slices: &[Arc<Object>]) -> Vec<usize> {
    let mut n: Vec<usize> = slices.iter().map(|s| s.rest["endpoints"].as_array().unwrap().len()).collect();
    n.sort_unstable();
    n
}

fn selecting(mut spec: Value) -> Value {
    spec["selector"] = json!({"app": "web"});
    spec
}

#[test]
fn an_endpoint_says_everything_about_its_pod() {
    let s = service(selecting(
        json!({"clusterIP": "None", "ports": [{"name": "h", "port": 80, "targetPort": "http", "appProtocol": "http"}]}),
    ));
    let mut named = pod(1, true);
    support::set(&mut named, "spec", "hostname", json!("db-0"));
    support::set(&mut named, "spec", "subdomain", json!("web"));
    let slices = apply(&observe(&s, vec![named], &[]));
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    let want = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "p001", "uid": "u001"},
        "nodeName": "w1", "zone": "z1", "hostname": "db-0"}]);
    assert_eq!(slice.rest["endpoints"], want);
    assert_eq!(
        slice.rest["ports"],
        json!([{"name": "h", "protocol": "TCP", "port": 8080, "appProtocol": "http"}])
    );
    assert_eq!(slice.rest["addressType"], "IPv4");
    assert_eq!(slice.controller().unwrap().uid, "svc");
    let labels: Vec<_> = slice.metadata.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        labels,
        [
            "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
            "kubernetes.io/service-name=web",
            "service.kubernetes.io/headless=",
        ]
    );
}

#[test]
fn readiness_and_termination() {
    let mut going = pod(2, true);
    going.metadata.deletion_timestamp = Some(Time::ZERO);
    let mut done = pod(3, true);
    support::set(&mut done, "status", "phase", json!("Succeeded"));
    let pods = vec![pod(0, true), pod(1, false), going, done];
    let conditions = |publish: bool| {
        let s = service(selecting(json!({"ports": [{"port": 80}], "publishNotReadyAddresses": publish})));
        let slices = apply(&observe(&s, pods.clone(), &[]));
        let endpoints = slices[0].rest["endpoints"].as_array().unwrap().clone();
        endpoints
            .iter()
            .map(|e| {
                let c = |k: &str| e["conditions"][k].as_bool().unwrap();
                (c("ready"), c("serving"), c("terminating"))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(conditions(false), [(true, true, false), (false, false, false), (false, true, true)]);
    assert_eq!(conditions(true), [(true, true, false), (true, false, false), (true, true, true)]);
    // The older form leaves out what is being deleted.
    let s = service(selecting(json!({"ports": [{"port": 80}]})));
    let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
    let made = plan_endpoints(&s, &pods, None);
    let Operation::Create(endpoints) = &made.actions().next().unwrap().request.op else { panic!() };
    let subset = &endpoints.rest["subsets"][0];
    assert_eq!(subset["addresses"][0]["ip"], "10.0.0.0");
    assert_eq!(
        (
            subset["addresses"].as_array().unwrap().len(),
            subset["notReadyAddresses"].as_array().unwrap().len()
        ),
        (1, 1)
    );
    assert!(plan_endpoints(&s, &pods, Some(endpoints)).is_empty());
}

#[test]
fn slices_hold_a_hundred_and_change_little() {
    let s = service(selecting(json!({"ports": [{"port": 80}]})));
    let all = |n: usize| (0..n).map(|i| pod(i, true)).collect::<Vec<_>>();
    let slices = apply(&observe(&s, all(250), &[]));
    assert_eq!(counts(&slices), [50, 100, 100]);
    assert!(plan(&observe(&s, all(250), &slices), &mut Rng::new(0)).is_empty(), "a fixed point");
    // One pod goes: one slice is written. One comes: it fills a hole.
    let fewer: Vec<Object> = all(250).into_iter().skip(1).collect();
    let observed = observe(&s, fewer.clone(), &slices);
    assert_eq!(plan(&observed, &mut Rng::new(0)).actions().count(), 1);
    let slices = apply(&observed);
    let mut one_more = fewer;
    one_more.push(pod(300, true));
    let observed = observe(&s, one_more, &slices);
    assert_eq!(plan(&observed, &mut Rng::new(0)).actions().count(), 1);
    assert_eq!(counts(&apply(&observed)).iter().sum::<usize>(), 250);
    // Without pods an empty slice stays.
    assert_eq!(counts(&apply(&observe(&s, vec![], &slices))).iter().sum::<usize>(), 0);
    let empty = apply(&observe(&s, vec![], &[]));
    assert_eq!(counts(&empty), [0]);
    assert!(plan(&observe(&s, vec![], &empty), &mut Rng::new(0)).is_empty());
}

#[test]
fn families_and_services_without_selector() {
    let dual = service(selecting(
        json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns"}]}),
    ));
    let slices = apply(&observe(&dual, vec![pod(7, true)], &[]));
    let mut seen: Vec<String> = slices
        .iter()
        .map(|s| {
            format!(
                "{} {} {}",
                slice_text(s, "addressType"),
                s.rest["endpoints"][0]["addresses"][0],
                s.rest["ports"][0]["port"]
            )
        })
        .collect();
    seen.sort();
    assert_eq!(seen, ["IPv4 \"10.0.0.7\" 53", "IPv6 \"fd00::7\" 53"]);
    for spec in [json!({"ports": [{"port": 80}]}), selecting(json!({"type": "ExternalName"}))] {
        assert!(plan(&observe(&service(spec), vec![pod(1, true)], &[]), &mut Rng::new(0)).is_empty());
    }
}
