//! The real etcdctl against our server.
#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use icp_core::storage::Storage;
use icp_store::Memory;
use icp_store::etcd::server::{ServerOptions, serve};

/// Our server on loopback, in a runtime of its own.
struct Server {
    _runtime: tokio::runtime::Runtime,
    url: String,
    etcdctl: PathBuf,
}

impl Server {
    fn start(storage: Arc<dyn Storage>) -> Option<Self> {
        let etcdctl = peer::find("etcdctl")?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        // Without a scheme: some calls of etcdctl 3.4 name the whole URL as HTTP/2 authority, which is malformed.
        let url = listener.local_addr().unwrap().to_string();
        let options = ServerOptions { client_urls: vec![url.clone()], ..ServerOptions::default() };
        runtime.spawn(serve(listener, storage, options));
        Some(Self { _runtime: runtime, url, etcdctl })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.etcdctl);
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.url).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs etcdctl, which must succeed, and returns what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args, "");
        let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "etcdctl {args:?}: {text}{error}");
        text.trim_end().to_string()
    }

    /// Runs etcdctl, which must fail, and returns its error.
    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args, "");
        assert!(!out.status.success(), "etcdctl {args:?} succeeded");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}

#[test]
fn keys_transactions_and_compaction() {
    let Some(server) = Server::start(Arc::new(Memory::new())) else { return };
    assert_eq!(server.ok(&["put", "a", "1"]), "OK");
    assert_eq!(server.ok(&["put", "--prev-kv", "a", "2"]), "OK\na\n1");
    server.ok(&["put", "b", "3"]);
    assert_eq!(server.ok(&["get", "a"]), "a\n2");
    assert_eq!(server.ok(&["get", "--rev=2", "a"]), "a\n1");
    assert_eq!(server.ok(&["get", "--prefix", "", "--keys-only"]).replace('\n', ""), "ab");
    assert_eq!(
        server.ok(&["get", "--from-key", "a", "--sort-by=key", "--order=descend", "--print-value-only"]),
        "3\n2"
    );
    assert_eq!(server.ok(&["get", "--prefix", "", "--limit=1"]), "a\n2");
    let txn = server.run(&["txn"], "value(\"a\") = \"2\"\nmod(\"b\") > \"1\"\n\nput a 9\nget a\n\nget b\n\n");
    let text = String::from_utf8_lossy(&txn.stdout).into_owned();
    assert!(text.contains("SUCCESS") && text.contains("OK") && text.contains("a\n9"), "{text}");
    assert!(server.fails(&["get", "--rev=99", "a"]).contains("required revision is a future revision"));
    assert_eq!(server.ok(&["compaction", "4"]), "compacted revision 4");
    assert!(server.fails(&["get", "--rev=3", "a"]).contains("required revision has been compacted"));
    assert!(server.fails(&["compaction", "4"]).contains("required revision has been compacted"));
    assert_eq!(server.ok(&["del", "--prev-kv", "a"]), "1\na\n9");
    assert_eq!(server.ok(&["del", "--from-key", "a"]), "1");
    assert!(server.fails(&["put", "--ignore-value", "nothing"]).contains("key not found"));
}

#[test]
fn watches() {
    let Some(server) = Server::start(Arc::new(Memory::new())) else { return };
    server.ok(&["put", "k/1", "old"]);
    server.ok(&["put", "k/1", "new"]);
    let mut child = server.command(&["watch", "--prefix", "k/", "--rev=2", "--prev-kv"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |n: usize| -> Vec<String> { lines.by_ref().take(n).collect() };
    assert_eq!(next(3), ["PUT", "k/1", "old"].map(String::from));
    assert_eq!(next(5), ["PUT", "k/1", "old", "k/1", "new"].map(String::from));
    server.ok(&["put", "other", "x"]);
    server.ok(&["del", "k/1"]);
    assert_eq!(next(5), ["DELETE", "k/1", "new", "k/1", ""].map(String::from));
    child.kill().unwrap();
    child.wait().unwrap();
    server.ok(&["compaction", "4"]);
    assert!(server.fails(&["watch", "--rev=2", "k/1"]).contains("required revision has been compacted"));
}

#[test]
fn leases() {
    let Some(server) = Server::start(Arc::new(Memory::new())) else { return };
    let granted = server.ok(&["lease", "grant", "60"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_string();
    assert!(granted.ends_with("granted with TTL(60s)"), "{granted}");
    server.ok(&["put", "--lease", &id, "k", "v"]);
    let left = server.ok(&["lease", "timetolive", "--keys", &id]);
    assert!(left.contains("granted with TTL(60s)") && left.ends_with("attached keys([k])"), "{left}");
    assert!(server.ok(&["lease", "list"]).contains(&id));
    assert_eq!(
        server.ok(&["lease", "keep-alive", "--once", &id]),
        format!("lease {id} keepalived with TTL(60)")
    );
    assert_eq!(server.ok(&["lease", "revoke", &id]), format!("lease {id} revoked"));
    assert_eq!(server.ok(&["get", "k"]), "");
    assert!(server.fails(&["lease", "revoke", &id]).contains("requested lease not found"));
    assert!(server.fails(&["put", "--lease", &id, "k", "v"]).contains("requested lease not found"));
    // A lock is a lease, a transaction and a watch.
    assert_eq!(server.ok(&["lock", "mutex", "echo", "held"]), "held");
}

#[test]
fn cluster_and_maintenance() {
    let Some(server) = Server::start(Arc::new(Memory::new())) else { return };
    assert!(server.run(&["endpoint", "health"], "").status.success());
    assert!(server.ok(&["endpoint", "status"]).contains("true"), "the one member leads");
    assert!(server.ok(&["endpoint", "hashkv"]).contains(&server.url));
    assert!(server.ok(&["member", "list"]).contains("started, default"));
    assert_eq!(server.ok(&["alarm", "list"]), "");
    assert!(server.ok(&["defrag"]).starts_with("Finished defragmenting"));
    assert!(server.ok(&["check", "perf", "--load=s", "--help"]).contains("perf"));
    assert_eq!(server.ok(&["user", "list"]), "");
    assert!(server.fails(&["role", "add", "r"]).contains("client certificates are the authentication"));
}

/// etcdctl's own load: 10,000 keys of 1 KiB by 50 clients, and the memory that `/metrics` tells meanwhile. With `ICP_DEEP`
/// also a minute of a steady rate.
#[test]
fn the_checks_of_etcdctl_pass() {
    let Some(server) = Server::start(Arc::new(Memory::new())) else { return };
    assert!(server.ok(&["check", "datascale", "--load=s"]).contains("PASS: Approximate system memory used"));
    // It leaves nothing behind.
    assert_eq!(server.ok(&["get", "", "--prefix", "--keys-only"]), "");
    if peer::deep(0, 1) > 0 {
        let text = server.ok(&["check", "perf", "--load=s"]);
        assert!(text.ends_with("PASS"), "{text}");
    }
}
