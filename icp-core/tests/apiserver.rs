//! The API server in this process, without a runtime: what every client may rely on.

mod server;

use serde_json::{Value, json};
use server::{Server, now};

fn config_map(name: &str, labels: Value, data: &str) -> Value {
    json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":name,"labels":labels},"data":{"k":data}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":name},
           "spec":{"containers":[{"name":"c","image":"i"}]}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn objects_live_their_life() {
    let s = Server::new();
    let (code, made) = s.post(MAPS, &config_map("a", json!({}), "1"));
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-11-18T11:06:40Z");
    let (code, again) = s.post(MAPS, &config_map("a", json!({}), "1"));
    assert_eq!((code, again["message"].as_str().unwrap()), (409, r#"configmaps "a" already exists"#));
    let (_, got) = s.get(&format!("{MAPS}/a"));
    assert_eq!(got, made);

    let mut changed = got.clone();
    changed["data"]["k"] = "2".into();
    let (code, two) = s.put(&format!("{MAPS}/a"), &changed);
    assert_eq!(code, 200, "{two}");
    assert_ne!(two["metadata"]["resourceVersion"], got["metadata"]["resourceVersion"]);
    let (code, conflict) = s.put(&format!("{MAPS}/a"), &changed);
    assert_eq!(code, 409);
    assert_eq!(
        conflict["message"],
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let before = s.store.revision();
    let (_, same) = s.put(&format!("{MAPS}/a"), &two);
    assert_eq!((same, s.store.revision()), (two, before), "a write that changes nothing is none");

    let (code, status) = s.delete(&format!("{MAPS}/a"), &Value::Null);
    assert_eq!((code, status["status"].as_str()), (200, Some("Success")));
    let (code, gone) = s.get(&format!("{MAPS}/a"));
    assert_eq!(code, 404);
    assert_eq!(gone["message"], r#"configmaps "a" not found"#);
    assert_eq!(gone["details"], json!({"name":"a","kind":"configmaps"}));
}

#[test]
fn names_are_generated() {
    let s = Server::new();
    let body = json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"job-"}});
    let (code, a) = s.post(MAPS, &body);
    let (_, b) = s.post(MAPS, &body);
    assert_eq!(code, 201);
    assert!(a["metadata"]["name"].as_str().unwrap().starts_with("job-"));
    assert_ne!(a["metadata"]["name"], b["metadata"]["name"]);
}

#[test]
fn namespaces_must_exist_and_not_be_going() {
    let s = Server::new();
    let (code, e) = s.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a", json!({}), ""));
    assert_eq!((code, e["message"].as_str()), (404, Some(r#"namespaces "nowhere" not found"#)));
    let ns = json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}});
    assert_eq!(s.post("/api/v1/namespaces", &ns).0, 201);
    let in_x = "/api/v1/namespaces/x/configmaps";
    assert_eq!(s.post(in_x, &config_map("a", json!({}), "")).0, 201);
    let (_, going) = s.delete("/api/v1/namespaces/x", &Value::Null);
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, e) = s.post(in_x, &config_map("b", json!({}), ""));
    assert_eq!(code, 403);
    assert_eq!(
        e["message"],
        r#"configmaps "b" is forbidden: unable to create new content in namespace x because it is being terminated"#
    );
    let (_, mut x) = s.get("/api/v1/namespaces/x");
    x["spec"]["finalizers"] = json!([]);
    assert_eq!(s.put("/api/v1/namespaces/x/finalize", &x).0, 200);
    assert_eq!(s.get("/api/v1/namespaces/x").0, 404);
}

