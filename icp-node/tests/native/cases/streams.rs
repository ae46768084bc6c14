//! Exec, attach, terminals, logs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use icp_node::runtime::{
    ExecRequest, LogOptions, PodUid, Runtime, RuntimeError, RuntimeOp, TerminationMessagePolicy,
};

use super::{Case, cases};
use crate::lab::{Lab, key, read_all, read_until, script, sh};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![
        execs,
        execs_with_stdin,
        execs_with_a_terminal,
        execs_end_in_time,
        attaches,
        containers_with_a_terminal,
        logs_are_cut,
        logs_are_followed,
        logs_are_rotated,
        termination_messages
    ]
}

async fn execs(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("sleep 1000");
    spec.env = vec![("A".into(), "b".into())];
    node.start("p", "c", spec).await.unwrap();
    assert_eq!(node.exec("p", "c", "echo $A; echo err >&2; hostname; exit 4").await.0, 4);
    let (code, out) = node.exec("p", "c", "echo $A; hostname; ls /proc/1/exe; kill -9 $$").await;
    assert_eq!((code, out.as_str()), (137, "b\np\n/proc/1/exe\n"));
    let pod = PodUid::from("p");
    let bad = ExecRequest { command: vec!["none".into()], stdout: true, ..ExecRequest::default() };
    let Err(RuntimeError::Start { message }) = node.runtime.exec(&pod, "c", bad.clone()).await else {
        panic!()
    };
    assert!(message.contains("executable file not found"), "{message}");
    assert!(matches!(node.runtime.exec(&pod, "other", bad).await, Err(RuntimeError::NotFound { .. })));
    // More than is kept, and more than fits into a pipe.
    let (code, out) = node.exec("p", "c", "seq 1 100000").await;
    assert_eq!((code, out.len()), (0, 10 * 1024));
    node.remove("p").await;
}

async fn execs_with_stdin(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("sleep 1000")).await.unwrap();
    let request = ExecRequest {
        command: sh("cat; echo done >&2; exit 5"),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = node.runtime.exec(&PodUid::from("p"), "c", request).await.unwrap();
    let data = vec![b'x'; 1 << 20];
    let mut stdin = session.stdin.take().unwrap();
    let sent = Bytes::from(data.clone());
    let writer = tokio::spawn(async move {
        stdin.write(sent).await.unwrap();
    });
    let out = read_all(session.stdout.as_mut().unwrap()).await;
    writer.await.unwrap();
    assert_eq!(out.len(), data.len());
    assert_eq!(read_all(session.stderr.as_mut().unwrap()).await, b"done\n");
    assert_eq!(session.status.await.unwrap(), 5);
    node.remove("p").await;
}

async fn execs_with_a_terminal(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("sleep 1000")).await.unwrap();
    let request =
        ExecRequest { command: vec!["sh".into()], stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = node.runtime.exec(&PodUid::from("p"), "c", request).await.unwrap();
    session.control.resize(100, 40).await;
    let mut stdin = session.stdin.take().unwrap();
    let out = session.stdout.as_mut().unwrap();
    stdin
        .write(Bytes::from_static(b"stty size; readlink /proc/self/fd/0; echo $TERM-$((40+2))\n"))
        .await
        .unwrap();
    let text = read_until(out, "xterm-42").await;
    assert!(text.contains("40 100") && text.contains("/dev/pts/"), "{text}");
    stdin.write(Bytes::from_static(b"exit 6\n")).await.unwrap();
    // A process waits for who reads its output, and its end comes after that.
    read_all(out).await;
    assert_eq!(session.status.await.unwrap(), 6);
    node.remove("p").await;
}

async fn execs_end_in_time(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("sleep 1000")).await.unwrap();
    let started = Instant::now();
    let op = RuntimeOp::Exec {
        container: key("c"),
        command: sh("sleep 777"),
        timeout: Duration::from_millis(300),
    };
    assert_eq!(node.call("p", op).await.unwrap_err(), RuntimeError::Timeout { millis: 300 });
    assert!(started.elapsed() < Duration::from_secs(10));
    // The session is dropped: the process dies.
    for _ in 0..100 {
        if !node.exec("p", "c", "ps -o args | grep 'sleep 77[7]'").await.1.contains("777") {
            return node.remove("p").await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it lives");
}

async fn attaches(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("while read line; do echo got $line; echo bad $line >&2; done; exit 9");
    spec.stdin = true;
    spec.stdin_once = true;
    node.start("p", "c", spec).await.unwrap();
    let pod = PodUid::from("p");
    let watch = ExecRequest { stdout: true, ..ExecRequest::default() };
    let mut watcher = node.runtime.attach(&pod, "c", watch).await.unwrap();
    let all = ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() };
    let mut session = node.runtime.attach(&pod, "c", all).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write(Bytes::from_static(b"one\n")).await.unwrap();
    assert_eq!(read_until(session.stdout.as_mut().unwrap(), "one\n").await, "got one\n");
    assert_eq!(read_until(session.stderr.as_mut().unwrap(), "one\n").await, "bad one\n");
    assert_eq!(read_until(watcher.stdout.as_mut().unwrap(), "one\n").await, "got one\n");
    // Leaving does not end it; the end of the first client's input does.
    drop(watcher);
    stdin.write(Bytes::from_static(b"two\n")).await.unwrap();
    drop(stdin);
    read_all(session.stdout.as_mut().unwrap()).await;
    read_all(session.stderr.as_mut().unwrap()).await;
    assert_eq!(session.status.await.unwrap(), 9);
    assert_eq!(node.exit("p", "c").await.code, 9);
    let log = node.log("p", "c").await;
    assert!(log.contains("got two\n") && log.contains("bad two\n"), "{log}");
    let late = ExecRequest { stdout: true, ..ExecRequest::default() };
    assert!(matches!(node.runtime.attach(&pod, "c", late).await, Err(RuntimeError::NotFound { .. })));
    node.remove("p").await;
}

