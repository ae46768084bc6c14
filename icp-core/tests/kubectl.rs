//! The real kubectl against the API server on a loopback port: applying, comparing and changing objects.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code that runs processes, outside of a test function"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use icp_core::base::Rng;
use icp_core::server::{ApiServer, Clock as _, Options};
use icp_core::shell::pki::Authority;
use icp_core::shell::{SystemClock, listener, tls};
use icp_store::Memory;

/// The path of kubectl, or `None` after saying that the test is skipped; with `ICP_PEERS=required` that is a failure.
fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = || std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    let found = std::env::var_os("ICP_KUBECTL").map(PathBuf::from).or_else(in_path);
    if found.is_none() {
        assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs kubectl");
        println!("skipped: needs kubectl");
    }
    found
}

/// A server on a loopback port, and the kubectl that is configured for it; both end with the value.
struct Cluster {
    kubectl: PathBuf,
    dir: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What a command wrote, and whether it succeeded.
struct Output {
    code: i32,
    out: String,
    err: String,
}

impl Cluster {
    fn start(name: &str) -> Option<Self> {
        let kubectl = kubectl()?;
        let dir = std::env::temp_dir().join(format!("icp-kubectl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let now = SystemClock.now();
        let ca = Authority::generate("icp-ca", now).unwrap();
        let serving = ca.serving("kube-apiserver", &["127.0.0.1"], now).unwrap();
        let admin = ca.client("admin", &["system:masters"], now).unwrap();
        let tls = tls::server(&serving, Some(ca.certificate_pem())).unwrap();
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", socket.local_addr().unwrap());
        std::fs::write(dir.join("config"), ca.kubeconfig(&url, "icp", "admin", &admin)).unwrap();
        let server = ApiServer::builder(Arc::new(Memory::new()))
            .clock(SystemClock)
            .rng(Rng::new(7))
            .options(Options { ca_pem: Some(ca.certificate_pem().into()), ..Options::default() })
            .build();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        runtime.spawn(async move {
            let _stop = stop;
            listener::serve(socket, server, Some(tls), listener::Limits::default(), stopped).await
        });
        Some(Self { kubectl, dir, runtime: Some(runtime) })
    }

    /// Runs kubectl with `input` on its standard input.
    fn run(&self, arguments: &str, input: &str) -> Output {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.dir.join("config"))
            .args(arguments.split_whitespace())
            .env("HOME", &self.dir)
            .env_remove("KUBECTL_EXTERNAL_DIFF")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Runs kubectl, which must succeed, and gives its output.
    #[track_caller]
    fn ok(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input);
        assert_eq!(output.code, 0, "kubectl {arguments}: {}{}", output.out, output.err);
        output.out
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn web(image: &str, replicas: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - {{name: c, image: '{image}', ports: [{{containerPort: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80}}]
"
    )
}

/// Who manages fields of the Deployment, by name: the server gives those of an earlier second first.
fn managers(c: &Cluster) -> Vec<String> {
    let path = "{range.metadata.managedFields[*]}{.manager}={.operation};{end}";
    let told = c.ok(&format!("get deployment web -o jsonpath={path}"), "");
    let mut managers: Vec<String> = told.split_terminator(';').map(str::to_owned).collect();
    managers.sort_unstable();
    managers
}

#[test]
fn apply_on_the_servers_side() {
    let Some(c) = Cluster::start("ssa") else { return };
    let applied = "deployment.apps/web serverside-applied\nservice/web serverside-applied\n";
    assert_eq!(c.ok("apply --server-side -f -", &web("web:1", "replicas: 2")), applied);
    assert_eq!(c.run("diff --server-side -f -", &web("web:1", "replicas: 2")).out, "");
    let diff = c.run("diff --server-side -f -", &web("web:2", "replicas: 2"));
    assert_eq!(diff.code, 1, "{}", diff.err);
    assert!(
        diff.out.contains("-      - image: web:1") && diff.out.contains("+      - image: web:2"),
        "{}",
        diff.out
    );
    let version = "get deployment web -o jsonpath={.metadata.resourceVersion}/{.metadata.generation}";
    let before = c.ok(version, "");
    assert_eq!(c.ok("apply --server-side -f -", &web("web:1", "replicas: 2")), applied);
    assert_eq!(c.ok(version, ""), before, "what is applied again changes nothing");

    c.ok("scale deployment web --replicas 5", "");
    let conflict = c.run("apply --server-side -f -", &web("web:1", "replicas: 2"));
    assert_eq!(conflict.code, 1);
    let text = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(conflict.err.contains(text), "{}", conflict.err);
    // Who leaves the field to others has no conflict, and does not change it.
    c.ok("apply --server-side -f -", &web("web:2", ""));
    assert_eq!(c.ok("get deployment web -o jsonpath={.spec.replicas}", ""), "5");
    c.ok("apply --server-side --force-conflicts -f -", &web("web:2", "replicas: 2"));
    assert_eq!(managers(&c), ["kubectl=Apply"]);
}

#[test]
fn apply_on_the_clients_side_and_the_way_from_it() {
    let Some(c) = Cluster::start("csa") else { return };
    assert_eq!(
        c.ok("apply -f -", &web("web:1", "replicas: 2")),
        "deployment.apps/web created\nservice/web created\n"
    );
    assert_eq!(
        c.ok("apply -f -", &web("web:1", "replicas: 2")),
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    assert_eq!(c.run("diff -f -", &web("web:1", "replicas: 2")).out, "");
    assert_eq!(c.run("diff -f -", &web("web:2", "replicas: 2")).code, 1);
    assert_eq!(
        c.ok("apply -f -", &web("web:2", "")),
        "deployment.apps/web configured\nservice/web unchanged\n"
    );
    assert_eq!(
        c.ok("get deployment web -o jsonpath={.spec.replicas}", ""),
        "1",
        "what is said no more has its default"
    );
    assert_eq!(managers(&c), ["kubectl-client-side-apply=Update"]);
    c.ok("apply --server-side -f -", &web("web:3", ""));
    assert_eq!(
        managers(&c),
        ["kubectl-last-applied=Apply", "kubectl=Apply"],
        "the fields of the client's apply are the server's apply's now"
    );
    c.ok("label deployment web tier=front", "");
    c.ok("set image deployment/web c=web:4", "");
    assert_eq!(
        managers(&c),
        ["kubectl-label=Update", "kubectl-last-applied=Apply", "kubectl-set=Update", "kubectl=Apply"]
    );
    c.ok("apply --server-side --force-conflicts -f -", &web("web:3", ""));
    assert_eq!(
        c.ok("get deployment web -o jsonpath={.metadata.labels}", ""),
        r#"{"app":"web","tier":"front"}"#
    );
    let bad = c.run("apply --server-side -f -", &web("web:3", "replica: 3"));
    assert_eq!(bad.code, 1);
    assert!(
        bad.err.contains("unknown field \"spec.replica\"") || bad.err.contains("field not declared"),
        "{}",
        bad.err
    );
    c.ok("delete deployment,service web", "");
}

const GANG: &str = "apiVersion: scheduling.k8s.io/v1beta1
kind: Workload
metadata: {name: train}
spec:
  podGroupTemplates:
  - {name: workers, schedulingPolicy: {gang: {minCount: 4}}}
---
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: train-workers}
spec:
  workloadRef: {workloadName: train, templateName: workers}
  schedulingPolicy: {gang: {minCount: 4}}
";

#[test]
fn workloads_and_pod_groups() {
    let Some(c) = Cluster::start("gangs") else { return };
    let (workload, group) = ("workload.scheduling.k8s.io/train", "podgroup.scheduling.k8s.io/train-workers");
    assert_eq!(c.ok("apply -f -", GANG), format!("{workload} created\n{group} created\n"));
    assert_eq!(c.ok("apply -f -", GANG), format!("{workload} unchanged\n{group} unchanged\n"));
    let more = GANG.replace("minCount: 4", "minCount: 5");
    assert_eq!(c.ok("apply -f -", &more), format!("{workload} configured\n{group} configured\n"));
    let server = format!("{workload} serverside-applied\n{group} serverside-applied\n");
    assert_eq!(c.ok("apply --server-side -f -", &more), server);
    let table = c.ok("get workloads,podgroups", "");
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "AGE"], "{table}");
    assert_eq!(rows[3], ["NAME", "POLICY", "MIN", "COUNT", "SCHEDULED", "AGE"], "{table}");
    assert_eq!(
        &rows[4][..4],
        ["podgroup.scheduling.k8s.io/train-workers", "Gang", "5", "<unknown>"],
        "{table}"
    );
    let basic = c.run("patch podgroup train-workers --type merge -p {\"spec\":{\"priority\":5}}", "");
    assert!(basic.err.contains("spec.priority: Invalid value: 5: field is immutable"), "{}", basic.err);
    let words = c.ok("explain podgroup.spec.schedulingPolicy.gang.minCount", "");
    assert!(words.contains("FIELD: minCount <integer>"), "{words}");
    assert!(c.ok("explain pod.spec.schedulingGroup", "").contains("podGroupName"));
    assert_eq!(c.ok("delete -f -", GANG).lines().count(), 2);
}
