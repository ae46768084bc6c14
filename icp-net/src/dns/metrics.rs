//! What is counted, under CoreDNS' names.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};

use super::forward::Kind;
use super::wire::rtype;
use super::zone::{Note, Source, Transport};

/// The types that are counted by name (`plugin/metrics/vars` of CoreDNS); others are `other`.
const TYPES: [(u16, &str); 18] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::MX, "MX"),
    (rtype::SOA, "SOA"),
    (rtype::CNAME, "CNAME"),
    (rtype::PTR, "PTR"),
    (rtype::TXT, "TXT"),
    (rtype::NS, "NS"),
    (rtype::SRV, "SRV"),
    (rtype::DS, "DS"),
    (rtype::DNSKEY, "DNSKEY"),
    (rtype::RRSIG, "RRSIG"),
    (rtype::NSEC, "NSEC"),
    (rtype::NSEC3, "NSEC3"),
    (rtype::HTTPS, "HTTPS"),
    (rtype::IXFR, "IXFR"),
    (rtype::AXFR, "AXFR"),
    (rtype::ANY, "ANY"),
];
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const SOURCES: [(Source, &str); 5] = [
    (Source::Server, ""),
    (Source::Kubernetes, "kubernetes"),
    (Source::Hosts, "hosts"),
    (Source::Forward, "forward"),
    (Source::Cache, "cache"),
];

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric.
    pub name: &'static str,
    /// The labels and their values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

/// Counters that any thread may raise.
///
/// ```
/// use icp_net::dns::{Metrics, Note, Source, Transport};
/// let metrics = Metrics::new("dns://:53");
/// metrics.request(Transport::Udp, false, 1);
/// metrics.response(&Note { rtype: 1, rcode: 3, source: Source::Kubernetes, dnssec_ok: false });
/// assert!(metrics.text().contains("coredns_dns_requests_total"));
/// assert_eq!(metrics.samples().len(), 2); // what never happened is left out
/// ```
#[derive(Debug)]
pub struct Metrics {
    server: String,
    /// By transport, family and type.
    requests: [[[AtomicU64; TYPES.len() + 1]; 2]; 2],
    /// By source and code.
    responses: [[AtomicU64; RCODES.len() + 1]; SOURCES.len()],
    dnssec_ok: AtomicU64,
    dropped: AtomicU64,
    cache_misses: AtomicU64,
    cache_hits: [AtomicU64; 2],
    cache_entries: [AtomicU64; 2],
    cache_evictions: [AtomicU64; 2],
    served_stale: AtomicU64,
    forward_requests: [AtomicU64; 2],
    forward_rejects: AtomicU64,
    healthcheck_broken: AtomicU64,
    healthcheck_failures: AtomicU64,
}

fn add(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const fn transport_index(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
    }
}

const TRANSPORTS: [&str; 2] = ["udp", "tcp"];
const FAMILIES: [&str; 2] = ["1", "2"];
const KINDS: [&str; 2] = ["success", "denial"];

const fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Success => 0,
        Kind::Denial => 1,
    }
}

