//! The cluster's zone, kept up to date.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::{Object, resources};
use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEvent, Delta, Informer, ListOptions, ObjectKey, RequestIds};

use super::config::{DnsConfig, PodMode};
use super::model::{Service, Slice, pod_ips};
use super::wire::LABEL_BYTES_MAX;
use super::zone::{Entry, Reverse, Snapshot, build};
use super::{DnsEffect, DnsEvent};
use crate::service::SERVICE_NAME_LABEL;

/// Cluster DNS as a machine: Services, EndpointSlices and Namespaces in (and pods, if their records are verified),
/// snapshots of the zone out.
///
/// Nothing is published before all were listed; from then on one snapshot for each event that changed a name. If the
/// API server is lost, the last state stays.
#[derive(Debug)]
pub struct DnsMachine {
    config: DnsConfig,
    ids: RequestIds,
    started: bool,
    services: Informer,
    slices: Informer,
    namespaces: Informer,
    pods: Option<Informer>,
    observed: BTreeMap<ObjectKey, Observed>,
    pointers: BTreeMap<IpAddr, Pointer>,
    pod_namespaces: BTreeMap<IpAddr, BTreeMap<ObjectKey, ()>>,
    /// Namespaces of services, with how many each has: a service may be seen before its namespace.
    implied: BTreeMap<Vec<u8>, usize>,
    listed: BTreeSet<Vec<u8>>,
    touched: BTreeSet<ObjectKey>,
    dirty: bool,
    snapshot: Snapshot,
}

/// What is known of one service.
#[derive(Debug, Default)]
struct Observed {
    service: Option<Service>,
    slices: BTreeMap<alloc::string::String, Slice>,
    entry: Option<Arc<Entry>>,
    reverse: Reverse,
}

/// Who is at an address.
#[derive(Debug, Default)]
struct Pointer {
    cluster: BTreeSet<ObjectKey>,
    endpoints: BTreeSet<(ObjectKey, Arc<[u8]>)>,
}

impl DnsMachine {
    /// A server that was not started yet.
    #[must_use]
    pub fn new(config: DnsConfig) -> Self {
        let pods = || Informer::new(resources::PODS, ListOptions::default());
        Self {
            ids: RequestIds::new(),
            started: false,
            services: Informer::new(resources::SERVICES, ListOptions::default()),
            slices: Informer::new(resources::ENDPOINT_SLICES, ListOptions::default()),
            namespaces: Informer::new(resources::NAMESPACES, ListOptions::default()),
            pods: (config.pods == PodMode::Verified).then(pods),
            observed: BTreeMap::new(),
            pointers: BTreeMap::new(),
            pod_namespaces: BTreeMap::new(),
            implied: BTreeMap::new(),
            listed: BTreeSet::new(),
            touched: BTreeSet::new(),
            dirty: false,
            snapshot: Snapshot::new(&config),
            config,
        }
    }

    /// Begins to follow the cluster; the first [`Machine::wake`] does so too.
    pub fn start(&mut self, now: Time, out: &mut Vec<DnsEffect>) {
        self.started = true;
        self.namespaces.start(now, &mut self.ids, out);
        self.services.start(now, &mut self.ids, out);
        self.slices.start(now, &mut self.ids, out);
        if let Some(pods) = &mut self.pods {
            pods.start(now, &mut self.ids, out);
        }
    }

