//! Programs that run in machines.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process of a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Program {
    /// A role of this executable; see [`super::dispatch`].
    Role(String),
    /// A program of the machine, by path, or by name along `PATH`.
    Path(PathBuf),
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    pub(super) program: Program,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) dir: Option<PathBuf>,
    pub(super) name: Option<String>,
}

impl Spawn {
    /// A role of this executable.
    #[must_use]
    pub fn role(name: impl Into<String>) -> Self {
        Self::new(Program::Role(name.into()))
    }

    /// A program of the system.
    #[must_use]
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self::new(Program::Path(path.into()))
    }

    const fn new(program: Program) -> Self {
        Self { program, args: Vec::new(), env: BTreeMap::new(), dir: None, name: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. Of the host's own variables a process sees only `PATH` (with the system directories added),
    /// `LANG` and `RUST_BACKTRACE`; `ICP_MACHINE` is the machine's name.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Starts in a directory instead of in `/`.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Names the process, and so its log file; the default is the program's name. Of two processes of one name, the
    /// name means the later one.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The name of the process.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.name, &self.program) {
            (Some(name), _) => name.clone(),
            (None, Program::Role(role)) => role.clone(),
            (None, Program::Path(path)) => {
                path.file_name().map_or_else(|| "program".into(), |n| n.to_string_lossy().into_owned())
            }
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// With its machine.
    PowerOff,
}

impl Exit {
    /// Whether it ended by itself without complaint.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::PowerOff => f.write_str("power off"),
        }
    }
}

/// What a command printed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, up to [`OUTPUT_BYTES_MAX`].
    pub stdout: Vec<u8>,
    /// Its standard error, up to [`OUTPUT_BYTES_MAX`].
    pub stderr: Vec<u8>,
}

/// How much of each stream of a command is kept, in bytes; what comes after is read and thrown away.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

impl Output {
    /// Both streams as text, standard output first.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr))
    }
}
