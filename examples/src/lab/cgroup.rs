//! A control group a machine, wherever the system lets this process make one.
//!
//! The programs of a machine start in `LAB/MACHINE/system`, where `LAB` lies in the control group of the host program
//! (version 2 with controllers to give: in the root of the hierarchy); what a machine makes beside `system` is its own.
//! Without the right to make groups there are none, and nothing else changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::guard::COMM;

const PREFIX: &str = "icp-lab-";
/// Where the programs of a machine start.
const SYSTEM: &str = "system";
/// How deep groups may be nested by what runs in a machine.
const DEPTH_MAX: usize = 16;

/// The groups of a lab in each hierarchy where it has one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cgroups {
    bases: Vec<Base>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Base {
    dir: PathBuf,
    v2: bool,
    cpuset: bool,
}

impl Cgroups {
    /// Makes the groups of the lab that process `owner` guards, and removes those of labs whose guard is gone.
    pub(super) fn make(owner: u32) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut bases = Vec::new();
        for (mount, group, v2, cpuset) in hierarchies(&mounts, &own) {
            let gives =
                |dir: &Path| fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            let parent = if v2 && gives(&mount).contains("memory") { mount } else { group };
            sweep(&parent);
            let base = Base { dir: parent.join(format!("{PREFIX}{owner}")), v2, cpuset };
            if base.make(&base.dir).is_ok() {
                bases.push(base);
            }
        }
        Self { bases }
    }

    /// Makes the groups of a machine and opens the files through which its init joins them.
    pub(super) fn machine(&self, name: &str) -> Vec<fs::File> {
        let join = |base: &Base| -> io::Result<fs::File> {
            let dir = base.dir.join(name);
            base.make(&dir)?;
            let system = dir.join(SYSTEM);
            base.make(&system)?;
            fs::OpenOptions::new().write(true).open(system.join("cgroup.procs"))
        };
        self.bases.iter().filter_map(|base| join(base).ok()).collect()
    }

    /// Removes the groups of a machine that is off, or of all; whether they are gone.
    pub(super) fn remove(&self, machine: Option<&str>) -> bool {
        let dir = |base: &Base| machine.map_or_else(|| base.dir.clone(), |m| base.dir.join(m));
        self.bases.iter().map(|base| remove(&dir(base), 0)).fold(true, |all, gone| all & gone)
    }
}

impl Base {
    fn make(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if self.cpuset {
            // A group of version 1 takes no process before it has processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = dir.parent().unwrap_or(dir).join(file);
                fs::write(dir.join(file), fs::read(above)?)?;
            }
        }
        if self.v2 && dir.file_name().is_none_or(|n| n != SYSTEM) {
            let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            for controller in offered.split_whitespace() {
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        Ok(())
    }
}

/// Removes a group and those below it; whether it is gone.
fn remove(dir: &Path, depth: usize) -> bool {
    if depth < DEPTH_MAX {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove(&entry.path(), depth + 1);
            }
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse::<u32>().ok());
        if owner.is_some_and(|pid| !is_alive(pid)) {
            remove(&entry.path(), 0);
        }
    }
}

/// Whether a guard has this number; a zombie guards nothing (`proc_pid_stat(5)`).
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.split_once(&format!(" ({COMM}) ")).map(|(_, rest)| rest);
    rest.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

/// Mount point, own group's directory, version 2?, cpuset? of each mounted hierarchy with controllers to limit by
/// (`proc_pid_mountinfo(5)`, `cgroups(7)`).
fn hierarchies(mounts: &str, own: &str) -> Vec<(PathBuf, PathBuf, bool, bool)> {
    let mut found: Vec<(PathBuf, PathBuf, bool, bool)> = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.starts_with("name=") {
            continue;
        }
        for mount in mounts.lines() {
            let Some((left, right)) = mount.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else { continue };
            let v2 = controllers.is_empty();
            let ours = if v2 {
                kind == "cgroup2"
            } else {
                kind == "cgroup" && controllers.split(',').all(|c| options.split(',').any(|o| o == c))
            };
            let inside = if root == "/" { Some(path) } else { path.strip_prefix(root) };
            let (true, Some(inside)) = (ours, inside) else { continue };
            let point = PathBuf::from(point);
            let group = point.join(inside.trim_start_matches('/'));
            if !found.iter().any(|(_, g, ..)| *g == group) {
                found.push((point, group, v2, controllers.split(',').any(|c| c == "cpuset")));
            }
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_both_versions_and_below_a_mounted_root() {
        let mounts = "\
30 25 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 30 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
";
        let own =
            "9:name=systemd:/u\n5:cpuset:/\n4:memory:/docker/x/y\n2:cpu,cpuacct:/a\n1:pids:/\n0::/s.slice\n";
        let path = PathBuf::from;
        assert_eq!(
            hierarchies(mounts, own),
            [
                (path("/sys/fs/cgroup/cpuset"), path("/sys/fs/cgroup/cpuset/"), false, true),
                (path("/sys/fs/cgroup/memory"), path("/sys/fs/cgroup/memory/y"), false, false),
                (path("/sys/fs/cgroup/cpu,cpuacct"), path("/sys/fs/cgroup/cpu,cpuacct/a"), false, false),
                (path("/sys/fs/cgroup/unified"), path("/sys/fs/cgroup/unified/s.slice"), true, false),
            ]
        );
        assert_eq!(hierarchies("", own), []);
    }

    #[test]
    fn groups_are_removed_from_the_bottom() {
        let dir = std::env::temp_dir().join(format!("icp-cgroup-test-{}", std::process::id()));
        let groups = Cgroups { bases: vec![Base { dir: dir.clone(), v2: false, cpuset: false }] };
        assert!(groups.machine("m1").is_empty(), "there is no cgroup.procs here");
        fs::create_dir_all(dir.join("m1/pods/a")).unwrap();
        assert!(groups.remove(Some("m1")) && dir.exists() && !dir.join("m1").exists());
        assert!(groups.remove(None) && !dir.exists());
        assert!(groups.remove(None));
    }
}
