//! What a pod's status says: phase, conditions, container statuses and quality of service.
//!
//! ```
//! use icp_core::base::Time;
//! use icp_node::pod::{Pod, PodMachine};
//! let object = serde_json::from_str(
//!     r#"{"metadata":{"name":"web","uid":"u1"},"spec":{"containers":[{"name":"c","image":"nginx"}]}}"#).unwrap();
//! let machine = PodMachine::new(std::sync::Arc::new(Pod::from_object(&object).unwrap()), Time::ZERO);
//! let status = machine.status(&[]);
//! assert_eq!(status["phase"], "Pending");
//! assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
//! ```

mod qos;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::base::Time;
use serde_json::{Map, Value, json};

use crate::pod::{Condition, Ended, Pod, PodMachine, Run, Slot};
use crate::runtime::ContainerKind;

pub use qos::{cpu_millis, memory_bytes, parse_quantity, pod_requests, qos_class};

/// The conditions that the node sets.
const OWN: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
];

/// The value of `status` (`generateAPIPodStatus`), with the conditions that others set as they were last seen.
pub(crate) fn pod_status(machine: &PodMachine, host_ips: &[IpAddr]) -> Value {
    let mut status = Map::new();
    let mut set = |key: &str, value: Value| {
        status.insert(key.into(), value);
    };
    set("phase", machine.phase.as_str().into());
    if machine.pod.generation > 0 {
        set("observedGeneration", machine.pod.generation.into());
    }
    if let Some(failure) = &machine.failure {
        set("reason", failure.reason.clone().into());
        set("message", failure.message.clone().into());
    }
    let ips = |list: &[IpAddr]| list.iter().map(|ip| json!({ "ip": ip.to_string() })).collect::<Vec<_>>();
    if let Some(ip) = host_ips.first() {
        set("hostIP", ip.to_string().into());
        set("hostIPs", ips(host_ips).into());
    }
    if let Some(ip) = machine.ips().first() {
        set("podIP", ip.to_string().into());
        set("podIPs", ips(machine.ips()).into());
    }
    set("startTime", machine.start_time.to_rfc3339().into());
    set("qosClass", qos_class(&machine.pod.spec).as_str().into());
    set("conditions", all_conditions(machine));
    let of = |kinds: &[ContainerKind]| {
        let slots = machine.slots.iter().filter(|s| kinds.contains(&s.kind));
        slots.map(|s| container_status(machine, s)).collect::<Vec<_>>()
    };
    let init = of(&[ContainerKind::Init, ContainerKind::Sidecar]);
    if !init.is_empty() {
        set("initContainerStatuses", init.into());
    }
    set("containerStatuses", of(&[ContainerKind::Regular]).into());
    let ephemeral = of(&[ContainerKind::Ephemeral]);
    if !ephemeral.is_empty() {
        set("ephemeralContainerStatuses", ephemeral.into());
    }
    Value::Object(status)
}

fn all_conditions(machine: &PodMachine) -> Value {
    let all = machine.conditions.iter().map(|c| {
        let mut value = json!({
            "type": c.kind,
            "status": c.status,
            "lastTransitionTime": c.last_transition_time.unwrap_or(machine.start_time).to_rfc3339(),
        });
        if let Some(map) = value.as_object_mut() {
            for (key, text) in [("reason", &c.reason), ("message", &c.message)] {
                if !text.is_empty() {
                    map.insert(key.into(), text.as_str().into());
                }
            }
        }
        value
    });
    all.collect()
}

fn container_status(machine: &PodMachine, slot: &Slot) -> Value {
    let spec = machine.pod.container(&slot.name);
    let image = spec.map(|c| c.image.as_str()).unwrap_or_default();
    let id = match &slot.run {
        Run::Running(r) => r.id.clone(),
        _ => slot.exit.as_ref().map(|e| e.id.clone()).unwrap_or_default(),
    };
    let (state, last) = states(machine, slot);
    let mut status = Map::new();
    status.insert("name".into(), (*slot.name).into());
    status.insert("state".into(), state);
    status.insert("lastState".into(), last.map_or_else(|| json!({}), |e| json!({ "terminated": ended(e) })));
    let ready = match slot.kind {
        // An init container that ended well counts as ready.
        ContainerKind::Init => {
            matches!(slot.run, Run::Idle) && slot.exit.as_ref().is_some_and(|e| e.exit.code == 0)
        }
        ContainerKind::Ephemeral => false,
        _ => slot.is_ready(),
    };
    status.insert("ready".into(), ready.into());
    status.insert("restartCount".into(), slot.restarts().into());
    status.insert("image".into(), image.into());
    status.insert("imageID".into(), slot.image_id.clone().into());
    if !id.is_empty() {
        status.insert("containerID".into(), id.into());
    }
    status.insert("started".into(), slot.is_started().into());
    Value::Object(status)
}

