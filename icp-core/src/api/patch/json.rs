//! JSON patch, RFC 6902.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::PatchError;
use crate::base::limits::{BODY_BYTES_MAX, JSON_PATCH_OPS_MAX};

/// About as many bytes as a value takes in JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(list) => list.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + size(v) + 4).sum::<usize>() + 2,
        _ => 5,
    }
}

fn pointer(text: &str) -> Result<Vec<String>, PatchError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text
        .strip_prefix('/')
        .ok_or_else(|| PatchError::Malformed(format!("the path {text:?} does not begin with '/'")))?;
    Ok(rest.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect())
}

fn failed<T>(op: &str, path: &str, why: &str) -> Result<T, PatchError> {
    Err(PatchError::Failed(format!("{op} operation does not apply: doc is missing path: {path:?}: {why}")))
}

/// The index that a token names; `len` is one past the last that is allowed.
fn index(token: &str, len: usize) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    token.parse::<usize>().ok().filter(|i| plain && *i < len)
}

fn get<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |v, token| match v {
        Value::Object(map) => map.get(token),
        Value::Array(list) => list.get(index(token, list.len())?),
        _ => None,
    })
}

fn parent<'v, 'p>(value: &'v mut Value, path: &'p [String]) -> Option<(&'v mut Value, &'p str)> {
    let (last, init) = path.split_last()?;
    let found = init.iter().try_fold(value, |v, token| match v {
        Value::Object(map) => map.get_mut(token),
        Value::Array(list) => {
            let i = index(token, list.len())?;
            list.get_mut(i)
        }
        _ => None,
    })?;
    Some((found, last))
}

fn add(doc: &mut Value, path: &[String], value: Value) -> bool {
    if path.is_empty() {
        *doc = value;
        return true;
    }
    match parent(doc, path) {
        Some((Value::Object(map), last)) => {
            map.insert(last.into(), value);
            true
        }
        Some((Value::Array(list), "-")) => {
            list.push(value);
            true
        }
        Some((Value::Array(list), last)) => match index(last, list.len() + 1) {
            Some(i) => {
                list.insert(i, value);
                true
            }
            None => false,
        },
        _ => false,
    }
}

fn remove(doc: &mut Value, path: &[String]) -> Option<Value> {
    match parent(doc, path)? {
        (Value::Object(map), last) => map.remove(last),
        (Value::Array(list), last) => index(last, list.len()).map(|i| list.remove(i)),
        _ => None,
    }
}

/// RFC 6902. The document is changed only if every operation succeeds.
///
/// # Errors
/// If the patch is malformed or an operation fails.
pub fn json(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let ops = patch.as_array().ok_or_else(|| {
        PatchError::Malformed("json: cannot unmarshal object into Go value of type jsonpatch.Patch".into())
    })?;
    if ops.len() > JSON_PATCH_OPS_MAX {
        return Err(PatchError::TooManyOperations { count: ops.len(), max: JSON_PATCH_OPS_MAX });
    }
    let mut doc = current.clone();
    let mut copied = 0usize;
    for op in ops {
        let text = |name: &str| op.get(name).and_then(Value::as_str);
        let (Some(name), Some(path_text)) = (text("op"), text("path")) else {
            return Err(PatchError::Malformed("an operation needs the texts 'op' and 'path'".into()));
        };
        let path = pointer(path_text)?;
        let value = || {
            op.get("value").cloned().ok_or_else(|| PatchError::Malformed(format!("{name} needs a 'value'")))
        };
        let from = || match text("from") {
            Some(from) => pointer(from),
            None => Err(PatchError::Malformed(format!("{name} needs 'from'"))),
        };
        match name {
            "add" => {
                if !add(&mut doc, &path, value()?) {
                    return failed("add", path_text, "no such parent or index");
                }
            }
            "remove" => {
                if remove(&mut doc, &path).is_none() {
                    return failed("remove", path_text, "no such value");
                }
            }
            "replace" => {
                let value = value()?;
                if path.is_empty() {
                    doc = value;
                } else if get(&doc, &path).is_none() {
                    return failed("replace", path_text, "no such value");
                } else if let Some((parent, last)) = parent(&mut doc, &path) {
                    match parent {
                        Value::Object(map) => drop(map.insert(last.into(), value)),
                        Value::Array(list) => {
                            let at = index(last, list.len()).and_then(|i| list.get_mut(i));
                            if let Some(slot) = at {
                                *slot = value;
                            }
                        }
                        _ => {}
                    }
                }
            }
            "move" => {
                let from = from()?;
                if path.len() > from.len() && path.starts_with(&from) {
                    return Err(PatchError::Malformed("a value cannot move into itself".into()));
                }
                let Some(value) = remove(&mut doc, &from) else {
                    return failed("move", text("from").unwrap_or(""), "no such value");
                };
                if !add(&mut doc, &path, value) {
                    return failed("move", path_text, "no such parent or index");
                }
            }
            "copy" => {
                let Some(value) = get(&doc, &from()?) else {
                    return failed("copy", text("from").unwrap_or(""), "no such value");
                };
                // A chain of copies must not double the document without bound.
                copied = copied.saturating_add(size(value));
                if copied > BODY_BYTES_MAX {
                    return Err(PatchError::Malformed(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {BODY_BYTES_MAX}"
                    )));
                }
                let value = value.clone();
                if !add(&mut doc, &path, value) {
                    return failed("copy", path_text, "no such parent or index");
                }
            }
            "test" => {
                let wanted = op.get("value").unwrap_or(&Value::Null);
                if get(&doc, &path).unwrap_or(&Value::Null) != wanted {
                    return Err(PatchError::Failed(format!("testing value {path_text} failed")));
                }
            }
            other => return Err(PatchError::Failed(format!("unexpected kind: {other}"))),
        }
    }
    Ok(doc)
}
