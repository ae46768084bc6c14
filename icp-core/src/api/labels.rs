//! Label selectors: the text form and the object form.
//!
//! Follows `k8s.io/apimachinery/pkg/labels`.
//!
//! ```
//! use icp_core::api::labels::Selector;
//! let s = Selector::parse("app=web,tier in (a, b),!old").unwrap();
//! let labels = [("app", "web"), ("tier", "b")].map(|(k, v)| (k.to_string(), v.to_string())).into();
//! assert!(s.matches(&labels));
//! ```

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde_json::Value;

use super::names;

/// What a selector asks of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The key.
    pub key: String,
    /// The operator.
    pub op: Op,
    /// The values, sorted, for [`Op::In`] and [`Op::NotIn`]; one number for [`Op::Gt`] and [`Op::Lt`].
    pub values: Vec<String>,
}

/// The operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The label exists and has one of the values.
    In,
    /// The label does not exist or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
    /// The label is a number greater than the value.
    Gt,
    /// The label is a number less than the value.
    Lt,
}

/// A selector: all requirements hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// What must hold.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a selector is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    /// The upstream message.
    pub message: String,
}

fn error<T>(message: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError { message: message.into() })
}

impl Requirement {
    /// A requirement, checked as `labels.NewRequirement` does.
    ///
    /// # Errors
    /// If the key or a value is not valid, or the number of values does not fit the operator.
    pub fn new(key: &str, op: Op, mut values: Vec<String>) -> Result<Self, SelectorError> {
        if let Some(fault) = names::qualified_name(key).into_iter().next() {
            return error(format!("key: Invalid value: {key:?}: {fault}"));
        }
        match op {
            Op::In | Op::NotIn if values.is_empty() => {
                return error(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
                );
            }
            Op::Exists | Op::DoesNotExist if !values.is_empty() => {
                return error(
                    "values: Invalid value: values set must be empty for exists and does not exist",
                );
            }
            Op::Gt | Op::Lt => match values.as_slice() {
                [one] if one.parse::<i64>().is_ok() => {}
                [one] => {
                    return error(format!(
                        "values[0]: Invalid value: {one:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
                _ => {
                    return error(
                        "values: Invalid value: for 'Gt', 'Lt' operators, exactly one value is required",
                    );
                }
            },
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            if let Some(fault) = names::label_value(value).into_iter().next() {
                return error(format!("values[{i}][{key}]: Invalid value: {value:?}: {fault}"));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.into(), op, values })
    }

    /// Whether a label of this value (`None`: no such label) fulfils the requirement.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match (self.op, value) {
            (Op::In, Some(v)) => listed(v),
            (Op::NotIn, Some(v)) => !listed(v),
            (Op::NotIn | Op::DoesNotExist, None) | (Op::Exists, Some(_)) => true,
            (Op::Gt | Op::Lt, Some(v)) => {
                let bound = self.values.first().and_then(|b| b.parse::<i64>().ok());
                match (v.parse::<i64>(), bound) {
                    (Ok(v), Some(b)) => (self.op == Op::Gt && v > b) || (self.op == Op::Lt && v < b),
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.values.first().map_or("", String::as_str);
        match (self.op, self.values.len()) {
            (Op::In, 1) => write!(f, "{}={first}", self.key),
            (Op::NotIn, 1) => write!(f, "{}!={first}", self.key),
            (Op::In, _) => write!(f, "{} in ({})", self.key, self.values.join(",")),
            (Op::NotIn, _) => write!(f, "{} notin ({})", self.key, self.values.join(",")),
            (Op::Exists, _) => f.write_str(&self.key),
            (Op::DoesNotExist, _) => write!(f, "!{}", self.key),
            (Op::Gt, _) => write!(f, "{}>{first}", self.key),
            (Op::Lt, _) => write!(f, "{}<{first}", self.key),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Sign(&'t str),
    End,
}

impl Token<'_> {
    const fn text(&self) -> &str {
        match self {
            Token::Word(t) | Token::Sign(t) => t,
            Token::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    while let Some(c) = rest.chars().next() {
        let len = if special(c) {
            ["==", "!="].iter().find(|s| rest.starts_with(**s)).map_or(1, |s| s.len())
        } else {
            rest.find(|c: char| special(c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        let (head, tail) = rest.split_at(len);
        out.push(if special(c) { Token::Sign(head) } else { Token::Word(head) });
        rest = tail.trim_start();
    }
    out
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token<'t> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'t> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if self.next() != Token::Sign("(") {
            let found = self.tokens.get(self.at - 1).map_or("", Token::text);
            return error(format!("found '{found}', expected: '('"));
        }
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Token::Word(w) => {
                    self.at += 1;
                    values.push(w.to_string());
                    match self.next() {
                        Token::Sign(",") if self.peek() == Token::Sign(")") => values.push(String::new()),
                        Token::Sign(",") => continue,
                        Token::Sign(")") => return Ok(values),
                        other => return error(format!("found '{}', expected: ',' or ')'", other.text())),
                    }
                }
                Token::Sign(",") => {
                    self.at += 1;
                    values.push(String::new());
                }
                Token::Sign(")") => {
                    self.at += 1;
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other => return error(format!("found '{}', expected: ',', ')' or identifier", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Token::Sign("!") {
            self.at += 1;
            return match self.next() {
                Token::Word(key) => Requirement::new(key, Op::DoesNotExist, Vec::new()),
                other => error(format!("found '{}', expected: identifier", other.text())),
            };
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return error(format!("found '{}', expected: identifier", other.text())),
        };
        match self.peek() {
            Token::End | Token::Sign(",") => Requirement::new(key, Op::Exists, Vec::new()),
            Token::Word("in" | "notin") => {
                let op = if self.next() == Token::Word("in") { Op::In } else { Op::NotIn };
                let values = self.values()?;
                Requirement::new(key, op, values)
            }
            Token::Sign(sign @ ("=" | "==" | "!=" | ">" | "<")) => {
                self.at += 1;
                let value = match self.peek() {
                    Token::Word(w) => {
                        self.at += 1;
                        w
                    }
                    Token::End | Token::Sign(",") => "",
                    other => return error(format!("found '{}', expected: identifier", other.text())),
                };
                let op = match sign {
                    "!=" => Op::NotIn,
                    ">" => Op::Gt,
                    "<" => Op::Lt,
                    _ => Op::In,
                };
                Requirement::new(key, op, alloc::vec![value.to_string()])
            }
            other => error(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        }
    }
}

impl Selector {
    /// The selector that matches nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether the selector matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Parses the text form: `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// If the text is not a selector, with the message of upstream.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let mut requirements = Vec::new();
        let fail = |e: SelectorError| SelectorError {
            message: format!("unable to parse requirement: {}", e.message),
        };
        match parser.peek() {
            Token::End => return Ok(Self::default()),
            Token::Word(_) | Token::Sign("!") => {}
            found @ Token::Sign(_) => {
                let text = found.text();
                return error(format!("found '{text}', expected: !, identifier, or 'end of string'"));
            }
        }
        loop {
            requirements.push(parser.requirement().map_err(fail)?);
            match parser.next() {
                Token::End => break,
                Token::Sign(",") => {
                    if !matches!(parser.peek(), Token::Word(_) | Token::Sign("!")) {
                        let found = parser.peek();
                        return error(format!("found '{}', expected: identifier after ','", found.text()));
                    }
                }
                other => return error(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector`: null matches nothing, `{}` everything.
    ///
    /// # Errors
    /// If an operator or a key is not valid.
    pub fn from_label_selector(selector: &Value) -> Result<Self, SelectorError> {
        let Some(map) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Op::In, alloc::vec![value])?);
        }
        for expr in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expr.get(name).and_then(Value::as_str).unwrap_or_default();
            let op = match text("operator") {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                other => return error(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expr.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(ToString::to_string).collect();
            requirements.push(Requirement::new(text("key"), op, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// The selector that asks for every pair of a plain map (`spec.selector` of Services and
    /// ReplicationControllers).
    ///
    /// # Errors
    /// If a key or value is not valid.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, SelectorError> {
        let each = |(k, v): (&String, &String)| Requirement::new(k, Op::In, alloc::vec![v.clone()]);
        Ok(Self { requirements: map.iter().map(each).collect::<Result<_, _>>()?, nothing: false })
    }

    /// Whether labels fulfil the selector.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
    }

    /// Whether the `metadata.labels` of an object value fulfil the selector.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.matches(labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{r}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    #[test]
    fn text_form() {
        let l = labels(&[("app", "web"), ("n", "5"), ("e", "")]);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,n", true),
            ("app!=web", false),
            ("x!=y", true),
            ("app in (db, web)", true),
            ("app notin (db)", true),
            ("x notin (db)", true),
            ("!x", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("e=", true),
            ("e in ()", true),
            ("e in (a,)", true),
        ] {
            let s = Selector::parse(text).unwrap();
            assert_eq!(s.matches(&l), want, "{text}");
            assert_eq!(s.matches_object(&json!({"metadata":{"labels":l}})), want, "{text}");
            assert_eq!(Selector::parse(&s.to_string()).unwrap(), s, "{text}");
        }
        for bad in [
            "=",
            "a b",
            "a in",
            "a in (",
            "a in (b",
            "a in (b c)",
            "a,",
            ",a",
            "!",
            "a=b c",
            "a>x",
            "a=$",
            "-a",
            "a in b",
            "a)",
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn object_form() {
        let l = labels(&[("app", "web")]);
        let matches = |v: Value| Selector::from_label_selector(&v).unwrap().matches(&l);
        assert!(!matches(Value::Null));
        assert!(matches(json!({})));
        assert!(matches(json!({"matchLabels":{"app":"web"}})));
        assert!(!matches(json!({"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]})));
        assert!(matches(json!({"matchExpressions":[{"key":"b","operator":"DoesNotExist"}]})));
        let bad = json!({"matchExpressions":[{"key":"b","operator":"Like"}]});
        assert_eq!(
            Selector::from_label_selector(&bad).unwrap_err().message,
            "\"Like\" is not a valid label selector operator"
        );
        assert!(
            Selector::from_label_selector(&json!({"matchExpressions":[{"key":"b","operator":"In"}]}))
                .is_err()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_is_answered(s in "[a-c=!(), <>innot-]{0,30}") {
            if let Ok(selector) = Selector::parse(&s) {
                prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
