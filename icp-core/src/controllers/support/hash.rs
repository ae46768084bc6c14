//! The hash of a pod template.

use alloc::format;
use alloc::string::String;

use serde_json::Value;

/// The hash of a template that stands in `pod-template-hash`: 32-bit FNV-1a of its canonical JSON, which has its keys
/// in order, and of the count of collisions; in the alphabet of generated names
/// (`k8s.io/apimachinery/pkg/util/rand` `SafeEncodeString`). Unlike upstream's it does not depend on the memory layout
/// of Go types.
pub(crate) fn template_hash(template: &Value, collisions: Option<i64>) -> String {
    let mut hash = Fnv(0x811c_9dc5);
    hash.value(template);
    if let Some(n) = collisions {
        hash.bytes(&n.to_le_bytes());
    }
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    format!("{}", hash.0)
        .bytes()
        .map(|b| char::from(*ALPHABET.get(usize::from(b) % ALPHABET.len()).unwrap_or(&b'x')))
        .collect()
}

struct Fnv(u32);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut keys: alloc::vec::Vec<_> = map.iter().filter(|(_, v)| !v.is_null()).collect();
                keys.sort_by_key(|(k, _)| *k);
                self.bytes(b"{");
                for (key, value) in keys {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(value);
                    self.bytes(b",");
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            scalar => self.bytes(format!("{scalar}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_and_nulls_do_not_matter_but_values_do() {
        let a = template_hash(&json!({"a": 1, "b": {"x": [1, 2]}}), None);
        assert_eq!(a, template_hash(&json!({"b": {"x": [1, 2], "y": null}, "a": 1}), None));
        assert_ne!(a, template_hash(&json!({"a": 1, "b": {"x": [2, 1]}}), None));
        assert_ne!(a, template_hash(&json!({"a": 1, "b": {"x": [1, 2]}}), Some(1)));
        assert!(
            !a.is_empty() && a.len() <= 10 && a.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
        );
    }
}
