//! From specs to plans.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::path::{Path, PathBuf};

use super::{
    ContainerPlan, Facts, Join, Limit, LogPlan, MountFlags, Overlay, PidMode, ProcessPlan, Propagation,
    Rootfs, SandboxPlan, Step, What, capability_set, resolve_user, unmapped,
};
use crate::backend::native::image::ImageView;
use crate::runtime::{
    ContainerSpec, MountPropagation, MountSource, Network, RuntimeError, SandboxSpec, Seccomp,
    TerminationMessagePolicy,
};

/// What every container sees of `PATH` unless its image or spec says otherwise (`containerd/oci/spec.go`).
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `containerd/oci/spec.go`.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// `containerd/oci/spec.go`.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What dockerd and containerd's units allow.
const OPEN_FILES: u64 = 1 << 20;
/// Most of a root file system that lives on memory.
const MEMORY_ROOT_BYTES: u64 = 256 << 20;

fn config(message: impl Into<String>) -> RuntimeError {
    RuntimeError::Config { message: message.into() }
}

/// All that a container's plan is made from.
pub(crate) struct ContainerInput<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) sandbox: &'a SandboxSpec,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) image: &'a ImageView,
    /// The holder of the pod's namespaces.
    pub(crate) holder: i32,
    /// The container's folder.
    pub(crate) dir: &'a Path,
    /// The pod's `/dev/shm`.
    pub(crate) shm: &'a Path,
    /// Where a volume of the pod lies; `None` if it was not made.
    pub(crate) volume: &'a dyn Fn(&str) -> Option<PathBuf>,
    pub(crate) cgroup_procs: Vec<PathBuf>,
    pub(crate) oom_file: Option<PathBuf>,
    pub(crate) log_max_bytes: u64,
    pub(crate) log_max_files: u32,
}

/// The holder of a pod's namespaces.
///
/// # Errors
/// [`RuntimeError::Unsupported`] for a runtime class, [`RuntimeError::Sandbox`] for a kernel parameter that is not of
/// the pod's own namespaces.
pub(crate) fn sandbox_plan(spec: &SandboxSpec) -> Result<SandboxPlan, RuntimeError> {
    if !spec.runtime_handler.is_empty() {
        return Err(RuntimeError::Unsupported { what: format!("runtime class {:?}", spec.runtime_handler) });
    }
    let own_net = spec.network == Network::Pod;
    for name in spec.sysctls.keys() {
        let name = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
        let own = (own_net && name.starts_with("net."))
            || (!spec.host_ipc && ipc.iter().any(|prefix| name.starts_with(prefix)));
        if !own || name.contains("..") {
            let message = format!("sysctl {name:?} is not of the pod's own namespaces");
            return Err(RuntimeError::Sandbox { message });
        }
    }
    Ok(SandboxPlan {
        new_net: own_net,
        new_ipc: !spec.host_ipc,
        new_uts: own_net,
        new_pid: spec.share_process_namespace && !spec.host_pid,
        hostname: (own_net && !spec.hostname.is_empty()).then(|| spec.hostname.clone()),
        sysctls: spec.sysctls.iter().map(|(k, v)| (k.replace('/', "."), v.clone())).collect(),
        cgroup_procs: Vec::new(),
        oom_score_adj: -998,
    })
}

/// A container: namespaces, file systems, first process.
///
/// # Errors
/// [`RuntimeError::Config`] that names the field which cannot be satisfied.
pub(crate) fn container_plan(input: &ContainerInput<'_>) -> Result<ContainerPlan, RuntimeError> {
    let (spec, sandbox, facts, image) = (input.spec, input.sandbox, input.facts, input.image);
    let security = &spec.security;
    let process = process_plan(input)?;
    let pid_mode = match (sandbox.host_pid, sandbox.share_process_namespace) {
        (true, _) => PidMode::Host,
        (false, true) => PidMode::Pod,
        (false, false) => PidMode::Own,
    };
    let rootfs = match (&image.rootfs, facts.overlay) {
        (None, _) => Rootfs::Memory { size_bytes: MEMORY_ROOT_BYTES },
        (Some(from), Overlay::None) => Rootfs::Copy { from: from.clone(), to: input.dir.join("copy") },
        (Some(lower), kind) => Rootfs::Overlay {
            lower: lower.clone(),
            upper: input.dir.join("upper"),
            work: input.dir.join("work"),
            user: kind == Overlay::User,
        },
    };
    let mut steps = image.steps.clone();
    system_mounts(input, &mut steps);
    let generated = |path: &str| input.dir.join("files").join(path.trim_start_matches('/').replace('/', "_"));
    for file in &spec.files {
        let flags =
            MountFlags { read_only: security.read_only_root, nosuid: true, nodev: true, noexec: true };
        steps.push(bind(&file.path, generated(&file.path), flags));
    }
    if !spec.termination_message_path.is_empty() {
        let flags = MountFlags { nosuid: true, nodev: true, noexec: true, read_only: false };
        steps.push(bind(&spec.termination_message_path, input.dir.join("message"), flags));
    }
    volume_mounts(input, &mut steps)?;
    let open = security.privileged || security.proc_unmasked;
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(ContainerPlan {
        dir: input.dir.into(),
        join: Join {
            holder: input.holder,
            net: sandbox.network == Network::Pod,
            ipc: !sandbox.host_ipc,
            uts: sandbox.network == Network::Pod,
        },
        pid_mode,
        cgroup_namespace: facts.cgroup_namespace && !security.privileged,
        cgroup_procs: input.cgroup_procs.clone(),
        oom_file: input.oom_file.clone(),
        rootfs,
        root_flags: MountFlags { read_only: security.read_only_root, nodev: true, ..MountFlags::default() },
        steps,
        masked: if open { Vec::new() } else { strings(&MASKED) },
        read_only: if open { Vec::new() } else { strings(&READ_ONLY) },
        process,
        tty: spec.tty,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        log: LogPlan {
            path: input.dir.join("log").join("0.log"),
            max_bytes: input.log_max_bytes,
            max_files: input.log_max_files,
        },
        message_file: input.dir.join("message"),
        message_from_log: spec.termination_message_policy == TerminationMessagePolicy::FallbackToLogsOnError,
    })
}

