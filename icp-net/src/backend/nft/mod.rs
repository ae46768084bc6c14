//! nftables over netlink, without `nft` and without a C library.
//!
//! A [`Batch`] goes to the kernel as one transaction wherever the socket takes it whole; see [`Nft::apply`].
//!
//! ```no_run
//! use icp_net::backend::nft::Nft;
//! use icp_net::rules::{Family, Table, sync};
//! let desired = Table::new(Family::Ip, "mine");
//! let mut nft = Nft::open()?;
//! let observed = nft.snapshot(&desired.id)?;
//! nft.apply(&sync(&desired, observed.as_ref()))?;
//! # Ok::<(), icp_net::backend::netlink::NetlinkError>(())
//! ```

mod constants;
mod decode;
mod encode;
mod expr;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use self::constants::*;
use self::encode::{Messages, family, header};
use super::netlink::channel::outcome;
use super::netlink::{Channel, Encoder, Errno, Family as NetlinkFamily, NetlinkError, flag, messages};
use crate::rules::{Batch, Change, Data, Key, SetSnapshot, Snapshot, TableId};

const NLMSG_ERROR: u16 = 2;
/// The least room a message needs besides its elements.
const MESSAGE_BYTES_SPARE: usize = 64 * 1024;
/// How often a snapshot that another transaction broke into is taken again.
const SNAPSHOT_TRIES_MAX: usize = 8;

/// So few elements always come in one part.
const ONE_PART_ELEMENTS: usize = 16;

/// What was done for a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many transactions it took.
    pub transactions: usize,
    /// How many bytes of messages.
    pub bytes: usize,
}

/// A connection to nftables, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

