//! All services of one address family: what the table should hold, and what of it was told already.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::compile::{Compiled, Frontend, PortSlots, compile, frontends, slots_from};
use super::config::Config;
use super::endpoints::choose;
use super::layout::{Classes, Kind, Layout};
use super::model::{Protocol, Service, Slice};
use crate::rules::{Batch, Change, Data, Key, SetSpec, Snapshot, Table, TableId, Value, sync};

/// A UDP frontend whose endpoints changed, so that connection tracking may hold flows to endpoints that are gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaleFlows {
    /// The address clients sent to; `None` for a node port.
    pub ip: Option<core::net::IpAddr>,
    /// The port clients sent to.
    pub port: u16,
    /// Where flows may go to; all others are stale.
    pub endpoints: Vec<super::Endpoint>,
}

/// Services and slices as they are observed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: BTreeMap<ObjectKey, BTreeMap<alloc::string::String, Slice>>,
}

#[derive(Debug)]
pub(crate) struct FamilyState {
    ipv6: bool,
    id: TableId,
    specs: BTreeMap<&'static str, SetSpec>,
    /// Chains and small verdict maps, as they were last told.
    skeleton: Option<Table>,
    classes: Classes,
    compiled: BTreeMap<ObjectKey, Compiled>,
    claims: BTreeMap<Frontend, BTreeSet<ObjectKey>>,
    shared: BTreeMap<(&'static str, Key), usize>,
    /// Slots found in the kernel at the start, by the key of the frontend.
    found: BTreeMap<(Kind, Value), PortSlots>,
    dirty: BTreeSet<ObjectKey>,
}

/// What is to be written, before it is known in which order.
#[derive(Debug, Default)]
struct Pending {
    gone: BTreeMap<&'static str, Vec<(Key, Data)>>,
    new: BTreeMap<&'static str, Vec<(Key, Data)>>,
    stale: BTreeSet<Frontend>,
}

/// The set names that elements are kept under; they live as long as the program.
const SETS: [&str; 12] = [
    Kind::Address.classes(),
    Kind::Address.endpoints(),
    Kind::Address.rejected(),
    Kind::Address.dropped(),
    Kind::NodePort.classes(),
    Kind::NodePort.endpoints(),
    Kind::NodePort.rejected(),
    Kind::NodePort.dropped(),
    super::layout::CLUSTER_IPS,
    super::layout::HAIRPIN,
    super::layout::GUARDED,
    super::layout::ALLOWED_SOURCES,
];

impl FamilyState {
    pub(crate) fn new(config: &Config, ipv6: bool) -> Self {
        let layout = Layout { config, ipv6 };
        let all = layout.sets();
        let specs = SETS.iter().filter_map(|n| Some((*n, all.iter().find(|s| s.name == *n)?.clone())));
        Self {
            ipv6,
            id: TableId { family: layout.family(), name: config.table.clone() },
            specs: specs.collect(),
            skeleton: None,
            classes: Classes::default(),
            compiled: BTreeMap::new(),
            claims: BTreeMap::new(),
            shared: BTreeMap::new(),
            found: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    pub(crate) const fn id(&self) -> &TableId {
        &self.id
    }

    /// The service changed, or its endpoints did.
    pub(crate) fn touch(&mut self, service: &ObjectKey) {
        self.dirty.insert(service.clone());
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.skeleton.is_none()
    }

    /// Compiles what changed, and says what is to be written.
    pub(crate) fn delta(&mut self, config: &Config, observed: &Observed) -> (Batch, Vec<StaleFlows>) {
        let pending = self.recompile(config, observed);
        let mut batch = Batch::new();
        let skeleton = Layout { config, ipv6: self.ipv6 }.table(&self.classes);
        if let Some(old) = &self.skeleton
            && *old != skeleton
        {
            batch = sync(&skeleton, Some(&Snapshot::from(old)));
        }
        self.skeleton = Some(skeleton);
        for (set, elements) in pending.gone {
            if let Some(spec) = self.specs.get(set) {
                batch.changes.push(Change::DeleteElements(self.id.clone(), spec.clone(), elements));
            }
        }
        for (set, elements) in pending.new {
            if let Some(spec) = self.specs.get(set) {
                batch.changes.push(Change::AddElements(self.id.clone(), spec.clone(), elements));
            }
        }
        (batch, self.stale_flows(&pending.stale))
    }

    /// What is to be written so that a kernel that holds `snapshot` holds the right thing.
    pub(crate) fn resync(
        &mut self,
        config: &Config,
        observed: &Observed,
        snapshot: Option<&Snapshot>,
    ) -> (Batch, Vec<StaleFlows>) {
        if self.skeleton.is_none()
            && let Some(snapshot) = snapshot
        {
            for kind in Kind::BOTH {
                if let Some(set) = snapshot.sets.get(kind.endpoints()) {
                    let slots = slots_from(&set.elements, self.ipv6);
                    self.found.extend(slots.into_iter().map(|(at, slots)| ((kind, at), slots)));
                }
            }
        }
        let pending = self.recompile(config, observed);
        self.found.clear();
        let table = self.table(config);
        let batch = sync(&table, snapshot);
        self.skeleton = Some(Layout { config, ipv6: self.ipv6 }.table(&self.classes));
        // After a restart nobody knows what changed meanwhile: all UDP frontends are checked.
        let every: BTreeSet<Frontend> = self.claims.keys().copied().collect();
        let stale = if batch.is_empty() { &pending.stale } else { &every };
        (batch, self.stale_flows(stale))
    }

    /// The whole table as it should be.
    pub(crate) fn table(&self, config: &Config) -> Table {
        let mut table = Layout { config, ipv6: self.ipv6 }.table(&self.classes);
        let own = self.compiled.values().flat_map(|c| &c.elements);
        let shared = self.shared.keys().map(|(set, key)| ((*set, key.clone()), Data::None));
        for ((set, key), data) in own.cloned().chain(shared) {
            if let Some(set) = table.sets.get_mut(set) {
                set.elements.insert(key, data);
            }
        }
        table
    }

    /// How many services, classes and elements there are.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let elements: usize = self.compiled.values().map(|c| c.elements.len()).sum();
        (self.compiled.len(), self.classes.len(), elements + self.shared.len())
    }

    fn recompile(&mut self, config: &Config, observed: &Observed) -> Pending {
        let mut pending = Pending::default();
        // Who claims what first: a frontend that changes hands touches the service on the other side, too.
        let changed = core::mem::take(&mut self.dirty);
        let mut again = changed.clone();
        for key in &changed {
            let now: BTreeSet<Frontend> = observed
                .services
                .get(key)
                .map(|s| frontends(s, self.ipv6).into_iter().collect())
                .unwrap_or_default();
            let before: Vec<Frontend> = self.compiled.get(key).map(|c| c.claimed.clone()).unwrap_or_default();
            for frontend in before.iter().filter(|f| !now.contains(f)) {
                if let Some(claimants) = self.claims.get_mut(frontend) {
                    claimants.remove(key);
                    again.extend(claimants.first().cloned());
                    if claimants.is_empty() {
                        self.claims.remove(frontend);
                    }
                }
            }
            for frontend in now {
                let claimants = self.claims.entry(frontend).or_default();
                claimants.insert(key.clone());
                again.extend(claimants.iter().take(2).cloned());
            }
        }
        for key in again {
            self.recompile_one(config, observed, &key, &mut pending);
        }
        pending.settle();
        pending
    }

    fn recompile_one(
        &mut self,
        config: &Config,
        observed: &Observed,
        key: &ObjectKey,
        pending: &mut Pending,
    ) {
        let old = self.compiled.remove(key).unwrap_or_default();
        let new = observed.services.get(key).map(|service| {
            let none = BTreeMap::new();
            let slices = observed.slices.get(key).unwrap_or(&none);
            let chosen: Vec<_> = service
                .ports
                .iter()
                .map(|port| choose(slices.values(), port, self.ipv6, config.zone.as_deref()))
                .collect();
            let (claims, found, family) = (&self.claims, &self.found, self.ipv6);
            let owns = |f: &Frontend| claims.get(f).and_then(BTreeSet::first) == Some(key);
            let previous = |port: &super::model::ServicePort| {
                if let Some(slots) = old.slots.get(&(port.protocol, port.port)) {
                    return slots.clone();
                }
                let at = |ip, port_number| Frontend { ip, protocol: port.protocol, port: port_number };
                let of_family = |ip: &&core::net::IpAddr| ip.is_ipv6() == family;
                let addresses = service.cluster_ips.iter().chain(&service.external_ips).filter(of_family);
                let all = addresses.map(|ip| at(Some(*ip), port.port)).chain([at(None, port.node_port)]);
                // A ClusterIP of the policy Local has the local endpoints where others have all.
                let mut slots = PortSlots::default();
                for f in all {
                    let Some(was) = found.get(&(f.kind(), f.key())) else { continue };
                    let inside = f.ip.is_some_and(|ip| service.cluster_ips.contains(&ip));
                    if inside && service.internal_local {
                        slots.local = was.all.clone();
                    } else {
                        slots.all = was.all.clone();
                        if slots.local.is_empty() {
                            slots.local = was.local.clone();
                        }
                    }
                }
                slots
            };
            let mut new = compile(service, self.ipv6, &chosen, owns, previous, &mut self.classes);
            new.claimed = frontends(service, self.ipv6);
            new
        });
        for (kind, class) in &old.classes {
            self.classes.release(*kind, *class);
        }
        let new_ref = new.as_ref();
        pending.differences(&old.elements, new_ref.map_or(&[][..], |n| &n.elements));
        let none = BTreeSet::new();
        let wanted = new_ref.map_or(&none, |n| &n.shared);
        for item in wanted.difference(&old.shared) {
            let count = self.shared.entry(item.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                pending.new.entry(item.0).or_default().push((item.1.clone(), Data::None));
            }
        }
        for item in old.shared.difference(wanted) {
            if let Some(count) = self.shared.get_mut(item) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(item);
                    pending.gone.entry(item.0).or_default().push((item.1.clone(), Data::None));
                }
            }
        }
        let udp = |c: &Compiled| -> Vec<Frontend> {
            c.claimed.iter().filter(|f| f.protocol == Protocol::Udp).copied().collect()
        };
        if new_ref.is_none_or(|n| n.elements != old.elements) {
            pending.stale.extend(udp(&old));
            pending.stale.extend(new_ref.map(udp).unwrap_or_default());
        }
        if let Some(new) = new {
            self.compiled.insert(key.clone(), new);
        }
    }

