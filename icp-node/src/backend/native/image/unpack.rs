//! Applies layers of an image to a folder.
//!
//! Every path is found within the folder, whatever links earlier entries made; whiteouts remove what lower layers put
//! there (<https://github.com/opencontainers/image-spec/blob/main/layer.md>).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::backend::native::rooted::Rooted;

/// Most entries of a layer.
const ENTRIES_MAX: u64 = 4_000_000;

fn bad(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The path of an entry as names below the root; `None` is the root itself.
fn clean(path: &Path) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names
                .push(name.to_str().ok_or_else(|| bad(format!("the name {} is not UTF-8", path.display())))?),
            Component::ParentDir => return Err(bad(format!("the name {} leads out", path.display()))),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok((!names.is_empty()).then(|| names.join("/")))
}

/// Removes what a name in a folder stands for, with all that is below it.
pub(crate) fn remove_all(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    clear(&folder, &|_| true)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes the entries of a folder that `which` names.
fn clear(folder: &OwnedFd, which: &dyn Fn(&str) -> bool) -> Result<(), Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
            && which(name)
        {
            names.push(name.to_string());
        }
    }
    names.iter().try_for_each(|name| remove_all(folder, name))
}

/// Applies a layer (a tar stream) to a folder.
///
/// # Errors
/// If the stream is broken or leads out of the folder, or the folder cannot be written to.
pub(crate) fn apply_layer(root: &Rooted, stream: impl Read) -> io::Result<()> {
    let mut archive = Archive::new(stream);
    let mut own = BTreeSet::new();
    for (count, entry) in (0_u64..).zip(archive.entries()?) {
        if count >= ENTRIES_MAX {
            return Err(bad("the layer has too many entries".into()));
        }
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match clean(&path)? {
            Some(name) => apply_entry(root, &name, &mut entry, &mut own).map_err(named)?,
            None if kind.is_dir() => {
                let mode = Mode::from_bits_truncate(entry.header().mode()?);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                rustix::fs::fchmod(root.get("", flags)?, mode)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn apply_entry<R: Read>(
    root: &Rooted,
    name: &str,
    entry: &mut Entry<'_, R>,
    own: &mut BTreeSet<String>,
) -> io::Result<()> {
    let (parent, last) = root.parent(name)?;
    if last == ".wh..wh..opq" {
        let folder = name.strip_suffix(".wh..wh..opq").unwrap_or_default();
        let fd = root.get(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        return Ok(clear(&fd, &|child| !own.contains(&format!("{folder}{child}")))?);
    }
    if let Some(hidden) = last.strip_prefix(".wh.") {
        if !matches!(hidden, "" | "." | "..") && !hidden.starts_with(".wh.") {
            remove_all(&parent, hidden)?;
        }
        return Ok(());
    }
    // What this layer put somewhere is not hidden by its own opaque marker, and neither are the folders above it.
    let mut at = Some(name);
    while let Some(path) = at {
        own.insert(path.to_string());
        at = path.rsplit_once('/').map(|(above, _)| above);
    }
    let header = entry.header().clone();
    let mode = Mode::from_bits_truncate(header.mode()?);
    let last = last.as_str();
    let kind = header.entry_type();
    let node = |kind: FileType| -> io::Result<()> {
        let device =
            rustix::fs::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
        remove_all(&parent, last)?;
        match rustix::fs::mknodat(&parent, last, kind, mode, device) {
            // Device nodes are for the true root; containers get theirs from the runtime.
            Err(Errno::PERM) => Ok(()),
            other => Ok(other?),
        }
    };
    match kind {
        EntryType::Directory => match rustix::fs::mkdirat(&parent, last, mode) {
            Err(Errno::EXIST) => {
                let meta = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW)?;
                if !FileType::from_raw_mode(meta.st_mode).is_dir() {
                    remove_all(&parent, last)?;
                    rustix::fs::mkdirat(&parent, last, mode)?;
                }
            }
            other => other?,
        },
        EntryType::Symlink => {
            let to = entry.link_name()?.ok_or_else(|| bad("a link to nothing".into()))?;
            remove_all(&parent, last)?;
            rustix::fs::symlinkat(to.as_ref(), &parent, last)?;
        }
        EntryType::Link => {
            let to = entry.link_name()?.ok_or_else(|| bad("a link to nothing".into()))?;
            let to = clean(&to)?.ok_or_else(|| bad("a hard link to the root".into()))?;
            let (from, from_name) = root.parent(&to)?;
            remove_all(&parent, last)?;
            rustix::fs::linkat(from, from_name, &parent, last, AtFlags::empty())?;
            return Ok(());
        }
        EntryType::Char => node(FileType::CharacterDevice)?,
        EntryType::Block => node(FileType::BlockDevice)?,
        EntryType::Fifo => node(FileType::Fifo)?,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            remove_all(&parent, last)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, last, flags, mode)?);
            io::copy(entry, &mut file)?;
        }
        other => return Err(bad(format!("entry of unknown kind {other:?}"))),
    }
    let id = |n: u64| u32::try_from(n).map_err(|_| bad(format!("id {n} is too large")));
    let (uid, gid) = (Uid::from_raw(id(header.uid()?)?), Gid::from_raw(id(header.gid()?)?));
    match rustix::fs::chownat(&parent, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // Ids that do not exist in this user namespace: all belongs to its root then. A node that was not made.
        Err(Errno::INVAL | Errno::PERM | Errno::NOENT) => {}
        other => other?,
    }
    if matches!(kind, EntryType::Symlink | EntryType::Char | EntryType::Block) {
        return Ok(());
    }
    // After the owner, which takes set-user-id bits away.
    rustix::fs::chmodat(&parent, last, mode, AtFlags::empty())?;
    attributes(&parent, last, entry)?;
    let seconds = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    rustix::fs::utimensat(&parent, last, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Extended attributes, such as file capabilities, as far as this node may set them.
fn attributes<R: Read>(parent: &OwnedFd, last: &str, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) else { continue };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, last, flags, Mode::empty())?;
        let _ = rustix::fs::fsetxattr(file, name, extension.value_bytes(), rustix::fs::XattrFlags::empty());
    }
    Ok(())
}

