//! The lab as a program uses it: as root where the test is run by root, and as a plain user.
//!
//! This file has no test harness because the lab starts the program itself again. Each case is one child process, and
//! so is each host that is killed.
#![expect(clippy::disallowed_methods, reason = "a test of processes waits for them, with a limit")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code outside of a test function"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use examples::lab::{
    Exit, Lab, LabConfig, LabError, LabEvent, LabHandle, MachineSpec, Place, Relay, Signal, Spawn, dispatch,
    listen, probe,
};

const LIMIT: Duration = Duration::from_secs(30);
const PLAIN_USER: u32 = 65534;

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("probe", probe_leaves_nothing),
    ("machines", machines_reach_each_other_and_are_apart),
    ("processes", processes_are_started_killed_and_reaped),
    ("power", power_off_is_silent_and_state_survives),
    ("cable", a_pulled_cable_cuts_a_machine_off),
    ("relay", the_relay_copies_bytes_and_follows_the_address),
    ("busy", a_busy_port_is_one_clear_line),
    ("parent", nothing_outlives_a_killed_host),
    ("guard", nothing_outlives_a_killed_guard),
    ("root", a_lab_whose_root_dies_is_gone),
    ("refused", a_system_that_refuses_is_one_line),
];

fn main() -> ExitCode {
    if let Some(code) =
        dispatch(&[("echo", echo), ("orphans", orphans), ("stubborn", stubborn), ("nested", nested)])
    {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["case", name] => {
            let (_, case) = CASES.iter().find(|(n, _)| n == name).expect("a case of this name");
            case();
            ExitCode::SUCCESS
        }
        ["host", dir] => host(Path::new(dir)),
        args => all(args),
    }
}

/// Runs the cases whose names contain one of the arguments, as every user that this process may be.
fn all(args: &[&str]) -> ExitCode {
    let wanted: Vec<&&str> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let root = rustix::process::geteuid().is_root();
    if args.contains(&"--list") {
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for user in if root { &["root", "plain user"][..] } else { &["plain user"] } {
        if let Some(reason) = unsupported(user) {
            println!("skipped: needs what makes a lab, as {user}: {reason}");
            failed += u32::from(std::env::var_os("ICP_PEERS").is_some_and(|v| v == "required"));
            continue;
        }
        for (name, _) in
            CASES.iter().filter(|(n, _)| wanted.is_empty() || wanted.iter().any(|w| n.contains(**w)))
        {
            let started = Instant::now();
            let ok = run(&["case", name], user).wait().unwrap().success();
            println!(
                "{name} as {user} ... {} ({} ms)",
                if ok { "ok" } else { "FAILED" },
                started.elapsed().as_millis()
            );
            failed += u32::from(!ok);
        }
    }
    println!("test result: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn unsupported(user: &str) -> Option<String> {
    let mut child = command(&["case", "probe"], user).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let refused = !child.wait().unwrap().success() && text.contains("Unsupported");
    refused.then(|| text.lines().find(|l| l.contains("Unsupported")).unwrap_or_default().to_owned())
}

fn command(args: &[&str], user: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(args);
    if user != "root" && rustix::process::geteuid().is_root() {
        command.uid(PLAIN_USER).gid(PLAIN_USER);
    }
    command
}

fn run(args: &[&str], user: &str) -> Child {
    command(args, user).spawn().unwrap()
}

// What runs in machines.

/// Sends back what comes, on every connection, and says first who it is.
fn echo(args: Vec<String>) -> ExitCode {
    let listener = TcpListener::bind(("0.0.0.0", args[0].parse().unwrap())).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            writeln!(stream, "{}", name.trim()).ok()?;
            std::io::copy(&mut stream.try_clone().ok()?, &mut stream).ok()?;
            stream.shutdown(Shutdown::Write).ok()
        });
    }
    ExitCode::SUCCESS
}

/// Leaves children behind that end after it.
fn orphans(_: Vec<String>) -> ExitCode {
    for _ in 0..20 {
        Command::new("sh").args(["-c", "sleep 0.05 & exit 0"]).status().unwrap();
    }
    ExitCode::SUCCESS
}

