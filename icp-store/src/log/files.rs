//! The few file operations that a log needs, so that a disk can be simulated.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::LogError;

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
    _lock: Arc<fs::File>,
}

impl OsFiles {
    /// Opens `directory`, which is made with mode 0700 if it is missing, and locks it.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another opener has it, [`LogError::Io`] for what the system says.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        let shown = format!("{}", directory.display());
        let io = |operation: &'static str| {
            let shown = shown.clone();
            move |e: io::Error| LogError::io(operation, &shown, &e)
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io("create"))?;
        let mode = fs::metadata(directory).map_err(io("stat"))?.permissions().mode();
        if mode & 0o077 != 0 {
            // The directory holds every Secret of a cluster.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(io("chmod"))?;
        }
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join("LOCK"))
            .map_err(io("open the lock of"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LogError::Locked { directory: shown }),
            Err(e) => return Err(LogError::io("lock", &shown, &e.into())),
        }
        if let Some(parent) = directory.canonicalize().map_err(io("resolve"))?.parent() {
            fs::File::open(parent).and_then(|d| d.sync_all()).map_err(io("sync the parent of"))?;
        }
        Ok(Self { directory: Arc::new(directory.to_path_buf()), _lock: Arc::new(lock) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
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

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.as_path())? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
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
        if reserved_bytes > 0 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, flags, 0, reserved_bytes) {
                Ok(()) => {}
                // A file system without reservation: writing the zeros reserves them just as well.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    let zeros = alloc::vec![0; 1 << 20];
                    let mut at = 0;
                    while at < reserved_bytes {
                        let some =
                            usize::try_from(reserved_bytes - at).map_or(zeros.len(), |n| n.min(zeros.len()));
                        file.write_all_at(zeros.get(..some).unwrap_or_default(), at)?;
                        at += some as u64;
                    }
                }
                Err(e) => {
                    drop(file);
                    fs::remove_file(self.path(name))?;
                    return Err(e.into());
                }
            }
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
        fs::File::open(self.directory.as_path())?.sync_all()
    }
}
