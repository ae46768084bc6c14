//! What `kubectl exec` starts in a simulated container.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::script::{self, End, KNOWN, Run, Stream, World, Write};
use crate::runtime::{ContainerKey, ContainerSpec, ExecRequest, MountSource, VolumeContent};

/// Longest line of input, in bytes; what is longer is cut into lines of this length.
const LINE_BYTES_MAX: usize = 4096;

/// What processes see of a simulated container.
#[derive(Clone, Debug)]
pub(super) struct ContainerWorld {
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) hostname: String,
    pub(super) volumes: BTreeMap<Arc<str>, Arc<VolumeContent>>,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl World for ContainerWorld {
    fn variable(&self, name: &str) -> Option<String> {
        self.environment().into_iter().rev().find(|(k, _)| k == name).map(|(_, v)| v)
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut all = Vec::from([
            ("PATH".to_string(), PATH.to_string()),
            ("HOSTNAME".to_string(), self.hostname.clone()),
        ]);
        all.retain(|(name, _)| !self.spec.env.iter().any(|(n, _)| n == name));
        all.extend(self.spec.env.iter().cloned());
        all
    }

    fn hostname(&self) -> String {
        self.hostname.clone()
    }

    fn directory(&self) -> String {
        if self.spec.working_dir.is_empty() { "/".into() } else { self.spec.working_dir.clone() }
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(file) = self.spec.files.iter().find(|f| f.path == path) {
            return Some(file.data.to_vec());
        }
        for mount in &self.spec.mounts {
            let MountSource::Volume { name, sub_path } = &mount.source;
            let Some(inside) = path.strip_prefix(mount.path.trim_end_matches('/')) else { continue };
            let inside = format!("{sub_path}{inside}");
            if let Some(VolumeContent::Files { files, .. }) = self.volumes.get(name).map(|v| &**v)
                && let Some(file) = files.iter().find(|f| f.path == inside.trim_start_matches('/'))
            {
                return Some(file.data.to_vec());
            }
        }
        (path == "/etc/hostname").then(|| format!("{}\n", self.hostname).into_bytes())
    }
}

/// What a simulated process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Writes and ends, in its own time.
    Run(Run),
    /// Copies what it reads, and ends with its input.
    Copies,
    /// Reads commands, and ends with its input or an `exit`.
    Reads,
}

/// A simulated process. It holds no state but what it was started with: who plays it keeps the time.
#[derive(Clone, Debug)]
pub struct SimProcess {
    /// The container that it lives in.
    pub container: ContainerKey,
    /// What it does.
    pub program: Program,
    /// Whether it has a terminal.
    pub tty: bool,
    world: Arc<ContainerWorld>,
}

impl SimProcess {
    pub(super) fn new(
        container: ContainerKey,
        request: &ExecRequest,
        world: Arc<ContainerWorld>,
        fails: bool,
    ) -> Self {
        let run = if fails {
            let bytes = b"the simulation says so\n".to_vec();
            let write = Write { after: Default::default(), stream: Stream::Stderr, bytes };
            Run { writes: Vec::from([write]), end: End::Exit(Default::default(), 1), exits: false }
        } else {
            script::run(&request.command, &*world)
        };
        let program = match run.end {
            End::Copies if run.writes.is_empty() => Program::Copies,
            End::Reads if run.writes.is_empty() => Program::Reads,
            _ => Program::Run(run),
        };
        let mut process = Self { container, program, tty: request.tty, world };
        if let Program::Run(run) = &mut process.program {
            told(run, &process.container);
        }
        process
    }

    /// What a line does that a process that reads commands has read; `last` is the code of the line before.
    #[must_use]
    pub fn line(&self, line: &str, last: i32) -> Run {
        let mut run = script::run_line(line, last, &*self.world);
        told(&mut run, &self.container);
        run
    }
}

/// Turns what is not understood into the message and code of a shell: 127 for a program, 126 for the rest.
fn told(run: &mut Run, container: &ContainerKey) {
    let (at, what, code) = match &run.end {
        End::Unknown { at, what, program: true } => (*at, format!("no program {what:?} is in it"), 127),
        End::Unknown { at, what, program: false } => {
            (*at, format!("its shell does not understand {what:?}"), 126)
        }
        // A program that waits for input behind others.
        End::Copies | End::Reads => {
            let at = run.writes.last().map(|w| w.after).unwrap_or_default();
            (at, "a program of it cannot read here".to_string(), 126)
        }
        _ => return,
    };
    let text = format!("container {:?} is simulated: {what}; it knows {KNOWN}\n", &*container.name);
    run.writes.push(Write { after: at, stream: Stream::Stderr, bytes: text.into_bytes() });
    run.end = End::Exit(at, code);
}

/// What came of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// A line, without its end.
    Line(String),
    /// The terminal's interrupt (control-C).
    Interrupt,
    /// The terminal's end of file (control-D on an empty line).
    End,
}

/// Cuts input into lines; for a terminal, also what a line discipline does: echo, erase, interrupt.
///
/// ```
/// use icp_node::backend::memory::{LineEvent, LineInput};
/// let mut input = LineInput::new(true);
/// let (echo, events) = input.feed(b"lx\x7fs\r");
/// assert_eq!(echo, b"lx\x08 \x08s\r\n");
/// assert_eq!(events, [LineEvent::Line("ls".into())]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct LineInput {
    tty: bool,
    line: Vec<u8>,
}

