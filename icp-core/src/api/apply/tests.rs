use super::*;
use crate::api::table;
use proptest::prelude::*;
use serde_json::json;

fn by(name: &str) -> Manager<'_> {
    Manager { name, subresource: "", now: Time::from_secs(1_795_000_000) }
}

fn later(name: &str) -> Manager<'_> {
    Manager { now: Time::from_secs(1_795_000_060), ..by(name) }
}

fn deployments() -> &'static ResourceInfo {
    table::find("apps", "v1", "deployments").unwrap()
}

fn maps() -> &'static ResourceInfo {
    table::find("", "v1", "configmaps").unwrap()
}

/// The fields of a manager.
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut of = entries.into_iter().filter(|e| e["manager"] == manager);
    let fields = of.next().map_or(Value::Null, |e| e["fieldsV1"].clone());
    assert!(of.next().is_none(), "one entry a manager");
    fields
}

fn deployment(containers: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": containers } },
        },
    })
}

#[test]
fn an_apply_owns_what_it_says() {
    let config = deployment(json!([{
        "name": "c", "image": "web:1",
        "ports": [{ "containerPort": 80 }], "resources": { "limits": { "cpu": "1" } }, "args": ["-v"],
    }]));
    let made = apply(deployments(), None, &config, by("kubectl"), false).unwrap();
    assert_eq!(bare(&made), config);
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-11-18T11:06:40Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": { "f:labels": { "f:app": {} } },
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": { "f:labels": { "f:app": {} } },
                        "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": {
                            ".": {},
                            "f:args": {},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {
                                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} },
                            },
                            "f:resources": { "f:limits": { "f:cpu": {} } },
                        } } },
                    },
                },
            },
        }])
    );
    // Said again, nothing changes, not even the time.
    assert_eq!(apply(deployments(), Some(&made), &config, later("kubectl"), false).unwrap(), made);
}

/// What kube-apiserver writes for `kubectl create deployment`.
#[test]
fn a_create_owns_what_is_there_and_not_the_frame_around_it() {
    let mut object = deployment(json!([{ "name": "c", "image": "web:1", "resources": {} }]));
    object["spec"]["strategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } });
    object["spec"]["template"]["spec"]["securityContext"] = json!({});
    object["status"] = json!({ "replicas": 1 });
    track_update(deployments(), None, &mut object, by("kubectl-create"));
    assert_eq!(
        owned(&object, "kubectl-create"),
        json!({
            "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {
                    "f:rollingUpdate": { ".": {}, "f:maxSurge": {}, "f:maxUnavailable": {} },
                    "f:type": {},
                },
                "f:template": {
                    "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
                    "f:spec": {
                        "f:containers": { "k:{\"name\":\"c\"}": {
                            ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                        } },
                        "f:securityContext": {},
                    },
                },
            },
        })
    );
}

