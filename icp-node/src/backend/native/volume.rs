//! Volumes of a pod in its folder.
//!
//! An empty folder and a set of files lie in `volumes/NAME`; a path of the node is named in `volumes/NAME.path`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::plan::{IdRange, unmapped};
use super::record::{entries, is_plain};
use super::rooted::{show, write_atomically};
use crate::runtime::{HostPathType, RuntimeError, VolumeContent, VolumeFile};

/// The link that is changed to another set of files (`k8s.io/kubernetes/pkg/volume/util/atomic_writer.go`).
const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

fn failed(volume: &str, what: impl core::fmt::Display) -> RuntimeError {
    RuntimeError::Volume { message: format!("MountVolume.SetUp failed for volume {volume:?}: {what}") }
}

/// Makes or updates a volume. Blocks.
///
/// # Errors
/// [`RuntimeError::Volume`], or [`RuntimeError::Config`] for a group that does not exist on this node.
pub(crate) fn write(
    volumes: &Path,
    name: &str,
    content: &VolumeContent,
    gids: &[IdRange],
) -> Result<(), RuntimeError> {
    if !is_plain(name) {
        return Err(failed(name, "not a name"));
    }
    let group = match content {
        VolumeContent::Empty { fs_group, .. } | VolumeContent::Files { fs_group, .. } => *fs_group,
        VolumeContent::HostPath { .. } => None,
    };
    if let Some(message) = group.and_then(|g| unmapped("securityContext.fsGroup", g, gids)) {
        return Err(RuntimeError::Config { message });
    }
    fs::create_dir_all(volumes).map_err(|e| failed(name, e))?;
    let dir = volumes.join(name);
    match content {
        VolumeContent::Empty { memory, size_limit_bytes, .. } => {
            empty(&dir, *memory, *size_limit_bytes, group).map_err(|e| failed(name, e))
        }
        VolumeContent::Files { files, .. } => write_files(&dir, files, group).map_err(|e| failed(name, e)),
        VolumeContent::HostPath { path, kind } => {
            check_host_path(Path::new(path), *kind).map_err(|e| failed(name, e))?;
            let link = volumes.join(format!("{name}.path"));
            write_atomically(&link, path.as_bytes(), 0o600).map_err(|e| failed(name, e))
        }
    }
}

/// Where a volume lies; `None` if it was not made.
pub(crate) fn path(volumes: &Path, name: &str) -> Option<PathBuf> {
    if !is_plain(name) {
        return None;
    }
    if let Ok(path) = fs::read_to_string(volumes.join(format!("{name}.path"))) {
        return Some(path.into());
    }
    let dir = volumes.join(name);
    dir.is_dir().then_some(dir)
}

/// Takes all volumes down. Paths of the node are left as they are. Blocks.
pub(crate) fn remove_all(volumes: &Path) -> io::Result<()> {
    for (_, path) in entries(volumes) {
        unmount(&path)?;
    }
    match fs::remove_dir_all(volumes) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Takes a file system on memory away; no error if there is none.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    // More than one lies there if two agents made it at once.
    for _ in 0..16 {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(above)?.dev())
}

/// An empty folder, on memory if asked for. What is in it stays.
pub(crate) fn empty(dir: &Path, memory: bool, size_bytes: u64, group: Option<u32>) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    if memory && !is_mounted(dir)? {
        let size = if size_bytes == 0 { String::new() } else { format!("size={size_bytes},") };
        let options = format!("{size}mode=0777");
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", dir, "tmpfs", flags, Some(options.as_c_str()))?;
    }
    own(dir, group)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

fn own(path: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(group) => std::os::unix::fs::lchown(path, None, Some(group)),
        None => Ok(()),
    }
}

