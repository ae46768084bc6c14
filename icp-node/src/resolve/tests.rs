use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::api::Object;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pod::Pod;
use crate::runtime::{ContainerKind, Image};

/// Config maps and secrets by `kind/name`.
#[derive(Default)]
pub(crate) struct Fixed(pub(crate) BTreeMap<String, Arc<Object>>, pub(crate) Vec<Arc<Object>>);

impl Fixed {
    pub(crate) fn with(mut self, kind: &str, name: &str, rest: Value) -> Self {
        let mut object = Object::new("v1", kind, "ns", name);
        object.rest = rest.as_object().unwrap().clone().into();
        self.0.insert(alloc::format!("{kind}/{name}"), Arc::new(object));
        self
    }

    fn find(&self, kind: &str, name: &str) -> Source {
        self.0.get(&alloc::format!("{kind}/{name}")).cloned().map_or(Source::Missing, Source::Found)
    }
}

impl Sources for Fixed {
    fn config_map(&self, _: &str, name: &str) -> Source {
        self.find("ConfigMap", name)
    }
    fn secret(&self, _: &str, name: &str) -> Source {
        self.find("Secret", name)
    }
    fn token(&self, _: &TokenProjection) -> Option<String> {
        Some("token".into())
    }
    fn services(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.1.iter().filter(|s| s.metadata.namespace == namespace).cloned().collect()
    }
}

pub(crate) fn pod(spec: Value) -> Pod {
    let mut o = Object::new("v1", "Pod", "ns", "web");
    o.metadata.uid = "u1".into();
    o.metadata.labels.insert("app".into(), "web".into());
    o.rest.insert("spec".into(), spec);
    Pod::from_object(&o).unwrap()
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        name: "n1".into(),
        ips: vec!["192.168.0.1".parse().unwrap()],
        cluster_dns: vec!["10.96.0.10".into()],
        cluster_domain: "cluster.local".into(),
        host_dns: DnsConfig {
            servers: vec!["9.9.9.9".into()],
            searches: vec!["corp".into()],
            options: vec![],
        },
        allocatable: BTreeMap::from([("cpu".into(), 4000), ("memory".into(), 8_000_000)]),
        memory_bytes: 8 << 30,
    }
}

fn spec_of(pod: &Pod, sources: &Fixed) -> Result<crate::runtime::ContainerSpec, ResolveError> {
    let ips = ["10.1.0.7".parse().unwrap()];
    container_spec(
        pod,
        ContainerKind::Regular,
        &pod.spec.containers[0],
        &Image::default(),
        &ips,
        &facts(),
        sources,
    )
}

#[test]
fn environment_in_order_with_references() {
    let sources = Fixed::default().with("ConfigMap", "cm", json!({ "data": { "A": "1", "B": "2" } })).with(
        "Secret",
        "s",
        json!({ "data": { "PASSWORD": "aHVudGVyMg==" } }),
    );
    let pod = pod(json!({ "enableServiceLinks": false, "containers": [{ "name": "c", "image": "x",
        "args": ["$(A)-$(POD_IP)", "$(NOPE)"],
        "envFrom": [{ "prefix": "CM_", "configMapRef": { "name": "cm" } },
                    { "configMapRef": { "name": "absent", "optional": true } }],
        "env": [
            { "name": "A", "value": "x$(CM_B)" },
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
            { "name": "PW", "valueFrom": { "secretKeyRef": { "name": "s", "key": "PASSWORD" } } },
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "requests.memory", "divisor": "1Mi" } } },
            { "name": "GONE", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "Z", "optional": true } } },
        ],
        "resources": { "requests": { "memory": "65Mi" } } }] }));
    let spec = spec_of(&pod, &sources).unwrap();
    let env: Vec<_> = spec.env.iter().map(|(k, v)| alloc::format!("{k}={v}")).collect();
    let want = ["CM_A=1", "CM_B=2", "A=x2", "POD_IP=10.1.0.7", "LABEL=web", "PW=hunter2", "CPU=4", "MEM=65"];
    assert_eq!(env, want);
    assert_eq!(spec.args, ["x2-10.1.0.7", "$(NOPE)"]);
}

#[test]
fn what_is_missing_is_named() {
    let container = |env: Value| pod(json!({ "containers": [{ "name": "c", "env": [env] }] }));
    let key = |name: &str, key: &str| json!({ "name": "X", "valueFrom": { "configMapKeyRef": { "name": name, "key": key } } });
    let sources = Fixed::default().with("ConfigMap", "cm", json!({ "data": {} }));
    let error = |env| spec_of(&container(env), &sources).unwrap_err().to_string();
    assert_eq!(error(key("absent", "k")), "configmap \"absent\" not found");
    assert_eq!(error(key("cm", "k")), "couldn't find key k in ConfigMap ns/cm");
}

