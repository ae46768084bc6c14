use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::{Duration, Machine, Time, drive};
use icp_core::client::{ClientEffect, ClientEvent, Operation, Reply};
use proptest::prelude::*;

use super::*;
use crate::agent::{Kubelet, KubeletConfig};
use crate::runtime::{
    CallId, ContainerKey, ContainerSpec, ExecRequest, LogOptions, Mount, MountSource, Outcome, PodUid,
    RuntimeCall, RuntimeError, RuntimeEvent, RuntimeOp, SandboxSpec, VolumeContent, VolumeFile,
};

fn call(n: u64, pod: &str, op: RuntimeOp) -> MemoryEvent {
    MemoryEvent::Call(RuntimeCall { id: CallId(n), pod: PodUid::from(pod), generation: 1, op })
}

fn runtime(cidr: &str) -> MemoryRuntime {
    MemoryRuntime::new(SimRules::default(), cidr.parse().unwrap())
}

fn start(name: &str, attempt: u32, spec: ContainerSpec) -> RuntimeOp {
    RuntimeOp::StartContainer { container: ContainerKey::new(name, attempt), spec: Arc::new(spec) }
}

#[test]
fn calls_are_idempotent_and_attempts_exclude_each_other() {
    let (mut r, mut out) = (runtime("10.1.0.0/24"), Vec::new());
    r.on(Time::ZERO, call(1, "u", RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default()))), &mut out);
    r.on(Time::ZERO, call(2, "u", RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default()))), &mut out);
    for n in 3..5 {
        r.on(Time::ZERO, call(n, "u", start("c", 0, ContainerSpec::default())), &mut out);
    }
    r.on(Time::ZERO, call(5, "u", start("c", 1, ContainerSpec::default())), &mut out);
    drive(&mut r, Time::from_secs(9), 100, &mut out);
    let ips: Vec<_> = out
        .iter()
        .filter_map(|e| match e {
            RuntimeEvent::Done { result: Ok(Outcome::Sandbox { ips, .. }), .. } => Some(ips.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(ips.len(), 2);
    assert_eq!(ips[0], ips[1]);
    assert_eq!(r.running(), 1);
    let refused = out.iter().any(|e| {
        matches!(e, RuntimeEvent::Done { call: CallId(5), result: Err(RuntimeError::Conflict { .. }), .. })
    });
    assert!(refused);
}

#[test]
fn commands_end_and_stops_are_reported_once() {
    let (mut r, mut out) = (runtime("10.1.0.0/24"), Vec::new());
    r.on(Time::ZERO, call(1, "u", RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default()))), &mut out);
    let sleep =
        ContainerSpec { command: Vec::from([String::from("sleep"), "5".into()]), ..Default::default() };
    r.on(Time::ZERO, call(2, "u", start("a", 0, sleep)), &mut out);
    r.on(Time::ZERO, call(3, "u", start("b", 0, ContainerSpec::default())), &mut out);
    for n in 4..6 {
        let stop =
            RuntimeOp::StopContainer { container: ContainerKey::new("b", 0), grace: Duration::from_secs(30) };
        r.on(Time::from_secs(1), call(n, "u", stop), &mut out);
    }
    drive(&mut r, Time::from_secs(60), 100, &mut out);
    let exits: Vec<_> = out
        .iter()
        .filter_map(|e| match e {
            RuntimeEvent::ContainerExited { container, exit, .. } => Some((&*container.name, exit.code)),
            _ => None,
        })
        .collect();
    assert_eq!(exits, [("b", 143), ("a", 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// No two sandboxes share an address, and a range that is used up says so.
    #[test]
    fn addresses_are_unique(ops in proptest::collection::vec((any::<bool>(), 0_u8..12), 1..60)) {
        let (mut r, mut out) = (runtime("10.1.0.0/29"), Vec::new());
        let mut n = 0;
        for (create, pod) in ops {
            n += 1;
            let op = match create {
                true => RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default())),
                false => RuntimeOp::RemoveSandbox,
            };
            r.on(Time::ZERO, call(n, &format!("u{pod}"), op), &mut out);
        }
        out.clear();
        r.on(Time::from_secs(1), call(0, "", RuntimeOp::Relist), &mut out);
        let Some(RuntimeEvent::Done { result: Ok(Outcome::Listed(pods)), .. }) = out.last() else { panic!() };
        let mut ips: Vec<_> = pods.iter().filter_map(|p| p.sandbox.as_ref()).flat_map(|s| s.ips.clone()).collect();
        let all = ips.len();
        ips.sort();
        ips.dedup();
        prop_assert_eq!(ips.len(), all);
        prop_assert!(all <= 5, "a /29 has five addresses for pods");
    }
}

/// What a container reads is its volumes as they are now, though they were written before its sandbox was made.
#[test]
fn files_of_volumes_are_seen_and_followed() {
    let (mut r, mut out) = (runtime("10.1.0.0/24"), Vec::new());
    let write = |text: &'static str| {
        let file = VolumeFile { path: "key".into(), data: text.as_bytes().into(), mode: 0o644 };
        let content = VolumeContent::Files { files: Vec::from([file]), fs_group: None };
        RuntimeOp::WriteVolume { volume: "v".into(), content: Arc::new(content) }
    };
    let source = MountSource::Volume { name: "v".into(), sub_path: String::new() };
    let mount = Mount { path: "/c".into(), source, read_only: true, propagation: Default::default() };
    let spec = ContainerSpec { mounts: Vec::from([mount]), ..Default::default() };
    r.on(Time::ZERO, call(1, "u", write("old")), &mut out);
    r.on(Time::ZERO, call(2, "u", RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default()))), &mut out);
    r.on(Time::ZERO, call(3, "u", start("c", 0, spec)), &mut out);
    let read = |r: &MemoryRuntime| {
        let command = Vec::from(["cat".into(), "/c/key".into()]);
        let request = ExecRequest { command, stdout: true, ..Default::default() };
        match r.exec(&PodUid::from("u"), "c", &request).unwrap().program {
            Program::Run(run) => run.writes[0].bytes.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&r), b"old");
    r.on(Time::ZERO, call(4, "u", write("new")), &mut out);
    assert_eq!(read(&r), b"new");
    r.on(Time::ZERO, call(5, "u", RuntimeOp::RemoveSandbox), &mut out);
    assert!(r.exec(&PodUid::from("u"), "c", &ExecRequest::default()).is_err());
}

