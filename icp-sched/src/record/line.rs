//! Lines and what they say.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, Status};
use icp_core::base::Duration;
use icp_core::client::{
    ApiError, ClientEffect, ClientEvent, ObjectKey, Operation, Reply, RequestId, WatchEvent, WatchKind,
};
use serde_json::{Map, Value, json};

use super::Input;
use super::error::HistoryError;
use super::objects::Objects;
use crate::extender::ExtenderAnswer;
use crate::machine::{Decision, Effect, Event, NoNode};

/// The fields of a line that were not read yet.
#[derive(Debug)]
pub(super) struct Fields {
    line: u64,
    /// What stands before the name of a field in errors.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn parse(line: u64, text: &[u8]) -> Result<Self, HistoryError> {
        let json = |detail| HistoryError::Json { line, detail };
        match serde_json::from_slice(text).map_err(|e| json(e.to_string()))? {
            Value::Object(map) => Ok(Self { line, path: String::new(), map }),
            _ => Err(json("not a JSON object".into())),
        }
    }

    pub(super) fn wrong(&self, field: &str, detail: impl Into<String>) -> HistoryError {
        let field = format!("{}{field}", self.path);
        HistoryError::Field { line: self.line, field, detail: detail.into() }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field)
    }

    fn must(&mut self, field: &str) -> Result<Value, HistoryError> {
        self.take(field).ok_or_else(|| self.wrong(field, "is missing"))
    }

    pub(super) fn number(&mut self, field: &str) -> Result<u64, HistoryError> {
        let value = self.must(field)?;
        value.as_u64().ok_or_else(|| self.wrong(field, "is no whole number of at most 64 bits"))
    }

    pub(super) fn size(&mut self, field: &str) -> Result<usize, HistoryError> {
        let number = self.number(field)?;
        usize::try_from(number).map_err(|_| self.wrong(field, "is too large for this machine"))
    }

    pub(super) fn duration(&mut self, field: &str) -> Result<Duration, HistoryError> {
        self.number(field).map(Duration::from_micros)
    }

    pub(super) fn text(&mut self, field: &str) -> Result<String, HistoryError> {
        match self.must(field)? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(field, "is no text")),
        }
    }

    pub(super) fn optional_text(&mut self, field: &str) -> Result<Option<String>, HistoryError> {
        if self.has(field) { self.text(field).map(Some) } else { Ok(None) }
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<bool, HistoryError> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(_) => Err(self.wrong(field, "can only be true")),
        }
    }

    fn within(&self, field: &str, value: Value) -> Result<Self, HistoryError> {
        match value {
            Value::Object(map) => Ok(Self { line: self.line, path: format!("{}{field}.", self.path), map }),
            _ => Err(self.wrong(field, "is no object")),
        }
    }

    pub(super) fn object(&mut self, field: &str) -> Result<Self, HistoryError> {
        let value = self.must(field)?;
        self.within(field, value)
    }

    pub(super) fn optional_object(&mut self, field: &str) -> Result<Option<Self>, HistoryError> {
        match self.take(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.within(field, value).map(Some),
        }
    }

    fn list(&mut self, field: &str) -> Result<Vec<Value>, HistoryError> {
        match self.must(field)? {
            Value::Array(list) => Ok(list),
            _ => Err(self.wrong(field, "is no list")),
        }
    }

    fn status(&mut self, field: &str) -> Result<Status, HistoryError> {
        let value = self.must(field)?;
        serde_json::from_value(value).map_err(|e| self.wrong(field, e.to_string()))
    }

    fn key(&mut self, field: &str) -> Result<ObjectKey, HistoryError> {
        self.text(field).map(|text| key(&text))
    }

    /// An object that an earlier line holds.
    fn named(&mut self, field: &str, objects: &Objects) -> Result<Arc<Object>, HistoryError> {
        let number = self.number(field)?;
        self.known(field, number, objects)
    }

    fn known(&self, field: &str, number: u64, objects: &Objects) -> Result<Arc<Object>, HistoryError> {
        let object = objects.get(number).cloned();
        object.ok_or_else(|| self.wrong(field, format!("object {number} is not known here")))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), HistoryError> {
        match self.map.into_iter().next() {
            None => Ok(()),
            Some((field, _)) => {
                Err(HistoryError::UnknownField { line: self.line, field: format!("{}{field}", self.path) })
            }
        }
    }
}

