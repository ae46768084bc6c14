//! Network namespaces for tests.
#![expect(clippy::disallowed_methods, reason = "a namespace belongs to a thread, so each test gets its own")]
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::boxed::Box;
use std::string::String;
use std::{eprint, eprintln};

use super::netns;

/// Set in a test process that runs inside of a user namespace.
const INSIDE: &str = "ICP_TEST_USER_NAMESPACE";

/// Runs `body` in a thread with a network namespace of its own, which vanishes with it.
///
/// A plain user runs the calling test once more as root of a user namespace of its own. Where that is not allowed
/// either it says so and checks nothing.
pub(crate) fn in_new_netns(body: impl FnOnce() + Send + 'static) {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    let test = std::thread::current().name().map(String::from);
    let thread = std::thread::spawn(move || match netns::unshare() {
        Ok(()) => body(),
        Err(e) => match test.filter(|_| std::env::var_os(INSIDE).is_none()) {
            Some(test) => in_user_namespace(&test),
            None => skipped(format_args!("a network namespace: {e}")),
        },
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs one test of this binary in a process of its own: a process with threads cannot change its user namespace.
fn in_user_namespace(test: &str) {
    let unshare = |args: &[&std::ffi::OsStr]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]).args(args).env(INSIDE, "1");
        command.output()
    };
    if !unshare(&["true".as_ref()]).is_ok_and(|out| out.status.success()) {
        return skipped(format_args!("a user namespace"));
    }
    let binary = std::env::current_exe().unwrap();
    let out = unshare(&[binary.as_ref(), "--exact".as_ref(), test.as_ref(), "--nocapture".as_ref()]).unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "in a user namespace:\n{stdout}{stderr}");
    assert!(stdout.contains("1 passed"), "the test was not found again: {stdout}");
    eprint!("{stderr}");
}

/// Says that a test is skipped for want of something; with `ICP_PEERS=required` that is a failure.
pub(crate) fn skipped(what: core::fmt::Arguments<'_>) {
    assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs {what}");
    eprintln!("skipped: needs {what}");
}

/// A real program to test against, as a function of its arguments that returns what it printed.
///
/// Without the program there is nothing to compare with: `None`, as [`skipped`] says.
pub(crate) fn peer(name: &'static str) -> Option<impl Fn(&[&str]) -> String> {
    if let Err(e) = std::process::Command::new(name).arg("--version").output() {
        skipped(format_args!("{name}: {e}"));
        return None;
    }
    Some(move |args: &[&str]| {
        let out = std::process::Command::new(name).args(args).output().unwrap();
        assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    })
}
