//! Writing a configuration out, with all that was defaulted (`--write-config-to`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::Duration;
use serde_json::{Map, Value, json};

use super::{
    ConfigErrors, ExtenderConfiguration, KIND, ProfileConfiguration, Registry, SchedulerConfiguration,
    TlsConfig, VERSION,
};
use crate::framework::Point;

/// A duration that reads back as the same.
fn go(d: Duration) -> String {
    if d.subsec_nanos() == 0 { format!("{}s", d.as_secs()) } else { format!("{}ns", d.as_nanos()) }
}

impl SchedulerConfiguration {
    /// The document, with every default in it and `multiPoint` worked out; reading it gives the same configuration.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let e = &self.leader_election;
        json!({
            "apiVersion": VERSION,
            "kind": KIND,
            "parallelism": self.parallelism,
            "podInitialBackoffSeconds": self.backoff_initial.as_secs(),
            "podMaxBackoffSeconds": self.backoff_max.as_secs(),
            "leaderElection": {
                "leaderElect": e.elect, "leaseDuration": go(e.lease_duration), "renewDeadline": go(e.renew_deadline),
                "retryPeriod": go(e.retry_period), "resourceLock": "leases", "resourceName": e.name,
                "resourceNamespace": e.namespace,
            },
            "clientConnection": {
                "kubeconfig": self.client.kubeconfig, "acceptContentTypes": self.client.accept_content_types,
                "contentType": self.client.content_type, "qps": self.client.qps, "burst": self.client.burst,
            },
            "profiles": self.profiles.iter().map(profile).collect::<Value>(),
            "extenders": extenders_to_value(&self.extenders),
        })
    }
}

/// The extenders as they stand in a configuration.
pub(crate) fn extenders_to_value(extenders: &[ExtenderConfiguration]) -> Value {
    extenders.iter().map(extender).collect()
}

/// Reads what [`extenders_to_value`] writes.
pub(crate) fn extenders_from_value(value: &Value) -> Result<Vec<ExtenderConfiguration>, ConfigErrors> {
    let document = json!({"apiVersion": VERSION, "kind": KIND, "extenders": value});
    SchedulerConfiguration::from_value(&document, &Registry::default()).map(|c| c.extenders)
}

fn profile(p: &ProfileConfiguration) -> Value {
    let mut plugins = Map::new();
    plugins.insert("multiPoint".into(), json!({"disabled": [{"name": "*"}]}));
    for point in Point::ALL {
        let there = p.plugins.iter().filter(|plugin| plugin.points.contains(point));
        let enabled: Value = there
            .map(|plugin| match point {
                Point::Score => json!({"name": plugin.name, "weight": plugin.weight}),
                _ => json!({"name": plugin.name}),
            })
            .collect();
        plugins.insert(point.field().into(), json!({"enabled": enabled}));
    }
    let arguments: Value =
        p.arguments.iter().map(|(name, args)| json!({"name": name, "args": args})).collect();
    json!({
        "schedulerName": p.scheduler_name,
        "percentageOfNodesToScore": p.percentage_of_nodes,
        "plugins": plugins,
        "pluginConfig": arguments,
    })
}

fn extender(e: &ExtenderConfiguration) -> Value {
    let managed = e.managed_resources.iter();
    let managed: Value =
        managed.map(|r| json!({"name": r.name, "ignoredByScheduler": r.ignored_by_scheduler})).collect();
    json!({
        "urlPrefix": e.url_prefix, "filterVerb": e.filter_verb, "prioritizeVerb": e.prioritize_verb,
        "preemptVerb": e.preempt_verb, "bindVerb": e.bind_verb, "weight": e.weight, "enableHTTPS": e.enable_https,
        "tlsConfig": e.tls.as_ref().map(tls), "httpTimeout": go(e.timeout), "nodeCacheCapable": e.node_cache_capable,
        "managedResources": managed, "ignorable": e.ignorable,
    })
}

fn tls(t: &TlsConfig) -> Value {
    let [cert, key, ca] = &t.files;
    let [cert_data, key_data, ca_data] = &t.data;
    json!({
        "insecure": t.insecure, "serverName": t.server_name, "certFile": cert, "keyFile": key, "caFile": ca,
        "certData": cert_data, "keyData": key_data, "caData": ca_data,
    })
}