/// Does not end when it is asked to.
fn stubborn(_: Vec<String>) -> ExitCode {
    let error = Command::new("sh").args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]).exec();
    panic!("{error}")
}

/// Makes a lab where it runs, then forbids it and tries again.
fn nested(_: Vec<String>) -> ExitCode {
    match probe() {
        Ok(()) => println!("works"),
        Err(e) => println!("{e}"),
    }
    if fs::write("/proc/sys/user/max_net_namespaces", "0").is_ok() {
        match probe() {
            Ok(()) => println!("works although it must not"),
            Err(e) => println!("{e}"),
        }
    }
    ExitCode::SUCCESS
}

// Help.

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("icp-lab-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn three(dir: &Path) -> LabConfig {
    let mut config = LabConfig::new(dir);
    config.machines =
        (1..=3).map(|n| MachineSpec::new(format!("m{n}"), Ipv4Addr::new(10, 77, 0, n))).collect();
    config
}

/// Runs `body` on a lab of three machines, of which the first `on` are on, and checks that nothing is left after it.
fn with_lab<F: Future<Output = ()>>(config: LabConfig, on: usize, body: impl FnOnce(LabHandle) -> F) {
    let mut before = Traces::now();
    let mut lab = Lab::start(config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = lab.connect().unwrap();
        for n in 1..=on {
            handle.power_on(&format!("m{n}")).await.unwrap();
        }
        before.take(lab.guard_pid());
        body(handle).await;
        before.take(lab.guard_pid());
    });
    lab.stop().unwrap();
    before.are_all_there_is();
}

/// What a lab could leave behind.
struct Traces {
    mounts: usize,
    links: BTreeSet<String>,
    /// Processes of labs, with their start times, which tell a process from a later one of the same number.
    processes: BTreeSet<(u32, u64)>,
    guards: BTreeSet<u32>,
}

impl Traces {
    fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
        let names = |e: fs::DirEntry| e.file_name().to_string_lossy().into_owned();
        let links = fs::read_dir("/sys/class/net").unwrap().flatten().map(names).collect();
        Self { mounts, links, processes: BTreeSet::new(), guards: BTreeSet::new() }
    }

    /// Takes note of what a lab is made of now; returns how many processes that are.
    fn take(&mut self, guard: u32) -> usize {
        self.guards.insert(guard);
        let all = processes();
        let mut of_lab = BTreeSet::from([guard]);
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|p| of_lab.contains(&p.parent) && !of_lab.contains(&p.pid))
                .map(|p| p.pid)
                .collect();
            if more.is_empty() {
                break;
            }
            of_lab.extend(more);
        }
        self.processes.extend(all.iter().filter(|p| of_lab.contains(&p.pid)).map(|p| (p.pid, p.started)));
        of_lab.len()
    }

    fn processes_left(&self) -> usize {
        processes().iter().filter(|p| self.processes.contains(&(p.pid, p.started))).count()
    }

    /// Waits until no process, mount, interface or control group is there that was not there before.
    fn are_all_there_is(&self) {
        eventually("the lab leaves nothing behind", || {
            let now = Self::now();
            now.mounts == self.mounts
                && now.links == self.links
                && self.processes_left() == 0
                && self.guards.iter().all(|guard| groups_of(*guard).is_empty())
        });
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

struct Proc {
    pid: u32,
    parent: u32,
    started: u64,
}

/// All processes that have not ended (`proc_pid_stat(5)`).
fn processes() -> Vec<Proc> {
    let read = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let alive = !["Z", "X"].contains(&fields[0]);
        alive.then_some(Proc { pid, parent: fields[1].parse().ok()?, started: fields[19].parse().ok()? })
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(read).collect()
}

fn groups_of(guard: u32) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut dirs = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == format!("icp-lab-{guard}") {
                found.push(entry.path());
            } else if depth < 6 {
                dirs.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn eventually_async<T, F: Future<Output = Option<T>>>(what: &str, mut get: impl FnMut() -> F) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(value) = get().await {
            return value;
        }
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn sh(script: &str) -> Spawn {
    Spawn::program("sh").args(["-c", script])
}

async fn output(lab: &LabHandle, machine: &str, script: &str) -> String {
    let output = lab.exec(machine, sh(script), LIMIT).await.unwrap();
    assert!(output.exit.success(), "{script}: {}: {}", output.exit, output.text());
    output.text().trim().to_owned()
}

fn address(n: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 77, 0, n), port).into()
}

