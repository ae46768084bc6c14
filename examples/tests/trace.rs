//! The trace example: what it makes of a small trace is known by hand; the real one is run where `ICP_OPENB` names its
//! folder.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use examples::trace::fragments::Typical;
use examples::trace::policy::Policy;
use examples::trace::replay::{fill, replay};
use examples::trace::report::Runs;
use examples::trace::{Trace, csv};

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trace")
}

#[test]
fn a_small_trace_goes_as_it_must() {
    let trace = Trace::read(&small()).unwrap();
    let typical = Typical::of(&trace.pods);
    for policy in Policy::ALL {
        let o = replay(&trace, policy, &typical);
        // p3 waits for p0's devices from second 10 to 100; nobody has what p4 wants.
        assert_eq!((o.placed, o.never, o.waited), (5, 1, (1, 90, 90)), "{policy:?}");
        let at = |t: f64| o.samples.iter().find(|s| s.at == t).unwrap();
        assert_eq!(
            (at(6.0).gpu, at(6.0).cpu),
            (1.0, 4_000.0 / 20_000.0),
            "{policy:?}: two halves on one device"
        );
        assert_eq!((at(10.0).asked, at(100.0).gpu), (4.0 / 3.0, 1.0 / 3.0), "{policy:?}");
        let end = o.samples.last().unwrap();
        assert_eq!(
            (end.at, end.cpu, end.memory, end.gpu, end.asked),
            (200.0, 0.0, 0.0, 0.0, 0.0),
            "{policy:?}"
        );
        // 2 devices from 0 to 100 and 2 halves, then one to 200: in device seconds, of 3 times 200.
        let mean = (200.0 + 22.5 + 27.0 + 100.0) / 600.0;
        assert!((o.mean(|s| s.gpu) - mean).abs() < 1e-9, "{policy:?}: {}", o.mean(|s| s.gpu));
    }
}

#[test]
fn filling_up_ends_and_the_same_seed_says_the_same() {
    let trace = Trace::read(&small()).unwrap();
    let typical = Typical::of(&trace.pods);
    for policy in Policy::ALL {
        let (a, b) = (fill(&trace, policy, &typical, 3), fill(&trace, policy, &typical, 3));
        assert_eq!(a.samples, b.samples);
        let end = a.samples.last().unwrap();
        assert!(end.asked >= 1.3 && end.gpu <= 1.0 && a.placed + a.never + 1 == a.samples.len());
    }
}

#[test]
fn broken_files_are_told_by_line_and_field() {
    let (pods, nodes) = (small().join(csv::PODS), small().join(csv::NODES));
    let folder = std::env::temp_dir().join(format!("icp-trace-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let told = |text: &str| {
        std::fs::write(folder.join(csv::PODS), text).unwrap();
        let told = Trace::read(&folder).unwrap_err().to_string();
        told.rsplit_once(".csv: ").map_or(told.clone(), |(_, why)| why.to_owned())
    };
    let good = std::fs::read_to_string(&pods).unwrap();
    assert!(told(&good).contains("No such file"), "the nodes are missing");
    std::fs::copy(&nodes, folder.join(csv::NODES)).unwrap();
    let broken = [
        ("p1,1000", "p1,x", "line 3: cpu_milli: \"x\" is not a whole number"),
        ("p1,1000", "p1,-1", "line 3: cpu_milli: -1 is not between 0 and 1099511627776"),
        ("p1,1000", ",1000", "line 3: name: is empty"),
        ("p1,1000,", "p1,1000,,", "line 3: line: 12 fields, the header has 11"),
        ("1,500,,BE,Running,5,50", "1,0,,BE,Running,5,50", "line 3: gpu_milli: 0 does not go with num_gpu 1"),
        (
            "1,500,,BE,Running,5,50",
            "1,500,,BE,Running,5,4",
            "line 3: deletion_time: 4 is before creation_time 5",
        ),
        ("qos,pod_phase,creation_time", "qos,pod_phase,x", "line 2: creation_time: the column is missing"),
    ];
    for (from, to, want) in broken {
        assert_eq!(told(&good.replacen(from, to, 1)), want);
    }
    assert_eq!(told(good.lines().next().unwrap()), "there is no line after the header");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(Trace::read(&folder).unwrap_err().to_string().contains(csv::NODES));
}

#[test]
fn the_real_trace_is_placed() {
    let Some(folder) = std::env::var_os("ICP_OPENB") else {
        println!("skipped: needs ICP_OPENB, the folder of the openb trace");
        return;
    };
    let trace = Trace::read(Path::new(&folder)).unwrap();
    let runs = Runs::of(&trace, 1);
    print!("{}", runs.table());
    for (policy, o) in runs.replays() {
        assert_eq!(o.placed + o.never, trace.pods.len(), "{policy:?}");
        assert!(o.peak(|s| s.gpu) > 0.0);
    }
    for (policy, o) in runs.fills() {
        assert!(o.samples.last().unwrap().gpu > 0.8, "{policy:?}");
    }
    assert!(runs.plot().ends_with("</svg>\n"));
}
