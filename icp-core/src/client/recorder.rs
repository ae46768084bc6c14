//! Events for people, as requests.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::json;

use super::{ApiRequest, Operation, PatchKind};
use crate::api::{Object, resources};
use crate::base::{Duration, Rng, Time};

/// An Event that repeats within this time continues its series (KEP-383).
const SERIES_GAP: Duration = Duration::from_secs(360);
/// Events and objects that are remembered; those that were quiet longest are forgotten first.
const REMEMBERED_MAX: usize = 4096;
/// Events of one object in one burst, and how often one more is allowed (client-go `EventSourceObjectSpamFilter`).
const BURST_MAX: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// Longest note, in bytes (events.k8s.io validation).
const NOTE_BYTES_MAX: usize = 1024;

/// Whether an Event tells of something that should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Nothing to worry about.
    Normal,
    /// Something that may cause trouble.
    Warning,
}

impl EventType {
    /// The value of `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Normal or Warning.
    pub kind: EventType,
    /// Why, in CamelCase: `SuccessfulCreate`.
    pub reason: &'static str,
    /// What was done, in CamelCase: `Create`; upstream's legacy recorders leave it at the reason.
    pub action: &'static str,
    /// For people; cut to 1024 bytes.
    pub note: String,
}

#[derive(Debug)]
struct Series {
    name: String,
    count: u32,
    last: Time,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Time,
    used: Time,
}

/// Makes room in a full map: an eighth of it goes, those that were quiet longest, so that a full map does not cost a
/// look at all of it for each Event.
fn forget_quiet<K: Ord, V>(map: &mut BTreeMap<K, V>, last: impl Fn(&V) -> Time) {
    if map.len() < REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Time> = map.values().map(&last).collect();
    let mut left = times.len() / 8;
    let (_, quiet, _) = times.select_nth_unstable(left);
    let quiet = *quiet;
    // Older ones first: of those that are as old as the bound, only what is still wanted goes.
    map.retain(|_, v| {
        let goes = left > 0 && last(v) < quiet;
        left -= usize::from(goes);
        !goes
    });
    map.retain(|_, v| {
        let goes = left > 0 && last(v) == quiet;
        left -= usize::from(goes);
        !goes
    });
}

/// Makes `events.k8s.io/v1` Events: one object per occurrence, or one series for those that repeat within six
/// minutes; what an object tells too often is dropped.
///
/// ```
/// use icp_core::api::Object;
/// use icp_core::base::{Rng, Time};
/// use icp_core::client::{EventNote, EventRecorder, EventType, Operation};
/// let mut recorder = EventRecorder::new("replicaset-controller", "m1", Rng::new(1));
/// let rs = Object::new("apps/v1", "ReplicaSet", "default", "web");
/// let note = EventNote { kind: EventType::Normal, reason: "SuccessfulCreate", action: "Create", note: "Created pod: web-x".into() };
/// let first = recorder.record(Time::ZERO, &rs, &note).unwrap();
/// assert!(matches!(first.op, Operation::Create(_)));
/// let second = recorder.record(Time::ZERO, &rs, &note).unwrap();
/// assert!(matches!(second.op, Operation::Patch { .. })); // series.count = 2
/// ```
#[derive(Debug)]
pub struct EventRecorder {
    controller: String,
    instance: String,
    rng: Rng,
    /// The number of the last name.
    stamp: u64,
    series: BTreeMap<(String, String), Series>,
    buckets: BTreeMap<String, Bucket>,
}

