//! Network namespaces for tests.
#![expect(clippy::disallowed_methods, reason = "a namespace belongs to a thread, so each test gets its own")]

use std::boxed::Box;
use std::eprintln;

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