/// `state` and the attempt of `lastState`.
fn states<'a>(machine: &PodMachine, slot: &'a Slot) -> (Value, Option<&'a Ended>) {
    let waiting = |reason: &str, message: &str| {
        if message.is_empty() {
            json!({ "waiting": { "reason": reason } })
        } else {
            json!({ "waiting": { "reason": reason, "message": message } })
        }
    };
    if let Run::Running(running) = &slot.run {
        return (json!({ "running": { "startedAt": running.started_at.to_rfc3339() } }), slot.last.as_ref());
    }
    if let Some(wait) = &slot.wait
        && !machine.is_over()
    {
        return (waiting(wait.reason, &wait.message), slot.exit.as_ref().or(slot.last.as_ref()));
    }
    match &slot.exit {
        Some(_) if slot.crashed && !slot.crash_delay.is_zero() && machine.restarts(slot) => {
            let message = format!(
                "back-off {}s restarting failed container={} pod={}_{}({})",
                slot.crash_delay.as_secs(),
                slot.name,
                machine.pod.name,
                machine.pod.namespace,
                machine.pod.uid
            );
            (waiting("CrashLoopBackOff", &message), slot.exit.as_ref())
        }
        Some(end) => (json!({ "terminated": ended(end) }), slot.last.as_ref()),
        None => {
            let held = slot.kind != ContainerKind::Ephemeral
                && !machine.initialized
                && !machine.pod.spec.init_containers.is_empty();
            (waiting(if held { "PodInitializing" } else { "ContainerCreating" }, ""), slot.last.as_ref())
        }
    }
}

fn ended(end: &Ended) -> Value {
    let mut value = json!({
        "exitCode": end.exit.code,
        "reason": end.reason,
        "startedAt": end.exit.started_at.to_rfc3339(),
        "finishedAt": end.exit.finished_at.to_rfc3339(),
    });
    if let Some(map) = value.as_object_mut() {
        if !end.exit.message.is_empty() {
            map.insert("message".into(), end.exit.message.clone().into());
        }
        if !end.id.is_empty() {
            map.insert("containerID".into(), end.id.clone().into());
        }
    }
    value
}

/// All conditions of the pod at `now`: those that others set as they were, the node's own computed afresh; the
/// time of change moves only when the status does.
pub(crate) fn conditions(machine: &PodMachine, now: Time) -> Vec<Condition> {
    let pod: &Pod = &machine.pod;
    let mut all: Vec<Condition> =
        pod.remembered.conditions.iter().filter(|c| !OWN.contains(&c.kind.as_str())).cloned().collect();
    let foreign_true = |kind: &str| all.iter().any(|c| c.kind == kind && c.status == "True");
    let missing_gates: Vec<_> = pod
        .spec
        .readiness_gates
        .iter()
        .filter(|g| !foreign_true(&g.condition_type))
        .map(|g| g.condition_type.as_str())
        .collect();

    let names = |pick: &dyn Fn(&Slot) -> bool| {
        machine.slots.iter().filter(|s| pick(s)).map(|s| &*s.name).collect::<Vec<_>>().join(" ")
    };
    let unready =
        names(&|s| matches!(s.kind, ContainerKind::Regular | ContainerKind::Sidecar) && !s.is_ready());
    let incomplete = names(&|s| match s.kind {
        ContainerKind::Init => s.exit.as_ref().is_none_or(|e| e.exit.code != 0),
        ContainerKind::Sidecar => !s.is_started(),
        _ => false,
    });
    let over = match machine.phase.as_str() {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let containers = match over {
        Some(reason) => (false, reason, String::new()),
        None if unready.is_empty() => (true, "", String::new()),
        None => (false, "ContainersNotReady", format!("containers with unready status: [{unready}]")),
    };
    let ready = if containers.0 && !missing_gates.is_empty() {
        let message = missing_gates.iter().map(|g| {
            format!("corresponding condition of pod readiness gate \"{g}\" does not exist or is not True.")
        });
        (false, "ReadinessGatesNotReady", message.collect::<Vec<_>>().join(", "))
    } else {
        containers.clone()
    };
    let initialized = if machine.initialized {
        (true, if over == Some("PodCompleted") { "PodCompleted" } else { "" }, String::new())
    } else {
        let message = format!("containers with incomplete status: [{incomplete}]");
        (incomplete.is_empty(), if incomplete.is_empty() { "" } else { "ContainersNotInitialized" }, message)
    };
    let initialized = if initialized.0 { (true, initialized.1, String::new()) } else { initialized };

    let mut put = |kind: &str, (holds, reason, message): (bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let before = machine.conditions.iter().find(|c| c.kind == kind);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time);
        all.push(Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            last_transition_time: Some(since.unwrap_or(now)),
        });
    };
    put("PodReadyToStartContainers", (machine.has_sandbox(), "", String::new()));
    put("Initialized", initialized);
    put("Ready", ready);
    put("ContainersReady", containers);
    put("PodScheduled", (true, "", String::new()));
    if let Some(failure) = machine.failure.as_ref().filter(|f| f.disruption) {
        put("DisruptionTarget", (true, "TerminationByKubelet", failure.message.clone()));
    }
    all
}
