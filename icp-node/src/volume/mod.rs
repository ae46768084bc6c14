//! What is in a pod's volumes.
//!
//! ```
//! use icp_node::pod::Pod;
//! use icp_node::runtime::VolumeContent;
//! use icp_node::volume::volume_content;
//! # use icp_node::resolve::{NodeFacts, Source, Sources};
//! # struct None_;
//! # impl Sources for None_ {
//! #     fn config_map(&self, _: &str, _: &str) -> Source { Source::Missing }
//! #     fn secret(&self, _: &str, _: &str) -> Source { Source::Missing }
//! #     fn token(&self, _: &icp_node::pod::TokenProjection) -> Option<String> { None }
//! #     fn services(&self, _: &str) -> Vec<std::sync::Arc<icp_core::api::Object>> { vec![] }
//! # }
//! let object = serde_json::from_str(r#"{"metadata":{"name":"web","namespace":"default","uid":"u1"},"spec":
//!     {"volumes":[{"name":"conf","configMap":{"name":"web"}},{"name":"tmp","emptyDir":{}}]}}"#).unwrap();
//! let pod = Pod::from_object(&object).unwrap();
//! let content = |i: usize| volume_content(&pod, &pod.spec.volumes[i], &[], &NodeFacts::default(), &None_);
//! assert_eq!(content(0).unwrap_err().to_string(), "configmap \"web\" not found");
//! assert!(matches!(content(1), Ok(VolumeContent::Empty { .. })));
//! ```

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use icp_core::api::Object;
use serde_json::Value;

use crate::pod::{
    ConfigMapVolume, Container, DownwardVolume, KeyToPath, Pod, Projection, SecretVolume, Volume,
};
use crate::resolve::{NodeFacts, ResolveError, Sources, field_error, field_value, lookup, resource_value};
use crate::runtime::{HostPathType, VolumeContent, VolumeFile};
use crate::status::parse_quantity;

/// Permission bits of files unless the volume says otherwise.
const MODE_DEFAULT: u32 = 0o644;
/// Tokens are for the owner alone.
const MODE_TOKEN: u32 = 0o600;

/// The keys and values of a config map, binary ones included.
#[must_use]
pub fn config_map_data(object: &Object) -> BTreeMap<String, Bytes> {
    let text = object.at("/data").and_then(Value::as_object).into_iter().flatten();
    let mut data: BTreeMap<String, Bytes> =
        text.filter_map(|(k, v)| Some((k.clone(), Bytes::copy_from_slice(v.as_str()?.as_bytes())))).collect();
    data.extend(decoded(object, "/binaryData"));
    data
}

/// The keys and values of a secret.
#[must_use]
pub fn secret_data(object: &Object) -> BTreeMap<String, Bytes> {
    decoded(object, "/data").collect()
}

fn decoded<'a>(object: &'a Object, at: &str) -> impl Iterator<Item = (String, Bytes)> + use<'a> {
    let map = object.at(at).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(k, v)| Some((k.clone(), STANDARD.decode(v.as_str()?).ok()?.into())))
}

/// The names of config maps and secrets that a pod refers to: (config maps, secrets).
#[must_use]
pub fn references(pod: &Pod) -> (Vec<&str>, Vec<&str>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for volume in &pod.spec.volumes {
        config_maps.extend(volume.config_map.as_ref().map(|v| v.name.as_str()));
        secrets.extend(volume.secret.as_ref().map(|v| v.secret_name.as_str()));
        for source in volume.projected.iter().flat_map(|p| &p.sources) {
            config_maps.extend(source.config_map.as_ref().map(|v| v.name.as_str()));
            secrets.extend(source.secret.as_ref().map(|v| v.name.as_str()));
        }
    }
    for (_, container) in pod.containers() {
        for from in &container.env_from {
            config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.as_str()));
            secrets.extend(from.secret_ref.as_ref().map(|r| r.name.as_str()));
        }
        for from in container.env.iter().filter_map(|e| e.value_from.as_ref()) {
            config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
            secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.as_str()));
        }
    }
    secrets.extend(pod.spec.image_pull_secrets.iter().map(|r| r.name.as_str()));
    for names in [&mut config_maps, &mut secrets] {
        names.retain(|n| !n.is_empty());
        names.sort_unstable();
        names.dedup();
    }
    (config_maps, secrets)
}

