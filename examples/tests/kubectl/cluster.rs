//! A cluster for the test, as a process of its own, and kubectl for it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use examples::cluster::{self, options::Options};
use examples::{daemon, lab, tool};

use super::process::{Ended, run};

/// How long a cluster may take to come up.
const UP: Duration = Duration::from_secs(90);
/// How long it may take to end.
const DOWN: Duration = Duration::from_secs(20);

/// The minor version of kubectl that the transcripts are of.
const MINOR: &str = "v1.37.";

/// Functions that commands of scripts may use.
const PRELUDE: &str = "\
# Runs a command until it succeeds, for at most 30 seconds.
until_ok() { end=$(($(date +%s) + 30)); until \"$@\"; do [ $(date +%s) -lt $end ] || return 1; sleep 0.1; done; }
# Runs kubectl in the background with its output in a file; it is ended with the command.
background() { file=$1; shift; : >$file; kubectl \"$@\" >$file 2>&1 & pid=$!; trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null' EXIT; }
";

/// This program as the cluster, or a part of it.
pub(crate) fn dispatch() -> Option<ExitCode> {
    fn daemon(args: Vec<String>) -> ExitCode {
        match daemon::read(args[0].as_ref()).and_then(daemon::Role::run_to_end) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::FAILURE
            }
        }
    }
    fn tool(args: Vec<String>) -> ExitCode {
        tool::main(&args)
    }
    if let Some(code) = icp_node::backend::native::helper_main(std::env::args_os()) {
        return Some(code);
    }
    if let Some(code) = lab::dispatch(&[("daemon", daemon), ("tool", tool)]) {
        return Some(code);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((word, rest)) if word == "daemon" => Some(daemon(rest.to_vec())),
        Some((word, rest)) if word == "tool" => Some(tool(rest.to_vec())),
        Some((word, rest)) if word == "cluster" => {
            let name = std::iter::once("cluster".to_string());
            match cluster::run(&Options::parse_from(name.chain(rest.iter().cloned()))) {
                Ok(_) => Some(ExitCode::SUCCESS),
                Err(e) => {
                    eprintln!("{e}");
                    Some(ExitCode::from(2))
                }
            }
        }
        _ => None,
    }
}

/// kubectl of the version that the transcripts are of, after saying its version.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = std::env::var_os("ICP_KUBECTL").map(PathBuf::from).or_else(|| {
        std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file())
    })?;
    let output = Command::new(&file).args(["version", "--client"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    println!("kubectl: {line}");
    line.contains(MINOR).then_some(file)
}

/// What came of a start.
pub(crate) enum Start {
    /// It is up.
    Up(Cluster),
    /// This machine cannot have it, or not yet.
    Unsupported(String),
}

/// A cluster that runs. It ends, with its files, when it is dropped.
pub(crate) struct Cluster {
    pub(crate) mode: &'static str,
    child: Child,
    /// Files of the run; `$TMP` of scripts is a folder in it.
    dir: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + DOWN;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Cluster {
    /// Starts one and waits until its nodes are ready.
    pub(crate) fn start(mode: &'static str, kubectl: &Path) -> Start {
        let dir = std::env::temp_dir().join(format!("icp-kubectl-{mode}-{}", std::process::id()));
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(kubectl.canonicalize().unwrap(), bin.join("kubectl")).unwrap();
        std::fs::write(dir.join("prelude"), PRELUDE).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "cluster",
                "--mode",
                mode,
                // With more, the virtual address may move while the machine is busy, and takes kubectl's connection along.
                "--masters",
                "1",
                "--nodes",
                "3",
                "--listen",
                "127.0.0.1:0",
                "--for",
                "10m",
                "--json",
            ])
            .arg("--kubeconfig")
            .arg(dir.join("admin.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, told) = mpsc::channel();
        for from in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let tell = tell.clone();
            // Reads on to the end, so that the cluster never waits for a reader.
            std::thread::spawn(move || {
                BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
            });
        }
        drop(tell);
        let cluster = Self { mode, child, dir };
        let until = Instant::now() + UP;
        let mut said = Vec::new();
        while let Ok(line) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains("\"time to ready\"") {
                return Start::Up(cluster);
            }
            said.push(line);
        }
        let said = said.join("\n");
        assert!(
            mode == "real" && (said.contains("not yet") || said.contains("cannot be had")),
            "the cluster did not come up:\n{said}"
        );
        Start::Unsupported(said)
    }

    /// The folder of a script, which is made.
    pub(crate) fn dir_of(&self, script: &str) -> PathBuf {
        let dir = self.dir.join(script);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A shell that runs `line` as a script does.
    pub(crate) fn shell(&self, script: &str, line: &str) -> Command {
        let dir = self.dir_of(script);
        let config = dir.join("config");
        if !config.exists() {
            std::fs::copy(self.dir.join("admin.conf"), &config).unwrap();
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!(". {}; {line}", self.dir.join("prelude").display())])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl/manifests"))
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("HOME", &self.dir)
            .env("KUBECONFIG", config)
            .env("TMP", &dir)
            .env("NS", script)
            .env("MODE", self.mode)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("TERM", "dumb")
            .env_remove("EDITOR")
            .env_remove("KUBE_EDITOR");
        command
    }

    /// Runs `line` to its end.
    pub(crate) fn run(&self, script: &str, line: &str) -> Ended {
        run(&mut self.shell(script, line))
    }
}
