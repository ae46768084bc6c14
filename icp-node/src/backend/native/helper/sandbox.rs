//! The holder of a pod's namespaces.

use alloc::format;
use std::path::Path;

use rustix::thread::UnshareFlags;

use super::{Doing, answer, detach, join_cgroups, read_plan, set_oom_score, sys};
use crate::backend::native::plan::SandboxPlan;
use crate::backend::native::record::{Answer, Failure, ProcessRecord, write};

/// Makes the namespaces, leaves a process that holds them, and answers who it is.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let plan: SandboxPlan = read_plan(&dir.join("sandbox.json"))?;
    rustix::process::setsid().doing(|| "setsid".into())?;
    join_cgroups(&plan.cgroup_procs)?;
    set_oom_score(plan.oom_score_adj);
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, plan.new_net);
    flags.set(UnshareFlags::NEWIPC, plan.new_ipc);
    flags.set(UnshareFlags::NEWUTS, plan.new_uts);
    flags.set(UnshareFlags::NEWPID, plan.new_pid);
    sys::unshare(flags).doing(|| "make namespaces".into())?;
    if plan.new_net {
        sys::loopback_up().doing(|| "put up the loopback interface".into())?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).doing(|| format!("set the host name {name:?}"))?;
    }
    for (name, value) in &plan.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(path, value).doing(|| format!("set sysctl {name}={value}"))?;
    }
    let Some(child) = sys::fork().doing(|| "fork".into())? else { hold() };
    let record = ProcessRecord::of(child.as_raw_nonzero().get())
        .ok_or_else(|| Failure::Other("the holder of the namespaces died".into()))?;
    let path = dir.join("holder.json");
    write(&path, &record).doing(|| format!("write {}", path.display()))?;
    answer(&Answer::Ok(record));
    Ok(())
}

/// Holds the namespaces until it is killed, and waits for whoever becomes its child.
fn hold() -> ! {
    detach();
    let _ = rustix::thread::set_name(c"icp-pause");
    sys::ignore_children();
    loop {
        sys::pause();
    }
}
