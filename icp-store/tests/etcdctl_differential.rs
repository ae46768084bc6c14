//! The same etcdctl commands against our server and a real etcd: the same output, but for ids, raft's figures and sizes.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

mod peer;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use icp_store::Memory;
use icp_store::etcd::server::{ServerOptions, serve};

/// A server that etcdctl is pointed at.
struct Side {
    address: String,
    etcdctl: PathBuf,
    /// The lease that was granted last.
    lease: String,
}

impl Side {
    fn spawn(&self, line: &str, extra: &[&str]) -> Child {
        let words = line.split_whitespace().map(|w| w.replace("{lease}", &self.lease));
        let words = words.map(|w| w.replace("''", "").replace("{self}", &self.address));
        // A command that waits for what never comes must not hold the test.
        Command::new("timeout")
            .arg("20")
            .arg(&self.etcdctl)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.address])
            .args(words)
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Exit code, output and errors of a command, masked.
    fn run(&mut self, line: &str, input: &str) -> String {
        let mut child = self.spawn(line, &[]);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let [stdout, stderr] = [&out.stdout, &out.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
        if let Some(granted) = stdout.strip_prefix("lease ").filter(|t| t.contains(" granted with")) {
            self.lease = granted.split_whitespace().next().unwrap().to_string();
        }
        // Of a client's own log only the error is the server's.
        let errors: Vec<String> = stderr
            .lines()
            .filter_map(|line| match line.strip_prefix('{') {
                Some(_) => serde_json::from_str::<serde_json::Value>(line).ok()?["error"]
                    .as_str()
                    .map(str::to_string),
                None => Some(line.to_string()),
            })
            .collect();
        mask(&format!("exit {:?}\n{stdout}\n{}", out.status.code(), errors.join("\n")))
    }
}

/// What is followed by a number that no other server has.
const OWN: [&str; 23] = [
    "ttl",
    "raft_term",
    "RaftTerm",
    "raftTerm",
    "RaftIndex",
    "raftIndex",
    "raftAppliedIndex",
    "RaftAppliedIndex",
    "dbSize",
    "DBSize",
    "dbSizeInUse",
    "DBSizeInUse",
    "version",
    "Version",
    "Leader",
    "leader",
    "ClusterID",
    "MemberID",
    "cluster_id",
    "member_id",
    "ID",
    "Lease",
    "lease",
];

/// Replaces ids, addresses, times and sizes, and what follows one of [`OWN`]; runs of blanks and lines are one.
fn mask(text: &str) -> String {
    let mut out = String::new();
    let mut own = false;
    let mut token = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || "._/\u{b5}".contains(c) {
            token.push(c);
            continue;
        }
        if !token.is_empty() {
            let digits = token.bytes().filter(u8::is_ascii_digit).count();
            let hex = token.len() >= 7 && token.bytes().all(|b| b.is_ascii_hexdigit()) && digits > 0;
            let time = ["ms", "\u{b5}s", "s"].iter().any(|unit| {
                let number = token.strip_suffix(unit).unwrap_or_default();
                number.contains('.') && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            });
            let number = digits == token.len();
            if own && (number || token.contains('.')) {
                out.push('#');
            } else if hex || time || token.contains("127.0.0.1") {
                out.push_str("<>");
            } else {
                out.push_str(&token);
            }
            // A port follows an address.
            own = OWN.contains(&token.as_str()) || token.contains("127.0.0.1");
            token.clear();
        }
        let blank = [' ', '-', '\t'].contains(&c);
        if !(blank && out.ends_with([' ', '-', '\t'])) {
            out.push(c);
        }
    }
    out
}

