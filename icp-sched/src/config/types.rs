//! The document, defaulted and validated.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use icp_core::api::{FieldError, names};
use icp_core::base::Duration;
use serde_json::Value;

use super::read::{Faults, Fields};
use super::{ConfigError, ConfigErrors, EnabledPlugin, KIND, Registry, VERSION, args, plugins};
use crate::DEFAULT_SCHEDULER;

/// An extender is given up after this long, unless told otherwise.
const EXTENDER_TIMEOUT: Duration = Duration::from_secs(5);

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConnection {
    /// The path of a kubeconfig file; empty for none.
    pub kubeconfig: String,
    /// What answers may be; without effect.
    pub accept_content_types: String,
    /// What requests are; without effect.
    pub content_type: String,
    /// Requests each second; without effect.
    pub qps: f64,
    /// Requests at once; without effect.
    pub burst: i64,
}

/// How one of several schedulers is elected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Whether one is elected at all.
    pub elect: bool,
    /// How long others wait for a leader that is silent.
    pub lease_duration: Duration,
    /// How long a leader goes on that cannot renew.
    pub renew_deadline: Duration,
    /// How often the Lease is looked at.
    pub retry_period: Duration,
    /// The name of the Lease.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// TLS towards an extender. The data fields are base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Any certificate will do.
    pub insecure: bool,
    /// The name that the certificate must have.
    pub server_name: String,
    /// Files of the own certificate, its key, and the authority.
    pub files: [String; 3],
    /// The same inline.
    pub data: [String; 3],
}

/// A resource that an extender manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedResource {
    /// The name of an extended resource.
    pub name: String,
    /// NodeResourcesFit does not look at it.
    pub ignored_by_scheduler: bool,
}

/// An HTTP extender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderConfiguration {
    /// Where it answers.
    pub url_prefix: String,
    /// The last part of the address for each question; empty if it is not asked.
    pub filter_verb: String,
    /// The same, for points.
    pub prioritize_verb: String,
    /// The same, for victims.
    pub preempt_verb: String,
    /// The same, for bindings.
    pub bind_verb: String,
    /// By what its points are multiplied.
    pub weight: i64,
    /// Whether it speaks TLS.
    pub enable_https: bool,
    /// How.
    pub tls: Option<TlsConfig>,
    /// How long it may take.
    pub timeout: Duration,
    /// It knows nodes, so that names will do.
    pub node_cache_capable: bool,
    /// It is asked about pods only that ask for one of these; about all if there are none.
    pub managed_resources: Vec<ManagedResource>,
    /// Pods are placed without it while it fails.
    pub ignorable: bool,
}

/// A scheduler by name.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileConfiguration {
    /// The name by which pods ask for it.
    pub scheduler_name: String,
    /// `percentageOfNodesToScore`, of the profile or else of the file.
    pub percentage_of_nodes: u8,
    /// Its plugins: in order of filtering, then of scoring, then of the other points.
    pub plugins: Vec<EnabledPlugin>,
    /// Arguments of plugins, by name, as they stand in the file.
    pub arguments: BTreeMap<String, Value>,
    /// How long a pod waits for its volumes (VolumeBinding's `bindTimeoutSeconds`).
    pub volumes_timeout: Duration,
}

/// A KubeSchedulerConfiguration.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfiguration {
    /// How many threads upstream would use; without effect.
    pub parallelism: i64,
    /// How one of several schedulers is elected.
    pub leader_election: LeaderElection,
    /// How the API server is reached.
    pub client: ClientConnection,
    /// The first pause of a pod that found no node.
    pub backoff_initial: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The profiles, at least one.
    pub profiles: Vec<ProfileConfiguration>,
    /// The extenders, in the order in which they are asked.
    pub extenders: Vec<ExtenderConfiguration>,
}

impl SchedulerConfiguration {
    /// Reads a document; `registry` knows the plugins that are not built in.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn from_value(value: &Value, registry: &Registry) -> Result<Self, ConfigErrors> {
        let faults = Faults::default();
        let fields = Fields::new("", Some(value), &faults);
        let (kind, version) = (fields.text("kind").unwrap_or(""), fields.text("apiVersion").unwrap_or(""));
        if kind != KIND || version != VERSION {
            let error = ConfigError::Kind { kind: kind.into(), version: version.into() };
            return Err(ConfigErrors(Vec::from([error])));
        }
        let parallelism = fields.int("parallelism").unwrap_or(16);
        if parallelism <= 0 {
            fields.invalid("parallelism", parallelism, "should be an integer value greater than zero");
        }
        for unused in ["enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"] {
            fields.flag(unused);
        }
        let (initial, max) = (
            fields.int("podInitialBackoffSeconds").unwrap_or(1),
            fields.int("podMaxBackoffSeconds").unwrap_or(10),
        );
        if initial <= 0 {
            fields.invalid("podInitialBackoffSeconds", initial, "must be greater than 0");
        }
        if max < initial {
            let detail = "must be greater than or equal to PodInitialBackoffSeconds";
            fields.invalid("podMaxBackoffSeconds", max, detail);
        }
        let config = Self {
            parallelism,
            leader_election: leader_election(fields.object("leaderElection")),
            client: client(fields.object("clientConnection")),
            backoff_initial: seconds(initial),
            backoff_max: seconds(max),
            profiles: profiles(&fields, registry),
            extenders: extenders(&fields),
        };
        fields.end();
        let faults = faults.into_list();
        if faults.is_empty() { Ok(config) } else { Err(ConfigErrors(faults)) }
    }

    /// Reads a document in YAML or JSON.
    ///
    /// # Errors
    /// If it is no YAML, and as [`Self::from_value`].
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str, registry: &Registry) -> Result<Self, ConfigErrors> {
        match serde_saphyr::from_str::<Value>(text) {
            Ok(value) => Self::from_value(&value, registry),
            Err(e) => Err(ConfigErrors(Vec::from([ConfigError::Yaml(e.to_string())]))),
        }
    }
}

