//! What the agent resolves before a call: environments, generated files, resolver configuration, users.
//!
//! All of it is functions from the pod, the node's facts and what the pod refers to ([`Sources`]) to the data of a
//! runtime call, or to an error that names the field.
//!
//! ```
//! use icp_node::resolve::expand;
//! let vars = [("NAME".to_string(), "web".to_string())];
//! let get = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
//! assert_eq!(expand("hello-$(NAME)-$$(NAME)-$(OTHER)", &get), "hello-web-$(NAME)-$(OTHER)");
//! ```

mod container;
mod dns;
mod downward;
mod env;
mod sandbox;
#[cfg(test)]
pub(crate) mod tests;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;

pub use container::container_spec;
pub use dns::{hosts_file, pod_dns, resolv_conf};
pub use downward::{field_value, resource_value};
pub use env::{environment, expand, service_variables};
pub use sandbox::{hostname, sandbox_spec};

use crate::pod::TokenProjection;
use crate::runtime::DnsConfig;

/// Something that a pod refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The agent does not know yet whether it exists.
    Unknown,
    /// It does not exist.
    Missing,
    /// It exists.
    Found(Arc<Object>),
}

/// What pods refer to, as far as the agent knows it.
pub trait Sources {
    /// A config map.
    fn config_map(&self, namespace: &str, name: &str) -> Source;
    /// A secret.
    fn secret(&self, namespace: &str, name: &str) -> Source;
    /// The token that a projection of the pod asked for.
    fn token(&self, projection: &TokenProjection) -> Option<String>;
    /// The services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Arc<Object>>;
}

/// What containers may learn of their node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The node's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// `--cluster-dns`.
    pub cluster_dns: Vec<String>,
    /// `--cluster-domain`, such as `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolver configuration.
    pub host_dns: DnsConfig,
    /// What pods may use, in thousandths of the resource's unit.
    pub allocatable: BTreeMap<String, i64>,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
}

/// Why a container or volume cannot be set up as its spec stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The agent has not yet heard of the object.
    #[error("{kind} \"{namespace}/{name}\" is not known yet")]
    Unknown {
        /// `configmap`, `secret` or `token`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The object does not exist.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field cannot be used as it stands.
    #[error("{field}: {message}")]
    Field {
        /// The path within the container or volume.
        field: String,
        /// Why.
        message: String,
    },
}

pub(crate) fn field_error(field: impl Into<String>, message: impl Into<String>) -> ResolveError {
    ResolveError::Field { field: field.into(), message: message.into() }
}

/// The object that a name leads to; `None` if it is missing and may be.
pub(crate) fn lookup(
    source: Source,
    kind: &'static str,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<Option<Arc<Object>>, ResolveError> {
    match source {
        Source::Found(object) => Ok(Some(object)),
        Source::Missing if optional => Ok(None),
        Source::Missing => Err(ResolveError::Missing { kind, name: name.into() }),
        Source::Unknown => {
            Err(ResolveError::Unknown { kind, namespace: namespace.into(), name: name.into() })
        }
    }
}