impl Nft {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { channel: Channel::open(NetlinkFamily::Netfilter)? })
    }

    /// Makes the changes of a batch.
    ///
    /// A batch that fits into the socket's send buffer (8 MiB with rights on the machine, else about 400 KiB) is one
    /// transaction: it happens whole or not at all. A larger one is cut between its changes, in order; if a later
    /// part fails, the earlier ones stand, and the caller takes a [`Nft::snapshot`] to go on from.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] names the first change that was refused; [`NetlinkError::Overrun`] if the answers
    /// were lost, so that the outcome is unknown.
    pub fn apply(&mut self, batch: &Batch) -> Result<Applied, NetlinkError> {
        self.run(batch, None)
    }

    /// The same, if the kernel's generation is still `generation`; such a batch must fit into one transaction.
    ///
    /// # Errors
    /// As [`Nft::apply`]; `ERESTART` if any table of this network namespace changed since.
    pub fn apply_at(&mut self, batch: &Batch, generation: u32) -> Result<Applied, NetlinkError> {
        self.run(batch, Some(generation))
    }

    fn run(&mut self, batch: &Batch, generation: Option<u32>) -> Result<Applied, NetlinkError> {
        let mut done = Applied::default();
        let limit =
            self.channel.send_bytes_max().saturating_sub(MESSAGE_BYTES_SPARE).max(MESSAGE_BYTES_SPARE);
        let pieces: Vec<Cow<'_, Change>> = batch.changes.iter().flat_map(|c| split(c, limit)).collect();
        let mut rest = pieces.as_slice();
        while !rest.is_empty() {
            let mut transaction = Transaction::begin(&mut self.channel, generation);
            let mut taken = 0;
            for change in rest {
                let before = transaction.out.len();
                transaction.change(&mut self.channel, change);
                if transaction.out.len() > limit + MESSAGE_BYTES_SPARE / 2 && taken > 0 {
                    transaction.undo(before);
                    break;
                }
                taken += 1;
            }
            done.bytes += transaction.commit(&mut self.channel)?;
            done.transactions += 1;
            rest = rest.get(taken..).unwrap_or(&[]);
        }
        Ok(done)
    }

    /// Counts the transactions of this network namespace, whoever makes them.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn generation(&mut self) -> Result<u32, NetlinkError> {
        let about = "the nftables generation";
        let payload = self.channel.get((SUBSYSTEM << 8) | GETGEN, about, |e| header(e, 0, 0))?;
        decode::body(&payload)
            .find(|a| a.kind == 1)
            .and_then(|a| a.be32())
            .ok_or_else(|| NetlinkError::Malformed { object: about.into() })
    }

    /// The names of all tables of a family.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn tables(&mut self, of: crate::rules::Family) -> Result<Vec<String>, NetlinkError> {
        self.dump(
            GETTABLE,
            NEWTABLE,
            family(of),
            "tables",
            |_| {},
            |all: &mut Vec<String>, payload| {
                all.push(decode::table_name(payload));
            },
        )
    }

    /// What stands in a table; `None` if there is no such table.
    ///
    /// All parts are of one generation. Elements of sets that the packet path changes are left out.
    ///
    /// # Errors
    /// Any of [`NetlinkError`]; [`NetlinkError::Interrupted`] if others kept changing tables meanwhile.
    pub fn snapshot(&mut self, id: &TableId) -> Result<Option<Snapshot>, NetlinkError> {
        for _ in 0..SNAPSHOT_TRIES_MAX {
            let before = self.generation()?;
            let snapshot = self.snapshot_once(id)?;
            if self.generation()? == before {
                return Ok(snapshot);
            }
        }
        Err(NetlinkError::Interrupted { object: format!("table {}", id.name) })
    }

    fn snapshot_once(&mut self, id: &TableId) -> Result<Option<Snapshot>, NetlinkError> {
        if !self.tables(id.family)?.contains(&id.name) {
            return Ok(None);
        }
        let raw_family = family(id.family);
        let mut snapshot = Snapshot::default();
        let chains = self.dump(
            GETCHAIN,
            NEWCHAIN,
            raw_family,
            "chains",
            |_| {},
            |all: &mut Vec<_>, payload| {
                all.push(decode::chain(payload));
            },
        )?;
        let ours = chains.into_iter().filter(|(table, ..)| *table == id.name);
        snapshot.chains = ours.map(|(_, name, chain)| (name, chain)).collect();
        let in_table = |e: &mut Encoder| {
            e.str(RULE_TABLE, &id.name);
        };
        let rules =
            self.dump(GETRULE, NEWRULE, raw_family, "rules", in_table, |all: &mut Vec<_>, payload| {
                all.push(decode::rule(payload));
            })?;
        for (_, chain, fingerprint) in rules.into_iter().filter(|(table, ..)| *table == id.name) {
            if let Some(chain) = snapshot.chains.get_mut(&chain) {
                chain.rules.push(fingerprint);
            }
        }
        let in_table = |e: &mut Encoder| {
            e.str(SET_TABLE, &id.name);
        };
        let sets = self.dump(GETSET, NEWSET, raw_family, "sets", in_table, |all: &mut Vec<_>, payload| {
            all.extend(decode::set(payload));
        })?;
        for (_, name, spec) in sets.into_iter().filter(|(table, ..)| *table == id.name) {
            let elements = match &spec {
                Some(spec) if !spec.dynamic => {
                    self.elements(id, &name, spec.interval && spec.key.fields().len() == 1)?
                }
                _ => BTreeMap::new(),
            };
            snapshot.sets.insert(name, SetSnapshot { spec, elements });
        }
        Ok(Some(snapshot))
    }

    /// The elements of one set, those that the packet path made included.
    ///
    /// The kernel walks its hash table anew for each part of the answer, and skips elements if the table was resized
    /// in between, as it is some time after many were added. So the set is read until two readings agree.
    ///
    /// # Errors
    /// `ENOENT` if there is no such table or set; [`NetlinkError::Interrupted`] if no two readings agree.
    pub fn elements(
        &mut self,
        id: &TableId,
        set: &str,
        single_field_ranges: bool,
    ) -> Result<BTreeMap<Key, Data>, NetlinkError> {
        let mut last = self.elements_once(id, set, single_field_ranges)?;
        if last.len() <= ONE_PART_ELEMENTS {
            return Ok(last);
        }
        for _ in 0..SNAPSHOT_TRIES_MAX {
            let next = self.elements_once(id, set, single_field_ranges)?;
            if next == last {
                return Ok(next);
            }
            last = next;
        }
        Err(NetlinkError::Interrupted { object: format!("elements of {set}") })
    }

    fn elements_once(
        &mut self,
        id: &TableId,
        set: &str,
        single_field_ranges: bool,
    ) -> Result<BTreeMap<Key, Data>, NetlinkError> {
        let of_set = |e: &mut Encoder| {
            e.str(ELEM_LIST_TABLE, &id.name).str(ELEM_LIST_SET, set);
        };
        let about = format!("elements of {set}");
        let elements = self.dump(
            GETSETELEM,
            NEWSETELEM,
            family(id.family),
            &about,
            of_set,
            |all: &mut decode::Elements, payload| all.add(payload, single_field_ranges),
        )?;
        Ok(elements.finish())
    }

    fn dump<S: Default>(
        &mut self,
        get: u16,
        new: u16,
        family: u8,
        about: &str,
        body: impl Fn(&mut Encoder),
        mut on: impl FnMut(&mut S, &[u8]),
    ) -> Result<S, NetlinkError> {
        let write = |e: &mut Encoder| {
            header(e, family, 0);
            body(e);
        };
        self.channel.dump((SUBSYSTEM << 8) | get, about, write, S::default, |state, kind, payload| {
            if kind == (SUBSYSTEM << 8) | new {
                on(state, payload);
            }
        })
    }
}

