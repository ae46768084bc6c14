//! Walks over values by their schema: the fields of a value, the difference of two, their merge, and removal
//! (`structured-merge-diff` `typed`).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::set::{FieldSet, PathElement};
use crate::api::schema::{ListType, Schema, Shape};

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'s> {
    schema: Schema<'s>,
    root: bool,
}

/// How a value is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Not at all: it is owned as a whole.
    Leaf,
    /// By field.
    Fields,
    /// A list whose items are known by key fields.
    Keyed,
    /// A list whose items are known by their value.
    Set,
}

/// What changed from one value to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl<'s> Place<'s> {
    /// The root of objects of a schema.
    pub(super) const fn root(schema: Schema<'s>) -> Self {
        Self { schema, root: true }
    }

    /// The place of a field, and whether the schema has it by name (and not only as a key of a map).
    fn field(self, name: &str) -> (Self, bool) {
        let found = if self.root { self.schema.root_field(name) } else { self.schema.field(name) };
        let named = found.is_some() && (self.schema.shape() == Shape::Object || self.root);
        (Self { schema: found.unwrap_or(Schema::Any), root: false }, named)
    }

    fn item(self) -> Self {
        Self { schema: self.schema.items(), root: false }
    }

    fn form(self, value: &Value) -> Form {
        match (value, self.schema.shape()) {
            (Value::Object(_), Shape::Object | Shape::Map | Shape::Any) if !self.schema.atomic_map() => {
                Form::Fields
            }
            (Value::Array(_), Shape::List) => match self.schema.list_type() {
                ListType::Map => Form::Keyed,
                ListType::Set => Form::Set,
                ListType::Atomic => Form::Leaf,
            },
            _ => Form::Leaf,
        }
    }

    /// The form of two values of one place; values of different types are leaves.
    fn form_of_both(self, a: Option<&Value>, b: Option<&Value>) -> Form {
        let form = |v: Option<&Value>| v.filter(|v| !v.is_null()).map(|v| self.form(v));
        let both_empty = |v: Option<&Value>| match v {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => true,
        };
        match (form(a), form(b)) {
            // Two that are empty are leaves, so that empty and missing differ.
            _ if both_empty(a) && both_empty(b) => Form::Leaf,
            (Some(one), Some(other)) if one != other => Form::Leaf,
            (Some(form), _) | (None, Some(form)) => form,
            (None, None) => Form::Leaf,
        }
    }

    /// By what an item of a list is known.
    fn element(self, form: Form, item: &Value) -> Result<PathElement, String> {
        if form == Form::Set {
            return match item {
                Value::Object(_) | Value::Array(_) => Err("a set holds scalars alone".into()),
                scalar => Ok(PathElement::Value(scalar.to_string())),
            };
        }
        let Some(map) = item.as_object() else {
            return Err("associative list with keys may not have non-map elements".into());
        };
        let mut fields = Vec::new();
        for key in self.schema.list_keys() {
            let text = match map.get(key).filter(|v| !v.is_null()) {
                Some(value) => value.to_string(),
                // The one key field with a default in the published schemas.
                None if key == "protocol" => "\"TCP\"".into(),
                None => {
                    return Err(format!(
                        "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                    ));
                }
            };
            fields.push((key.to_string(), text));
        }
        fields.sort();
        Ok(PathElement::Key(fields))
    }

    /// The items of a list with what they are known by; one without key, which only an old object can have, is known
    /// by its place.
    fn elements(self, form: Form, list: Option<&Value>) -> Vec<(PathElement, &Value)> {
        let items = list.and_then(Value::as_array).into_iter().flatten().enumerate();
        items.map(|(i, v)| (self.element(form, v).unwrap_or(PathElement::Index(i)), v)).collect()
    }
}

/// Checks that every list item of a configuration is known by something, once.
pub(super) fn check(place: Place<'_>, value: &Value, path: &str) -> Result<(), String> {
    match place.form(value) {
        Form::Leaf => Ok(()),
        Form::Fields => value
            .as_object()
            .into_iter()
            .flatten()
            .try_for_each(|(name, below)| check(place.field(name).0, below, &format!("{path}.{name}"))),
        form => {
            let mut seen = Vec::new();
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                let element = place.element(form, item).map_err(|e| format!("{path}: element {i}: {e}"))?;
                if seen.contains(&element) {
                    return Err(format!("{path}: duplicate entries for key {element}"));
                }
                check(place.item(), item, &format!("{path}{element}"))?;
                seen.push(element);
            }
            Ok(())
        }
    }
}

