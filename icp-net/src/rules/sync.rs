//! Mark and sweep: from what stands in the kernel to what should.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{BaseChain, Batch, Change, Data, Key, SetSpec, Table};

/// A chain as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSnapshot {
    /// Where it hangs.
    pub base: Option<BaseChain>,
    /// The fingerprints of its rules, in order; `None` for a rule that has none, which is foreign.
    pub rules: Vec<Option<u64>>,
}

/// A set as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSnapshot {
    /// Its definition, or `None` if it is of a sort that this crate does not make.
    pub spec: Option<SetSpec>,
    /// Its elements; empty for a dynamic set.
    pub elements: BTreeMap<Key, Data>,
}

/// A table as it was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its sets.
    pub sets: BTreeMap<String, SetSnapshot>,
    /// Its chains.
    pub chains: BTreeMap<String, ChainSnapshot>,
}

/// What a kernel would report of `table`.
impl From<&Table> for Snapshot {
    fn from(table: &Table) -> Self {
        let set = |s: &super::Set| SetSnapshot { spec: Some(s.spec.clone()), elements: s.elements.clone() };
        let chain = |c: &super::Chain| ChainSnapshot {
            base: c.base,
            rules: c.rules.iter().map(|r| Some(r.fingerprint())).collect(),
        };
        Self {
            sets: table.sets.iter().map(|(n, s)| (n.clone(), set(s))).collect(),
            chains: table.chains.iter().map(|(n, c)| (n.clone(), chain(c))).collect(),
        }
    }
}

/// The changes that turn `observed` into `desired`; none if they agree.
///
/// Elements and chains are compared one by one. If a set or base chain that is there has another definition, the
/// whole table is made anew, because the kernel cannot change definitions; in one transaction, so that packets see
/// either the old table or the new one.
///
/// ```
/// use icp_net::rules::{Family, Snapshot, Table, sync};
/// let table = Table::new(Family::Ip, "mine");
/// assert!(!sync(&table, None).is_empty());
/// assert!(sync(&table, Some(&Snapshot::from(&table))).is_empty());
/// ```
#[must_use]
pub fn sync(desired: &Table, observed: Option<&Snapshot>) -> Batch {
    let mut batch = Batch::new();
    let empty = Snapshot::default();
    let observed = match observed {
        Some(observed) if compatible(desired, observed) => observed,
        other => {
            if other.is_some() {
                batch.changes.push(Change::DeleteTable(desired.id.clone()));
            }
            batch.changes.push(Change::AddTable(desired.id.clone()));
            &empty
        }
    };
    let id = &desired.id;
    for (name, set) in &desired.sets {
        if !observed.sets.contains_key(name) {
            batch.changes.push(Change::AddSet(id.clone(), set.spec.clone()));
        }
    }
    // Chains first without rules, because verdict elements and rules may name any of them.
    for (name, chain) in &desired.chains {
        if !observed.chains.contains_key(name) {
            batch
                .changes
                .push(Change::AddChain(id.clone(), super::Chain { rules: Vec::new(), ..chain.clone() }));
        }
    }
    let delete = |batch: &mut Batch, spec: &SetSpec, gone: Vec<(Key, Data)>| {
        if !gone.is_empty() {
            batch.changes.push(Change::DeleteElements(id.clone(), spec.clone(), gone));
        }
    };
    for (name, set) in &desired.sets {
        if set.spec.dynamic {
            continue;
        }
        let old = observed.sets.get(name).map(|s| &s.elements);
        let differs = |key: &Key, data: &Data| old.and_then(|old| old.get(key)) != Some(data);
        let gone = old.into_iter().flatten().filter(|(k, d)| set.elements.get(*k) != Some(*d));
        delete(&mut batch, &set.spec, gone.map(|(k, d)| (k.clone(), d.clone())).collect());
        let new: Vec<_> = set.elements.iter().filter(|(k, d)| differs(k, d)).collect();
        if !new.is_empty() {
            let new = new.into_iter().map(|(k, d)| (k.clone(), d.clone())).collect();
            batch.changes.push(Change::AddElements(id.clone(), set.spec.clone(), new));
        }
    }
    for (name, chain) in &desired.chains {
        let want = chain.rules.iter().map(|r| Some(r.fingerprint()));
        let have = observed.chains.get(name).map_or(&[][..], |c| &c.rules);
        if !want.eq(have.iter().copied()) {
            if !have.is_empty() {
                batch.changes.push(Change::FlushChain(id.clone(), name.clone()));
            }
            batch.add_rules(id, chain);
        }
    }
    let foreign_chains: Vec<_> =
        observed.chains.keys().filter(|n| !desired.chains.contains_key(*n)).collect();
    for name in &foreign_chains {
        batch.changes.push(Change::FlushChain(id.clone(), (*name).clone()));
    }
    for (name, set) in observed.sets.iter().filter(|(n, _)| !desired.sets.contains_key(*n)) {
        if let Some(spec) = &set.spec {
            let gone = set.elements.iter().map(|(k, d)| (k.clone(), d.clone())).collect();
            delete(&mut batch, spec, gone);
        }
        batch.changes.push(Change::DeleteSet(id.clone(), name.clone()));
    }
    for name in foreign_chains {
        batch.changes.push(Change::DeleteChain(id.clone(), name.clone()));
    }
    batch
}

fn compatible(desired: &Table, observed: &Snapshot) -> bool {
    let sets = desired
        .sets
        .iter()
        .all(|(name, set)| observed.sets.get(name).is_none_or(|old| old.spec.as_ref() == Some(&set.spec)));
    let chains = desired
        .chains
        .iter()
        .all(|(name, chain)| observed.chains.get(name).is_none_or(|old| old.base == chain.base));
    let known = observed.sets.values().all(|s| s.spec.is_some());
    sets && chains && known
}
