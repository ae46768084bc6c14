//! Bootstrap roles and bindings (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`), as far as this cluster's
//! components and users need them.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

/// Rules of one role: verbs, groups, resources.
type Rules = &'static [(&'static [&'static str], &'static [&'static str], &'static [&'static str])];

const WORKLOADS: &[&str] = &[
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
];
const STATUSES: &[&str] = &[
    "bindings",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "persistentvolumeclaims/status",
    "pods/log",
    "pods/status",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "services/status",
];
const APPS: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];

const CLUSTER_ROLES: &[(&str, Rules)] = &[
    ("cluster-admin", &[(ALL, ALL, ALL)]),
    (
        "view",
        &[
            (READ, &[""], WORKLOADS),
            (READ, &[""], STATUSES),
            (READ, &["apps"], APPS),
            (READ, &["autoscaling", "batch", "discovery.k8s.io", "networking.k8s.io", "policy"], ALL),
        ],
    ),
    (
        "edit",
        &[
            (
                READ,
                &[""],
                &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            ),
            (&["impersonate"], &[""], &["serviceaccounts"]),
            (WRITE, &[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            (&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
            (
                WRITE,
                &[""],
                &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
            ),
            (WRITE, &["apps"], APPS),
            (WRITE, &["autoscaling", "batch", "policy"], ALL),
            (WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
            (READ, &[""], WORKLOADS),
            (READ, &[""], STATUSES),
            (READ, &["apps"], APPS),
            (READ, &["autoscaling", "batch", "discovery.k8s.io", "networking.k8s.io", "policy"], ALL),
        ],
    ),
    (
        "system:basic-user",
        &[
            (
                &["create"],
                &["authorization.k8s.io"],
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            (&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
    ),
    (
        "system:auth-delegator",
        &[
            (&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
            (&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
        ],
    ),
    (
        "system:node",
        &[
            (&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
            (&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
            (
                READ,
                &[""],
                &[
                    "configmaps",
                    "nodes",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                    "pods",
                    "secrets",
                    "services",
                ],
            ),
            (&["create", "patch", "update"], &[""], &["nodes", "nodes/status", "pods/status"]),
            (&["create", "delete"], &[""], &["pods"]),
            (&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
            (&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            (&["create", "delete", "get", "patch", "update"], &["coordination.k8s.io"], &["leases"]),
            (&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
            (READ, &["storage.k8s.io"], &["csidrivers", "csinodes", "volumeattachments"]),
            (READ, &["node.k8s.io"], &["runtimeclasses"]),
        ],
    ),
    (
        "system:node-proxier",
        &[
            (READ, &[""], &["endpoints", "nodes", "services"]),
            (READ, &["discovery.k8s.io"], &["endpointslices"]),
            (READ, &["networking.k8s.io"], &["servicecidrs"]),
            (&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        ],
    ),
    (
        "system:kube-dns",
        &[
            (READ, &[""], &["endpoints", "namespaces", "nodes", "pods", "services"]),
            (READ, &["discovery.k8s.io"], &["endpointslices"]),
        ],
    ),
    (
        "system:kube-scheduler",
        &[
            (&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            (&["create", "get", "list", "update", "watch"], &["coordination.k8s.io"], &["leases"]),
            (
                READ,
                &[""],
                &[
                    "namespaces",
                    "nodes",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                    "pods",
                    "replicationcontrollers",
                    "services",
                ],
            ),
            (&["delete"], &[""], &["pods"]),
            (&["create"], &[""], &["bindings", "pods/binding"]),
            (&["patch", "update"], &[""], &["pods/status"]),
            // Of `system:volume-scheduler` upstream.
            (&["patch", "update"], &[""], &["persistentvolumeclaims", "persistentvolumes"]),
            (READ, &["apps"], &["replicasets", "statefulsets"]),
            (READ, &["policy"], &["poddisruptionbudgets"]),
            (
                READ,
                &["storage.k8s.io"],
                &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses"],
            ),
            (READ, &["resource.k8s.io"], ALL),
            (READ, &["scheduling.k8s.io"], &["podgroups"]),
            (&["patch", "update"], &["scheduling.k8s.io"], &["podgroups/status"]),
        ],
    ),
    // The controllers run as one identity here and need what each of them needs upstream.
    ("system:kube-controller-manager", &[(ALL, ALL, ALL)]),
];

/// Cluster role bindings: name, role, kind of subject, subject.
const BINDINGS: &[(&str, &str, &str, &str)] = &[
    ("cluster-admin", "cluster-admin", "Group", "system:masters"),
    ("system:basic-user", "system:basic-user", "Group", "system:authenticated"),
    ("system:discovery", "system:discovery", "Group", "system:authenticated"),
    (
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        "User",
        "system:kube-controller-manager",
    ),
    ("system:kube-dns", "system:kube-dns", "User", "system:kube-dns"),
    ("system:kube-scheduler", "system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:node", "system:node", "Group", "system:nodes"),
    ("system:node-proxier", "system:node-proxier", "User", "system:kube-proxy"),
    ("system:public-info-viewer", "system:public-info-viewer", "Group", "system:authenticated"),
];

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
    })
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({ "apiVersion": VERSION, "kind": "ClusterRole", "metadata": metadata(name), "rules": rules })
}

/// All roles and bindings that a new cluster has.
pub(super) fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, rules) in CLUSTER_ROLES {
        let mut list: Vec<Value> = rules
            .iter()
            .map(|(verbs, groups, resources)| json!({ "verbs": verbs, "apiGroups": groups, "resources": resources }))
            .collect();
        if matches!(*name, "cluster-admin" | "system:kube-controller-manager") {
            list.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
        }
        objects.push(role(name, &list));
        if *name == "edit" {
            // Who administers a namespace edits it and gives rights in it.
            let group: &[&str] = &[GROUP];
            let all = [READ, WRITE].concat();
            list.push(json!({ "verbs": all, "apiGroups": group, "resources": ["rolebindings", "roles"] }));
            let reviews: &[&str] = &["localsubjectaccessreviews"];
            list.push(
                json!({ "verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": reviews }),
            );
            objects.push(role("admin", &list));
        }
    }
    let paths = |paths: &[&str]| json!({ "verbs": ["get"], "nonResourceURLs": paths });
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let mut discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"].to_vec();
    discovery.extend(health);
    objects.push(role("system:discovery", &[paths(&discovery)]));
    objects.push(role("system:public-info-viewer", &[paths(&health)]));
    for (name, to, kind, subject) in BINDINGS {
        objects.push(json!({
            "apiVersion": VERSION, "kind": "ClusterRoleBinding", "metadata": metadata(name),
            "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": to.to_string() },
            "subjects": [{ "apiGroup": GROUP, "kind": kind, "name": subject }],
        }));
    }
    objects
}
