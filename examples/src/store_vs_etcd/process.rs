//! The processes that are measured: each is killed with its guard, and ends if this program ends in any other way.
#![expect(clippy::disallowed_methods, reason = "a program: it waits for its children")]

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Failure;

/// How long a server may take to come up; recovery of much data is within it.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// Counters of a store's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// CPU time, user and system.
    pub(super) cpu_secs: f64,
    /// Syncs of the log.
    pub(super) syncs: f64,
    /// Records that they made durable.
    pub(super) records: f64,
}

/// A child process; it is killed and waited for when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    what: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    stderr: PathBuf,
}

impl Process {
    fn spawn(what: &'static str, args: Vec<OsString>, stderr: &Path) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::Child { what, detail: e.to_string() };
        let log = std::fs::File::create(stderr).map_err(failed)?;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { what, stdin: child.stdin.take(), child, lines, stderr: stderr.to_path_buf() })
    }

    /// This program as the child `role`.
    pub(super) fn role(
        what: &'static str,
        role: &str,
        args: &[&str],
        stderr: &Path,
    ) -> Result<Self, Failure> {
        let words = ["child", role].iter().chain(args).map(OsString::from).collect();
        Self::spawn(what, words, stderr)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Sends a line.
    pub(super) async fn tell(&mut self, line: &str) -> Result<(), Failure> {
        if let Some(stdin) = &mut self.stdin
            && stdin.write_all(format!("{line}\n").as_bytes()).await.is_ok()
        {
            return Ok(());
        }
        Err(self.ended().await)
    }

    /// The next line that it prints, as JSON.
    pub(super) async fn answer<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Failure> {
        if let Some(lines) = &mut self.lines
            && let Ok(Some(line)) = lines.next_line().await
        {
            let what = self.what;
            return serde_json::from_str(&line)
                .map_err(|e| Failure::Child { what, detail: format!("it answered {line:?}: {e}") });
        }
        Err(self.ended().await)
    }

    /// Why it does not answer.
    async fn ended(&mut self) -> Failure {
        let status = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        let ended = status.map_or_else(|| "it does not answer".into(), |s| format!("it ended: {s}"));
        Failure::Child { what: self.what, detail: format!("{ended}{}", self.last_words(status)) }
    }

    /// The last line of its log; one that was killed had no time for any.
    fn last_words(&self, status: Option<ExitStatus>) -> String {
        if status.is_none_or(|s| s.signal().is_some()) {
            return String::new();
        }
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        log.lines().rev().find(|l| !l.trim().is_empty()).map_or_else(String::new, |l| format!(": {l}"))
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::Child {
                what: self.what,
                detail: format!("it ended: {status}{}", self.last_words(Some(status))),
            }),
            Err(e) => Err(Failure::Child { what: self.what, detail: e.to_string() }),
        }
    }

    /// `kill -9`, and waits for the end.
    pub(super) fn kill(&mut self) {
        let _ = self.child.start_kill();
        let began = Instant::now();
        // A killed process is gone as soon as it leaves the kernel; a sync it is in may take a while.
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Becomes `program`, which ends with the process that started this one.
pub(super) fn exec(args: &[String]) -> Result<(), Failure> {
    let what = "etcd";
    let [program, args @ ..] = args else {
        return Err(Failure::Child { what, detail: "no program is named".into() });
    };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| Failure::Child { what, detail: e.to_string() })?;
    Err(Failure::Child { what, detail: StdCommand::new(program).args(args).exec().to_string() })
}

/// A server of the etcd v3 API.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: Process,
    /// `http://host:port`.
    pub(super) url: String,
    etcd: bool,
}

impl Server {
    /// Our server of the directory `data`.
    pub(super) async fn ours(data: &Path) -> Result<Self, Failure> {
        let stderr = data.with_extension("ours.log");
        let mut process = Process::role("our server", "serve", &[&data.to_string_lossy()], &stderr)?;
        let port: u16 = process.answer().await?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}"), etcd: false })
    }

    /// Etcd, with one member, in the directory `data`.
    pub(super) async fn etcd(program: &Path, data: &Path) -> Result<Self, Failure> {
        let (client, peer) = (free_port()?, free_port()?);
        let (url, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let flags = [
            "--name=default".to_string(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            format!("--quota-backend-bytes={}", 8_u64 << 30),
            "--logger=zap".to_string(),
            "--log-level=error".to_string(),
        ];
        let mut args: Vec<OsString> = vec!["child".into(), "exec".into(), program.into()];
        args.extend(flags.into_iter().map(OsString::from));
        let process = Process::spawn("etcd", args, &data.with_extension("etcd.log"))?;
        let mut server = Self { process, url, etcd: true };
        let began = Instant::now();
        loop {
            server.process.check()?;
            if let Ok(health) = http_get(&server.url, "/health").await
                && health.contains("true")
            {
                return Ok(server);
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(Failure::Child { what: "etcd", detail: "it is not healthy in time".into() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its counters now.
    pub(super) async fn counters(&mut self) -> Result<Counters, Failure> {
        let cpu_secs = cpu_secs(self.process.pid());
        if !self.etcd {
            self.process.tell("counters").await?;
            let counters: Counters = self.process.answer().await?;
            return Ok(Counters { cpu_secs, ..counters });
        }
        let text = http_get(&self.url, "/metrics").await;
        let text = text.map_err(|e| Failure::Child { what: "etcd", detail: format!("/metrics: {e}") })?;
        Ok(Counters {
            cpu_secs,
            syncs: metric(&text, "etcd_disk_wal_fsync_duration_seconds_count"),
            records: metric(&text, "etcd_server_proposals_applied_total"),
        })
    }
}

fn free_port() -> Result<u16, Failure> {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    bound.map(|a| a.port()).map_err(|e| Failure::Child { what: "etcd", detail: format!("no free port: {e}") })
}

/// The body of a plain HTTP answer.
async fn http_get(url: &str, path: &str) -> std::io::Result<String> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_string()))
}

/// The value of a metric without labels.
fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}

/// CPU time of a process.
pub(super) fn cpu_secs(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// `utime` and `stime` of `proc_pid_stat(5)`; the name before them may hold anything but ends with the last `)`.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum()
}

/// A figure of `/proc/PID/status` in bytes: `VmRSS`, `RssAnon`.
pub(super) fn status_bytes(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = |line: &str| {
        let kib: f64 =
            line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1_024.0)
    };
    status.lines().find_map(value).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_processes_are_read() {
        assert_eq!(ticks("12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20"), 123);
        assert_eq!(ticks(""), 0);
        let text = "# HELP x\nx_count_more 1\nx_count 42\n";
        assert_eq!((metric(text, "x_count"), metric(text, "y")), (42.0, 0.0));
        assert!(status_bytes(std::process::id(), "VmRSS") > 0.0);
    }
}
