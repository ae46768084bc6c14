//! The status of a Job, as far as the controller reads and writes it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::base::Time;
use crate::controllers::support::{Condition, condition};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) active: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) completed_indexes: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completion_time: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) failed: i64,
    pub(super) ready: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<Time>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) succeeded: i64,
    pub(super) terminating: i64,
    pub(super) uncounted_terminated_pods: Uncounted,
}

/// Pods whose end is written down and that still may carry the finalizer, by uid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Uncounted {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) succeeded: Vec<String>,
}

impl Status {
    pub(super) fn has(&self, kind: &str) -> bool {
        condition(&self.conditions, kind).is_some_and(Condition::is_true)
    }

    /// Complete or Failed, and since when.
    pub(super) fn finished(&self) -> Option<Time> {
        let done =
            self.conditions.iter().find(|c| matches!(c.kind.as_str(), "Complete" | "Failed") && c.is_true());
        done.map(|c| c.last_transition_time.unwrap_or(Time::ZERO))
    }
}
