//! What nodes have and what is taken, laid out so that all of them are scored in one sweep.
//!
//! A sweep gives the points of fit and balance of every node in floating point, and is exact: amounts are whole numbers
//! below 2^50, so sums and products are exact; a quotient is rounded to a whole number and put right by its remainder;
//! and where a score is so near a whole number that the rounding of a reciprocal could matter, the block is done again
//! with divisions. Rows with other amounts are left to the arithmetic of the plugins.

use alloc::vec::Vec;

use super::feed::Feed;
use super::rows::Rows;
use super::rules::Rules;
use crate::cache::{Cluster, Columns};
use crate::model::PodSpec;
use crate::plugins::{balanced, fit};

/// Rows that are scored together.
pub(super) const BLOCK: usize = 64;
/// Adding and subtracting it rounds to the nearest whole number.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// Added to a small whole number, it leaves that number in the low bits.
const LOW_BITS: f64 = 4_503_599_627_370_496.0;
/// The largest capacity that a sweep takes: a hundred times as much is still exact.
const CAPACITY_MAX: i64 = 1 << 45;
/// The largest load.
const LOAD_MAX: i64 = 1 << 50;
/// Reciprocals are trusted where a score is further than this from a whole number; their error is below 1e-12.
const NEAR: f64 = 1e-9;

type Block = [f64; BLOCK];

/// One number for each row of a block.
const fn zeros() -> Block {
    [0.0; BLOCK]
}

/// Capacity and load of a block of rows.
#[derive(Clone, Debug)]
struct Lanes {
    cpu: Block,
    memory: Block,
    inverse_cpu: Block,
    inverse_memory: Block,
    /// Infinite where no pod has room.
    used_cpu: Block,
    used_memory: Block,
    filled_cpu: Block,
    filled_memory: Block,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            cpu: [1.0; BLOCK],
            memory: [1.0; BLOCK],
            inverse_cpu: [1.0; BLOCK],
            inverse_memory: [1.0; BLOCK],
            used_cpu: [f64::INFINITY; BLOCK],
            used_memory: zeros(),
            filled_cpu: zeros(),
            filled_memory: zeros(),
        }
    }
}

/// What a pod asks for, as a sweep needs it.
struct Ask {
    cpu: f64,
    memory: f64,
    /// What must be free; nothing is ever below the lowest number but a full node.
    need_cpu: f64,
    need_memory: f64,
    filled_cpu: f64,
    filled_memory: f64,
    fit: f64,
    /// 0 if balance does not matter.
    balanced: f64,
}

/// The sheet.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet {
    blocks: Vec<Lanes>,
    /// How far it followed the feed.
    seen: u64,
    /// Rows whose amounts a sweep cannot take.
    odd: Rows,
}

fn round(x: f64) -> f64 {
    (x + ROUND) - ROUND
}

/// The free part in percent, rounded down; 0 if more than all is taken.
fn least(capacity: f64, inverse: f64, taken: f64) -> f64 {
    let free = capacity - taken;
    let scaled = free * 100.0;
    let q = round(scaled * inverse);
    let q = if scaled - q * capacity < 0.0 { q - 1.0 } else { q };
    if free < 0.0 { 0.0 } else { q }
}

