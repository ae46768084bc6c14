//! A simulated disk: it loses what was not synced, tears writes, fills up and fails.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use icp_core::base::Rng;

use super::{File, Files};

/// What a sector write is atomic in, in bytes.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, and when. Operations that change something are counted from 0, and so are those that read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// From this operation on nothing is done any more: the machine has lost power.
    PowerLoss(u64),
    /// This operation fails with an input/output error. A write is done in part; if it is a sync, what was pending is
    /// lost, and later syncs succeed (as Linux does).
    Error(u64),
    /// From this operation on no space can be reserved and no file can grow.
    Full(u64),
    /// This listing or reading of a file fails, at once or in the middle.
    ReadError(u64),
}

#[derive(Clone, Debug, Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, by sector.
    pending: Vec<(usize, Vec<u8>)>,
}

type Names = BTreeMap<String, usize>;

/// A change of the directory.
#[derive(Clone, Debug)]
enum NameChange {
    Insert(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Insert(name, id) => _ = names.insert(name.clone(), *id),
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
            Self::Remove(name) => _ = names.remove(name),
        }
    }
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    names: Names,
    durable_names: Names,
    /// Changes since the last sync of the directory.
    pending_names: Vec<NameChange>,
    operations: u64,
    reads: u64,
    fault: Option<Fault>,
    rng: Rng,
    salts: Rng,
}

/// A directory on a simulated disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimFiles(Arc<Mutex<State>>);

impl SimFiles {
    /// An empty directory; `seed` decides what a crash leaves.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_names(Names::new(), Vec::new(), Rng::new(seed))
    }

    fn from_names(names: Names, nodes: Vec<Node>, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes,
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            operations: 0,
            reads: 0,
            fault: None,
            salts: rng.child("salts"),
            rng,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations that change something were done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many times a file or the directory was read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Plans what goes wrong; `None` mends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// The disk after a power loss: of what was not synced, some sectors and some changes of the directory are there;
    /// these as a journal keeps them, the first ones, or each by itself.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        let mut rng = Rng::new(state.rng.next_u64());
        let kept = rng.below(state.pending_names.len() as u64 + 1) as usize;
        let journal = rng.chance(500_000);
        let mut names = state.durable_names.clone();
        for (at, change) in state.pending_names.iter().enumerate() {
            if if journal { at < kept } else { rng.chance(500_000) } {
                change.apply(&mut names);
            }
        }
        let mut nodes = Vec::new();
        for node in &state.nodes {
            let mut after = node.durable.clone();
            for (offset, sector) in &node.pending {
                if rng.chance(500_000) {
                    put(&mut after, *offset, sector);
                }
            }
            nodes.push(Node { now: after.clone(), durable: after, pending: Vec::new() });
        }
        Self::from_names(names, nodes, rng)
    }

    /// Flips one bit of a file; says whether there is such a byte.
    pub fn flip_bit(&self, name: &str, byte: usize, bit: u32) -> bool {
        let mut state = self.state();
        let Some(id) = state.names.get(name).copied() else { return false };
        let Some(node) = state.nodes.get_mut(id) else { return false };
        match (node.now.get_mut(byte), node.durable.get_mut(byte)) {
            (Some(now), Some(durable)) => {
                *now ^= 1 << (bit % 8);
                *durable = *now;
                true
            }
            _ => false,
        }
    }

    /// Replaces a file by one with these bytes, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.nodes.len();
        state.nodes.push(Node { now: bytes.clone(), durable: bytes, pending: Vec::new() });
        state.names.insert(name.into(), id);
        state.durable_names.insert(name.into(), id);
    }

    /// The bytes of a file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.nodes.get(*state.names.get(name)?).map(|node| node.now.clone())
    }

    /// A disk of its own with the same files.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state();
        Self::from_names(state.names.clone(), state.nodes.clone(), state.rng.clone())
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    for (to, from) in file.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

