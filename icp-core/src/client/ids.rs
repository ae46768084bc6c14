//! Ids of requests, chosen by machines.

use super::RequestId;

/// How many low bits of an id count within its block.
const BLOCK_BITS: u32 = 40;

/// Where a component's request ids come from. Its parts (informers, electors) take a block each, so that an id
/// tells whose request it is.
///
/// ```
/// use icp_core::client::RequestIds;
/// let mut ids = RequestIds::new();
/// let mut part = ids.block();
/// let id = part.next_id();
/// assert!(part.owns(id));
/// assert!(!part.owns(ids.next_id()));
/// ```
#[derive(Clone, Debug)]
pub struct RequestIds {
    own: IdBlock,
    blocks: u64,
}

/// A block of 2^40 request ids that belongs to one part of a component.
#[derive(Clone, Debug)]
pub struct IdBlock {
    block: u64,
    next: u64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestIds {
    /// No id is taken yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { own: IdBlock { block: 0, next: 1 }, blocks: 0 }
    }

    /// An id that was never given out.
    pub const fn next_id(&mut self) -> RequestId {
        self.own.next_id()
    }

    /// A block of ids that was never given out.
    pub const fn block(&mut self) -> IdBlock {
        self.blocks += 1;
        IdBlock { block: self.blocks, next: 1 }
    }
}

impl IdBlock {
    /// An id that was never given out.
    pub const fn next_id(&mut self) -> RequestId {
        let id = (self.block << BLOCK_BITS) | self.next;
        self.next += 1;
        id
    }

    /// Whether `id` is of this block.
    #[must_use]
    pub const fn owns(&self, id: RequestId) -> bool {
        id >> BLOCK_BITS == self.block
    }

    /// The number of the block: the same for all its ids, see [`block_of`].
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.block
    }
}

/// The number of the block that `id` is of; 0 for the ids that a component took for itself.
#[must_use]
pub const fn block_of(id: RequestId) -> u64 {
    id >> BLOCK_BITS
}
