//! The resources that components name in code.

use super::Gvr;

macro_rules! resources {
    ($($name:ident = $group:literal $version:literal $resource:literal;)*) => {
        $(#[doc = concat!("`", $resource, "` of `", $group, "` `", $version, "`.")]
        pub const $name: Gvr = Gvr::new($group, $version, $resource);)*
    };
}

resources! {
    BINDINGS = "" "v1" "bindings";
    CONFIG_MAPS = "" "v1" "configmaps";
    CONTROLLER_REVISIONS = "apps" "v1" "controllerrevisions";
    CRON_JOBS = "batch" "v1" "cronjobs";
    CUSTOM_RESOURCE_DEFINITIONS = "apiextensions.k8s.io" "v1" "customresourcedefinitions";
    DAEMON_SETS = "apps" "v1" "daemonsets";
    DEPLOYMENTS = "apps" "v1" "deployments";
    ENDPOINT_SLICES = "discovery.k8s.io" "v1" "endpointslices";
    ENDPOINTS = "" "v1" "endpoints";
    EVENTS = "events.k8s.io" "v1" "events";
    CORE_EVENTS = "" "v1" "events";
    JOBS = "batch" "v1" "jobs";
    LEASES = "coordination.k8s.io" "v1" "leases";
    LIMIT_RANGES = "" "v1" "limitranges";
    NAMESPACES = "" "v1" "namespaces";
    NETWORK_POLICIES = "networking.k8s.io" "v1" "networkpolicies";
    NODES = "" "v1" "nodes";
    PERSISTENT_VOLUME_CLAIMS = "" "v1" "persistentvolumeclaims";
    PERSISTENT_VOLUMES = "" "v1" "persistentvolumes";
    POD_GROUPS = "scheduling.k8s.io" "v1beta1" "podgroups";
    POD_DISRUPTION_BUDGETS = "policy" "v1" "poddisruptionbudgets";
    PODS = "" "v1" "pods";
    PRIORITY_CLASSES = "scheduling.k8s.io" "v1" "priorityclasses";
    REPLICA_SETS = "apps" "v1" "replicasets";
    REPLICATION_CONTROLLERS = "" "v1" "replicationcontrollers";
    SECRETS = "" "v1" "secrets";
    SERVICE_ACCOUNTS = "" "v1" "serviceaccounts";
    SERVICES = "" "v1" "services";
    STATEFUL_SETS = "apps" "v1" "statefulsets";
    STORAGE_CLASSES = "storage.k8s.io" "v1" "storageclasses";
}