#[test]
fn conflicts_name_the_managers_and_the_fields() {
    let first = deployment(json!([{ "name": "c", "image": "web:1" }]));
    let made = apply(deployments(), None, &first, by("a"), false).unwrap();
    let mut scaled = made.clone();
    scaled["spec"]["replicas"] = 5.into();
    track_update(deployments(), Some(&made), &mut scaled, by("kubectl-scale"));
    assert_eq!(owned(&scaled, "kubectl-scale"), json!({ "f:spec": { "f:replicas": {} } }));
    assert!(owned(&scaled, "a")["f:spec"].get("f:replicas").is_none(), "who changes a field takes it");

    let again = apply(deployments(), Some(&scaled), &first, by("a"), false).unwrap_err();
    assert_eq!(
        again.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
    let mut config = first.clone();
    config["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
    let status = apply(deployments(), Some(&scaled), &config, by("b"), false).unwrap_err().to_status();
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n\
         - .spec.template.spec.containers[name=\"c\"].image\n\
         conflicts with \"kubectl-scale\" using apps/v1:\n- .spec.replicas"
    );
    let causes = status.details.unwrap().causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, "conflict with \"a\"");
    assert_eq!(causes[0].field, ".spec.template.spec.containers[name=\"c\"].image");

    let forced = apply(deployments(), Some(&scaled), &config, by("b"), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(owned(&forced, "kubectl-scale"), Value::Null, "who has nothing left is forgotten");
    let template = &owned(&forced, "a")["f:spec"]["f:template"];
    assert!(template["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"].get("f:image").is_none());
    // The same value is no conflict: both have it.
    let shared = apply(deployments(), Some(&made), &first, by("b"), false).unwrap();
    assert_eq!(owned(&shared, "a"), owned(&shared, "b"));
}

#[test]
fn what_is_no_longer_said_goes_unless_others_have_it() {
    let side = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "template": {
        "spec": { "containers": [{ "name": "side", "image": "s:1" }] } } } });
    let main = deployment(json!([{ "name": "c", "image": "web:1", "env": [
        { "name": "A", "value": "1" }, { "name": "B", "value": "2" }] }]));
    let made = apply(deployments(), None, &main, by("main"), false).unwrap();
    let both = apply(deployments(), Some(&made), &side, by("side"), false).unwrap();
    let names = |object: &Value| {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        list.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&both), ["c", "side"]);

    // An environment variable and the labels go, and the other's container stays.
    let mut less =
        deployment(json!([{ "name": "c", "image": "web:1", "env": [{ "name": "B", "value": "2" }] }]));
    less["metadata"].as_object_mut().unwrap().remove("labels");
    let less = apply(deployments(), Some(&both), &less, by("main"), false).unwrap();
    assert_eq!(names(&less), ["c", "side"]);
    assert_eq!(
        less["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{ "name": "B", "value": "2" }])
    );
    assert!(less["metadata"].get("labels").is_none());

    // A container that one gives up goes with all that nobody else has of it.
    let alone =
        apply(deployments(), Some(&less), &json!({ "metadata": { "name": "web" } }), by("side"), false);
    let alone = alone.unwrap();
    assert_eq!(names(&alone), ["c"]);
    assert_eq!(owned(&alone, "side"), Value::Null);

    // What an update has since then changed is not the applier's to remove.
    let made = apply(maps(), None, &json!({ "data": { "k": "1", "l": "1" } }), by("a"), false).unwrap();
    let mut edited = made.clone();
    edited["data"]["l"] = "2".into();
    track_update(maps(), Some(&made), &mut edited, by("edit"));
    let kept = apply(maps(), Some(&edited), &json!({ "data": { "k": "1" } }), by("a"), false).unwrap();
    assert_eq!(kept["data"], json!({ "k": "1", "l": "2" }));
}

