//! The rows of the built-in resource table, one line a resource.

/// `create,delete,deletecollection,get,list,patch,update,watch`.
pub(super) const ALL: &str = "create,delete,deletecollection,get,list,patch,update,watch";
/// Namespaces go one by one.
const NO_COLLECTION: &str = "create,delete,get,list,patch,update,watch";
/// Reviews and bindings are created and never stored.
const CREATE: &str = "create";

/// How the rows of [`ROWS`] are read: see [`super::ResourceInfo`] for the meaning of the columns.
pub(super) struct Row {
    pub(super) group_version: &'static str,
    pub(super) resource: &'static str,
    pub(super) kind: &'static str,
    pub(super) short_names: &'static str,
    pub(super) categories: &'static str,
    pub(super) verbs: &'static str,
    pub(super) subresources: &'static str,
    /// `N` namespaced, `S` status is reset, `G` generation is kept, `C` a PUT may create, `R` a PUT must carry a
    /// resourceVersion, `T` deletion is graceful.
    pub(super) flags: &'static str,
}

macro_rules! rows {
    ($($gv:literal: $($resource:ident $kind:ident $short:literal $cat:literal $verbs:ident $sub:literal $flags:literal;)*)*) => {
        &[$($(Row {
            group_version: $gv,
            resource: stringify!($resource),
            kind: stringify!($kind),
            short_names: $short,
            categories: $cat,
            verbs: $verbs,
            subresources: $sub,
            flags: $flags,
        },)*)*]
    };
}

