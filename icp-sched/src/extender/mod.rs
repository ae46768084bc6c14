//! HTTP extenders: servers that kube-scheduler asks to leave out nodes, to give points and to bind
//! (`k8s.io/kube-scheduler/extender/v1`).
//!
//! The calls and their answers are data here; [`SchedulerMachine`](crate::machine::SchedulerMachine) decides when which
//! extender is asked, and a shell makes the call. [`Scheduler`](crate::Scheduler) alone asks nobody.
//!
//! ```
//! use icp_core::api::Object;
//! use icp_sched::config::{Registry, SchedulerConfiguration};
//! use serde_json::json;
//!
//! let file = json!({
//!     "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
//!     "extenders": [{"urlPrefix": "http://127.0.0.1:8888/", "filterVerb": "filter",
//!         "managedResources": [{"name": "example.com/foo"}]}],
//! });
//! let extender = &SchedulerConfiguration::from_value(&file, &Registry::default()).unwrap().extenders[0];
//! assert_eq!(extender.url("filter"), "http://127.0.0.1:8888/filter");
//! let pod = |name: &str| -> Object {
//!     let container = json!({"name": "c", "resources": {"limits": {(name): "1"}}});
//!     serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap()
//! };
//! assert!(extender.is_interested(&pod("example.com/foo")));
//! assert!(!extender.is_interested(&pod("cpu")));
//! ```

mod wire;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::Duration;
use icp_core::client::RequestId;
use serde_json::Value;

pub(crate) use self::wire::{
    BindingArgs, ExtenderArgs, FilterResult, NodeVictims, PreemptionArgs, Unbound, VictimIds, bound, points,
    victims,
};
use crate::config::ExtenderConfiguration;

/// By what the points of extenders, 0 to 10, are multiplied beside their weight, so that they count as those of plugins,
/// 0 to 100 (`MaxNodeScore / MaxExtenderPriority`).
pub(crate) const POINTS_FACTOR: i64 = 10;
/// The name under which extenders reject nodes (`framework.ExtenderName`).
pub(crate) const EXTENDER: &str = "Extender";

/// A call of an extender: a POST with a JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderCall {
    /// What the answer refers to.
    pub id: RequestId,
    /// Which extender, by its place in [`SchedulerConfig::extenders`](crate::machine::SchedulerConfig::extenders).
    pub extender: usize,
    /// Where to.
    pub url: String,
    /// The body, in JSON.
    pub body: Vec<u8>,
    /// How long the answer is waited for; later ones do not count.
    pub timeout: Duration,
}

/// What came back from an extender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderAnswer {
    /// The status code of HTTP; any but 200 is a failure.
    pub code: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl ExtenderConfiguration {
    /// Where a question goes.
    #[must_use]
    pub fn url(&self, verb: &str) -> String {
        format!("{}/{verb}", self.url_prefix.trim_end_matches('/'))
    }

    /// Whether a container of the pod asks for, or is limited in, one of the managed resources; always if there are none.
    #[must_use]
    pub fn is_interested(&self, pod: &Object) -> bool {
        if self.managed_resources.is_empty() {
            return true;
        }
        let containers = ["/spec/containers", "/spec/initContainers"].into_iter();
        let mut containers = containers.filter_map(|at| pod.at(at)).filter_map(Value::as_array).flatten();
        containers.any(|c| {
            ["/resources/requests", "/resources/limits"]
                .into_iter()
                .filter_map(|at| c.pointer(at).and_then(Value::as_object))
                .any(|list| self.managed_resources.iter().any(|r| list.contains_key(&r.name)))
        })
    }

    /// What is wrong with the way to the extender: the field, what stands there, and why it cannot.
    pub(crate) fn fault(&self) -> Option<(&'static str, Value, &'static str)> {
        let rest =
            self.url_prefix.strip_prefix("https://").or_else(|| self.url_prefix.strip_prefix("http://"));
        let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        if host.is_none_or(|h| h.is_empty() || h.contains(|c: char| c.is_whitespace() || c.is_control())) {
            let detail = "must begin with http:// or https:// and name a host";
            return Some(("urlPrefix", self.url_prefix.as_str().into(), detail));
        }
        let tls = self.tls.as_ref()?;
        let ([.., ca_file], [.., ca_data]) = (&tls.files, &tls.data);
        let both = tls.insecure && !(ca_file.is_empty() && ca_data.is_empty());
        let detail = "specifying a root certificates file with the insecure flag is not allowed";
        both.then(|| ("tlsConfig.insecure", true.into(), detail))
    }
}