#[test]
fn services_become_variables() {
    let service = |ns: &str, name: &str, ip: &str| {
        let mut o = Object::new("v1", "Service", ns, name);
        let ports = json!([{ "name": "http", "port": 80, "protocol": "TCP" }]);
        o.rest.insert("spec".into(), json!({ "clusterIP": ip, "ports": ports }));
        Arc::new(o)
    };
    let sources = Fixed(
        BTreeMap::new(),
        vec![
            service("default", "kubernetes", "10.96.0.1"),
            service("ns", "my-web", "10.96.0.7"),
            service("ns", "headless", "None"),
        ],
    );
    let pod = pod(json!({ "containers": [{ "name": "c" }] }));
    let env: BTreeMap<_, _> = spec_of(&pod, &sources).unwrap().env.into_iter().collect();
    assert_eq!(env["MY_WEB_SERVICE_HOST"], "10.96.0.7");
    assert_eq!(env["MY_WEB_SERVICE_PORT_HTTP"], "80");
    assert_eq!(env["MY_WEB_PORT_80_TCP"], "tcp://10.96.0.7:80");
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert!(!env.keys().any(|k| k.starts_with("HEADLESS")));
}

#[test]
fn dns_policies() {
    let text = |spec: Value| resolv_conf(&pod_dns(&pod(spec), &facts()));
    assert_eq!(
        text(json!({})),
        "search ns.svc.cluster.local svc.cluster.local cluster.local corp\nnameserver 10.96.0.10\n\
         options ndots:5\n"
    );
    assert_eq!(text(json!({ "dnsPolicy": "Default" })), "search corp\nnameserver 9.9.9.9\n");
    assert_eq!(text(json!({ "hostNetwork": true })), "search corp\nnameserver 9.9.9.9\n");
    assert_eq!(
        text(json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } })),
        "nameserver 1.1.1.1\noptions ndots:2 edns0\n"
    );
}

#[test]
fn hosts_and_names() {
    let pod = pod(json!({ "hostname": "web-0", "subdomain": "web",
        "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] }));
    let text = hosts_file(&pod, &["10.1.0.7".parse().unwrap()], &facts());
    assert!(text.contains("10.1.0.7\tweb-0.web.ns.svc.cluster.local\tweb-0\n"), "{text}");
    assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    assert_eq!(sandbox_spec(&pod, &facts()).hostname, "web-0");
}

#[test]
fn users_and_paths_are_checked() {
    let root = pod(json!({ "securityContext": { "runAsNonRoot": true }, "containers": [{ "name": "c" }] }));
    let error = spec_of(&root, &Fixed::default()).unwrap_err().to_string();
    assert_eq!(error, "securityContext.runAsNonRoot: container has runAsNonRoot and image will run as root");
    let mount = |sub: &str| {
        pod(json!({ "volumes": [{ "name": "v", "emptyDir": {} }], "containers": [{ "name": "c",
            "env": [{ "name": "D", "value": "/etc" }],
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "subPathExpr": sub }] }] }))
    };
    for bad in ["../x", "$(D)/x", "$(UNSET)"] {
        assert!(spec_of(&mount(bad), &Fixed::default()).is_err(), "{bad}");
    }
    assert!(spec_of(&mount("a/b"), &Fixed::default()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Text without a reference stays; nothing panics on any text.
    #[test]
    fn expansion_keeps_plain_text(text in "[a-z$() é]{0,24}") {
        let out = expand(&text, &|_| None);
        if !text.contains("$$") {
            prop_assert_eq!(out, text);
        }
    }
}

#[test]
fn files_that_the_node_writes_are_mounted_read_only() {
    let read_only = |mut volume: Value| {
        volume["name"] = json!("v");
        let pod = pod(json!({ "volumes": [volume], "containers": [{ "name": "c", "image": "i",
            "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }] }));
        spec_of(&pod, &Fixed::default()).unwrap().mounts.iter().any(|m| m.path == "/v" && m.read_only)
    };
    for volume in [
        json!({ "configMap": { "name": "m" } }),
        json!({ "secret": { "secretName": "s" } }),
        json!({ "projected": { "sources": [] } }),
        json!({ "downwardAPI": { "items": [] } }),
    ] {
        assert!(read_only(volume.clone()), "{volume}");
    }
    for volume in [json!({ "emptyDir": {} }), json!({ "hostPath": { "path": "/p" } })] {
        assert!(!read_only(volume.clone()), "{volume}");
    }
}
