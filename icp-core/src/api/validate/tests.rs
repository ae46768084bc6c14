use super::*;
use crate::api::{defaults, invalid, table};
use serde_json::json;

fn check(group: &str, version: &str, resource: &str, mut object: Value) -> Vec<String> {
    let info = table::find(group, version, resource).unwrap();
    if object.get("metadata").is_none() {
        object["metadata"] = json!({"name":"x"});
    }
    if info.namespaced {
        object["metadata"]["namespace"] = "ns".into();
    }
    defaults::apply(info, &mut object);
    create(info, &object).iter().map(|e| format!("{e}")).collect()
}

fn pod(spec: Value) -> Vec<String> {
    check("", "v1", "pods", json!({"spec":spec}))
}

#[test]
fn good_objects_pass() {
    let template = json!({"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}});
    let selector = json!({"matchLabels":{"a":"b"}});
    let spec = json!({"selector":selector,"template":template});
    for (group, version, resource, object) in [
        ("", "v1", "pods", json!({"spec":template["spec"]})),
        ("", "v1", "namespaces", json!({})),
        ("", "v1", "nodes", json!({})),
        ("", "v1", "configmaps", json!({"data":{"a":"b"}})),
        ("", "v1", "secrets", json!({"stringData":{"a":"b"}})),
        ("", "v1", "serviceaccounts", json!({})),
        ("", "v1", "services", json!({"spec":{"ports":[{"port":80}]}})),
        ("", "v1", "endpoints", json!({"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":1}]}]})),
        ("", "v1", "replicationcontrollers", json!({"spec":{"template":template}})),
        (
            "",
            "v1",
            "persistentvolumeclaims",
            json!({"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}),
        ),
        (
            "",
            "v1",
            "persistentvolumes",
            json!({"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/x"}}}),
        ),
        ("", "v1", "resourcequotas", json!({"spec":{"hard":{"pods":"1"}}})),
        ("", "v1", "limitranges", json!({"spec":{"limits":[{"type":"Container","max":{"cpu":"1"}}]}})),
        ("", "v1", "events", json!({"involvedObject":{}})),
        ("apps", "v1", "deployments", json!({"spec":spec})),
        ("apps", "v1", "replicasets", json!({"spec":spec})),
        ("apps", "v1", "daemonsets", json!({"spec":spec})),
        ("apps", "v1", "statefulsets", json!({"spec":spec})),
        ("apps", "v1", "controllerrevisions", json!({"data":{}})),
        (
            "batch",
            "v1",
            "jobs",
            json!({"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}),
        ),
        (
            "batch",
            "v1",
            "cronjobs",
            json!({"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"OnFailure","containers":[{"name":"c","image":"i"}]}}}}}}),
        ),
        (
            "autoscaling",
            "v2",
            "horizontalpodautoscalers",
            json!({"spec":{"scaleTargetRef":{"kind":"D","name":"x"},"maxReplicas":2}}),
        ),
        ("coordination.k8s.io", "v1", "leases", json!({"spec":{"holderIdentity":"a"}})),
        (
            "discovery.k8s.io",
            "v1",
            "endpointslices",
            json!({"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]}),
        ),
        (
            "networking.k8s.io",
            "v1",
            "networkpolicies",
            json!({"spec":{"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}]}}),
        ),
        (
            "networking.k8s.io",
            "v1",
            "ingresses",
            json!({"spec":{"rules":[{"host":"*.a.b","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":80}}}}]}}]}}),
        ),
        ("policy", "v1", "poddisruptionbudgets", json!({"spec":{"minAvailable":1,"selector":selector}})),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "roles",
            json!({"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}),
        ),
        ("rbac.authorization.k8s.io", "v1", "clusterroles", json!({})),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "rolebindings",
            json!({"roleRef":{"kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"u"}]}),
        ),
        ("scheduling.k8s.io", "v1", "priorityclasses", json!({"value":0})),
        (
            "scheduling.k8s.io",
            "v1beta1",
            "podgroups",
            json!({"spec":{"schedulingPolicy":{"gang":{"minCount":2}},"disruptionMode":{"single":{}},
                "workloadRef":{"workloadName":"w","templateName":"t"}}}),
        ),
        (
            "scheduling.k8s.io",
            "v1beta1",
            "workloads",
            json!({"spec":{"controllerRef":{"apiGroup":"batch","kind":"Job","name":"j"},
                "podGroupTemplates":[{"name":"a","schedulingPolicy":{"basic":{}}}]}}),
        ),
        ("storage.k8s.io", "v1", "storageclasses", json!({"provisioner":"a.b/c"})),
        ("storage.k8s.io", "v1", "csinodes", json!({"spec":{}})),
        ("node.k8s.io", "v1", "runtimeclasses", json!({"handler":"runc"})),
        (
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            json!({"spec":{"resourceAttributes":{"verb":"get"}}}),
        ),
        ("authentication.k8s.io", "v1", "selfsubjectreviews", json!({})),
        (
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            json!({"spec":{"request":"eA==","signerName":"a.b/c"}}),
        ),
    ] {
        assert_eq!(check(group, version, resource, object), Vec::<String>::new(), "{resource}");
    }
}

#[test]
fn pods() {
    assert_eq!(pod(json!({})), ["spec.containers: Required value"]);
    assert_eq!(
        pod(json!({"containers":[{"name":"A_","image":""}],"restartPolicy":"Sometimes"}))[0],
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\""
    );
    let one = |c: Value| pod(json!({"containers":[c]}));
    assert_eq!(one(json!({"name":"a"})), ["spec.containers[0].image: Required value"]);
    assert_eq!(one(json!({"image":"i"})), ["spec.containers[0].name: Required value"]);
    assert_eq!(
        one(json!({"name":"a","image":"i","volumeMounts":[{"name":"v","mountPath":"/x"}]})),
        ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
    );
    assert_eq!(
        one(json!({"name":"a","image":"i","resources":{"limits":{"cpu":"1"},"requests":{"cpu":"2"}}})),
        [
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
        ]
    );
    assert_eq!(
        one(json!({"name":"a","image":"i","ports":[{"containerPort":70000}]})),
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"
        ]
    );
    assert_eq!(
        one(json!({"name":"a","image":"i","livenessProbe":{"initialDelaySeconds":1}})),
        ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]
    );
    assert_eq!(
        one(json!({"name":"a","image":"i","env":[{"name":"","value":"x"}]})),
        ["spec.containers[0].env[0].name: Required value"]
    );
    assert_eq!(
        pod(json!({"containers":[{"name":"a","image":"i"},{"name":"a","image":"i"}]})),
        ["spec.containers[1].name: Duplicate value: \"a\""]
    );
}

#[test]
fn others() {
    assert_eq!(
        check("", "v1", "services", json!({"spec":{"ports":[{"port":80},{"port":80}]}})),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80}",
        ]
    );
    assert_eq!(
        check("apps", "v1", "deployments", json!({"spec":{"replicas":-1}})),
        [
            "spec.selector: Required value",
            "spec.template: Required value",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
    let name = |n: &str| check("", "v1", "configmaps", json!({"metadata":{"name":n}}));
    assert!(
        name("Bad")[0]
            .starts_with("metadata.name: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain must")
    );
    assert_eq!(name(""), ["metadata.name: Required value: name or generateName is required"]);
    let big = json!({"metadata":{"name":"a","annotations":{"a":"x".repeat(300_000)}}});
    assert_eq!(
        check("", "v1", "configmaps", big),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    let info = table::find("", "v1", "configmaps").unwrap();
    let status = invalid(
        info,
        "a",
        &create(info, &json!({"metadata":{"name":"A","namespace":"n","labels":{"-":"b c"}}})),
    );
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let details = status.details.unwrap();
    assert_eq!(details.causes.len(), 3);
    assert_eq!(
        (details.causes[0].field.as_str(), details.causes[0].reason.as_str()),
        ("metadata.name", "FieldValueInvalid")
    );
    assert!(status.message.starts_with("ConfigMap \"a\" is invalid: [metadata.name: Invalid value: "));
}

#[test]
fn schedules_and_time_zones() {
    let job = |schedule: &str, zone: Value| {
        let template = json!({"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}});
        let mut spec = json!({"schedule":schedule,"jobTemplate":template});
        if !zone.is_null() {
            spec["timeZone"] = zone;
        }
        check("batch", "v1", "cronjobs", json!({ "spec": spec }))
    };
    assert!(job("*/5 0-3 1,15 jan-mar MON", json!("America/Bahia")).is_empty());
    assert!(job("@hourly", Value::Null).is_empty());
    assert_eq!(
        job("60 * * * *", Value::Null),
        ["spec.schedule: Invalid value: \"60 * * * *\": end of range (60) above maximum (59): 60"]
    );
    assert_eq!(
        job("@daily", json!("Nowhere")),
        ["spec.timeZone: Invalid value: \"Nowhere\": unknown time zone Nowhere"]
    );
    assert_eq!(
        job("@daily", json!("")),
        ["spec.timeZone: Invalid value: \"\": must be nil or non-empty string"]
    );
    assert!(job("@daily", json!("Local"))[0].contains("explicit time zone"));
}

#[test]
fn disruption_budgets() {
    let budget = |spec: Value| check("policy", "v1", "poddisruptionbudgets", json!({ "spec": spec }));
    for good in
        [json!({}), json!({"minAvailable": 0}), json!({"maxUnavailable": "100%"}), json!({"selector": {}})]
    {
        assert!(budget(good.clone()).is_empty(), "{good}");
    }
    assert_eq!(
        budget(json!({"minAvailable": -1})),
        ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]
    );
    assert_eq!(
        budget(json!({"maxUnavailable": "101%"})),
        ["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]
    );
    let fault = &budget(json!({"maxUnavailable": "many"}))[0];
    assert!(
        fault.starts_with("spec.maxUnavailable: Invalid value: \"many\": a valid percent string"),
        "{fault}"
    );
    assert!(budget(json!({"minAvailable": 1, "maxUnavailable": 1}))[0].ends_with("cannot be both set"));
    assert_eq!(
        budget(json!({"unhealthyPodEvictionPolicy": "Never"})),
        [
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\""
        ]
    );
}

#[test]
fn updates() {
    let run = |group: &str, version: &str, resource: &str, new: Value, old: Value| -> Vec<String> {
        let info = table::find(group, version, resource).unwrap();
        update(info, None, &new, &old).iter().map(|e| format!("{e}")).collect()
    };
    let pod = |image: &str, node: &str, tolerations: Value| json!({"metadata":{"name":"a","namespace":"n"},"spec":{"nodeName":node,"tolerations":tolerations,"containers":[{"name":"c","image":image}]}});
    let old = pod("i:1", "w", json!([]));
    assert!(run("", "v1", "pods", pod("i:2", "w", json!([{"operator":"Exists"}])), old.clone()).is_empty());
    let moved = run("", "v1", "pods", pod("i:1", "v", json!([])), old.clone());
    assert!(
        moved[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{moved:?}"
    );

    let cm = |v: &str, immutable: bool| json!({"metadata":{"name":"a","namespace":"n"},"data":{"k":v},"immutable":immutable});
    assert!(run("", "v1", "configmaps", cm("2", false), cm("1", false)).is_empty());
    assert_eq!(
        run("", "v1", "configmaps", cm("2", true), cm("1", true)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let deployment = |l: &str| {
        json!({"metadata":{"name":"a","namespace":"n"},"spec":{"selector":{"matchLabels":{"a":l}},
            "template":{"metadata":{"labels":{"a":l}},"spec":{"containers":[{"name":"c","image":"i"}]}}}})
    };
    assert_eq!(
        run("apps", "v1", "deployments", deployment("2"), deployment("1")),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"2\"}}: field is immutable"]
    );
    let meta = |uid: &str| json!({"metadata":{"name":"a","namespace":"n","uid":uid}});
    assert_eq!(
        run("", "v1", "configmaps", meta("2"), meta("1")),
        ["metadata.uid: Invalid value: \"2\": field is immutable"]
    );
}

#[test]
fn custom_resources() {
    let crd = json!({"metadata":{"name":"ws.e.com"},"spec":{"group":"e.com","scope":"Namespaced","names":{"plural":"ws","kind":"W"},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","required":["spec"],
            "properties":{"spec":{"type":"object","required":["size"],"properties":{
                "size":{"type":"integer","maximum":10},"color":{"type":"string","enum":["red","blue"],"maxLength":4},
                "parts":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
                "port":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}}}}}}}]}});
    assert_eq!(
        check("apiextensions.k8s.io", "v1", "customresourcedefinitions", crd.clone()),
        Vec::<String>::new()
    );
    let info = table::from_crd(&crd).remove(0);
    let run = |spec: Value| -> Vec<String> {
        let object = json!({"metadata":{"name":"a","namespace":"n"},"spec":spec});
        create(&info, &object).iter().map(|e| format!("{e}")).collect()
    };
    assert!(run(json!({"size":10,"color":"red","parts":["a"],"port":"http"})).is_empty());
    assert_eq!(run(json!({})), ["spec.size: Required value"]);
    assert_eq!(
        run(json!({"size":"x","color":"green","parts":["a","a"],"port":true})),
        [
            "spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\"",
            "spec.color: Too long: may not be more than 4 bytes",
            "spec.parts[1]: Duplicate value: \"a\"",
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ]
    );
    assert_eq!(
        run(json!({"size":11})),
        ["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"]
    );
}

#[test]
fn pod_groups_and_workloads() {
    let of =
        |resource: &str, spec: Value| check("scheduling.k8s.io", "v1beta1", resource, json!({"spec":spec}));
    let group = |spec| of("podgroups", spec);
    assert_eq!(group(json!({})), ["spec.schedulingPolicy: Required value"]);
    for (policy, fault) in [
        (json!({}), "spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"),
        (
            json!({"basic":{},"gang":{"minCount":1}}),
            "spec.schedulingPolicy: Invalid value: \"{`basic`, `gang`}\": exactly one of `basic`, `gang` is required, but multiple fields are set",
        ),
        (json!({"gang":{}}), "spec.schedulingPolicy.gang.minCount: Required value"),
        (json!({"gang":{"minCount":0}}), "spec.schedulingPolicy.gang.minCount: Required value"),
        (
            json!({"gang":{"minCount":-1}}),
            "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1",
        ),
    ] {
        assert_eq!(group(json!({"schedulingPolicy":policy})), [fault]);
    }
    // What nobody would act on is refused.
    let with = |field: &str, value: Value| group(json!({"schedulingPolicy":{"basic":{}}, field: value}));
    for (field, value) in [
        ("schedulingConstraints", json!({"topology":[{"key":"rack"}]})),
        ("resourceClaims", json!([{"name":"a","resourceClaimName":"b"}])),
        ("parentCompositePodGroupName", json!("p")),
        ("preemptionPolicy", json!("Never")),
        ("disruptionMode", json!({"all":{}})),
    ] {
        let faults = with(field, value);
        assert!(
            faults[0].starts_with(&format!("spec.{field}")) && faults[0].contains(": Forbidden: "),
            "{faults:?}"
        );
    }
    let workload = |templates: Value| of("workloads", json!({"podGroupTemplates":templates}));
    let template = |name: &str| json!({"name":name,"schedulingPolicy":{"gang":{"minCount":2}}});
    assert_eq!(workload(json!([])), ["spec.podGroupTemplates: Required value: must have at least one item"]);
    let nine: Vec<Value> = (0..9).map(|n| template(&format!("t{n}"))).collect();
    assert_eq!(workload(json!(nine)), ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"]);
    let twice = workload(json!([template("a"), template("a")]));
    assert!(twice[0].starts_with("spec.podGroupTemplates[1]: Duplicate value"), "{twice:?}");
    let named = workload(json!([template("A.b")]));
    assert!(named[0].starts_with("spec.podGroupTemplates[0].name: Invalid value: \"A.b\""), "{named:?}");
    assert!(
        pod(json!({"containers":[{"name":"c","image":"i"}],"schedulingGroup":{"podGroupName":"A"}}))[0]
            .starts_with("spec.schedulingGroup.podGroupName: Invalid value")
    );
}

#[test]
fn of_a_group_only_the_count_may_change() {
    let run = |resource: &str, new: &Value, old: &Value| -> Vec<String> {
        let info = table::find("scheduling.k8s.io", "v1beta1", resource).unwrap();
        let whole = |spec: &Value| json!({"metadata":{"name":"a","namespace":"n"},"spec":spec});
        update(info, None, &whole(new), &whole(old)).iter().map(|e| format!("{e}")).collect()
    };
    let gang = |n: i64| json!({"schedulingPolicy":{"gang":{"minCount":n}}});
    let basic = json!({"schedulingPolicy":{"basic":{}}});
    assert!(run("podgroups", &gang(3), &gang(2)).is_empty());
    assert_eq!(
        run("podgroups", &basic, &gang(2)),
        [
            "spec.schedulingPolicy.basic: Invalid value: {}: field is immutable",
            "spec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set",
        ]
    );
    let mut classed = gang(2);
    classed["priorityClassName"] = "high".into();
    assert_eq!(
        run("podgroups", &classed, &gang(2)),
        ["spec.priorityClassName: Invalid value: \"high\": field is immutable"]
    );
    let workload = |names: &[&str], n: i64| {
        let of = |name: &&str| json!({"name":name,"schedulingPolicy":{"gang":{"minCount":n}}});
        json!({"podGroupTemplates":names.iter().map(of).collect::<Vec<_>>()})
    };
    assert!(run("workloads", &workload(&["a"], 3), &workload(&["a"], 2)).is_empty());
    assert_eq!(
        run("workloads", &workload(&["a", "b"], 2), &workload(&["a"], 2)),
        [
            "spec.podGroupTemplates: Forbidden: templates cannot be added or removed once the workload is created"
        ]
    );
}
