//! Volumes and generated files.

use std::sync::Arc;

use bytes::Bytes;
use icp_node::runtime::{
    ContainerSpec, GeneratedFile, HostPathType, Mount, MountPropagation, MountSource, Outcome, RuntimeError,
    RuntimeOp, VolumeContent, VolumeFile,
};

use super::{Case, cases};
use crate::lab::{Lab, Node, script};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![
        empty_folders,
        files_change_at_once,
        paths_of_the_node,
        sub_paths_stay_inside,
        generated_files,
        groups,
        mounts_propagate
    ]
}

async fn volume(node: &Node, name: &str, content: VolumeContent) -> Result<Outcome, RuntimeError> {
    node.call("p", RuntimeOp::WriteVolume { volume: name.into(), content: Arc::new(content) }).await
}

fn empty(memory: bool) -> VolumeContent {
    VolumeContent::Empty { memory, size_limit_bytes: if memory { 1 << 20 } else { 0 }, fs_group: None }
}

fn files(list: &[(&str, &str)]) -> VolumeContent {
    let file = |(path, data): &(&str, &str)| VolumeFile {
        path: (*path).into(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        mode: 0o644,
    };
    VolumeContent::Files { files: list.iter().map(file).collect(), fs_group: None }
}

fn mounted(text: &str, mounts: &[(&str, &str, &str, bool)]) -> ContainerSpec {
    let mut spec = script(text);
    for (path, name, sub_path, read_only) in mounts {
        spec.mounts.push(Mount {
            path: (*path).into(),
            source: MountSource::Volume { name: (*name).into(), sub_path: (*sub_path).into() },
            read_only: *read_only,
            propagation: MountPropagation::None,
        });
    }
    spec
}

async fn empty_folders(lab: Lab) {
    let node = lab.node().await;
    volume(&node, "disk", empty(false)).await.unwrap();
    volume(&node, "memory", empty(true)).await.unwrap();
    node.sandbox("p").await;
    let both = [("/a", "disk", "", false), ("/a/deep/m", "memory", "", false)];
    let text = "echo 1 > /a/one; echo 2 > /a/deep/m/two; mount | grep ' /a/deep/m '; ls -ld /a/deep/m; \
                dd if=/dev/zero of=/a/deep/m/big bs=1024 count=4096 2>&1 | grep -c 'No space'";
    let (exit, log) = node.run("p", "writer", mounted(text, &both)).await;
    assert!(exit.code == 0 && log.contains("tmpfs") && log.contains("drwxrwxrwx"), "{log}");
    assert!(log.ends_with("1\n"), "{log}");
    let text = "exec 2>&1; cat /x/one /y/two; touch /x/no; touch /y/yes; ls /y";
    let reader = mounted(text, &[("/x", "disk", "", true), ("/y", "memory", "", false)]);
    let (_, log) = node.run("p", "reader", reader).await;
    assert!(
        log.starts_with("1\n2\n") && log.contains("Read-only") && log.ends_with("big\ntwo\nyes\n"),
        "{log}"
    );
    let here = node.root.display().to_string();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&here).count();
    assert_eq!(mounts(), 2, "the volume and /dev/shm");
    node.call("p", RuntimeOp::StopSandbox).await.unwrap();
    assert_eq!(mounts(), 0);
    node.remove("p").await;
}

async fn files_change_at_once(lab: Lab) {
    let node = lab.node().await;
    volume(&node, "conf", files(&[("a", "1"), ("sub/b", "1")])).await.unwrap();
    node.sandbox("p").await;
    let text = "cat /conf/a /conf/sub/b /one; echo; while [ \"$(cat /conf/a)\" = 1 ] || [ -L /conf/sub ]; do sleep 0.02; done; \
                cat /conf/a /conf/c; ls /conf; cat /one";
    let spec = mounted(text, &[("/conf", "conf", "", true), ("/one", "conf", "a", true)]);
    node.start("p", "c", spec).await.unwrap();
    node.log_has("p", "c", "111\n").await;
    volume(&node, "conf", files(&[("a", "2"), ("c", "3")])).await.unwrap();
    node.exit("p", "c").await;
    // A file that is mounted alone keeps its content, as upstream.
    assert_eq!(node.log("p", "c").await, "111\n23a\nc\n1");
    node.remove("p").await;
}

async fn paths_of_the_node(lab: Lab) {
    let node = lab.node().await;
    let dir = lab.fresh();
    std::fs::write(dir.join("f"), "from the node\n").unwrap();
    let host =
        |path: &std::path::Path, kind| VolumeContent::HostPath { path: path.display().to_string(), kind };
    volume(&node, "dir", host(&dir, HostPathType::Directory)).await.unwrap();
    volume(&node, "file", host(&dir.join("f"), HostPathType::File)).await.unwrap();
    let wrong = volume(&node, "x", host(&dir.join("none"), HostPathType::Socket)).await;
    assert!(matches!(wrong, Err(RuntimeError::Volume { .. })), "{wrong:?}");
    node.sandbox("p").await;
    let mounts = [("/d", "dir", "", false), ("/etc/f", "file", "", true)];
    let (_, log) = node.run("p", "c", mounted("cat /d/f /etc/f; echo back > /d/g", &mounts)).await;
    assert_eq!(log, "from the node\nfrom the node\n");
    assert_eq!(std::fs::read_to_string(dir.join("g")).unwrap(), "back\n");
    let missing = node.start("p", "m", mounted("true", &[("/x", "never-made", "", false)])).await;
    assert!(matches!(missing, Err(RuntimeError::Config { .. })), "{missing:?}");
    node.remove("p").await;
    assert!(dir.join("f").exists());
}