fn bind(target: &str, source: PathBuf, flags: MountFlags) -> Step {
    let what = What::Bind {
        source,
        sub_path: String::new(),
        recursive: false,
        optional: false,
        propagation: Propagation::Private,
    };
    Step { target: target.into(), what, flags }
}

fn fresh(target: &str, kind: &str, options: &[(&str, &str)], flags: MountFlags) -> Step {
    let options = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Step { target: target.into(), what: What::Fresh { kind: kind.into(), options }, flags }
}

/// `/proc`, `/sys`, `/dev` and what lies in them (`containerd/oci/mounts.go`).
fn system_mounts(input: &ContainerInput<'_>, steps: &mut Vec<Step>) {
    let (facts, security) = (input.facts, &input.spec.security);
    let strict = MountFlags { nosuid: true, nodev: true, noexec: true, read_only: false };
    let sealed = MountFlags { read_only: !security.privileged, ..strict };
    if input.sandbox.host_pid {
        let mut step = bind("/proc", "/proc".into(), strict);
        if let What::Bind { recursive, .. } = &mut step.what {
            *recursive = true;
        }
        steps.push(step);
    } else {
        steps.push(fresh("/proc", "proc", &[], strict));
    }
    let own_view = match input.sandbox.network {
        Network::Pod => facts.sysfs,
        Network::Host => facts.sysfs_host_network,
    };
    if own_view {
        steps.push(fresh("/sys", "sysfs", &[], sealed));
        if facts.cgroup2 {
            steps.push(fresh("/sys/fs/cgroup", "cgroup2", &[], sealed));
        }
    } else {
        let mut step = bind("/sys", "/sys".into(), MountFlags { read_only: true, ..strict });
        if let What::Bind { recursive, .. } = &mut step.what {
            *recursive = true;
        }
        steps.push(step);
    }
    let dev = MountFlags { nosuid: true, noexec: true, ..MountFlags::default() };
    if security.privileged {
        let mut step = bind("/dev", "/dev".into(), dev);
        if let What::Bind { recursive, .. } = &mut step.what {
            *recursive = true;
        }
        steps.push(step);
    } else {
        steps.push(fresh("/dev", "tmpfs", &[("mode", "0755"), ("size", "65536k")], dev));
        for name in DEVICES {
            let path = format!("/dev/{name}");
            steps.push(bind(&path, PathBuf::from(&path), dev));
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            let what = What::Link(to.into());
            steps.push(Step { target: format!("/dev/{name}"), what, flags: MountFlags::default() });
        }
    }
    let mut terminals = Vec::from([("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")]);
    if facts.tty_group {
        terminals.push(("gid", "5"));
    }
    steps.push(fresh("/dev/pts", "devpts", &terminals, dev));
    steps.push(bind("/dev/shm", input.shm.into(), strict));
    if facts.mqueue && !input.sandbox.host_ipc {
        steps.push(fresh("/dev/mqueue", "mqueue", &[], strict));
    }
    if input.spec.tty {
        steps.push(Step { target: "/dev/console".into(), what: What::Terminal, flags: dev });
    }
}

