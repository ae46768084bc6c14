//! Puts a root file system together, and makes it the root.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::{Doing, sys};
use crate::backend::native::plan::{ContainerPlan, MountFlags, Propagation, Rootfs, Step, What};
use crate::backend::native::record::Failure;
use crate::backend::native::rooted::{Rooted, is_folder};

const MS_SHARED: u64 = libc::MS_SHARED;
const MS_PRIVATE: u64 = libc::MS_PRIVATE;

/// A mount that shall propagate both ways must be copied before this namespace stops to hear of the node's mounts.
pub(super) struct Early(Vec<(String, OwnedFd)>);

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut set = MountAttrFlags::empty();
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    set.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.nosuid);
    set.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.nodev);
    set.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, flags.noexec);
    set
}

/// Makes a file system that is mounted nowhere yet.
pub(super) fn fresh(kind: &str, options: &[(String, String)], flags: MountFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, name.as_str())?;
        } else {
            rustix::mount::fsconfig_set_string(&context, name.as_str(), value.as_str())?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))
}

/// Copies a mount (or a part of it) so that it can be mounted elsewhere.
pub(super) fn copy_tree(from: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(from, "", flags)
}

/// Mounts what [`fresh`] or [`copy_tree`] made.
pub(super) fn attach(mount: impl AsFd, at: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", at, "", flags)
}

fn handle(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Escapes what separates the folders of an overlay.
pub(super) fn overlay_path(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(':', "\\:")
}

/// Copies the mounts that propagate both ways; called in a new mount namespace, before anything else.
pub(super) fn early(plan: &ContainerPlan) -> Result<Early, Failure> {
    let mut list = Vec::new();
    for step in &plan.steps {
        if let What::Bind { source, propagation: Propagation::Shared, sub_path, .. } = &step.what {
            list.push((step.target.clone(), bind_source(&step.target, source, sub_path, true)?));
        }
    }
    Ok(Early(list))
}

fn bind_source(target: &str, source: &Path, sub_path: &str, recursive: bool) -> Result<OwnedFd, Failure> {
    let what = || format!("mount {} at {target}", source.display());
    if sub_path.is_empty() {
        let from = handle(source).doing(what)?;
        return copy_tree(from, recursive).doing(what);
    }
    let volume = Rooted::open(source).doing(what)?;
    let what = || format!("mount {sub_path:?} of {} at {target}", source.display());
    let from = match volume.handle(sub_path) {
        Err(Errno::NOENT) => {
            // A missing folder gets the permissions of the volume's.
            let mode = rustix::fs::fstat(volume.fd()).doing(what)?.st_mode & 0o777;
            volume.folder(sub_path, mode).doing(what)?
        }
        other => other.doing(what)?,
    };
    copy_tree(from, recursive).doing(what)
}

/// Puts the root together at `at`, a folder of the node, and answers a handle of it.
pub(super) fn build(
    plan: &ContainerPlan,
    early: Early,
    terminal: &mut Option<(OwnedFd, OwnedFd)>,
) -> Result<Rooted, Failure> {
    let at = plan.dir.join("root");
    let base = match &plan.rootfs {
        Rootfs::Memory { size_bytes } => {
            let options = [("size".to_string(), size_bytes.to_string()), ("mode".into(), "0755".into())];
            fresh("tmpfs", &options, MountFlags::default()).doing(|| "mount a root on memory".into())?
        }
        Rootfs::Copy { to, .. } => {
            let from = handle(to).doing(|| format!("open {}", to.display()))?;
            copy_tree(from, false).doing(|| format!("mount {}", to.display()))?
        }
        Rootfs::Overlay { lower, upper, work, user } => {
            let mut options = Vec::from([
                ("lowerdir".to_string(), overlay_path(lower)),
                ("upperdir".into(), upper.display().to_string()),
                ("workdir".into(), work.display().to_string()),
            ]);
            if *user {
                options.push(("userxattr".into(), String::new()));
            }
            fresh("overlay", &options, MountFlags::default())
                .doing(|| format!("mount an overlay of {}", lower.display()))?
        }
    };
    let place = handle(&at).doing(|| format!("open {}", at.display()))?;
    attach(&base, place).doing(|| format!("mount the root at {}", at.display()))?;
    let flags = MountFlags { read_only: false, ..plan.root_flags };
    sys::mount_setattr(&base, false, u64::from(attributes(flags).bits()), MS_PRIVATE)
        .doing(|| "seal the root".into())?;
    let root = Rooted::open(&at).doing(|| format!("open {}", at.display()))?;
    let mut early = early.0.into_iter();
    for step in &plan.steps {
        perform(&root, step, &mut early, terminal, plan.tty)?;
    }
    Ok(root)
}

fn perform(
    root: &Rooted,
    step: &Step,
    early: &mut impl Iterator<Item = (String, OwnedFd)>,
    terminal: &mut Option<(OwnedFd, OwnedFd)>,
    tty: bool,
) -> Result<(), Failure> {
    let target = &step.target;
    let set = u64::from(attributes(step.flags).bits());
    match &step.what {
        What::Bind { source, sub_path, recursive, optional, propagation } => {
            let mount = match propagation {
                Propagation::Shared => match early.next() {
                    Some((_, fd)) => fd,
                    None => return Err(Failure::Other(format!("no early mount for {target}"))),
                },
                _ if *optional && !source.exists() => return Ok(()),
                _ => bind_source(target, source, sub_path, *recursive)?,
            };
            let what = || format!("mount {} at {target}", source.display());
            let kind = match propagation {
                Propagation::Private => MS_PRIVATE,
                Propagation::Slave => 0,
                Propagation::Shared => MS_SHARED,
            };
            sys::mount_setattr(&mount, *recursive, set, kind).doing(what)?;
            let folder = is_folder(&mount).doing(what)?;
            attach(&mount, root.mount_point(target, folder).doing(what)?).doing(what)
        }
        What::Fresh { kind, options } => {
            let what = || format!("mount {kind} at {target}");
            let mount = fresh(kind, options, step.flags).doing(what)?;
            attach(&mount, root.mount_point(target, true).doing(what)?).doing(what)?;
            if kind == "devpts" && tty {
                *terminal = Some(open_terminal(root).doing(|| "open a terminal".into())?);
            }
            Ok(())
        }
        What::Folder(mode) => {
            let what = || format!("make {target}");
            root.folder(target, 0o755).doing(what)?;
            let fd = root.get(target, OFlags::RDONLY | OFlags::DIRECTORY).doing(what)?;
            rustix::fs::fchmod(fd, Mode::from_bits_truncate(*mode)).doing(what)
        }
        What::Link(to) => {
            let what = || format!("link {target} to {to}");
            let (parent, name) = root.parent(target).doing(what)?;
            match rustix::fs::symlinkat(to.as_str(), parent, name) {
                Err(Errno::EXIST) => Ok(()),
                other => other.doing(what),
            }
        }
        What::File(text, mode) => {
            let what = || format!("write {target}");
            let (parent, name) = root.parent(target).doing(what)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::from_bits_truncate(*mode)).doing(what)?;
            let mut file = std::fs::File::from(fd);
            file.write_all(text.as_bytes()).doing(what)
        }
        What::Terminal => {
            let what = || format!("mount the terminal at {target}");
            let Some((_, slave)) = terminal else { return Ok(()) };
            let mount = copy_tree(slave.as_fd(), false).doing(what)?;
            attach(&mount, root.mount_point(target, false).doing(what)?).doing(what)
        }
    }
}

