//! Texts of cells.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use crate::api::labels::Selector;
use crate::base::Time;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// A duration as kubectl shows it (`duration.HumanDuration`); seconds.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |a: i64, unit: char, b: i64, small: char| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    match () {
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

/// An object with a time to look at it from. Paths are separated by dots; what is missing is empty.
#[derive(Clone, Copy)]
pub(super) struct View<'v> {
    value: &'v Value,
    now: Time,
}

impl<'v> View<'v> {
    pub(super) const fn new(value: &'v Value, now: Time) -> Self {
        Self { value, now }
    }

    pub(super) fn at(&self, path: &str) -> Option<&'v Value> {
        path.split('.').try_fold(self.value, |v, name| v.get(name)).filter(|v| !v.is_null())
    }

    /// The value of a key that may hold dots.
    pub(super) fn at_key(&self, key: &str) -> Option<&'v Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    /// The same view of a part; of nothing if it is missing.
    pub(super) fn part(&self, path: &str) -> Self {
        Self { value: self.at(path).unwrap_or(&Value::Null), now: self.now }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    pub(super) fn text(&self, path: &str) -> &'v str {
        self.at(path).and_then(Value::as_str).unwrap_or("")
    }

    /// The text, or a replacement if it is empty.
    pub(super) fn text_or(&self, path: &str, other: &'v str) -> &'v str {
        Some(self.text(path)).filter(|t| !t.is_empty()).unwrap_or(other)
    }

    pub(super) fn int(&self, path: &str) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A number or a text as text (`IntOrString`), or a replacement.
    pub(super) fn scalar(&self, path: &str, other: &str) -> String {
        match self.at(path) {
            Some(Value::String(s)) => s.clone(),
            Some(v @ (Value::Number(_) | Value::Bool(_))) => v.to_string(),
            _ => other.into(),
        }
    }

    pub(super) fn list(
        &self,
        path: &str,
    ) -> impl DoubleEndedIterator<Item = View<'v>> + ExactSizeIterator + use<'v> {
        let items: &[Value] = self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let now = self.now;
        items.iter().map(move |value| View { value, now })
    }

    /// The texts of a list of texts.
    pub(super) fn texts(&self, path: &str) -> Vec<&'v str> {
        self.list(path).filter_map(|v| v.value.as_str()).collect()
    }

    pub(super) fn len(&self, path: &str) -> usize {
        match self.at(path) {
            Some(Value::Array(l)) => l.len(),
            Some(Value::Object(m)) => m.len(),
            _ => 0,
        }
    }

    pub(super) fn name(&self) -> &'v str {
        self.text("metadata.name")
    }

    /// Seconds since a time in text form.
    pub(super) fn seconds_since(&self, time: &str) -> Option<i64> {
        let time: Time = time.parse().ok()?;
        Some((self.now.as_micros() - time.as_micros()).div_euclid(1_000_000))
    }

    pub(super) fn age_of(&self, time: &str) -> String {
        self.seconds_since(time).map_or_else(|| UNKNOWN.into(), human_duration)
    }

    pub(super) fn age(&self) -> String {
        self.age_of(self.text("metadata.creationTimestamp"))
    }

    /// `key=value` pairs of a map, sorted, or `<none>`.
    pub(super) fn pairs(&self, path: &str) -> String {
        let map = self.at(path).and_then(Value::as_object);
        let pairs: Vec<String> = map
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        or_none(pairs.join(","))
    }

    /// A `metav1.LabelSelector` in its text form, or `<none>`.
    pub(super) fn selector(&self, path: &str) -> String {
        match Selector::from_label_selector(self.at(path).unwrap_or(&Value::Null)) {
            Ok(s) => or_none(s.to_string()),
            Err(_) => "<error>".into(),
        }
    }

    /// The status of a condition.
    pub(super) fn condition(&self, kind: &str) -> Option<View<'v>> {
        self.list("status.conditions").find(|c| c.text("type") == kind)
    }

    /// Names and images of the containers of a pod template.
    pub(super) fn containers(&self, pod_spec: &str) -> [Value; 2] {
        let of = |field: &str| {
            let all: Vec<&str> = self.part(pod_spec).list("containers").map(|c| c.text(field)).collect();
            Value::from(all.join(","))
        };
        [of("name"), of("image")]
    }
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.into() } else { text }
}

/// The first three of many, and how many more.
pub(super) fn first_three(all: &[String], none: &str) -> String {
    if all.is_empty() {
        return none.into();
    }
    let shown = all.get(..all.len().min(3)).unwrap_or_default().join(",");
    if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown }
}

/// `ReadWriteOnce` and so on in short form.
pub(super) fn access_modes(modes: &[&str]) -> String {
    let short = |m: &&str| match *m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let all: Vec<&str> = modes.iter().map(short).filter(|s| !s.is_empty()).collect();
    all.join(",")
}

/// `True` or `False`.
pub(super) const fn title(flag: bool) -> &'static str {
    if flag { "True" } else { "False" }
}