    /// The zone as it is now.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn on_client(&mut self, now: Time, event: &ClientEvent, out: &mut Vec<DnsEffect>) {
        for delta in self.namespaces.on(now, event, out) {
            let label = lower(&delta.object().metadata.name);
            self.dirty |= match delta {
                Delta::Deleted(_) => self.listed.remove(&label),
                Delta::Added(_) | Delta::Updated { .. } => self.listed.insert(label.clone()),
            };
            self.name_namespace(&label);
        }
        for delta in self.services.on(now, event, out) {
            let present = !matches!(delta, Delta::Deleted(_));
            self.service(delta.object(), present);
        }
        for delta in self.slices.on(now, event, out) {
            if let Delta::Updated { old, new } = &delta
                && old.metadata.labels.get(SERVICE_NAME_LABEL) != new.metadata.labels.get(SERVICE_NAME_LABEL)
            {
                self.slice(old, false);
            }
            let present = !matches!(delta, Delta::Deleted(_));
            self.slice(delta.object(), present);
        }
        let deltas = self.pods.as_mut().map(|pods| pods.on(now, event, out)).unwrap_or_default();
        for delta in deltas {
            match delta {
                Delta::Added(new) => self.pod(&new, true),
                Delta::Deleted(old) => self.pod(&old, false),
                Delta::Updated { old, new } => {
                    self.pod(&old, false);
                    self.pod(&new, true);
                }
            }
        }
    }

    fn service(&mut self, object: &Object, present: bool) {
        let key = ObjectKey::of(object);
        let service = if present { Service::of(object) } else { None };
        let observed = self.observed.entry(key.clone()).or_default();
        if observed.service == service {
            return;
        }
        let label = lower(&key.namespace);
        let count = self.implied.entry(label.clone()).or_default();
        match (observed.service.is_some(), service.is_some()) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            _ => {}
        }
        if *count == 0 {
            self.implied.remove(&label);
        }
        observed.service = service;
        self.touched.insert(key);
        self.name_namespace(&label);
    }

    fn slice(&mut self, object: &Object, present: bool) {
        let Some(service) = object.metadata.labels.get(SERVICE_NAME_LABEL) else { return };
        let key = ObjectKey::new(&object.metadata.namespace, service);
        let slices = &mut self.observed.entry(key.clone()).or_default().slices;
        let slice = present.then(|| Slice::of(object));
        let name = &object.metadata.name;
        if slices.get(name) != slice.as_ref() {
            match slice {
                Some(slice) => slices.insert(name.clone(), slice),
                None => slices.remove(name),
            };
        }
        self.touched.insert(key);
    }

    /// Puts a namespace among those that exist, or takes it out.
    fn name_namespace(&mut self, label: &[u8]) {
        let present = self.listed.contains(label) || self.implied.contains_key(label);
        if self.snapshot.namespaces.contains(label) != present {
            let namespaces = Arc::make_mut(&mut self.snapshot.namespaces);
            if present {
                namespaces.insert(label.into())
            } else {
                namespaces.remove(label)
            };
            self.dirty = true;
        }
    }

    fn pod(&mut self, object: &Object, present: bool) {
        let key = ObjectKey::of(object);
        for ip in pod_ips(object) {
            let pods = self.pod_namespaces.entry(ip).or_default();
            if present {
                pods.insert(key.clone(), ())
            } else {
                pods.remove(&key)
            };
            let labels: BTreeSet<Arc<[u8]>> = pods.keys().map(|k| lower(&k.namespace).into()).collect();
            if pods.is_empty() {
                self.pod_namespaces.remove(&ip);
            }
            if self.snapshot.pods.get(&ip).map_or(!labels.is_empty(), |known| **known != labels) {
                self.snapshot.pods.set(ip, (!labels.is_empty()).then(|| Arc::new(labels)));
                self.dirty = true;
            }
        }
    }

    /// Makes the records of each service anew that something happened to.
    fn rebuild(&mut self) {
        for key in core::mem::take(&mut self.touched) {
            let Some(observed) = self.observed.get_mut(&key) else { continue };
            let pod_names = self.config.endpoint_pod_names;
            let (entry, reverse) = match &observed.service {
                Some(service) => build(service, observed.slices.values(), pod_names),
                None => (None, Reverse::default()),
            };
            let old = core::mem::replace(&mut observed.reverse, reverse);
            let changed = observed.entry.as_deref() != entry.as_ref();
            let new = observed.reverse.clone();
            if changed {
                observed.entry = entry.map(Arc::new);
                if let Some(labels) = labels_of(&key, &[]) {
                    self.snapshot.services.set((&*labels).into(), observed.entry.clone());
                    self.dirty = true;
                }
            }
            if observed.service.is_none() && observed.slices.is_empty() {
                self.observed.remove(&key);
            }
            self.point(&key, &old, &new);
        }
    }

    /// Moves what leads back to a service from `old` to `new`.
    fn point(&mut self, key: &ObjectKey, old: &Reverse, new: &Reverse) {
        let mut changed = BTreeSet::new();
        for ip in old.cluster.difference(&new.cluster) {
            self.pointers.entry(*ip).or_default().cluster.remove(key);
            changed.insert(*ip);
        }
        for ip in new.cluster.difference(&old.cluster) {
            self.pointers.entry(*ip).or_default().cluster.insert(key.clone());
            changed.insert(*ip);
        }
        for (ip, host) in old.endpoints.difference(&new.endpoints) {
            self.pointers.entry(*ip).or_default().endpoints.remove(&(key.clone(), host.clone()));
            changed.insert(*ip);
        }
        for (ip, host) in new.endpoints.difference(&old.endpoints) {
            self.pointers.entry(*ip).or_default().endpoints.insert((key.clone(), host.clone()));
            changed.insert(*ip);
        }
        for ip in changed {
            let Some(pointer) = self.pointers.get(&ip) else { continue };
            let names: Vec<Arc<[u8]>> = match pointer.cluster.first() {
                // A service's own address goes before its endpoints' (`serviceRecordForIP` of CoreDNS).
                Some(service) => labels_of(service, &[b"svc"]).into_iter().collect(),
                None => pointer.endpoints.iter().filter_map(|(service, host)| below(host, service)).collect(),
            };
            if pointer.cluster.is_empty() && pointer.endpoints.is_empty() {
                self.pointers.remove(&ip);
            }
            self.snapshot.pointers.set(ip, (!names.is_empty()).then(|| names.into()));
            self.dirty = true;
        }
    }

    fn step(&mut self, now: Time, out: &mut Vec<DnsEffect>) {
        self.rebuild();
        let synced = self.services.synced()
            && self.slices.synced()
            && self.namespaces.synced()
            && self.pods.as_ref().is_none_or(Informer::synced);
        if !synced || (self.snapshot.synced && !self.dirty) {
            return;
        }
        self.dirty = false;
        self.snapshot.synced = true;
        // Serial numbers wrap around (RFC 1982).
        self.snapshot.serial = u32::try_from(now.as_secs() & i64::from(u32::MAX)).unwrap_or(0);
        out.push(DnsEffect::Publish(Arc::new(self.snapshot.clone())));
    }
}

