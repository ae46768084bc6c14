//! What the API server answers to input that is wrong: the codes, reasons and messages that kube-apiserver has for it.

mod server;

use icp_core::storage::Storage as _;
use serde_json::{Value, json};
use server::{Answer, Server, now};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";

fn create(s: &Server, path: &str, body: &str) -> Answer {
    s.raw("POST", path, JSON, body.to_string())
}

fn read(s: &Server, path: &str) -> Answer {
    s.raw("GET", path, JSON, "")
}

#[track_caller]
fn refused(answer: &Answer, code: u16, reason: &str, message: &str) {
    assert_eq!(answer.failure(), (code, reason.into(), message.into()));
}

/// The fields that a 422 names, as `field: reason`.
fn causes(answer: &Answer) -> Vec<String> {
    let status = answer.json();
    let causes = status.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |c: &Value, f: &str| c.get(f).and_then(Value::as_str).unwrap_or("").to_string();
    causes.iter().map(|c| format!("{}: {}", text(c, "field"), text(c, "reason"))).collect()
}

#[test]
fn unknown_and_duplicate_fields() {
    let s = Server::new();
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","nmae":"b"},"data":{"k":"1","k":"2"},"spec":{}}"#;
    let strict = create(&s, &format!("{MAPS}?fieldValidation=Strict"), body);
    refused(
        &strict,
        400,
        "BadRequest",
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.k", unknown field "metadata.nmae", unknown field "spec""#,
    );
    let warned = create(&s, MAPS, body);
    assert_eq!(warned.code, 201, "{}", warned.text());
    assert_eq!(
        warned.warnings(),
        [r#"duplicate field "data.k""#, r#"unknown field "metadata.nmae""#, r#"unknown field "spec""#]
    );
    assert_eq!(warned.json()["data"], json!({"k":"2"}));
    assert!(warned.json().get("spec").is_none());
    let ignored = create(&s, &format!("{MAPS}?fieldValidation=Ignore"), &body.replace("\"a\"", "\"b\""));
    assert_eq!((ignored.code, ignored.warnings().len()), (201, 0));
    let odd = create(&s, &format!("{MAPS}?fieldValidation=Loose"), body);
    refused(
        &odd,
        422,
        "Invalid",
        r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Loose": supported values: "Ignore", "Strict", "Warn""#,
    );
    // A patch is read as strictly as a body.
    let path = format!("{MAPS}/a?fieldValidation=Strict");
    let patched = s.raw("PATCH", &path, "application/merge-patch+json", r#"{"spce":1}"#);
    let (code, reason, message) = patched.failure();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(message.starts_with(r#" "" is invalid: patch: Invalid value: "{"#), "{message}");
    assert!(message.ends_with(r#": strict decoding error: unknown field "spce""#), "{message}");
}

#[test]
fn values_of_the_wrong_type() {
    let s = Server::new();
    for (path, body, message) in [
        (
            PODS,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":"x"}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":1}}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta"#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
            r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":"x"}}"#,
            r#"Deployment in version "v1" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion"#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"v1","kind":"Confmap","metadata":{"name":"a"}}"#,
            r#"Confmap in version "v1" cannot be handled as a ConfigMap: no kind "Confmap" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            MAPS,
            r#"{"apiVersion":"v7","kind":"ConfigMap","metadata":{"name":"a"}}"#,
            r#"ConfigMap in version "v7" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v7" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
    ] {
        refused(&create(&s, path, body), 400, "BadRequest", message);
    }
    // One that exists in another version of the group is read as that, and refused by name.
    let other = r#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"}}"#;
    refused(
        &create(&s, "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", other),
        400,
        "BadRequest",
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
    );
}

#[test]
fn half_a_manifest() {
    let s = Server::new();
    refused(
        &create(&s, MAPS, ""),
        400,
        "BadRequest",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
    );
    refused(
        &create(&s, MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"na"#),
        400,
        "BadRequest",
        r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion":"v1","kind":"Con ...)"#,
    );
    for body in
        ["null", "3", "\"text\"", "[]", "{}{}", "{\"metadata\":}", "\u{feff}{}", "\u{0}", "{\"a\":\"\u{1}\"}"]
    {
        let answer = create(&s, MAPS, body);
        assert_eq!((answer.failure().0, answer.failure().1.as_str()), (400, "BadRequest"), "{body}");
    }
    let broken = s.raw("POST", MAPS, JSON, &b"{\"data\":{\"a\":\"\xff\xfe\"}}"[..]);
    assert_eq!(broken.failure().0, 400);
    // What is missing is taken from the path, and is in the stored object.
    for body in [
        r#"{"metadata":{"name":"a"}}"#,
        r#"{"kind":"ConfigMap","metadata":{"name":"b"}}"#,
        r#"{"apiVersion":"v1","metadata":{"name":"c"}}"#,
    ] {
        let made = create(&s, MAPS, body).json();
        assert_eq!(
            (made["apiVersion"].as_str(), made["kind"].as_str()),
            (Some("v1"), Some("ConfigMap")),
            "{made}"
        );
    }
    let nameless = create(&s, MAPS, "{}");
    refused(
        &nameless,
        422,
        "Invalid",
        r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#,
    );
    assert_eq!(causes(&nameless), ["metadata.name: FieldValueRequired"]);
    let put = s.raw("PUT", &format!("{MAPS}/a"), JSON, r#"{"apiVersion":"v1","kind":"ConfigMap"}"#);
    refused(
        &put,
        400,
        "BadRequest",
        "the name of the object (a based on URL) was undeterminable: name must be provided",
    );
    let other = s.raw("PUT", &format!("{MAPS}/a"), JSON, r#"{"metadata":{"name":"b"}}"#);
    refused(&other, 400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)");
    let moved = create(&s, MAPS, r#"{"metadata":{"name":"z","namespace":"kube-system"}}"#);
    refused(
        &moved,
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    let cluster = create(&s, "/api/v1/namespaces", r#"{"metadata":{"name":"n","namespace":"x"}}"#);
    assert_eq!(cluster.code, 201, "a namespace on what has none is cleared: {}", cluster.text());
    assert!(cluster.json()["metadata"].get("namespace").is_none());
}

#[test]
fn bodies_that_are_too_large_or_too_deep() {
    let s = Server::new();
    let object =
        |bytes: usize| format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#, "x".repeat(bytes));
    let too_large = "Request entity too large: limit is 3145728";
    for bytes in [3 * 1024 * 1024, 10 * 1024 * 1024] {
        refused(&create(&s, MAPS, &object(bytes)), 413, "RequestEntityTooLarge", too_large);
        let merge = "application/merge-patch+json";
        let patch = s.raw("PATCH", &format!("{MAPS}/a"), merge, object(bytes));
        refused(&patch, 413, "RequestEntityTooLarge", too_large);
        let delete = s.raw("DELETE", &format!("{MAPS}/a"), JSON, object(bytes));
        refused(&delete, 413, "RequestEntityTooLarge", too_large);
    }
    // Small enough to be read, too large for the kind.
    let map = create(&s, MAPS, &object(1_100_000));
    refused(
        &map,
        422,
        "Invalid",
        r#"ConfigMap "a" is invalid: []: Too long: may not be more than 1048576 bytes"#,
    );

    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for n in [101, 10_000, 1_000_000] {
        for nest in [deep("[", "]", n), deep("{\"a\":", "}", n.min(500_000))] {
            for body in [
                nest.clone(),
                format!(r#"{{"metadata":{{"name":"a"}},"data":{nest}}}"#),
                format!(r#"{{"metadata":{{"name":"a","labels":{nest}}}}}"#),
            ] {
                let answer = create(&s, MAPS, &body);
                // A nest of objects is an unknown field, which is skipped and not kept.
                assert!(matches!(answer.failure().0, 400 | 422), "{}", answer.text());
            }
        }
    }
    assert_eq!(create(&s, MAPS, r#"{"metadata":{"name":"a"}}"#).code, 201);
    for kind in ["json-patch", "merge-patch", "strategic-merge-patch"] {
        let content_type = format!("application/{kind}+json");
        for body in [
            deep("[", "]", 10_000),
            deep("{\"a\":", "}", 10_000),
            format!(r#"{{"data":{}}}"#, deep("[", "]", 110)),
        ] {
            let answer = s.raw("PATCH", &format!("{MAPS}/a"), &content_type, body);
            assert!(matches!(answer.code, 400 | 422), "{kind}: {} {}", answer.code, answer.text());
        }
    }
    let yaml = format!("metadata: {{name: b}}\ndata: {}", deep("[", "]", 10_000));
    assert_eq!(s.raw("POST", MAPS, "application/yaml", yaml).failure().0, 400);
    // Aliases that would unfold to a billion values.
    let mut bomb = String::from("metadata: {name: b}\nx0: &x0 [l,l,l,l,l,l,l,l,l]\n");
    for n in 1..10 {
        bomb.push_str(&format!("x{n}: &x{n} [{}]\n", vec![format!("*x{}", n - 1); 9].join(",")));
    }
    let answer = s.raw("POST", MAPS, "application/yaml", bomb);
    assert_eq!(answer.code, 400, "{}", answer.text());
}

#[test]
fn selectors_that_say_nothing() {
    let s = Server::new();
    for (selector, message) in [
        ("a+in+b", "unable to parse requirement: found 'b', expected: '('"),
        ("a%3D%3D%3Db", "unable to parse requirement: found '=', expected: identifier"),
        ("%3Da", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a%3Db+c", "found 'c', expected: ',' or 'end of string'"),
    ] {
        let answer = read(&s, &format!("{MAPS}?labelSelector={selector}"));
        refused(&answer, 400, "BadRequest", message);
    }
    let long = "x".repeat(64);
    let answer = read(&s, &format!("{MAPS}?labelSelector=a%3D{long}"));
    assert!(
        answer.failure().2.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"xxx")
    );
    for (path, selector, message) in [
        (
            MAPS,
            "a.b%3Dc",
            r#""a.b" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
        (PODS, "spec.foo%3Dc", "field label not supported: spec.foo"),
        (PODS, "foo", "invalid selector: 'foo'; can't understand 'foo'"),
    ] {
        refused(&read(&s, &format!("{path}?fieldSelector={selector}")), 400, "BadRequest", message);
        refused(&read(&s, &format!("{path}?watch=1&fieldSelector={selector}")), 400, "BadRequest", message);
        let deleted = s.raw("DELETE", &format!("{path}?fieldSelector={selector}"), JSON, "");
        refused(&deleted, 400, "BadRequest", message);
    }
    // A name that is none selects nothing, whatever it holds.
    for name in ["..", "a%2Fb", "%00"] {
        let answer = read(&s, &format!("{MAPS}?fieldSelector=metadata.name%3D{name}"));
        assert_eq!((answer.code, answer.json()["items"].clone()), (200, json!([])));
    }
}

#[test]
fn names_that_are_no_path_segments() {
    let s = Server::new();
    for (name, message) in [
        ("a%2Fb", r#"Name parameter invalid: "a/b": may not contain '/'"#),
        ("a%25b", r#"Name parameter invalid: "a%b": may not contain '%'"#),
        ("%2E%2E", r#"Name parameter invalid: "..": may not be '..'"#),
    ] {
        for method in ["GET", "DELETE"] {
            let answer = s.raw(method, &format!("{MAPS}/{name}"), JSON, "");
            refused(&answer, 400, "BadRequest", message);
        }
    }
    for name in ["Upper", "under_score", "-dash", "a..b", ".", "a b", "ä", &"x".repeat(254)] {
        let body = json!({"metadata":{"name":name}}).to_string();
        let answer = create(&s, MAPS, &body);
        assert_eq!((answer.failure().0, answer.failure().1.as_str()), (422, "Invalid"), "{name}");
        assert_eq!(causes(&answer).first().unwrap(), "metadata.name: FieldValueInvalid", "{name}");
    }
    let answer = create(&s, MAPS, r#"{"metadata":{"name":"Upper"}}"#);
    refused(
        &answer,
        422,
        "Invalid",
        r#"ConfigMap "Upper" is invalid: metadata.name: Invalid value: "Upper": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
    );
    let details = &answer.json()["details"];
    assert_eq!((details["name"].as_str(), details["kind"].as_str()), (Some("Upper"), Some("ConfigMap")));
}

#[test]
fn versions_that_are_stale_or_no_versions() {
    let s = Server::new();
    create(&s, MAPS, r#"{"metadata":{"name":"a"}}"#);
    let path = format!("{MAPS}/a");
    let stale = r#"{"metadata":{"name":"a","resourceVersion":"1"},"data":{"k":"v"}}"#;
    let put = s.raw("PUT", &path, JSON, stale);
    let message = r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#;
    refused(&put, 409, "Conflict", message);
    assert_eq!(put.json()["details"], json!({"name":"a","kind":"configmaps"}));
    let patch = s.raw("PATCH", &path, "application/merge-patch+json", stale);
    refused(&patch, 409, "Conflict", message);
    let group = create(
        &s,
        "/apis/apps/v1/namespaces/default/deployments",
        &json!({"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
            "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}})
        .to_string(),
    );
    let mut stale = group.json();
    stale["metadata"]["resourceVersion"] = "1".into();
    let put = s.raw("PUT", "/apis/apps/v1/namespaces/default/deployments/d", JSON, stale.to_string());
    assert!(
        put.failure().2.starts_with(r#"Operation cannot be fulfilled on deployments.apps "d": the object"#)
    );
    assert_eq!(put.json()["details"], json!({"name":"d","group":"apps","kind":"deployments"}));
    let uid = r#"{"preconditions":{"uid":"wrong"}}"#;
    let deleted = s.raw("DELETE", &path, JSON, uid);
    assert_eq!(deleted.failure().0, 409);
    assert!(
        deleted.failure().2.starts_with(
            r#"Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: wrong, UID in object meta: "#
        ),
        "{}",
        deleted.text()
    );
    let created = create(&s, MAPS, r#"{"metadata":{"name":"b","resourceVersion":"5"}}"#);
    refused(&created, 400, "BadRequest", "resourceVersion should not be set on objects to be created");
    for version in ["abc", "-1", "1.5", "99999999999999999999"] {
        let answer = read(&s, &format!("{MAPS}?resourceVersion={version}"));
        assert_eq!(answer.failure().0, 400, "{version}");
        assert!(
            answer.failure().2.starts_with(&format!(
                "invalid resource version: resourceVersion: Invalid value: \"{version}\": strconv.ParseUint"
            )),
            "{}",
            answer.text()
        );
    }
    let put = s.raw("PUT", &path, JSON, r#"{"metadata":{"name":"a","resourceVersion":"abc"}}"#);
    assert_eq!(put.failure().0, 422, "{}", put.text());
    assert_eq!(causes(&put), ["metadata.resourceVersion: FieldValueInvalid"]);
    let future = read(&s, &format!("{MAPS}?resourceVersion=999999"));
    assert_eq!((future.failure().0, future.failure().1.as_str()), (504, "Timeout"));
    assert_eq!(causes(&future), [": ResourceVersionTooLarge"]);
}

#[test]
fn options_of_lists_that_contradict_themselves() {
    let s = Server::new();
    let invalid = |options: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {options}");
    for (query, message) in [
        (
            "resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        (
            "resourceVersionMatch=Near&resourceVersion=1",
            "resourceVersionMatch: Unsupported value: \"Near\": supported values: \"\", \"Exact\", \"NotOlderThan\"",
        ),
        ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        (
            "watch=true&sendInitialEvents=true",
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=true&resourceVersionMatch=NotOlderThan&resourceVersion=1",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ] {
        refused(&read(&s, &format!("{MAPS}?{query}")), 422, "Invalid", &invalid(message));
    }
    for token in ["x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0", "%00"] {
        let answer = read(&s, &format!("{MAPS}?limit=1&continue={token}"));
        assert_eq!(answer.failure().0, 400, "{token}");
        assert!(
            answer.failure().2.starts_with("invalid continue token: continue key is not valid"),
            "{}",
            answer.text()
        );
    }
    for limit in ["-1", "x", "1e3"] {
        let answer = read(&s, &format!("{MAPS}?limit={limit}"));
        assert!(matches!(answer.code, 200 | 400), "{limit}: {}", answer.text());
    }
}

#[test]
fn the_past_is_gone_after_compaction() {
    let s = Server::new();
    for i in 0..4 {
        create(&s, MAPS, &json!({"metadata":{"name":format!("m{i}")}}).to_string());
    }
    let page = read(&s, &format!("{MAPS}?limit=2")).json();
    create(&s, MAPS, r#"{"metadata":{"name":"m9"}}"#);
    now(s.store.compact(s.store.revision())).unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let expired = read(&s, &format!("{MAPS}?limit=2&continue={token}"));
    let (code, reason, message) = expired.failure();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    assert!(
        message
            .starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
    let version = page["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = read(&s, &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"));
    refused(&exact, 410, "Expired", "The resourceVersion for the provided list is too old.");
    let events = s.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).objects();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event["type"].as_str(), event["object"]["kind"].as_str()), (Some("ERROR"), Some("Status")));
    assert_eq!(
        (event["object"]["code"].as_u64(), event["object"]["reason"].as_str()),
        (Some(410), Some("Expired"))
    );
    assert!(
        event["object"]["message"]
            .as_str()
            .unwrap()
            .starts_with(&format!("too old resource version: {version} ("))
    );
}

#[test]
fn media_types_that_nobody_speaks() {
    let s = Server::new();
    let text = s.raw("POST", MAPS, "text/plain", "{}");
    refused(
        &text,
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    );
    let patch = s.raw("PATCH", &format!("{MAPS}/a"), JSON, "{}");
    refused(
        &patch,
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
    );
    for (path, accept, code) in [
        (MAPS, "image/png", 406),
        (MAPS, "application/vnd.kubernetes.protobuf", 406),
        (MAPS, "application/vnd.kubernetes.protobuf, */*", 200),
        (MAPS, "application/json;as=Table;g=meta.k8s.io;v=v9", 406),
        (MAPS, "application/json; charset=utf-8", 200),
        (MAPS, "garbage;;;=,", 406),
    ] {
        let (got, body) = s.send("GET", path, &[("accept", accept)], &Value::Null);
        assert_eq!(got, code, "{accept}: {body}");
        if code == 406 {
            assert_eq!(body["reason"], "NotAcceptable");
            assert_eq!(
                body["message"],
                "only the following media types are accepted: application/json, application/yaml"
            );
        }
    }
}

#[test]
fn verbs_and_paths_that_are_not_there() {
    let s = Server::new();
    let not_allowed = "the server does not allow this method on the requested resource";
    for (method, path) in [
        ("PATCH", MAPS.to_string()),
        ("PUT", MAPS.to_string()),
        ("POST", format!("{MAPS}/a")),
        ("DELETE", format!("{PODS}/p/binding")),
        ("DELETE", "/api/v1/namespaces".to_string()),
        ("OPTIONS", MAPS.to_string()),
        ("TRACE", MAPS.to_string()),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_string()),
    ] {
        let answer = s.raw(method, &path, "application/merge-patch+json", "{}");
        refused(&answer, 405, "MethodNotAllowed", not_allowed);
        assert_eq!(answer.json()["details"], json!({}), "{method} {path}");
    }
    // In a group version that is served, the answer is a Status; elsewhere it is a page.
    for path in
        ["/api/v1/nothings", "/api/v1/namespaces/default/nothings/x", "/apis/apps/v1/foos", "/api/v1/pods/p"]
    {
        refused(&read(&s, path), 404, "NotFound", "the server could not find the requested resource");
    }
    for path in [
        "/nowhere",
        "/apis/no.such.group/v1/foos",
        "/apis/apps/v9/deployments",
        "/apis/no.such.group",
        "/api/v2",
    ] {
        let answer = read(&s, path);
        assert_eq!((answer.code, answer.text().as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.headers.get("content-type").unwrap(), "text/plain; charset=utf-8");
    }
    let missing = read(&s, "/apis/apps/v1/namespaces/default/deployments/d");
    refused(&missing, 404, "NotFound", r#"deployments.apps "d" not found"#);
    assert_eq!(missing.json()["details"], json!({"name":"d","group":"apps","kind":"deployments"}));
}

#[test]
fn options_of_writes_that_are_none() {
    let s = Server::new();
    create(&s, MAPS, r#"{"metadata":{"name":"a"}}"#);
    let merge = "application/merge-patch+json";
    let apply = "application/apply-patch+yaml";
    let path = format!("{MAPS}/a");
    for (answer, message) in [
        (
            create(&s, &format!("{MAPS}?dryRun=some"), "{}"),
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"some"}: supported values: "All""#,
        ),
        (
            s.raw("PUT", &format!("{path}?fieldValidation=x"), JSON, "{}"),
            r#"UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "x": supported values: "Ignore", "Strict", "Warn""#,
        ),
        (
            s.raw("PATCH", &format!("{path}?force=true"), merge, "{}"),
            r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
        ),
        (
            s.raw("PATCH", &path, apply, "{}"),
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
        ),
        (
            create(&s, &format!("{MAPS}?fieldManager={}", "m".repeat(129)), "{}"),
            r#"CreateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#,
        ),
        (
            create(&s, &format!("{MAPS}?fieldManager=a%07"), "{}"),
            r#"CreateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "a\u{7}": should only contain printable characters"#,
        ),
        (
            s.raw("DELETE", &path, JSON, r#"{"propagationPolicy":"Sideways"}"#),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Background", "Foreground", "Orphan", "nil""#,
        ),
        (
            s.raw("DELETE", &path, JSON, r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#,
        ),
    ] {
        refused(&answer, 422, "Invalid", message);
    }
    for body in ["[]", "3", "{\"gracePeriodSeconds\":\"x\"}", "{\"preconditions\":[]}", "{"] {
        let answer = s.raw("DELETE", &path, JSON, body);
        assert_eq!(answer.failure().0, 400, "{body}");
    }
    assert_eq!(read(&s, &path).code, 200, "nothing of this deleted it");
    for body in ["[]", "3", "null", "{\"spec\":3}", "{\"spec\":{\"resourceAttributes\":[]}}"] {
        let answer = create(&s, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body);
        assert_eq!(answer.failure().0, 400, "{body}: {}", answer.text());
    }
    for (path, body) in [
        (format!("{PODS}/p/eviction"), "[]"),
        (format!("{PODS}/p/binding"), "[]"),
        ("/api/v1/namespaces/default/serviceaccounts/default/token".to_string(), "[]"),
        ("/api/v1/namespaces/default/finalize".to_string(), "[]"),
    ] {
        let answer = s.raw(if path.ends_with("finalize") { "PUT" } else { "POST" }, &path, JSON, body);
        assert_eq!(answer.failure().0, 400, "{path}: {}", answer.text());
    }
}

#[test]
fn patches_that_do_not_fit() {
    let s = Server::new();
    create(&s, MAPS, r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#);
    let path = format!("{MAPS}/a");
    for (kind, body, code) in [
        ("json-patch", "{", 400),
        ("json-patch", "{}", 400),
        ("json-patch", r#"[{"op":"fly","path":"/data"}]"#, 422),
        ("json-patch", r#"[{"op":"remove","path":"/data/none"}]"#, 422),
        ("json-patch", r#"[{"op":"test","path":"/data/k","value":"w"}]"#, 422),
        ("json-patch", r#"[{"op":"replace","path":"/metadata/name","value":"b"}]"#, 400),
        ("json-patch", r#"[{"op":"replace","path":"/kind","value":"Secret"}]"#, 422),
        ("json-patch", r#"[{"op":"replace","path":"","value":[]}]"#, 422),
        ("json-patch", r#"[{"op":"add","path":"/data/k","value":{"deep":1}}]"#, 422),
        ("merge-patch", "[]", 400),
        ("merge-patch", "3", 400),
        ("merge-patch", r#"{"data":"text"}"#, 422),
        ("merge-patch", r#"{"metadata":{"uid":"other"}}"#, 409),
        ("merge-patch", r#"{"metadata":{"labels":{"a b":"c"}}}"#, 422),
        ("strategic-merge-patch", "[]", 400),
        ("strategic-merge-patch", r#"{"data":[1]}"#, 422),
        ("strategic-merge-patch", r#"{"$patch":"melt"}"#, 400),
    ] {
        let answer = s.raw("PATCH", &path, &format!("application/{kind}+json"), body);
        assert_eq!(answer.code, code, "{kind} {body}: {}", answer.text());
        assert_eq!(answer.failure().0, code);
    }
    let ops = format!("[{}]", vec![r#"{"op":"test","path":"/data/k","value":"v"}"#; 10_001].join(","));
    let answer = s.raw("PATCH", &path, "application/json-patch+json", ops);
    refused(
        &answer,
        413,
        "RequestEntityTooLarge",
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
    );
    let missing = s.raw("PATCH", &format!("{MAPS}/none"), "application/merge-patch+json", "{}");
    refused(&missing, 404, "NotFound", r#"configmaps "none" not found"#);
}