/// Writes a set of files so that readers see the old set or the new one: into a folder of its own, to which the link
/// `..data` is then changed; the names that users see are links through it.
fn write_files(dir: &Path, files: &[VolumeFile], group: Option<u32>) -> io::Result<()> {
    let mut wanted = BTreeMap::new();
    for file in files {
        let plain = file.path.split('/').all(|p| !p.is_empty() && p != "." && p != "..");
        let first = file.path.split('/').next().unwrap_or_default();
        if !plain || first.starts_with("..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad path {:?}", file.path)));
        }
        wanted.insert(file.path.as_str(), file);
    }
    fs::create_dir_all(dir)?;
    own(dir, group)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && is_same(&dir.join(old), &wanted)
    {
        return Ok(());
    }
    let set = new_folder(dir)?;
    let at = dir.join(&set);
    for file in wanted.values() {
        let path = at.join(&file.path);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, &file.data)?;
        own(&path, group)?;
        // A group that owns files can read them, as `volume.SetVolumeOwnership` of the kubelet sees to.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
    let _ = fs::remove_file(dir.join(DATA_NEW));
    symlink(&set, dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), dir.join(DATA))?;
    let visible: BTreeSet<&str> = wanted.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for (name, path) in entries(dir) {
        let stale_set = name.starts_with("..") && name != DATA && name != set;
        if stale_set {
            fs::remove_dir_all(path)?;
        } else if !name.starts_with("..") && !visible.contains(name.as_str()) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn new_folder(dir: &Path) -> io::Result<String> {
    let used: BTreeSet<String> = entries(dir).into_iter().map(|(name, _)| name).collect();
    for n in 1_u32.. {
        let name = format!("..set-{n}");
        if !used.contains(&name) {
            fs::create_dir(dir.join(&name))?;
            return Ok(name);
        }
    }
    Err(io::Error::other("no name left"))
}

fn is_same(dir: &Path, wanted: &BTreeMap<&str, &VolumeFile>) -> bool {
    let mut found = Vec::new();
    list(dir, "", &mut found);
    found.len() == wanted.len()
        && found.iter().all(|path| {
            wanted.get(path.as_str()).is_some_and(|file| {
                let at = dir.join(path);
                let mode = fs::metadata(&at).map(|m| m.permissions().mode() & 0o777).ok();
                let same_mode = mode.is_some_and(|m| m & !0o440 == file.mode & 0o777 & !0o440);
                same_mode && fs::read(&at).is_ok_and(|data| data == file.data)
            })
        })
}

fn list(dir: &Path, prefix: &str, out: &mut Vec<String>) {
    for (name, path) in entries(dir) {
        let relative = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
        if path.is_dir() {
            list(&path, &relative, out);
        } else {
            out.push(relative);
        }
    }
}

/// `k8s.io/kubernetes/pkg/volume/hostpath`.
fn check_host_path(path: &Path, kind: HostPathType) -> Result<(), String> {
    if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(format!("hostPath {:?} is not an absolute path without '..'", show(path)));
    }
    let make = |e: io::Error| format!("hostPath {:?}: {e}", show(path));
    let found = fs::metadata(path);
    match kind {
        HostPathType::DirectoryOrCreate if found.is_err() => {
            fs::create_dir_all(path).map_err(make)?;
            return fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(make);
        }
        HostPathType::FileOrCreate if found.is_err() => {
            return fs::OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(make);
        }
        _ => {}
    }
    let kind_of = found.as_ref().map(fs::Metadata::file_type);
    let (good, word) = match kind {
        HostPathType::Unset => (true, ""),
        HostPathType::DirectoryOrCreate | HostPathType::Directory => {
            (kind_of.is_ok_and(|k| k.is_dir()), "a directory")
        }
        HostPathType::FileOrCreate | HostPathType::File => (kind_of.is_ok_and(|k| k.is_file()), "a file"),
        HostPathType::Socket => (kind_of.is_ok_and(|k| k.is_socket()), "a socket"),
        HostPathType::CharDevice => (kind_of.is_ok_and(|k| k.is_char_device()), "a character device"),
        HostPathType::BlockDevice => (kind_of.is_ok_and(|k| k.is_block_device()), "a block device"),
    };
    match (good, found) {
        (true, Err(_)) => {
            // Without a check a missing path becomes a folder, as Docker does.
            fs::create_dir_all(path).map_err(make)
        }
        (true, Ok(_)) => Ok(()),
        (false, _) => Err(format!("hostPath type check failed: {} is not {word}", show(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const ALL: [IdRange; 1] = [IdRange { first: 0, count: u32::MAX }];

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("icp-volume-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn files(list: &[(&str, &str)]) -> VolumeContent {
        let file = |(path, data): &(&str, &str)| VolumeFile {
            path: (*path).into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            mode: 0o640,
        };
        VolumeContent::Files { files: list.iter().map(file).collect(), fs_group: None }
    }

    #[test]
    fn files_are_exchanged_at_once() {
        let dir = scratch("files");
        let at = dir.join("conf");
        write(&dir, "conf", &files(&[("a", "1"), ("sub/b", "2")]), &ALL).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(at.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(at.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::metadata(at.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let set = fs::read_link(at.join(DATA)).unwrap();
        // The same again changes nothing.
        write(&dir, "conf", &files(&[("sub/b", "2"), ("a", "1")]), &ALL).unwrap();
        assert_eq!(fs::read_link(at.join(DATA)).unwrap(), set);
        write(&dir, "conf", &files(&[("a", "9"), ("c", "3")]), &ALL).unwrap();
        assert_ne!(fs::read_link(at.join(DATA)).unwrap(), set);
        let mut names: Vec<_> =
            entries(&at).into_iter().map(|(n, _)| n).filter(|n| !n.starts_with("..")).collect();
        names.sort();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "9");
        assert!(!at.join(&set).exists());
        assert!(write(&dir, "conf", &files(&[("../x", "")]), &ALL).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn groups_that_do_not_exist_are_named() {
        let dir = scratch("group");
        let content = VolumeContent::Empty { memory: false, size_limit_bytes: 0, fs_group: Some(2000) };
        let error = write(&dir, "tmp", &content, &[IdRange { first: 0, count: 1 }]).unwrap_err();
        assert!(matches!(error, RuntimeError::Config { message } if message.contains("fsGroup: id 2000")));
    }

    #[test]
    fn paths_of_the_node_are_checked() {
        let dir = scratch("host");
        fs::create_dir_all(&dir).unwrap();
        let there = dir.join("file");
        let check = |path: &Path, kind| {
            let content = VolumeContent::HostPath { path: path.display().to_string(), kind };
            write(&dir.join("v"), "h", &content, &ALL)
        };
        assert!(check(&there, HostPathType::File).is_err());
        check(&there, HostPathType::FileOrCreate).unwrap();
        check(&there, HostPathType::File).unwrap();
        let error = check(&there, HostPathType::Directory).unwrap_err();
        assert!(
            error.to_string().contains("hostPath type check failed")
                && error.to_string().contains("not a directory")
        );
        check(Path::new("/dev/null"), HostPathType::CharDevice).unwrap();
        check(&dir.join("made"), HostPathType::DirectoryOrCreate).unwrap();
        assert!(check(Path::new("relative"), HostPathType::Unset).is_err());
        assert!(check(Path::new("/a/../b"), HostPathType::Unset).is_err());
        assert_eq!(path(&dir.join("v"), "h").unwrap(), dir.join("made"));
        assert_eq!(path(&dir.join("v"), "other"), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
