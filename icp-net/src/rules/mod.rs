//! A packet filter as data: tables, chains, sets, maps, rules; what a kernel holds, and how to change it.
//!
//! The instructions are those of nftables (`linux/netfilter/nf_tables.h`), so that a kernel runs what stands here one
//! to one ([`crate::backend`]).
//!
//! ```
//! use icp_net::rules::*;
//! let mut table = Table::new(Family::Ip, "example");
//! table.set(SetSpec::new("blocked", [FieldType::Ipv4Addr]).into());
//! let source = Field::Source { ipv6: false };
//! let drop = RuleBuilder::new().in_set("blocked", &[source]).verdict(Verdict::Drop).comment("blocked");
//! table.chain(Chain::base("input", ChainType::Filter, Hook::Input, 0, vec![drop]));
//!
//! // In one transaction from nothing, or from what was there before.
//! let mut kernel = Ruleset::default();
//! kernel.apply(&sync(&table, None))?;
//! assert_eq!(kernel.tables[&table.id], table);
//! # Ok::<(), BatchError>(())
//! ```

mod batch;
mod build;
mod expr;
mod sync;
mod table;
mod value;

pub use batch::{Batch, BatchError, Change, Ruleset};
pub use build::{Field, RuleBuilder, key_type, registers};
pub use expr::{
    Base, CmpOp, CtKey, DynsetOp, Expr, FIB_LOCAL, FibResult, MetaKey, NatKind, Reg, RejectKind, ct_state,
    ct_status,
};
pub use sync::{ChainSnapshot, SetSnapshot, Snapshot, sync};
pub use table::{
    BaseChain, Chain, ChainType, Data, DataType, Family, Hook, Key, Rule, Set, SetSpec, Table, TableId,
    Verdict,
};
pub use value::{FieldType, Type, Value};