impl Lanes {
    /// Scores a block: 0 for rows without room, one more than the points for others. With `EXACT`, divides as the plugin
    /// does. Says whether reciprocals may have been too rough.
    fn score<const EXACT: bool>(&self, ask: &Ask, out: &mut [i16; BLOCK]) -> bool {
        let mut totals = zeros();
        let mut rough = 0_u64;
        let lanes = self.cpu.iter().zip(&self.memory).zip(&self.inverse_cpu).zip(&self.inverse_memory);
        let taken =
            self.used_cpu.iter().zip(&self.used_memory).zip(&self.filled_cpu).zip(&self.filled_memory);
        for ((total, (((cpu, memory), i_cpu), i_memory)), (((u_cpu, u_memory), f_cpu), f_memory)) in
            totals.iter_mut().zip(lanes).zip(taken)
        {
            let room = (cpu - u_cpu >= ask.need_cpu) & (memory - u_memory >= ask.need_memory);
            let sum = least(*cpu, *i_cpu, f_cpu + ask.filled_cpu)
                + least(*memory, *i_memory, f_memory + ask.filled_memory);
            let mean = round(sum * 0.5 - 0.25);
            let part = |used: f64, have: f64, inverse: f64| {
                let f = if EXACT { used / have } else { used * inverse };
                if f > 1.0 { 1.0 } else { f }
            };
            let apart = part(u_cpu + ask.cpu, *cpu, *i_cpu) - part(u_memory + ask.memory, *memory, *i_memory);
            let balance = (1.0 - (apart * 0.5).abs()) * 100.0;
            let whole = round(balance);
            rough |= u64::from(room & ((balance - whole).abs() < NEAR));
            let whole = if whole > balance { whole - 1.0 } else { whole };
            let points = mean * ask.fit + whole * ask.balanced + 1.0;
            *total = if room { points } else { 0.0 };
        }
        for (out, total) in out.iter_mut().zip(&totals) {
            *out = (total + LOW_BITS).to_bits() as i16;
        }
        !EXACT && rough != 0 && ask.balanced != 0.0
    }
}

impl Sheet {
    /// Reads what changed.
    pub(super) fn catch_up(&mut self, cluster: &Cluster, feed: &Feed) {
        let columns = cluster.columns();
        match feed.since(self.seen) {
            Some(entries) if entries.len() <= columns.rows().saturating_mul(2).max(BLOCK) => {
                for entry in entries {
                    match entry.pod() {
                        Some(_) => self.load(columns, entry.row as usize),
                        None => self.set(columns, entry.row as usize),
                    }
                }
            }
            _ => (0..columns.rows()).for_each(|row| self.set(columns, row)),
        }
        self.seen = feed.end();
    }

    /// Whether it shows the present.
    pub(super) const fn is_present(&self, feed: &Feed) -> bool {
        self.seen == feed.end()
    }

