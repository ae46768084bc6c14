//! Agents that end and begin.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use icp_node::backend::native::NativeRuntime;
use icp_node::runtime::{ContainerState, LogOptions, RuntimeEvent, RuntimeOp, VolumeContent};

use super::{Case, cases};
use crate::lab::{Lab, Node, script};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![
        containers_outlive_the_agent,
        shims_that_are_killed,
        ends_are_told_once,
        pods_without_a_sandbox,
        one_runtime_at_a_time
    ]
}

/// The agent that is killed: starts containers and waits.
pub(crate) fn agent(root: &str, cgroup: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let lab =
            Lab { mode: String::new(), dir: Path::new(root).parent().unwrap().into(), cgroup: cgroup.into() };
        let node = Node::open(&lab, Path::new(root)).await;
        node.sandbox("p").await;
        node.start("p", "stays", script("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"))
            .await
            .unwrap();
        node.start("p", "ends", script("sleep 1; exit 3")).await.unwrap();
        node.run("p", "ended", script("exit 2")).await;
        std::fs::write(Path::new(root).join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn containers_outlive_the_agent(lab: Lab) {
    let root = lab.fresh();
    drop(lab.node_at(&root).await);
    let mut agent =
        Command::new("/proc/self/exe").arg("--agent").arg(&root).arg(&lab.cgroup).spawn().unwrap();
    for _ in 0..400 {
        if root.join("ready").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    // One ends while nobody looks.
    let exit_file = root.join("pods/p/containers/ends/0/exit.json");
    for _ in 0..400 {
        if exit_file.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let node = Node::open(&lab, &root).await;
    let listed = node.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].sandbox.as_ref().unwrap().ips.len()), ("p", 1));
    let states: Vec<_> = listed[0]
        .containers
        .iter()
        .map(|c| match &c.state {
            ContainerState::Running { .. } => format!("{} runs", c.key),
            ContainerState::Exited(exit) => format!("{} {}", c.key, exit.code),
        })
        .collect();
    assert_eq!(states, ["ended/0 2", "ends/0 3", "stays/0 runs"]);
    // It wrote on while there was no agent, and goes on.
    let count = |log: String| log.lines().count();
    let before = count(node.log("p", "stays").await);
    let log = node.log_with("p", "stays", LogOptions { tail_lines: Some(1), ..LogOptions::default() }).await;
    assert!(log.starts_with("line "), "{log}");
    node.log_has("p", "stays", &format!("line {}\n", before + 5)).await;
    assert_eq!(node.exec("p", "stays", "echo in").await, (0, "in\n".into()));
    node.stop("p", "stays", Duration::from_millis(50)).await;
    assert_eq!(node.exit("p", "stays").await.code, 137);
    assert_eq!(node.run("p", "stays/1", script("hostname")).await.1, "p\n");
    node.remove("p").await;
}

async fn shims_that_are_killed(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("sleep 1000")).await.unwrap();
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(node.root.join("pods/p/containers/c/0/shim.json")).unwrap())
            .unwrap();
    let pid = |who: &str| {
        let raw = i32::try_from(record[who]["pid"].as_i64().unwrap()).unwrap();
        rustix::process::Pid::from_raw(raw).unwrap()
    };
    rustix::process::kill_process(pid("shim"), rustix::process::Signal::KILL).unwrap();
    let exit = node.exit("p", "c").await;
    assert_eq!(exit.code, 137);
    assert!(exit.message.contains("lost"), "{}", exit.message);
    for _ in 0..200 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid("init").as_raw_nonzero()))
            .unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return node.remove("p").await;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the container outlived its shim");
}

async fn ends_are_told_once(lab: Lab) {
    let root = lab.fresh();
    let node = lab.node_at(&root).await;
    node.sandbox("p").await;
    node.run("p", "a", script("exit 1")).await;
    node.start("p", "b", script("sleep 1000")).await.unwrap();
    drop(node);
    let node = Node::open(&lab, &root).await;
    node.stop("p", "b", Duration::ZERO).await;
    node.exit("p", "b").await;
    node.run("p", "c", script("true")).await;
    let more = tokio::time::timeout(
        Duration::from_millis(300),
        node.event(|e| matches!(e, RuntimeEvent::ContainerExited { .. })),
    );
    assert!(more.await.is_err(), "an end was told twice");
    node.remove("p").await;
}

async fn pods_without_a_sandbox(lab: Lab) {
    let root = lab.fresh();
    let node = Node::open(&lab, &root).await;
    let content = VolumeContent::Empty { memory: true, size_limit_bytes: 0, fs_group: None };
    let write = RuntimeOp::WriteVolume { volume: "v".into(), content: content.into() };
    node.call("p", write).await.unwrap();
    drop(node);
    // The agent died before it made the sandbox: the pod must be found, or nobody would remove it.
    let node = Node::open(&lab, &root).await;
    let listed = node.list().await;
    assert_eq!((listed.len(), listed[0].uid.as_str()), (1, "p"));
    node.remove("p").await;
    assert!(node.list().await.is_empty() && !root.join("pods/p").exists());
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&root.display().to_string()));
}

async fn one_runtime_at_a_time(lab: Lab) {
    let root = lab.fresh();
    let node = Node::open(&lab, &root).await;
    let error = NativeRuntime::new(lab.config(&root)).await.unwrap_err();
    assert!(error.to_string().contains("another runtime"), "{error}");
    drop(node);
    NativeRuntime::new(lab.config(&root)).await.unwrap();
    let mut config = lab.config(&lab.fresh());
    config.helper = "/bin/true".into();
    let error = NativeRuntime::new(config).await.unwrap_err();
    assert!(error.to_string().contains("helper_main"), "{error}");
}