    fn stale_flows(&self, frontends: &BTreeSet<Frontend>) -> Vec<StaleFlows> {
        let udp = frontends.iter().filter(|f| f.protocol == Protocol::Udp);
        udp.map(|f| {
            let owner = self.claims.get(f).and_then(BTreeSet::first).and_then(|key| self.compiled.get(key));
            let mut endpoints: Vec<super::Endpoint> = owner
                .into_iter()
                .filter(|c| c.claimed.contains(f))
                .flat_map(|c| c.slots.iter())
                .filter(|((protocol, _), _)| *protocol == f.protocol)
                .flat_map(|(_, slots)| slots.all.values().chain(slots.local.values()).copied())
                .collect();
            endpoints.sort_unstable();
            endpoints.dedup();
            StaleFlows { ip: f.ip, port: f.port, endpoints }
        })
        .collect()
    }
}

impl Pending {
    /// Both lists are sorted.
    fn differences(&mut self, old: &[super::compile::Element], new: &[super::compile::Element]) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => core::cmp::Ordering::Less,
                (None, Some(_)) => core::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            if order.is_le()
                && let Some(((set, key), data)) = old.next()
                && order.is_lt()
            {
                self.gone.entry(set).or_default().push((key.clone(), data.clone()));
            }
            if order.is_ge()
                && let Some(((set, key), data)) = new.next()
                && order.is_gt()
            {
                self.new.entry(set).or_default().push((key.clone(), data.clone()));
            }
        }
    }

    /// An element that went with one service and came with another is not written.
    fn settle(&mut self) {
        for (set, gone) in &mut self.gone {
            let Some(new) = self.new.get_mut(set) else { continue };
            gone.sort();
            new.sort();
            let both: BTreeSet<(Key, Data)> =
                gone.iter().filter(|e| new.binary_search(e).is_ok()).cloned().collect();
            gone.retain(|e| !both.contains(e));
            new.retain(|e| !both.contains(e));
        }
        self.gone.retain(|_, elements| !elements.is_empty());
        self.new.retain(|_, elements| !elements.is_empty());
    }
}
