//! The cases.

pub(crate) mod agents;
mod images;
mod isolation;
mod network;
mod streams;
mod volumes;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use icp_node::runtime::{ContainerState, LogOptions, Outcome, PullPolicy, RuntimeError, RuntimeOp};

use crate::lab::{Lab, Node, host, key, script};

pub(crate) type Case = fn(Lab) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name), (|lab| Box::pin($name(lab))) as $crate::cases::Case)),*]
    };
}
pub(crate) use cases;

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    let mut list =
        cases![the_host_image_runs, an_archive_runs, programs_that_are_missing, stops, calls_repeat];
    list.extend(streams::all());
    list.extend(volumes::all());
    list.extend(isolation::all());
    list.extend(agents::all());
    list.extend(network::all());
    list.extend(images::all());
    list
}

async fn the_host_image_runs(lab: Lab) {
    let node = Node::open(&lab, &lab.fresh()).await;
    node.sandbox("p").await;
    let (exit, log) = node.run("p", "c", host("echo out; ls /home | wc -l; echo err >&2; exit 3")).await;
    // The two streams are two pipes: only the order within each is certain.
    let (out, err): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| *line != "err");
    assert_eq!((exit.code, exit.signal, out, err), (3, None, vec!["out", "0"], vec!["err"]));
    assert!(exit.finished_at > exit.started_at);
    let (exit, log) =
        node.run("p", "c/1", host("exec 2>&1; touch /usr/x; touch /root/x && ls /root; id -u")).await;
    assert_eq!(exit.code, 0);
    assert!(log.contains("Read-only file system") && log.ends_with("x\n0\n"), "{log}");
    node.remove("p").await;
    assert!(node.list().await.is_empty());
}

async fn an_archive_runs(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("");
    spec.command.clear();
    let (exit, log) = node.run("p", "image", spec).await;
    assert_eq!((exit.code, log.as_str()), (0, "from the image\n/home\nred\n"));
    let mut spec = script("echo $$ $COLOUR $A $(hostname) $(pwd); ls /proc | grep -c '^[0-9]'");
    spec.env = vec![("COLOUR".into(), "blue".into()), ("A".into(), "b".into())];
    spec.working_dir = "/made/here".into();
    spec.image = "docker.io/library/busybox:test".into();
    let (exit, log) = node.run("p", "spec", spec).await;
    assert_eq!(exit.code, 0);
    assert!(log.starts_with("1 blue b p /made/here\n"), "{log}");
    node.remove("p").await;
}

async fn programs_that_are_missing(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("");
    spec.command = vec!["nothing-of-that-name".into()];
    let error = node.start("p", "c", spec).await.unwrap_err();
    let RuntimeError::Start { message } = &error else { panic!("{error:?}") };
    assert!(message.contains("executable file not found in $PATH"), "{message}");
    let ensure = |image: &str, policy| {
        let op = RuntimeOp::EnsureImage { image: image.into(), policy, auth: vec![] };
        let node = &node;
        async move { node.call("", op).await }
    };
    assert!(matches!(ensure("busybox:test", PullPolicy::Always).await, Ok(Outcome::Image(_))));
    assert!(matches!(ensure("redis", PullPolicy::IfNotPresent).await, Err(RuntimeError::ImagePull { .. })));
    assert!(matches!(ensure("redis", PullPolicy::Never).await, Err(RuntimeError::ImageNeverPull { .. })));
    assert!(matches!(ensure("Redis", PullPolicy::Never).await, Err(RuntimeError::InvalidImageName { .. })));
    node.remove("p").await;
}

async fn stops(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "polite", script("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"))
        .await
        .unwrap();
    node.log_has("p", "polite", "up").await;
    node.stop("p", "polite", Duration::from_secs(30)).await;
    let exit = node.exit("p", "polite").await;
    assert_eq!((exit.code, exit.signal), (7, None));
    assert_eq!(node.log("p", "polite").await, "up\nbye\n");
    // The first process of a namespace does not die of a signal that it does not handle.
    node.start("p", "stubborn", script("echo up; sleep 1000")).await.unwrap();
    node.log_has("p", "stubborn", "up").await;
    node.stop("p", "stubborn", Duration::from_secs(60)).await;
    node.stop("p", "stubborn", Duration::from_millis(100)).await;
    let exit = node.exit("p", "stubborn").await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    node.stop("p", "stubborn", Duration::ZERO).await;
    node.remove("p").await;
    node.remove("p").await;
}

async fn calls_repeat(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.sandbox("p").await;
    let first = node.start("p", "c", script("sleep 1000")).await.unwrap();
    let second = node.start("p", "c", script("sleep 1000")).await.unwrap();
    assert_eq!(first, second);
    let error = node.start("p", "c/1", script("sleep 1000")).await.unwrap_err();
    assert_eq!(error, RuntimeError::Conflict { container: "c/1".into() });
    let running = RuntimeOp::RemoveContainer { container: key("c") };
    assert!(matches!(node.call("p", running.clone()).await, Err(RuntimeError::Conflict { .. })));
    node.stop("p", "c", Duration::ZERO).await;
    node.exit("p", "c").await;
    // What ended is not started again.
    assert_eq!(node.start("p", "c", script("sleep 1000")).await.unwrap(), first);
    let listed = node.list().await;
    assert!(matches!(listed[0].containers[0].state, ContainerState::Exited(_)));
    for n in 1..4 {
        node.run("p", &format!("c/{n}"), script("true")).await;
    }
    let attempts: Vec<u32> = node.list().await[0].containers.iter().map(|c| c.key.attempt).collect();
    assert_eq!(attempts, [2, 3], "only the newest two are kept");
    let options = LogOptions { previous: true, ..LogOptions::default() };
    assert_eq!(node.log_with("p", "c/3", options).await, "");
    let gone = RuntimeOp::RemoveContainer { container: key("c/3") };
    for _ in 0..2 {
        assert_eq!(node.call("p", gone.clone()).await.unwrap(), Outcome::Done);
    }
    // A stopped sandbox keeps the logs; containers cannot be started in it.
    node.run("p", "last", script("echo kept")).await;
    for _ in 0..2 {
        assert_eq!(node.call("p", RuntimeOp::StopSandbox).await.unwrap(), Outcome::Done);
    }
    assert_eq!(node.log("p", "last").await, "kept\n");
    assert!(node.list().await[0].sandbox.is_none());
    let refused = node.start("p", "more", script("true")).await;
    assert!(matches!(refused, Err(RuntimeError::Sandbox { .. })), "{refused:?}");
    // And a new one can be made.
    node.sandbox("p").await;
    assert_eq!(node.run("p", "more", script("echo again")).await.1, "again\n");
    node.remove("p").await;
    node.remove("never-seen").await;
    for op in
        [RuntimeOp::StopSandbox, RuntimeOp::StopContainer { container: key("c"), grace: Duration::ZERO }]
    {
        assert_eq!(node.call("never-seen", op).await.unwrap(), Outcome::Done);
    }
    let left: Vec<_> = std::fs::read_dir(node.root.join("pods")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
