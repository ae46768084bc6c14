//! What upstream servers said, for as long as they allow.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use icp_core::base::{Duration, Time};

use crate::dns::config::CacheConfig;
use crate::dns::wire::{Message, Name, Record, Section, rcode, rtype};

/// What an answer depends on. The name is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: Name,
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) recursion_desired: bool,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

/// An answer without what belongs to one exchange alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) rcode: u16,
    /// The upstream server checked the signatures.
    pub(super) authentic: bool,
    pub(super) records: Vec<(Section, Record)>,
}

/// What kind of answer is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Success,
    /// That something is not, or could not be found out.
    Denial,
}

#[derive(Debug)]
struct Item {
    answer: Arc<Answer>,
    kind: Kind,
    stored: Time,
    ttl_secs: u32,
    bytes: usize,
    /// When it was last used, in uses of the cache.
    used: u64,
}

/// A cache of bounded size; what was not used for longest goes first.
#[derive(Debug)]
pub(super) struct Cache {
    config: CacheConfig,
    /// The hash has a secret, since clients choose the keys.
    items: HashMap<Arc<Key>, Item, FixedState>,
    /// By last use.
    success: BTreeMap<u64, Arc<Key>>,
    denial: BTreeMap<u64, Arc<Key>>,
    bytes: usize,
    uses: u64,
    pub(super) evictions: [u64; 2],
}

/// Rough cost of what holds an item and a record, in bytes.
const ITEM_BYTES: usize = 256;
const RECORD_BYTES: usize = 128;

impl Cache {
    pub(super) fn new(config: CacheConfig, secret: u64) -> Self {
        Self {
            config,
            items: HashMap::with_hasher(FixedState::with_seed(secret)),
            success: BTreeMap::new(),
            denial: BTreeMap::new(),
            bytes: 0,
            uses: 0,
            evictions: [0; 2],
        }
    }

    pub(super) fn entries(&self, kind: Kind) -> usize {
        match kind {
            Kind::Success => self.success.len(),
            Kind::Denial => self.denial.len(),
        }
    }

    /// The answer and its age in seconds, if it may still be given.
    pub(super) fn get(&mut self, key: &Key, now: Time) -> Option<(Arc<Answer>, u32, Kind)> {
        let item = self.items.get_mut(key)?;
        let age = age_secs(item, now);
        if age >= item.ttl_secs {
            if age - item.ttl_secs >= self.config.stale_secs {
                self.remove(key);
            }
            return None;
        }
        self.uses += 1;
        let (old, kind, answer) = (item.used, item.kind, Arc::clone(&item.answer));
        item.used = self.uses;
        let uses = self.uses;
        let order = self.order(kind);
        if let Some(key) = order.remove(&old) {
            order.insert(uses, key);
        }
        Some((answer, age, kind))
    }

    /// An answer that is out of date by no more than is allowed. What could not be found out is none.
    pub(super) fn stale(&self, key: &Key, now: Time) -> Option<Arc<Answer>> {
        let item = self.items.get(key)?;
        let late = age_secs(item, now).saturating_sub(item.ttl_secs);
        (late < self.config.stale_secs && item.answer.rcode != rcode::SERVFAIL)
            .then(|| Arc::clone(&item.answer))
    }

    /// Keeps an answer, if it may be kept.
    pub(super) fn put(&mut self, key: &Key, answer: &Arc<Answer>, now: Time) {
        let Some((kind, ttl_secs)) = self.lifetime(key, answer) else { return };
        // A failure must not take the place of what may be given in its stead.
        if answer.rcode == rcode::SERVFAIL && self.stale(key, now).is_some() {
            return;
        }
        self.remove(key);
        let records =
            answer.records.iter().map(|(_, r)| RECORD_BYTES + r.data.len() + r.name.as_wire().len());
        let bytes = ITEM_BYTES + records.sum::<usize>();
        self.uses += 1;
        let (key, used) = (Arc::new(key.clone()), self.uses);
        self.order(kind).insert(used, Arc::clone(&key));
        let item = Item { answer: Arc::clone(answer), kind, stored: now, ttl_secs, bytes, used };
        self.items.insert(key, item);
        self.bytes += bytes;
        self.shrink();
    }

    /// How an answer counts and how long it may be kept, in seconds.
    fn lifetime(&self, key: &Key, answer: &Answer) -> Option<(Kind, u32)> {
        let of = |section| answer.records.iter().filter(move |(s, _)| *s == section).map(|(_, r)| r);
        let least = |section| of(section).map(|r: &Record| r.ttl_secs).min();
        let found = |r: &Record| key.rtype == rtype::ANY || r.rtype == key.rtype;
        let between = |ttl_secs: u32, (longest, shortest): (u32, u32)| ttl_secs.max(shortest).min(longest);
        match answer.rcode {
            rcode::NOERROR if of(Section::Answer).any(found) => {
                let ttl_secs = least(Section::Answer)?;
                Some((Kind::Success, between(ttl_secs, self.config.success_ttl_secs)))
            }
            rcode::NOERROR | rcode::NXDOMAIN => {
                // Without an SOA record nobody says how long (RFC 2308 §5).
                let soa = of(Section::Authority).find(|r| r.rtype == rtype::SOA)?;
                let minimum = soa.data.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
                let ttl_secs = least(Section::Answer).unwrap_or(u32::MAX).min(soa.ttl_secs).min(minimum);
                Some((Kind::Denial, between(ttl_secs, self.config.denial_ttl_secs)))
            }
            rcode::SERVFAIL if self.config.failure_ttl_secs > 0 => {
                Some((Kind::Denial, self.config.failure_ttl_secs))
            }
            _ => None,
        }
    }

    fn order(&mut self, kind: Kind) -> &mut BTreeMap<u64, Arc<Key>> {
        match kind {
            Kind::Success => &mut self.success,
            Kind::Denial => &mut self.denial,
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(item) = self.items.remove(key) {
            self.order(item.kind).remove(&item.used);
            self.bytes -= item.bytes;
        }
    }

    fn shrink(&mut self) {
        loop {
            let oldest = |order: &BTreeMap<u64, Arc<Key>>| order.first_key_value().map(|(used, _)| *used);
            let kind = if self.success.len() > self.config.success_max {
                Kind::Success
            } else if self.denial.len() > self.config.denial_max {
                Kind::Denial
            } else if self.bytes > self.config.bytes_max {
                match (oldest(&self.success), oldest(&self.denial)) {
                    (Some(a), Some(b)) if a < b => Kind::Success,
                    (_, Some(_)) => Kind::Denial,
                    _ => Kind::Success,
                }
            } else {
                return;
            };
            let Some((_, key)) = self.order(kind).pop_first() else { return };
            if let Some(item) = self.items.remove(&*key) {
                self.bytes -= item.bytes;
            }
            let [success, denial] = &mut self.evictions;
            *(if kind == Kind::Success { success } else { denial }) += 1;
        }
    }
}

fn age_secs(item: &Item, now: Time) -> u32 {
    let age: Duration = now.since(item.stored);
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

impl Answer {
    /// What a message says, with no TTL above `ttl_secs_max`.
    pub(super) fn of(message: Message, ttl_secs_max: u32) -> Self {
        let authentic = message.header.has(crate::dns::wire::Header::AUTHENTIC_DATA);
        let mut records = message.records;
        records.iter_mut().for_each(|(_, r)| r.ttl_secs = r.ttl_secs.min(ttl_secs_max));
        Self { rcode: message.header.rcode, authentic, records }
    }
}
