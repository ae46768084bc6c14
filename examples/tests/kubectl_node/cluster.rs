//! An API server on loopback with one node, and kubectl to drive it.
#![allow(dead_code, reason = "each test uses its part")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use icp_core::base::Rng;
use icp_core::server::{ApiServer, Clock as _, InProcessClient, NodeProxy, Options};
use icp_core::shell::node_proxy::{HttpNodeProxy, NodeProxyConfig};
use icp_core::shell::pki::Authority;
use icp_core::shell::{SystemClock, SystemEntropy, listener, tls};
use icp_node::agent::{Kubelet, KubeletConfig};
use icp_node::api::{Guard, NodeApi};
use icp_node::backend::memory::{Fleet, MemoryRuntime, SimNode, SimRules};
use icp_node::runtime::Runtime;
use icp_node::shell::{Agent, SimNodes};
use icp_store::Memory;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// kubectl of the version whose words are expected, after saying its version, or `None` after saying that the test is
/// skipped; with `ICP_PEERS=required` that is a failure.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let file = std::env::var_os("ICP_KUBECTL").map(PathBuf::from).or_else(|| find("kubectl"))?;
    let output = std::process::Command::new(&file).args(["version", "--client"]).output().ok();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    println!("kubectl: {line}");
    if !line.contains("v1.37.") {
        assert!(
            std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"),
            "needs kubectl 1.37, not {line}"
        );
        println!("skipped: needs kubectl 1.37");
        return None;
    }
    Some(file)
}

/// A program of the system, in the same way.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs {program}");
        println!("skipped: needs {program}");
    }
    found
}

/// The cluster of one test. It ends, with its files, when it is dropped.
pub(crate) struct Cluster {
    kubectl: PathBuf,
    image: &'static str,
    pub(crate) dir: PathBuf,
    stop: watch::Sender<bool>,
    _tokio: tokio::runtime::Runtime,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A simulated runtime.
pub(crate) fn machine() -> MemoryRuntime {
    MemoryRuntime::new(SimRules::default(), "10.1.0.0/24".parse().unwrap())
}

impl Cluster {
    /// A cluster whose node is simulated in the process of the API server; `None` if there is no kubectl.
    pub(crate) fn in_process() -> Option<Self> {
        Self::start("busybox", async |_| None)
    }

    /// A cluster whose node is an agent over a runtime, behind a socket with certificates on both sides. The runtime
    /// may keep files in the folder that it is given. All pods have this image.
    pub(crate) fn over(
        image: &'static str,
        runtime: impl AsyncFnOnce(PathBuf) -> Arc<dyn Runtime>,
    ) -> Option<Self> {
        Self::start(image, async |dir| Some(runtime(dir).await))
    }

    fn start(
        image: &'static str,
        runtime: impl AsyncFnOnce(PathBuf) -> Option<Arc<dyn Runtime>>,
    ) -> Option<Self> {
        let kubectl = kubectl()?;
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = temp_dir();
        let (stop, stopped) = watch::channel(false);
        tokio.block_on(async {
            let runtime = runtime(dir.clone()).await;
            serve(runtime, &dir, stopped).await;
        });
        let cluster = Self { kubectl, image, dir, stop, _tokio: tokio };
        cluster.wait("the node", || {
            let node = cluster.run(&["get", "node", "n1", "-o", "name"]);
            node.status.success().then_some(())
        });
        Some(cluster)
    }

    /// kubectl with these arguments, not started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.dir.join("admin.conf"))
            .args(arguments)
            .env("HOME", &self.dir)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs kubectl to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.feed(arguments, b"")
    }