/// The first line that a server sends, and the stream.
async fn greeting(lab: &LabHandle, from: Place<'_>, to: SocketAddr) -> Option<String> {
    let stream = lab.tcp_connect(from, to).await.ok()?.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut line = String::new();
    tokio::task::spawn_blocking(move || BufReader::new(stream).read_line(&mut line).ok().map(|_| line))
        .await
        .unwrap()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
}

async fn start_echo(lab: &LabHandle, machine: &str, port: u16) {
    let process = lab.spawn(machine, Spawn::role("echo").arg(port.to_string())).await.unwrap();
    let log = process.log().unwrap().to_owned();
    eventually_async("the server is ready", || async {
        fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
    })
    .await;
}

// The cases.

fn probe_leaves_nothing() {
    let before = Traces::now();
    probe().unwrap_or_else(|e| panic!("{e:?}"));
    before.are_all_there_is();
}

fn machines_reach_each_other_and_are_apart() {
    let dir = Dir::new("machines");
    with_lab(three(&dir.0), 3, |lab| async move {
        for n in 1..=3 {
            start_echo(&lab, &format!("m{n}"), 7).await;
        }
        for from in 1..=3 {
            for to in 1..=3 {
                let from = format!("m{from}");
                let name = greeting(&lab, Place::Machine(&from), address(to, 7)).await;
                assert_eq!(name, Some(format!("m{to}")), "from {from}");
            }
            assert_eq!(greeting(&lab, Place::Root, address(from, 7)).await, Some(format!("m{from}")));
        }
        // The route to all else leads to the bridge, which forwards.
        let route = output(&lab, "m1", "cat /proc/net/route | awk '$2 == \"00000000\" {print $1, $3}'").await;
        assert_eq!(route, "eth0 FE004D0A");
        assert_eq!(output(&lab, "m2", "cat /proc/sys/net/ipv4/ip_forward; hostname").await, "1\nm2");
        // Processes, /run and /var/lib/icp are a machine's own.
        output(&lab, "m1", "echo one > /run/mine; echo one > /var/lib/icp/mine").await;
        assert_eq!(output(&lab, "m2", "ls /run /var/lib/icp").await, "/run:\nlock\n\n/var/lib/icp:");
        assert_eq!(fs::read_to_string(lab.machine_dir("m1").join("mine")).unwrap(), "one\n");
        assert!(!Path::new("/run/mine").exists() && !Path::new("/var/lib/icp/mine").exists());
        let names = output(&lab, "m3", "cat /proc/[0-9]*/comm | sort -u").await;
        assert!(names.contains("icp-init") && !names.contains("icp-lab-root"), "{names}");
        assert_eq!(output(&lab, "m3", "cat /proc/1/comm").await, "icp-init");
        // Sockets of a machine, in the host.
        let any = address(1, 0);
        let (one, two) = (
            lab.udp_socket(Place::Machine("m1"), any).await.unwrap(),
            lab.udp_socket(Place::Machine("m2"), address(2, 53)).await.unwrap(),
        );
        one.send_to(b"question", address(2, 53)).await.unwrap();
        let mut bytes = [0; 64];
        let (read, from) = tokio::time::timeout(LIMIT, two.recv_from(&mut bytes)).await.unwrap().unwrap();
        assert_eq!((&bytes[..read], from.ip()), (&b"question"[..], any.ip()));
        let listener = lab.tcp_listen(Place::Machine("m1"), address(1, 80)).await.unwrap();
        let (accepted, connected) =
            tokio::join!(listener.accept(), lab.tcp_connect(Place::Machine("m3"), address(1, 80)));
        assert_eq!(accepted.unwrap().1.ip(), connected.unwrap().local_addr().unwrap().ip());
        let refused = lab.tcp_connect(Place::Machine("m3"), address(1, 81)).await.unwrap_err().to_string();
        assert!(refused.starts_with("connecting to 10.77.0.1:81 from m3: "), "{refused}");
    });
}

