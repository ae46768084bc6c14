//! The shim of a container: starts its first process, keeps its output, and tells how it ended.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use super::process::{Stdio, become_process};
use super::pump::Pump;
use super::{
    Doing, answer, detach, join_cgroups, now, read_plan, rootfs, set_nonblocking, set_oom_score, sys,
};
use crate::backend::native::log::{Channel, LogWriter, last_lines, log_files, parse_line};
use crate::backend::native::plan::{ContainerPlan, PidMode};
use crate::backend::native::record::{Answer, ExitRecord, Failure, ProcessRecord, ShimRecord, write};

/// Most bytes of a termination message, and of one that is taken from the log
/// (`k8s.io/kubernetes/pkg/kubelet/kuberuntime`).
const MESSAGE_MAX: usize = 4096;
const LOG_MESSAGE_MAX: usize = 2048;
const LOG_MESSAGE_LINES: u64 = 80;
/// Rounds of killing what a container left behind.
const KILL_ROUNDS: u32 = 200;

/// The child's end of the pipes that the shim carries.
struct Streams {
    child: Option<(OwnedFd, OwnedFd, OwnedFd)>,
    outputs: Vec<(OwnedFd, Channel)>,
    input: Option<OwnedFd>,
}

/// Starts a container, answers, and stays until it has ended.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let plan: ContainerPlan = read_plan(&dir.join("plan.json"))?;
    rustix::process::setsid().doing(|| "setsid".into())?;
    if sys::fork().doing(|| "fork".into())?.is_some() {
        return Ok(());
    }
    let _ = rustix::thread::set_name(c"icp-shim");
    let mut shim = ShimRecord {
        shim: ProcessRecord::of(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or_default(),
        ..ShimRecord::default()
    };
    let result = start(&plan, &mut shim);
    match result {
        Ok((pid, running)) => {
            answer(&Answer::Ok(shim));
            detach();
            let code = attend(&plan, shim, pid, running);
            sys::exit(i32::from(code.is_err()))
        }
        Err(failure) => {
            // A agent that starts anew learns of the failure from here.
            let (at, _) = now();
            let record = ExitRecord {
                code: 128,
                started_micros: at.as_micros(),
                finished_micros: at.as_micros(),
                message: format!("{failure}"),
                ..ExitRecord::default()
            };
            let _ = write(&dir.join("exit.json"), &record);
            answer(&Answer::<ShimRecord>::Err(failure));
            sys::exit(1)
        }
    }
}

struct Running {
    streams: Streams,
    terminal: Option<OwnedFd>,
    listener: OwnedFd,
    log: LogWriter,
    /// Readable when the process has ended.
    child: OwnedFd,
}

fn start(plan: &ContainerPlan, record: &mut ShimRecord) -> Result<(Pid, Running), Failure> {
    let shim_file = plan.dir.join("shim.json");
    write(&shim_file, record).doing(|| "write shim.json".into())?;
    let log = LogWriter::open(plan.log.clone()).doing(|| format!("open {}", plan.log.path.display()))?;
    let listener = listen(&plan.dir)?;
    let mut streams = streams(plan)?;
    let holder = open_process(plan.join.holder)?;
    match plan.pid_mode {
        PidMode::Own => sys::unshare(UnshareFlags::NEWPID).doing(|| "make a process namespace".into())?,
        PidMode::Pod => {
            rustix::thread::move_into_thread_name_spaces(holder.as_fd(), ThreadNameSpaceType::PROCESS_ID)
                .doing(|| "join the pod's process namespace".into())?;
        }
        PidMode::Host => {}
    }
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .doing(|| "make a socket pair".into())?;
    let Some(pid) = sys::fork().doing(|| "fork".into())? else {
        drop((ours, listener, log));
        let child = streams.child.take();
        drop(streams);
        let failure = match init(plan, &theirs, holder, child) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let text = serde_json::to_vec(&failure).unwrap_or_default();
        let _ = rustix::net::send(&theirs, &text, SendFlags::NOSIGNAL);
        sys::exit(1)
    };
    drop(theirs);
    streams.child = None;
    let child = rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the process".into())?;
    let (at, _) = now();
    record.started_micros = at.as_micros();
    record.init = ProcessRecord::of(pid.as_raw_nonzero().get()).unwrap_or_default();
    write(&shim_file, record).doing(|| "write shim.json".into())?;
    rustix::net::send(&ours, b"go", SendFlags::NOSIGNAL).doing(|| "start the process".into())?;
    let mut terminal = None;
    loop {
        let (data, fd) = receive(&ours).doing(|| "hear of the process".into())?;
        if let Some(fd) = fd {
            terminal = Some(fd);
        } else if data.is_empty() {
            break;
        } else {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            return Err(serde_json::from_slice(&data)
                .unwrap_or_else(|_| Failure::Other("the process died before its program".into())));
        }
    }
    if let Some(master) = &terminal {
        let copy = || rustix::io::fcntl_dupfd_cloexec(master, 3).doing(|| "copy the terminal".into());
        streams.outputs.push((copy()?, Channel::Stdout));
        if plan.stdin {
            streams.input = Some(copy()?);
        }
    }
    for fd in streams.outputs.iter().map(|(fd, _)| fd).chain(&streams.input) {
        set_nonblocking(fd)?;
    }
    Ok((pid, Running { streams, terminal, listener, log, child }))
}