/// The fields of a value.
pub(super) fn fields(place: Place<'_>, value: &Value) -> FieldSet {
    fn walk(place: Place<'_>, value: &Value, path: &mut Vec<PathElement>, out: &mut FieldSet) {
        match place.form(value) {
            Form::Leaf => out.insert(path),
            Form::Fields => {
                for (name, below) in value.as_object().into_iter().flatten() {
                    let (at, named) = place.field(name);
                    path.push(PathElement::Field(name.clone()));
                    walk(at, below, path, out);
                    if !named || below.is_null() || below.as_object().is_some_and(Map::is_empty) {
                        out.insert(path);
                    }
                    path.pop();
                }
            }
            form => {
                for (element, item) in place.elements(form, Some(value)) {
                    path.push(element);
                    walk(place.item(), item, path, out);
                    out.insert(path);
                    path.pop();
                }
            }
        }
    }
    let mut out = FieldSet::default();
    walk(place, value, &mut Vec::new(), &mut out);
    out
}

/// What changed from `old` to `new`.
pub(super) fn compare(place: Place<'_>, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    compare_at(place, Some(old), Some(new), &mut Vec::new(), &mut out);
    out
}

fn compare_at(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let form = place.form_of_both(old, new);
    match (old, new) {
        (None, None) => return,
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (Some(a), Some(b)) if a == b => return,
        (Some(_), Some(_)) if form == Form::Leaf => out.modified.insert(path),
        _ => {}
    }
    match form {
        Form::Leaf => {}
        Form::Fields => {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let added = b.into_iter().flatten().filter(|(name, _)| a.is_none_or(|a| !a.contains_key(*name)));
            for (name, _) in a.into_iter().flatten().chain(added) {
                path.push(PathElement::Field(name.clone()));
                compare_at(
                    place.field(name).0,
                    a.and_then(|m| m.get(name)),
                    b.and_then(|m| m.get(name)),
                    path,
                    out,
                );
                path.pop();
            }
        }
        form => {
            let (a, b) = (place.elements(form, old), place.elements(form, new));
            let mut pairs: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
            a.into_iter().for_each(|(element, v)| pairs.entry(element).or_default().0.push(v));
            b.into_iter().for_each(|(element, v)| pairs.entry(element).or_default().1.push(v));
            for (element, (a, b)) in pairs {
                path.push(element);
                if a.len() > 1 || b.len() > 1 {
                    // Items that are known by the same key are one field.
                    if a.is_empty() {
                        out.added.insert(path);
                    } else if b.is_empty() {
                        out.removed.insert(path);
                    } else if a != b {
                        out.modified.insert(path);
                    }
                } else {
                    compare_at(place.item(), a.first().copied(), b.first().copied(), path, out);
                }
                path.pop();
            }
        }
    }
}

