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

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// From this operation on (counted from 0) nothing is done any more: the machine has lost power.
    PowerLoss(u64),
    /// This operation fails with an input/output error; if it is a sync, what was pending is lost, and later syncs
    /// succeed (as Linux does).
    Error(u64),
    /// From this operation on no space can be reserved.
    Full(u64),
}

#[derive(Clone, Debug, Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, by sector.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The names after each directory operation since the last sync of the directory.
    pending_names: Vec<BTreeMap<String, usize>>,
    operations: u64,
    fault: Option<Fault>,
    rng: Rng,
}

/// A directory on a simulated disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimFiles(Arc<Mutex<State>>);

impl SimFiles {
    /// An empty directory; `seed` decides what a crash leaves.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_names(BTreeMap::new(), Vec::new(), Rng::new(seed))
    }

    fn from_names(names: BTreeMap<String, usize>, nodes: Vec<Node>, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes,
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            operations: 0,
            fault: None,
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

    /// Plans what goes wrong; `None` mends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// The disk after a power loss: of what was not synced, some sectors and some directory operations are there.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        let mut rng = Rng::new(state.rng.next_u64());
        let kept = rng.below(state.pending_names.len() as u64 + 1) as usize;
        let names = match kept.checked_sub(1).and_then(|i| state.pending_names.get(i)) {
            Some(names) => names.clone(),
            None => state.durable_names.clone(),
        };
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

    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        change(&mut self.names);
        let names = self.names.clone();
        self.pending_names.push(names);
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
        state.operation(false)?;
        let Some(node) = state.nodes.get_mut(self.id) else { return Err(io::ErrorKind::NotFound.into()) };
        let mut offset = usize::try_from(offset).map_err(io::Error::other)?;
        put(&mut node.now, offset, bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_sector = SECTOR_BYTES - offset % SECTOR_BYTES;
            let (sector, later) = rest.split_at(in_sector.min(rest.len()));
            node.pending.push((offset, sector.to_vec()));
            offset += sector.len();
            rest = later;
        }
        Ok(())
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

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let state = self.state();
        let id = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = state.nodes.get(*id).map(|n| n.now.clone()).unwrap_or_default();
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn create(&self, name: &str, reserved_bytes: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        state.operation(true)?;
        let zeros = alloc::vec![0; usize::try_from(reserved_bytes).map_err(io::Error::other)?];
        let id = state.nodes.len();
        state.nodes.push(Node { now: zeros.clone(), durable: zeros, pending: Vec::new() });
        state.rename(|names| {
            names.insert(name.to_string(), id);
        });
        Ok(SimFile { files: self.clone(), id })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let id = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { files: self.clone(), id })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(false)?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(|names| {
            names.remove(from);
            names.insert(to.to_string(), id);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(false)?;
        state.rename(|names| {
            names.remove(name);
        });
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
