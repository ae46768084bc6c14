use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::*;
use crate::resolve::tests::{Fixed, facts, pod};

fn files(volume: Value, sources: &Fixed) -> Result<Vec<(String, String, u32)>, ResolveError> {
    let pod = pod(json!({ "volumes": [volume] }));
    match volume_content(&pod, &pod.spec.volumes[0], &[], &facts(), sources)? {
        VolumeContent::Files { files, .. } => Ok(files
            .into_iter()
            .map(|f| (f.path, String::from_utf8(f.data.to_vec()).unwrap(), f.mode))
            .collect()),
        other => panic!("{other:?}"),
    }
}

fn sources() -> Fixed {
    Fixed::default()
        .with("ConfigMap", "cm", json!({ "data": { "a": "1" }, "binaryData": { "b": "Mg==" } }))
        .with("Secret", "s", json!({ "data": { "k": "djE=" } }))
}

#[test]
fn whole_objects_and_chosen_keys() {
    let all = files(json!({ "name": "v", "configMap": { "name": "cm" } }), &sources()).unwrap();
    assert_eq!(all, [("a".into(), "1".into(), 0o644), ("b".into(), "2".into(), 0o644)]);
    let one = json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 256,
        "items": [{ "key": "k", "path": "dir/key", "mode": 292 }] } });
    assert_eq!(files(one, &sources()).unwrap(), [("dir/key".into(), "v1".into(), 0o444)]);
}

#[test]
fn projected_sources_come_together() {
    let volume = json!({ "name": "kube-api-access", "projected": { "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
        { "configMap": { "name": "cm", "items": [{ "key": "a", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
    ] } });
    let names = files(volume, &sources()).unwrap();
    assert_eq!(
        names,
        [
            ("token".into(), "token".into(), 0o600),
            ("ca.crt".into(), "1".into(), 0o644),
            ("namespace".into(), "ns".into(), 0o644),
        ]
    );
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    for path in ["../x", "/x", "a/../../x", ""] {
        let volume =
            json!({ "name": "v", "configMap": { "name": "cm", "items": [{ "key": "a", "path": path }] } });
        assert!(files(volume, &sources()).is_err(), "{path}");
    }
}

#[test]
fn unknown_kinds_say_so() {
    let error = files(json!({ "name": "v", "nfs": { "server": "x" } }), &sources()).unwrap_err();
    assert_eq!(error.to_string(), "volumes[v]: nfs is not supported by this node yet");
}

#[test]
fn references_of_all_places() {
    let pod = pod(json!({
        "volumes": [{ "name": "v", "projected": { "sources": [{ "configMap": { "name": "ca" } }] } }],
        "imagePullSecrets": [{ "name": "pull" }],
        "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "env" } }] }],
        "containers": [{ "name": "c", "env": [
            { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "ca", "key": "k" } } }] }],
    }));
    assert_eq!(references(&pod), (Vec::from(["ca"]), Vec::from(["env", "pull"])));
}