fn processes_are_started_killed_and_reaped() {
    let dir = Dir::new("processes");
    with_lab(three(&dir.0), 1, |lab| async move {
        let mut events = lab.events();
        let process = lab.spawn("m1", sh("echo out; echo err >&2; exit 3").named("both")).await.unwrap();
        assert_eq!(process.wait().await, Exit::Code(3));
        assert_eq!(fs::read_to_string(lab.log_path("m1", "both")).unwrap(), "out\nerr\n");
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        let expected = LabEvent::Exited { machine: "m1".into(), process: "both".into(), exit: Exit::Code(3) };
        assert_eq!(event, expected);

        let env = sh("echo $ICP_MACHINE $EXTRA; pwd").env("EXTRA", "more").dir("/run");
        assert_eq!(lab.exec("m1", env, LIMIT).await.unwrap().text(), "m1 more\n/run\n");

        // Nothing of the lab's own leaks into a program.
        let clean =
            "ls /proc/self/fd; sed -n 's/Sig\\(Blk\\|Ign\\):.*\\(.\\{7\\}\\)$/\\1 \\2/p' /proc/self/status";
        let expected = "0\n1\n2\n3\nBlk 0000000\nIgn 0000000";
        assert_eq!(output(&lab, "m1", clean).await, expected);
        let held = lab.exec("m1", sh("echo early; sleep 1000 &"), LIMIT).await.unwrap();
        assert_eq!((held.exit, held.text()), (Exit::Code(0), "early\n".into()));
        output(&lab, "m1", "pkill sleep || busybox pkill sleep").await;

        // Killing a process leaves its children alone, and the init reaps them when they end.
        let parent =
            lab.spawn("m1", sh("sleep 1000 & echo $! > /run/child; wait").named("parent")).await.unwrap();
        eventually_async("the child runs", || async {
            lab.exec("m1", sh("cat /run/child"), LIMIT).await.ok()
        })
        .await;
        lab.kill("m1", "parent", Signal::KILL).await.unwrap();
        assert_eq!(parent.wait().await, Exit::Signal(9));
        assert_eq!(output(&lab, "m1", "cat /proc/$(cat /run/child)/stat | cut -d' ' -f4").await, "1");
        output(&lab, "m1", "kill $(cat /run/child)").await;
        assert!(lab.spawn("m1", Spawn::role("orphans")).await.unwrap().wait().await.success());
        let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"Z\"' | wc -l";
        eventually_async("orphans are reaped", || async {
            (output(&lab, "m1", zombies).await == "0").then_some(())
        })
        .await;

        let stubborn = lab.spawn("m1", Spawn::role("stubborn")).await.unwrap();
        let log = stubborn.log().unwrap().to_owned();
        eventually_async("it runs", || async {
            fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
        })
        .await;
        assert_eq!(stubborn.stop(Duration::from_millis(200)).await.unwrap(), Exit::Signal(9));
        let polite =
            lab.spawn("m1", sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done").named("p"));
        let polite = polite.await.unwrap();
        let log = polite.log().unwrap().to_owned();
        eventually_async("it runs", || async {
            fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
        })
        .await;
        assert_eq!(polite.stop(LIMIT).await.unwrap(), Exit::Code(7));

        let missing = lab.spawn("m1", Spawn::program("/no/such/program")).await.unwrap_err();
        assert_eq!(missing.to_string(), "m1: starting program: No such file or directory (os error 2)");
        let none = lab.spawn("m9", sh("true")).await.unwrap_err();
        assert!(matches!(none, LabError::NoMachine { .. }));
        let slow =
            lab.exec("m1", sh("sleep 1000 & sleep 1000"), Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(slow, LabError::Timeout { .. }), "{slow}");
        eventually_async("the whole group is killed", || async {
            let left = "cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep || true";
            (output(&lab, "m1", left).await == "0").then_some(())
        })
        .await;
        let long = lab.exec("m1", sh("yes | head -c 20000000; echo end >&2"), LIMIT).await.unwrap();
        assert_eq!((long.stdout.len(), &long.stderr[..]), (4 << 20, &b"end\n"[..]));

        // Many at once, in order.
        let all = (0..40).map(|n| {
            let lab = lab.clone();
            tokio::spawn(async move { lab.exec("m1", sh(&format!("echo {n}")), LIMIT).await.unwrap().text() })
        });
        for (n, task) in all.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), format!("{n}\n"));
        }
    });
}