#[test]
fn pods_go_gracefully_once_bound() {
    let s = Server::new();
    s.post(PODS, &pod("p"));
    let binding = json!({"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"w1"}});
    let (code, done) = s.post(&format!("{PODS}/p/binding"), &binding);
    assert_eq!((code, done["status"].as_str()), (201, Some("Success")), "{done}");
    let (code, e) = s.post(&format!("{PODS}/p/binding"), &binding);
    assert_eq!(code, 409, "{e}");
    let (_, marked) = s.delete(&format!("{PODS}/p"), &Value::Null);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = json!({"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0});
    assert_eq!(s.delete(&format!("{PODS}/p"), &now).0, 200);
    assert_eq!(s.get(&format!("{PODS}/p")).0, 404);
}

#[test]
fn status_is_its_own_resource() {
    let s = Server::new();
    let (_, mut p) = s.post(PODS, &pod("p"));
    p["status"]["phase"] = "Running".into();
    p["metadata"]["labels"] = json!({"a":"b"});
    let (code, plain) = s.put(&format!("{PODS}/p"), &p);
    assert_eq!((code, plain["status"]["phase"].as_str()), (200, Some("Pending")), "{plain}");
    let (code, status) =
        s.merge(&format!("{PODS}/p/status"), &json!({"status":{"phase":"Running"},"spec":{"nodeName":"x"}}));
    assert_eq!((code, status["status"]["phase"].as_str()), (200, Some("Running")), "{status}");
    assert!(status["spec"].get("nodeName").is_none());
}

#[test]
fn pages_of_a_selector_are_of_the_asked_size_and_complete() {
    let s = Server::new();
    for i in 0..40 {
        s.post(MAPS, &config_map(&format!("m{i:02}"), json!({"rare": (i % 7 == 6).to_string()}), ""));
    }
    for limit in [1, 2, 3, 5, 9] {
        let (mut names, mut token) = (Vec::new(), String::new());
        for _ in 0..40 {
            let (code, page) =
                s.get(&format!("{MAPS}?labelSelector=rare%3Dtrue&limit={limit}&continue={token}"));
            assert_eq!(code, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_string()));
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_string();
            assert!(items.len() <= limit);
            if token.is_empty() {
                break;
            }
            assert_eq!(items.len(), limit);
        }
        assert_eq!(names, ["m06", "m13", "m20", "m27", "m34"], "limit {limit}");
    }
}

#[test]
fn lists_are_paged_at_one_revision() {
    let s = Server::new();
    for i in 0..5 {
        s.post(MAPS, &config_map(&format!("m{i}"), json!({"odd": (i % 2).to_string()}), ""));
    }
    let (_, page) = s.get(&format!("{MAPS}?limit=2"));
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    s.delete(&format!("{MAPS}/m3"), &Value::Null);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = s.get(&format!("{MAPS}?limit=10&continue={token}"));
    assert_eq!(rest["items"].as_array().unwrap().len(), 3, "m3 is still in the list of that revision");
    assert_eq!(rest["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);
    let (_, odd) = s.get(&format!("{MAPS}?labelSelector=odd%3D1"));
    assert_eq!(odd["items"].as_array().unwrap().len(), 1);
    let (_, one) = s.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm4"));
    assert_eq!(one["items"][0]["metadata"]["name"], "m4");
    assert_eq!(s.get("/api/v1/configmaps?resourceVersion=999999").0, 504);
}

#[test]
fn a_compacted_page_offers_to_go_on_inconsistently() {
    use icp_core::storage::Storage as _;
    let s = Server::new();
    for i in 0..4 {
        s.post(MAPS, &config_map(&format!("m{i}"), json!({}), ""));
    }
    let (_, page) = s.get(&format!("{MAPS}?limit=2"));
    s.post(MAPS, &config_map("m9", json!({}), ""));
    now(s.store.compact(s.store.revision())).unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (code, expired) = s.get(&format!("{MAPS}?limit=9&continue={token}"));
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")));
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = s.get(&format!("{MAPS}?limit=9&continue={token}"));
    assert_eq!((code, rest["items"].as_array().unwrap().len()), (200, 3));
}

#[test]
fn watches_follow_from_a_revision() {
    let s = Server::new();
    let (_, list) = s.get(MAPS);
    let at = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    s.post(MAPS, &config_map("early", json!({}), ""));
    let mut watch = s.watch(&format!("{MAPS}?watch=true&resourceVersion={at}"));
    let mut red = s.watch(&format!("{MAPS}?watch=true&resourceVersion={at}&labelSelector=colour%3Dred"));
    assert_eq!(watch.events(), ["ADDED early"]);
    s.post(MAPS, &config_map("a", json!({"colour":"red"}), ""));
    s.merge(&format!("{MAPS}/a"), &json!({"data":{"k":"2"}}));
    s.merge(&format!("{MAPS}/a"), &json!({"metadata":{"labels":{"colour":"blue"}}}));
    s.delete(&format!("{MAPS}/a"), &Value::Null);
    assert_eq!(watch.events(), ["ADDED a", "MODIFIED a", "MODIFIED a", "DELETED a"]);
    assert_eq!(red.events(), ["ADDED a", "MODIFIED a", "DELETED a"]);
    // One that comes later, from before the first, sees everything too, and the first sees nothing twice.
    let mut late = s.watch(&format!("{MAPS}?watch=true&resourceVersion={at}"));
    assert_eq!(late.events().len(), 5);
    assert_eq!(watch.events(), Vec::<String>::new());
}

#[test]
fn watches_begin_with_what_there_is() {
    let s = Server::new();
    s.post(MAPS, &config_map("a", json!({}), ""));
    let mut plain = s.watch(&format!("{MAPS}?watch=true"));
    assert_eq!(plain.events(), ["ADDED a"]);
    let mut list = s.watch(&format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    ));
    assert_eq!(list.events(), ["ADDED a", "BOOKMARK -"]);
    s.post(MAPS, &config_map("b", json!({}), ""));
    assert_eq!((plain.events(), list.events()), (vec!["ADDED b".to_string()], vec!["ADDED b".to_string()]));
}

#[test]
fn a_watch_of_the_past_is_told_so() {
    use icp_core::storage::Storage as _;
    let s = Server::new();
    s.post(MAPS, &config_map("a", json!({}), ""));
    s.merge(&format!("{MAPS}/a"), &json!({"data":{"k":"2"}}));
    now(s.store.compact(s.store.revision())).unwrap();
    let mut watch = s.watch(&format!("{MAPS}?watch=true&resourceVersion=2"));
    assert_eq!(watch.events(), ["ERROR -"]);
}

#[test]
fn services_get_addresses_and_ports_and_give_them_back() {
    let s = Server::new();
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &str| {
        let mut v = json!({"apiVersion":"v1","kind":"Service","metadata":{"name":name},
            "spec":{"type":"NodePort","ports":[{"port":80}]}});
        if !ip.is_empty() {
            v["spec"]["clusterIP"] = ip.into();
        }
        v
    };
    let (_, kubernetes) = s.get(&format!("{services}/kubernetes"));
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let (code, a) = s.post(services, &service("a", ""));
    assert_eq!(code, 201, "{a}");
    let ip = a["spec"]["clusterIP"].as_str().unwrap();
    assert!(ip.starts_with("10.96."), "{ip}");
    let port = a["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port));
    let (code, taken) = s.post(services, &service("b", ip));
    assert_eq!((code, taken["reason"].as_str()), (422, Some("Invalid")), "{taken}");
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    assert_eq!(s.get(&address).1["spec"]["parentRef"]["name"], "a");
    s.delete(&format!("{services}/a"), &Value::Null);
    assert_eq!(s.get(&address).0, 404);
    assert_eq!(s.post(services, &service("b", ip)).0, 201);
}

#[test]
fn scale_changes_the_replicas() {
    let s = Server::new();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}});
    let body = json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},
        "spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":template}});
    let (code, made) = s.post(deployments, &body);
    assert_eq!((code, made["metadata"]["generation"].as_i64()), (201, Some(1)), "{made}");
    let (code, scale) = s.merge(&format!("{deployments}/d/scale"), &json!({"spec":{"replicas":3}}));
    assert_eq!(
        (code, scale["spec"]["replicas"].as_i64(), scale["kind"].as_str()),
        (200, Some(3), Some("Scale")),
        "{scale}"
    );
    assert_eq!(s.get(&format!("{deployments}/d")).1["metadata"]["generation"], 2);
}