fn sides() -> Option<(Side, Side, peer::Etcd, tokio::runtime::Runtime)> {
    let etcd = peer::Etcd::start()?;
    let etcdctl = peer::find("etcdctl")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let url = format!("http://{address}");
    let options =
        ServerOptions { client_urls: vec![url.clone()], peer_urls: vec![url], ..ServerOptions::default() };
    runtime.spawn(serve(listener, Arc::new(Memory::new()), options));
    let side =
        |address: &str| Side { address: address.into(), etcdctl: etcdctl.clone(), lease: String::new() };
    Some((side(etcd.url.trim_start_matches("http://")), side(&address), etcd, runtime))
}

/// Commands in order; what follows ` < ` is the standard input, with `|` for a new line.
const SCRIPT: &[&str] = &[
    "version",
    "put a 1",
    "put a 2 --prev-kv",
    "put a < from standard input",
    "put b 2 -w json",
    "put b 3 -w fields",
    "put b 4 -w json --prev-kv",
    "put c 1 --lease=1234",
    "put c --ignore-value",
    "put a --ignore-value --ignore-lease",
    "put d 1",
    "get a",
    "get a -w json",
    "get a -w fields",
    "get a --hex",
    "get missing",
    "get missing -w json",
    "get '' --prefix",
    "get '' --from-key --keys-only",
    "get a z --print-value-only",
    "get a z --sort-by=modify --order=descend",
    "get a z --sort-by=value --order=ascend --limit=2",
    "get a z --sort-by=create",
    "get a z --sort-by=version --order=descend -w json",
    "get a --rev=2",
    "get a --rev=999",
    "get '' --prefix --limit=1 -w fields",
    "get '' --prefix --consistency=s",
    "get a b c d",
    "txn < value(\"a\") = \"9\"||put a 9|get a||put e 1|get e|get a --rev=3||",
    "txn < mod(\"a\") > \"1\"|ver(\"b\") = \"3\"|create(\"zz\") = \"0\"||del b|put f 2||get a||",
    "txn -w json < ver(\"f\") = \"1\"||get f|put g 1||get a||",
    "txn < ||put x 1|put x 2||get a||",
    "del a --prev-kv",
    "del missing",
    "del '' --prefix --prev-kv -w json",
    "del x y --from-key -w fields",
    "put h/1 one",
    "put h/2 two",
    "put h/1 one_again",
    "lease grant 600",
    "lease grant 600 -w json",
    "lease grant 0",
    "lease grant 9000000001",
    "lease grant 700",
    "put l/1 1 --lease={lease}",
    "put l/2 1 --lease={lease}",
    "lease timetolive {lease} --keys -w json",
    "lease timetolive 99",
    "lease keep-alive 99 --once",
    "lease keep-alive {lease} --once",
    "lease keep-alive {lease} --once -w json",
    "get l --prefix",
    "lease revoke {lease}",
    "lease revoke {lease}",
    "get l --prefix",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "endpoint hashkv --rev=5",
    "compaction 10",
    "compaction 10",
    "compaction 9999",
    "compaction 12 --physical",
    "get h/1 --rev=11",
    "endpoint hashkv -w fields",
    "endpoint hashkv --rev=5",
    "watch h/1 --rev=5",
    "endpoint health",
    "endpoint status -w json",
    "endpoint status -w fields",
    "member list",
    "member remove 99",
    "member update 99 --peer-urls=http://127.0.0.1:1",
    "member promote 99",
    "move-leader 99",
    "defrag",
    "alarm list",
    "alarm disarm",
    "user list",
    "user get nobody",
    "user delete nobody",
    "user grant-role nobody r",
    "user revoke-role nobody r",
    "role list",
    "role get r",
    "role delete r",
    "role grant-permission r read k",
    "role revoke-permission r k",
    "auth enable",
    "auth disable",
    "lock mutex echo held",
    "nonsense",
    "get",
];