    /// Runs kubectl with an input.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        finish(&mut child, input)
    }

    /// Runs kubectl, which must succeed, and gives its output.
    pub(crate) fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a pod of one container `main` on the node; more fields of the pod in `more`.
    pub(crate) fn pod(&self, name: &str, command: &[&str], restart: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "nodeName": "n1", "restartPolicy": restart, "terminationGracePeriodSeconds": 1,
                // No controller makes the config map that the token's volume needs.
                "automountServiceAccountToken": false,
                "containers": [{ "name": "main", "image": self.image, "command": command,
                                 "imagePullPolicy": "IfNotPresent",
                                 "env": [{ "name": "GREETING", "value": "hello" }] }],
            },
        });
        self.create(&pod);
    }

    /// Makes an object.
    pub(crate) fn create(&self, object: &Value) {
        let output = self.feed(&["create", "-f", "-"], object.to_string().as_bytes());
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until the pod's container has this state (`running`, `terminated`).
    pub(crate) fn wait_state(&self, pod: &str, state: &str) {
        self.wait(&format!("{pod} {state}"), || {
            let text = self.ok(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state}"]);
            text.contains(state).then_some(())
        });
    }

    /// Polls until there is an answer.
    pub(crate) fn wait<T>(&self, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = poll() {
                return found;
            }
            if started.elapsed() > LIMIT {
                panic!(
                    "{what} did not come: {}",
                    text(&self.run(&["get", "pods,events", "-o", "yaml"]).stdout)
                );
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Feeds a process and waits for its end, which must come in time.
pub(crate) fn finish(child: &mut Child, input: &[u8]) -> Output {
    let mut stdin = child.stdin.take();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(stdin) = &mut stdin {
                // A process that ends before it has read all is looked at by its status.
                let _ = stdin.write_all(input);
            }
        });
        let stdout = scope.spawn(move || read(&mut out));
        let stderr = scope.spawn(move || read(&mut err));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > LIMIT {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!(
                    "a process did not end: {:?}",
                    stdout.join().map(|o| String::from_utf8_lossy(&o).into_owned())
                );
            }
            std::thread::park_timeout(Duration::from_millis(10));
        };
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    })
}

fn read(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all);
    all
}

async fn serve(runtime: Option<Arc<dyn Runtime>>, dir: &std::path::Path, stop: watch::Receiver<bool>) {
    let now = SystemClock.now();
    let ca = Authority::generate("icp-ca", now).unwrap();
    let serving = ca.serving("kube-apiserver", &["127.0.0.1"], now).unwrap();
    let admin = ca.client("kubernetes-admin", &["system:masters"], now).unwrap();
    let socket = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let config = ca.kubeconfig(&format!("https://{address}"), "icp", "admin", &admin);
    std::fs::write(dir.join("admin.conf"), config).unwrap();

    let sim = SimNodes::new();
    let nodes: Arc<dyn NodeProxy> = match &runtime {
        None => Arc::new(sim.clone()),
        Some(_) => {
            let identity = ca.client("kube-apiserver-kubelet-client", &[], now).unwrap();
            let tls = tls::client(ca.certificate_pem(), Some(&identity), &["http/1.1"]).unwrap();
            Arc::new(HttpNodeProxy::new(NodeProxyConfig::new(Some(tls))))
        }
    };
    let options = Options { secure_port: address.port(), ..Options::default() };
    let server = ApiServer::builder(Arc::new(Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(7))
        .entropy(SystemEntropy::new())
        .options(options)
        .nodes(nodes)
        .build();
    let tls_config = tls::server(&serving, Some(ca.certificate_pem())).unwrap();
    let limits = listener::Limits::default();
    tokio::spawn(listener::serve(socket, server.clone(), Some(tls_config), limits, stop.clone()));

    let client = Arc::new(InProcessClient::new(server));
    let mut config = KubeletConfig::new("n1", LOOPBACK);
    match runtime {
        None => {
            let fleet = Fleet::new([SimNode::new(Kubelet::new(config), machine())]);
            tokio::spawn(async move { sim.run(fleet, client, stop).await });
        }
        Some(runtime) => {
            let socket = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
            config.api_port = socket.local_addr().unwrap().port();
            let agent = Agent::new(Kubelet::new(config), runtime.clone(), client, stop.clone());
            let guard = Guard::new(NodeApi::new(Arc::new(agent.handle()), runtime));
            tokio::spawn(agent.run());
            let identity = ca.serving("system:node:n1", &["127.0.0.1"], now).unwrap();
            let tls_config = tls::server(&identity, Some(ca.certificate_pem())).unwrap();
            tokio::spawn(listener::serve(socket, guard, Some(tls_config), limits, stop));
        }
    }
}

fn temp_dir() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("icp-kubectl-node-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
