//! Links between hosts, and what they do to what travels over them.

use alloc::collections::{BTreeMap, BTreeSet};

use super::HostId;
use crate::base::{Duration, Rng};

/// What a link does. Chances are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// Shortest time on the way.
    pub latency_min: Duration,
    /// Longest time on the way, without a spike.
    pub latency_max: Duration,
    /// How often something takes `spike` longer.
    pub spike_per_million: u32,
    /// How much longer.
    pub spike: Duration,
    /// How often a packet is lost; what a stream carries is sent again and comes later.
    pub loss_per_million: u32,
    /// How often a packet comes twice.
    pub duplicate_per_million: u32,
    /// How often a packet may be overtaken by those behind it.
    pub reorder_per_million: u32,
}

impl LinkModel {
    /// A local network that works.
    pub const GOOD: Self = Self {
        latency_min: Duration::from_micros(150),
        latency_max: Duration::from_micros(900),
        spike_per_million: 0,
        spike: Duration::from_millis(200),
        loss_per_million: 0,
        duplicate_per_million: 0,
        reorder_per_million: 0,
    };

    /// A draw of the time on the way, and whether it was a spike.
    pub fn latency(&self, rng: &mut Rng) -> (Duration, bool) {
        let range = self.latency_max.saturating_sub(self.latency_min).as_micros();
        let spread = rng.below(u64::try_from(range).unwrap_or(u64::MAX).saturating_add(1));
        let usual = self.latency_min + Duration::from_micros(spread);
        let spike = self.spike_per_million > 0 && rng.chance(self.spike_per_million);
        (if spike { usual + self.spike } else { usual }, spike)
    }
}

impl Default for LinkModel {
    fn default() -> Self {
        Self::GOOD
    }
}

/// All links: each ordered pair of hosts is one, and may be cut alone.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// The link between two hosts for which nothing else was said.
    pub usual: LinkModel,
    special: BTreeMap<(HostId, HostId), LinkModel>,
    cut: BTreeSet<(HostId, HostId)>,
}

impl Links {
    /// Says what the link from `from` to `to` does.
    pub fn set(&mut self, from: HostId, to: HostId, model: LinkModel) {
        self.special.insert((from, to), model);
    }

    /// What the link from `from` to `to` does.
    #[must_use]
    pub fn model(&self, from: HostId, to: HostId) -> LinkModel {
        self.special.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    /// Cuts the way from `from` to `to`; the way back is another.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    /// Mends the way from `from` to `to`.
    pub fn mend(&mut self, from: HostId, to: HostId) {
        self.cut.remove(&(from, to));
    }

    /// Mends all ways, and makes all links usual ones.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.special.clear();
    }

    /// Whether the way from `from` to `to` is cut. A host always reaches itself.
    #[must_use]
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        from != to && self.cut.contains(&(from, to))
    }
}
