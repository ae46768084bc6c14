//! Paths that are found and made without leaving a folder, whatever symbolic links lie in it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Links followed while folders are made.
const LINKS_MAX: u32 = 16;

/// A folder that stands for `/` (`openat2` with `RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub(crate) struct Rooted(OwnedFd);

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").collect()
}

impl Rooted {
    /// Opens a folder of the node.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(CWD, path, flags, Mode::empty()).map(Self)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what is there, without following a link at the end if `flags` say so.
    pub(crate) fn get(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if parts(path).is_empty() { "." } else { path };
        // The kernel answers EAGAIN if something was renamed meanwhile.
        for _ in 0..64 {
            match fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A handle of what is there.
    pub(crate) fn handle(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.get(path, OFlags::PATH)
    }

    /// Reads a file of at most `max` bytes; more is cut.
    pub(crate) fn read(&self, path: &str, max: usize) -> Result<Vec<u8>, Errno> {
        let fd = self.get(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut data = Vec::new();
        let mut chunk = [0_u8; 4096];
        while data.len() < max {
            let n = rustix::io::read(&fd, &mut chunk)?;
            if n == 0 {
                break;
            }
            data.extend_from_slice(chunk.get(..n).unwrap_or_default());
        }
        data.truncate(max);
        Ok(data)
    }

    /// Opens a folder and makes what is missing of it.
    pub(crate) fn folder(&self, path: &str, mode: u32) -> Result<OwnedFd, Errno> {
        self.folder_within(path, mode, LINKS_MAX)
    }

    fn folder_within(&self, path: &str, mode: u32, links: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.get(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut parent = self.get("", flags)?;
        let mut done = String::new();
        for part in parts(path) {
            let above = done.clone();
            done = format!("{done}/{part}");
            let next = match self.get(&done, flags) {
                Err(Errno::NOENT) => match fs::mkdirat(&parent, part, Mode::from_bits_truncate(mode)) {
                    Ok(()) => self.get(&done, flags)?,
                    // A link to a place that is not there yet: make that place.
                    Err(Errno::EXIST) => {
                        let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                        let to = fs::readlinkat(&parent, part, Vec::new())?;
                        let to = to.to_str().map_err(|_| Errno::INVAL)?;
                        let full = if to.starts_with('/') { to.into() } else { format!("{above}/{to}") };
                        self.folder_within(&full, mode, links)?
                    }
                    Err(error) => return Err(error),
                },
                other => other?,
            };
            parent = next;
        }
        Ok(parent)
    }

    /// The folder that a path lies in, made if missing, and the path's last part.
    pub(crate) fn parent(&self, path: &str) -> Result<(OwnedFd, String), Errno> {
        let parts = parts(path);
        let (last, above) = parts.split_last().ok_or(Errno::INVAL)?;
        if *last == ".." {
            return Err(Errno::INVAL);
        }
        Ok((self.folder(&above.join("/"), 0o755)?, (*last).to_string()))
    }

    /// A handle of the place that something shall be mounted at, made if missing: a folder or an empty file.
    pub(crate) fn mount_point(&self, path: &str, folder: bool) -> Result<OwnedFd, Errno> {
        if folder {
            return self.folder(path, 0o755);
        }
        match self.handle(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&parent, &*name, flags, Mode::from_bits_truncate(0o644)) {
            Ok(_) => {}
            // A link that leads nowhere is replaced.
            Err(Errno::LOOP) => {
                fs::unlinkat(&parent, &*name, AtFlags::empty())?;
                fs::openat(&parent, &*name, flags, Mode::from_bits_truncate(0o644))?;
            }
            Err(error) => return Err(error),
        }
        self.handle(path)
    }
}

/// Whether a handle is of a folder.
pub(crate) fn is_folder(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(fs::FileType::from_raw_mode(fs::fstat(fd)?.st_mode).is_dir())
}

/// Writes a file whole or not at all: into a file beside it that is renamed.
pub(crate) fn write_atomically(path: &Path, data: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&beside)?;
    file.write_all(data)?;
    drop(file);
    std::fs::rename(&beside, path)
}

/// A path as text for a message.
pub(crate) fn show(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("icp-rooted-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = scratch("links");
        let root = dir.join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.join("secret"), "x").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(dir.join("secret"), root.join("abs")).unwrap();
        symlink("/run", root.join("varrun")).unwrap();
        let rooted = Rooted::open(&root).unwrap();
        assert_eq!(rooted.handle("up").unwrap_err(), Errno::NOENT);
        assert_eq!(rooted.handle("abs").unwrap_err(), Errno::NOENT);
        assert_eq!(rooted.handle("../../secret").unwrap_err(), Errno::NOENT);
        // A folder behind a link that leads nowhere is made inside.
        rooted.folder("varrun/a/b", 0o755).unwrap();
        assert!(root.join("run/a/b").is_dir());
        rooted.mount_point("/new/file", false).unwrap();
        assert!(root.join("new/file").is_file());
        assert_eq!(rooted.read("new/file", 10).unwrap(), b"");
        rooted.mount_point("/abs", false).unwrap();
        assert_eq!(std::fs::read(dir.join("secret")).unwrap(), b"x");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
