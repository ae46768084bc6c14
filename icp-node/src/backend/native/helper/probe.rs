//! What this node can do, found by trying it in namespaces that end with the try.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::path::Path;

use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

use super::{Doing, answer, rootfs, sys};
use crate::backend::native::plan::{ALL_CAPS, Facts, IdRange, MountFlags, Overlay};
use crate::backend::native::record::{Answer, Failure};

const STRICT: MountFlags = MountFlags { read_only: true, nosuid: true, nodev: true, noexec: true };

/// Tries everything in `dir`, a folder on the file system that images and containers will lie on.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let mut facts = Facts {
        uids: ranges("/proc/self/uid_map"),
        gids: ranges("/proc/self/gid_map"),
        setgroups: fs::read_to_string("/proc/self/setgroups").map_or(true, |t| t.trim() != "deny"),
        caps: rustix::thread::capabilities(None).map_or(0, |c| c.permitted.bits()) & ALL_CAPS,
        ..Facts::default()
    };
    let spaces = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if let Err(error) = sys::unshare(spaces) {
        facts.broken = Some(format!(
            "cannot make namespaces ({error}): run as root, or inside of a user namespace as its root"
        ));
        answer(&Answer::Ok(facts));
        return Ok(());
    }
    // The first process of the new process namespace, without which /proc cannot be mounted.
    match sys::fork().doing(|| "fork".into())? {
        Some(pid) => {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            Ok(())
        }
        None => {
            attempt(dir, &mut facts);
            answer(&Answer::Ok(facts));
            sys::exit(0)
        }
    }
}

fn attempt(dir: &Path, facts: &mut Facts) {
    if let Err(failure) = rootfs::stop_propagation() {
        facts.broken = Some(failure.to_string());
        return;
    }
    let needed = rootfs::fresh("proc", &[], MountFlags { read_only: false, ..STRICT })
        .and_then(|_| rootfs::fresh("tmpfs", &[], STRICT))
        .and_then(|_| rustix::fs::open("/usr", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()))
        .and_then(|usr| rootfs::copy_tree(usr, true))
        .map_err(Into::into)
        .and_then(|usr| sys::mount_setattr(usr, true, libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE));
    if let Err(error) = needed {
        facts.broken = Some(format!(
            "cannot mount proc, tmpfs and a read-only /usr ({error}); Linux 5.12 or later is needed"
        ));
        return;
    }
    facts.sysfs_host_network = rootfs::fresh("sysfs", &[], STRICT).is_ok();
    if let Err(error) = sys::unshare(UnshareFlags::NEWNET) {
        facts.broken = Some(format!("cannot make a network namespace ({error})"));
        return;
    }
    facts.sysfs = rootfs::fresh("sysfs", &[], STRICT).is_ok();
    facts.mqueue = rootfs::fresh("mqueue", &[], MountFlags { read_only: false, ..STRICT }).is_ok();
    let terminals = [("newinstance".to_string(), String::new()), ("gid".into(), "5".into())];
    facts.tty_group = rootfs::fresh("devpts", &terminals, MountFlags::default()).is_ok();
    let whole = [IdRange { first: 0, count: u32::MAX }];
    let kinds =
        if facts.uids == whole { [Overlay::Trusted, Overlay::User] } else { [Overlay::User, Overlay::None] };
    facts.overlay = kinds.into_iter().find(|k| overlay_works(dir, *k)).unwrap_or_default();
    facts.cgroup_namespace = sys::unshare(UnshareFlags::NEWCGROUP).is_ok();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    facts.cgroup2 = controllers.contains("memory")
        && facts.cgroup_namespace
        && rootfs::fresh("cgroup2", &[], STRICT).is_ok();
}

/// Whether a folder of an image can be removed and made again, and is empty then.
fn overlay_works(dir: &Path, kind: Overlay) -> bool {
    if kind == Overlay::None {
        return false;
    }
    let base = dir.join(format!("{kind:?}"));
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|n| base.join(n));
    let attempt = || -> std::io::Result<bool> {
        for folder in [&lower.join("d/e"), &upper, &work, &merged] {
            fs::create_dir_all(folder)?;
        }
        fs::write(lower.join("d/f"), "x")?;
        let mut options = Vec::from([
            ("lowerdir".to_string(), rootfs::overlay_path(&lower)),
            ("upperdir".into(), upper.display().to_string()),
            ("workdir".into(), work.display().to_string()),
        ]);
        if kind == Overlay::User {
            options.push(("userxattr".into(), String::new()));
        }
        let mount = rootfs::fresh("overlay", &options, MountFlags::default())?;
        let at = rustix::fs::open(&merged, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
        rootfs::attach(mount, at)?;
        fs::remove_dir_all(merged.join("d"))?;
        fs::create_dir(merged.join("d"))?;
        Ok(fs::read_dir(merged.join("d"))?.next().is_none())
    };
    let works = attempt().unwrap_or(false);
    let _ = rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH);
    let _ = fs::remove_dir_all(&base);
    works
}

fn ranges(path: &str) -> Vec<IdRange> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next()?.parse().ok()?;
            let count = fields.nth(1)?.parse().ok()?;
            Some(IdRange { first, count })
        })
        .collect()
}