/// Reads `namespace/name`.
fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectKey::new(namespace, name)
}

const WATCHED: [(&str, WatchKind); 4] = [
    ("added", WatchKind::Added),
    ("modified", WatchKind::Modified),
    ("deleted", WatchKind::Deleted),
    ("bookmark", WatchKind::Bookmark),
];

/// The fields of an input; `put` gives the number of an object. Nothing for what changes nothing.
pub(super) fn input_of(
    event: &Event,
    mut put: impl FnMut(&Arc<Object>) -> u64,
) -> Option<Map<String, Value>> {
    let value = match event {
        Event::Start => json!({"start": true}),
        Event::Stop => json!({"stop": true}),
        Event::Scrape => return None,
        Event::Client(ClientEvent::Reply { id, result }) => {
            let mut fields = match result {
                Ok(Reply::Object(object)) => json!({"object": put(object)}),
                Ok(Reply::List { items, resource_version, continue_token }) => {
                    let items: Vec<u64> = items.iter().map(put).collect();
                    let mut list = json!({"list": items, "version": resource_version});
                    if let Some(token) = continue_token {
                        set(&mut list, "continue", json!(token));
                    }
                    list
                }
                Ok(Reply::Status(status)) => json!({"status": status}),
                Ok(_) => return None,
                Err(e) => failure(e)?,
            };
            set(&mut fields, "reply", json!(id));
            fields
        }
        Event::Client(ClientEvent::Watch { id, event }) => {
            let (field, _) = WATCHED.into_iter().find(|(_, kind)| *kind == event.kind)?;
            if event.kind == WatchKind::Bookmark {
                json!({"watch": id, field: event.object.metadata.resource_version})
            } else {
                json!({"watch": id, field: put(&event.object)})
            }
        }
        Event::Client(ClientEvent::WatchClosed { id, error }) => {
            let mut fields = match error {
                Some(e) => failure(e)?,
                None => json!({}),
            };
            set(&mut fields, "closed", json!(id));
            fields
        }
        Event::Client(_) => return None,
        Event::Extender { id, answer } => match answer {
            Ok(ExtenderAnswer { code, body }) => match core::str::from_utf8(body) {
                Ok(text) => json!({"extender": id, "code": code, "body": text}),
                Err(_) => json!({"extender": id, "code": code, "bytes": body}),
            },
            Err(why) => json!({"extender": id, "unreachable": why}),
        },
        Event::Bound { id, result: Ok(()) } => json!({"bound": id}),
        Event::Bound { id, result: Err(why) } => json!({"bound": id, "unreachable": why}),
        Event::Allow { pod, plugin } => json!({"allow": pod.to_string(), "plugin": plugin}),
        Event::Reject { pod, plugin, reason } => {
            json!({"reject": pod.to_string(), "plugin": plugin, "reason": reason})
        }
    };
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn set(value: &mut Value, field: &str, to: Value) {
    if let Some(map) = value.as_object_mut() {
        map.insert(field.into(), to);
    }
}

fn failure(error: &ApiError) -> Option<Value> {
    match error {
        ApiError::Status(status) => Some(json!({"refused": status})),
        ApiError::Unreachable(why) => Some(json!({"unreachable": why})),
        ApiError::Decode(why) => Some(json!({"nonsense": why})),
        _ => None,
    }
}

fn read_failure(fields: &mut Fields) -> Result<Option<ApiError>, HistoryError> {
    Ok(if fields.has("refused") {
        Some(ApiError::Status(fields.status("refused")?))
    } else if fields.has("unreachable") {
        Some(ApiError::Unreachable(fields.text("unreachable")?))
    } else if fields.has("nonsense") {
        Some(ApiError::Decode(fields.text("nonsense")?))
    } else {
        None
    })
}

/// What a request is for, the same in every version; nothing for Events and conditions, whose answers do not matter.
pub(super) fn purpose(effect: &Effect) -> Option<(RequestId, String)> {
    match effect {
        Effect::Client(ClientEffect::Request { id, request } | ClientEffect::Watch { id, request }) => {
            let verb = match &request.op {
                Operation::Get => "get",
                Operation::List(_) => "list",
                Operation::Watch(_) => "watch",
                Operation::Create(_) if request.gvr.resource == "events" => return None,
                Operation::Create(_) => "create",
                Operation::Update(_) => "update",
                Operation::Patch { .. } if request.gvr.resource == "events" => return None,
                Operation::Patch { .. } if request.subresource == Some("status") => return None,
                Operation::Patch { .. } => "patch",
                Operation::Delete(_) => "delete",
                _ => "other",
            };
            let mut text = format!("{verb} {}", request.gvr.resource);
            for part in request.subresource.into_iter() {
                text.push('/');
                text.push_str(part);
            }
            if let Some(name) = &request.name {
                let key = ObjectKey::new(request.namespace.as_deref().unwrap_or(""), name);
                text.push_str(&format!(" {key}"));
            }
            Some((*id, text))
        }
        Effect::Bind(call) => Some((call.id, format!("bind {}", call.pod))),
        Effect::AskExtender(call) => Some((call.id, format!("ask {}", call.url))),
        _ => None,
    }
}

/// What was asked on an input, with the ids that answers refer to.
pub(super) fn read_asked(fields: &mut Fields) -> Result<Vec<(RequestId, String)>, HistoryError> {
    if !fields.has("asked") {
        return Ok(Vec::new());
    }
    let pair = |value: Value| match value.as_array().map(Vec::as_slice) {
        Some([id, purpose]) => Some((id.as_u64()?, purpose.as_str()?.to_string())),
        _ => None,
    };
    let pairs: Option<Vec<_>> = fields.list("asked")?.into_iter().map(pair).collect();
    pairs.ok_or_else(|| fields.wrong("asked", "holds what is no pair of a number and a text"))
}

/// Reads an input.
pub(super) fn read_input(fields: &mut Fields, objects: &mut Objects) -> Result<Input, HistoryError> {
    if fields.flag("wake")? {
        return Ok(Input::Wake);
    }
    if fields.flag("noted")? {
        return Ok(Input::Noted);
    }
    let event = if fields.flag("start")? {
        Event::Start
    } else if fields.flag("stop")? {
        Event::Stop
    } else if fields.has("reply") {
        let id = fields.number("reply")?;
        let result = match read_failure(fields)? {
            Some(error) => Err(error),
            None => Ok(read_reply(fields, objects)?),
        };
        ClientEvent::Reply { id, result }.into()
    } else if fields.has("watch") {
        let id = fields.number("watch")?;
        let Some((field, kind)) = WATCHED.into_iter().find(|(field, _)| fields.has(field)) else {
            return Err(fields.wrong("watch", "does not say what happened"));
        };
        let object = if kind == WatchKind::Bookmark {
            let mut object = Object::default();
            object.metadata.resource_version = fields.text(field)?;
            Arc::new(object)
        } else {
            fields.named(field, objects)?
        };
        if kind == WatchKind::Deleted {
            objects.gone(&object);
        }
        ClientEvent::Watch { id, event: WatchEvent { kind, object } }.into()
    } else if fields.has("closed") {
        let id = fields.number("closed")?;
        ClientEvent::WatchClosed { id, error: read_failure(fields)? }.into()
    } else if fields.has("extender") {
        Event::Extender { id: fields.number("extender")?, answer: read_opinion(fields)? }
    } else if fields.has("bound") {
        let id = fields.number("bound")?;
        Event::Bound { id, result: fields.optional_text("unreachable")?.map_or(Ok(()), Err) }
    } else if fields.has("allow") {
        Event::Allow { pod: fields.key("allow")?, plugin: fields.text("plugin")? }
    } else if fields.has("reject") {
        let (pod, plugin) = (fields.key("reject")?, fields.text("plugin")?);
        Event::Reject { pod, plugin, reason: fields.text("reason")? }
    } else {
        return Err(fields.wrong("at", "the line does not say what happened"));
    };
    Ok(Input::Event(event))
}

fn read_reply(fields: &mut Fields, objects: &Objects) -> Result<Reply, HistoryError> {
    if fields.has("object") {
        return fields.named("object", objects).map(Reply::Object);
    }
    if fields.has("status") {
        return fields.status("status").map(Reply::Status);
    }
    let mut items = Vec::new();
    for item in fields.list("list")? {
        let number = item.as_u64().ok_or_else(|| fields.wrong("list", "holds what is no number"))?;
        items.push(fields.known("list", number, objects)?);
    }
    let (resource_version, continue_token) = (fields.text("version")?, fields.optional_text("continue")?);
    Ok(Reply::List { items, resource_version, continue_token })
}

fn read_opinion(fields: &mut Fields) -> Result<Result<ExtenderAnswer, String>, HistoryError> {
    if fields.has("unreachable") {
        return fields.text("unreachable").map(Err);
    }
    let code = fields.number("code")?;
    let code = u16::try_from(code).map_err(|_| fields.wrong("code", "is no status code"))?;
    let body = match fields.optional_text("body")? {
        Some(text) => text.into_bytes(),
        None => {
            let byte = |v: Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
            let bytes = fields.list("bytes")?.into_iter().map(byte).collect::<Option<Vec<u8>>>();
            bytes.ok_or_else(|| fields.wrong("bytes", "holds what is no byte"))?
        }
    };
    Ok(Ok(ExtenderAnswer { code, body }))
}

/// A decision as it stands in a line.
pub(super) fn decision_of(decision: &Decision) -> Value {
    let pod = decision.pod.to_string();
    match &decision.result {
        Ok(node) => json!({"pod": pod, "node": node}),
        Err(NoNode { message, plugins, victims, nominated }) => {
            let mut value = json!({"pod": pod, "message": message, "plugins": plugins});
            if !victims.is_empty() {
                let victims: Vec<String> = victims.iter().map(ObjectKey::to_string).collect();
                set(&mut value, "victims", json!(victims));
            }
            if let Some(node) = nominated {
                set(&mut value, "nominated", json!(node));
            }
            value
        }
    }
}

pub(super) fn read_decisions(fields: &mut Fields) -> Result<Vec<Decision>, HistoryError> {
    if !fields.has("decided") {
        return Ok(Vec::new());
    }
    let list = fields.list("decided")?;
    let each = list.into_iter().enumerate().map(|(at, value)| {
        let mut inner = fields.within(&format!("decided[{at}]"), value)?;
        let pod = inner.key("pod")?;
        let result = match inner.optional_text("node")? {
            Some(node) => Ok(node),
            None => Err(NoNode {
                message: inner.text("message")?,
                plugins: inner.texts("plugins")?.into_iter().collect::<BTreeSet<String>>(),
                victims: match inner.has("victims") {
                    true => inner.texts("victims")?.iter().map(|text| key(text)).collect(),
                    false => Vec::new(),
                },
                nominated: inner.optional_text("nominated")?,
            }),
        };
        inner.end()?;
        Ok(Decision { pod, result })
    });
    each.collect()
}

impl Fields {
    fn texts(&mut self, field: &str) -> Result<Vec<String>, HistoryError> {
        let list = self.list(field)?;
        let texts: Option<Vec<String>> = list.into_iter().map(|v| v.as_str().map(String::from)).collect();
        texts.ok_or_else(|| self.wrong(field, "holds what is no text"))
    }
}
