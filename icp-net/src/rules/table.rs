//! Tables, chains, rules, sets and elements.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Expr, Type, Value};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// The word `nft` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

/// The name of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// The family.
    pub family: Family,
    /// The name.
    pub name: String,
}

/// A table: what one owner keeps in the kernel. Nobody else writes to it, and it writes to no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub id: TableId,
    /// Its sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { id: TableId { family, name: name.into() }, sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// Adds a set, or puts it in the place of the one with its name.
    pub fn set(&mut self, set: Set) -> &mut Self {
        self.sets.insert(set.spec.name.clone(), set);
        self
    }

    /// Adds a chain, or puts it in the place of the one with its name.
    pub fn chain(&mut self, chain: Chain) -> &mut Self {
        self.chains.insert(chain.name.clone(), chain);
        self
    }
}

/// Where packets come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// On arrival, before routing.
    Prerouting,
    /// Before delivery to this machine.
    Input,
    /// When forwarded.
    Forward,
    /// When made on this machine.
    Output,
    /// Before departure.
    Postrouting,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainType {
    /// See every packet.
    Filter,
    /// See the first packet of each connection, and translate.
    Nat,
}

/// How a chain hangs on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainType,
    /// The hook.
    pub hook: Hook,
    /// Its place among the chains of the hook: lower is earlier. -100 is destination translation, 100 source
    /// translation, 0 filter, -200 connection tracking.
    pub priority: i32,
    /// Drop what no rule decided; else accept.
    pub drop_by_default: bool,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where it hangs; `None` for a chain that others jump to.
    pub base: Option<BaseChain>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that others jump to.
    #[must_use]
    pub fn regular(name: &str, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, rules }
    }

    /// A chain on a hook, that accepts what no rule decides.
    #[must_use]
    pub fn base(name: &str, kind: ChainType, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        let base = BaseChain { kind, hook, priority, drop_by_default: false };
        Self { name: name.into(), base: Some(base), rules }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its instructions.
    pub exprs: Vec<Expr>,
    /// Words for people, shown by `nft list`.
    pub comment: String,
}

impl Rule {
    /// A number that two rules share if they are the same. It is written beside the rule in the kernel, so that a
    /// restart can tell what stands there without reading instructions back.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        use core::hash::BuildHasher;
        foldhash::quality::FixedState::with_seed(0).hash_one(self)
    }
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Done with this base chain; later ones still see the packet.
    Accept,
    /// Dropped for good.
    Drop,
    /// Go on with the next rule.
    Continue,
    /// Back to the chain that jumped here.
    Return,
    /// Run a chain, then come back.
    Jump(String),
    /// Run a chain instead of the rest of this one.
    Goto(String),
}

/// What a set's elements carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// Nothing.
    None,
    /// A value.
    Value(Type),
    /// A verdict.
    Verdict,
}

/// The definition of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// The type of its keys.
    pub key: Type,
    /// What its elements carry.
    pub data: DataType,
    /// Keys are ranges.
    pub interval: bool,
    /// The packet path changes it; its elements are then never compared or swept.
    pub dynamic: bool,
    /// How long elements stay by default, in milliseconds; 0 for ever. A dynamic set needs one.
    pub timeout_ms: u64,
    /// How many elements it may have; 0 for no limit (never for a dynamic set).
    pub size: u32,
}

impl SetSpec {
    /// A set of single keys.
    #[must_use]
    pub fn new(name: &str, key: impl Into<Type>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: DataType::None,
            interval: false,
            dynamic: false,
            timeout_ms: 0,
            size: 0,
        }
    }

    /// A map to values.
    #[must_use]
    pub fn map(name: &str, key: impl Into<Type>, data: impl Into<Type>) -> Self {
        Self { data: DataType::Value(data.into()), ..Self::new(name, key) }
    }

    /// A map to verdicts.
    #[must_use]
    pub fn verdict_map(name: &str, key: impl Into<Type>) -> Self {
        Self { data: DataType::Verdict, ..Self::new(name, key) }
    }

    /// The same with ranges as keys.
    #[must_use]
    pub fn intervals(self) -> Self {
        Self { interval: true, ..self }
    }

    /// The same, changed by the packet path.
    #[must_use]
    pub fn dynamic(self, timeout_ms: u64, size: u32) -> Self {
        Self { dynamic: true, timeout_ms, size, ..self }
    }
}

/// The key of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The key, or the lower end of the range.
    pub value: Value,
    /// The upper end, included; `None` for a single key.
    pub end: Option<Value>,
}

impl From<Value> for Key {
    fn from(value: Value) -> Self {
        Self { value, end: None }
    }
}

/// What an element carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing.
    None,
    /// A value.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
}

/// A set or map with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its definition.
    pub spec: SetSpec,
    /// Its elements.
    pub elements: BTreeMap<Key, Data>,
}

impl From<SetSpec> for Set {
    fn from(spec: SetSpec) -> Self {
        Self { spec, elements: BTreeMap::new() }
    }
}