#[test]
fn custom_resources_are_served_as_soon_as_they_are_defined() {
    let s = Server::new();
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    assert_eq!(s.get(path).0, 404);
    let definition = json!({"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
        "metadata":{"name":"crontabs.stable.example.com"},
        "spec":{"group":"stable.example.com","scope":"Namespaced","names":{"plural":"crontabs","kind":"CronTab"},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}});
    let (code, made) = s.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let object =
        json!({"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"c"},"spec":{"x":1}});
    let (code, got) = s.post(path, &object);
    assert_eq!((code, got["spec"]["x"].as_i64()), (201, Some(1)), "{got}");
    assert_eq!(s.get(path).1["kind"], "CronTabList");
}

#[test]
fn custom_resources_are_scaled_where_their_definition_says() {
    let s = Server::new();
    let path = "/apis/example.com/v1/namespaces/default/gamesets";
    let scale = json!({"specReplicasPath":".spec.size.pods","statusReplicasPath":".status.pods","labelSelectorPath":".status.selector"});
    let definition = json!({"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
        "metadata":{"name":"gamesets.example.com"},
        "spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"gamesets","kind":"GameSet"},
        "versions":[{"name":"v1","served":true,"storage":true,"subresources":{"scale":scale},
            "schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}});
    assert_eq!(s.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).0, 201);
    let set = |name: &str, spec: Value| {
        json!({"apiVersion":"example.com/v1","kind":"GameSet","metadata":{"name":name},"spec":spec,
            "status":{"pods":1,"selector":"app=game"}})
    };
    assert_eq!(s.post(path, &set("g", json!({"size":{"pods":3}}))).0, 201);
    let (code, got) = s.get(&format!("{path}/g/scale"));
    assert_eq!(
        (code, &got["spec"], &got["status"]),
        (200, &json!({"replicas":3}), &json!({"replicas":1,"selector":"app=game"})),
        "{got}"
    );
    let (code, got) = s.merge(&format!("{path}/g/scale"), &json!({"spec":{"replicas":5}}));
    assert_eq!((code, got["spec"]["replicas"].as_i64()), (200, Some(5)), "{got}");
    assert_eq!(s.get(&format!("{path}/g")).1["spec"], json!({"size":{"pods":5}}));
    assert_eq!(s.post(path, &set("none", json!({}))).0, 201);
    let (code, refused) = s.get(&format!("{path}/none/scale"));
    assert_eq!(code, 500);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .ends_with("the spec replicas field \".spec.size.pods\" does not exist")
    );
}

#[test]
fn a_definition_goes_after_its_objects() {
    let s = Server::new();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
        "metadata":{"name":"crontabs.stable.example.com"},
        "spec":{"group":"stable.example.com","scope":"Namespaced","names":{"plural":"crontabs","kind":"CronTab"},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}});
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    assert_eq!(s.post(definitions, &definition).0, 201);
    assert_eq!(s.post(path, &json!({"metadata":{"name":"free"}})).0, 201);
    assert_eq!(s.post(path, &json!({"metadata":{"name":"held","finalizers":["example.com/x"]}})).0, 201);

    let one = format!("{definitions}/crontabs.stable.example.com");
    let (code, going) = s.delete(&one, &Value::Null);
    assert_eq!(code, 200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let (_, still) = s.get(&one);
    let terminating = |o: &Value| {
        let conditions = o["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|c| c["type"] == "Terminating" && c["status"] == "True")
    };
    assert!(terminating(&still), "{still}");
    assert_eq!(s.get(&format!("{path}/free")).0, 404);
    let (code, refused) = s.post(path, &json!({"metadata":{"name":"late"}}));
    assert_eq!((code, refused["reason"].as_str()), (405, Some("MethodNotAllowed")));
    // The object that is held lets the definition go when it goes.
    let (code, _) = s.merge(&format!("{path}/held"), &json!({"metadata":{"finalizers":null}}));
    assert_eq!(code, 200);
    assert_eq!(s.get(&one).0, 404);
    assert_eq!(s.get(path).0, 404);
    // A definition of the same name begins with nothing.
    assert_eq!(s.post(definitions, &definition).0, 201);
    assert_eq!(s.get(path).1["items"], json!([]));
    assert_eq!(s.delete(&one, &Value::Null).0, 200);
    assert_eq!(s.get(&one).0, 404);
}

#[test]
fn limit_ranges_hold_in_their_namespace() {
    let s = Server::new();
    let range = json!({"metadata":{"name":"r"},"spec":{"limits":[
        {"type":"Container","max":{"cpu":"2"},"default":{"cpu":"1"},"defaultRequest":{"cpu":"100m"}}]}});
    assert_eq!(s.post("/api/v1/namespaces/default/limitranges", &range).0, 201);
    let (code, made) = s.post(PODS, &pod("p"));
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits":{"cpu":"1"},"requests":{"cpu":"100m"}})
    );
    let mut large = pod("q");
    large["spec"]["containers"][0]["resources"] = json!({"limits":{"cpu":"3"}});
    let (code, refused) = s.post(PODS, &large);
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        r#"pods "q" is forbidden: maximum cpu usage per Container is 2, but limit is 3"#
    );
    assert_eq!(s.post("/api/v1/namespaces/kube-system/pods", &large).0, 201);
}

#[test]
fn jobs_select_their_own_pods() {
    let s = Server::new();
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let spec = json!({"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}});
    let (code, job) = s.post(
        jobs,
        &json!({"apiVersion":"batch/v1","kind":"Job","metadata":{"generateName":"j-"},"spec":spec}),
    );
    assert_eq!(code, 201, "{job}");
    let uid = &job["metadata"]["uid"];
    assert_eq!(job["spec"]["selector"], json!({"matchLabels":{"batch.kubernetes.io/controller-uid":uid}}));
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["controller-uid"], &labels["job-name"]), (uid, &job["metadata"]["name"]));
}

#[test]
fn dry_runs_write_nothing() {
    let s = Server::new();
    s.get(MAPS);
    let before = s.store.revision();
    let (code, _) = s.post(&format!("{MAPS}?dryRun=All"), &config_map("a", json!({}), ""));
    assert_eq!((code, s.store.revision()), (201, before));
    assert_eq!(s.get(&format!("{MAPS}/a")).0, 404);
    assert_eq!(s.post(&format!("{MAPS}?dryRun=some"), &config_map("a", json!({}), "")).0, 422);
}

#[test]
fn failures_have_their_codes() {
    let s = Server::new();
    assert_eq!(s.get("/api/v1/nothings").0, 404);
    assert_eq!(s.get("/nowhere").0, 404);
    assert_eq!(s.send("PATCH", MAPS, &[], &json!({})).0, 405);
    assert_eq!(s.send("POST", MAPS, &[("content-type", "text/plain")], &json!({})).0, 415);
    assert_eq!(s.send("GET", MAPS, &[("accept", "image/png")], &Value::Null).0, 406);
    let wrong = json!({"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}});
    assert_eq!(s.post(MAPS, &wrong).0, 400);
    let huge = config_map("a", json!({}), &"x".repeat(3 * 1024 * 1024));
    assert_eq!(s.post(MAPS, &huge).0, 413);
    let (code, nodes) = s.get(&format!("{PODS}/p/log"));
    assert_eq!(code, 404, "{nodes}");
}

#[test]
fn a_token_of_a_secret_or_a_node_ends_with_it() {
    let s = Server::new();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    s.post(accounts, &json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"bot"}}));
    let review = json!({"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"});
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for (kind, collection) in [("Secret", "/api/v1/namespaces/default/secrets"), ("Node", "/api/v1/nodes")] {
        let object = json!({"apiVersion":"v1","kind":kind,"metadata":{"name":"x"}});
        assert_eq!(s.post(collection, &object).0, 201, "{kind}");
        let ask = json!({"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest",
            "spec":{"boundObjectRef":{"kind":kind,"apiVersion":"v1","name":"x"}}});
        let (code, token) = s.post(&format!("{accounts}/bot/token"), &ask);
        assert_eq!(code, 201, "{token}");
        let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
        let me = || s.send("POST", reviews, &[("authorization", &bearer)], &review).0;
        assert_eq!(me(), 201, "{kind}");
        s.delete(&format!("{collection}/x"), &Value::Null);
        assert_eq!(me(), 401, "{kind}");
        assert_eq!(s.post(collection, &object).0, 201, "{kind}");
        assert_eq!(me(), 401, "another {kind} of that name");
    }
}

#[test]
fn tokens_are_bound_to_what_exists() {
    let s = Server::new();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    s.post(accounts, &json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"bot"}}));
    let ask = json!({"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}});
    let (code, token) = s.post(&format!("{accounts}/bot/token"), &ask);
    assert_eq!(code, 201, "{token}");
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let review = json!({"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"});
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, me) = s.send("POST", reviews, &[("authorization", &bearer)], &review);
    assert_eq!(code, 201, "{me}");
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:bot");
    let (code, e) = s.send("GET", MAPS, &[("authorization", &bearer)], &Value::Null);
    assert_eq!(code, 403);
    assert_eq!(
        e["message"],
        r#"configmaps is forbidden: User "system:serviceaccount:default:bot" cannot list resource "configmaps" in API group "" in the namespace "default""#
    );
    let binding = json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"b"},
        "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},
        "subjects":[{"kind":"ServiceAccount","name":"bot","namespace":"default"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(s.post(path, &binding).0, 201);
    assert_eq!(s.send("GET", MAPS, &[("authorization", &bearer)], &Value::Null).0, 200);
    s.delete(&format!("{accounts}/bot"), &Value::Null);
    assert_eq!(s.send("GET", MAPS, &[("authorization", &bearer)], &Value::Null).0, 401);
}

#[test]
fn pod_groups_have_a_status_of_their_own_and_the_priority_of_their_class() {
    const GROUPS: &str = "/apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups";
    let s = Server::new();
    let class = json!({"apiVersion":"scheduling.k8s.io/v1","kind":"PriorityClass","metadata":{"name":"high"},"value":7});
    assert_eq!(s.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).0, 201);
    let group = |name: &str, class: &str| {
        json!({"apiVersion":"scheduling.k8s.io/v1beta1","kind":"PodGroup","metadata":{"name":name},
            "spec":{"priorityClassName":class,"schedulingPolicy":{"gang":{"minCount":2}}},
            "status":{"conditions":[{"type":"Mine"}]}})
    };
    let (code, made) = s.post(GROUPS, &group("g", "high"));
    assert_eq!(
        (code, &made["spec"]["priority"], &made["metadata"]["generation"]),
        (201, &json!(7), &json!(1)),
        "{made}"
    );
    assert_eq!(made.get("status"), None, "only the status subresource writes it");
    let (code, none) = s.post(GROUPS, &group("h", "low"));
    assert_eq!(
        (code, none["message"].as_str().unwrap()),
        (403, "podgroups.scheduling.k8s.io \"h\" is forbidden: no PriorityClass with name low was found")
    );
    // A PUT that leaves the computed priority out keeps it.
    let mut more = made.clone();
    more["spec"].as_object_mut().unwrap().remove("priority");
    more["spec"]["schedulingPolicy"]["gang"]["minCount"] = 3.into();
    let (code, more) = s.put(&format!("{GROUPS}/g"), &more);
    assert_eq!(
        (code, &more["spec"]["priority"], &more["metadata"]["generation"]),
        (200, &json!(7), &json!(2)),
        "{more}"
    );
    let condition = json!({"status":{"conditions":[{"type":"PodGroupInitiallyScheduled","status":"True","reason":"Scheduled",
        "message":"","lastTransitionTime":"2026-11-18T11:06:40Z"}]},"spec":{"schedulingPolicy":{"basic":{}}}});
    let (code, told) = s.merge(&format!("{GROUPS}/g/status"), &condition);
    assert_eq!((code, &told["spec"]), (200, &more["spec"]), "{told}");
    assert_eq!(told["status"]["conditions"][0]["status"], "True");
    let (_, groups) = s.get("/apis/scheduling.k8s.io");
    assert_eq!(groups["preferredVersion"]["version"], "v1", "{groups}");
    let (code, workload) = s.post(
        &GROUPS.replace("podgroups", "workloads"),
        &json!({"apiVersion":"scheduling.k8s.io/v1beta1",
        "kind":"Workload","metadata":{"name":"w"},"spec":{"podGroupTemplates":[]}}),
    );
    assert_eq!(code, 422, "{workload}");
    // A pod stays in its group.
    let mut member = pod("p");
    member["spec"]["schedulingGroup"] = json!({"podGroupName":"g"});
    assert_eq!(s.post(PODS, &member).0, 201);
    let (code, moved) =
        s.merge(&format!("{PODS}/p"), &json!({"spec":{"schedulingGroup":{"podGroupName":"h"}}}));
    assert_eq!(code, 422, "{moved}");
}