async fn sub_paths_stay_inside(lab: Lab) {
    let node = lab.node().await;
    volume(&node, "v", empty(false)).await.unwrap();
    node.sandbox("p").await;
    let text = "ln -s / /v/root; ln -s ../../../../../.. /v/up; mkdir -p /v/etc; echo inside > /v/etc/passwd";
    node.run(
        "p",
        "a",
        mounted(
            &format!("/bin/busybox sh -c '{}'", text.replace("ln", "/bin/busybox ln")),
            &[("/v", "v", "", false)],
        ),
    )
    .await;
    for name in ["root", "up"] {
        let sub = format!("{name}/etc");
        let (_, log) = node.run("p", name, mounted("cat /m/passwd", &[("/m", "v", &sub, false)])).await;
        assert_eq!(log, "inside\n");
    }
    // A path that is missing is made.
    let (exit, _) = node.run("p", "made", mounted("touch /m/x", &[("/m", "v", "new/er", false)])).await;
    assert_eq!(exit.code, 0);
    assert!(node.root.join("pods/p/volumes/v/new/er/x").exists());
    node.remove("p").await;
}

async fn generated_files(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    for (n, image) in ["busybox:test", "host"].iter().enumerate() {
        let mut spec = script("cat /etc/hosts /etc/resolv.conf; [ -w /etc/hosts ] && echo writable");
        spec.image = (*image).into();
        for (path, text) in
            [("/etc/hosts", "127.0.0.1 localhost\n"), ("/etc/resolv.conf", "nameserver 10.0.0.10\n")]
        {
            spec.files.push(GeneratedFile {
                path: path.into(),
                data: Bytes::from_static(text.as_bytes()),
                mode: 0o644,
            });
        }
        let (_, log) = node.run("p", &format!("c{n}"), spec).await;
        assert_eq!(log, "127.0.0.1 localhost\nnameserver 10.0.0.10\nwritable\n");
    }
    node.remove("p").await;
}

async fn groups(lab: Lab) {
    let node = lab.node().await;
    let owned = |group| VolumeContent::Empty { memory: false, size_limit_bytes: 0, fs_group: Some(group) };
    let result = volume(&node, "v", owned(2000)).await;
    if !lab.is_root() {
        let Err(RuntimeError::Config { message }) = result else { panic!("{result:?}") };
        assert!(message.contains("fsGroup: id 2000"), "{message}");
        return;
    }
    result.unwrap();
    node.sandbox("p").await;
    let mut spec = mounted("touch /v/x && ls -ln /v/x && id", &[("/v", "v", "", false)]);
    spec.security.run_as_user = Some(1000);
    spec.security.supplemental_groups = vec![2000];
    let (exit, log) = node.run("p", "c", spec).await;
    assert_eq!(exit.code, 0, "{log}");
    assert!(log.contains("1000     2000"), "{log}");
    assert!(log.contains("uid=1000(app) gid=1001(app) groups=7(more),1001(app),2000"), "{log}");
    node.remove("p").await;
}

async fn mounts_propagate(lab: Lab) {
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
    };
    let node = lab.node().await;
    let dir = lab.fresh();
    std::fs::create_dir_all(dir.join("in")).unwrap();
    std::fs::create_dir_all(dir.join("out")).unwrap();
    mount_bind(&dir, &dir).unwrap();
    mount_change(&dir, MountPropagationFlags::SHARED).unwrap();
    let path = VolumeContent::HostPath { path: dir.display().to_string(), kind: HostPathType::Directory };
    volume(&node, "v", path).await.unwrap();
    node.sandbox("p").await;
    let text = "echo up; while [ ! -e /v/in/from-node ]; do sleep 0.05; done; echo seen";
    let mut spec = mounted(text, &[("/v", "v", "", false)]);
    spec.mounts[0].propagation = MountPropagation::HostToContainer;
    node.start("p", "down", spec).await.unwrap();
    node.log_has("p", "down", "up").await;
    mount("tmpfs", dir.join("in"), "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(dir.join("in/from-node"), "").unwrap();
    assert_eq!(node.exit("p", "down").await.code, 0);
    // A mount made inside is seen by the node only if both ways were asked for.
    let text = "mount -t tmpfs x /v/out && touch /v/out/from-container && echo done && sleep 1000";
    for (name, propagation, seen) in
        [("private", MountPropagation::None, false), ("both", MountPropagation::Bidirectional, true)]
    {
        let mut spec = mounted(text, &[("/v", "v", "", false)]);
        spec.mounts[0].propagation = propagation;
        spec.security.privileged = true;
        node.start("p", name, spec).await.unwrap();
        node.log_has("p", name, "done").await;
        assert_eq!(dir.join("out/from-container").exists(), seen, "{name}");
    }
    node.remove("p").await;
    for place in [dir.join("out"), dir.join("in"), dir.clone()] {
        unmount(place, UnmountFlags::DETACH).unwrap();
    }
}