#[test]
fn sets_and_whole_values() {
    let info = maps();
    let config = |list: Value| json!({ "metadata": { "name": "m", "finalizers": list } });
    let a = apply(info, None, &config(json!(["x/a", "x/b"])), by("a"), false).unwrap();
    let b = apply(info, Some(&a), &config(json!(["x/c", "x/b"])), by("b"), false).unwrap();
    assert_eq!(b["metadata"]["finalizers"], json!(["x/a", "x/c", "x/b"]));
    let less = apply(info, Some(&b), &config(json!(["x/a"])), by("a"), false).unwrap();
    assert_eq!(less["metadata"]["finalizers"], json!(["x/a", "x/c", "x/b"]), "b still has x/b");
    assert_eq!(owned(&less, "a"), json!({ "f:metadata": { "f:finalizers": { "v:\"x/a\"": {} } } }));

    // A selector is one value: it is replaced, and it conflicts, as a whole.
    let of = |label: &str| json!({ "metadata": { "name": "web" }, "spec": { "selector": { "matchLabels": { label: "x" } } } });
    let made = apply(deployments(), None, &of("a"), by("a"), false).unwrap();
    let error = apply(deployments(), Some(&made), &of("b"), by("b"), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.selector");
    let forced = apply(deployments(), Some(&made), &of("b"), by("b"), true).unwrap();
    assert_eq!(forced["spec"]["selector"], json!({ "matchLabels": { "b": "x" } }));
}

#[test]
fn items_come_in_the_order_of_the_configuration() {
    let merged = |live: &[&str], config: &[&str]| {
        let list = |names: &[&str]| -> Value {
            let items: Vec<Value> = names.iter().map(|n| json!({ "name": n, "image": "i" })).collect();
            json!({ "spec": { "containers": items } })
        };
        let info = table::find("", "v1", "pods").unwrap();
        let out = walk::merge(Place::root(info.schema()), &list(live), &list(config));
        let items = out["spec"]["containers"].as_array().cloned().unwrap_or_default();
        items.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect::<String>()
    };
    assert_eq!(merged(&["a", "b"], &["b", "a"]), "ba");
    assert_eq!(merged(&["x", "a", "y", "b"], &["b", "a"]), "xyba");
    assert_eq!(merged(&["a", "x", "b"], &["a", "n", "b"]), "axnb");
    assert_eq!(merged(&["x"], &["a"]), "xa");
    assert_eq!(merged(&[], &["a", "b"]), "ab");
    assert_eq!(merged(&["a", "b"], &[]), "ab");
}

#[test]
fn objects_that_nobody_managed() {
    let live = json!({ "metadata": { "name": "m", "uid": "u" }, "data": { "k": "1", "l": "1" } });
    let mut update = live.clone();
    update["data"]["k"] = "2".into();
    track_update(maps(), Some(&live), &mut update, by("edit"));
    assert!(update["metadata"].get("managedFields").is_none());
    let error = apply(maps(), Some(&live), &json!({ "data": { "k": "3" } }), by("a"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k"
    );
    let fine = apply(maps(), Some(&live), &json!({ "data": { "k": "1" } }), by("a"), false).unwrap();
    assert_eq!(owned(&fine, "before-first-apply"), json!({ "f:data": { ".": {}, "f:k": {}, "f:l": {} } }));
    assert_eq!(owned(&fine, "a"), json!({ "f:data": { "f:k": {} } }));
}

#[test]
fn writers_may_reset_the_managers_but_not_forge_nonsense() {
    let made = apply(maps(), None, &json!({ "data": { "k": "1" } }), by("a"), false).unwrap();
    let mut reset = made.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(maps(), Some(&made), &mut reset, by("edit"));
    assert!(reset["metadata"].get("managedFields").is_none());
    for nonsense in [json!([]), json!([{ "operation": "Guess" }]), json!("x")] {
        let mut put = made.clone();
        put["metadata"]["managedFields"] = nonsense;
        track_update(maps(), Some(&made), &mut put, by("edit"));
        assert_eq!(put, made);
    }
    let config = json!({ "metadata": { "managedFields": [] }, "data": {} });
    let error = apply(maps(), Some(&made), &config, by("a"), false).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.to_status().code),
        ("metadata.managedFields must be nil", 400)
    );
}

#[test]
fn status_is_owned_apart() {
    let made = apply(deployments(), None, &deployment(json!([{ "name": "c" }])), by("a"), false).unwrap();
    let mut status = made.clone();
    status["status"] = json!({ "replicas": 1, "conditions": [{ "type": "Available", "status": "True" }] });
    status["spec"]["replicas"] = 9.into();
    track_update(deployments(), Some(&made), &mut status, Manager { subresource: "status", ..by("kcm") });
    assert_eq!(
        owned(&status, "kcm"),
        json!({ "f:status": {
            ".": {}, "f:replicas": {},
            "f:conditions": { ".": {}, "k:{\"type\":\"Available\"}": { ".": {}, "f:status": {}, "f:type": {} } },
        } })
    );
    assert!(owned(&status, "a")["f:spec"].get("f:replicas").is_some());
    let entries = status["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries[1]["subresource"], "status");
    // An apply to the object says nothing about the status, whatever it holds.
    let mut config = deployment(json!([{ "name": "c" }]));
    config["status"] = json!({ "replicas": 7 });
    let applied = apply(deployments(), Some(&status), &config, by("a"), false).unwrap();
    assert_eq!(owned(&applied, "a"), owned(&made, "a"));
}

#[test]
fn kubectl_goes_from_client_side_to_server_side() {
    const NOTE: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let config = |k: &str, l: &str| json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"k":k,"l":l}});
    let mut live = config("1", "1");
    live["metadata"]["annotations"] = json!({ NOTE: config("1", "1").to_string() });
    track_update(maps(), None, &mut live, by("kubectl-client-side-apply"));
    // Another manager has no such right, and neither has kubectl over what somebody else changed since then.
    assert!(apply(maps(), Some(&live), &config("2", "1"), by("other"), false).is_err());
    let mut edited = live.clone();
    edited["data"]["l"] = "9".into();
    track_update(maps(), Some(&live), &mut edited, by("kubectl-edit"));
    let error = apply(maps(), Some(&edited), &config("2", "1"), by("kubectl"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.l"
    );
    let moved = apply(maps(), Some(&live), &config("2", "1"), by("kubectl"), false).unwrap();
    assert_eq!(moved["data"], json!({ "k": "2", "l": "1" }));
    assert_eq!(moved["metadata"]["annotations"][NOTE], format!("{}\n", config("2", "1")));
    assert!(owned(&moved, "kubectl-client-side-apply")["f:data"].get("f:k").is_none());
}