async fn containers_with_a_terminal(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("");
    spec.command = vec!["sh".into()];
    spec.tty = true;
    spec.stdin = true;
    node.start("p", "c", spec).await.unwrap();
    let request = ExecRequest { stdin: true, stdout: true, tty: true, ..ExecRequest::default() };
    let mut session = node.runtime.attach(&PodUid::from("p"), "c", request).await.unwrap();
    session.control.resize(90, 30).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin
        .write(Bytes::from_static(b"stty size; [ -c /dev/console ] && echo con-$((1+1)); exit 3\n"))
        .await
        .unwrap();
    let text = read_until(session.stdout.as_mut().unwrap(), "con-2").await;
    assert!(text.contains("30 90"), "{text}");
    assert_eq!(node.exit("p", "c").await.code, 3);
    assert!(node.log("p", "c").await.contains("con-2"));
    node.remove("p").await;
}

async fn logs_are_cut(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.run("p", "c", script("echo zero")).await;
    let (exit, _) = node.run("p", "c/1", script("seq 1 10; sleep 0.3; echo eleven; echo -n end")).await;
    let cut = |change: fn(&mut LogOptions)| {
        let mut options = LogOptions::default();
        change(&mut options);
        node.log_with("p", "c/1", options)
    };
    assert_eq!(cut(|_| {}).await, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\neleven\nend");
    assert_eq!(cut(|o| o.tail_lines = Some(2)).await, "eleven\nend");
    assert_eq!(cut(|o| o.limit_bytes = Some(3)).await, "1\n2");
    assert_eq!(cut(|o| o.previous = true).await, "zero\n");
    let stamped = cut(|o| o.timestamps = true).await;
    let first = stamped.lines().next().unwrap();
    assert!(first.ends_with("Z 1") && first.len() == "2026-01-01T00:00:00.000000000Z 1".len(), "{first}");
    let since =
        LogOptions { since: Some(exit.finished_at - Duration::from_millis(200)), ..LogOptions::default() };
    assert_eq!(node.log_with("p", "c/1", since).await, "eleven\nend");
    let file = node.root.join("pods/p/containers/c/1/log/0.log");
    let line = std::fs::read_to_string(file).unwrap();
    assert!(line.lines().next().unwrap().ends_with("Z stdout F 1"), "{line}");
    node.remove("p").await;
}

async fn logs_are_followed(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("echo a; sleep 0.4; echo b; sleep 0.4; echo c")).await.unwrap();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    assert_eq!(node.log_with("p", "c", options).await, "a\nb\nc\n");
    node.remove("p").await;
}

async fn logs_are_rotated(lab: Lab) {
    let root = lab.fresh();
    let mut config = lab.config(&root);
    (config.log_max_bytes, config.log_max_files) = (20_000, 3);
    let node = crate::lab::Node::with(config).await;
    node.runtime.load_image(&lab.busybox()).await.unwrap();
    node.sandbox("p").await;
    let (_, log) =
        node.run("p", "c", script("for i in $(seq 1 40); do seq 1 200; sleep 0.01; done; echo last")).await;
    assert!(log.ends_with("200\nlast\n"));
    let files = std::fs::read_dir(root.join("pods/p/containers/c/0/log")).unwrap();
    let sizes: Vec<u64> = files.map(|f| f.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|s| *s < 100_000), "{sizes:?}");
    node.remove("p").await;
}

async fn termination_messages(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let with = |text: &str, policy| {
        let mut spec = script(text);
        spec.termination_message_path = "/dev/termination-log".into();
        spec.termination_message_policy = policy;
        spec
    };
    let file = TerminationMessagePolicy::File;
    let (exit, _) = node.run("p", "a", with("echo -n bye > /dev/termination-log; echo log", file)).await;
    assert_eq!(exit.message, "bye");
    let fallback = TerminationMessagePolicy::FallbackToLogsOnError;
    let (exit, _) = node.run("p", "b", with("seq 1 100; exit 1", fallback)).await;
    assert!(exit.message.starts_with("21\n") && exit.message.ends_with("100\n"), "{}", exit.message);
    let (exit, _) = node.run("p", "c", with("echo fine", fallback)).await;
    assert_eq!(exit.message, "");
    node.remove("p").await;
}
