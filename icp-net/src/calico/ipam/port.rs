//! Where blocks are kept.

use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;

use super::{Block, Write};

/// Why blocks could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another writer was faster: the block has not the expected sequence number. Load again and plan anew.
    #[error("block {block} was changed by another writer")]
    Conflict {
        /// The block.
        block: IpNet,
    },
    /// What stands there is no block.
    #[error("{what}: {why}")]
    Corrupt {
        /// Where.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store cannot be reached; whether a write was made is unknown.
    #[error("{what}: {why}")]
    Unavailable {
        /// What was done.
        what: String,
        /// Why it failed.
        why: String,
    },
}

/// Where blocks are kept: files of one node, or objects that the nodes of a cluster share.
pub trait BlockStore: Send {
    /// All blocks.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Unavailable`].
    fn load(&mut self) -> Result<Vec<Block>, StoreError>;

    /// Makes one change if the block still has the expected sequence number, durably.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn write(&mut self, change: &Write) -> Result<(), StoreError>;
}