/// Opens a terminal of the container: its two ends.
pub(super) fn open_terminal(root: &Rooted) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master = root.get("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)?;
    terminal_of(master)
}

/// The other end of a terminal.
pub(super) fn terminal_of(master: OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::pty::OpenptFlags;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// Makes a folder the root of this mount namespace and lets go of the old one.
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(root).doing(|| "enter the new root".into())?;
    // Both at the same place: the old root lies above the new one, and is taken away (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").doing(|| "change the root".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "leave the old root".into())?;
    rustix::process::chdir("/").doing(|| "enter the new root".into())
}

/// Hides and seals paths, once the root is the container's.
pub(super) fn seal(plan: &ContainerPlan) -> Result<(), Failure> {
    let sealed = MountFlags { read_only: true, nosuid: true, nodev: true, noexec: true };
    for path in &plan.read_only {
        let what = || format!("make {path} read-only");
        let from = match handle(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(what)?,
        };
        let mount = copy_tree(&from, true).doing(what)?;
        sys::mount_setattr(&mount, true, u64::from(attributes(sealed).bits()), MS_PRIVATE).doing(what)?;
        attach(&mount, from).doing(what)?;
    }
    for path in &plan.masked {
        let what = || format!("hide {path}");
        let at = match handle(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(what)?,
        };
        let mount = if is_folder(&at).doing(what)? {
            fresh("tmpfs", &[("size".into(), "4k".into())], sealed).doing(what)?
        } else {
            copy_tree(handle(Path::new("/dev/null")).doing(what)?, false).doing(what)?
        };
        attach(&mount, at).doing(what)?;
    }
    if plan.root_flags.read_only {
        let root = handle(Path::new("/")).doing(|| "open the root".into())?;
        let set = u64::from(attributes(plan.root_flags).bits());
        sys::mount_setattr(root, false, set, 0).doing(|| "make the root read-only".into())?;
    }
    Ok(())
}

/// Stops mounts of this namespace from being seen outside.
pub(super) fn stop_propagation() -> Result<(), Failure> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).doing(|| "change the propagation of mounts".into())
}

/// Removes a name; no error if it is not there.
pub(super) fn unlink(path: &Path) {
    let _ = rustix::fs::unlinkat(CWD, path, AtFlags::empty());
}
