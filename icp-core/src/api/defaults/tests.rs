use super::*;
use crate::api::table::{self, from_crd};
use serde_json::json;

fn defaulted(group: &str, version: &str, resource: &str, mut object: Value) -> Value {
    let info = table::find(group, version, resource).unwrap();
    apply(info, &mut object);
    let once = object.clone();
    apply(info, &mut object);
    assert_eq!(object, once, "defaulting is idempotent");
    object
}

#[test]
fn pods() {
    let got = defaulted(
        "",
        "v1",
        "pods",
        json!({"spec":{"containers":[{"name":"a","image":"r.io:5000/x","resources":{"limits":{"cpu":"1","memory":"0.5m"}},
            "ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":80}},"env":[{"name":"E","valueFrom":{"fieldRef":{"fieldPath":"x"}}}]}],
            "serviceAccountName":"sa","volumes":[{"name":"e"},{"name":"s","secret":{"secretName":"s"}}]}}),
    );
    assert_eq!(
        got,
        json!({"spec":{
            "containers":[{"name":"a","image":"r.io:5000/x","imagePullPolicy":"Always",
                "resources":{"limits":{"cpu":"1","memory":"1m"},"requests":{"cpu":"1","memory":"1m"}},
                "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File",
                "ports":[{"containerPort":80,"protocol":"TCP"}],
                "livenessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},
                "env":[{"name":"E","valueFrom":{"fieldRef":{"fieldPath":"x","apiVersion":"v1"}}}]}],
            "volumes":[{"name":"e","emptyDir":{}},{"name":"s","secret":{"secretName":"s","defaultMode":420}}],
            "serviceAccountName":"sa","serviceAccount":"sa","dnsPolicy":"ClusterFirst","restartPolicy":"Always",
            "terminationGracePeriodSeconds":30,"schedulerName":"default-scheduler","securityContext":{},"enableServiceLinks":true}})
    );
    let pull = |image: &str| {
        defaulted("", "v1", "pods", json!({"spec":{"containers":[{"name":"a","image":image}]}}))["spec"]["containers"][0]
            ["imagePullPolicy"]
            .clone()
    };
    for (image, want) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("nginx@sha256:0", "IfNotPresent"),
    ] {
        assert_eq!(pull(image), want, "{image}");
    }
}

#[test]
fn workloads() {
    let template = json!({"metadata":{"labels":{"a":"b"}},"spec":{"containers":[]}});
    let d = defaulted("apps", "v1", "deployments", json!({"spec":{"template":template}}));
    assert_eq!(d["spec"]["replicas"], 1);
    assert_eq!(
        d["spec"]["strategy"],
        json!({"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}})
    );
    assert_eq!(d["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert!(d["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
    let d =
        defaulted("apps", "v1", "deployments", json!({"spec":{"replicas":0,"strategy":{"type":"Recreate"}}}));
    assert_eq!(d["spec"]["strategy"], json!({"type":"Recreate"}));
    assert_eq!(d["spec"]["replicas"], 0);

    let s = defaulted("apps", "v1", "statefulsets", json!({"spec":{"volumeClaimTemplates":[{"spec":{}}]}}));
    assert_eq!(s["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(s["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");

    let j = defaulted("batch", "v1", "jobs", json!({"spec":{"template":template}}));
    assert_eq!((&j["spec"]["completions"], &j["spec"]["parallelism"]), (&json!(1), &json!(1)));
    assert_eq!((&j["spec"]["backoffLimit"], &j["metadata"]["labels"]["a"]), (&json!(6), &json!("b")));
    let j = defaulted("batch", "v1", "jobs", json!({"spec":{"parallelism":3}}));
    assert!(j["spec"].get("completions").is_none());

    let rc = defaulted("", "v1", "replicationcontrollers", json!({"spec":{"template":template}}));
    assert_eq!((&rc["spec"]["selector"]["a"], &rc["metadata"]["labels"]["a"]), (&json!("b"), &json!("b")));
}

#[test]
fn others() {
    let s = defaulted(
        "",
        "v1",
        "services",
        json!({"spec":{"type":"NodePort","sessionAffinity":"ClientIP","ports":[{"port":80,"targetPort":"http"}]}}),
    );
    assert_eq!(s["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(s["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(s["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);

    let s = defaulted("", "v1", "secrets", json!({"data":{"a":"eA=="},"stringData":{"b":"x"}}));
    assert_eq!(s, json!({"type":"Opaque","data":{"a":"eA==","b":"eA=="}}));

    let n = defaulted("", "v1", "namespaces", json!({"metadata":{"name":"x"}}));
    assert_eq!(n["metadata"]["labels"]["kubernetes.io/metadata.name"], "x");

    let p = defaulted(
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        json!({"spec":{"egress":[{"ports":[{"port":53}]}]}}),
    );
    assert_eq!(p["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(p["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");

    let b = defaulted(
        "rbac.authorization.k8s.io",
        "v1",
        "rolebindings",
        json!({"roleRef":{"kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"s"}]}),
    );
    assert_eq!(b["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(b["subjects"][1].get("apiGroup").is_none());

    let l = defaulted(
        "",
        "v1",
        "limitranges",
        json!({"spec":{"limits":[{"type":"Container","max":{"cpu":"2"},"min":{"memory":"1"}}]}}),
    );
    assert_eq!(l["spec"]["limits"][0]["defaultRequest"], json!({"cpu":"2","memory":"1"}));
    for info in table::builtin() {
        // No kind trips over an object without anything.
        defaulted(&info.gvr.group, &info.gvr.version, &info.gvr.resource, json!({}));
        defaulted(&info.gvr.group, &info.gvr.version, &info.gvr.resource, json!({"spec":null,"metadata":[]}));
    }
}

#[test]
fn custom_resources() {
    let crd = json!({"spec":{"group":"e.com","names":{"plural":"ws","kind":"W"},"versions":[{"name":"v1","served":true,
        "schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","default":{},
            "properties":{"size":{"type":"integer","default":3},
                "parts":{"type":"array","items":{"type":"object","properties":{"on":{"type":"boolean","default":true}}}}}}}}}}]}});
    let info = from_crd(&crd).remove(0);
    let mut object = json!({"spec":{"parts":[{},{"on":false}]}});
    apply(&info, &mut object);
    assert_eq!(object, json!({"spec":{"size":3,"parts":[{"on":true},{"on":false}]}}));
    let mut object = json!({});
    apply(&info, &mut object);
    assert_eq!(object, json!({"spec":{"size":3}}));
}