impl Metrics {
    /// All zero; `server` is the label of that name, such as `dns://:53`.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self {
            server: server.into(),
            requests: Default::default(),
            responses: Default::default(),
            dnssec_ok: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            cache_misses: AtomicU64::new(0),
            cache_hits: Default::default(),
            cache_entries: Default::default(),
            cache_evictions: Default::default(),
            served_stale: AtomicU64::new(0),
            forward_requests: Default::default(),
            forward_rejects: AtomicU64::new(0),
            healthcheck_broken: AtomicU64::new(0),
            healthcheck_failures: AtomicU64::new(0),
        }
    }

    /// A query came, of this type (0 if it could not be read).
    pub fn request(&self, transport: Transport, ipv6: bool, rtype: u16) {
        let place = TYPES.iter().position(|(number, _)| *number == rtype).unwrap_or(TYPES.len());
        let by_family = self.requests.get(transport_index(transport));
        add(by_family.and_then(|f| f.get(usize::from(ipv6))).and_then(|t| t.get(place)));
    }

    /// An answer was given.
    pub fn response(&self, note: &Note) {
        let source = SOURCES.iter().position(|(source, _)| *source == note.source).unwrap_or(0);
        let code = usize::from(note.rcode).min(RCODES.len());
        add(self.responses.get(source).and_then(|c| c.get(code)));
        if note.dnssec_ok {
            add(Some(&self.dnssec_ok));
        }
    }

    /// A packet got no answer.
    pub fn drop_packet(&self) {
        add(Some(&self.dropped));
    }

    pub(super) fn cache_hit(&self, kind: Kind) {
        add(self.cache_hits.get(kind_index(kind)));
    }

    pub(super) fn cache_miss(&self) {
        add(Some(&self.cache_misses));
    }

    pub(super) fn cache_size(&self, entries: [usize; 2], evictions: [u64; 2]) {
        for (counter, value) in self.cache_entries.iter().zip(entries) {
            counter.store(value as u64, Ordering::Relaxed);
        }
        for (counter, value) in self.cache_evictions.iter().zip(evictions) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn served_stale(&self) {
        add(Some(&self.served_stale));
    }

    pub(super) fn forward_request(&self, transport: Transport) {
        add(self.forward_requests.get(transport_index(transport)));
    }

    pub(super) fn forward_reject(&self) {
        add(Some(&self.forward_rejects));
    }

    pub(super) fn healthcheck_broken(&self) {
        add(Some(&self.healthcheck_broken));
    }

    pub(super) fn healthcheck_failure(&self) {
        add(Some(&self.healthcheck_failures));
    }

    /// All figures that are not zero.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut push = |name, labels: &[(&'static str, &str)], value| {
            if value > 0 {
                let server = [("server", self.server.as_str())];
                let labels = server.iter().chain(labels).map(|(k, v)| (*k, (*v).to_string())).collect();
                samples.push(Sample { name, labels, value });
            }
        };
        for (by_family, proto) in self.requests.iter().zip(TRANSPORTS) {
            for (by_type, family) in by_family.iter().zip(FAMILIES) {
                let names = TYPES.iter().map(|(_, name)| *name).chain(["other"]);
                for (counter, rtype) in by_type.iter().zip(names) {
                    let labels = [("zone", "."), ("proto", proto), ("family", family), ("type", rtype)];
                    push("coredns_dns_requests_total", &labels, get(counter));
                }
            }
        }
        for (by_code, (_, plugin)) in self.responses.iter().zip(SOURCES) {
            for (counter, rcode) in by_code.iter().zip(RCODES.into_iter().chain(["other"])) {
                let labels = [("zone", "."), ("rcode", rcode), ("plugin", plugin)];
                push("coredns_dns_responses_total", &labels, get(counter));
            }
        }
        push("coredns_dns_do_requests_total", &[("zone", ".")], get(&self.dnssec_ok));
        push("coredns_dns_requests_total", &[("zone", "dropped")], get(&self.dropped));
        let by_kind = [
            ("coredns_cache_hits_total", &self.cache_hits),
            ("coredns_cache_entries", &self.cache_entries),
            ("coredns_cache_evictions_total", &self.cache_evictions),
        ];
        for (name, counters) in by_kind {
            for (counter, kind) in counters.iter().zip(KINDS) {
                push(name, &[("type", kind), ("zones", ".")], get(counter));
            }
        }
        let hits: u64 = self.cache_hits.iter().map(get).sum();
        push("coredns_cache_requests_total", &[("zones", ".")], hits + get(&self.cache_misses));
        push("coredns_cache_misses_total", &[("zones", ".")], get(&self.cache_misses));
        push("coredns_cache_served_stale_total", &[("zones", ".")], get(&self.served_stale));
        for (counter, proto) in self.forward_requests.iter().zip(TRANSPORTS) {
            push("coredns_forward_requests_total", &[("proto", proto)], get(counter));
        }
        push("coredns_forward_max_concurrent_rejects_total", &[], get(&self.forward_rejects));
        push("coredns_forward_healthcheck_broken_total", &[], get(&self.healthcheck_broken));
        let labels = [("proxy_name", "forward")];
        push("coredns_proxy_healthcheck_failures_total", &labels, get(&self.healthcheck_failures));
        samples
    }

    /// The figures in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for sample in self.samples() {
            let labels: Vec<String> = sample.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}{{{}}} {}", sample.name, labels.join(","), sample.value);
        }
        text
    }
}
