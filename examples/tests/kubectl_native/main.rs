//! Real kubectl against a node that runs real containers: logs, exec, attach, cp and port-forward, through an API
//! server with TLS and a node agent behind a socket.
//!
//! It runs in process and mount namespaces of its own, as root or as a plain user: whatever a failed case leaves dies
//! with it.
#![expect(clippy::disallowed_methods, reason = "a test drives processes of the system")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../kubectl_node/cluster.rs"]
mod cluster;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use cluster::{Cluster, LIMIT, find, finish};
use icp_node::backend::native::{LoopbackNetwork, NativeConfig, NativeRuntime, helper_main};
use rustix::thread::UnshareFlags;

/// A case and its name.
type Case = (&'static str, fn(&Cluster));

fn main() -> ExitCode {
    if let Some(code) = helper_main(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--inside") => inside(&args[1]),
        Some("--list") => ExitCode::SUCCESS,
        _ => {
            if cluster::kubectl().is_none() {
                return ExitCode::SUCCESS;
            }
            let name = format!("icp-kubectl-native-{}", std::process::id());
            let code = enter(&name);
            clear_cgroups(&name);
            code
        }
    }
}

/// Makes the namespaces and runs the cases in them. This process has one thread.
fn enter(name: &str) -> ExitCode {
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    #[expect(deprecated, reason = "one thread, and no descriptors are unshared")]
    let unshare = rustix::thread::unshare;
    if rustix::process::geteuid().is_root() {
        unshare(own).unwrap();
    } else {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if let Err(error) = unshare(own | UnshareFlags::NEWUSER) {
            assert!(
                std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"),
                "user namespaces: {error}"
            );
            println!("skipped: needs user namespaces ({error})");
            return ExitCode::SUCCESS;
        }
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    }
    let status = Command::new("/proc/self/exe").args(["--inside", name]).status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn clear_cgroups(name: &str) {
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

fn inside(name: &str) -> ExitCode {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("proc", "/proc", "proc", MountFlags::empty(), None).unwrap();
    let cgroup = name.to_string();
    let cluster = Cluster::over("host", async |dir| {
        let mut config = NativeConfig::new(dir.join("node"), Arc::new(LoopbackNetwork));
        config.cgroup_parent = cgroup;
        config.host_ips = vec!["127.0.0.1".parse().unwrap()];
        Arc::new(NativeRuntime::new(config).await.unwrap()) as _
    });
    let Some(cluster) = cluster else { return ExitCode::SUCCESS };
    let script = "echo one; echo two >&2; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    cluster.pod("web", &["sh", "-c", script], "Always");
    cluster.wait_state("web", "running");
    let cases: [Case; 8] = [
        ("logs", logs),
        ("followed_logs", followed_logs),
        ("previous_logs", previous_logs),
        ("exec", exec),
        ("exec_with_a_terminal", exec_with_a_terminal),
        ("attach", attach),
        ("copies", copies),
        ("ports", ports),
    ];
    let mut failed = false;
    for (name, case) in cases {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&cluster)));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed |= result.is_err();
    }
    cluster.run(&["delete", "pods", "--all", "--now"]);
    drop(cluster);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn logs(cluster: &Cluster) {
    let all = cluster.wait("the log", || {
        let all = cluster.ok(&["logs", "web"]);
        (all.lines().count() == 2).then_some(all)
    });
    // The two streams of a process are two pipes: their order is not told.
    assert!(all == "one\ntwo\n" || all == "two\none\n", "{all}");
    assert_eq!(cluster.ok(&["logs", "web", "--tail=1"]).lines().count(), 1);
    let stamped = cluster.ok(&["logs", "web", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.split_once(' ').unwrap().0.ends_with('Z'), "{stamped}");
    assert_eq!(cluster.ok(&["logs", "web", "--since-time=2100-01-01T00:00:00Z"]), "");
}

fn followed_logs(cluster: &Cluster) {
    cluster.pod("job", &["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.5; done; exit 0"], "Never");
    cluster.wait_state("job", "running");
    assert_eq!(cluster.ok(&["logs", "-f", "job"]), "1\n2\n3\n");
}

fn previous_logs(cluster: &Cluster) {
    cluster.pod("crash", &["sh", "-c", "echo run; exit 3"], "Always");
    cluster.wait("a restart", || {
        let path = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
        (cluster.ok(&["get", "pod", "crash", "-o", path]) == "3").then_some(())
    });
    assert_eq!(cluster.ok(&["logs", "crash", "--previous"]), "run\n");
}

fn exec(cluster: &Cluster) {
    assert_eq!(cluster.ok(&["exec", "web", "--", "hostname"]), "web\n");
    let both = cluster.run(&["exec", "web", "--", "sh", "-c", "echo $GREETING; echo bad >&2; exit 42"]);
    assert_eq!(both.status.code(), Some(42));
    assert_eq!(text(&both.stdout), "hello\n");
    assert_eq!(text(&both.stderr), "bad\ncommand terminated with exit code 42\n");
    let input: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copied = cluster.feed(&["exec", "-i", "web", "--", "cat"], &input);
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert!(copied.stdout == input, "{} bytes of {}", copied.stdout.len(), input.len());
    let missing = cluster.run(&["exec", "web", "--", "no-such-program"]);
    assert!(!missing.status.success() && text(&missing.stderr).contains("no-such-program"), "{missing:?}");
}

fn exec_with_a_terminal(cluster: &Cluster) {
    let Some(script) = find("script") else { return };
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
    child.stdin.as_mut().unwrap().write_all(b"tty; echo $((6*7)) is it\rexit 5\r").unwrap();
    let output = finish(&mut child, b"");
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(out.contains("/dev/pts/") && out.contains("42 is it\r\n"), "{out}");
}

fn attach(cluster: &Cluster) {
    cluster.pod("tick", &["sh", "-c", "for i in a b c d e f; do sleep 1; echo $i; done"], "Never");
    cluster.wait_state("tick", "running");
    let attached = cluster.run(&["attach", "tick"]);
    assert!(text(&attached.stdout).ends_with("e\nf\n"), "{attached:?}");
}

fn copies(cluster: &Cluster) {
    let (source, back) = (cluster.dir.join("source"), cluster.dir.join("back"));
    let content: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&source, &content).unwrap();
    cluster.ok(&["cp", source.to_str().unwrap(), "web:/tmp/file"]);
    assert_eq!(cluster.ok(&["exec", "web", "--", "wc", "-c", "/tmp/file"]), "300000 /tmp/file\n");
    cluster.ok(&["cp", "web:/tmp/file", back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == content);
}

fn ports(cluster: &Cluster) {
    let busybox = cluster.run(&["exec", "web", "--", "busybox", "true"]);
    if !busybox.status.success() {
        println!("skipped: needs busybox in /usr");
        return;
    }
    cluster.pod("echo", &["busybox", "nc", "-ll", "-p", "7", "-e", "cat"], "Always");
    cluster.wait_state("echo", "running");
    let mut child = cluster.command(&["port-forward", "pod/echo", ":7"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port: u16 = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
            break rest.split_once(' ').unwrap().0.parse().unwrap();
        }
    };
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"hello there").unwrap();
        let mut back = [0; 11];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello there");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
