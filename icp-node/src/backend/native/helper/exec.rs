//! A further process in a running container.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, Signal, WaitOptions};
use rustix::thread::ThreadNameSpaceType;

use super::container::open_process;
use super::process::{Stdio, become_process};
use super::pump::{Client, Pump};
use super::{Doing, join_cgroups, read_plan, rootfs, set_nonblocking, set_oom_score, sys};
use crate::backend::native::frame::Frame;
use crate::backend::native::log::Channel;
use crate::backend::native::plan::ExecPlan;
use crate::backend::native::record::{Failure, ProcessRecord};

/// Runs the process; the agent speaks frames on stdin and stdout.
pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let what = || "copy stdio".to_string();
    let read = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).doing(what)?;
    let write = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).doing(what)?;
    set_nonblocking(&read)?;
    set_nonblocking(&write)?;
    let mut client = Client::new(read, Some(write));
    let plan = read_plan(file);
    rootfs::unlink(file);
    let result = plan.and_then(|plan: ExecPlan| enter(&plan, &mut client));
    match result {
        Ok((child, streams)) => attend(client, child, streams),
        Err(failure) => {
            let text = serde_json::to_string(&failure).unwrap_or_default();
            client.send(&Frame::Failed(text));
            sys::exit(1)
        }
    }
}

struct Streams {
    outputs: Vec<(OwnedFd, Channel)>,
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

fn enter(plan: &ExecPlan, client: &mut Client) -> Result<(rustix::process::Pid, Streams), Failure> {
    let container = open_process(plan.init)?;
    let expected = ProcessRecord { pid: plan.init, start: plan.init_start };
    if !expected.is_there() {
        return Err(Failure::Other("the container has ended".into()));
    }
    join_cgroups(&plan.cgroup_procs)?;
    set_oom_score(plan.process.oom_score_adj);
    let spaces = ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::MOUNT;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), spaces)
        .doing(|| "enter the container".into())?;
    let mut streams = Streams { outputs: Vec::new(), input: None, terminal: None };
    let stdio = if plan.tty {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let what = || "open a terminal".to_string();
        let master = rustix::fs::openat(CWD, "/dev/pts/ptmx", flags, Mode::empty()).doing(what)?;
        let (master, slave) = rootfs::terminal_of(master).doing(what)?;
        let copy = || rustix::io::fcntl_dupfd_cloexec(&master, 3).doing(what);
        streams.outputs.push((copy()?, Channel::Stdout));
        streams.input = Some(copy()?);
        streams.terminal = Some(master);
        Stdio::Terminal(slave)
    } else {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe".into());
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let stdin = if plan.stdin {
            let (stdin, input) = pipe()?;
            streams.input = Some(input);
            stdin
        } else {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).doing(|| "open /dev/null".into())?
        };
        streams.outputs = Vec::from([(out, Channel::Stdout), (err, Channel::Stderr)]);
        Stdio::Pipes { stdin, stdout, stderr }
    };
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .doing(|| "make a socket pair".into())?;
    let Some(pid) = sys::fork().doing(|| "fork".into())? else {
        drop(ours);
        drop(streams);
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let failure = match become_process(&plan.process, stdio) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let text = serde_json::to_vec(&failure).unwrap_or_default();
        let _ = rustix::net::send(&theirs, &text, SendFlags::NOSIGNAL);
        sys::exit(1)
    };
    drop((theirs, stdio));
    let mut text = alloc::vec![0_u8; 16 * 1024];
    let (_, n) =
        rustix::net::recv(&ours, &mut text[..], RecvFlags::empty()).doing(|| "hear of the process".into())?;
    if n > 0 {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(serde_json::from_slice(text.get(..n).unwrap_or_default())
            .unwrap_or_else(|_| Failure::Other("the process died before its program".into())));
    }
    client.send(&Frame::Started);
    for fd in streams.outputs.iter().map(|(fd, _)| fd).chain(&streams.input) {
        set_nonblocking(fd)?;
    }
    Ok((pid, streams))
}

fn attend(client: Client, pid: rustix::process::Pid, streams: Streams) -> Result<(), Failure> {
    let child = rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the process".into())?;
    let kill = || {
        // It leads its own process group since it called setsid.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = rustix::process::pidfd_send_signal(&child, Signal::KILL);
    };
    let mut pump = Pump {
        child: child.as_fd(),
        outputs: streams.outputs,
        input: streams.input,
        terminal: streams.terminal,
        log: None,
        listener: None,
        clients: Vec::from([client]),
        owned: true,
        stdin_once: true,
        kill: &kill,
    };
    pump.run();
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())
        .doing(|| format!("wait for {pid:?}"))?
        .map(|(_, status)| status);
    let code = match status.and_then(|s| s.terminating_signal()) {
        Some(signal) => 128 + signal,
        None => status.and_then(|s| s.exit_status()).unwrap_or(255),
    };
    pump.finish(code);
    sys::exit(0)
}
