//! The cases.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use icp_node::runtime::{Outcome, PullPolicy, RuntimeError, RuntimeOp};

use crate::lab::{Lab, Node, host, script};

type Case = fn(Lab) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name), (|lab| Box::pin($name(lab))) as Case)),*]
    };
}

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![the_host_image_runs, an_archive_runs, programs_that_are_missing, stops]
}

pub(crate) fn agent(_root: &str) -> ExitCode {
    ExitCode::SUCCESS
}

async fn the_host_image_runs(lab: Lab) {
    let node = Node::open(&lab, &lab.fresh()).await;
    node.sandbox("p").await;
    let (exit, log) =
        node.run("p", "c", host("echo out; ls /home | wc -l; sleep 0.1; echo err >&2; exit 3")).await;
    assert_eq!((exit.code, exit.signal, log.as_str()), (3, None, "out\n0\nerr\n"));
    assert!(exit.finished_at > exit.started_at);
    let (exit, log) = node.run("p", "c/1", host("touch /usr/x; touch /root/x && ls /root; id -u")).await;
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