/// What is in a volume of the pod.
///
/// # Errors
/// If something that it refers to is missing, or its kind is not supported by this node.
pub fn volume_content(
    pod: &Pod,
    volume: &Volume,
    ips: &[IpAddr],
    node: &NodeFacts,
    sources: &dyn Sources,
) -> Result<VolumeContent, ResolveError> {
    let fs_group = match pod.spec.security_context.fs_group {
        None => None,
        Some(n) => {
            Some(u32::try_from(n).map_err(|_| field_error("securityContext.fsGroup", "is not an id"))?)
        }
    };
    let mut files = Files { pod, ips, node, sources, list: Vec::new() };
    if let Some(v) = &volume.empty_dir {
        let size = match &v.size_limit {
            None => 0,
            Some(text) => parse_quantity(text)
                .and_then(|q| u64::try_from(q.value()).ok())
                .ok_or_else(|| field_error("emptyDir.sizeLimit", "is not a quantity"))?,
        };
        return Ok(VolumeContent::Empty { memory: v.medium == "Memory", size_limit_bytes: size, fs_group });
    } else if let Some(v) = &volume.host_path {
        let kind = match v.kind.as_str() {
            "" => HostPathType::Unset,
            "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
            "Directory" => HostPathType::Directory,
            "FileOrCreate" => HostPathType::FileOrCreate,
            "File" => HostPathType::File,
            "Socket" => HostPathType::Socket,
            "CharDevice" => HostPathType::CharDevice,
            "BlockDevice" => HostPathType::BlockDevice,
            other => return Err(field_error("hostPath.type", format!("{other:?} is not known"))),
        };
        return Ok(VolumeContent::HostPath { path: v.path.clone(), kind });
    } else if let Some(v) = &volume.config_map {
        files.config_map(v, v.default_mode.unwrap_or(MODE_DEFAULT))?;
    } else if let Some(v) = &volume.secret {
        files.secret(v, &v.secret_name, v.default_mode.unwrap_or(MODE_DEFAULT))?;
    } else if let Some(v) = &volume.downward_api {
        files.downward(v, v.default_mode.unwrap_or(MODE_DEFAULT))?;
    } else if let Some(v) = &volume.projected {
        for source in &v.sources {
            files.projection(source, v.default_mode)?;
        }
    } else {
        let kind = volume.other.keys().next().map_or("no source", String::as_str);
        return Err(field_error(
            format!("volumes[{}]", volume.name),
            format!("{kind} is not supported by this node yet"),
        ));
    }
    Ok(VolumeContent::Files { files: files.list, fs_group })
}

struct Files<'a> {
    pod: &'a Pod,
    ips: &'a [IpAddr],
    node: &'a NodeFacts,
    sources: &'a dyn Sources,
    list: Vec<VolumeFile>,
}

impl Files<'_> {
    fn put(&mut self, path: &str, data: Bytes, mode: u32) -> Result<(), ResolveError> {
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(field_error("path", format!("{path:?} is not a relative path without '..'")));
        }
        self.list.retain(|f| f.path != path);
        self.list.push(VolumeFile { path: path.into(), data, mode });
        Ok(())
    }

    fn keys(
        &mut self,
        (kind, name): (&'static str, &str),
        mut data: BTreeMap<String, Bytes>,
        items: &[KeyToPath],
        mode: u32,
        optional: bool,
    ) -> Result<(), ResolveError> {
        if items.is_empty() {
            for (key, value) in data {
                self.put(&key, value, mode)?;
            }
            return Ok(());
        }
        for item in items {
            match data.remove(&item.key) {
                Some(value) => self.put(&item.path, value, item.mode.unwrap_or(mode))?,
                None if optional => {}
                None => {
                    return Err(ResolveError::NoKey {
                        kind,
                        namespace: self.pod.namespace.clone(),
                        name: name.into(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn config_map(&mut self, v: &ConfigMapVolume, mode: u32) -> Result<(), ResolveError> {
        let source = self.sources.config_map(&self.pod.namespace, &v.name);
        match lookup(source, "configmap", &self.pod.namespace, &v.name, v.optional)? {
            Some(o) => self.keys(("ConfigMap", &v.name), config_map_data(&o), &v.items, mode, v.optional),
            None => Ok(()),
        }
    }

    fn secret(&mut self, v: &SecretVolume, name: &str, mode: u32) -> Result<(), ResolveError> {
        let source = self.sources.secret(&self.pod.namespace, name);
        match lookup(source, "secret", &self.pod.namespace, name, v.optional)? {
            Some(o) => self.keys(("Secret", name), secret_data(&o), &v.items, mode, v.optional),
            None => Ok(()),
        }
    }

    fn downward(&mut self, v: &DownwardVolume, mode: u32) -> Result<(), ResolveError> {
        for item in &v.items {
            let text = if let Some(r) = &item.field_ref {
                field_value(self.pod, &r.field_path, self.ips, self.node)?
            } else if let Some(r) = &item.resource_field_ref {
                resource_value(self.pod, &Container::default(), r, self.node)?
            } else {
                return Err(field_error(format!("downwardAPI.items[{}]", item.path), "names no source"));
            };
            self.put(&item.path, Bytes::from(text), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }

    fn projection(&mut self, source: &Projection, default_mode: Option<u32>) -> Result<(), ResolveError> {
        let mode = default_mode.unwrap_or(MODE_DEFAULT);
        if let Some(v) = &source.config_map {
            self.config_map(v, mode)
        } else if let Some(v) = &source.secret {
            self.secret(v, &v.name, mode)
        } else if let Some(v) = &source.downward_api {
            self.downward(v, mode)
        } else if let Some(v) = &source.service_account_token {
            let token = self.sources.token(v).ok_or_else(|| ResolveError::Unknown {
                kind: "token",
                namespace: self.pod.namespace.clone(),
                name: self.pod.spec.service_account_name.clone(),
            })?;
            // Readable by whoever the containers run as: one user of all of them, or their group.
            let users = self
                .pod
                .containers()
                .map(|(_, c)| c.security_context.run_as_user.or(self.pod.spec.security_context.run_as_user));
            let root_only = users.into_iter().all(|u| u.is_none_or(|u| u == 0));
            let fs_group = self.pod.spec.security_context.fs_group.is_some();
            let mode = match default_mode {
                Some(mode) if mode != MODE_DEFAULT => mode,
                _ if root_only && !fs_group => MODE_TOKEN,
                _ => mode,
            };
            self.put(&v.path, Bytes::from(token), mode)
        } else {
            let kind = source.other.keys().next().map_or("no source", String::as_str);
            Err(field_error("projected.sources", format!("{kind} is not supported by this node yet")))
        }
    }
}
