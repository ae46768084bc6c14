//! The garbage collector: what depends on something that is gone, goes
//! (upstream `pkg/controller/garbagecollector`).

mod graph;
mod plan;

pub use plan::GarbageCollector;
