//! The fields of a pod that the node reads (`k8s.io/api/core/v1`).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::Value;

/// Declares thin views: camel case, every field optional.
macro_rules! view {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* })*
    };
}

/// When containers are started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    #[default]
    Always,
    /// If the exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// A port by number or by the name that a container gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// By number.
    Number(i64),
    /// By name.
    Name(String),
}

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// A quantity as it may stand in JSON: a text or a bare number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum QuantityText {
    /// As a text.
    Text(String),
    /// As a number.
    Number(f64),
}

view! {
    /// `PodSpec`.
    PodSpec {
        /// Run before the others, in order.
        init_containers: Vec<Container>,
        /// What the pod is for.
        containers: Vec<Container>,
        /// Added while the pod runs.
        ephemeral_containers: Vec<Container>,
        /// Volumes that containers mount.
        volumes: Vec<Volume>,
        /// When containers are started again.
        restart_policy: RestartPolicy,
        /// Seconds between stop and kill; 30 if missing.
        termination_grace_period_seconds: Option<i64>,
        /// Most seconds that the pod may run.
        active_deadline_seconds: Option<i64>,
        /// `ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`.
        dns_policy: String,
        /// More resolver configuration.
        dns_config: Option<PodDnsConfig>,
        /// The node.
        node_name: String,
        /// Labels that the node must have.
        node_selector: BTreeMap<String, String>,
        /// The host name inside; the pod's name if empty.
        hostname: String,
        /// The subdomain, a headless service's name.
        subdomain: String,
        /// Use the fully qualified name as host name.
        #[serde(rename = "setHostnameAsFQDN")]
        set_hostname_as_fqdn: bool,
        /// Use the node's network.
        host_network: bool,
        /// Use the node's process ids.
        #[serde(rename = "hostPID")]
        host_pid: bool,
        /// Use the node's IPC.
        #[serde(rename = "hostIPC")]
        host_ipc: bool,
        /// Containers see each other's processes.
        share_process_namespace: bool,
        /// Who the containers run as.
        security_context: PodSecurityContext,
        /// Lines of `/etc/hosts`.
        host_aliases: Vec<HostAlias>,
        /// The service account.
        service_account_name: String,
        /// Whether Service variables are set; true if missing.
        enable_service_links: Option<bool>,
        /// Conditions that others set and that count for `Ready`.
        readiness_gates: Vec<ReadinessGate>,
        /// The runtime class.
        runtime_class_name: String,
        /// Secrets with registry credentials.
        image_pull_secrets: Vec<LocalReference>,
        /// The priority.
        priority: Option<i64>,
        /// What the runtime class adds to requests.
        overhead: BTreeMap<String, QuantityText>,
        /// Requests and limits of the whole pod.
        resources: ResourceRequirements,
    }
    /// `Container`.
    Container {
        /// Unique in the pod.
        name: String,
        /// The image.
        image: String,
        /// `Always`, `IfNotPresent` or `Never`; empty for the default of the tag.
        image_pull_policy: String,
        /// The program.
        command: Vec<String>,
        /// Its arguments.
        args: Vec<String>,
        /// The working directory.
        working_dir: String,
        /// Variables.
        env: Vec<EnvVar>,
        /// Variables from whole objects.
        env_from: Vec<EnvFrom>,
        /// Ports.
        ports: Vec<ContainerPort>,
        /// Requests and limits.
        resources: ResourceRequirements,
        /// Mounts.
        volume_mounts: Vec<VolumeMount>,
        /// Restart the container when this fails.
        liveness_probe: Option<Probe>,
        /// Take the pod out of services when this fails.
        readiness_probe: Option<Probe>,
        /// Hold the other probes until this succeeds.
        startup_probe: Option<Probe>,
        /// Hooks.
        lifecycle: Option<Lifecycle>,
        /// Who it runs as.
        security_context: SecurityContext,
        /// Keep stdin open.
        stdin: bool,
        /// Close stdin after the first attach.
        stdin_once: bool,
        /// Allocate a terminal.
        tty: bool,
        /// `/dev/termination-log` if empty.
        termination_message_path: String,
        /// `File` or `FallbackToLogsOnError`.
        termination_message_policy: String,
        /// Overrides the pod's (`Always` on an init container makes it a sidecar).
        restart_policy: Option<RestartPolicy>,
        /// Exit codes that restart the container whatever the policy (KEP-5307).
        restart_policy_rules: Vec<RestartRule>,
    }
    /// `ContainerRestartRule`.
    RestartRule {
        /// `Restart`.
        action: String,
        /// For which exit codes.
        exit_codes: RestartRuleExitCodes,
    }
    /// `ContainerRestartRuleOnExitCodes`.
    RestartRuleExitCodes {
        /// `In` or `NotIn`.
        operator: String,
        /// The codes.
        values: Vec<i32>,
    }
    /// `EnvVar`.
    EnvVar {
        /// The name.
        name: String,
        /// The value, with `$(VAR)`.
        value: String,
        /// Or where it comes from.
        value_from: Option<EnvVarSource>,
    }
    /// `EnvVarSource`.
    EnvVarSource {
        /// A field of the pod.
        field_ref: Option<FieldRef>,
        /// A request or limit.
        resource_field_ref: Option<ResourceFieldRef>,
        /// A key of a config map.
        config_map_key_ref: Option<KeyRef>,
        /// A key of a secret.
        secret_key_ref: Option<KeyRef>,
        /// A key of an env file in a volume.
        file_key_ref: Option<Value>,
    }
    /// `ObjectFieldSelector`.
    FieldRef {
        /// Such as `metadata.name`.
        field_path: String,
    }
    /// `ResourceFieldSelector`.
    ResourceFieldRef {
        /// The container; the one that asks if empty.
        container_name: String,
        /// Such as `limits.cpu`.
        resource: String,
        /// The unit; 1 if missing.
        divisor: Option<QuantityText>,
    }
    /// `ConfigMapKeySelector` and `SecretKeySelector`.
    KeyRef {
        /// The object.
        name: String,
        /// The key.
        key: String,
        /// Whether it may be missing.
        optional: bool,
    }
    /// `EnvFromSource`.
    EnvFrom {
        /// Stands before each name.
        prefix: String,
        /// A whole config map.
        config_map_ref: Option<ObjectRef>,
        /// A whole secret.
        secret_ref: Option<ObjectRef>,
    }
    /// A reference to a config map or secret.
    ObjectRef {
        /// The object.
        name: String,
        /// Whether it may be missing.
        optional: bool,
    }
    /// `LocalObjectReference`.
    LocalReference {
        /// The object.
        name: String,
    }
    /// `ContainerPort`.
    ContainerPort {
        /// The name.
        name: String,
        /// The port in the pod.
        container_port: u16,
        /// The port of the node; 0 for none.
        host_port: u16,
        /// The address of the node.
        #[serde(rename = "hostIP")]
        host_ip: String,
        /// `TCP` if empty.
        protocol: String,
    }
    /// `ResourceRequirements`.
    ResourceRequirements {
        /// Ceilings.
        limits: BTreeMap<String, QuantityText>,
        /// What is set aside.
        requests: BTreeMap<String, QuantityText>,
    }
    /// `VolumeMount`.
    VolumeMount {
        /// The volume.
        name: String,
        /// Where.
        mount_path: String,
        /// A path inside of the volume.
        sub_path: String,
        /// The same with `$(VAR)`.
        sub_path_expr: String,
        /// Refuse writes.
        read_only: bool,
        /// `None`, `HostToContainer` or `Bidirectional`.
        mount_propagation: String,
    }
    /// `Probe`.
    Probe {
        /// Run a command.
        exec: Option<ExecAction>,
        /// Send a GET.
        http_get: Option<HttpGetAction>,
        /// Open a connection.
        tcp_socket: Option<TcpSocketAction>,
        /// Ask the gRPC health service.
        grpc: Option<GrpcAction>,
        /// Seconds after the start.
        initial_delay_seconds: i64,
        /// Seconds; 1 if missing.
        timeout_seconds: Option<i64>,
        /// Seconds; 10 if missing.
        period_seconds: Option<i64>,
        /// In a row; 1 if missing.
        success_threshold: Option<u32>,
        /// In a row; 3 if missing.
        failure_threshold: Option<u32>,
        /// Overrides the pod's.
        termination_grace_period_seconds: Option<i64>,
    }
    /// `GRPCAction`.
    GrpcAction {
        /// The port.
        port: u16,
        /// The service; all of the server if missing.
        service: Option<String>,
    }
    /// `ExecAction`.
    ExecAction {
        /// The program and its arguments.
        command: Vec<String>,
    }
    /// `HTTPGetAction`.
    HttpGetAction {
        /// The host; the pod if empty.
        host: String,
        /// The port.
        port: PortRef,
        /// The path; `/` if empty.
        path: String,
        /// `HTTP` or `HTTPS`.
        scheme: String,
        /// More headers.
        http_headers: Vec<HttpHeader>,
    }
    /// `HTTPHeader`.
    HttpHeader {
        /// The name.
        name: String,
        /// The value.
        value: String,
    }
    /// `TCPSocketAction`.
    TcpSocketAction {
        /// The host; the pod if empty.
        host: String,
        /// The port.
        port: PortRef,
    }
    /// `Lifecycle`.
    Lifecycle {
        /// Right after the start.
        post_start: Option<Handler>,
        /// Before the stop signal.
        pre_stop: Option<Handler>,
        /// The stop signal.
        stop_signal: String,
    }
    /// `LifecycleHandler`.
    Handler {
        /// Run a command.
        exec: Option<ExecAction>,
        /// Send a GET.
        http_get: Option<HttpGetAction>,
        /// Open a connection.
        tcp_socket: Option<TcpSocketAction>,
        /// Wait.
        sleep: Option<SleepAction>,
    }
    /// `SleepAction`.
    SleepAction {
        /// How long.
        seconds: i64,
    }
    /// `PodSecurityContext`.
    PodSecurityContext {
        /// User id.
        run_as_user: Option<i64>,
        /// Group id.
        run_as_group: Option<i64>,
        /// Refuse user 0.
        run_as_non_root: Option<bool>,
        /// More groups.
        supplemental_groups: Vec<i64>,
        /// Group of volumes.
        fs_group: Option<i64>,
        /// System call filter.
        seccomp_profile: Option<SeccompProfile>,
        /// Kernel parameters.
        sysctls: Vec<HttpHeader>,
    }
    /// `SecurityContext`.
    SecurityContext {
        /// User id.
        run_as_user: Option<i64>,
        /// Group id.
        run_as_group: Option<i64>,
        /// Refuse user 0.
        run_as_non_root: Option<bool>,
        /// All rights.
        privileged: bool,
        /// The root file system cannot be written to.
        read_only_root_filesystem: bool,
        /// False sets `no_new_privs`.
        allow_privilege_escalation: Option<bool>,
        /// Capabilities.
        capabilities: Capabilities,
        /// System call filter.
        seccomp_profile: Option<SeccompProfile>,
        /// `Default` or `Unmasked`.
        proc_mount: String,
    }
    /// `Capabilities`.
    Capabilities {
        /// To give.
        add: Vec<String>,
        /// To take away.
        drop: Vec<String>,
    }
    /// `SeccompProfile`.
    SeccompProfile {
        /// `RuntimeDefault`, `Localhost` or `Unconfined`.
        #[serde(rename = "type")]
        kind: String,
        /// The profile file.
        localhost_profile: String,
    }
    /// `HostAlias`.
    HostAlias {
        /// The address.
        ip: String,
        /// Its names.
        hostnames: Vec<String>,
    }
    /// `PodReadinessGate`.
    ReadinessGate {
        /// The condition.
        condition_type: String,
    }
    /// `PodDNSConfig`.
    PodDnsConfig {
        /// Name servers.
        nameservers: Vec<String>,
        /// Search domains.
        searches: Vec<String>,
        /// Options.
        options: Vec<PodDnsOption>,
    }
    /// `PodDNSConfigOption`.
    PodDnsOption {
        /// The name.
        name: String,
        /// The value.
        value: Option<String>,
    }
    /// `Volume`. Exactly one source is set; kinds that are not listed stand in `other`.
    Volume {
        /// The name.
        name: String,
        /// An empty folder.
        empty_dir: Option<EmptyDir>,
        /// Files from a config map.
        config_map: Option<ConfigMapVolume>,
        /// Files from a secret.
        secret: Option<SecretVolume>,
        /// Files from the pod's own fields.
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardVolume>,
        /// Files from several sources.
        projected: Option<ProjectedVolume>,
        /// A path of the node.
        host_path: Option<HostPathVolume>,
        /// Any other kind.
        #[serde(flatten)]
        other: BTreeMap<String, Value>,
    }
    /// `EmptyDirVolumeSource`.
    EmptyDir {
        /// `Memory` or empty.
        medium: String,
        /// Most bytes.
        size_limit: Option<QuantityText>,
    }
    /// `ConfigMapVolumeSource` and `ConfigMapProjection`.
    ConfigMapVolume {
        /// The config map.
        name: String,
        /// Which keys go where; all if empty.
        items: Vec<KeyToPath>,
        /// Permission bits.
        default_mode: Option<u32>,
        /// Whether it may be missing.
        optional: bool,
    }
    /// `SecretVolumeSource` and `SecretProjection`.
    SecretVolume {
        /// The secret (of a volume).
        secret_name: String,
        /// The secret (of a projection).
        name: String,
        /// Which keys go where; all if empty.
        items: Vec<KeyToPath>,
        /// Permission bits.
        default_mode: Option<u32>,
        /// Whether it may be missing.
        optional: bool,
    }
    /// `KeyToPath`.
    KeyToPath {
        /// The key.
        key: String,
        /// The file.
        path: String,
        /// Permission bits.
        mode: Option<u32>,
    }
    /// `DownwardAPIVolumeSource` and `DownwardAPIProjection`.
    DownwardVolume {
        /// The files.
        items: Vec<DownwardFile>,
        /// Permission bits.
        default_mode: Option<u32>,
    }
    /// `DownwardAPIVolumeFile`.
    DownwardFile {
        /// The file.
        path: String,
        /// A field of the pod.
        field_ref: Option<FieldRef>,
        /// A request or limit.
        resource_field_ref: Option<ResourceFieldRef>,
        /// Permission bits.
        mode: Option<u32>,
    }
    /// `ProjectedVolumeSource`.
    ProjectedVolume {
        /// The sources.
        sources: Vec<Projection>,
        /// Permission bits.
        default_mode: Option<u32>,
    }
    /// `VolumeProjection`.
    Projection {
        /// Files from a config map.
        config_map: Option<ConfigMapVolume>,
        /// Files from a secret.
        secret: Option<SecretVolume>,
        /// Files from the pod's own fields.
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardVolume>,
        /// A bound token.
        service_account_token: Option<TokenProjection>,
        /// Any other kind.
        #[serde(flatten)]
        other: BTreeMap<String, Value>,
    }
    /// `ServiceAccountTokenProjection`.
    TokenProjection {
        /// Who shall accept it; the API server if empty.
        audience: String,
        /// Seconds; 3600 if missing.
        expiration_seconds: Option<i64>,
        /// The file.
        path: String,
    }
    /// `HostPathVolumeSource`.
    HostPathVolume {
        /// The path.
        path: String,
        /// What is checked.
        #[serde(rename = "type")]
        kind: String,
    }
}

impl Container {
    /// The number of a port given by number or name.
    #[must_use]
    pub fn port(&self, port: &PortRef) -> Option<u16> {
        match port {
            PortRef::Number(n) => u16::try_from(*n).ok().filter(|n| *n != 0),
            PortRef::Name(name) => match self.ports.iter().find(|p| p.name == *name) {
                Some(p) => Some(p.container_port),
                None => name.parse().ok(),
            },
        }
    }

    /// Whether an init container keeps running beside the others (KEP-753).
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }
}

/// The value without members that are `null`: a `null` means the same as a missing field.
#[must_use]
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
