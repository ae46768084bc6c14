//! Reading a document strictly: what is not known is a fault, with its path.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use icp_core::api::FieldError;
use icp_core::base::Duration;
use serde_json::{Map, Value};

use super::ConfigError;

/// Where faults are gathered.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<ConfigError>>);

impl Faults {
    pub(super) fn add(&self, error: impl Into<ConfigError>) {
        self.0.borrow_mut().push(error.into());
    }

    pub(super) fn into_list(self) -> Vec<ConfigError> {
        self.0.into_inner()
    }
}

/// An object of the document; `null` and what is absent are an empty one.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    map: Option<&'a Map<String, Value>>,
    seen: RefCell<BTreeSet<&'static str>>,
    pub(super) faults: &'a Faults,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &str, value: Option<&'a Value>, faults: &'a Faults) -> Self {
        let map = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                faults.add(ConfigError::Type { field: path.into(), expected: "an object" });
                None
            }
        };
        Self { path: path.into(), map, seen: RefCell::default(), faults }
    }

    /// The path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    /// What stands in a field, if anything but `null`.
    pub(super) fn raw(&self, name: &'static str) -> Option<&'a Value> {
        self.seen.borrow_mut().insert(name);
        self.map?.get(name).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.raw(name)?;
        let read = read(value);
        if read.is_none() {
            self.faults.add(ConfigError::Type { field: self.at(name), expected });
        }
        read
    }

    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn int(&self, name: &'static str) -> Option<i64> {
        self.typed(name, "an integer", Value::as_i64)
    }

    pub(super) fn number(&self, name: &'static str) -> Option<f64> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, name: &'static str) -> Option<bool> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    /// A duration in Go's form, such as `1m30s`.
    pub(super) fn duration(&self, name: &'static str) -> Option<Duration> {
        let text = self.text(name)?;
        let parsed = duration(text);
        if parsed.is_none() {
            self.invalid(name, text, "is not a duration such as 1m30s");
        }
        parsed
    }

    pub(super) fn object(&self, name: &'static str) -> Fields<'a> {
        Fields::new(&self.at(name), self.raw(name), self.faults)
    }

    pub(super) fn list(&self, name: &'static str) -> &'a [Value] {
        self.typed(name, "a list", |v| v.as_array().map(Vec::as_slice)).unwrap_or_default()
    }

    /// The objects of a list.
    pub(super) fn objects(&self, name: &'static str) -> Vec<Fields<'a>> {
        let items = self.list(name).iter().enumerate();
        items.map(|(i, v)| Fields::new(&format!("{}[{i}]", self.at(name)), Some(v), self.faults)).collect()
    }

    pub(super) fn texts(&self, name: &'static str) -> Vec<String> {
        let mut texts = Vec::new();
        for (i, v) in self.list(name).iter().enumerate() {
            match v.as_str() {
                Some(text) => texts.push(text.into()),
                None => {
                    let field = format!("{}[{i}]", self.at(name));
                    self.faults.add(ConfigError::Type { field, expected: "a string" });
                }
            }
        }
        texts
    }

    pub(super) fn invalid(&self, name: &str, value: impl Into<Value>, detail: impl Into<String>) {
        self.faults.add(FieldError::invalid(self.at(name), value, detail));
    }

    /// Every field that was not asked for is a fault.
    pub(super) fn end(self) {
        let seen = self.seen.into_inner();
        for name in self.map.into_iter().flat_map(Map::keys).filter(|n| !seen.contains(n.as_str())) {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            self.faults.add(ConfigError::UnknownField(path));
        }
    }
}

/// Reads a duration in Go's form. Nothing negative, and no more than a century.
fn duration(text: &str) -> Option<Duration> {
    const NANOS_MAX: f64 = 100.0 * 366.0 * 86_400.0 * 1e9;
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let units =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = rest.get(unit.len()..)?;
        nanos += number * factor;
    }
    (!text.is_empty() && nanos <= NANOS_MAX).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, want) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("100ms", 100),
            ("0", 0),
            ("2h0m0s", 7_200_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "5", "-1s", "1x", "s", "1e9h", "99999999999h", "..s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
