//! One executable, many programs.

use std::process::{Command, ExitCode};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{guard, init, relay, root};

/// The first argument of a role is this and its name.
const MARK: &str = "@role:";
const FAILED_TO_START: u8 = 125;

/// A program inside this executable: its name and what it does with its arguments.
pub type Role = (&'static str, fn(Vec<String>) -> ExitCode);

/// Runs the role that the command line asks for, if it asks for one; a program goes on only if it does not.
///
/// It must come before anything starts a thread.
#[must_use]
pub fn dispatch(roles: &[Role]) -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let first = args.next()?;
    let name = first.strip_prefix(MARK)?;
    let own: [Role; 4] = [
        (guard::ROLE, guard::main),
        (root::ROLE, root::main),
        (init::ROLE, init::main),
        (relay::ROLE, relay::main),
    ];
    let Some((_, main)) = roles.iter().chain(&own).find(|(role, _)| *role == name) else {
        eprintln!("there is no role {name}");
        return Some(ExitCode::from(FAILED_TO_START));
    };
    Some(main(args.collect()))
}

/// This executable as a role.
///
/// `/proc/self/exe` names the file itself, so that it may have been moved or removed since, or be hidden by a mount.
pub(super) fn command(role: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(role).arg(format!("{MARK}{role}"));
    command
}

/// The same, with its configuration as the only argument.
pub(super) fn configured<T: Serialize>(role: &str, config: &T) -> std::io::Result<Command> {
    let mut command = command(role);
    command.arg(serde_json::to_string(config)?);
    Ok(command)
}

/// Runs the body of a role of the lab; its reason to fail goes to the lab's log.
pub(super) fn run<T: DeserializeOwned>(
    role: &str,
    args: &[String],
    body: impl FnOnce(T) -> Result<ExitCode, String>,
) -> ExitCode {
    let config = args.first().ok_or("no configuration".to_owned());
    let config = config.and_then(|text| serde_json::from_str(text).map_err(|e| e.to_string()));
    config.and_then(body).unwrap_or_else(|reason| {
        eprintln!("{role}: {reason}");
        ExitCode::from(FAILED_TO_START)
    })
}