impl EventRecorder {
    /// A recorder for the component `controller` on `instance`.
    #[must_use]
    pub fn new(controller: &str, instance: &str, rng: Rng) -> Self {
        Self {
            controller: controller.into(),
            instance: instance.into(),
            rng,
            stamp: 0,
            series: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// The request that tells `note` about `regarding`, or nothing if the object told too much.
    pub fn record(&mut self, now: Time, regarding: &Object, note: &EventNote) -> Option<ApiRequest> {
        let subject = format!("{}/{}/{}", regarding.kind, regarding.key(), regarding.metadata.uid);
        if !self.take_token(now, &subject) {
            return None;
        }
        let namespace = match regarding.metadata.namespace.as_str() {
            "" => "default",
            ns => ns,
        };
        let what = format!("{}\n{}\n{}\n{}", note.kind.as_str(), note.reason, note.action, note.note);
        let key = (subject, what);
        if let Some(series) = self.series.get_mut(&key).filter(|s| now.since(s.last) < SERIES_GAP) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            let body = json!({
                "series": {"count": series.count, "lastObservedTime": now.to_rfc3339_micros()},
                "deprecatedCount": series.count,
                "deprecatedLastTimestamp": now.to_rfc3339(),
            });
            let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
            return Some(ApiRequest::object(&resources::EVENTS, namespace, &series.name, op));
        }
        let name = format!("{}.{:016x}", regarding.metadata.name, self.stamp(now));
        forget_quiet(&mut self.series, |s| s.last);
        self.series.insert(key, Series { name: name.clone(), count: 1, last: now });
        let event = Arc::new(self.event(now, namespace, &name, regarding, note));
        Some(ApiRequest::collection(&resources::EVENTS, namespace, Operation::Create(event)))
    }

    /// A number for the name of an Event: nanoseconds since 1970 as upstream, the last three digits by chance, and never
    /// less than the one before. `kubectl describe` shows Events of one second in the order of their names.
    fn stamp(&mut self, now: Time) -> u64 {
        let nanos = u64::try_from(now.as_micros()).unwrap_or(0).saturating_mul(1000);
        let next = nanos.saturating_add(self.rng.below(1000));
        self.stamp = next.max(self.stamp.saturating_add(1));
        self.stamp
    }

    fn event(&self, now: Time, namespace: &str, name: &str, regarding: &Object, note: &EventNote) -> Object {
        let mut event = Object::new("events.k8s.io/v1", "Event", namespace, name);
        let mut reference = json!({
            "apiVersion": regarding.api_version,
            "kind": regarding.kind,
            "name": regarding.metadata.name,
            "uid": regarding.metadata.uid,
            "resourceVersion": regarding.metadata.resource_version,
        });
        if let Some(map) = reference.as_object_mut().filter(|_| !regarding.metadata.namespace.is_empty()) {
            map.insert("namespace".into(), json!(regarding.metadata.namespace));
        }
        let mut cut = note.note.len().min(NOTE_BYTES_MAX);
        while !note.note.is_char_boundary(cut) {
            cut -= 1;
        }
        let fields = [
            ("eventTime", json!(now.to_rfc3339_micros())),
            ("reportingController", json!(self.controller)),
            ("reportingInstance", json!(self.instance)),
            ("action", json!(note.action)),
            ("reason", json!(note.reason)),
            ("regarding", reference),
            ("note", json!(note.note.get(..cut).unwrap_or_default())),
            ("type", json!(note.kind.as_str())),
            ("deprecatedSource", json!({"component": self.controller})),
            ("deprecatedFirstTimestamp", json!(now.to_rfc3339())),
            ("deprecatedLastTimestamp", json!(now.to_rfc3339())),
            ("deprecatedCount", json!(1)),
        ];
        event.rest.extend(fields.into_iter().map(|(k, v)| (k.into(), v)));
        event
    }

    fn take_token(&mut self, now: Time, subject: &str) -> bool {
        if !self.buckets.contains_key(subject) {
            forget_quiet(&mut self.buckets, |b| b.used);
        }
        let fresh = Bucket { tokens: BURST_MAX, refilled: now, used: now };
        let bucket = self.buckets.entry(subject.into()).or_insert(fresh);
        bucket.used = now;
        let refills = now.since(bucket.refilled).as_secs() / REFILL.as_secs();
        if refills > 0 {
            bucket.tokens =
                u32::try_from(refills).unwrap_or(BURST_MAX).saturating_add(bucket.tokens).min(BURST_MAX);
            bucket.refilled = now;
        }
        bucket.tokens = match bucket.tokens.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> EventNote {
        EventNote { kind: EventType::Warning, reason: "FailedCreate", action: "Create", note: text.into() }
    }

    fn recorder() -> EventRecorder {
        EventRecorder::new("job-controller", "m1", Rng::new(1))
    }

    #[test]
    fn repeats_continue_the_series_until_six_quiet_minutes() {
        let (mut r, rs) = (recorder(), Object::new("apps/v1", "ReplicaSet", "ns", "web"));
        let first = r.record(Time::ZERO, &rs, &note("no")).unwrap();
        let Operation::Create(event) = first.op else { panic!() };
        assert_eq!(event.str_at("/regarding/namespace"), "ns");
        let second = r.record(Time::from_secs(300), &rs, &note("no")).unwrap();
        assert_eq!(second.name.as_ref(), Some(&event.metadata.name));
        let Operation::Patch { body, .. } = second.op else { panic!() };
        assert_eq!(body["series"]["count"], 2);
        let third = r.record(Time::from_secs(700), &rs, &note("no")).unwrap();
        assert!(matches!(third.op, Operation::Create(_)));
        assert!(matches!(
            r.record(Time::from_secs(700), &rs, &note("other")).unwrap().op,
            Operation::Create(_)
        ));
    }

    #[test]
    fn names_are_in_the_order_of_time() {
        let (mut r, pod) = (recorder(), Object::new("v1", "Pod", "ns", "web"));
        let times = [0, 5, 5, 5, 6];
        let names: alloc::vec::Vec<String> = (times.iter().enumerate())
            .map(|(i, t)| match r.record(Time::from_secs(*t), &pod, &note(&format!("{i}"))).unwrap().op {
                Operation::Create(event) => event.metadata.name.clone(),
                _ => panic!(),
            })
            .collect();
        assert!(names.is_sorted() && names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    }

    #[test]
    fn a_chatty_object_is_cut_off_and_forgiven() {
        let (mut r, node) = (recorder(), Object::new("v1", "Node", "", "w1"));
        let told = (0..100).filter(|_| r.record(Time::ZERO, &node, &note("x")).is_some()).count();
        assert_eq!(told, 25);
        let request = r.record(Time::from_secs(300), &node, &note("x")).unwrap();
        assert_eq!(request.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn more_objects_than_are_remembered_are_told_of_all_the_same() {
        let mut r = recorder();
        let chatty = Object::new("v1", "Node", "", "w1");
        while r.record(Time::ZERO, &chatty, &note("x")).is_some() {}
        for i in 0..3 * REMEMBERED_MAX {
            let now = Time::from_micros(i64::try_from(i).unwrap());
            let pod = Object::new("v1", "Pod", "ns", &format!("p{i}"));
            assert!(r.record(now, &pod, &note("x")).is_some(), "{i}");
            assert!(r.record(now, &chatty, &note("x")).is_none(), "{i}: it never was quiet");
        }
        assert!(r.buckets.len() <= REMEMBERED_MAX && r.series.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn as_many_are_forgotten_as_make_room_when_all_are_of_one_time() {
        let mut map: BTreeMap<usize, Time> = (0..REMEMBERED_MAX).map(|i| (i, Time::ZERO)).collect();
        forget_quiet(&mut map, |t| *t);
        assert_eq!(map.len(), REMEMBERED_MAX - REMEMBERED_MAX / 8);
        forget_quiet(&mut map, |t| *t);
        assert_eq!(map.len(), REMEMBERED_MAX - REMEMBERED_MAX / 8);
    }

    #[test]
    fn long_notes_are_cut_at_a_character() {
        let long: String = core::iter::repeat_n('ä', 600).collect();
        let request =
            recorder().record(Time::ZERO, &Object::new("v1", "Node", "", "w1"), &note(&long)).unwrap();
        let Operation::Create(event) = request.op else { panic!() };
        assert_eq!(event.str_at("/note").len(), 1024);
    }
}
