//! The columns of each kind. `#` marks a number, `+` a column of the wide form.

use crate::api::table::ResourceInfo;

const WORKLOAD: &str = "Name,Desired#,Current#,Ready#,Age,Containers+,Images+,Selector+";
const WEBHOOKS: &str = "Name,Webhooks#,Age";
const BINDING: &str = "Name,Role,Age,Users+,Groups+,ServiceAccounts+";

/// The columns of a resource, separated by commas.
pub(super) fn of(info: &ResourceInfo) -> &'static str {
    match info.kind.as_str() {
        "Pod" => "Name,Ready,Status,Restarts,Age,IP+,Node+,Nominated Node+,Readiness Gates+",
        "PodTemplate" => "Name,Containers,Images,Pod Labels",
        "PodDisruptionBudget" => "Name,Min Available,Max Unavailable,Allowed Disruptions#,Age",
        "ReplicationController" | "ReplicaSet" => WORKLOAD,
        "DaemonSet" => {
            "Name,Desired#,Current#,Ready#,Up-to-date#,Available#,Node Selector,Age,Containers+,Images+,Selector+"
        }
        "StatefulSet" => "Name,Ready,Age,Containers+,Images+",
        "Deployment" => "Name,Ready,Up-to-date#,Available#,Age,Containers+,Images+,Selector+",
        "Job" => "Name,Status,Completions,Duration,Age,Containers+,Images+,Selector+",
        "CronJob" => "Name,Schedule,Timezone,Suspend,Active#,Last Schedule,Age,Containers+,Images+,Selector+",
        "Service" => "Name,Type,Cluster-IP,External-IP,Port(s),Age,Selector+",
        "Ingress" => "Name,Class,Hosts,Address,Ports,Age",
        "IngressClass" => "Name,Controller,Parameters,Age",
        "Endpoints" => "Name,Endpoints,Age",
        "EndpointSlice" => "Name,AddressType,Ports,Endpoints,Age",
        "Node" => {
            "Name,Status,Roles,Age,Version,Internal-IP+,External-IP+,OS-Image+,Kernel-Version+,Container-Runtime+"
        }
        "Event" => "Last Seen,Type,Reason,Object,Subobject+,Source+,Message,First Seen+,Count#+,Name+",
        "Namespace" => "Name,Status,Age",
        "Secret" => "Name,Type,Data#,Age",
        "ConfigMap" => "Name,Data#,Age",
        "ServiceAccount" => "Name,Secrets#,Age",
        "PersistentVolume" => {
            "Name,Capacity,Access Modes,Reclaim Policy,Status,Claim,StorageClass,VolumeAttributesClass,Reason,Age,VolumeMode+"
        }
        "PersistentVolumeClaim" => {
            "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age,VolumeMode+"
        }
        "HorizontalPodAutoscaler" => "Name,Reference,Targets,MinPods,MaxPods#,Replicas#,Age",
        "NetworkPolicy" => "Name,Pod-Selector,Age",
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        "CertificateSigningRequest" => "Name,Age,SignerName,Requestor,RequestedDuration,Condition",
        "Lease" => "Name,Holder,Age",
        "StorageClass" => "Name,Provisioner,ReclaimPolicy,VolumeBindingMode,AllowVolumeExpansion,Age",
        "ControllerRevision" => "Name,Controller,Revision#,Age",
        "ResourceQuota" => "Name,Request,Limit,Age",
        "PodGroup" => "Name,Policy,Min Count,Scheduled,Age",
        "Workload" => "Name,Age",
        "PriorityClass" => "Name,Value#,Global-Default,Age,PreemptionPolicy",
        "RuntimeClass" => "Name,Handler,Age",
        "VolumeAttachment" => "Name,Attacher,PV,Node,Attached,Age",
        "CSINode" => "Name,Drivers#,Age",
        "CSIDriver" => {
            "Name,AttachRequired,PodInfoOnMount,StorageCapacity,TokenRequests,RequiresRepublish,Modes,Age"
        }
        "CSIStorageCapacity" => "Name,StorageClassName,Capacity",
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => WEBHOOKS,
        "ValidatingAdmissionPolicy" => "Name,Validations#,ParamKind,Age",
        "MutatingAdmissionPolicy" => "Name,Mutations#,ParamKind,Age",
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            "Name,PolicyName,ParamRef,Age"
        }
        "FlowSchema" => "Name,PriorityLevel,MatchingPrecedence#,DistinguisherMethod,Age,MissingPL",
        "PriorityLevelConfiguration" => {
            "Name,Type,NominalConcurrencyShares,Queues,HandSize,QueueLengthLimit,Age"
        }
        "IPAddress" => "Name,ParentRef,Age",
        "ServiceCIDR" => "Name,CIDRs,Age",
        "ResourceClaim" => "Name,State,Age",
        "ResourceClaimTemplate" | "DeviceClass" => "Name,Age",
        "ResourceSlice" => "Name,Node,Driver,Pool,Age",
        "APIService" => "Name,Service,Available,Age",
        "VolumeAttributesClass" => "Name,DriverName,Age",
        // Custom resources without columns of their own.
        _ if info.is_custom() => "Name,Age",
        _ => "Name,Created At",
    }
}
