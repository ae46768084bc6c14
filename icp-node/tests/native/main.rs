//! Runs real containers, as root and as a plain user in a user namespace.
//!
//! The suite runs in process and mount namespaces of its own: whatever a failed case leaves dies with it.
#![expect(clippy::disallowed_methods, reason = "a test of a shell waits and reads clocks")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test without the harness"
)]

mod cases;
mod lab;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

/// A plain user, without a name on purpose.
const PLAIN: u32 = 54_321;
const CASE_LIMIT: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    if let Some(code) = icp_node::backend::native::helper_main(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--inside") => inside(&args[1], &args[2], args.get(3).map(String::as_str)),
        Some("--enter") => enter(&args[1], &args[2], args.get(3).map(String::as_str)),
        Some("--agent") => cases::agents::agent(&args[1], &args[2]),
        Some("--list") => ExitCode::SUCCESS,
        _ if lab::busybox_program().is_none() => {
            assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs busybox-static");
            println!("skipped: needs busybox-static");
            ExitCode::SUCCESS
        }
        _ => {
            let filter = args.iter().find(|a| !a.starts_with('-')).cloned();
            let mut modes = vec!["user"];
            if rustix::process::geteuid().is_root() {
                modes.insert(0, "root");
            }
            let suite = format!("icp-native-{}", std::process::id());
            let run = |mode: &&&str| run_self("--enter", mode, &suite, filter.as_deref());
            let failed = modes.iter().filter(|mode| !run(mode)).count();
            lab::clear_cgroups(&suite);
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn run_self(what: &str, mode: &str, name: &str, filter: Option<&str>) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.args([what, mode, name]).args(filter);
    command.status().unwrap().success()
}

/// Makes the namespaces of a suite and runs it in them.
fn enter(mode: &str, name: &str, filter: Option<&str>) -> ExitCode {
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    #[expect(deprecated, reason = "one thread, and no descriptors are unshared")]
    let unshare = rustix::thread::unshare;
    if mode == "root" {
        unshare(own).unwrap();
    } else {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let (mut uid, mut gid) = (uid.as_raw(), gid.as_raw());
        if uid == 0 {
            (uid, gid) = (PLAIN, PLAIN);
            rustix::thread::set_thread_groups(&[]).unwrap();
            let g = rustix::fs::Gid::from_raw(gid);
            rustix::thread::set_thread_res_gid(g, g, g).unwrap();
            let u = rustix::fs::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(u, u, u).unwrap();
            set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        }
        if let Err(error) = unshare(own | UnshareFlags::NEWUSER | UnshareFlags::NEWNET) {
            assert!(
                std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"),
                "user namespaces: {error}"
            );
            println!("skipped: needs user namespaces ({error})");
            return ExitCode::SUCCESS;
        }
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    }
    if run_self("--inside", mode, name, filter) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn inside(mode: &str, name: &str, filter: Option<&str>) -> ExitCode {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("proc", "/proc", "proc", MountFlags::empty(), None).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lab = lab::Lab::new(mode, name);
    let mut failed = Vec::new();
    let cases: Vec<_> =
        cases::all().into_iter().filter(|(name, _)| filter.is_none_or(|f| name.contains(f))).collect();
    println!("\nrunning {} tests as {mode}", cases.len());
    for (name, case) in cases {
        let started = Instant::now();
        let future = case(lab.case(name));
        let result = runtime.block_on(async {
            let task = tokio::spawn(future);
            match tokio::time::timeout(CASE_LIMIT, task).await {
                Ok(joined) => joined.map_err(|e| e.to_string()),
                Err(_) => Err("took too long".into()),
            }
        });
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {mode}::{name} ... {word} ({} ms)", started.elapsed().as_millis());
        if let Err(why) = result {
            println!("  {why}");
            failed.push(name);
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    lab.clear();
    println!(
        "test result: {}. {} failed {failed:?}",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
