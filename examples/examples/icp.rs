//! The reference daemons as one program: `icp icp-scheduler --config FILE`, or a link named `icp-scheduler` to it.
//!
//! A configuration is one JSON document that names the daemon; `full-cluster --state DIR` leaves those of a whole cluster
//! in `DIR/etc`. `icp icp-scheduler --config FILE --record HISTORY` also writes down what is decided, for `sched-replay`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use examples::daemon::{self, Role};
use icp_node::backend::native::helper_main;

const USAGE: &str = "usage: icp NAME --config FILE [--record FILE], where NAME is one of";

fn arguments() -> Result<(String, PathBuf, Option<PathBuf>), String> {
    let mut words: Vec<String> = std::env::args().collect();
    let own = words.first().and_then(|w| Path::new(w).file_name()?.to_str().map(str::to_string));
    // By the name of the link, or by the first argument.
    if own.as_deref().is_some_and(|name| name.starts_with("icp-")) {
        words.insert(1, own.unwrap_or_default());
    }
    match words.get(1..) {
        Some([name, flag, file]) if flag == "--config" => Ok((name.clone(), file.into(), None)),
        Some([name, flag, file, record, history]) if flag == "--config" && record == "--record" => {
            Ok((name.clone(), file.into(), Some(history.into())))
        }
        _ => Err(format!("{USAGE} {}", Role::NAMES.join(", "))),
    }
}

fn run() -> Result<(), String> {
    let (name, file, history) = arguments()?;
    let mut role = daemon::read(&file).map_err(|e| e.to_string())?;
    if role.name() != name {
        return Err(format!("{} configures {}, not {name}", file.display(), role.name()));
    }
    match (&mut role, history) {
        (_, None) => {}
        (Role::Scheduler(config), Some(history)) => config.record = Some(history),
        (_, Some(_)) => return Err(format!("--record is for icp-scheduler, not for {name}")),
    }
    role.run_to_end().map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    if let Some(code) = helper_main(std::env::args_os()) {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("icp: {e}");
            ExitCode::from(2)
        }
    }
}
