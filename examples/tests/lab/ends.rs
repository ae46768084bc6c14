//! What is left when a lab, or what holds it, ends.

use crate::*;

/// A host with a busy lab, that is to be killed: prints its guard's number and waits.
pub(crate) fn host(dir: &Path) -> ExitCode {
    let mut lab = Lab::start(three(dir)).unwrap();
    let guard = lab.guard_pid();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = lab.connect().unwrap();
        for n in 1..=3 {
            let machine = format!("m{n}");
            handle.power_on(&machine).await.unwrap();
            let deaf = sh("trap '' HUP TERM INT; setsid sleep 1000 & sleep 1000");
            handle.spawn(&machine, deaf).await.unwrap();
            handle.spawn(&machine, Spawn::role("stubborn")).await.unwrap();
            handle.spawn(&machine, Spawn::role("echo").arg("7")).await.unwrap();
        }
        println!("{guard}");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// Starts such a host and waits until its lab is busy.
pub(crate) fn start_host(dir: &Dir, traces: &mut Traces) -> (Child, u32) {
    let mut host =
        command(&["host", dir.0.to_str().unwrap()], "root").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let guard = line.trim().parse().unwrap();
    // The guard, the root, and in each machine an init, two sleeps and their shell, a loop and a server.
    eventually("the lab is busy", || traces.take(guard) >= 2 + 3 * 6);
    if rustix::process::geteuid().is_root() {
        assert!(!groups_of(guard).is_empty(), "as root machines have control groups");
    }
    (host, guard)
}

pub(crate) fn nothing_outlives_a_killed_host() {
    // Not SIGINT: who runs the tests in the background of a script has it ignored, and children inherit that.
    for signal in [Signal::KILL, Signal::TERM] {
        let mut before = Traces::now();
        let dir = Dir::new("parent");
        let (mut host, _) = start_host(&dir, &mut before);
        kill(host.id(), signal);
        host.wait().unwrap();
        before.are_all_there_is();
    }
}

pub(crate) fn nothing_outlives_a_killed_guard() {
    let mut before = Traces::now();
    let dir = Dir::new("guard");
    let (mut host, guard) = start_host(&dir, &mut before);
    kill(guard, Signal::KILL);
    eventually("its processes are gone", || before.processes_left() == 0);
    host.kill().unwrap();
    host.wait().unwrap();
    // Nobody was left to remove the control groups; the next lab does.
    let lab = Lab::start(three(&dir.0)).unwrap();
    before.take(lab.guard_pid());
    lab.stop().unwrap();
    before.are_all_there_is();
}

pub(crate) fn a_lab_whose_root_dies_is_gone() {
    let dir = Dir::new("root");
    let mut before = Traces::now();
    let mut lab = Lab::start(three(&dir.0)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = lab.connect().unwrap();
        handle.power_on("m1").await.unwrap();
        let process = handle.spawn("m1", sh("sleep 1000")).await.unwrap();
        before.take(lab.guard_pid());
        let root = processes().into_iter().find(|p| p.parent == lab.guard_pid()).expect("the root");
        kill(root.pid, Signal::KILL);
        tokio::time::timeout(LIMIT, handle.ended()).await.unwrap();
        assert_eq!(tokio::time::timeout(LIMIT, process.wait()).await.unwrap(), Exit::PowerOff);
        let refused = handle.power_on("m2").await.unwrap_err();
        assert!(matches!(refused, LabError::Gone { .. }), "{refused}");
        assert!(lab.connect().is_err());
    });
    before.are_all_there_is();
    lab.stop().unwrap();
}

pub(crate) fn a_system_that_refuses_is_one_line() {
    let dir = Dir::new("refused");
    let mut config = three(&dir.0);
    config.machines.push(MachineSpec::new("m1", Ipv4Addr::new(10, 77, 0, 9)));
    assert!(matches!(Lab::start(config), Err(LabError::Config { .. })));
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Lab::start(LabConfig::new(&file)), Err(LabError::Io { .. })));
    let first = Lab::start(three(&dir.0)).unwrap();
    let second = Lab::start(three(&dir.0)).unwrap_err().to_string();
    assert!(second.starts_with("the lab's configuration: another lab uses /"), "{second}");
    first.stop().unwrap();
    // A machine is a system like another: a lab can be in it, until the system says no.
    with_lab(three(&dir.0), 1, |lab| async move {
        let inner = lab.spawn("m1", Spawn::role("nested")).await.unwrap();
        assert!(inner.wait().await.success());
        let text = fs::read_to_string(inner.log().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            ["works", reason] => {
                let expected = "cannot make namespaces: No space left on device (os error 28)";
                assert_eq!(*reason, format!("{expected} (sysctl user.max_net_namespaces is 0)"));
            }
            ["works"] => println!("skipped: needs the right to limit namespaces"),
            _ => panic!("{text}"),
        }
    });
}
