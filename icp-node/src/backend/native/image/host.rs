//! The `host` image: the machine's own programs, read-only, with a root of their own around them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::path::{Path, PathBuf};

use super::ImageView;
use crate::backend::native::plan::{MountFlags, Propagation, Step, What};

/// Its name.
pub(crate) const HOST: &str = "docker.io/library/host:latest";
/// What goes into `imageID` of a container status.
pub(crate) const HOST_ID: &str = "host";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Folders of the machine's root that are part of `/usr` on a merged system, and of their own elsewhere.
const PROGRAMS: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"];
/// What programs of `/usr` need of `/etc`; nothing there is secret.
const SETTINGS: [&str; 8] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/os-release",
];
const FOLDERS: [(&str, u32); 11] = [
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/var/log", 0o755),
    ("/var/lib", 0o755),
    ("/var/cache", 0o755),
    ("/run", 0o755),
    ("/root", 0o700),
    ("/home", 0o755),
    ("/opt", 0o755),
    ("/srv", 0o755),
    ("/mnt", 0o755),
];

/// What a folder of the machine's root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Link(String),
    Folder,
}

/// Reads what [`host_image`] needs to know of the machine.
pub(crate) fn machine_programs() -> Vec<(String, Entry)> {
    let look = |name: &&str| {
        let path = Path::new("/").join(name);
        let meta = std::fs::symlink_metadata(&path).ok()?;
        let entry = if meta.is_symlink() {
            Entry::Link(std::fs::read_link(&path).ok()?.to_str()?.into())
        } else if meta.is_dir() {
            Entry::Folder
        } else {
            return None;
        };
        Some(((*name).to_string(), entry))
    };
    PROGRAMS.iter().filter_map(look).collect()
}

/// The image, for a machine with these folders.
pub(crate) fn host_image(programs: &[(String, Entry)]) -> ImageView {
    let sealed = MountFlags { read_only: true, nosuid: true, nodev: true, noexec: false };
    let bind = |path: &str, optional: bool, flags: MountFlags| Step {
        target: path.into(),
        what: What::Bind {
            source: PathBuf::from(path),
            sub_path: String::new(),
            recursive: true,
            optional,
            propagation: Propagation::Private,
        },
        flags,
    };
    let mut steps = Vec::from([bind("/usr", false, sealed)]);
    for (name, entry) in programs {
        let target = alloc::format!("/{name}");
        match entry {
            Entry::Link(to) => {
                steps.push(Step { target, what: What::Link(to.clone()), flags: MountFlags::default() });
            }
            Entry::Folder => steps.push(bind(&target, true, sealed)),
        }
    }
    for (path, mode) in FOLDERS {
        let what = What::Folder(mode);
        steps.push(Step { target: path.into(), what, flags: MountFlags::default() });
    }
    let what = What::Link("/run".into());
    steps.push(Step { target: "/var/run".into(), what, flags: MountFlags::default() });
    for (path, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/nsswitch.conf", NSSWITCH)] {
        let what = What::File(text.into(), 0o644);
        steps.push(Step { target: path.into(), what, flags: MountFlags::default() });
    }
    let quiet = MountFlags { noexec: true, ..sealed };
    steps.extend(SETTINGS.iter().map(|path| bind(path, true, quiet)));
    ImageView {
        id: HOST_ID.into(),
        rootfs: None,
        steps,
        cmd: Vec::from(["/bin/sh".into()]),
        passwd: PASSWD.into(),
        group: GROUP.into(),
        ..ImageView::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_programs_and_no_homes() {
        let programs =
            [("bin".to_string(), Entry::Link("usr/bin".into())), ("lib64".to_string(), Entry::Folder)];
        let image = host_image(&programs);
        let sources: Vec<_> = image
            .steps
            .iter()
            .filter_map(|s| match &s.what {
                What::Bind { source, .. } => Some((source.display().to_string(), s.flags.read_only)),
                _ => None,
            })
            .collect();
        assert!(sources.iter().all(|(_, read_only)| *read_only));
        assert!(sources.contains(&("/usr".into(), true)) && sources.contains(&("/lib64".into(), true)));
        assert!(
            !sources.iter().any(|(s, _)| s.starts_with("/home") || s.starts_with("/root") || s == "/etc")
        );
        assert!(image.steps.iter().any(|s| s.target == "/bin" && s.what == What::Link("usr/bin".into())));
    }
}