impl Machine for DnsMachine {
    type Event = DnsEvent;
    type Effect = DnsEffect;

    fn on(&mut self, now: Time, event: DnsEvent, out: &mut Vec<DnsEffect>) {
        match event {
            DnsEvent::Client(event) => self.on_client(now, &event, out),
            DnsEvent::Hosts(hosts) => {
                self.dirty |= *self.snapshot.hosts != hosts;
                self.snapshot.hosts = Arc::new(hosts);
            }
        }
        self.step(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<DnsEffect>) {
        if !self.started {
            return self.start(now, out);
        }
        for informer in
            [&mut self.namespaces, &mut self.services, &mut self.slices].into_iter().chain(&mut self.pods)
        {
            informer.wake(now, out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let informers = [&self.namespaces, &self.services, &self.slices].into_iter().chain(&self.pods);
        informers.filter_map(Informer::deadline).min()
    }
}

/// A name of an object as a label: API servers give names in lower case, others could do otherwise.
fn lower(text: &str) -> Vec<u8> {
    text.to_ascii_lowercase().into_bytes()
}

/// The labels with their lengths, in lower case; `None` if one is empty or too long, so that no query can ask for it.
fn labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Arc<[u8]>> {
    let mut wire = Vec::new();
    for label in labels {
        let length =
            u8::try_from(label.len()).ok().filter(|n| (1..=LABEL_BYTES_MAX).contains(&usize::from(*n)))?;
        wire.push(length);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    Some(wire.into())
}

fn labels_of(key: &ObjectKey, more: &[&[u8]]) -> Option<Arc<[u8]>> {
    labels([key.name.as_bytes(), key.namespace.as_bytes()].into_iter().chain(more.iter().copied()))
}

fn below(host: &[u8], key: &ObjectKey) -> Option<Arc<[u8]>> {
    labels([host, key.name.as_bytes(), key.namespace.as_bytes(), b"svc"])
}
