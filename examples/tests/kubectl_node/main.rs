//! Real kubectl against the API of a node: logs, exec, attach, cp and port-forward, through an API server with TLS,
//! for a simulated node in the API server's process and for an agent behind a socket.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests drive processes of the system, and fail by panicking"
)]

mod cluster;
mod runtime;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use std::sync::Arc;

use cluster::{Cluster, LIMIT, find, finish, machine};
use icp_node::shell::SimRuntime;
use runtime::TestRuntime;

/// How the node is reached.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A fleet in the process of the API server.
    InProcess,
    /// An agent behind a socket.
    Network,
}

fn start(way: Way) -> Option<Cluster> {
    match way {
        Way::InProcess => Cluster::in_process(),
        Way::Network => {
            Cluster::over("busybox", async |_| Arc::new(TestRuntime(SimRuntime::new(machine()))) as _)
        }
    }
}

const BOTH: [Way; 2] = [Way::InProcess, Way::Network];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn logs() {
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod("web", &["sh", "-c", "echo one; echo two >&2; echo three; sleep 3600"], "Always");
        cluster.wait_state("web", "running");
        assert_eq!(cluster.ok(&["logs", "web"]), "one\ntwo\nthree\n");
        assert_eq!(cluster.ok(&["logs", "web", "-c", "main", "--tail=1"]), "three\n");
        assert_eq!(cluster.ok(&["logs", "web", "--limit-bytes=5"]), "one\nt");
        assert_eq!(cluster.ok(&["logs", "web", "--since=1h"]), "one\ntwo\nthree\n");
        assert_eq!(cluster.ok(&["logs", "web", "--since-time=2100-01-01T00:00:00Z"]), "");
        let stamped = cluster.ok(&["logs", "web", "--timestamps", "--tail=1"]);
        let (time, line) = stamped.split_once(' ').unwrap();
        assert_eq!(line, "three\n");
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 30, "{time}");

        let refused = cluster.run(&["logs", "web", "--previous"]);
        assert_eq!(
            text(&refused.stderr),
            "Error from server (BadRequest): previous terminated container \"main\" in pod \"web\" not found\n"
        );
        let refused = cluster.run(&["logs", "web", "-c", "other"]);
        assert!(text(&refused.stderr).contains("container other is not valid for pod web"), "{refused:?}");
        cluster.pod("nginx", &[], "Always");
        cluster.wait_state("nginx", "running");
        assert!(
            cluster.ok(&["logs", "nginx"]).starts_with("[simulated] container main of image busybox started")
        );
    }
}

#[test]
fn logs_that_are_followed_end_with_the_container() {
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod("job", &["sh", "-c", "for i in 1 2 3; do echo $i; sleep 1; done; echo done"], "Never");
        cluster.wait_state("job", "running");
        assert_eq!(cluster.ok(&["logs", "-f", "job"]), "1\n2\n3\ndone\n");
        // And a log that is over already.
        cluster.wait_state("job", "terminated");
        assert_eq!(cluster.ok(&["logs", "-f", "job", "--tail=2"]), "3\ndone\n");
    }
}

#[test]
fn logs_of_the_attempt_before() {
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod("crash", &["sh", "-c", "echo run; exit 3"], "Always");
        cluster.wait("a restart", || {
            let path = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
            (cluster.ok(&["get", "pod", "crash", "-o", path]) == "3").then_some(())
        });
        assert_eq!(cluster.ok(&["logs", "crash", "--previous"]), "run\n");
        assert_eq!(cluster.ok(&["logs", "crash"]), "run\n");
    }
}

#[test]
fn exec() {
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod("web", &["sleep", "infinity"], "Always");
        cluster.wait_state("web", "running");
        assert_eq!(cluster.ok(&["exec", "web", "--", "hostname"]), "web\n");
        let both = cluster.run(&["exec", "web", "--", "sh", "-c", "echo $GREETING; echo bad >&2; exit 42"]);
        assert_eq!(both.status.code(), Some(42));
        assert_eq!(text(&both.stdout), "hello\n");
        assert_eq!(text(&both.stderr), "bad\ncommand terminated with exit code 42\n");
        let unknown = cluster.run(&["exec", "web", "--", "ls", "/"]);
        assert_eq!(unknown.status.code(), Some(127));
        assert!(text(&unknown.stderr).contains("is simulated: no program \"ls\" is in it"), "{unknown:?}");

        // What goes in comes out, byte for byte, and the end of the input ends the process.
        let input: Vec<u8> =
            (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let copied = cluster.feed(&["exec", "-i", "web", "--", "cat"], &input);
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        assert!(copied.stdout == input, "{} bytes of {}", copied.stdout.len(), input.len());
        let shell = cluster.feed(&["exec", "-i", "web", "--", "sh"], b"echo a\nfalse\nexit\n");
        assert_eq!((shell.status.code(), text(&shell.stdout)), (Some(1), "a\n".into()));

        let refused = cluster.run(&["exec", "nobody", "--", "true"]);
        assert_eq!(text(&refused.stderr), "Error from server (NotFound): pods \"nobody\" not found\n");
        cluster.pod("over", &["true"], "Never");
        cluster.wait_state("over", "terminated");
        let refused = cluster.run(&["exec", "over", "--", "true"]);
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(
            text(&refused.stderr),
            "error: cannot exec into a container in a completed pod; current phase is Succeeded\n"
        );
    }
}

