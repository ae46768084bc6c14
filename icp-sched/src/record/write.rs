//! Writing a history.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEvent, RequestId, WatchEvent, WatchKind};
use serde_json::{Map, Value, json};

use super::Settings;
use super::line::{decision_of, input_of, purpose};
use super::objects::{KEPT_MAX, Objects, difference};
use crate::config::{ConfigErrors, Registry};
use crate::machine::{Decision, Effect, Event, SchedulerMachine};

/// Writes the lines of a history, beside a machine that somebody else drives: [`Writer::input`] before it takes an input,
/// [`Writer::done`] afterwards. [`Recorder`] does both.
#[derive(Debug)]
pub struct Writer {
    objects: Objects,
    text: String,
    /// The input that waits for what is decided on it.
    input: Option<Map<String, Value>>,
    gone: Option<Arc<Object>>,
    /// What was asked and may still be answered.
    open: BTreeSet<RequestId>,
    kept_max: usize,
}

impl Writer {
    /// A history that begins with a machine made as `settings` say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut writer = Self {
            objects: Objects::default(),
            text: String::new(),
            input: None,
            gone: None,
            open: BTreeSet::new(),
            kept_max: KEPT_MAX,
        };
        writer.line(&settings.to_value());
        writer
    }

    /// Keeps at most so many objects instead of [`KEPT_MAX`]: when there are more, all are written anew.
    #[must_use]
    pub fn keeping(mut self, most: usize) -> Self {
        self.kept_max = most.clamp(1, KEPT_MAX);
        self
    }

    fn line(&mut self, value: &Value) {
        push(&mut self.text, value);
    }

    /// The machine takes an input; none is a wake.
    pub fn input(&mut self, now: Time, event: Option<&Event>) {
        if self.objects.len() >= self.kept_max {
            self.objects.forget();
            self.line(&json!({"forget": true}));
        }
        let Self { objects, text, open, .. } = self;
        let alone = |field: &str| Some(Map::from_iter([(field.into(), json!(true))]));
        let fields = match event {
            None => alone("wake"),
            Some(Event::Client(ClientEvent::Reply { id, .. })) if !open.contains(id) => alone("noted"),
            Some(event) => input_of(event, |object| number(objects, text, object)),
        };
        self.gone = match event {
            Some(Event::Client(ClientEvent::Watch {
                event: WatchEvent { kind: WatchKind::Deleted, object },
                ..
            })) => Some(Arc::clone(object)),
            _ => None,
        };
        if let Some(
            Event::Client(ClientEvent::Reply { id, .. } | ClientEvent::WatchClosed { id, .. })
            | Event::Extender { id, .. }
            | Event::Bound { id, .. },
        ) = event
        {
            open.remove(id);
        }
        self.input = fields.map(|mut fields| {
            fields.insert("at".into(), json!(now.as_micros()));
            fields
        });
    }

    /// What the machine wants done after the input, and what it decided on it.
    pub fn done(&mut self, effects: &[Effect], decisions: &[Decision]) {
        let Some(mut fields) = self.input.take() else { return };
        let asked: Vec<(RequestId, String)> = effects.iter().filter_map(purpose).collect();
        if !asked.is_empty() {
            self.open.extend(asked.iter().map(|(id, _)| id));
            fields.insert("asked".into(), json!(asked));
        }
        if !decisions.is_empty() {
            fields.insert("decided".into(), decisions.iter().map(decision_of).collect());
        }
        self.line(&Value::Object(fields));
        if let Some(object) = self.gone.take() {
            self.objects.gone(&object);
        }
        self.objects.settle();
    }

    /// Takes the lines since the last call, each with its end.
    pub fn take(&mut self) -> String {
        core::mem::take(&mut self.text)
    }
}

fn push(text: &mut String, value: &Value) {
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
}

/// The number of an object, which is written if this version was not yet.
fn number(objects: &mut Objects, text: &mut String, object: &Arc<Object>) -> u64 {
    let newest = objects.newest(object);
    if let Some((number, known)) = newest
        && (Arc::ptr_eq(known, object) || known == object)
    {
        return number;
    }
    let mut line = json!({"n": objects.next(), "object": plain(object)});
    if let Some((of, known)) = newest
        && let Some(merge) = difference(&plain(known), &plain(object))
    {
        line = json!({"n": objects.next(), "of": of, "merge": merge});
    }
    push(text, &line);
    objects.put(Arc::clone(object))
}

/// The object without what only servers look at.
fn plain(object: &Object) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    value
}

/// A scheduler that tells its history: each input gives one [`Effect::Recorded`] before its other effects, to be written
/// before those are carried out.
pub struct Recorder {
    machine: SchedulerMachine,
    writer: Writer,
}

impl core::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Recorder").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Recorder {
    /// The machine that `settings` describe.
    ///
    /// # Errors
    /// If the configuration cannot be carried out.
    pub fn new(settings: &Settings, registry: &Registry) -> Result<Self, ConfigErrors> {
        let mut machine = settings.scheduler(registry)?;
        machine.keep_decisions();
        Ok(Self { machine, writer: Writer::new(settings) })
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &SchedulerMachine {
        &self.machine
    }

    fn tell(&mut self, before: usize, out: &mut [Effect]) {
        self.writer.done(out.get(before..).unwrap_or_default(), self.machine.decisions());
        if let Some(place) = out.get_mut(before) {
            *place = Effect::Recorded(self.writer.take());
        }
    }
}

impl Machine for Recorder {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        let before = out.len();
        out.push(Effect::Recorded(String::new()));
        self.writer.input(now, Some(&event));
        self.machine.on(now, event, out);
        self.tell(before, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        let before = out.len();
        out.push(Effect::Recorded(String::new()));
        self.writer.input(now, None);
        self.machine.wake(now, out);
        self.tell(before, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.machine.deadline()
    }
}
