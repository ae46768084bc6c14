//! What the cases need: a runtime in a folder of its own, images, short calls.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_core::Stream;
use icp_node::backend::native::{LoopbackNetwork, NativeConfig, NativeRuntime};
use icp_node::runtime::{
    ByteStream, CallId, ContainerKey, ContainerSpec, Exit, LogOptions, Outcome, PodListing, PodUid, Runtime,
    RuntimeCall, RuntimeError, RuntimeEvent, RuntimeEvents, RuntimeOp, SandboxSpec,
};
use sha2::{Digest, Sha256};

static NEXT: AtomicU64 = AtomicU64::new(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder for a run of the suite.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) mode: String,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
}

impl Lab {
    pub(crate) fn new(mode: &str, name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("{name}-{mode}"));
        std::fs::create_dir(&dir).unwrap();
        Self { mode: mode.into(), dir, cgroup: name.into() }
    }

    /// The same with a control group of its own, so that a failed case is in no other's way.
    pub(crate) fn case(&self, name: &str) -> Self {
        Self { cgroup: format!("{}/{name}", self.cgroup), ..self.clone() }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.mode == "root"
    }

    /// Removes the folder, with what failed cases left mounted in it.
    pub(crate) fn clear(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = mounts
            .lines()
            .rev()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|p| Path::new(p).starts_with(&self.dir));
        for path in below {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    pub(crate) fn fresh(&self) -> PathBuf {
        let dir = self.dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    pub(crate) fn config(&self, root: &Path) -> NativeConfig {
        let mut config = NativeConfig::new(root, Arc::new(LoopbackNetwork));
        config.cgroup_parent.clone_from(&self.cgroup);
        config.host_ips = vec!["127.0.0.1".parse().unwrap()];
        config
    }

    /// A node with the busybox image, if there is a busybox to make it of.
    pub(crate) async fn node(&self) -> Node {
        self.node_at(&self.fresh()).await
    }

    pub(crate) async fn node_at(&self, root: &Path) -> Node {
        let node = Node::open(self, root).await;
        node.runtime.load_image(&self.busybox()).await.unwrap();
        node
    }

    /// A `docker save` archive of a static busybox.
    pub(crate) fn busybox(&self) -> PathBuf {
        let path = self.dir.join("busybox.tar");
        if !path.exists() {
            let program = busybox_program().unwrap();
            let mut layer = tar::Builder::new(Vec::new());
            for dir in ["bin", "etc", "tmp", "home", "var"] {
                add(
                    &mut layer,
                    dir,
                    tar::EntryType::Directory,
                    &[],
                    if dir == "tmp" { 0o1777 } else { 0o755 },
                );
            }
            add(&mut layer, "bin/busybox", tar::EntryType::Regular, &program, 0o755);
            for name in APPLETS {
                link(&mut layer, &format!("bin/{name}"), "busybox");
            }
            link(&mut layer, "var/run", "/run");
            let passwd = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n";
            add(&mut layer, "etc/passwd", tar::EntryType::Regular, passwd, 0o644);
            add(
                &mut layer,
                "etc/group",
                tar::EntryType::Regular,
                b"root:x:0:\napp:x:1001:\nmore:x:7:app\n",
                0o644,
            );
            let config = serde_json::json!({
                "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo from the image; pwd; echo $COLOUR"],
                "Env": ["COLOUR=red", "PATH=/bin"], "WorkingDir": "/home"});
            let tar = archive(&[layer.into_inner().unwrap()], &config, &["busybox:test", "example.com/bb:1"]);
            std::fs::write(&path, tar).unwrap();
        }
        path
    }
}

/// The machine's busybox, if it has one.
pub(crate) fn busybox_program() -> Option<Vec<u8>> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|p| std::fs::read(p).ok())
}

const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "sleep", "id", "ls", "ps", "hostname", "mount", "touch", "tail", "httpd", "nc",
    "stty", "kill", "grep", "mknod", "unshare", "dd", "ulimit", "head", "seq", "readlink", "mkdir",
];

pub(crate) fn add(b: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, data: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    // Written past the builder, which refuses the names that some cases are about.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    b.append(&header, data).unwrap();
}

pub(crate) fn link(b: &mut tar::Builder<Vec<u8>>, path: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    b.append_link(&mut header, path, to).unwrap();
}

pub(crate) fn sha(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}

/// Removes what failed cases left of control groups, once their processes are dead.
pub(crate) fn clear_cgroups(name: &str) {
    fn remove(dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            }
        }
        let _ = std::fs::remove_dir(dir);
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove(&hierarchy.path().join(name));
    }
    remove(&Path::new("/sys/fs/cgroup").join(name));
}

/// What `docker save` writes.
pub(crate) fn archive(layers: &[Vec<u8>], config: &serde_json::Value, tags: &[&str]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", sha(l))).collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({"architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = serde_json::to_vec(&config).unwrap();
    let name = format!("{}.json", sha(&config));
    let paths: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": name, "RepoTags": tags, "Layers": paths}]);
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, &name, tar::EntryType::Regular, &config, 0o644);
    for (path, layer) in paths.iter().zip(layers) {
        add(&mut tar, path, tar::EntryType::Regular, layer, 0o644);
    }
    add(&mut tar, "manifest.json", tar::EntryType::Regular, &serde_json::to_vec(&manifest).unwrap(), 0o644);
    tar.into_inner().unwrap()
}