#[test]
fn exec_with_a_terminal() {
    let Some(script) = find("script") else { return };
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod("web", &["sleep", "infinity"], "Always");
        cluster.wait_state("web", "running");
        let kubectl = cluster.command(&["exec", "-it", "web", "--", "sh"]);
        let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
        let line: Vec<String> = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect();
        let mut child = Command::new(&script)
            .args(["-q", "-e", "-c", &line.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = String::new();
        let mut expect = |what: &str| {
            let mut buffer = [0; 1024];
            while !seen.contains(what) {
                let n = stdout.read(&mut buffer).unwrap();
                assert!(n > 0, "{seen:?} has no {what:?}");
                seen.push_str(&text(&buffer[..n]));
            }
            seen.clear();
        };
        expect("# ");
        stdin.write_all(b"echo $GREETING there\r").unwrap();
        expect("hello there\r\n# ");
        stdin.write_all(b"exit 5\r").unwrap();
        expect("exit 5\r\n");
        child.stdout = Some(stdout);
        let output = finish(&mut child, b"");
        assert_eq!(output.status.code(), Some(5), "{output:?}");
    }
}

#[test]
fn attach() {
    for way in BOTH {
        let Some(cluster) = start(way) else { return };
        cluster.pod(
            "tick",
            &["sh", "-c", "for i in a b c d e f; do sleep 1; echo $i; done; exit 4"],
            "Never",
        );
        cluster.wait_state("tick", "running");
        let attached = cluster.run(&["attach", "tick"]);
        let out = text(&attached.stdout);
        assert!(out.ends_with("e\nf\n"), "{attached:?}");
    }
}

#[test]
fn copies_of_files() {
    let (Some(_), Some(cluster)) = (find("tar"), start(Way::Network)) else { return };
    cluster.pod("web", &["sleep", "infinity"], "Always");
    cluster.wait_state("web", "running");
    let (source, there, back) =
        (cluster.dir.join("source"), cluster.dir.join("there"), cluster.dir.join("back"));
    std::fs::create_dir_all(&there).unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&source, &content).unwrap();
    let there = there.join("file");
    cluster.ok(&["cp", source.to_str().unwrap(), &format!("web:{}", there.display())]);
    assert!(std::fs::read(&there).unwrap() == content);
    cluster.ok(&["cp", &format!("web:{}", there.display()), back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == content);
}

#[test]
fn ports_are_forwarded() {
    let Some(cluster) = start(Way::Network) else { return };
    cluster.pod("web", &["sleep", "infinity"], "Always");
    cluster.wait_state("web", "running");
    let mut child = cluster.command(&["port-forward", "pod/web", ":7", ":9"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut port = |target: &str| loop {
        let line = lines.next().unwrap().unwrap();
        // Forwarding from 127.0.0.1:43210 -> 7
        if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:")
            && let Some((port, to)) = rest.split_once(" -> ")
            && to == target
        {
            break port.parse::<u16>().unwrap();
        }
    };
    let (open, closed) = (port("7"), port("9"));
    let connect = |port| {
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    for round in 0..3_u8 {
        let mut stream = connect(open);
        let sent: Vec<u8> = (0..200_000_u32).map(|i| (i % 256) as u8 ^ round).collect();
        let received = std::thread::scope(|scope| {
            let mut write = stream.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || {
                write.write_all(sent).unwrap();
                write.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    }
    let mut end = Vec::new();
    // A reset is as good an answer as an end.
    let _ = connect(closed).read_to_end(&mut end);
    assert!(end.is_empty());
    child.kill().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    child.wait().unwrap();
    assert!(errors.contains("dial tcp4 127.0.0.1:9: connect: connection refused"), "{errors}");
}

#[test]
fn a_kubelet_that_is_gone_is_told_in_the_usual_words() {
    let Some(cluster) = start(Way::Network) else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.create(&serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "gone" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                    "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } },
    }));
    cluster.create(&serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "lost" },
        "spec": { "nodeName": "gone", "containers": [{ "name": "main", "image": "busybox" }] },
    }));
    let logs = cluster.run(&["logs", "lost"]);
    let dial = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    let url = format!("https://127.0.0.1:{port}/containerLogs/default/lost/main");
    assert_eq!(text(&logs.stderr), format!("Error from server: Get \"{url}\": {dial}\n"));
    let exec = cluster.run(&["exec", "lost", "--", "true"]);
    assert_eq!(
        text(&exec.stderr),
        format!("error: unable to upgrade connection: error dialing backend: {dial}\n")
    );
}

#[test]
fn the_api_of_a_node_asks_for_a_certificate() {
    let Some(cluster) = start(Way::Network) else { return };
    assert_eq!(cluster.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/healthz"]), "ok");
    let pods = cluster.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/pods"]);
    assert!(pods.contains("\"kind\":\"PodList\""), "{pods}");
    let metrics = cluster.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/metrics"]);
    assert!(metrics.contains("kubelet_node_name{node=\"n1\"} 1"), "{metrics}");
    assert!(
        cluster.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/stats/summary"]).contains("\"nodeName\":\"n1\"")
    );
    // Straight to the node, without a certificate.
    let port =
        cluster.ok(&["get", "node", "n1", "-o", "jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}"]);
    let straight = |path: &str| {
        let server = format!("https://127.0.0.1:{port}");
        let mut command = cluster.command(&[
            "get",
            "--raw",
            path,
            "--insecure-skip-tls-verify",
            "--token",
            "none",
            "--server",
            &server,
        ]);
        let empty = cluster.dir.join("empty.conf");
        std::fs::write(&empty, "apiVersion: v1\nkind: Config\n").unwrap();
        command.arg("--kubeconfig").arg(empty);
        finish(&mut command.spawn().unwrap(), b"")
    };
    assert_eq!(text(&straight("/healthz").stdout), "ok");
    let refused = straight("/pods");
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("You must be logged in"),
        "{refused:?}"
    );
}