/// So many seconds; none if negative, and no more than time can hold.
fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0).min(u64::from(u32::MAX)))
}

fn leader_election(fields: Fields<'_>) -> LeaderElection {
    let of = |name, default| fields.duration(name).unwrap_or(Duration::from_secs(default));
    let text =
        |name, default: &str| String::from(fields.text(name).filter(|t| !t.is_empty()).unwrap_or(default));
    let election = LeaderElection {
        elect: fields.flag("leaderElect").unwrap_or(true),
        lease_duration: of("leaseDuration", 15),
        renew_deadline: of("renewDeadline", 10),
        retry_period: of("retryPeriod", 2),
        name: text("resourceName", "kube-scheduler"),
        namespace: text("resourceNamespace", "kube-system"),
    };
    let lock = text("resourceLock", "leases");
    if election.elect {
        for (name, duration) in [
            ("leaseDuration", election.lease_duration),
            ("renewDeadline", election.renew_deadline),
            ("retryPeriod", election.retry_period),
        ] {
            if duration.is_zero() {
                fields.invalid(name, "0s", "must be greater than zero");
            }
        }
        if election.lease_duration <= election.renew_deadline {
            let value = format!("{}s", election.lease_duration.as_secs());
            fields.invalid("leaseDuration", value, "LeaseDuration must be greater than RenewDeadline");
        }
        if election.renew_deadline <= election.retry_period {
            let value = format!("{}s", election.renew_deadline.as_secs());
            fields.invalid("renewDeadline", value, "RenewDeadline must be greater than RetryPeriod");
        }
        if lock != "leases" {
            fields.invalid("resourceLock", lock, "resourceLock value must be \"leases\"");
        }
    }
    fields.end();
    election
}

fn client(fields: Fields<'_>) -> ClientConnection {
    let text = |name| fields.text(name).unwrap_or_default().to_string();
    let client = ClientConnection {
        kubeconfig: text("kubeconfig"),
        accept_content_types: text("acceptContentTypes"),
        content_type: text("contentType"),
        qps: fields.number("qps").filter(|q| *q != 0.0).unwrap_or(50.0),
        burst: fields.int("burst").filter(|b| *b != 0).unwrap_or(100),
    };
    if client.burst < 0 {
        fields.invalid("burst", client.burst, "must be non-negative");
    }
    fields.end();
    client
}

/// A percentage of nodes, if the field is there.
fn percentage(fields: &Fields<'_>) -> Option<u8> {
    let percent = fields.int("percentageOfNodesToScore")?;
    match u8::try_from(percent) {
        Ok(p) if p <= 100 => Some(p),
        _ => {
            fields.invalid("percentageOfNodesToScore", percent, "not in valid range [0-100]");
            None
        }
    }
}

fn profiles(fields: &Fields<'_>, registry: &Registry) -> Vec<ProfileConfiguration> {
    let usual = percentage(fields).unwrap_or(100);
    let mut items = fields.objects("profiles");
    if items.is_empty() {
        items.push(Fields::new("profiles[0]", None, fields.faults));
    }
    let single = items.len() == 1;
    let mut list: Vec<ProfileConfiguration> = Vec::new();
    for item in items {
        let name = match item.raw("schedulerName").and_then(|_| item.text("schedulerName")) {
            None if single => DEFAULT_SCHEDULER,
            None => "",
            Some(name) => name,
        };
        if name.is_empty() {
            item.faults.add(FieldError::required(item.at("schedulerName"), ""));
        } else if let Some(other) = list.iter().position(|p| p.scheduler_name == name) {
            let other = format!("profiles[{other}].schedulerName");
            item.faults.add(FieldError::duplicate(item.at("schedulerName"), other));
        }
        let percentage_of_nodes = percentage(&item).unwrap_or(usual);
        let plugins = plugins::read(item.object("plugins"), &|name| registry.points(name));
        let sort = |p: &[EnabledPlugin]| {
            let mut sorts = p.iter().filter(|p| p.points.contains(crate::framework::Point::QueueSort));
            sorts.next().map(|p| p.name.clone())
        };
        if let Some(first) = list.first()
            && sort(&first.plugins) != sort(&plugins)
        {
            let value = sort(&plugins).unwrap_or_default();
            item.invalid("plugins.queueSort", value, "must be the same for all profiles");
        }
        let (arguments, volumes_timeout) = arguments(&item, registry, list.first());
        let scheduler_name = name.into();
        list.push(ProfileConfiguration {
            scheduler_name,
            percentage_of_nodes,
            plugins,
            arguments,
            volumes_timeout,
        });
        item.end();
    }
    list
}

