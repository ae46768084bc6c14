//! The store's daemon as a process that is killed with SIGKILL under load: what its clients were told, over gRPC and TLS,
//! is linearizable and durable, and their watches miss and repeat nothing.
//!
//! `ICP_DEEP` is the number of kills, 500 if it is no number; 20 without it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code, which starts a process and reads the clock"
)]

#[path = "../../../icp-store/tests/checker/mod.rs"]
mod checker;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use examples::daemon::etcd;
use examples::pki::{PkiDir, PkiPlan};
use icp_core::base::{Rng, Time};
use icp_core::shell::tls;
use icp_store::etcd::{Client, ClientOptions};

const CONFIG: &str = "ICP_ETCD_PROCESS_CONFIG";

/// The process that is killed: a test that does nothing unless it is started as that process.
#[test]
fn server_process() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let config: etcd::Config = serde_json::from_str(config.to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    runtime.block_on(etcd::run(config, stopped)).unwrap();
}

/// The daemon in a process of its own; it ends with this value.
struct Server {
    child: Child,
}

impl Server {
    fn start(config: &etcd::Config) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_process", "--nocapture", "--test-threads=1"])
            .env(CONFIG, serde_json::to_string(config).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn deep() -> u64 {
    let Some(number) = std::env::var_os("ICP_DEEP") else { return 20 };
    number.to_str().and_then(|n| n.parse().ok()).filter(|n| *n > 1).unwrap_or(500)
}

fn configure() -> (PathBuf, etcd::Config, Client) {
    let dir = std::env::temp_dir().join(format!("icp-etcd-process-{}", std::process::id()));
    let now = Time::ZERO + SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let plan = PkiPlan {
        apiserver_names: vec!["127.0.0.1".into()],
        etcd_names: vec!["127.0.0.1".into()],
        nodes: Vec::new(),
    };
    let pki = PkiDir::create(dir.join("pki"), &plan, now).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let tls =
        tls::client(&pki.etcd_ca_pem().unwrap(), Some(&pki.identity("etcd-client").unwrap()), &[]).unwrap();
    let options = ClientOptions {
        retry_delay_max: Duration::from_millis(100),
        tls: Some(tls),
        ..ClientOptions::default()
    };
    let client = Client::new(&[format!("https://{listen}")], options).unwrap();
    let config = etcd::Config::new(listen, dir.join("data"), pki.path().into());
    (dir, config, client)
}

#[test]
fn a_history_over_many_kills_is_linearizable_and_watches_miss_nothing() {
    let (dir, config, client) = configure();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut rng = Rng::new(20);
    let kills = deep();
    let mut server = Server::start(&config);
    let (history, truth) = runtime.block_on(async {
        let running = checker::record::start(Arc::new(client), 7, 5, u64::MAX);
        let mut answered = 0;
        for kill in 0..=kills {
            let (until, deadline) =
                (answered + 15 + rng.below(30) as usize, Instant::now() + Duration::from_secs(60));
            while answered < until {
                assert!(Instant::now() < deadline, "no answers after {kill} kills");
                tokio::time::sleep(Duration::from_millis(2)).await;
                answered = running.answered();
            }
            if kill < kills {
                server.kill();
                server = Server::start(&config);
            }
        }
        running.stop();
        running.finish().await
    });
    let checked = history.check(&truth).unwrap_or_else(|v| panic!("{v:?}"));
    let unknown = checked.unknown - checker::record::SETTLING_WRITES;
    println!("{kills} kills, {checked:?}, of them {unknown} writes that were done and not answered");
    assert!(checked.writes as u64 > 5 * kills && checked.events > 100, "{checked:?}");
    drop(server);
    std::fs::remove_dir_all(dir).unwrap();
}