/// Carries the streams until the end, and writes down how it was.
fn attend(plan: &ContainerPlan, shim: ShimRecord, pid: Pid, running: Running) -> Result<(), Failure> {
    let Running { streams, terminal, listener, log, child } = running;
    let mut pump = Pump {
        child: child.as_fd(),
        outputs: streams.outputs,
        input: streams.input,
        terminal,
        log: Some(log),
        listener: Some(listener),
        clients: Vec::new(),
        owned: false,
        stdin_once: plan.stdin_once,
        kill: &|| {},
    };
    let own_mounts = mount_namespace(&shim);
    pump.run();
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())
        .doing(|| "wait for the process".into())?
        .map(|(_, status)| status);
    if plan.pid_mode != PidMode::Own {
        kill_rest(own_mounts);
    }
    let (at, _) = now();
    let signal = status.and_then(|s| s.terminating_signal());
    let code = match signal {
        Some(signal) => 128 + signal,
        None => status.and_then(|s| s.exit_status()).unwrap_or(255),
    };
    let oom_killed = code != 0 && count_oom(plan) > 0;
    let record = ExitRecord {
        code,
        signal,
        oom_killed,
        started_micros: shim.started_micros,
        finished_micros: at.as_micros(),
        message: message(plan, code),
    };
    write(&plan.dir.join("exit.json"), &record).doing(|| "write exit.json".into())?;
    pump.finish(code);
    rootfs::unlink(&plan.dir.join("attach.sock"));
    Ok(())
}

/// The container's first process until it becomes its program.
fn init(
    plan: &ContainerPlan,
    shim: &OwnedFd,
    holder: OwnedFd,
    pipes: Option<(OwnedFd, OwnedFd, OwnedFd)>,
) -> Result<core::convert::Infallible, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "prctl".into())?;
    // The shim says when it has written down that this process exists; if it is gone, nobody would look after it.
    if receive(shim).map_or(true, |(data, _)| data.is_empty()) {
        sys::exit(1);
    }
    join_cgroups(&plan.cgroup_procs)?;
    set_oom_score(plan.process.oom_score_adj);
    let mut join = ThreadNameSpaceType::empty();
    join.set(ThreadNameSpaceType::NETWORK, plan.join.net);
    join.set(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, plan.join.ipc);
    join.set(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, plan.join.uts);
    if !join.is_empty() {
        rustix::thread::move_into_thread_name_spaces(holder.as_fd(), join)
            .doing(|| "join the pod's namespaces".into())?;
    }
    drop(holder);
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWCGROUP, plan.cgroup_namespace);
    sys::unshare(flags).doing(|| "make a mount namespace".into())?;
    let early = rootfs::early(plan)?;
    rootfs::stop_propagation()?;
    let mut terminal = None;
    let root = rootfs::build(plan, early, &mut terminal)?;
    rootfs::pivot(root.fd())?;
    drop(root);
    rootfs::seal(plan)?;
    let stdio = match (terminal, pipes) {
        (Some((master, slave)), _) => {
            send_fd(shim, &master).doing(|| "hand over the terminal".into())?;
            Stdio::Terminal(slave)
        }
        (None, Some((stdin, stdout, stderr))) => Stdio::Pipes { stdin, stdout, stderr },
        (None, None) => return Err(Failure::Other("no terminal was made".into())),
    };
    become_process(&plan.process, stdio)
}

