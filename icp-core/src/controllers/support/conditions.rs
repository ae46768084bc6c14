//! Conditions in a status.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::Time;

/// One condition, with fields of other kinds of conditions kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_update_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Condition {
    pub(crate) fn new(now: Time, kind: &str, status: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            status: if status { "True" } else { "False" }.into(),
            last_transition_time: Some(now),
            reason: reason.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        self.status == "True"
    }
}

pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Replaces the condition of the same type. Nothing changes if status and reason are the same; the time of
/// the transition stays if the status is the same (`SetDeploymentCondition` upstream).
pub(crate) fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = conditions.iter().find(|c| c.kind == new.kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time;
        }
    }
    conditions.retain(|c| c.kind != new.kind);
    conditions.push(new);
}
