//! Names, labels and keys: what Kubernetes accepts, and the messages with which it refuses.
//!
//! Follows `k8s.io/apimachinery/pkg/util/validation`.
//!
//! ```
//! use icp_core::api::names;
//! assert!(names::dns1123_label("web-1").is_empty());
//! assert!(names::dns1123_label("Web")[0].starts_with("a lowercase RFC 1123 label must consist of"));
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ENV_TEXT: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_label(s: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(s.bytes().next())
        && edge(s.bytes().last())
        && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

fn is_qualified(s: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(s.bytes().next())
        && edge(s.bytes().last())
        && s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// The faults of an RFC 1123 label (at most 63 bytes).
#[must_use]
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(too_long(63));
    }
    if !is_label(s) {
        let dotted = s.split('.').all(is_label) && s.contains('.');
        out.push(if dotted { "must not contain dots".to_string() } else { LABEL_TEXT.to_string() });
    }
    out
}

/// The faults of an RFC 1123 subdomain (at most 253 bytes).
#[must_use]
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(too_long(253));
    }
    if !s.split('.').all(is_label) {
        out.push(SUBDOMAIN_TEXT.to_string());
    }
    out
}

/// The faults of a DNS-1035 label (at most 63 bytes; begins with a letter).
#[must_use]
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(too_long(63));
    }
    if !is_label(s) || !s.bytes().next().is_some_and(|c| c.is_ascii_lowercase()) {
        out.push(LABEL_1035_TEXT.to_string());
    }
    out
}

/// The faults of a qualified name: an optional DNS prefix with `/`, and a name of at most 63 bytes.
#[must_use]
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    let parts: Vec<&str> = s.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else {
                out.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            *name
        }
        _ => {
            out.push(format!("a qualified name {QUALIFIED_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"));
            return out;
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        out.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified(name) {
        out.push(format!("name part {QUALIFIED_TEXT}"));
    }
    out
}

/// The faults of a label value (empty, or at most 63 bytes).
#[must_use]
pub fn label_value(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(too_long(63));
    }
    if !s.is_empty() && !is_qualified(s) {
        out.push(VALUE_TEXT.to_string());
    }
    out
}

/// The faults of a path segment name (RBAC objects, among others).
#[must_use]
pub fn path_segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return alloc::vec![format!("may not be '{s}'")];
    }
    ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The faults of the name of an environment variable.
#[must_use]
pub fn env_var_name(s: &str) -> Vec<String> {
    if s.is_empty() || !s.bytes().all(|c| (c.is_ascii_graphic() || c == b' ') && c != b'=') {
        return alloc::vec![ENV_TEXT.to_string()];
    }
    Vec::new()
}

/// The faults of a key of a ConfigMap or Secret.
#[must_use]
pub fn config_key(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(too_long(253));
    }
    if s.is_empty() || !s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        out.push(CONFIG_KEY_TEXT.to_string());
    }
    match s {
        "." => out.push("must not be '.'".into()),
        ".." => out.push("must not be '..'".into()),
        _ if s.starts_with("..") => out.push("must not start with '..'".into()),
        _ => {}
    }
    out
}

/// The faults of the name of a port (at most 15 bytes, at least a letter).
#[must_use]
pub fn port_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 15 {
        out.push("must be no more than 15 characters".into());
    }
    if !s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') || s.is_empty() {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !s.bytes().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".into());
    }
    if s.contains("--") {
        out.push("must not contain consecutive hyphens".into());
    }
    if s.starts_with('-') || s.ends_with('-') {
        out.push("must not begin or end with a hyphen".into());
    }
    out
}

/// The faults of a port number.
#[must_use]
pub fn port_number(n: i64) -> Vec<String> {
    if (1..=65535).contains(&n) {
        Vec::new()
    } else {
        alloc::vec!["must be between 1 and 65535, inclusive".into()]
    }
}

/// Completes a `generateName` prefix with a suffix (five characters of [`SUFFIX_ALPHABET`]), cutting the prefix
/// so that the name stays within 63 bytes (`names.SimpleNameGenerator`).
#[must_use]
pub fn generate(prefix: &str, suffix: &str) -> String {
    let mut cut = prefix.len().min(63usize.saturating_sub(suffix.len()));
    while !prefix.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", prefix.get(..cut).unwrap_or(prefix))
}

/// The characters of generated suffixes: no vowels and nothing that looks alike (`utilrand.String`).
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad() {
        for good in ["a", "a-b", "1a", &"x".repeat(63)] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ä", &"x".repeat(64)] {
            assert_eq!(dns1123_label(bad).len(), 1, "{bad}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert!(!dns1123_subdomain("a..b").is_empty());
        assert!(!dns1035_label("1a").is_empty());
        assert!(qualified_name("example.com/My_Name").is_empty());
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("").len(), 2);
        assert!(label_value("").is_empty() && !label_value("a b").is_empty());
        assert!(config_key("tls.crt").is_empty() && !config_key("..x").is_empty());
        assert!(env_var_name("A b").is_empty() && !env_var_name("A=b").is_empty());
        assert!(port_name("http-2").is_empty() && !port_name("80").is_empty());
    }

    #[test]
    fn generated_names_fit() {
        assert_eq!(generate("web-", "abcde"), "web-abcde");
        assert_eq!(generate(&"x".repeat(80), "abcde").len(), 63);
    }
}