fn streams(plan: &ContainerPlan) -> Result<Streams, Failure> {
    if plan.tty {
        return Ok(Streams { child: None, outputs: Vec::new(), input: None });
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe".into());
    let (out, child_out) = pipe()?;
    let (err, child_err) = pipe()?;
    let (child_in, input) = if plan.stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, Mode::empty()).doing(|| "open /dev/null".into())?, None)
    };
    Ok(Streams {
        child: Some((child_in, child_out, child_err)),
        outputs: Vec::from([(out, Channel::Stdout), (err, Channel::Stderr)]),
        input,
    })
}

/// A socket in the container's folder; the name of the folder may be longer than a socket's may.
fn listen(dir: &Path) -> Result<OwnedFd, Failure> {
    let what = || format!("listen in {}", dir.display());
    rootfs::unlink(&dir.join("attach.sock"));
    let folder = rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(what)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing(what)?;
    let name = format!("/proc/self/fd/{}/attach.sock", folder.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(name).doing(what)?).doing(what)?;
    rustix::net::listen(&socket, 16).doing(what)?;
    Ok(socket)
}

pub(super) fn open_process(pid: i32) -> Result<OwnedFd, Failure> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::Other("no process 0".into()))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|e| Failure::Other(format!("the holder of the pod's namespaces is gone: {e}")))
}

fn send_fd(socket: &OwnedFd, fd: &OwnedFd) -> rustix::io::Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"t")], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// A message and a descriptor with it; an empty one if the other side is gone.
fn receive(socket: &OwnedFd) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut data = alloc::vec![0_u8; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut data)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last();
        }
    }
    data.truncate(got.bytes);
    Ok((data, fd))
}

fn mount_namespace(shim: &ShimRecord) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{}/ns/mnt", shim.init.pid)).ok()
}

/// Kills every process in the container's mount namespace: in a shared process namespace they outlive the first one.
fn kill_rest(namespace: Option<std::path::PathBuf>) {
    let Some(namespace) = namespace else { return };
    if std::fs::read_link("/proc/self/ns/mnt").ok().as_ref() == Some(&namespace) {
        return;
    }
    for _ in 0..KILL_ROUNDS {
        let Ok(list) = std::fs::read_dir("/proc") else { return };
        let pids = list.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let found: BTreeSet<i32> = pids
            .filter(|pid| {
                std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|link| link == namespace)
            })
            .collect();
        if found.is_empty() {
            return;
        }
        for pid in found.iter().filter_map(|p| Pid::from_raw(*p)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let step = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&step));
    }
}

fn count_oom(plan: &ContainerPlan) -> u64 {
    let Some(file) = &plan.oom_file else { return 0 };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// The termination message: what the container wrote into the file, or the end of its log.
fn message(plan: &ContainerPlan, code: i32) -> String {
    let mut data = std::fs::read(&plan.message_file).unwrap_or_default();
    data.truncate(MESSAGE_MAX);
    if data.is_empty() && plan.message_from_log && code != 0 {
        data = log_end(plan).unwrap_or_default();
    }
    String::from_utf8_lossy(&data).into_owned()
}

fn log_end(plan: &ContainerPlan) -> Option<Vec<u8>> {
    let files = log_files(&plan.log.path);
    let (first, offset) = last_lines(&files, LOG_MESSAGE_LINES).ok()?;
    let mut text = Vec::new();
    for (i, file) in files.iter().enumerate().skip(first) {
        let data = std::fs::read(file).unwrap_or_default();
        let from = if i == first { usize::try_from(offset).unwrap_or(0) } else { 0 };
        for line in data.get(from..).unwrap_or_default().split(|b| *b == b'\n') {
            if let Some(line) = parse_line(line) {
                text.extend_from_slice(line.text);
                if line.full {
                    text.push(b'\n');
                }
            }
        }
    }
    let from = text.len().saturating_sub(LOG_MESSAGE_MAX);
    Some(text.split_off(from))
}