fn volume_mounts(input: &ContainerInput<'_>, steps: &mut Vec<Step>) -> Result<(), RuntimeError> {
    let privileged = input.spec.security.privileged;
    for mount in &input.spec.mounts {
        let MountSource::Volume { name, sub_path } = &mount.source;
        let source = (input.volume)(name)
            .ok_or_else(|| config(format!("volumeMounts: volume {name:?} of {} was not made", mount.path)))?;
        let propagation = match mount.propagation {
            MountPropagation::None => Propagation::Private,
            MountPropagation::HostToContainer => Propagation::Slave,
            MountPropagation::Bidirectional if privileged => Propagation::Shared,
            MountPropagation::Bidirectional => {
                return Err(config(format!(
                    "volumeMounts[{}].mountPropagation: Bidirectional is for privileged containers only",
                    mount.path
                )));
            }
        };
        let sub_path = sub_path.clone();
        steps.push(Step {
            target: mount.path.clone(),
            what: What::Bind { source, sub_path, recursive: true, optional: false, propagation },
            flags: MountFlags { read_only: mount.read_only, nodev: !privileged, ..MountFlags::default() },
        });
    }
    // A mount below another one must come after it.
    let from = steps.len() - input.spec.mounts.len();
    if let Some(volumes) = steps.get_mut(from..) {
        volumes.sort_by_key(|s| s.target.split('/').filter(|part| !part.is_empty()).count());
    }
    Ok(())
}

fn process_plan(input: &ContainerInput<'_>) -> Result<ProcessPlan, RuntimeError> {
    let (spec, facts, image) = (input.spec, input.facts, input.image);
    let security = &spec.security;
    let mut argv = if spec.command.is_empty() { image.entrypoint.clone() } else { spec.command.clone() };
    if !spec.args.is_empty() {
        argv.extend(spec.args.iter().cloned());
    } else if spec.command.is_empty() {
        argv.extend(image.cmd.iter().cloned());
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(config("no command specified: the image has no entrypoint and the spec no command"));
    }
    let user =
        resolve_user(&image.user, security.run_as_user, security.run_as_group, &image.passwd, &image.group)
            .map_err(config)?;
    if security.run_as_non_root && user.uid == 0 {
        return Err(config("container has runAsNonRoot and image will run as root"));
    }
    let who = if security.run_as_user.is_some() { "securityContext.runAsUser" } else { "user of the image" };
    let group =
        if security.run_as_group.is_some() { "securityContext.runAsGroup" } else { "group of the image" };
    // With the primary group, so that a set-group-id program cannot shed it (CVE-2022-2995).
    let mut groups = user.groups.clone();
    groups.push(user.gid);
    groups.extend(&security.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    let problem = unmapped(who, user.uid, &facts.uids)
        .or_else(|| unmapped(group, user.gid, &facts.gids))
        .or_else(|| {
            let asked = security.supplemental_groups.iter();
            asked.filter_map(|g| unmapped("securityContext.supplementalGroups", *g, &facts.gids)).next()
        });
    if let Some(problem) = problem {
        return Err(config(problem));
    }
    // Memberships of the image's own /etc/group that do not exist here are no reason to refuse it.
    groups.retain(|g| unmapped("", *g, &facts.gids).is_none());
    let caps = capability_set(security.privileged, &security.cap_add, &security.cap_drop).map_err(config)?;
    if let Seccomp::Localhost(file) = &security.seccomp {
        return Err(config(format!(
            "securityContext.seccompProfile: profile files ({file}) are not supported by this runtime yet"
        )));
    }
    let cwd = if spec.working_dir.is_empty() { image.working_dir.clone() } else { spec.working_dir.clone() };
    Ok(ProcessPlan {
        argv,
        env: environment(input, &user.home),
        cwd: if cwd.is_empty() { "/".into() } else { cwd },
        uid: user.uid,
        gid: user.gid,
        groups: facts.setgroups.then_some(groups),
        caps: caps & facts.caps,
        no_new_privs: security.no_new_privs,
        seccomp: security.seccomp == Seccomp::RuntimeDefault && !security.privileged,
        limits: Vec::from([Limit::OpenFiles(OPEN_FILES)]),
        oom_score_adj: spec.oom_score_adj,
    })
}

fn environment(input: &ContainerInput<'_>, home: &str) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::from([
        ("PATH".into(), PATH_DEFAULT.into()),
        ("HOSTNAME".into(), input.sandbox.hostname.clone()),
        ("HOME".into(), home.into()),
    ]);
    if input.spec.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    for (name, value) in input.image.env.iter().chain(&input.spec.env) {
        match env.iter_mut().find(|(n, _)| n == name) {
            Some(known) => known.1.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    env.retain(|(name, value)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    env
}

/// The process of an exec, from the plan of its container.
pub(crate) fn exec_plan(
    container: &ProcessPlan,
    command: &[String],
    tty: bool,
) -> Result<ProcessPlan, RuntimeError> {
    if command.first().is_none_or(String::is_empty) {
        return Err(RuntimeError::Start { message: "no command".into() });
    }
    let mut process = ProcessPlan { argv: command.to_vec(), ..container.clone() };
    if tty && !process.env.iter().any(|(name, _)| name == "TERM") {
        process.env.push(("TERM".into(), "xterm".into()));
    }
    Ok(process)
}
