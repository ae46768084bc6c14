//! Control groups: limits, kills for want of memory, usage.
//!
//! ```text
//! PARENT/{burstable,besteffort}/podUID/{sandbox,NAME-ATTEMPT}      (guaranteed pods lie in PARENT itself)
//! ```
//! The unified hierarchy is used if its controllers can be enabled, else the split ones (version 1).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{entries, is_plain};
use crate::runtime::{QosClass, Resources};

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Microseconds over which a cpu limit holds.
const PERIOD_MICROS: u64 = 100_000;
const QUOTA_MIN_MICROS: u64 = 1_000;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
/// How often a group is tried to be removed whose processes are about to end.
const REMOVE_TRIES: u32 = 100;

/// Whether limits of pods and containers hold on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limits {
    /// By the unified hierarchy.
    CgroupV2,
    /// By the split hierarchies.
    CgroupV1,
    /// They do not; the text says why.
    Unavailable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Unified(PathBuf),
    Split(BTreeMap<&'static str, PathBuf>),
    None(String),
}

/// The control groups of a node's pods.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    kind: Kind,
    parent: String,
}

/// A group in each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) folders: Vec<PathBuf>,
    /// Where a process writes itself to.
    pub(crate) procs: Vec<PathBuf>,
    pub(crate) oom_file: Option<PathBuf>,
}

/// A value for a file, the optional ones of which an older kernel may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
    optional: bool,
}

