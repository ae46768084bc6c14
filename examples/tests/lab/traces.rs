//! What a lab could leave behind.

use crate::*;

/// What a lab could leave behind.
pub(crate) struct Traces {
    pub(crate) mounts: usize,
    pub(crate) links: BTreeSet<String>,
    /// Processes of labs, with their start times, which tell a process from a later one of the same number.
    pub(crate) processes: BTreeSet<(u32, u64)>,
    pub(crate) guards: BTreeSet<u32>,
}

impl Traces {
    pub(crate) fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
        let names = |e: fs::DirEntry| e.file_name().to_string_lossy().into_owned();
        let links = fs::read_dir("/sys/class/net").unwrap().flatten().map(names).collect();
        Self { mounts, links, processes: BTreeSet::new(), guards: BTreeSet::new() }
    }

    /// Takes note of what a lab is made of now; returns how many processes that are.
    pub(crate) fn take(&mut self, guard: u32) -> usize {
        self.guards.insert(guard);
        let all = processes();
        let mut of_lab = BTreeSet::from([guard]);
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|p| of_lab.contains(&p.parent) && !of_lab.contains(&p.pid))
                .map(|p| p.pid)
                .collect();
            if more.is_empty() {
                break;
            }
            of_lab.extend(more);
        }
        self.processes.extend(all.iter().filter(|p| of_lab.contains(&p.pid)).map(|p| (p.pid, p.started)));
        of_lab.len()
    }

    pub(crate) fn processes_left(&self) -> usize {
        processes().iter().filter(|p| self.processes.contains(&(p.pid, p.started))).count()
    }

    /// Waits until no process, mount, interface or control group is there that was not there before.
    pub(crate) fn are_all_there_is(&self) {
        eventually("the lab leaves nothing behind", || {
            let now = Self::now();
            now.mounts == self.mounts
                && now.links == self.links
                && self.processes_left() == 0
                && self.guards.iter().all(|guard| groups_of(*guard).is_empty())
        });
    }
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) struct Proc {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) started: u64,
}

/// All processes that have not ended (`proc_pid_stat(5)`).
pub(crate) fn processes() -> Vec<Proc> {
    let read = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let alive = !["Z", "X"].contains(&fields[0]);
        alive.then_some(Proc { pid, parent: fields[1].parse().ok()?, started: fields[19].parse().ok()? })
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(read).collect()
}

pub(crate) fn groups_of(guard: u32) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut dirs = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == format!("icp-lab-{guard}") {
                found.push(entry.path());
            } else if depth < 6 {
                dirs.push((entry.path(), depth + 1));
            }
        }
    }
    found
}