pub(super) static ROWS: &[Row] = rows! {
"v1":
    bindings Binding "" "" CREATE "" "N";
    configmaps ConfigMap "cm" "" ALL "" "N";
    endpoints Endpoints "ep" "" ALL "" "NC";
    events Event "ev" "" ALL "" "NC";
    limitranges LimitRange "limits" "" ALL "" "NC";
    namespaces Namespace "ns" "" NO_COLLECTION "finalize,status" "S";
    nodes Node "no" "" ALL "proxy,status" "S";
    persistentvolumeclaims PersistentVolumeClaim "pvc" "" ALL "status" "NS";
    persistentvolumes PersistentVolume "pv" "" ALL "status" "S";
    pods Pod "po" "all" ALL "attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status" "NSGT";
    podtemplates PodTemplate "" "" ALL "" "NG";
    replicationcontrollers ReplicationController "rc" "all" ALL "scale,status" "NSG";
    resourcequotas ResourceQuota "quota" "" ALL "status" "NS";
    secrets Secret "" "" ALL "" "N";
    serviceaccounts ServiceAccount "sa" "" ALL "token" "N";
    services Service "svc" "all" ALL "proxy,status" "NSC";
"apiregistration.k8s.io/v1":
    apiservices APIService "" "api-extensions" ALL "status" "SR";
"apps/v1":
    controllerrevisions ControllerRevision "" "" ALL "" "N";
    daemonsets DaemonSet "ds" "all" ALL "status" "NSG";
    deployments Deployment "deploy" "all" ALL "scale,status" "NSG";
    replicasets ReplicaSet "rs" "all" ALL "scale,status" "NSG";
    statefulsets StatefulSet "sts" "all" ALL "scale,status" "NSG";
"events.k8s.io/v1":
    events Event "ev" "" ALL "" "NC";
"authentication.k8s.io/v1":
    selfsubjectreviews SelfSubjectReview "" "" CREATE "" "";
    tokenreviews TokenReview "" "" CREATE "" "";
"authorization.k8s.io/v1":
    localsubjectaccessreviews LocalSubjectAccessReview "" "" CREATE "" "N";
    selfsubjectaccessreviews SelfSubjectAccessReview "" "" CREATE "" "";
    selfsubjectrulesreviews SelfSubjectRulesReview "" "" CREATE "" "";
    subjectaccessreviews SubjectAccessReview "" "" CREATE "" "";
"autoscaling/v2":
    horizontalpodautoscalers HorizontalPodAutoscaler "hpa" "all" ALL "status" "NS";
"autoscaling/v1":
    horizontalpodautoscalers HorizontalPodAutoscaler "hpa" "all" ALL "status" "NS";
"batch/v1":
    cronjobs CronJob "cj" "all" ALL "status" "NSG";
    jobs Job "" "all" ALL "status" "NSG";
"certificates.k8s.io/v1":
    certificatesigningrequests CertificateSigningRequest "csr" "" ALL "approval,status" "S";
    clustertrustbundles ClusterTrustBundle "" "" ALL "" "";
    podcertificaterequests PodCertificateRequest "" "" ALL "status" "NS";
"networking.k8s.io/v1":
    ingressclasses IngressClass "" "" ALL "" "G";
    ingresses Ingress "ing" "" ALL "status" "NSG";
    ipaddresses IPAddress "ip" "" ALL "" "";
    networkpolicies NetworkPolicy "netpol" "" ALL "" "NG";
    servicecidrs ServiceCIDR "" "" ALL "status" "S";
"policy/v1":
    poddisruptionbudgets PodDisruptionBudget "pdb" "" ALL "status" "NSGR";
"rbac.authorization.k8s.io/v1":
    clusterrolebindings ClusterRoleBinding "" "" ALL "" "C";
    clusterroles ClusterRole "" "" ALL "" "C";
    rolebindings RoleBinding "" "" ALL "" "NC";
    roles Role "" "" ALL "" "NC";
"storage.k8s.io/v1":
    csidrivers CSIDriver "" "" ALL "" "GR";
    csinodes CSINode "" "" ALL "" "R";
    csistoragecapacities CSIStorageCapacity "" "" ALL "" "NR";
    storageclasses StorageClass "sc" "" ALL "" "";
    volumeattachments VolumeAttachment "" "" ALL "status" "SR";
    volumeattributesclasses VolumeAttributesClass "vac" "" ALL "" "";
"admissionregistration.k8s.io/v1":
    mutatingadmissionpolicies MutatingAdmissionPolicy "" "api-extensions" ALL "" "GR";
    mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding "" "api-extensions" ALL "" "GR";
    mutatingwebhookconfigurations MutatingWebhookConfiguration "" "api-extensions" ALL "" "GR";
    validatingadmissionpolicies ValidatingAdmissionPolicy "" "api-extensions" ALL "status" "SGR";
    validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding "" "api-extensions" ALL "" "GR";
    validatingwebhookconfigurations ValidatingWebhookConfiguration "" "api-extensions" ALL "" "GR";
"apiextensions.k8s.io/v1":
    customresourcedefinitions CustomResourceDefinition "crd,crds" "api-extensions" ALL "status" "SGR";
"scheduling.k8s.io/v1":
    priorityclasses PriorityClass "pc" "" ALL "" "GC";
"scheduling.k8s.io/v1beta1":
    podgroups PodGroup "" "" ALL "status" "NSG";
    workloads Workload "" "" ALL "" "NG";
"coordination.k8s.io/v1":
    leases Lease "" "" ALL "" "NCR";
"node.k8s.io/v1":
    runtimeclasses RuntimeClass "" "" ALL "" "R";
"discovery.k8s.io/v1":
    endpointslices EndpointSlice "" "" ALL "" "NG";
"flowcontrol.apiserver.k8s.io/v1":
    flowschemas FlowSchema "" "" ALL "status" "SG";
    prioritylevelconfigurations PriorityLevelConfiguration "" "" ALL "status" "SG";
"resource.k8s.io/v1":
    deviceclasses DeviceClass "" "" ALL "" "G";
    devicetaintrules DeviceTaintRule "" "" ALL "status" "SG";
    resourceclaims ResourceClaim "" "" ALL "status" "NS";
    resourceclaimtemplates ResourceClaimTemplate "" "" ALL "" "N";
    resourceslices ResourceSlice "" "" ALL "" "G";
};

/// Subresources: name, the kind that it speaks (empty: the parent's), and verbs.
pub(super) static SUBRESOURCES: &[(&str, &str, &str, &str)] = &[
    ("approval", "", "", "get,patch,update"),
    ("attach", "v1", "PodAttachOptions", "create,get"),
    ("binding", "v1", "Binding", "create"),
    ("ephemeralcontainers", "", "", "get,patch,update"),
    ("eviction", "policy/v1", "Eviction", "create"),
    ("exec", "v1", "PodExecOptions", "create,get"),
    ("finalize", "", "", "update"),
    ("log", "", "", "get"),
    ("portforward", "v1", "PodPortForwardOptions", "create,get"),
    ("resize", "", "", "get,patch,update"),
    ("scale", "autoscaling/v1", "Scale", "get,patch,update"),
    ("status", "", "", "get,patch,update"),
    ("token", "authentication.k8s.io/v1", "TokenRequest", "create"),
];
