//! Blocks in files of one directory.

use std::format;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

use ipnet::IpNet;

use crate::calico::ipam::{Block, BlockStore, StoreError, Write};

const SUFFIX: &str = ".json";
/// A block of 4096 addresses with long handles has less.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One file for each block, replaced whole, for one process at a time.
#[derive(Debug)]
pub struct FileBlocks {
    dir: PathBuf,
}

fn unavailable(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |e| StoreError::Unavailable { what: path.display().to_string(), why: e.to_string() }
}

impl FileBlocks {
    /// The blocks in `dir`, which is made if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(unavailable(dir))?;
        Ok(Self { dir: dir.into() })
    }

    fn path(&self, cidr: IpNet) -> PathBuf {
        self.dir.join(format!("{}{SUFFIX}", cidr.to_string().replace('/', "-")))
    }

    fn read(path: &Path) -> Result<Option<Block>, StoreError> {
        let len = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(unavailable(path))?.len(),
        };
        let corrupt = |why: String| StoreError::Corrupt { what: path.display().to_string(), why };
        if len > FILE_BYTES_MAX {
            return Err(corrupt(format!("it has {len} bytes, more than {FILE_BYTES_MAX}")));
        }
        let bytes = fs::read(path).map_err(unavailable(path))?;
        let block: Block = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        block.check().map_err(|e| corrupt(e.to_string()))?;
        Ok(Some(block))
    }
}

impl BlockStore for FileBlocks {
    fn load(&mut self) -> Result<Vec<Block>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(unavailable(&self.dir))? {
            let path = entry.map_err(unavailable(&self.dir))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                found.extend(Self::read(&path)?);
            }
        }
        Ok(found)
    }

    fn write(&mut self, change: &Write) -> Result<(), StoreError> {
        let (expected, cidr) = match change {
            Write::Put { expected, block } => (*expected, block.cidr()),
            Write::Delete { expected, cidr } => (*expected, *cidr),
        };
        let path = self.path(cidr);
        if Self::read(&path)?.map_or(0, |block| block.sequence()) != expected {
            return Err(StoreError::Conflict { block: cidr });
        }
        match change {
            Write::Put { block, .. } => {
                let temporary = path.with_extension("new");
                let written = serde_json::to_vec(block).map_err(io::Error::from).and_then(|bytes| {
                    let mut file = File::create(&temporary)?;
                    file.write_all(&bytes)?;
                    // A file that is renamed before its content is on disk may be empty after a power failure.
                    file.sync_data()?;
                    fs::rename(&temporary, &path)
                });
                written.map_err(unavailable(&path))
            }
            Write::Delete { .. } => match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.map_err(unavailable(&path)),
            },
        }
    }
}