fn power_off_is_silent_and_state_survives() {
    let dir = Dir::new("power");
    with_lab(three(&dir.0), 2, |lab| async move {
        let mut events = lab.events();
        start_echo(&lab, "m1", 7).await;
        assert!(matches!(lab.power_on("m1").await, Err(LabError::On { .. })));
        output(&lab, "m1", "echo kept > /var/lib/icp/file; echo lost > /run/file").await;
        let process = lab.process("m1", "echo").unwrap();
        let mut stream =
            lab.tcp_connect(Place::Machine("m2"), address(1, 7)).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).unwrap();

        lab.power_off("m1").await.unwrap();
        assert_eq!(process.exit(), Some(Exit::PowerOff));
        assert_eq!(process.wait().await, Exit::PowerOff);
        assert!(!lab.is_on("m1") && matches!(lab.power_off("m1").await, Err(LabError::Off { .. })));
        assert!(matches!(lab.spawn("m1", sh("true")).await, Err(LabError::Off { .. })));
        assert!(matches!(process.kill(Signal::TERM).await, Err(LabError::Off { .. })));
        // No farewell came: the connection is neither closed nor reset, it is silent.
        let silent = stream.read(&mut bytes).unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock, "{silent}");

        lab.power_on("m1").await.unwrap();
        assert_eq!(output(&lab, "m1", "cat /var/lib/icp/file; ls /run").await, "kept\nlock");
        assert!(lab.process("m1", "echo").is_none());
        lab.spawn("m1", Spawn::role("echo").arg("7")).await.unwrap();
        let name =
            eventually_async("the server", || greeting(&lab, Place::Machine("m2"), address(1, 7))).await;
        assert_eq!(name, "m1");

        let seen = async {
            loop {
                if let LabEvent::Off { machine } = events.recv().await.unwrap() {
                    return machine;
                }
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, seen).await.unwrap(), "m1");
        for _ in 0..5 {
            lab.power_off("m2").await.unwrap();
            lab.power_on("m2").await.unwrap();
        }
        // A machine whose init dies is off too, and can be powered on again.
        let mounted = format!("{} /var/lib/icp ", lab.machine_dir("m2").display());
        let is_init = |p: &&Proc| {
            let read = |file| fs::read_to_string(format!("/proc/{}/{file}", p.pid)).unwrap_or_default();
            read("comm") == "icp-init\n" && read("mountinfo").contains(&mounted)
        };
        kill(processes().iter().find(is_init).expect("an init").pid, Signal::KILL);
        eventually_async("m2 is off", || async { (!lab.is_on("m2")).then_some(()) }).await;
        eventually_async("m2 is on", || async { lab.power_on("m2").await.ok() }).await;
        assert_eq!(output(&lab, "m2", "cat /proc/1/comm").await, "icp-init");
    });
}

fn a_pulled_cable_cuts_a_machine_off() {
    let dir = Dir::new("cable");
    with_lab(three(&dir.0), 2, |lab| async move {
        start_echo(&lab, "m1", 7).await;
        lab.set_cable("m1", false).await.unwrap();
        eventually_async("no carrier", || async {
            (output(&lab, "m1", "ip link show eth0").await.contains("NO-CARRIER")).then_some(())
        })
        .await;
        lab.set_cable("m1", true).await.unwrap();
        let name =
            eventually_async("the way back", || greeting(&lab, Place::Machine("m2"), address(1, 7))).await;
        assert_eq!(name, "m1");
        assert!(matches!(lab.set_cable("m3", false).await, Err(LabError::Off { .. })));
    });
}

