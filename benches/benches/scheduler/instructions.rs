//! Instructions of a decision, counted by callgrind: the same figure on every machine of a kind, however busy.

use std::hint::black_box;
use std::process::{Command, Stdio};

use crate::scenarios::{self, Run, Scenario};
use crate::timed;

/// The flag by which this program runs one scenario under valgrind.
pub(crate) const CHILD: &str = "--counted-scenario";
/// Pods that are counted; under valgrind all is fifty times as slow.
const PODS: usize = 500;
/// Larger clusters take too long.
const NODES_MAX: usize = 6000;

/// Everything in here is counted.
#[inline(never)]
fn counted_part(run: &mut Run, s: &Scenario, pods: Vec<icp_sched::model::Pod>) {
    run.measured(s, pods, |decide| decide());
    black_box(run.placed);
}

/// Runs a scenario with few pods.
pub(crate) fn child(name: &str) {
    for s in scenarios::all().into_iter().filter(|s| s.name == name) {
        let mut run = Run::new(&s);
        run.before(&s);
        let pods = run.pods(&s, PODS);
        counted_part(&mut run, &s, pods);
    }
}

fn count(name: &str) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_part*"])
        .arg(std::env::current_exe().ok()?)
        .args([CHILD, name])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|l| l.split_once("Collected : "))?;
    line.1.split_whitespace().next()?.parse().ok()
}

/// Prints instructions beside CPU time.
pub(crate) fn table(only: &str) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: needs valgrind");
        return;
    }
    println!("{:<66} {:>16} {:>10}", "scenario", "instructions/pod", "us/pod");
    let chosen = |s: &Scenario| s.nodes <= NODES_MAX && s.name.contains(only);
    for s in scenarios::all().into_iter().filter(chosen) {
        let mut run = Run::new(&s);
        run.before(&s);
        let pods = run.pods(&s, PODS);
        let n = pods.len();
        let micros = timed(|| counted_part(&mut run, &s, pods)).as_secs_f64() * 1e6 / n as f64;
        match count(s.name) {
            Some(instructions) => println!("{:<66} {:>16} {micros:>10.2}", s.name, instructions / n as u64),
            None => println!("{:<66} {:>16} {micros:>10.2}", s.name, "not counted"),
        }
    }
}
