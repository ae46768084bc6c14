//! NodeDeclaredFeatures: pods that need what only newer kubelets do.

use alloc::boxed::Box;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::Pod;
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) didn't match Pod's required features";

/// Rejects nodes that do not declare (`status.declaredFeatures`) every feature that the pod's spec makes use of.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::OnTop))
    }

    fn hint(&self, _: &Pod, happened: &Happened<'_>) -> bool {
        hints::features(happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let wanted = &cycle.pod.features;
        if wanted.is_empty() {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let node = cycle.cluster.node(id)?;
            let lacks = wanted.iter().any(|f| !node.features.contains(*f));
            lacks.then(|| Rejected::unresolvable(REASON))
        }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use icp_core::api::Object;
    use serde_json::json;

    use crate::Scheduler;
    use crate::model::{Node, Pod};

    fn object(value: serde_json::Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_go_where_their_features_are_declared() {
        let mut s = Scheduler::default();
        for (name, features) in [("old", json!([])), ("new", json!(["UserNamespacesHostNetworkSupport"]))] {
            let o = object(json!({"metadata": {"name": name}, "status": {"declaredFeatures": features,
                "allocatable": {"cpu": "4", "memory": "1Gi", "pods": "9"}}}));
            s.cluster_mut().set_node(Node::from_object(&o).unwrap());
        }
        let pod = |spec: serde_json::Value| {
            Pod::from_object(&object(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})))
                .unwrap()
        };
        let hosted = pod(json!({"hostNetwork": true, "hostUsers": false, "containers": []}));
        assert_eq!(s.schedule(&hosted).unwrap().name, "new");
        let usual = pod(json!({"hostNetwork": true, "containers": []}));
        assert!(usual.spec.features.is_empty());
        let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}});
        let restarts = pod(json!({"initContainers": [{"name": "c", "restartPolicyRules": [rule]}]}));
        let why = s.schedule(&restarts).unwrap_err().to_string();
        assert_eq!(why, "0/2 nodes are available: 2 node(s) didn't match Pod's required features.");
    }
}
