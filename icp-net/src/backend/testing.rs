//! Network namespaces for tests.
#![expect(clippy::disallowed_methods, reason = "a namespace belongs to a thread, so each test gets its own")]
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::boxed::Box;
use std::eprintln;
use std::string::String;

use super::netns;

/// Runs `body` in a thread with a network namespace of its own, which vanishes with it.
///
/// On a machine where that is not allowed (no `CAP_SYS_ADMIN`) it says so and checks nothing.
pub(crate) fn in_new_netns(body: impl FnOnce() + Send + 'static) {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    let thread = std::thread::spawn(move || match netns::unshare() {
        Ok(()) => body(),
        Err(e) => eprintln!("skipped: no network namespace: {e}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A real program to test against, as a function of its arguments that returns what it printed.
///
/// Without the program there is nothing to compare with: `None`, unless `ICP_PEERS=required` says that it must be
/// there.
pub(crate) fn peer(name: &'static str) -> Option<impl Fn(&[&str]) -> String> {
    if let Err(e) = std::process::Command::new(name).arg("--version").output() {
        let required = std::env::var_os("ICP_PEERS").is_some_and(|v| v == "required");
        assert!(!required, "{name} is required and does not run: {e}");
        eprintln!("skipped: {name} does not run: {e}");
        return None;
    }
    Some(move |args: &[&str]| {
        let out = std::process::Command::new(name).args(args).output().unwrap();
        assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    })
}
