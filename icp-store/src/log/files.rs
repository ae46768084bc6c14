//! The few file operations that a log needs, so that a disk can be simulated.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::LogError;
use super::disk::is_of_store;

/// The file whose lock keeps a second opener out.
const LOCK: &str = "LOCK";

/// A file that is open for writing.
pub trait File: Send {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says; the bytes may be written in part.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and its length durable.
    ///
    /// # Errors
    /// What the system says; it is then unknown what is durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// One directory of files; all names are within it. Clones share it.
pub trait Files: Clone + Send + Sync + 'static {
    /// An open file.
    type File: File + 'static;

    /// How a file is named in an error.
    fn shown(&self, name: &str) -> String {
        name.into()
    }

    /// A number that nobody who writes values can foresee; it enters checksums.
    ///
    /// # Errors
    /// What the system says.
    fn salt(&self) -> io::Result<u32>;

    /// The length of a file, in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// The names of all files.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Reads a file from its beginning.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// Makes an empty file of `reserved_bytes` zeros, for which space is reserved; an existing one is replaced.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::StorageFull`] if the space is not there.
    fn create(&self, name: &str, reserved_bytes: u64) -> io::Result<Self::File>;

    /// Opens a file for writing.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_directory(&self) -> io::Result<()>;
}

/// A directory of the operating system, locked against a second opener for as long as a clone lives.
#[derive(Clone, Debug)]
pub struct OsFiles {
    directory: Arc<PathBuf>,
    /// Open, so that a sync of it needs no file descriptor when there may be none left.
    handle: Arc<fs::File>,
    _lock: Arc<fs::File>,
}

impl OsFiles {
    /// Opens `directory` and locks it. It is made, with mode 0700, if it is missing; an existing one must be empty or a
    /// store's, and is made private.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another opener has it, [`LogError::Foreign`] if something else lies in it,
    /// [`LogError::Owner`] if it is another user's, [`LogError::Io`] for what the system says.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        let shown = format!("{}", directory.display());
        let io = |operation: &'static str| {
            let shown = shown.clone();
            move |e: io::Error| LogError::io(operation, &shown, &e)
        };
        make_directory(directory)?;
        let handle = fs::File::open(directory).map_err(io("open"))?;
        let metadata = handle.metadata().map_err(io("stat"))?;
        if !metadata.is_dir() {
            return Err(io("open")(io::ErrorKind::NotADirectory.into()));
        }
        let user = rustix::process::geteuid();
        if metadata.uid() != user.as_raw() && !user.is_root() {
            return Err(LogError::Owner { directory: shown, owner: metadata.uid(), user: user.as_raw() });
        }
        let names = list(directory).map_err(io("list"))?;
        if !names.iter().any(|n| n == LOCK || is_of_store(n))
            && let Some(file) = names.into_iter().find(|n| n != "lost+found")
        {
            return Err(LogError::Foreign { directory: shown, file });
        }
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join(LOCK))
            .map_err(|e| LogError::io("open", &format!("{shown}/{LOCK}"), &e))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LogError::Locked { directory: shown }),
            Err(e) => return Err(LogError::io("lock", &shown, &e.into())),
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // The directory holds every Secret of a cluster.
            handle.set_permissions(fs::Permissions::from_mode(0o700)).map_err(io("make private"))?;
        }
        Ok(Self {
            directory: Arc::new(directory.to_path_buf()),
            handle: Arc::new(handle),
            _lock: Arc::new(lock),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Makes `directory` and what is missing above it, and makes the names durable: a store whose directory a power loss
/// takes away has lost everything.
fn make_directory(directory: &Path) -> Result<(), LogError> {
    let fail = |operation: &'static str, path: &Path, e: &io::Error| {
        LogError::io(operation, &format!("{}", path.display()), e)
    };
    let whole = std::path::absolute(directory).map_err(|e| fail("resolve", directory, &e))?;
    let missing: Vec<&Path> = whole
        .ancestors()
        .take_while(
            |path| matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound),
        )
        .collect();
    for path in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail("make", path, &e)),
            _ => {}
        }
    }
    // One more than was missing: who made the directory before may have ended before it was durable.
    for path in whole.ancestors().skip(1).take(missing.len().max(1)) {
        match fs::File::open(path).and_then(|d| d.sync_all()) {
            // It was there and is another's.
            Err(e) if missing.is_empty() && e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) if missing.is_empty() && e.kind() == io::ErrorKind::NotADirectory => {}
            Err(e) => return Err(fail("sync", path, &e)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl File for fs::File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Files for OsFiles {
    type File = fs::File;

    fn shown(&self, name: &str) -> String {
        format!("{}", self.path(name).display())
    }

    fn salt(&self) -> io::Result<u32> {
        let mut salt = [0; 4];
        rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty())?;
        Ok(u32::from_le_bytes(salt))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.directory)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::BufReader::with_capacity(1 << 20, fs::File::open(self.path(name))?)))
    }

    fn create(&self, name: &str, reserved_bytes: u64) -> io::Result<fs::File> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.path(name))?;
        if let Err(e) = reserve(&file, reserved_bytes) {
            // What was reserved of it is space that others can use.
            drop(file);
            let _ = fs::remove_file(self.path(name));
            return Err(e);
        }
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().write(true).open(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Reserves the first `bytes` bytes of a file, which read as zeros.
fn reserve(file: &fs::File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, 0, bytes)) {
        Ok(()) => Ok(()),
        // A file system without reservation: writing the zeros reserves them just as well.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_zeros(file, bytes),
        Err(e) => Err(e.into()),
    }
}

fn write_zeros(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = alloc::vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let some = usize::try_from(bytes - at).map_or(zeros.len(), |n| n.min(zeros.len()));
        file.write_all_at(zeros.get(..some).unwrap_or_default(), at)?;
        at += some as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system without reservation cannot be had everywhere, so its way is tried alone.
    #[test]
    fn written_zeros_have_the_length_that_was_asked_for() {
        let path = std::env::temp_dir().join(format!("icp-store-zeros-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        write_zeros(&file, (1 << 20) + 5).unwrap();
        assert_eq!(fs::read(&path).unwrap(), alloc::vec![0; (1 << 20) + 5]);
        fs::remove_file(&path).unwrap();
    }
}
