//! What the API asks of the node agent: which pods there are and where their containers stand.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use icp_core::api::Object;
use serde_json::Value;

use crate::agent::Kubelet;
use crate::runtime::PodUid;
use crate::shell::AgentHandle;

/// The port from the API to the node agent. It only reads.
#[async_trait]
pub trait NodeView: Send + Sync {
    /// The pod of a name; `None` if the node has none, or its agent does not run.
    async fn pod(&self, namespace: &str, name: &str) -> Option<PodView>;

    /// The objects of the node's pods.
    async fn pods(&self) -> Vec<Arc<Object>>;

    /// The name of the node, and how many of its pods and containers run.
    async fn counts(&self) -> NodeCounts;
}

/// Figures of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// The node's name; empty if its agent does not run.
    pub node: String,
    /// Pods with a sandbox.
    pub pods: usize,
    /// Containers that run.
    pub running: usize,
    /// Containers that ended.
    pub exited: usize,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Running,
    /// It ended.
    Ended,
    /// It does not run yet or again; the reason as its status tells it.
    Waiting(String),
}

/// A container as the API sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// Where its newest attempt stands.
    pub standing: Standing,
    /// Whether an attempt before the newest is known.
    pub has_previous: bool,
}

/// A pod as the API sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its uid.
    pub uid: PodUid,
    /// Its name.
    pub name: String,
    /// Its containers of every kind.
    pub containers: Vec<ContainerView>,
}

fn containers_of(status: &Value) -> Vec<ContainerView> {
    let of = |field| status.get(field).and_then(Value::as_array).into_iter().flatten();
    let all =
        of("initContainerStatuses").chain(of("containerStatuses")).chain(of("ephemeralContainerStatuses"));
    all.map(|c| {
        let text = |pointer| c.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        let standing = if c.pointer("/state/running").is_some() {
            Standing::Running
        } else if c.pointer("/state/terminated").is_some() {
            Standing::Ended
        } else {
            Standing::Waiting(text("/state/waiting/reason"))
        };
        ContainerView {
            name: text("/name"),
            standing,
            has_previous: c.pointer("/lastState/terminated").is_some(),
        }
    })
    .collect()
}

impl PodView {
    /// A pod of an agent.
    #[must_use]
    pub fn of(kubelet: &Kubelet, namespace: &str, name: &str) -> Option<Self> {
        let machine = kubelet.pod(namespace, name)?;
        let pod = machine.pod();
        let containers = containers_of(&machine.status(&[]));
        Some(Self { uid: pod.uid.clone(), name: pod.name.clone(), containers })
    }

    /// A container by its name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Whether a log can be read, in the words of the kubelet (`validateContainerLogStatus` in
    /// `pkg/kubelet/kubelet_pods.go`).
    ///
    /// # Errors
    /// What the client is told.
    pub fn check_log(&self, container: &str, previous: bool) -> Result<(), String> {
        let pod = &self.name;
        let Some(found) = self.container(container) else {
            return Err(format!("container {container:?} in pod {pod:?} is not available"));
        };
        match &found.standing {
            _ if previous && found.has_previous => Ok(()),
            _ if previous => {
                Err(format!("previous terminated container {container:?} in pod {pod:?} not found"))
            }
            Standing::Running | Standing::Ended => Ok(()),
            // The log of the attempt that ended last.
            Standing::Waiting(_) if found.has_previous => Ok(()),
            Standing::Waiting(reason) => {
                let what = match reason.as_str() {
                    "ErrImagePull" => "is waiting to start: image can't be pulled".to_string(),
                    "ImagePullBackOff" => "is waiting to start: trying and failing to pull image".to_string(),
                    "" => "is waiting to start - no logs yet".to_string(),
                    reason => format!("is waiting to start: {reason}"),
                };
                Err(format!("container {container:?} in pod {pod:?} {what}"))
            }
        }
    }
}

#[async_trait]
impl NodeView for AgentHandle {
    async fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        let (namespace, name) = (namespace.to_string(), name.to_string());
        self.ask(move |_, kubelet, _| PodView::of(kubelet, &namespace, &name)).await.flatten()
    }

    async fn pods(&self) -> Vec<Arc<Object>> {
        self.ask(|_, kubelet, _| kubelet.pod_objects().cloned().collect()).await.unwrap_or_default()
    }

    async fn counts(&self) -> NodeCounts {
        self.ask(|_, kubelet, _| NodeCounts::of(kubelet)).await.unwrap_or_default()
    }
}

impl NodeCounts {
    /// The figures of an agent.
    #[must_use]
    pub fn of(kubelet: &Kubelet) -> Self {
        let mut counts = Self { node: kubelet.config().facts.name.clone(), ..Self::default() };
        for pod in kubelet.pods() {
            counts.pods += usize::from(pod.has_sandbox());
            for container in containers_of(&pod.status(&[])) {
                match container.standing {
                    Standing::Running => counts.running += 1,
                    Standing::Ended => counts.exited += 1,
                    Standing::Waiting(_) => {}
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn logs_of_what_never_ran_are_refused_in_the_kubelets_words() {
        let status = json!({
            "containerStatuses": [
                { "name": "a", "state": { "running": {} } },
                { "name": "b", "state": { "waiting": { "reason": "ImagePullBackOff" } } },
                { "name": "c", "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                  "lastState": { "terminated": {} } },
            ],
            "initContainerStatuses": [{ "name": "i", "state": { "terminated": {} } }],
        });
        let view = PodView { uid: PodUid::from("u"), name: "p".into(), containers: containers_of(&status) };
        assert_eq!(view.check_log("a", false), Ok(()));
        assert_eq!(view.check_log("i", false), Ok(()));
        assert_eq!(view.check_log("c", false), Ok(()));
        assert_eq!(view.check_log("c", true), Ok(()));
        let refused = |name, previous| view.check_log(name, previous).unwrap_err();
        assert_eq!(
            refused("b", false),
            "container \"b\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert_eq!(refused("a", true), "previous terminated container \"a\" in pod \"p\" not found");
        assert_eq!(refused("x", false), "container \"x\" in pod \"p\" is not available");
    }
}
