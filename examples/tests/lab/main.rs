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

mod ends;
mod machines;
mod relay;
mod roles;
mod support;
mod traces;

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

use ends::*;
use machines::*;
use relay::*;
use roles::*;
use support::*;
use traces::*;

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
