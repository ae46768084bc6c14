//! Finds and runs the real etcd of the system on loopback.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The path of a program, or `None` after saying that the test is skipped; with `ICP_PEERS=required` that is a failure.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs {program}");
        println!("skipped: needs {program}");
    }
    found
}

/// A real etcd that ends, with its directory, when it is dropped.
pub struct Etcd {
    child: Child,
    dir: PathBuf,
    pub url: String,
    pub pid: u32,
}

impl Etcd {
    /// Starts one; `None` if the system has none.
    pub fn start() -> Option<Self> {
        Self::start_from(None)
    }

    /// Starts one that begins with a snapshot.
    pub fn start_from(snapshot: Option<&Path>) -> Option<Self> {
        Self::start_with(snapshot, &[])
    }

    /// Starts one with more arguments.
    pub fn start_with(snapshot: Option<&Path>, arguments: &[&str]) -> Option<Self> {
        let program = find("etcd")?;
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (free(), free());
        let dir = temp_dir("etcd");
        let url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        if let Some(snapshot) = snapshot {
            let restored = Command::new(find("etcdctl")?)
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", "--name", "default"])
                .arg(snapshot)
                .arg("--data-dir")
                .arg(dir.join("data"))
                .args(["--initial-cluster", &format!("default={peer_url}")])
                .args(["--initial-advertise-peer-urls", &peer_url])
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&restored.stderr);
            assert!(restored.status.success(), "etcdctl snapshot restore: {error}");
        }
        let child = Command::new(program)
            .args(arguments)
            .args(["--name", "default", "--log-level", "error", "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .env_remove("ETCDCTL_API")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        let etcd = Self { child, dir, url, pid };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", client)).is_ok() {
                return Some(etcd);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("etcd did not start");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An empty directory of this process.
pub fn temp_dir(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("icp-store-{name}-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// An amount of work: `default`, or with `ICP_DEEP` its number, or `deep` if it is no number above 1.
pub fn deep(default: u64, deep: u64) -> u64 {
    match std::env::var_os("ICP_DEEP") {
        Some(n) => n.to_str().and_then(|n| n.parse().ok()).filter(|n| *n > 1).unwrap_or(deep),
        None => default,
    }
}