/// All of a stream.
pub(crate) async fn read_all(stream: &mut ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = next(stream).await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

/// Of a stream as much as ends with the piece that completes a text.
pub(crate) async fn read_until(stream: &mut ByteStream, text: &str) -> String {
    let mut all = String::new();
    let read = async {
        while !all.contains(text) {
            let piece = next(stream).await.expect("the stream ended").unwrap();
            all.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    assert!(tokio::time::timeout(PATIENCE, read).await.is_ok(), "no {text:?} in {all:?}");
    all
}

/// A runtime and what it told.
pub(crate) struct Node {
    pub(crate) runtime: NativeRuntime,
    pub(crate) root: PathBuf,
    events: tokio::sync::Mutex<(RuntimeEvents, Vec<RuntimeEvent>)>,
}

async fn next<T>(stream: &mut Pin<Box<dyn Stream<Item = T> + Send>>) -> Option<T> {
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

impl Node {
    pub(crate) async fn open(lab: &Lab, root: &Path) -> Self {
        Self::with(lab.config(root)).await
    }

    pub(crate) async fn with(config: NativeConfig) -> Self {
        let root = config.root.clone();
        let runtime = NativeRuntime::new(config).await.unwrap();
        let events = tokio::sync::Mutex::new((runtime.events(), Vec::new()));
        Self { runtime, root, events }
    }

    pub(crate) async fn call(&self, pod: &str, op: RuntimeOp) -> Result<Outcome, RuntimeError> {
        let id = CallId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.runtime.perform(RuntimeCall { id, pod: PodUid::from(pod), generation: 1, op }).await
    }

    pub(crate) async fn sandbox(&self, pod: &str) {
        self.sandbox_with(pod, |_| {}).await;
    }

    pub(crate) async fn sandbox_with(&self, pod: &str, change: impl FnOnce(&mut SandboxSpec)) {
        let mut spec = SandboxSpec {
            namespace: "default".into(),
            name: pod.into(),
            hostname: pod.into(),
            ..SandboxSpec::default()
        };
        change(&mut spec);
        let made = self.call(pod, RuntimeOp::CreateSandbox(Arc::new(spec))).await.unwrap();
        assert!(matches!(made, Outcome::Sandbox { .. }), "{made:?}");
    }

    pub(crate) async fn start(
        &self,
        pod: &str,
        name: &str,
        spec: ContainerSpec,
    ) -> Result<Outcome, RuntimeError> {
        let container = key(name);
        self.call(pod, RuntimeOp::StartContainer { container, spec: Arc::new(spec) }).await
    }

    /// Starts a container and waits for its end; answers it and the log.
    pub(crate) async fn run(&self, pod: &str, name: &str, spec: ContainerSpec) -> (Exit, String) {
        self.start(pod, name, spec).await.unwrap();
        let exit = self.exit(pod, name).await;
        (exit, self.log(pod, name).await)
    }

    /// Waits for an event.
    pub(crate) async fn event(&self, which: impl Fn(&RuntimeEvent) -> bool) -> RuntimeEvent {
        let mut events = self.events.lock().await;
        if let Some(at) = events.1.iter().position(&which) {
            return events.1.remove(at);
        }
        let wait = async {
            loop {
                let event = next(&mut events.0).await.unwrap();
                if which(&event) {
                    return event;
                }
                events.1.push(event);
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("no such event")
    }

    /// Waits for the end of a container.
    pub(crate) async fn exit(&self, pod: &str, name: &str) -> Exit {
        let key = key(name);
        let is_it = |e: &RuntimeEvent| matches!(e, RuntimeEvent::ContainerExited { pod: p, container, .. } if p.as_str() == pod && *container == key);
        match self.event(is_it).await {
            RuntimeEvent::ContainerExited { exit, .. } => exit,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn stop(&self, pod: &str, name: &str, grace: Duration) {
        self.call(pod, RuntimeOp::StopContainer { container: key(name), grace }).await.unwrap();
    }

    pub(crate) async fn log(&self, pod: &str, name: &str) -> String {
        self.log_with(pod, name, LogOptions::default()).await
    }

    pub(crate) async fn log_with(&self, pod: &str, name: &str, options: LogOptions) -> String {
        let name = key(name).name;
        let mut stream = self.runtime.logs(&PodUid::from(pod), &name, options).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = next(&mut stream).await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until the log of a container holds a text.
    pub(crate) async fn log_has(&self, pod: &str, name: &str, text: &str) {
        for _ in 0..400 {
            if self.log(pod, name).await.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no {text:?} in the log: {:?}", self.log(pod, name).await);
    }

    pub(crate) async fn exec(&self, pod: &str, name: &str, command: &str) -> (i32, String) {
        let op =
            RuntimeOp::Exec { container: key(name), command: sh(command), timeout: Duration::from_secs(20) };
        match self.call(pod, op).await.unwrap() {
            Outcome::Exec(output) => (output.code, String::from_utf8(output.output.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn list(&self) -> Vec<PodListing> {
        match self.call("", RuntimeOp::Relist).await.unwrap() {
            Outcome::Listed(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn remove(&self, pod: &str) {
        self.call(pod, RuntimeOp::RemoveSandbox).await.unwrap();
    }
}

/// `name` is the first attempt, `name/N` another one.
pub(crate) fn key(name: &str) -> ContainerKey {
    match name.split_once('/') {
        Some((name, attempt)) => ContainerKey::new(name, attempt.parse().unwrap()),
        None => ContainerKey::new(name, 0),
    }
}

pub(crate) fn sh(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

/// A busybox that runs a script.
pub(crate) fn script(text: &str) -> ContainerSpec {
    ContainerSpec { image: "busybox:test".into(), command: sh(text), ..ContainerSpec::default() }
}

/// The same of the machine's own programs.
pub(crate) fn host(text: &str) -> ContainerSpec {
    ContainerSpec { image: "host".into(), ..script(text) }
}
