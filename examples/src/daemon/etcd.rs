//! `icp-etcd`: the store as a server of the etcd v3 API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use icp_core::shell::tls;
use icp_store::etcd::server::{ServerOptions, serve_with_metrics};
use icp_store::etcd::{SyncTimes, snapshot};
use icp_store::log::{LogError, LogOptions, OsFiles};
use icp_store::{Disk, DiskOptions};
use serde::{Deserialize, Serialize};

use super::{DaemonError, Stop, stopped};
use crate::pki::PkiDir;

/// What the store is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// The directory of certificates; clients must show one of the authority `etcd-ca`.
    pub pki: PathBuf,
    /// Where `/health`, `/version` and `/metrics` are served without TLS, beside `listen` (etcd's `--listen-metrics-urls`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_metrics: Option<SocketAddr>,
    /// A snapshot of an etcd, or the `member/snap/db` of one that was stopped. A data directory that holds nothing yet
    /// begins as that; one that holds a store is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<PathBuf>,
}

impl Config {
    /// A store in `data_dir`, served at `listen`.
    #[must_use]
    pub fn new(listen: SocketAddr, data_dir: PathBuf, pki: PathBuf) -> Self {
        Self { listen, data_dir, pki, listen_metrics: None, restore_from: None }
    }
}

/// Makes `data_dir` the store that `file` describes, if it holds nothing yet; says whether it did.
///
/// # Errors
/// [`DaemonError::Store`].
pub fn restore(file: &std::path::Path, data_dir: &std::path::Path) -> Result<bool, DaemonError> {
    match snapshot::restore(file, data_dir, LogOptions::default()) {
        Ok(read) => {
            println!(
                "icp-etcd: restored {} keys at revision {} (compacted {}) and {} leases from {}",
                read.keys,
                read.revision,
                read.compacted,
                read.leases,
                file.display()
            );
            Ok(true)
        }
        Err(snapshot::RestoreError::NotEmpty { .. }) => Ok(false),
        Err(e) => Err(DaemonError::Store { what: data_dir.display().to_string(), detail: e.to_string() }),
    }
}

/// Opens the directory as a store.
///
/// # Errors
/// [`DaemonError::Store`].
pub fn open(data_dir: &std::path::Path) -> Result<Disk, DaemonError> {
    Disk::open(data_dir, DiskOptions::default())
        .map_err(|e| DaemonError::Store { what: data_dir.display().to_string(), detail: e.to_string() })
}

/// Serves until `stop`.
///
/// # Errors
/// If the directory or the address cannot be had.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let pki = PkiDir::open(&config.pki);
    let tls = tls::server_mutual(&pki.identity("etcd-server")?, &pki.etcd_ca_pem()?)?;
    if let Some(file) = &config.restore_from {
        restore(file, &config.data_dir)?;
    }
    let sync_times = SyncTimes::default();
    let what = config.data_dir.display().to_string();
    let failed = |e: LogError| DaemonError::Store { what: what.clone(), detail: e.to_string() };
    let files = sync_times.files(OsFiles::open(&config.data_dir).map_err(failed)?);
    let disk = Disk::open_files(files, DiskOptions::default()).map_err(failed)?;
    let listener = super::listen(config.listen).await?;
    let metrics = match config.listen_metrics {
        Some(address) => Some(super::listen(address).await?),
        None => None,
    };
    let options = ServerOptions {
        client_urls: vec![format!("https://{}", config.listen)],
        sync_times: Some(sync_times),
        tls: Some(tls),
        ..ServerOptions::default()
    };
    tokio::select! {
        done = serve_with_metrics(listener, metrics, Arc::new(disk), options) => done.map_err(DaemonError::io("serving")),
        () = stopped(stop) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use icp_core::storage::{Op, PutRequest, Storage, Txn};
    use icp_store::Memory;

    use super::*;

    /// The snapshot is taken by an empty directory alone, so that a restart does not go back to it.
    #[tokio::test]
    async fn a_directory_begins_from_a_snapshot_once() {
        let dir = std::env::temp_dir().join(format!("icp-etcd-restore-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let put =
            |key: &'static str| Txn { success: vec![Op::Put(PutRequest::new(key, "v"))], ..Txn::default() };
        let source = Memory::new();
        source.txn(put("a")).await.unwrap();
        let (mut file, mut bytes) = (snapshot::export(source.snapshot().await.unwrap(), 1), Vec::new());
        while file.next(&mut bytes) {}
        let path = dir.join("snapshot.db");
        std::fs::write(&path, &bytes).unwrap();

        let data_dir = dir.join("data");
        assert!(restore(&path, &data_dir).unwrap());
        let disk = open(&data_dir).unwrap();
        assert_eq!(disk.txn(put("b")).await.unwrap().revision, 3);
        drop(disk);
        assert!(!restore(&path, &data_dir).unwrap());
        assert_eq!(open(&data_dir).unwrap().revision(), 3);
        assert!(restore(&dir.join("missing"), &dir.join("other")).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