/// The log of an attempt and of the one before, as one asks for them.
#[test]
fn logs_of_two_attempts() {
    let (mut r, mut out) = (runtime("10.1.0.0/24"), Vec::new());
    r.on(Time::ZERO, call(1, "u", RuntimeOp::CreateSandbox(Arc::new(SandboxSpec::default()))), &mut out);
    for attempt in 0..2 {
        let command = ["sh", "-c", "echo $N; sleep 1"].map(String::from).to_vec();
        let env = Vec::from([("N".into(), format!("try {attempt}"))]);
        let spec = ContainerSpec { command, env, ..Default::default() };
        let now = Time::from_secs(5 * i64::from(attempt));
        r.on(now, call(2 + u64::from(attempt), "u", start("c", attempt, spec)), &mut out);
        drive(&mut r, now + Duration::from_secs(3), 100, &mut out);
    }
    let log = |previous| {
        let (now, pod) = (Time::from_secs(9), PodUid::from("u"));
        let options = LogOptions { previous, ..Default::default() };
        let mut cursor = r.open_log(now, &pod, "c", &options)?;
        r.read_log(now, &pod, "c", &mut cursor)
    };
    assert_eq!(log(false), Ok(LogPage { text: "try 1\n".into(), more: false }));
    assert_eq!(log(true), Ok(LogPage { text: "try 0\n".into(), more: false }));
}

/// Each request of each node is answered under its own id, and a node without power is silent.
#[test]
fn a_fleet_keeps_its_nodes_apart() {
    let node = |i: u8| {
        let config = KubeletConfig::new(&format!("n{i}"), [192, 168, 0, i].into());
        SimNode::new(Kubelet::new(config), runtime(&format!("10.1.{i}.0/24")))
    };
    let mut fleet = Fleet::new((0..20).map(node));
    let (mut now, mut out, mut registered) = (Time::from_secs(1), Vec::new(), Vec::new());
    for _ in 0..200 {
        let Some(due) = fleet.deadline().filter(|d| *d <= Time::from_secs(8)) else { break };
        now = now.max(due);
        fleet.wake(now, &mut out);
        while let Some(effect) = out.pop() {
            let ClientEffect::Request { id, request } = effect else { continue };
            let result = match request.op {
                Operation::List(_) => {
                    Ok(Reply::List { items: Vec::new(), resource_version: "1".into(), continue_token: None })
                }
                Operation::Create(object) => {
                    if object.kind == "Node" {
                        registered.push(object.metadata.name.clone());
                    }
                    Ok(Reply::Object(object))
                }
                _ => Ok(Reply::Status(icp_core::api::Status::default())),
            };
            fleet.on(now, FleetEvent::Client(ClientEvent::Reply { id, result }), &mut out);
        }
    }
    registered.sort();
    registered.dedup();
    assert_eq!(registered.len(), 20);
    assert!(fleet.nodes().all(|n| n.kubelet().is_registered()));
    fleet.on(now, FleetEvent::PowerOff { node: "n3".into() }, &mut out);
    assert_eq!(fleet.nodes().count(), 19);
    assert!(out.iter().all(|e| matches!(e, ClientEffect::CloseWatch { .. })));
    assert_eq!(out.len(), 3, "its watches of pods, services and its own object are closed");
}