fn the_relay_copies_bytes_and_follows_the_address() {
    let dir = Dir::new("relay");
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let outside = listener.local_addr().unwrap();
    let mut config = three(&dir.0);
    config.relays = vec![Relay { listener, to: address(100, 7) }];
    // With `arp_notify` the new holder tells its neighbours, as the manager of a virtual address does.
    let hold = |n: u8| {
        format!(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip addr add 10.77.0.100/32 dev eth0;
             ip link set eth0 address 02:1c:0a:4d:00:{n:02x}"
        )
    };
    let ask = move || {
        let mut stream = TcpStream::connect(outside).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"x").unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut line).unwrap();
        (line.trim().to_owned(), stream, reader)
    };
    with_lab(config, 2, |lab| async move {
        start_echo(&lab, "m1", 7).await;
        start_echo(&lab, "m2", 7).await;
        // A client that comes before anybody holds the address waits for it.
        let early = tokio::task::spawn_blocking(ask);
        tokio::time::sleep(Duration::from_millis(300)).await;
        output(&lab, "m1", &hold(1)).await;
        let (name, stream, mut reader) = early.await.unwrap();
        assert_eq!(name, "m1");

        // All bytes in both directions, and the end of one direction is not the end of the other.
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
        let copy = sent.clone();
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        tokio::task::block_in_place(|| reader.read_to_end(&mut back)).unwrap();
        writing.join().unwrap();
        assert!(back[0] == b'x' && back[1..] == sent, "{} bytes back of {}", back.len(), sent.len());
        drop((stream.shutdown(Shutdown::Both), reader));

        // The holder loses its power with a connection open; the address moves; the client is told and comes again.
        let (name, mut open, mut reader) = tokio::task::spawn_blocking(ask).await.unwrap();
        assert_eq!(name, "m1");
        let started = Instant::now();
        lab.power_off("m1").await.unwrap();
        output(&lab, "m2", &hold(2)).await;
        let mut rest = Vec::new();
        tokio::task::block_in_place(|| {
            open.write_all(b"are you there").unwrap();
            drop(reader.read_to_end(&mut rest));
        });
        assert!(started.elapsed() < Duration::from_secs(20), "the client was left hanging");
        let (name, ..) = tokio::task::spawn_blocking(ask).await.unwrap();
        assert_eq!(name, "m2");

        // A relay that dies is started again; the port stays.
        let relay = |p: &Proc| {
            fs::read_to_string(format!("/proc/{}/comm", p.pid)).is_ok_and(|n| n == "icp-lab-relay\n")
        };
        let of_this_lab = |p: &&Proc| relay(p) && listens(p.pid, outside.port());
        for _ in 0..2 {
            let pid =
                eventually_async("a relay", || async { processes().iter().find(of_this_lab).map(|p| p.pid) })
                    .await;
            kill(pid, Signal::KILL);
            let (name, ..) = tokio::task::spawn_blocking(ask).await.unwrap();
            assert_eq!(name, "m2");
        }
    });
}

/// Whether a process has the socket open that listens on `port`.
fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!("socket:[{}]", inode_of(port));
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| fs::read_link(e.path()).is_ok_and(|l| l.to_string_lossy() == wanted))
}

/// The inode of the loopback socket that listens on `port` (`/proc/net/tcp`).
fn inode_of(port: u16) -> String {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|l| l.split_whitespace().nth(1) == Some(&local)).unwrap();
    line.split_whitespace().nth(9).unwrap().to_owned()
}

fn a_busy_port_is_one_clear_line() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let refused = listen(address).unwrap_err();
    assert!(matches!(refused, LabError::Busy { .. }));
    let text = refused.to_string();
    assert!(text.starts_with(&format!("{address} is in use: ")) && !text.contains('\n'), "{text}");
}

/// A host with a busy lab, that is to be killed: prints its guard's number and waits.
fn host(dir: &Path) -> ExitCode {
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
fn start_host(dir: &Dir, traces: &mut Traces) -> (Child, u32) {
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

fn nothing_outlives_a_killed_host() {
    for signal in [Signal::KILL, Signal::INT] {
        let mut before = Traces::now();
        let dir = Dir::new("parent");
        let (mut host, _) = start_host(&dir, &mut before);
        kill(host.id(), signal);
        host.wait().unwrap();
        before.are_all_there_is();
    }
}

fn nothing_outlives_a_killed_guard() {
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

fn a_lab_whose_root_dies_is_gone() {
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

fn a_system_that_refuses_is_one_line() {
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