/// A change whose elements may be more than one transaction can carry, cut into several.
fn split(change: &Change, limit_bytes: usize) -> Vec<Cow<'_, Change>> {
    /// More than an element of the widest key and datum takes.
    const ELEMENT_BYTES_MAX: usize = 320;
    let per_piece = (limit_bytes / ELEMENT_BYTES_MAX).max(1);
    match change {
        Change::AddElements(id, spec, all) if all.len() > per_piece => all
            .chunks(per_piece)
            .map(|c| Cow::Owned(Change::AddElements(id.clone(), spec.clone(), c.to_vec())))
            .collect(),
        Change::DeleteElements(id, spec, all) if all.len() > per_piece => all
            .chunks(per_piece)
            .map(|c| Cow::Owned(Change::DeleteElements(id.clone(), spec.clone(), c.to_vec())))
            .collect(),
        other => Vec::from([Cow::Borrowed(other)]),
    }
}

/// The messages of one transaction.
struct Transaction {
    out: Encoder,
    first_seq: u32,
    about: Vec<(u32, String)>,
}

impl Transaction {
    fn begin(channel: &mut Channel, generation: Option<u32>) -> Self {
        let mut out = Encoder::new();
        let first_seq = channel.next_seq();
        out.message(BATCH_BEGIN, flag::REQUEST, first_seq, |e| {
            header(e, 0, SUBSYSTEM);
            if let Some(generation) = generation {
                e.be32(BATCH_GENERATION, generation);
            }
        });
        Self { out, first_seq, about: Vec::new() }
    }

    fn change(&mut self, channel: &mut Channel, change: &Change) {
        let Self { out, about, .. } = self;
        Messages { out, seq: &mut || channel.next_seq(), about }.change(change);
    }

    fn undo(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// Ends the transaction, sends it, and reads what came of it.
    fn commit(mut self, channel: &mut Channel) -> Result<usize, NetlinkError> {
        if self.out.is_too_long() {
            let object = self.about.pop().map_or(String::new(), |(_, about)| about);
            return Err(NetlinkError::TooLong { object });
        }
        let last_seq = channel.next_seq();
        self.out.message(BATCH_END, flag::REQUEST, last_seq, |e| header(e, 0, SUBSYSTEM));
        // The kernel runs the batch inside `send` and reports every refusal before it returns. It acknowledges
        // nothing unasked, and not every kernel acknowledges the end of a batch: silence is success.
        let bytes = self.out.len();
        channel.drain();
        channel.send(self.out.bytes(), "a batch")?;
        while let Some(answer) = channel.receive("a batch")? {
            for (h, payload) in messages(answer) {
                if h.kind == NLMSG_ERROR && (self.first_seq..=last_seq).contains(&h.seq) {
                    let about = self.about.iter().find(|(seq, _)| *seq == h.seq);
                    outcome(h, payload, about.map_or("a batch", |(_, about)| about))?;
                }
            }
        }
        Ok(bytes)
    }
}

impl NetlinkError {
    /// Whether trying the same batch again cannot help: what it was computed from must be read anew.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        [Errno::ENOENT, Errno::EEXIST, Errno::ERESTART].iter().any(|e| self.is(*e))
    }
}
