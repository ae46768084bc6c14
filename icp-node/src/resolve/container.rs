//! How a container shall be.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use bytes::Bytes;

use super::sandbox::resources;
use super::{
    NodeFacts, ResolveError, Sources, environment, expand, field_error, hostname, hosts_file, pod_dns,
    resolv_conf,
};
use crate::pod::{Container, Pod, VolumeMount};
use crate::runtime::{
    ContainerKind, ContainerSpec, GeneratedFile, Image, Mount, MountPropagation, MountSource, QosClass,
    Seccomp, SecurityContext, TerminationMessagePolicy,
};
use crate::status::{memory_bytes, qos_class};

/// Builds what the runtime is told of a container.
///
/// # Errors
/// If something that it refers to is missing, or a field cannot be used; the message stands in the container's
/// status under `CreateContainerConfigError`.
pub fn container_spec(
    pod: &Pod,
    kind: ContainerKind,
    container: &Container,
    image: &Image,
    ips: &[IpAddr],
    node: &NodeFacts,
    sources: &dyn Sources,
) -> Result<ContainerSpec, ResolveError> {
    let env = environment(pod, container, ips, node, sources)?;
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand_all = |list: &[String]| list.iter().map(|text| expand(text, &get)).collect::<Vec<_>>();
    let mut mounts = Vec::new();
    for mount in &container.volume_mounts {
        mounts.push(volume_mount(pod, mount, &get)?);
    }
    let mounted = |path: &str| container.volume_mounts.iter().any(|m| m.mount_path == path);
    let mut files = Vec::new();
    let mut generate = |path: &str, text: String| {
        if !mounted(path) {
            files.push(GeneratedFile { path: path.into(), data: Bytes::from(text), mode: 0o644 });
        }
    };
    generate("/etc/hosts", hosts_file(pod, ips, node));
    generate("/etc/hostname", format!("{}\n", hostname(pod, node).0));
    generate("/etc/resolv.conf", resolv_conf(&pod_dns(pod, node)));
    let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { String::from(text) };
    Ok(ContainerSpec {
        kind,
        image: container.image.clone(),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        mounts,
        files,
        security: security(pod, container, image)?,
        resources: resources(&container.resources),
        oom_score_adj: oom_score_adj(pod, container, node),
        working_dir: container.working_dir.clone(),
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: or(&container.termination_message_path, "/dev/termination-log"),
        termination_message_policy: match container.termination_message_policy.as_str() {
            "FallbackToLogsOnError" => TerminationMessagePolicy::FallbackToLogsOnError,
            _ => TerminationMessagePolicy::File,
        },
        stop_signal: container.lifecycle.as_ref().map(|l| l.stop_signal.clone()).unwrap_or_default(),
        env,
    })
}

fn volume_mount(
    pod: &Pod,
    mount: &VolumeMount,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Mount, ResolveError> {
    let field = |name: &str| format!("volumeMounts[{}].{name}", mount.mount_path);
    let volume = pod.spec.volumes.iter().find(|v| v.name == mount.name);
    let volume =
        volume.ok_or_else(|| field_error(field("name"), format!("no volume named {:?}", mount.name)))?;
    // The node agent writes these and changes them later: upstream's volume plugins say `ReadOnly` of them, too.
    let is_agents = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    let sub_path = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        let missing = core::cell::Cell::new(false);
        let known = |name: &str| {
            let value = get(name);
            missing.set(missing.get() || value.is_none());
            value
        };
        let path = expand(&mount.sub_path_expr, &known);
        if missing.get() {
            return Err(field_error(field("subPathExpr"), "names a variable that is not set"));
        }
        path
    };
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return Err(field_error(field("subPath"), "must be a relative path without '..'"));
    }
    Ok(Mount {
        path: mount.mount_path.clone(),
        source: MountSource::Volume { name: mount.name.as_str().into(), sub_path },
        read_only: mount.read_only || is_agents,
        propagation: match mount.mount_propagation.as_str() {
            "HostToContainer" => MountPropagation::HostToContainer,
            "Bidirectional" => MountPropagation::Bidirectional,
            _ => MountPropagation::None,
        },
    })
}

fn id(field: &str, value: Option<i64>) -> Result<Option<u32>, ResolveError> {
    value
        .map(|n| {
            u32::try_from(n).map_err(|_| field_error(format!("securityContext.{field}"), "is not an id"))
        })
        .transpose()
}

fn security(pod: &Pod, container: &Container, image: &Image) -> Result<SecurityContext, ResolveError> {
    let (pod_sc, sc) = (&pod.spec.security_context, &container.security_context);
    let run_as_user = id("runAsUser", sc.run_as_user.or(pod_sc.run_as_user))?;
    let run_as_non_root = sc.run_as_non_root.or(pod_sc.run_as_non_root).unwrap_or(false);
    if run_as_non_root {
        let message = match run_as_user {
            Some(0) => Some("container's runAsUser breaks non-root policy".into()),
            Some(_) => None,
            None => match image.user.split(':').next().unwrap_or_default() {
                "" | "0" => Some("container has runAsNonRoot and image will run as root".into()),
                user if user.parse::<u32>().is_err() => Some(format!(
                    "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is \
                     non-root"
                )),
                _ => None,
            },
        };
        if let Some(message) = message {
            return Err(field_error("securityContext.runAsNonRoot", message));
        }
    }
    let mut supplemental_groups = Vec::new();
    for group in pod_sc.supplemental_groups.iter().chain(pod_sc.fs_group.iter()) {
        supplemental_groups.extend(id("supplementalGroups", Some(*group))?);
    }
    let profile = sc.seccomp_profile.as_ref().or(pod_sc.seccomp_profile.as_ref());
    Ok(SecurityContext {
        run_as_user,
        run_as_group: id("runAsGroup", sc.run_as_group.or(pod_sc.run_as_group))?,
        run_as_non_root,
        supplemental_groups,
        privileged: sc.privileged,
        read_only_root: sc.read_only_root_filesystem,
        no_new_privs: sc.allow_privilege_escalation == Some(false),
        cap_add: sc.capabilities.add.clone(),
        cap_drop: sc.capabilities.drop.clone(),
        seccomp: match profile.map(|p| (p.kind.as_str(), &p.localhost_profile)) {
            Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
            Some(("Localhost", file)) => Seccomp::Localhost(file.clone()),
            _ => Seccomp::Unconfined,
        },
        proc_unmasked: sc.proc_mount == "Unmasked",
    })
}

/// `k8s.io/kubernetes/pkg/kubelet/qos/policy.go`.
fn oom_score_adj(pod: &Pod, container: &Container, node: &NodeFacts) -> i32 {
    match qos_class(&pod.spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = memory_bytes(&container.resources.requests);
            let share = u128::from(request) * 1000 / u128::from(node.memory_bytes.max(1));
            i32::try_from(1000_u128.saturating_sub(share)).unwrap_or(1000).clamp(3, 999)
        }
    }
}