impl LineInput {
    /// Input of a process with or without a terminal.
    #[must_use]
    pub const fn new(tty: bool) -> Self {
        Self { tty, line: Vec::new() }
    }

    fn take(&mut self) -> LineEvent {
        LineEvent::Line(String::from_utf8_lossy(&core::mem::take(&mut self.line)).into_owned())
    }

    /// Takes bytes; gives what the terminal shows of them and what they mean.
    pub fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<LineEvent>) {
        let (mut echo, mut events) = (Vec::new(), Vec::new());
        for byte in bytes {
            match byte {
                b'\n' | b'\r' if self.tty => {
                    echo.extend_from_slice(b"\r\n");
                    events.push(self.take());
                }
                b'\n' => events.push(self.take()),
                3 if self.tty => {
                    echo.extend_from_slice(b"^C\r\n");
                    self.line.clear();
                    events.push(LineEvent::Interrupt);
                }
                4 if self.tty => {
                    if self.line.is_empty() {
                        events.push(LineEvent::End);
                    }
                }
                8 | 0x7f if self.tty => {
                    // A character of several bytes goes as a whole.
                    while self.line.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
                    echo.extend_from_slice(b"\x08 \x08");
                }
                byte => {
                    if self.tty {
                        echo.push(*byte);
                    }
                    self.line.push(*byte);
                    if self.line.len() >= LINE_BYTES_MAX {
                        events.push(self.take());
                    }
                }
            }
        }
        (echo, events)
    }

    /// The input is over: the line that was begun.
    pub fn finish(&mut self) -> Option<LineEvent> {
        (!self.line.is_empty()).then(|| self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{GeneratedFile, Mount, MountPropagation, VolumeFile};

    fn world() -> Arc<ContainerWorld> {
        let file = VolumeFile { path: "key".into(), data: b"value"[..].into(), mode: 0o644 };
        let content = VolumeContent::Files { files: Vec::from([file]), fs_group: None };
        let spec = ContainerSpec {
            env: Vec::from([("A".into(), "1".into())]),
            mounts: Vec::from([Mount {
                path: "/etc/config".into(),
                source: MountSource::Volume { name: "v".into(), sub_path: String::new() },
                read_only: true,
                propagation: MountPropagation::None,
            }]),
            files: Vec::from([GeneratedFile {
                path: "/etc/hosts".into(),
                data: b"127.0.0.1 localhost\n"[..].into(),
                mode: 0o644,
            }]),
            ..ContainerSpec::default()
        };
        Arc::new(ContainerWorld {
            spec: Arc::new(spec),
            hostname: "web-0".into(),
            volumes: BTreeMap::from([("v".into(), Arc::new(content))]),
        })
    }

    fn exec(command: &[&str]) -> SimProcess {
        let command = command.iter().map(ToString::to_string).collect();
        let request = ExecRequest { command, stdout: true, ..ExecRequest::default() };
        SimProcess::new(ContainerKey::new("c", 0), &request, world(), false)
    }

    fn written(run: &Run) -> String {
        run.writes.iter().map(|w| String::from_utf8_lossy(&w.bytes).into_owned()).collect()
    }

    #[test]
    fn a_container_has_its_files_and_variables() {
        let Program::Run(run) = exec(&["cat", "/etc/config/key", "/etc/hosts", "/etc/hostname"]).program
        else {
            panic!()
        };
        assert_eq!(written(&run), "value127.0.0.1 localhost\nweb-0\n");
        let Program::Run(run) = exec(&["env"]).program else { panic!() };
        assert_eq!(written(&run), format!("PATH={PATH}\nHOSTNAME=web-0\nA=1\n"));
    }

    #[test]
    fn what_is_not_known_is_said_to_be_simulated() {
        let Program::Run(run) = exec(&["ls", "-l"]).program else { panic!() };
        assert!(matches!(run.end, End::Exit(_, 127)));
        assert!(
            written(&run)
                .starts_with("container \"c\" is simulated: no program \"ls\" is in it; it knows echo")
        );
        let Program::Run(run) = exec(&["sh", "-c", "ls | wc"]).program else { panic!() };
        assert!(matches!(run.end, End::Exit(_, 126)));
        let shell = exec(&["sh"]);
        assert_eq!(shell.program, Program::Reads);
        assert_eq!(written(&shell.line("echo $A $?", 7)), "1 7\n");
        assert!(shell.line("exit 3", 0).exits);
        assert!(!shell.line("false", 0).exits);
        assert_eq!(exec(&["cat"]).program, Program::Copies);
    }

    #[test]
    fn lines_of_a_pipe_are_not_echoed() {
        let mut input = LineInput::new(false);
        let (echo, events) = input.feed(b"a\nb\x03\nc");
        assert!(echo.is_empty());
        assert_eq!(events, [LineEvent::Line("a".into()), LineEvent::Line("b\x03".into())]);
        assert_eq!(input.finish(), Some(LineEvent::Line("c".into())));
        assert_eq!(input.finish(), None);
        let mut tty = LineInput::new(true);
        assert_eq!(tty.feed(b"x\x03\x04").1, [LineEvent::Interrupt, LineEvent::End]);
    }
}