fn arguments(
    item: &Fields<'_>,
    registry: &Registry,
    first: Option<&ProfileConfiguration>,
) -> (BTreeMap<String, Value>, Duration) {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    let mut volumes = 600;
    for entry in item.objects("pluginConfig") {
        let name = entry.text("name").unwrap_or_default();
        let built_in = plugins::BUILT_IN.iter().any(|(n, ..)| *n == name);
        if name.is_empty() {
            entry.faults.add(FieldError::required(entry.at("name"), ""));
        } else if !built_in && registry.points(name).is_none() {
            entry.invalid("name", name, format!("plugin {name:?} does not exist"));
        } else if found.contains_key(name) {
            entry.faults.add(FieldError::duplicate(entry.path.clone(), name));
        }
        if let Some(raw) = entry.raw("args") {
            found.insert(name.into(), raw.clone());
        }
        if built_in
            && let args::Args::Volumes { timeout_seconds, .. } = args::read(name, entry.object("args"))
        {
            volumes = timeout_seconds;
        }
        let sorts = registry.points(name).is_some_and(|p| p.contains(crate::framework::Point::QueueSort));
        if sorts && first.is_some_and(|f| f.arguments.get(name) != found.get(name)) {
            entry.invalid("args", name, "queueSort must be the same for all profiles");
        }
        entry.end();
    }
    (found, seconds(volumes))
}

fn extenders(fields: &Fields<'_>) -> Vec<ExtenderConfiguration> {
    let mut managed: BTreeSet<String> = BTreeSet::new();
    let mut list = Vec::new();
    for item in fields.objects("extenders") {
        let text = |name| item.text(name).unwrap_or_default().to_string();
        let tls = item.raw("tlsConfig").map(|_| tls(item.object("tlsConfig")));
        let mut extender = ExtenderConfiguration {
            url_prefix: text("urlPrefix"),
            filter_verb: text("filterVerb"),
            prioritize_verb: text("prioritizeVerb"),
            preempt_verb: text("preemptVerb"),
            bind_verb: text("bindVerb"),
            weight: item.int("weight").unwrap_or(0),
            enable_https: item.flag("enableHTTPS").unwrap_or(false),
            tls,
            timeout: item.duration("httpTimeout").filter(|d| !d.is_zero()).unwrap_or(EXTENDER_TIMEOUT),
            node_cache_capable: item.flag("nodeCacheCapable").unwrap_or(false),
            managed_resources: Vec::new(),
            ignorable: item.flag("ignorable").unwrap_or(false),
        };
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            item.invalid("weight", extender.weight, "must have a positive weight applied to it");
        }
        for resource in item.objects("managedResources") {
            let name = resource.text("name").unwrap_or_default();
            let mut wrong = names::qualified_name(name);
            let domain = name.split_once('/').map(|(domain, _)| domain);
            let foreign = domain.is_some_and(|d| d != "kubernetes.io" && !d.ends_with(".kubernetes.io"));
            if wrong.is_empty() && (!foreign || name.starts_with("requests.")) {
                wrong.push("is an invalid extended resource name".into());
            }
            for fault in wrong {
                resource.invalid("name", name, fault);
            }
            if !managed.insert(name.into()) {
                resource.invalid("name", name, "duplicate extender managed resource name");
            }
            let ignored_by_scheduler = resource.flag("ignoredByScheduler").unwrap_or(false);
            extender.managed_resources.push(ManagedResource { name: name.into(), ignored_by_scheduler });
            resource.end();
        }
        list.push(extender);
        item.end();
    }
    let binders = list.iter().filter(|e| !e.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        fields.invalid("extenders", value, "only one extender can implement bind");
    }
    list
}

fn tls(fields: Fields<'_>) -> TlsConfig {
    let text = |name| fields.text(name).unwrap_or_default().to_string();
    let tls = TlsConfig {
        insecure: fields.flag("insecure").unwrap_or(false),
        server_name: text("serverName"),
        files: ["certFile", "keyFile", "caFile"].map(text),
        data: ["certData", "keyData", "caData"].map(text),
    };
    fields.end();
    tls
}