#[test]
fn the_output_of_commands_is_that_of_a_real_etcd() {
    let Some((mut theirs, mut ours, _etcd, _runtime)) = sides() else { return };
    let mut differ = Vec::new();
    for command in SCRIPT {
        let (line, input) = command.split_once(" < ").unwrap_or((command, ""));
        let input = input.replace('|', "\n");
        let (a, b) = (theirs.run(line, &input), ours.run(line, &input));
        if a != b {
            differ.push(format!("== {command}\n-- etcd\n{a}\n-- ours\n{b}"));
        }
    }
    assert!(differ.is_empty(), "{} commands differ\n{}", differ.len(), differ.join("\n"));
}

/// Reads lines of a child until one contains `end`.
fn until(lines: &mut impl Iterator<Item = String>, end: &str) -> String {
    let mut seen = String::new();
    for line in lines {
        seen.push_str(&line);
        seen.push('\n');
        if line.contains(end) {
            break;
        }
    }
    mask(&seen)
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn end(mut child: Child) {
    signal(&child, "-TERM");
    child.wait().unwrap();
}

#[test]
fn watches_print_what_they_print_on_a_real_etcd() {
    let Some((theirs, ours, _etcd, _runtime)) = sides() else { return };
    let seen = [theirs, ours].map(|mut side| {
        let mut seen = Vec::new();
        for command in ["put w/1 old", "put w/1 new", "put w/2 x", "del w/2"] {
            side.run(command, "");
        }
        for format in ["simple", "json", "fields"] {
            let mut child = side.spawn("watch w/ --prefix --rev=2 --prev-kv -w", &[format]);
            let mut printed = lines(&mut child);
            // The deletion is the last event.
            seen.push(until(&mut printed, if format == "json" { "CompactRevision" } else { "DELETE" }));
            end(child);
        }
        let mut child = side.spawn("watch --interactive", &[]);
        let mut input = child.stdin.take().unwrap();
        let mut printed = lines(&mut child);
        input.write_all(b"watch w/ --prefix --rev=3 --prev-kv\n").unwrap();
        seen.push(until(&mut printed, "DELETE"));
        end(child);
        seen
    });
    let [theirs, ours] = seen;
    for (a, b) in theirs.iter().zip(&ours) {
        assert_eq!(a, b);
    }
}

/// Two candidates for one lock and one office: the second has it when the first gives it back.
#[test]
fn locks_and_elections_pass_from_one_client_to_the_next() {
    let Some((_, side, _etcd, _runtime)) = sides() else { return };
    for command in ["lock mutex", "elect office"] {
        let names: [&[&str]; 2] =
            if command.starts_with("elect") { [&["ann"], &["bob"]] } else { [&[], &[]] };
        let mut first = side.spawn(command, names[0]);
        let mut first_lines = lines(&mut first);
        let key = first_lines.next().unwrap();
        assert!(key.starts_with("mutex/") || key.starts_with("office/"), "{key}");
        let mut second = side.spawn(command, names[1]);
        let mut second_lines = lines(&mut second);
        // Interrupted, etcdctl gives the lock back.
        signal(&first, "-INT");
        first.wait().unwrap();
        let second_key = second_lines.next().unwrap();
        assert_ne!(second_key, key);
        end(second);
    }
}

#[test]
fn a_mirror_follows_from_our_server_to_a_real_etcd_and_back() {
    let Some((mut theirs, mut ours, _etcd, _runtime)) = sides() else { return };
    ours.run("put m/before 1", "");
    let mirror = ours.spawn("make-mirror {self} --prefix=m/ --dest-prefix=copy/", &[]);
    let there = ours.spawn("make-mirror --prefix=m/", &[&theirs.address]);
    ours.run("put m/after 2", "");
    for (there, key, value) in [(false, "copy/after", "2"), (true, "m/before", "1"), (true, "m/after", "2")] {
        let side = if there { &mut theirs } else { &mut ours };
        let found = (0..200).any(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            side.run(&format!("get {key} --print-value-only"), "").contains(value)
        });
        assert!(found, "{key} was not mirrored");
    }
    end(mirror);
    end(there);
}
