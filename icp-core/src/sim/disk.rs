//! What a host keeps over a crash.

/// A disk of a host; a handle that the host's machine shares with the world.
///
/// What a write, a sync and a fault mean is the disk's own business; the world only takes it through power losses.
pub trait Disk {
    /// The disk after a power loss: what was not synced may be gone, or there in part. Handles to the disk before
    /// are of no use afterwards.
    #[must_use]
    fn power_loss(&self) -> Self;
}

/// A host that keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDisk;

impl Disk for NoDisk {
    fn power_loss(&self) -> Self {
        Self
    }
}
