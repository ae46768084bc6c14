//! Every operation of a workload, and of recovery, is the one at which something goes wrong.
//!
//! What holds in all cases: *acknowledged ⊆ recovered ⊆ attempted*, and the recovered state is one that the store had
//! between two batches. What was served after a recovery is there after the next power loss too.

use icp_store::log::{Fault, LogError, SimFiles};

use super::workload::{Workload, one_more, open, rounds, state};

const BATCHES: usize = 32;

struct Sweep {
    workload: Workload,
    states: Vec<String>,
    operations: u64,
}

impl Sweep {
    fn new(seed: u64) -> Self {
        let workload = Workload { seed, batches: BATCHES };
        let files = SimFiles::new(seed);
        assert!(workload.run(&files).error.is_none());
        assert!(files.bytes("snapshot.tmp").is_none(), "a snapshot was put into force");
        Self { workload, states: workload.states(), operations: files.operations() }
    }

    /// Whether a state may be found after so many batches were acknowledged: one more may have been attempted.
    fn allows(&self, acknowledged: usize, found: &String) -> bool {
        self.states.iter().skip(acknowledged).take(2).any(|s| s == found)
    }

    /// Opens a disk that was treated badly and checks what is there; gives that back.
    fn check(&self, files: &SimFiles, acknowledged: usize, what: &str) -> String {
        let (_, store) = open(files.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = state(&store);
        assert!(self.allows(acknowledged, &found), "{what}: {acknowledged} batches were acknowledged");
        let (_, again) = open(files.crash()).unwrap_or_else(|e| panic!("{what}, again: {e}"));
        assert_eq!(state(&again), found, "{what}: what was served is gone");
        found
    }
}

/// More is written, into the next segment too, and is there after power fails.
fn go_on(files: &SimFiles, what: &str) {
    let (mut log, mut store) = open(files.clone()).unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        one_more(&mut log, &mut store, key);
    }
    drop(log);
    let (_, after) = open(files.crash()).unwrap_or_else(|e| panic!("{what}, later: {e}"));
    assert_eq!(state(&after), state(&store), "{what}");
}

#[test]
fn power_loss_at_every_operation() {
    let mut points = 0;
    for round in 0..rounds(2) {
        let sweep = Sweep::new(round);
        for at in 0..=sweep.operations {
            let files = SimFiles::new(at);
            files.set_fault(Some(Fault::PowerLoss(at)));
            let run = sweep.workload.run(&files);
            assert!(run.error.is_some() || run.acknowledged == BATCHES);
            // Several outcomes of the same crash.
            for outcome in 0..4 {
                let (what, crashed) = (format!("{round}, {at}, {outcome}"), files.crash());
                sweep.check(&crashed, run.acknowledged, &what);
                go_on(&crashed, &what);
                points += 1;
            }
        }
    }
    println!("{points} power losses");
    assert!(points > 1_000, "{points}");
}

/// The process ends at every operation, the next one goes on from what the system has in memory, and then power fails.
#[test]
fn a_kill_at_every_operation_then_more_writes_then_power_loss() {
    for round in 0..rounds(2) {
        let sweep = Sweep::new(round);
        for at in 0..=sweep.operations {
            let what = format!("{round}, {at}");
            let files = SimFiles::new(at);
            files.set_fault(Some(Fault::PowerLoss(at)));
            let run = sweep.workload.run(&files);
            files.set_fault(None);
            sweep.check(&files, run.acknowledged, &what);
            go_on(&files, &what);
        }
    }
}

/// Each operation fails once: a write in part, a sync with the loss of what was pending.
#[test]
fn an_error_at_every_operation() {
    let mut ended = 0;
    for round in 0..rounds(2) {
        let sweep = Sweep::new(round);
        for at in 0..sweep.operations {
            let what = format!("{round}, {at}");
            let files = SimFiles::new(at);
            files.set_fault(Some(Fault::Error(at)));
            let run = sweep.workload.run(&files);
            files.set_fault(None);
            // Without an error the operation was one that the log can do without: of a snapshot, or of clearing up.
            ended += u64::from(run.error.is_some());
            assert!(run.error.is_some() || run.acknowledged == BATCHES, "{what}");
            sweep.check(&files.crash(), run.acknowledged, &what);
            sweep.check(&files, run.acknowledged, &what);
        }
    }
    assert!(ended > 100, "{ended}");
}

/// The disk is full from each operation on, and has space again as soon as that was said: the log goes on without a
/// restart, and nothing is lost.
#[test]
fn a_full_disk_at_every_operation_and_space_again() {
    let mut times = 0;
    for round in 0..rounds(2) {
        let sweep = Sweep::new(round);
        for at in 0..sweep.operations {
            let files = SimFiles::new(at);
            files.set_fault(Some(Fault::Full(at)));
            let mut mend = |files: &SimFiles| {
                times += 1;
                files.set_fault(None);
                true
            };
            let run = sweep.workload.run_with(&files, &mut mend, &mut |_| {});
            assert_eq!(run.error, None, "{round}, {at}");
            assert_eq!(sweep.check(&files.crash(), BATCHES, "after it"), sweep.states[BATCHES]);
        }
    }
    assert!(times > 100, "{times}");
}

/// A file that cannot be read is an error, not an absent file; once it can be read all is there.
#[test]
fn a_read_error_at_every_read_of_recovery() {
    let sweep = Sweep::new(1);
    let files = SimFiles::new(1);
    sweep.workload.run(&files);
    let reads = {
        let copy = files.copy();
        open(copy.clone()).unwrap();
        copy.reads()
    };
    let mut refused = 0;
    for at in 0..reads {
        let damaged = files.copy();
        damaged.set_fault(Some(Fault::ReadError(at)));
        match open(damaged.clone()) {
            Ok((_, store)) => assert_eq!(state(&store), sweep.states[BATCHES], "{at}"),
            Err(LogError::Io { detail, .. }) => {
                assert_eq!(detail, "input/output error");
                refused += 1;
            }
            Err(e) => panic!("{at}: {e}"),
        }
        damaged.set_fault(None);
        assert_eq!(sweep.check(&damaged, BATCHES, "after it"), sweep.states[BATCHES]);
    }
    assert!(refused >= 3, "{refused} of {reads}");
}

/// Power fails while what an earlier loss of power left is being repaired, at every operation of that.
#[test]
fn power_loss_at_every_operation_of_recovery() {
    let mut points = 0;
    for round in 0..rounds(1) {
        let sweep = Sweep::new(round);
        for at in (0..=sweep.operations).step_by(2) {
            let files = SimFiles::new(at);
            files.set_fault(Some(Fault::PowerLoss(at)));
            let run = sweep.workload.run(&files);
            let crashed = files.crash();
            let recovered = crashed.copy();
            let found = state(&open(recovered.clone()).unwrap().1);
            for second in 0..recovered.operations() {
                let again = crashed.copy();
                again.set_fault(Some(Fault::PowerLoss(second)));
                assert!(open(again.clone()).is_err());
                let what = format!("{round}, {at}, {second}");
                // Of the first crash nothing is undecided any more.
                assert_eq!(sweep.check(&again.crash(), run.acknowledged, &what), found, "{what}");
                points += 1;
            }
        }
    }
    assert!(points > 300, "{points}");
}
