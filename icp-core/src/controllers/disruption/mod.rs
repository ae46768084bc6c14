//! Disruption budgets: how many pods may be evicted now, and pods that were to be disrupted and were not
//! (upstream `pkg/controller/disruption`).

mod budgets;
mod plan;
mod scale;
mod stale;

pub use budgets::DisruptionBudgets;
pub use plan::{DELETION_TIMEOUT, Observed, Owner, plan};
pub use scale::Scale;
pub use stale::{STALE_TIMEOUT, StaleDisruptions, plan as plan_stale};

#[cfg(test)]
mod tests;