impl State {
    /// Counts a reading operation, and fails it if that is planned: at once, or later (`true`).
    fn read_operation(&mut self) -> io::Result<bool> {
        let n = self.reads;
        self.reads += 1;
        match self.fault {
            Some(Fault::ReadError(at)) if n == at && self.rng.chance(500_000) => Ok(true),
            Some(Fault::ReadError(at)) if n == at => Err(io::Error::other("input/output error")),
            _ => Ok(false),
        }
    }

    /// Counts an operation, and fails it if that is planned.
    fn operation(&mut self, reserves: bool) -> io::Result<()> {
        let n = self.operations;
        self.operations += 1;
        match self.fault {
            Some(Fault::PowerLoss(at)) if n >= at => Err(io::Error::other("the machine has lost power")),
            Some(Fault::Error(at)) if n == at => Err(io::Error::other("input/output error")),
            Some(Fault::Full(at)) if n >= at && reserves => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn write(&mut self, id: usize, mut offset: usize, bytes: &[u8]) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        put(&mut node.now, offset, bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_sector = SECTOR_BYTES - offset % SECTOR_BYTES;
            let (sector, later) = rest.split_at(in_sector.min(rest.len()));
            node.pending.push((offset, sector.to_vec()));
            offset += sector.len();
            rest = later;
        }
    }
}

/// Reads so much, then fails if it is told to.
struct SimReader {
    bytes: io::Cursor<Vec<u8>>,
    fails: bool,
}

impl Read for SimReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 if self.fails => Err(io::Error::other("input/output error")),
            n => Ok(n),
        }
    }
}

/// A file on a simulated disk.
#[derive(Debug)]
pub struct SimFile {
    files: SimFiles,
    id: usize,
}

impl File for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.files.state();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let length = state.nodes.get(self.id).ok_or(io::ErrorKind::NotFound)?.now.len();
        let result = state.operation(offset + bytes.len() > length);
        let done = match &result {
            Ok(()) => bytes.len(),
            Err(_) if matches!(state.fault, Some(Fault::PowerLoss(_))) => 0,
            Err(_) => state.rng.below(bytes.len() as u64) as usize,
        };
        state.write(self.id, offset, bytes.get(..done).unwrap_or_default());
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.files.state();
        let result = state.operation(false);
        let lost = result.is_err() && !matches!(state.fault, Some(Fault::PowerLoss(_)));
        if let Some(node) = state.nodes.get_mut(self.id) {
            if result.is_ok() {
                // What an earlier failed sync lost stays lost: only what is pending now is written.
                for (offset, sector) in core::mem::take(&mut node.pending) {
                    put(&mut node.durable, offset, &sector);
                }
            } else if lost {
                node.pending.clear();
            }
        }
        result
    }
}

impl Files for SimFiles {
    type File = SimFile;

    fn salt(&self) -> io::Result<u32> {
        Ok(self.state().salts.next_u64() as u32)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        if state.read_operation()? {
            return Err(io::Error::other("input/output error"));
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.bytes(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let fails = self.state().read_operation()?;
        let mut bytes = self.bytes(name).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            let kept = self.state().rng.below(bytes.len() as u64) as usize;
            bytes.truncate(kept);
        }
        Ok(Box::new(SimReader { bytes: io::Cursor::new(bytes), fails }))
    }

    fn create(&self, name: &str, reserved_bytes: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        state.operation(true)?;
        let zeros = alloc::vec![0; usize::try_from(reserved_bytes).map_err(io::Error::other)?];
        let id = state.nodes.len();
        state.nodes.push(Node { now: zeros.clone(), durable: zeros, pending: Vec::new() });
        state.change_names(NameChange::Insert(name.to_string(), id));
        Ok(SimFile { files: self.clone(), id })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.operation(false)?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { files: self.clone(), id })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(false)?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_names(NameChange::Rename(from.to_string(), to.to_string(), id));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(false)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Remove(name.to_string()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation(false)?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }
}
