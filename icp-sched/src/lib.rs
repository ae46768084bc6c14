//! kube-scheduler as a library: every node scored, the decisions of upstream, columns instead of maps.
//!
//! [`Scheduler`] is the decision as a plain call; [`machine::SchedulerMachine`] is the component of a cluster. Neither
//! knows a clock, a socket or a runtime.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | pods and nodes, as far as placement goes; read from API objects or filled in by hand |
//! | [`cache`] | the cluster as columns: what nodes have and what is taken, pods by class |
//! | [`config`] | KubeSchedulerConfiguration files |
//! | [`extender`] | HTTP extenders: what they are asked, and what they answer |
//! | [`framework`] | what a plugin is, and the explanation of a decision |
//! | [`gang`] | pods that run together or not at all |
//! | [`plugins`] | the default plugins of upstream |
//! | [`queue`] | pods that wait |
//! | [`machine`] | informers, queue, decisions, bindings, leader election |
//! | [`record`] | histories of the machine's inputs and decisions, to be decided on again |
//! | [`oracle`] | the comparison with recorded answers of kube-scheduler |
#![no_std]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod cache;
pub mod config;
pub mod extender;
pub mod framework;
pub mod gang;
pub mod machine;
pub mod model;
pub mod oracle;
pub mod plugins;
pub mod queue;
pub mod record;
mod scheduler;

pub use scheduler::{
    DEFAULT_SCHEDULER, DisruptionBudget, Outlook, Placement, Preemption, Scheduler, SchedulerBuilder,
    TieBreak, Unplaced, Unschedulable, WhatIf,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
