//! Real kubectl 1.37 against the whole cluster, with what it prints.
//!
//! Each file of `scripts/` is a transcript: commands and what they print (see [`script`]). Each runs in a namespace of
//! its own, against a simulated and against a real cluster. What differs from run to run is replaced by the rule of
//! [`normal`]. `UPDATE_EXPECT=1 cargo test -p examples --test kubectl` writes what was printed into the files.
//!
//! This file has no test harness, because the cluster starts its own program again. Arguments choose what is run:
//! `sim` and `real` are modes, other words parts of the names of scripts.
#![expect(clippy::disallowed_methods, reason = "a test of processes waits for them, with a limit")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code outside of a test function")]

mod cluster;
mod normal;
mod process;
mod pty;
mod script;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use cluster::{Cluster, Start};
use script::Script;

/// Scripts that run at once.
const AT_ONCE: usize = 3;

/// What all scripts share.
struct Setting {
    kubectl: PathBuf,
    scripts: Vec<PathBuf>,
    update: bool,
}

fn main() -> ExitCode {
    if let Some(code) = cluster::dispatch() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    normal::check();
    script::check();
    let Some(kubectl) = cluster::kubectl() else { return skipped("kubectl 1.37") };
    let (modes, parts): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| *a == "sim" || *a == "real");
    let setting =
        Setting { kubectl, scripts: scripts(&parts), update: std::env::var_os("UPDATE_EXPECT").is_some() };
    let mut failed = 0;
    for mode in ["sim", "real"] {
        if modes.is_empty() || modes.iter().any(|m| *m == mode) {
            failed += run(mode, &setting);
        }
    }
    println!("test result: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn skipped(what: &str) -> ExitCode {
    println!("skipped: needs {what}");
    ExitCode::from(u8::from(required()))
}

/// Whether a peer that is not there is a failure.
fn required() -> bool {
    std::env::var_os("ICP_PEERS").is_some_and(|v| v == "required")
}

fn scripts(parts: &[&String]) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl/scripts");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| {
        let name = script::name(p);
        p.extension().is_some_and(|e| e == "txt")
            && (parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str())))
    });
    all.sort();
    all
}

/// Runs all scripts against one cluster; the number of those that failed.
fn run(mode: &'static str, setting: &Setting) -> usize {
    let started = Instant::now();
    let cluster = match Cluster::start(mode, &setting.kubectl) {
        Start::Up(cluster) => cluster,
        Start::Unsupported(why) => {
            println!("skipped: needs what makes a {mode} cluster: {why}");
            return usize::from(required() && !why.contains("not yet"));
        }
    };
    println!("{mode}: up after {} ms", started.elapsed().as_millis());
    let (alone, together): (Vec<Script>, Vec<Script>) = setting
        .scripts
        .iter()
        .map(|path| Script::read(path))
        .filter(|script| script.mode.as_deref().is_none_or(|m| m == mode))
        .partition(|script| script.alone);
    let failed = Mutex::new(0);
    let count = |n: usize| *failed.lock().unwrap() += n;
    let queue = Mutex::new(together.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(mut script) = queue.lock().unwrap().next() else { return };
                    count(one(&cluster, &mut script, setting.update));
                }
            });
        }
    });
    for mut script in alone {
        count(one(&cluster, &mut script, setting.update));
    }
    println!("{mode}: {} ms in all", started.elapsed().as_millis());
    drop(cluster);
    failed.into_inner().unwrap()
}

fn one(cluster: &Cluster, script: &mut Script, update: bool) -> usize {
    let started = Instant::now();
    let different = script.run(cluster, update);
    let (slowest, line) = &script.slowest;
    let took = format!("{} ms, of which {} ms: {line}", started.elapsed().as_millis(), slowest.as_millis());
    let (mode, name) = (cluster.mode, &script.name);
    if different.is_empty() {
        println!("{mode} {name} ... ok ({took})");
        return 0;
    }
    if update {
        script.write();
        println!("{mode} {name} ... written ({took})");
        return 0;
    }
    println!("{mode} {name} ... FAILED ({took})\n{}", different.join("\n"));
    1
}
