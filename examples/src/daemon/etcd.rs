//! `icp-etcd`: the store as a server of the etcd v3 API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use icp_core::shell::tls;
use icp_store::etcd::server::{ServerOptions, serve};
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
    let disk = open(&config.data_dir)?;
    let listener = super::listen(config.listen).await?;
    let options = ServerOptions {
        client_urls: vec![format!("https://{}", config.listen)],
        tls: Some(tls),
        ..ServerOptions::default()
    };
    tokio::select! {
        done = serve(listener, Arc::new(disk), options) => done.map_err(DaemonError::io("serving")),
        () = stopped(stop) => Ok(()),
    }
}
