//! Numbers by topology domain.

use alloc::vec::Vec;

use smallvec::SmallVec;

/// A number for each domain of some topology keys; 0 where nothing was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Domains {
    columns: SmallVec<[(usize, Vec<i64>); 2]>,
    /// How often something was added, less how often it was taken away.
    pub(crate) entries: i64,
}

impl Domains {
    /// Adds to a domain of a column; `times` is the number of entries that this is for.
    pub(crate) fn add(&mut self, column: usize, domain: u32, amount: i64, times: i64) {
        let at = match self.columns.iter().position(|(c, _)| *c == column) {
            Some(at) => at,
            None => {
                self.columns.push((column, Vec::new()));
                self.columns.len() - 1
            }
        };
        let Some((_, list)) = self.columns.get_mut(at) else { return };
        let domain = domain as usize;
        if list.len() <= domain {
            list.resize(domain + 1, 0);
        }
        if let Some(n) = list.get_mut(domain) {
            *n = n.saturating_add(amount);
            self.entries += times;
        }
    }

    /// The number of a domain of a column.
    pub(crate) fn get(&self, column: usize, domain: u32) -> i64 {
        let list = self.columns.iter().find(|(c, _)| *c == column).map(|(_, list)| list);
        list.and_then(|l| l.get(domain as usize)).copied().unwrap_or(0)
    }

    /// The columns with their numbers by domain.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (usize, &[i64])> {
        self.columns.iter().map(|(column, list)| (*column, list.as_slice()))
    }
}