fn shares(r: &Resources) -> u64 {
    (r.cpu_request_millis.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(r: &Resources) -> Option<u64> {
    (r.cpu_limit_millis > 0)
        .then(|| (r.cpu_limit_millis.saturating_mul(PERIOD_MICROS) / 1000).max(QUOTA_MIN_MICROS))
}

/// `k8s.io/kubernetes/pkg/kubelet/cm/cgroup_manager_linux.go`.
fn settings(r: &Resources, unified: bool) -> Vec<Setting> {
    let mut list = Vec::new();
    let mut put = |controller, file, value: String, optional| {
        list.push(Setting { controller, file, value, optional });
    };
    if unified {
        // The same proportions in the other scale.
        put("cpu", "cpu.weight", (1 + (shares(r) - 2) * 9999 / 262_142).to_string(), false);
        if let Some(quota) = quota(r) {
            put("cpu", "cpu.max", format!("{quota} {PERIOD_MICROS}"), false);
        }
        if r.memory_limit_bytes > 0 {
            put("memory", "memory.max", r.memory_limit_bytes.to_string(), false);
            put("memory", "memory.oom.group", "1".into(), true);
            put("memory", "memory.swap.max", "0".into(), true);
        }
    } else {
        put("cpu", "cpu.shares", shares(r).to_string(), false);
        if let Some(quota) = quota(r) {
            put("cpu", "cpu.cfs_period_us", PERIOD_MICROS.to_string(), false);
            put("cpu", "cpu.cfs_quota_us", quota.to_string(), false);
        }
        if r.memory_limit_bytes > 0 {
            put("memory", "memory.limit_in_bytes", r.memory_limit_bytes.to_string(), false);
            put("memory", "memory.memsw.limit_in_bytes", r.memory_limit_bytes.to_string(), true);
        }
    }
    if r.pids_limit > 0 {
        put("pids", "pids.max", r.pids_limit.to_string(), false);
    }
    list
}

/// The folders at which hierarchies are mounted: of the unified one, and of each controller of the split ones.
fn mounts(mountinfo: &str) -> (Vec<PathBuf>, BTreeMap<&'static str, PathBuf>) {
    let (mut unified, mut split) = (Vec::new(), BTreeMap::new());
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(at) = front.split(' ').nth(4) else { continue };
        let mut fields = back.split(' ');
        match (fields.next(), fields.nth(1)) {
            (Some("cgroup2"), _) => unified.push(at.into()),
            (Some("cgroup"), Some(options)) => {
                for name in CONTROLLERS {
                    if options.split(',').any(|o| o == name) {
                        split.insert(name, at.into());
                    }
                }
            }
            _ => {}
        }
    }
    (unified, split)
}

impl Cgroups {
    /// Finds what works here by making the parent group.
    pub(crate) fn detect(parent: &str) -> Self {
        let mut this = Self { kind: Kind::None(String::new()), parent: parent.trim_matches('/').into() };
        if this.parent.is_empty() || !this.parent.split('/').all(is_plain) {
            this.kind = Kind::None(format!("{parent:?} is not the name of a control group"));
            return this;
        }
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (unified, split) = mounts(&text);
        let mut why = Vec::new();
        for root in unified {
            match this.try_unified(&root) {
                Ok(()) => {
                    this.kind = Kind::Unified(root);
                    return this;
                }
                Err(e) => why.push(format!("{}: {e}", root.display())),
            }
        }
        let mut usable = BTreeMap::new();
        for (name, root) in split {
            let parent = root.join(&this.parent);
            match fs::create_dir_all(&parent).and_then(|()| try_child(&parent)) {
                Ok(()) => drop(usable.insert(name, root)),
                Err(e) => why.push(format!("{}: {e}", root.display())),
            }
        }
        this.kind = if usable.contains_key("memory") {
            Kind::Split(usable)
        } else if why.is_empty() {
            Kind::None("no control groups are mounted".into())
        } else {
            Kind::None(why.join("; "))
        };
        this
    }

    /// The unified hierarchy at a folder.
    #[cfg(test)]
    fn unified(root: &Path, parent: &str) -> Self {
        Self { kind: Kind::Unified(root.into()), parent: parent.into() }
    }

    fn try_unified(&self, root: &Path) -> io::Result<()> {
        let has = fs::read_to_string(root.join("cgroup.controllers"))?;
        if let Some(missing) = CONTROLLERS.iter().find(|c| !has.split_whitespace().any(|h| h == **c)) {
            return Err(io::Error::other(format!("the controller {missing} is not there")));
        }
        let parent = Self::folder(root, &self.parent)?;
        enable(&parent)?;
        try_child(&parent)
    }

    /// Makes a group of the unified hierarchy, with controllers for those below it.
    fn folder(root: &Path, path: &str) -> io::Result<PathBuf> {
        let mut at = root.to_path_buf();
        for part in path.split('/') {
            enable(&at)?;
            at.push(part);
            match fs::create_dir(&at) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(at)
    }

    /// Whether limits hold.
    pub(crate) fn limits(&self) -> Limits {
        match &self.kind {
            Kind::Unified(_) => Limits::CgroupV2,
            Kind::Split(_) => Limits::CgroupV1,
            Kind::None(why) => Limits::Unavailable(why.clone()),
        }
    }

    /// The group of a pod, relative to the hierarchies.
    fn pod_path(&self, qos: QosClass, uid: &str) -> String {
        match qos {
            QosClass::Guaranteed => format!("{}/pod{uid}", self.parent),
            QosClass::Burstable => format!("{}/burstable/pod{uid}", self.parent),
            QosClass::BestEffort => format!("{}/besteffort/pod{uid}", self.parent),
        }
    }

    /// Makes the group of a pod with its limits, and that of its sandbox in it. Blocks.
    pub(crate) fn make_pod(&self, qos: QosClass, uid: &str, limits: &Resources) -> io::Result<Group> {
        let path = self.pod_path(qos, uid);
        self.make(&path, limits)?;
        self.make(&format!("{path}/sandbox"), &Resources::default())
    }

    /// Makes the group of a container. Blocks.
    pub(crate) fn make_container(
        &self,
        qos: QosClass,
        uid: &str,
        name: &str,
        limits: &Resources,
    ) -> io::Result<Group> {
        self.make(&format!("{}/{name}", self.pod_path(qos, uid)), limits)
    }

    fn make(&self, path: &str, limits: &Resources) -> io::Result<Group> {
        let mut group = Group::default();
        let named = |at: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", at.display()));
        match &self.kind {
            Kind::None(_) => {}
            Kind::Unified(root) => {
                let at = Self::folder(root, path).map_err(|e| named(&root.join(path), e))?;
                for s in settings(limits, true) {
                    set(&at, &s)?;
                }
                group.oom_file = Some(at.join("memory.events"));
                group.procs.push(at.join("cgroup.procs"));
                group.folders.push(at);
            }
            Kind::Split(roots) => {
                for (controller, root) in roots {
                    let at = root.join(path);
                    fs::create_dir_all(&at).map_err(|e| named(&at, e))?;
                    for s in settings(limits, false).iter().filter(|s| s.controller == *controller) {
                        set(&at, s)?;
                    }
                    if *controller == "memory" {
                        group.oom_file = Some(at.join("memory.oom_control"));
                    }
                    group.procs.push(at.join("cgroup.procs"));
                    group.folders.push(at);
                }
            }
        }
        Ok(group)
    }

    /// Removes the groups of a pod, and those above that are empty then. Blocks.
    pub(crate) fn remove_pod(&self, qos: QosClass, uid: &str) -> io::Result<()> {
        let roots: Vec<&PathBuf> = match &self.kind {
            Kind::None(_) => return Ok(()),
            Kind::Unified(root) => Vec::from([root]),
            Kind::Split(roots) => roots.values().collect(),
        };
        let path = self.pod_path(qos, uid);
        for root in roots {
            let pod = root.join(&path);
            for (_, child) in entries(&pod) {
                if child.is_dir() {
                    remove(&child)?;
                }
            }
            remove(&pod)?;
            let mut above = Path::new(&path).parent();
            while let Some(group) = above.filter(|g| !g.as_os_str().is_empty()) {
                // The next pod makes them again; one that has children stays.
                if fs::remove_dir(root.join(group)).is_err() {
                    break;
                }
                above = group.parent();
            }
        }
        Ok(())
    }

    /// Bytes that a pod uses and that cannot be taken back at once.
    pub(crate) fn pod_memory(&self, qos: QosClass, uid: &str) -> Option<u64> {
        let path = self.pod_path(qos, uid);
        let (at, usage, idle) = match &self.kind {
            Kind::None(_) => return None,
            Kind::Unified(root) => (root.join(path), "memory.current", "inactive_file "),
            Kind::Split(roots) => {
                (roots.get("memory")?.join(path), "memory.usage_in_bytes", "total_inactive_file ")
            }
        };
        let used: u64 = fs::read_to_string(at.join(usage)).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(at.join("memory.stat")).ok()?;
        let idle: u64 = stat.lines().find_map(|l| l.strip_prefix(idle)?.parse().ok()).unwrap_or(0);
        Some(used.saturating_sub(idle))
    }
}

/// Whether groups can be made in this one, which may have been made by somebody else.
fn try_child(parent: &Path) -> io::Result<()> {
    let child = parent.join(format!("probe-{}", std::process::id()));
    fs::create_dir(&child)?;
    fs::remove_dir(&child)
}

fn enable(at: &Path) -> io::Result<()> {
    let file = at.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).unwrap_or_default();
    for name in CONTROLLERS {
        if !on.split_whitespace().any(|c| c == name) {
            fs::write(&file, format!("+{name}"))?;
        }
    }
    Ok(())
}

fn set(at: &Path, setting: &Setting) -> io::Result<()> {
    let file = at.join(setting.file);
    match fs::write(&file, &setting.value) {
        Err(e) if !setting.optional => {
            Err(io::Error::new(e.kind(), format!("{}={}: {e}", file.display(), setting.value)))
        }
        _ => Ok(()),
    }
}

/// Removes a group whose processes have ended or are about to. Blocks for a second at most.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            Err(e) => return Err(e),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Resources {
        Resources {
            cpu_request_millis: 250,
            cpu_limit_millis: 500,
            memory_request_bytes: 1,
            memory_limit_bytes: 64 << 20,
            pids_limit: 100,
        }
    }

    #[test]
    fn settings_of_both_versions() {
        let text = |unified| {
            let list = settings(&limits(), unified);
            list.iter().map(|s| format!("{}={}", s.file, s.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            text(true),
            [
                "cpu.weight=10",
                "cpu.max=50000 100000",
                "memory.max=67108864",
                "memory.oom.group=1",
                "memory.swap.max=0",
                "pids.max=100"
            ]
        );
        assert_eq!(
            text(false),
            [
                "cpu.shares=256",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "pids.max=100"
            ]
        );
        let none = settings(&Resources::default(), true);
        assert_eq!(none.len(), 1);
        assert_eq!(none[0].value, "1");
    }

    #[test]
    fn hierarchies_are_found() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let (unified, split) = mounts(text);
        assert_eq!(unified, [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(split.keys().copied().collect::<Vec<_>>(), ["cpu", "memory"]);
        assert_eq!(split["cpu"], Path::new("/sys/fs/cgroup/cpu"));
    }

    #[test]
    fn unified_groups_are_made_in_a_folder_tree() {
        let root = std::env::temp_dir().join(format!("icp-cgroup-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let groups = Cgroups::unified(&root, "kube/pods");
        let sandbox = groups.make_pod(QosClass::Burstable, "u1", &limits()).unwrap();
        let container = groups.make_container(QosClass::Burstable, "u1", "web-0", &limits()).unwrap();
        let pod = root.join("kube/pods/burstable/pod u1".replace(' ', ""));
        assert_eq!(sandbox.procs, [pod.join("sandbox/cgroup.procs")]);
        assert_eq!(container.oom_file.unwrap(), pod.join("web-0/memory.events"));
        assert_eq!(fs::read_to_string(pod.join("web-0/memory.max")).unwrap(), "67108864");
        assert!(
            pod.join("cgroup.subtree_control").exists() && !pod.join("web-0/cgroup.subtree_control").exists()
        );
        fs::write(pod.join("memory.current"), "1000\n").unwrap();
        fs::write(pod.join("memory.stat"), "anon 5\ninactive_file 400\n").unwrap();
        assert_eq!(groups.pod_memory(QosClass::Burstable, "u1"), Some(600));
        fs::remove_dir_all(&root).unwrap();
    }
}
