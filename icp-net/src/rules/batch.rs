//! Changes to tables, as data: performed by the kernel in one transaction, or on a [`Ruleset`] in memory.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Chain, Data, Key, Rule, Set, SetSpec, Table, TableId};

/// One change. Order matters: a chain must be there before a verdict names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Add a table unless it is there.
    AddTable(TableId),
    /// Delete a table with all that is in it.
    DeleteTable(TableId),
    /// Add a set without elements.
    AddSet(TableId, SetSpec),
    /// Delete a set that no rule uses.
    DeleteSet(TableId, String),
    /// Add elements; one that is there already must have the same datum.
    AddElements(TableId, SetSpec, Vec<(Key, Data)>),
    /// Delete elements that are there.
    DeleteElements(TableId, SetSpec, Vec<(Key, Data)>),
    /// Add a chain without rules.
    AddChain(TableId, Chain),
    /// Add a rule to the end of a chain.
    AddRule(TableId, String, Rule),
    /// Delete all rules of a chain.
    FlushChain(TableId, String),
    /// Delete a chain that has no rules and that nothing names.
    DeleteChain(TableId, String),
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes in order.
    pub changes: Vec<Change>,
}

impl Batch {
    /// No changes.
    #[must_use]
    pub const fn new() -> Self {
        Self { changes: Vec::new() }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many objects (tables, chains, rules, sets, elements) it writes or deletes.
    #[must_use]
    pub fn writes(&self) -> usize {
        let one = |c: &Change| match c {
            Change::AddElements(_, _, e) | Change::DeleteElements(_, _, e) => e.len(),
            _ => 1,
        };
        self.changes.iter().map(one).sum()
    }

    /// A whole chain: the chain, then its rules.
    pub fn add_chain_with_rules(&mut self, table: &TableId, chain: &Chain) {
        let empty = Chain { rules: Vec::new(), ..chain.clone() };
        self.changes.push(Change::AddChain(table.clone(), empty));
        self.add_rules(table, chain);
    }

    /// The rules of a chain that is there.
    pub fn add_rules(&mut self, table: &TableId, chain: &Chain) {
        let rules = chain.rules.iter().map(|r| Change::AddRule(table.clone(), chain.name.clone(), r.clone()));
        self.changes.extend(rules);
    }
}

/// Why changes could not be made. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// What a change names is not there.
    #[error("{what} {name:?} does not exist")]
    Missing {
        /// The sort of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What a change adds is there already.
    #[error("{what} {name:?} exists")]
    Exists {
        /// The sort of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What a change deletes is still used.
    #[error("{what} {name:?} is in use")]
    Busy {
        /// The sort of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A key or datum has not the length of its type.
    #[error("an element of {set:?} has the wrong length")]
    Length {
        /// The set.
        set: String,
    },
}

/// Tables in memory: what a kernel would hold.
///
/// ```
/// use icp_net::rules::{Batch, Change, Family, Ruleset, Table};
/// let table = Table::new(Family::Ip, "mine");
/// let mut kernel = Ruleset::default();
/// kernel.apply(&Batch { changes: vec![Change::AddTable(table.id.clone())] })?;
/// assert_eq!(kernel.tables[&table.id], table);
/// # Ok::<(), icp_net::rules::BatchError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: BTreeMap<TableId, Table>,
}

impl Ruleset {
    /// Makes all changes, or none.
    ///
    /// # Errors
    /// [`BatchError`] for the first change that a kernel would refuse.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let mut next = self.clone();
        for change in &batch.changes {
            next.change(change)?;
        }
        *self = next;
        Ok(())
    }

    fn table(&mut self, id: &TableId) -> Result<&mut Table, BatchError> {
        let missing = || BatchError::Missing { what: "table", name: id.name.clone() };
        self.tables.get_mut(id).ok_or_else(missing)
    }

    fn change(&mut self, change: &Change) -> Result<(), BatchError> {
        match change {
            Change::AddTable(id) => {
                self.tables.entry(id.clone()).or_insert_with(|| Table::new(id.family, &id.name));
            }
            Change::DeleteTable(id) => {
                self.table(id)?;
                self.tables.remove(id);
            }
            Change::AddSet(id, spec) => {
                let table = self.table(id)?;
                if table.sets.contains_key(&spec.name) {
                    return Err(exists("set", &spec.name));
                }
                table.set(Set::from(spec.clone()));
            }
            Change::DeleteSet(id, name) => {
                let table = self.table(id)?;
                let used = table.chains.values().flat_map(|c| &c.rules).flat_map(|r| &r.exprs);
                if used.clone().any(|e| set_of(e) == Some(name.as_str())) {
                    return Err(BatchError::Busy { what: "set", name: name.clone() });
                }
                table.sets.remove(name).ok_or_else(|| missing("set", name))?;
            }
            Change::AddElements(id, SetSpec { name, .. }, elements) => {
                let table = self.table(id)?;
                let set = table.sets.get_mut(name).ok_or_else(|| missing("set", name))?;
                let len = set.spec.key.len_bytes();
                for (key, data) in elements {
                    if key.value.bytes().len() != usize::try_from(len).unwrap_or(0) {
                        return Err(BatchError::Length { set: name.clone() });
                    }
                    if let Data::Verdict(super::Verdict::Jump(to) | super::Verdict::Goto(to)) = data
                        && !table.chains.contains_key(to)
                    {
                        return Err(missing("chain", to));
                    }
                    if set.elements.insert(key.clone(), data.clone()).is_some_and(|old| old != *data) {
                        return Err(exists("element of", name));
                    }
                }
            }
            Change::DeleteElements(id, SetSpec { name, .. }, elements) => {
                let set = self.table(id)?.sets.get_mut(name).ok_or_else(|| missing("set", name))?;
                for (key, _) in elements {
                    set.elements.remove(key).ok_or_else(|| missing("element of", name))?;
                }
            }
            Change::AddChain(id, chain) => {
                let table = self.table(id)?;
                if table.chains.contains_key(&chain.name) {
                    return Err(exists("chain", &chain.name));
                }
                table.chain(Chain { rules: Vec::new(), ..chain.clone() });
            }
            Change::AddRule(id, name, rule) => {
                let table = self.table(id)?;
                for expr in &rule.exprs {
                    if let Some(set) = set_of(expr).filter(|s| !table.sets.contains_key(*s)) {
                        return Err(missing("set", set));
                    }
                }
                let chain = table.chains.get_mut(name).ok_or_else(|| missing("chain", name))?;
                chain.rules.push(rule.clone());
            }
            Change::FlushChain(id, name) => {
                let chain = self.table(id)?.chains.get_mut(name).ok_or_else(|| missing("chain", name))?;
                chain.rules.clear();
            }
            Change::DeleteChain(id, name) => {
                let table = self.table(id)?;
                let named = |d: &Data| matches!(d, Data::Verdict(super::Verdict::Jump(to) | super::Verdict::Goto(to)) if to == name);
                // Small maps only: the large ones carry values.
                let verdicts = table.sets.values().filter(|s| s.spec.data == super::DataType::Verdict);
                if verdicts.flat_map(|s| s.elements.values()).any(named) {
                    return Err(BatchError::Busy { what: "chain", name: name.clone() });
                }
                table.chains.remove(name).ok_or_else(|| missing("chain", name))?;
            }
        }
        Ok(())
    }
}

fn missing(what: &'static str, name: &str) -> BatchError {
    BatchError::Missing { what, name: name.into() }
}

fn exists(what: &'static str, name: &str) -> BatchError {
    BatchError::Exists { what, name: name.into() }
}

fn set_of(expr: &super::Expr) -> Option<&str> {
    use super::Expr;
    match expr {
        Expr::Lookup { set, .. }
        | Expr::Map { set, .. }
        | Expr::VerdictMap { set, .. }
        | Expr::Dynset { set, .. } => Some(set),
        _ => None,
    }
}
