//! The certificates of a cluster, as files in one directory.
//!
//! | file | who shows it |
//! |---|---|
//! | `ca` | the authority; every component trusts it |
//! | `etcd-ca` | the authority of the store: whoever it signs for may read and write everything |
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

impl PkiFilesError {
    /// Whether the file is not there.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
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
        let (ca, etcd_ca) = (dir.kept_authority("ca", now)?, dir.kept_authority("etcd-ca", now)?);
        let serving = |ca: &Authority, common: &str, list: &[String]| {
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            ca.serving(common, &list, now)
        };
        dir.write("apiserver", &serving(&ca, "kube-apiserver", &plan.apiserver_names)?)?;
        dir.write("etcd-server", &serving(&etcd_ca, "etcd", &plan.etcd_names)?)?;
        dir.write("etcd-client", &etcd_ca.client("kube-apiserver-etcd-client", &[], now)?)?;
        let clients: [(&str, &str, &[&str]); 6] = [
            ("admin", "kubernetes-admin", &["system:masters"]),
            // The name is what kubelets let in; it has no rights at the API server itself.
            ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[]),
            ("controller-manager", "system:kube-controller-manager", &[]),
            ("scheduler", "system:kube-scheduler", &[]),
            ("proxy", "system:kube-proxy", &[]),
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
            dir.write(&format!("kubelet-{node}"), &serving(&ca, &user, &list)?)?;
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

    /// The certificate of the store's authority in PEM.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn etcd_ca_pem(&self) -> Result<String, PkiFilesError> {
        self.read("etcd-ca.crt")
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

    /// The authority `name` as it lies in the directory, or a new one. One that is there and cannot be read is an error:
    /// a new one in its place would lock out all who trust the old.
    fn kept_authority(&self, name: &str, now: Time) -> Result<Authority, PkiFilesError> {
        match self.read(&format!("{name}.crt")) {
            Err(e) if e.is_not_found() => {
                let ca = Authority::generate(&format!("icp-{name}"), now)?;
                self.write(name, ca.identity())?;
                Ok(ca)
            }
            Err(e) => Err(e),
            Ok(_) => Ok(Authority::from_identity(self.identity(name)?)?),
        }
    }

    fn read(&self, name: &str) -> Result<String, PkiFilesError> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(at(&path))
    }

    /// The certificate is last: one that is there has its key.
    fn write(&self, name: &str, identity: &Identity) -> Result<(), PkiFilesError> {
        private(&self.0.join(format!("{name}.key")), identity.key_pem.as_bytes())?;
        private(&self.0.join(format!("{name}.crt")), identity.certificate_pem.as_bytes())
    }

    /// The key of service account tokens that all API servers share (PKCS#8), made at first use.
    ///
    /// # Errors
    /// If it cannot be made, read or written.
    pub fn service_account_key(&self) -> Result<Vec<u8>, PkiFilesError> {
        let path = self.0.join("sa.p8");
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            read => return read.map_err(at(&path)),
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> io::Result<()> {
        // Made here and nowhere else: a link that somebody else put there, or a file that they can read, is refused.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let done = io::Write::write_all(&mut file, data).and_then(|()| fs::rename(&fresh, path));
        if done.is_err() {
            // The error that is told is the first one.
            let _ = fs::remove_file(&fresh);
        }
        done
    };
    write().map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("icp-pki-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn plan() -> PkiPlan {
        let names = vec!["localhost".to_string()];
        PkiPlan {
            apiserver_names: names.clone(),
            etcd_names: names,
            nodes: vec![("w1".into(), vec!["10.0.0.1".into()])],
        }
    }

    #[test]
    fn authorities_are_kept_and_never_replaced_when_they_cannot_be_read() {
        let scratch = Scratch::new("kept");
        let now: Time = "2026-11-24T00:00:00Z".parse().unwrap();
        let first = PkiDir::create(&scratch.0, &plan(), now).unwrap();
        let (ca, etcd_ca, key) =
            (first.ca_pem().unwrap(), first.etcd_ca_pem().unwrap(), first.service_account_key().unwrap());
        assert_ne!(ca, etcd_ca);
        let again = PkiDir::create(&scratch.0, &plan(), now).unwrap();
        assert_eq!(again.ca_pem().unwrap(), ca);
        assert_eq!(again.service_account_key().unwrap(), key);
        fs::write(scratch.0.join("ca.key"), [0xff]).unwrap();
        assert!(PkiDir::create(&scratch.0, &plan(), now).is_err());
        assert_eq!(first.ca_pem().unwrap(), ca);
    }

    #[test]
    fn files_are_private_and_follow_no_link() {
        let scratch = Scratch::new("private");
        let now: Time = "2026-11-24T00:00:00Z".parse().unwrap();
        let dir = scratch.0.join("pki");
        PkiDir::create(&dir, &plan(), now).unwrap().service_account_key().unwrap();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
        let (file, victim) = (scratch.0.join("kubeconfig"), scratch.0.join("victim"));
        fs::write(&victim, "theirs").unwrap();
        let link = scratch.0.join(format!(".kubeconfig.{}", std::process::id()));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(private(&file, b"secret").is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
        fs::remove_file(&link).unwrap();
        private(&file, b"secret").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"secret");
    }
}