    /// Reads a row anew.
    pub(super) fn set(&mut self, columns: &Columns, row: usize) {
        let (block, lane) = (row / BLOCK, row % BLOCK);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Lanes::default);
        }
        let Some(have) = columns.capacity.get(row) else { return };
        let Some(lanes) = self.blocks.get_mut(block) else { return };
        let put = |to: &mut Block, value: f64| {
            if let Some(slot) = to.get_mut(lane) {
                *slot = value;
            }
        };
        put(&mut lanes.cpu, have.cpu.max(1) as f64);
        put(&mut lanes.memory, have.memory.max(1) as f64);
        put(&mut lanes.inverse_cpu, 1.0 / have.cpu.max(1) as f64);
        put(&mut lanes.inverse_memory, 1.0 / have.memory.max(1) as f64);
        self.load(columns, row);
    }

    /// Reads what is taken on a row anew.
    pub(super) fn load(&mut self, columns: &Columns, row: usize) {
        let (block, lane) = (row / BLOCK, row % BLOCK);
        let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else { return };
        let Some(lanes) = self.blocks.get_mut(block) else { return };
        let there = columns.nodes.get(row).is_some_and(Option::is_some);
        let sound = [have.cpu, have.memory].iter().all(|c| (1..CAPACITY_MAX).contains(c))
            && [load.cpu, load.memory, load.filled_cpu, load.filled_memory]
                .iter()
                .all(|l| (0..LOAD_MAX).contains(l));
        let open = there && sound && load.pods < have.pods;
        let put = |to: &mut Block, value: f64| {
            if let Some(slot) = to.get_mut(lane) {
                *slot = value;
            }
        };
        put(&mut lanes.used_cpu, if open { load.cpu as f64 } else { f64::INFINITY });
        put(&mut lanes.used_memory, if open { load.memory as f64 } else { 0.0 });
        put(&mut lanes.filled_cpu, if open { load.filled_cpu as f64 } else { 0.0 });
        put(&mut lanes.filled_memory, if open { load.filled_memory as f64 } else { 0.0 });
        if there && !sound {
            self.odd.insert(row);
        } else {
            self.odd.remove(row);
        }
    }

    /// Whether a sweep takes the amounts of a pod.
    pub(super) fn takes(spec: &PodSpec) -> bool {
        [spec.requests.cpu, spec.requests.memory, spec.non_zero_cpu, spec.non_zero_memory]
            .iter()
            .all(|a| (0..LOAD_MAX).contains(a))
    }

    /// The points of fit and balance of every row: 0 where the pod has no room, one more than the points elsewhere.
    /// `None` if some are beyond what the index can hold.
    pub(super) fn sweep(
        &self,
        columns: &Columns,
        spec: &PodSpec,
        rules: &Rules,
        out: &mut Vec<i16>,
    ) -> Option<()> {
        let need = |asked: i64| if asked > 0 { asked as f64 } else { f64::MIN };
        let cares = balanced::cares(spec);
        let ask = Ask {
            cpu: spec.requests.cpu as f64,
            memory: spec.requests.memory as f64,
            need_cpu: need(spec.requests.cpu),
            need_memory: need(spec.requests.memory),
            filled_cpu: spec.non_zero_cpu as f64,
            filled_memory: spec.non_zero_memory as f64,
            fit: rules.fit as f64,
            balanced: if cares { rules.balanced as f64 } else { 0.0 },
        };
        out.resize(self.blocks.len() * BLOCK, 0);
        for (lanes, out) in self.blocks.iter().zip(out.as_chunks_mut().0) {
            if lanes.score::<false>(&ask, out) {
                lanes.score::<true>(&ask, out);
            }
        }
        let more = spec.requests.ephemeral > 0 || !spec.requests.scalars.is_empty();
        for (row, points) in out.iter_mut().enumerate().filter(|(_, p)| more && **p > 0) {
            if !fit::fits(columns, spec, row) {
                *points = 0;
            }
        }
        let mut odd = self.odd.next(0);
        while let Some(row) = odd {
            odd = self.odd.next(row + 1);
            if let Some(slot) = out.get_mut(row).filter(|_| fit::fits(columns, spec, row)) {
                *slot = i16::try_from(rules.local(columns, spec, row)?).ok()? + 1;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use icp_core::base::Rng;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Node, Pod};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A sweep gives what the plugins give, also where scores are whole numbers and amounts are odd.
        #[test]
        fn like_the_plugins(seed in any::<u64>()) {
            let mut rng = Rng::new(seed);
            let mut cluster = Cluster::default();
            let mut sheet = Sheet::default();
            let sizes = [0, 1, 3, 1000, 4000, 3_967, 1 << 30, 32 << 30, 7_812_345_678, 1 << 44, 1 << 46, i64::MAX];
            for n in 0..100 {
                let size = |rng: &mut Rng| sizes[rng.below(sizes.len() as u64) as usize];
                let node = Node::new(&format!("n{n}"), size(&mut rng), size(&mut rng), 1 + rng.below(4) as i64);
                let id = cluster.set_node(node);
                for p in 0..rng.below(4) {
                    let part = |rng: &mut Rng| match rng.below(4) {
                        0 => 0,
                        1 => rng.below(2000) as i64,
                        2 => 100 * rng.below(10) as i64,
                        _ => (rng.below(64) as i64) << 26,
                    };
                    let mut spec = PodSpec::asking(part(&mut rng), part(&mut rng));
                    spec.non_zero_cpu += rng.below(2) as i64 * 100;
                    cluster.assume(Pod::new(&format!("p{n}-{p}"), spec.into()), id);
                }
                sheet.set(cluster.columns(), id.row());
            }
            let mut rules = Rules { fit: 1 + rng.below(3) as i64, ..Rules::default() };
            rules.balanced = rng.below(3) as i64;
            let mut out = Vec::new();
            for _ in 0..20 {
                let spec = PodSpec::asking(50 * rng.below(40) as i64, (rng.below(40) as i64) << rng.below(28));
                sheet.sweep(cluster.columns(), &spec, &rules, &mut out).unwrap();
                for (id, _) in cluster.nodes() {
                    let fits = fit::fits(cluster.columns(), &spec, id.row());
                    let want = if fits { rules.local(cluster.columns(), &spec, id.row()).unwrap() + 1 } else { 0 };
                    prop_assert_eq!(i64::from(out[id.row()]), want, "{:?} {:?}", spec, cluster.node(id));
                }
            }
        }
    }
}