#[test]
fn lists_without_their_keys_are_refused() {
    for (containers, why) in [
        (
            json!([{ "image": "i" }]),
            "element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (json!([{ "name": "a" }, { "name": "a" }]), "duplicate entries for key [name=\"a\"]"),
        (json!(["a"]), "element 0: associative list with keys may not have non-map elements"),
    ] {
        let error = apply(deployments(), None, &deployment(containers), by("a"), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to create typed patch object (web; apps/v1, Kind=Deployment): .spec.template.spec.containers: {why}"
            )
        );
    }
}

/// Texts under a few keys, as the data of a config map.
fn data() -> impl Strategy<Value = Value> {
    let value = proptest::option::of("[12]");
    proptest::collection::vec(value, 4).prop_map(|values| {
        let pairs = values.into_iter().zip(["a", "b", "c", "d"]);
        pairs.filter_map(|(v, k)| Some((k.to_string(), Value::from(v?)))).collect::<Map<_, _>>().into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Three appliers and an editor on one map, against a model: a value and a set of owners for each key.
    #[test]
    fn ownership_follows_the_model(steps in proptest::collection::vec((0..4_usize, data(), any::<bool>()), 1..12)) {
        use alloc::collections::{BTreeMap, BTreeSet};
        let names = ["x", "y", "z", "edit"];
        let mut model: BTreeMap<String, (Value, BTreeSet<&str>)> = BTreeMap::new();
        // Somebody manages something all the time: an object without managers is not tracked.
        let mut live = json!({ "metadata": { "name": "m", "labels": { "kept": "1" } }, "data": {} });
        track_update(maps(), None, &mut live, by("init"));
        for (who, wanted, force) in steps {
            let who = names[who];
            let wanted_map = wanted.as_object().unwrap();
            // The decoder drops a map that is empty.
            let config = if wanted_map.is_empty() { json!({}) } else { json!({ "data": wanted }) };
            if who == "edit" {
                let mut next = live.clone();
                next["data"] = wanted.clone();
                track_update(maps(), Some(&live), &mut next, by(who));
                live = next;
                model.retain(|k, _| wanted_map.contains_key(k));
                for (k, v) in wanted_map {
                    if model.get(k).is_none_or(|(old, _)| old != v) {
                        model.insert(k.clone(), (v.clone(), BTreeSet::from([who])));
                    }
                }
            } else {
                let conflicts = wanted_map.iter().filter(|(k, v)| {
                    model.get(*k).is_some_and(|(old, owners)| old != *v && owners.iter().any(|o| *o != who))
                }).count();
                let result = apply(maps(), Some(&live), &config, by(who), force);
                if conflicts > 0 && !force {
                    let Err(ApplyError::Conflict { causes, .. }) = result else { panic!("no conflict: {result:?}") };
                    prop_assert!(causes.len() >= conflicts);
                    continue;
                }
                live = result.unwrap();
                for (k, v) in wanted_map {
                    let entry = model.entry(k.clone()).or_insert_with(|| (v.clone(), BTreeSet::new()));
                    if entry.0 != *v {
                        *entry = (v.clone(), BTreeSet::new());
                    }
                    entry.1.insert(who);
                }
                model.retain(|k, (_, owners)| {
                    wanted_map.contains_key(k) || !owners.remove(who) || !owners.is_empty()
                });
                prop_assert_eq!(&apply(maps(), Some(&live), &config, later(who), false).unwrap(), &live);
            }
            let got = live.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
            let want: Map<String, Value> = model.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect();
            prop_assert_eq!(got, want);
            for name in names {
                let mine = owned(&live, name);
                for (k, (_, owners)) in &model {
                    let has = mine.pointer(&format!("/f:data/f:{k}")).is_some();
                    prop_assert_eq!(has, owners.contains(name), "{} {}: {}", name, k, live);
                }
            }
        }
    }
}
