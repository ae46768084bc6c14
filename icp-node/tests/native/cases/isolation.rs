//! What a container may do and see.

use std::time::Duration;

use icp_node::backend::native::Limits;
use icp_node::runtime::{
    LogOptions, Outcome, QosClass, Resources, RuntimeError, RuntimeEvent, RuntimeOp, Seccomp,
};

use super::{Case, cases};
use crate::lab::{Lab, script};

pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![
        capabilities,
        system_calls,
        paths_are_sealed,
        users,
        shared_processes,
        memory_limits,
        other_limits,
        a_sandbox_dies,
        sandboxes_are_apart
    ]
}

async fn capabilities(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let text = "grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status";
    let (_, log) = node.run("p", "plain", script(text)).await;
    assert!(log.contains("CapEff:\t00000000a80425fb") && log.contains("CapBnd:\t00000000a80425fb"), "{log}");
    assert!(log.contains("NoNewPrivs:\t0"), "{log}");
    let mut spec = script(text);
    spec.security.cap_drop = vec!["ALL".into()];
    spec.security.cap_add = vec!["NET_BIND_SERVICE".into()];
    spec.security.no_new_privs = true;
    let (_, log) = node.run("p", "few", spec).await;
    assert!(log.contains("CapEff:\t0000000000000400") && log.contains("NoNewPrivs:\t1"), "{log}");
    let mut spec = script("grep CapEff /proc/self/status; mount -t tmpfs x /tmp && ls /dev | grep -c .");
    spec.security.privileged = true;
    let (exit, log) = node.run("p", "all", spec).await;
    assert_eq!(exit.code, 0, "{log}");
    let bits = u64::from_str_radix(log.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_ne!(bits & (1 << 21), 0, "{log}");
    node.remove("p").await;
}

async fn system_calls(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let text =
        "exec 2>/dev/null; unshare -U true && echo allowed || echo refused; grep Seccomp: /proc/self/status";
    for no_new_privs in [false, true] {
        let mut spec = script(text);
        spec.security.seccomp = Seccomp::RuntimeDefault;
        spec.security.no_new_privs = no_new_privs;
        let (_, log) = node.run("p", &format!("c{no_new_privs}"), spec).await;
        assert!(log.contains("refused\nSeccomp:\t2\n"), "{log}");
    }
    let (_, log) = node.run("p", "open", script(text)).await;
    assert!(log.contains("Seccomp:\t0\n"), "{log}");
    let mut spec = script("true");
    spec.security.seccomp = Seccomp::Localhost("x".into());
    assert!(matches!(node.start("p", "file", spec).await, Err(RuntimeError::Config { .. })));
    node.remove("p").await;
}

async fn paths_are_sealed(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let text = "exec 2>&1; cat /proc/timer_list /proc/keys | grep -c .; (echo x > /proc/sys/kernel/hostname) 2>&1; mkdir /sys/x 2>&1; \
                (echo x > /proc/sysrq-trigger) 2>&1; mknod /tmp/d c 1 3 && echo > /tmp/d; ls /dev/sda /dev/vda 2>&1; \
                mount -t tmpfs x /tmp 2>&1; touch /ok && echo can write";
    let (_, log) = node.run("p", "c", script(text)).await;
    assert!(log.starts_with("0\n"), "{log}");
    assert!(log.matches("Read-only file system").count() >= 2, "{log}");
    assert!(log.contains("ermission denied") || log.contains("not permitted"), "{log}");
    assert!(log.contains("/dev/vda: No such file"), "{log}");
    assert!(log.ends_with("can write\n"), "{log}");
    let mut spec = script("exec 2>&1; touch /x; echo y > /dev/null && echo > /dev/shm/s && echo fine");
    spec.security.read_only_root = true;
    let (_, log) = node.run("p", "sealed", spec.clone()).await;
    assert!(log.contains("Read-only file system") && log.ends_with("fine\n"), "{log}");
    spec.image = "host".into();
    let (_, log) = node.run("p", "host", spec).await;
    assert!(log.contains("Read-only file system") && log.ends_with("fine\n"), "{log}");
    // The next container of the pod sees its shared memory.
    assert_eq!(node.run("p", "shm", script("ls /dev/shm")).await.1, "s\n");
    node.remove("p").await;
}

async fn users(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec =
        script("id -u; id -g; grep CapEff /proc/self/status; echo $HOME; printf '' > /dev/stderr && echo ok");
    spec.security.run_as_user = Some(1000);
    let result = node.start("p", "c", spec).await;
    if lab.is_root() {
        result.unwrap();
        node.exit("p", "c").await;
        let log = node.log("p", "c").await;
        assert_eq!(log, "1000\n1001\nCapEff:\t0000000000000000\n/home\nok\n");
    } else {
        let Err(RuntimeError::Config { message }) = result else { panic!("{result:?}") };
        assert!(message.contains("runAsUser: id 1000"), "{message}");
    }
    node.remove("p").await;
}

async fn shared_processes(lab: Lab) {
    let node = lab.node().await;
    node.sandbox_with("p", |s| s.share_process_namespace = true).await;
    node.start("p", "a", script("sleep 555 & (sleep 0.01 &) ; sleep 556")).await.unwrap();
    node.start("p", "b", script("sleep 557")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, seen) = node.exec("p", "b", "ps -o pid,stat,args").await;
    for what in ["sleep 555", "sleep 556", "sleep 557"] {
        assert!(seen.contains(what), "{seen}");
    }
    assert!(!seen.contains(" Z "), "the holder waits for orphans: {seen}");
    // What a container leaves behind goes with it.
    node.stop("p", "a", Duration::ZERO).await;
    node.exit("p", "a").await;
    let (_, seen) = node.exec("p", "b", "ps -o pid,args").await;
    assert!(!seen.contains("sleep 55[56]") && !seen.contains("sleep 555"), "{seen}");
    assert!(seen.contains("sleep 557"), "{seen}");
    node.remove("p").await;
}

async fn memory_limits(lab: Lab) {
    let node = lab.node().await;
    let limits = node.runtime.limits();
    if let Limits::Unavailable(why) = &limits {
        assert!(!why.is_empty());
        println!("  no limits here: {why}");
        return;
    }
    node.sandbox_with("p", |s| s.qos = QosClass::Burstable).await;
    let limit = |spec: &mut icp_node::runtime::ContainerSpec| {
        spec.resources = Resources { memory_limit_bytes: 32 << 20, pids_limit: 20, ..Resources::default() };
    };
    let mut spec = script("tail /dev/zero");
    limit(&mut spec);
    let (exit, _) = node.run("p", "hungry", spec).await;
    assert!(exit.oom_killed && exit.code == 137, "{exit:?}");
    let mut spec = script("exec 2>&1; for i in $(seq 1 40); do sleep 5 & done");
    limit(&mut spec);
    let (_, log) = node.run("p", "forks", spec).await;
    assert!(log.contains("can't fork"), "{log}");
    let mut spec = script("sleep 1000");
    limit(&mut spec);
    node.start("p", "c", spec).await.unwrap();
    // A command in the container counts against its limits.
    let (code, _) = node.exec("p", "c", "tail /dev/zero").await;
    assert_eq!(code, 137);
    let Outcome::Usage(usage) = node.call("", RuntimeOp::Usage).await.unwrap() else { panic!() };
    let (_, bytes) = usage.pod_memory_bytes.iter().find(|(uid, _)| uid.as_str() == "p").unwrap();
    assert!((1..64 << 20).contains(bytes), "{bytes}");
    assert!(usage.memory_capacity_bytes > Some(1 << 20) && usage.nodefs_capacity_bytes > Some(1 << 20));
    node.remove("p").await;
    let left = std::fs::read_dir("/sys/fs/cgroup/memory").into_iter().flatten().flatten();
    assert!(!left.into_iter().any(|e| e.file_name().to_str() == Some(&lab.cgroup)));
}

async fn other_limits(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    let mut spec = script("ulimit -n; cat /proc/self/oom_score_adj");
    spec.oom_score_adj = 500;
    let (_, log) = node.run("p", "c", spec.clone()).await;
    let lines: Vec<i64> = log.lines().map(|l| l.parse().unwrap()).collect();
    assert!(lines[0] >= 1024 && lines[1] == 500, "{log}");
    // A lower score than one's own needs a privilege; without it the container starts all the same.
    spec.oom_score_adj = -997;
    assert_eq!(node.run("p", "d", spec).await.0.code, 0);
    node.remove("p").await;
}

async fn a_sandbox_dies(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.start("p", "c", script("sleep 1000")).await.unwrap();
    let holder: serde_json::Value =
        serde_json::from_slice(&std::fs::read(node.root.join("pods/p/holder.json")).unwrap()).unwrap();
    let pid = i32::try_from(holder["pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(node.exit("p", "c").await.code, 137);
    node.event(|e| matches!(e, RuntimeEvent::SandboxDied { .. })).await;
    assert!(node.list().await[0].sandbox.is_none());
    node.sandbox("p").await;
    assert_eq!(node.run("p", "c/1", script("echo back")).await.1, "back\n");
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    assert_eq!(node.log_with("p", "c/1", previous).await, "");
    node.remove("p").await;
}

async fn sandboxes_are_apart(lab: Lab) {
    let node = lab.node().await;
    node.sandbox("p").await;
    node.sandbox_with("q", |s| {
        s.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        s.sysctls.insert("net.ipv4.ip_local_port_range".into(), "2000 3000".into());
    })
    .await;
    let text = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range; hostname; \
                readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ls /sys/class/net";
    let (_, p) = node.run("p", "c", script(text)).await;
    let (_, q) = node.run("q", "c", script(text)).await;
    assert!(q.starts_with("1\n2000\t3000\nq\n") && p.starts_with("0\n") && p.ends_with("\nlo\n"), "{p}{q}");
    let own: Vec<&str> = p.lines().filter(|l| l.contains(":[")).collect();
    assert!(own.len() == 2 && q.lines().all(|l| !own.contains(&l)), "{p}{q}");
    let refused = icp_node::runtime::SandboxSpec {
        sysctls: [("vm.overcommit_memory".to_string(), "1".to_string())].into(),
        ..Default::default()
    };
    let refused = node.call("r", RuntimeOp::CreateSandbox(refused.into())).await;
    assert!(matches!(refused, Err(RuntimeError::Sandbox { .. })), "{refused:?}");
    node.remove("p").await;
    node.remove("q").await;
    node.remove("r").await;
}
