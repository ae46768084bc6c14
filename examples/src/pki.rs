//! The certificates of a cluster, as files in one directory.
//!
//! | file | who shows it |
//! |---|---|
//! | `ca.crt`, `ca.key` | the authority; every component trusts it |
//! | `apiserver` | the API servers, to clients |
//! | `apiserver-kubelet-client` | the API servers, to kubelets |
//! | `etcd-server`, `etcd-client` | the store, and the API servers to it |
//! | `admin`, `controller-manager`, `scheduler`, `proxy`, `dns` | clients of the API servers |
//! | `node-NAME` | the agents of a node, to the API servers |
//! | `kubelet-NAME` | the kubelet of a node, to the API servers that call it |

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use icp_core::base::Time;
use icp_core::shell::pki::{Authority, Identity, PkiError};

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiFilesError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// What the certificates name.
#[derive(Clone, Debug)]
pub struct PkiPlan {
    /// Names and addresses of the API servers: loopback, the virtual addresses, each master, the `kubernetes` service.
    pub apiserver_names: Vec<String>,
    /// Names and addresses of the store.
    pub etcd_names: Vec<String>,
    /// Nodes with their addresses.
    pub nodes: Vec<(String, Vec<String>)>,
}

/// A directory of certificates.
#[derive(Clone, Debug)]
pub struct PkiDir(PathBuf);

fn at(path: &Path) -> impl FnOnce(io::Error) -> PkiFilesError + '_ {
    move |source| PkiFilesError::File { path: path.into(), source }
}

impl PkiDir {
    /// The certificates that lie in `directory`.
    #[must_use]
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Makes the certificates that are missing. The authority is kept, so that a cluster that starts again is trusted
    /// by those who knew it.
    ///
    /// # Errors
    /// If the directory cannot be written, or a name cannot stand in a certificate.
    pub fn create(directory: impl Into<PathBuf>, plan: &PkiPlan, now: Time) -> Result<Self, PkiFilesError> {
        let dir = Self(directory.into());
        fs::create_dir_all(&dir.0).map_err(at(&dir.0))?;
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o700)).map_err(at(&dir.0))?;
        let ca = match dir.identity("ca") {
            Ok(identity) => Authority::from_identity(identity)?,
            Err(_) => {
                let ca = Authority::generate("icp-ca", now)?;
                dir.write("ca", ca.identity())?;
                ca
            }
        };
        let names = |list: &[String]| list.to_vec();
        let serving = |common: &str, list: Vec<String>| {
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            ca.serving(common, &list, now)
        };
        dir.write("apiserver", &serving("kube-apiserver", names(&plan.apiserver_names))?)?;
        dir.write("etcd-server", &serving("etcd", names(&plan.etcd_names))?)?;
        let clients: [(&str, &str, &[&str]); 7] = [
            ("admin", "kubernetes-admin", &["system:masters"]),
            ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"]),
            ("etcd-client", "kube-apiserver-etcd-client", &[]),
            ("controller-manager", "system:kube-controller-manager", &[]),
            ("scheduler", "system:kube-scheduler", &[]),
            ("proxy", "system:kube-proxy", &["system:node-proxier"]),
            ("dns", "system:kube-dns", &[]),
        ];
        for (file, user, groups) in clients {
            dir.write(file, &ca.client(user, groups, now)?)?;
        }
        for (node, addresses) in &plan.nodes {
            let mut list = vec![node.clone()];
            list.extend(addresses.iter().cloned());
            let user = format!("system:node:{node}");
            dir.write(&format!("node-{node}"), &ca.client(&user, &["system:nodes"], now)?)?;
            dir.write(&format!("kubelet-{node}"), &serving(&user, list)?)?;
        }
        Ok(dir)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The authority's certificate in PEM.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn ca_pem(&self) -> Result<String, PkiFilesError> {
        self.read("ca.crt")
    }

    /// A certificate with its key.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn identity(&self, name: &str) -> Result<Identity, PkiFilesError> {
        Ok(Identity {
            certificate_pem: self.read(&format!("{name}.crt"))?,
            key_pem: self.read(&format!("{name}.key"))?,
        })
    }

    /// The authority with its key.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn authority(&self) -> Result<Authority, PkiFilesError> {
        Ok(Authority::from_identity(self.identity("ca")?)?)
    }

    fn read(&self, name: &str) -> Result<String, PkiFilesError> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(at(&path))
    }

    fn write(&self, name: &str, identity: &Identity) -> Result<(), PkiFilesError> {
        private(&self.0.join(format!("{name}.crt")), identity.certificate_pem.as_bytes())?;
        private(&self.0.join(format!("{name}.key")), identity.key_pem.as_bytes())
    }

    /// The key of service account tokens that all API servers share (PKCS#8), made at first use.
    ///
    /// # Errors
    /// If it cannot be made, read or written.
    pub fn service_account_key(&self) -> Result<Vec<u8>, PkiFilesError> {
        let path = self.0.join("sa.p8");
        if let Ok(key) = fs::read(&path) {
            return Ok(key);
        }
        let key = icp_core::server::auth::token::TokenKey::generate().map_err(|e| PkiFilesError::File {
            path: path.clone(),
            source: io::Error::other(e.to_string()),
        })?;
        private(&path, &key)?;
        Ok(key)
    }
}

/// Writes a file that nobody else may read, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn private(path: &Path, data: &[u8]) -> Result<(), PkiFilesError> {
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut file, data)?;
        fs::rename(&fresh, path)
    };
    write().map_err(at(path))
}