/// Copies a tree with modes, owners and links, for nodes without overlayfs. File systems that can share blocks do.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, lchown, symlink};
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_dir() {
            copy_tree(&source, &target)?;
        } else if meta.is_symlink() {
            symlink(std::fs::read_link(&source)?, &target)?;
        } else if meta.is_file() {
            std::fs::copy(&source, &target)?;
        } else {
            continue;
        }
        lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        if !meta.is_symlink() {
            std::fs::set_permissions(&target, meta.permissions())?;
        }
    }
    let meta = std::fs::metadata(from)?;
    std::fs::set_permissions(to, meta.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("icp-unpack-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("root")).unwrap();
        dir
    }

    enum What<'a> {
        Folder,
        File(&'a str),
        Link(&'a str),
        Hard(&'a str),
    }

    fn layer(entries: &[(&str, What<'_>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, what) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            let (kind, data, link) = match what {
                What::Folder => (EntryType::Directory, "", None),
                What::File(text) => (EntryType::Regular, *text, None),
                What::Link(to) => (EntryType::Symlink, "", Some(to)),
                What::Hard(to) => (EntryType::Link, "", Some(to)),
            };
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            // The builder refuses names that lead out, which is what these tests are about.
            let raw = path.as_bytes();
            header.as_mut_bytes()[..raw.len()].copy_from_slice(raw);
            if let Some(to) = link {
                header.as_mut_bytes()[157..157 + to.len()].copy_from_slice(to.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn whiteouts_remove_what_is_below() {
        let dir = scratch("whiteout");
        let root = Rooted::open(&dir.join("root")).unwrap();
        let first = layer(&[
            ("a", What::Folder),
            ("a/x", What::File("1")),
            ("a/y", What::File("1")),
            ("b", What::Folder),
            ("b/old", What::File("1")),
            ("h", What::Hard("a/x")),
        ]);
        let second = layer(&[
            ("a/.wh.x", What::File("")),
            ("b/new", What::File("2")),
            ("b/.wh..wh..opq", What::File("")),
            ("a/y", What::Link("/b/new")),
        ]);
        apply_layer(&root, &first[..]).unwrap();
        apply_layer(&root, &second[..]).unwrap();
        let at = |p: &str| dir.join("root").join(p);
        assert!(!at("a/x").exists() && at("h").is_file() && !at("b/old").exists());
        assert_eq!(std::fs::read_to_string(at("b/new")).unwrap(), "2");
        assert_eq!(std::fs::read_link(at("a/y")).unwrap(), Path::new("/b/new"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_lands_outside() {
        let dir = scratch("escape");
        let root = Rooted::open(&dir.join("root")).unwrap();
        assert!(apply_layer(&root, &layer(&[("../evil", What::File("x"))])[..]).is_err());
        let through = layer(&[("link", What::Link("../..")), ("link/evil", What::File("x"))]);
        apply_layer(&root, &through[..]).unwrap();
        let absolute = layer(&[("/abs", What::Link("/")), ("abs/evil2", What::File("x"))]);
        apply_layer(&root, &absolute[..]).unwrap();
        assert!(!dir.join("evil").exists() && !dir.parent().unwrap().join("evil").exists());
        assert!(dir.join("root/evil").is_file() && dir.join("root/evil2").is_file());
        assert!(
            apply_layer(&root, &b"this is not a tar file, but it is long enough to look at it"[..]).is_err()
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn trees_are_copied() {
        let dir = scratch("copy");
        std::fs::create_dir_all(dir.join("root/d")).unwrap();
        std::fs::write(dir.join("root/d/f"), "x").unwrap();
        std::os::unix::fs::symlink("d/f", dir.join("root/l")).unwrap();
        copy_tree(&dir.join("root"), &dir.join("to")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("to/l")).unwrap(), "x");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