/// `live` with everything that `config` says.
pub(super) fn merge(place: Place<'_>, live: &Value, config: &Value) -> Value {
    match place.form_of_both(Some(live), Some(config)) {
        Form::Leaf => config.clone(),
        Form::Fields => {
            let mut out = live.as_object().cloned().unwrap_or_default();
            for (name, value) in config.as_object().into_iter().flatten() {
                let merged = match out.get(name) {
                    Some(old) => merge(place.field(name).0, old, value),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        form => merge_lists(place, form, live, config).into(),
    }
}

/// The items of both lists: those of the configuration in its order, those that only the live object has at their
/// places between them.
fn merge_lists(place: Place<'_>, form: Form, live: &Value, config: &Value) -> Vec<Value> {
    let (left, right) = (place.elements(form, Some(live)), place.elements(form, Some(config)));
    let find = |list: &[(PathElement, &Value)], element: &PathElement| {
        list.iter().find(|(e, _)| e == element).map(|(_, v)| (*v).clone())
    };
    let mut shared = right.iter().map(|(e, _)| e).filter(|e| find(&left, e).is_some());
    let mut next_shared = shared.next();
    let mut done: Vec<&PathElement> = Vec::new();
    let mut out = Vec::new();
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    // Each turn takes an item of one of the lists.
    for _ in 0..=(left.len() + right.len()) {
        if let (Some((a, _)), Some((b, _))) = (l.peek(), r.peek())
            && a != b
            && find(&right, a).is_some()
            && next_shared.is_some_and(|next| next != a)
        {
            // Both have it, but in another order: it comes when the configuration has it.
            l.next();
            continue;
        }
        if let Some((a, item)) = l.peek() {
            if find(&right, a).is_none() {
                out.push((*item).clone());
                l.next();
                continue;
            }
            if done.contains(&a) {
                l.next();
                continue;
            }
        }
        let Some((element, item)) = r.next() else { continue };
        done.push(element);
        out.push(match find(&left, element) {
            Some(old) => merge(place.item(), &old, item),
            None => (*item).clone(),
        });
        if next_shared == Some(element) {
            next_shared = shared.next();
        }
    }
    out
}

/// `value` without the members of `set`; `None` if nothing is left of it.
pub(super) fn remove(place: Place<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    match place.form(value) {
        Form::Leaf => Some(value.clone()),
        Form::Fields => {
            let mut out = Map::new();
            for (name, below) in value.as_object().into_iter().flatten() {
                match set.step(&PathElement::Field(name.clone())) {
                    (true, _) => {}
                    (false, None) => drop(out.insert(name.clone(), below.clone())),
                    (false, Some(inner)) => {
                        if let Some(rest) = remove(place.field(name).0, below, inner) {
                            out.insert(name.clone(), rest);
                        }
                    }
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        form => {
            let items = place.elements(form, Some(value)).into_iter();
            let kept: Vec<Value> = items
                .filter_map(|(element, item)| match set.step(&element) {
                    (true, _) => None,
                    (false, None) => Some(item.clone()),
                    (false, Some(inner)) => remove(place.item(), item, inner),
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
    }
}

/// The set, and every named field on the way to its members (`EnsureNamedFieldsAreMembers`).
pub(super) fn with_named_fields(place: Place<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for (step, member, below) in set.steps() {
        let (at, named) = match step {
            PathElement::Field(name) => place.field(name),
            _ => (place.item(), false),
        };
        let on_the_way = named && !below.is_empty();
        out.put(step.clone(), member || on_the_way, with_named_fields(at, below));
    }
    out
}

/// Fields that are structs and no pointers in Go: an empty object has them, so that nobody adds them.
const ALWAYS_THERE: &[&str] =
    &["metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "resources"];

/// What an object of a built-in kind without any field set is, as far as [`compare`] sees it.
pub(super) fn empty(place: Place<'_>) -> Value {
    let mut out = Map::new();
    if matches!(place.schema, Schema::Builtin(_)) {
        for name in place.schema.field_names() {
            let (at, _) = place.field(name);
            let required = place.schema.requires(name);
            match at.schema.shape() {
                Shape::Object if required || ALWAYS_THERE.contains(&name) => {
                    drop(out.insert(name.into(), empty(at)))
                }
                Shape::List if required => drop(out.insert(name.into(), Value::Null)),
                _ => {}
            }
        }
    }
    Value::Object(out)
}
