//! Archives.

use icp_node::runtime::{Outcome, PullPolicy, RuntimeError, RuntimeOp};
use tar::EntryType;

use super::{Case, cases};
use crate::lab::{Lab, Node, add, archive, script, sha};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![layers_and_whiteouts, oci_layouts, broken_archives, images_are_removed]
}

fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in entries {
        add(&mut tar, path, EntryType::Regular, text.as_bytes(), 0o644);
    }
    tar.into_inner().unwrap()
}

fn busybox_layer() -> Vec<u8> {
    let program = crate::lab::busybox_program().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["bin/sh", "bin/cat", "bin/ls"] {
        add(&mut tar, name, EntryType::Regular, &program, 0o755);
    }
    tar.into_inner().unwrap()
}

async fn layers_and_whiteouts(lab: Lab) {
    let node = Node::open(&lab, &lab.fresh()).await;
    let layers = [
        busybox_layer(),
        layer(&[("d/a", "1"), ("d/b", "1"), ("o/x", "1")]),
        layer(&[("d/.wh.a", ""), ("o/.wh..wh..opq", ""), ("o/y", "2")]),
    ];
    let path = lab.fresh().join("image.tar");
    std::fs::write(&path, archive(&layers, &serde_json::json!({}), &["layers:1"])).unwrap();
    let names = node.runtime.load_image(&path).await.unwrap();
    assert_eq!(names, ["docker.io/library/layers:1"]);
    node.sandbox("p").await;
    let mut spec = script("ls /d /o; cat /o/y; ls -d /d/../.. ; echo > /d/new");
    spec.image = "layers:1".into();
    let (_, log) = node.run("p", "a", spec.clone()).await;
    assert_eq!(log, "/d:\nb\n\n/o:\ny\n2/d/../..\n");
    // What a container writes stays in it.
    let (_, log) = node.run("p", "b", spec).await;
    assert!(log.starts_with("/d:\nb\n\n"), "{log}");
    let container = |spec: &mut icp_node::runtime::ContainerSpec| spec.command.clear();
    let mut spec = script("");
    spec.image = "layers:1".into();
    container(&mut spec);
    let none = node.start("p", "c", spec).await;
    assert!(matches!(none, Err(RuntimeError::Config { .. })), "{none:?}");
    node.remove("p").await;
}

async fn oci_layouts(lab: Lab) {
    let dir = lab.fresh();
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let blob = |data: &[u8]| {
        let digest = sha(data);
        std::fs::write(dir.join("blobs/sha256").join(&digest), data).unwrap();
        serde_json::json!({"digest": format!("sha256:{digest}"), "size": data.len()})
    };
    let plain = busybox_layer();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &plain).unwrap();
    let layer = blob(&zipped.finish().unwrap());
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({"architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/sh", "-c", "echo oci"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha(&plain))]}});
    let config = blob(config.to_string().as_bytes());
    let manifest = blob(
        serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string().as_bytes(),
    );
    let mut other = manifest.clone();
    other["platform"] = serde_json::json!({"os": "windows", "architecture": arch});
    let mut named = manifest;
    named["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    named["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "example.com/oci:1"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [other, named]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let node = Node::open(&lab, &lab.fresh()).await;
    let names = node.runtime.load_image(&dir).await.unwrap();
    assert_eq!(names[0], "example.com/oci:1");
    assert!(names[1].starts_with("example.com/oci@sha256:"), "{names:?}");
    node.sandbox("p").await;
    for (n, image) in names.iter().enumerate() {
        let mut spec = script("");
        spec.command.clear();
        spec.image.clone_from(image);
        assert_eq!(node.run("p", &format!("c{n}"), spec).await.1, "oci\n");
    }
    node.remove("p").await;
}

async fn broken_archives(lab: Lab) {
    let node = Node::open(&lab, &lab.fresh()).await;
    let path = lab.fresh().join("image.tar");
    let good = archive(&[busybox_layer()], &serde_json::json!({}), &["x:1"]);
    let mut corrupt = good.clone();
    let at = corrupt.windows(8).position(|w| w == b"BusyBox ").unwrap();
    corrupt[at] ^= 1;
    for (data, why) in [
        (b"no archive at all".to_vec(), ""),
        (layer(&[("some", "file")]), "not an image archive"),
        (good[..good.len() / 2].to_vec(), ""),
        (corrupt, "digest"),
        (archive(&[layer(&[("../../x", "evil")])], &serde_json::json!({}), &["x:1"]), "leads out"),
        (archive(&[], &serde_json::json!({}), &["Bad Name"]), "invalid reference"),
    ] {
        std::fs::write(&path, data).unwrap();
        let error = node.runtime.load_image(&path).await.unwrap_err();
        let RuntimeError::ImagePull { message, .. } = &error else { panic!("{error:?}") };
        assert!(message.contains(why), "{message}");
    }
    let gone = node.runtime.load_image(&path.with_extension("none")).await;
    assert!(matches!(gone, Err(RuntimeError::ImagePull { .. })));
    let Outcome::Images(list) = node.call("", RuntimeOp::ListImages).await.unwrap() else { panic!() };
    assert_eq!(list.len(), 1, "only the host image: {list:?}");
    assert!(std::fs::read_dir(node.root.join("images/rootfs")).unwrap().next().is_none());
}

async fn images_are_removed(lab: Lab) {
    let root = lab.fresh();
    let node = lab.node_at(&root).await;
    let images = async |node: &Node| match node.call("", RuntimeOp::ListImages).await.unwrap() {
        Outcome::Images(list) => list,
        other => panic!("{other:?}"),
    };
    let list = images(&node).await;
    let image = list.iter().find(|i| !i.pinned).unwrap().clone();
    assert_eq!(image.names, ["docker.io/library/busybox:test", "example.com/bb:1"]);
    assert!(image.size_bytes > 100_000 && list.iter().any(|i| i.pinned && i.id == "host"));
    node.sandbox("p").await;
    node.run("p", "c", script("true")).await;
    let remove = RuntimeOp::RemoveImage { id: image.id.clone() };
    let used = node.call("", remove.clone()).await;
    assert!(
        matches!(&used, Err(RuntimeError::Config { message }) if message.contains("is used")),
        "{used:?}"
    );
    node.remove("p").await;
    drop(node);
    // The store outlives its agent.
    let node = Node::open(&lab, &root).await;
    assert_eq!(images(&node).await.len(), 2);
    node.call("", remove.clone()).await.unwrap();
    node.call("", remove).await.unwrap();
    assert_eq!(images(&node).await.len(), 1);
    assert!(std::fs::read_dir(root.join("images/rootfs")).unwrap().next().is_none());
    let ensure =
        RuntimeOp::EnsureImage { image: "busybox:test".into(), policy: PullPolicy::Never, auth: vec![] };
    assert!(matches!(node.call("", ensure).await, Err(RuntimeError::ImageNeverPull { .. })));
}
