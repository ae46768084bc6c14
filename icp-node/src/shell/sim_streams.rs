//! The streams of simulated containers, over questions to the runtime that simulates them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use icp_core::base::{Duration, Time};
use tokio::sync::{mpsc, oneshot};

use crate::backend::memory::{
    End, LineEvent, LineInput, LogCursor, MemoryRuntime, Program, Run, SimProcess, Stream,
};
use crate::runtime::{
    ByteSink, ByteStream, ContainerKey, Duplex, ExecRequest, ExecSession, LogOptions, PodUid, RuntimeError,
    Session,
};

/// Between two looks at a simulated container that is followed. Its log and its end are functions of time, and a look
/// costs a message.
const LOOK: Duration = Duration::from_millis(100);
/// Messages that wait on one stream.
const MESSAGES_MAX: usize = 16;

/// A look at a simulated runtime; `None` if it is gone.
pub(super) type Look = Box<dyn FnOnce(Time, Option<&MemoryRuntime>) + Send>;

/// The way to a simulated runtime.
#[async_trait]
pub(super) trait LookAt: Send + Sync {
    /// Takes a look. A look that is never taken is dropped.
    async fn look(&self, look: Look);
}

/// The streams of a simulated runtime.
#[derive(Clone)]
pub(super) struct SimStreams(pub(super) Arc<dyn LookAt>);

fn gone() -> RuntimeError {
    RuntimeError::Unavailable { message: "the simulated node is gone".into() }
}

impl SimStreams {
    async fn get<T: Send + 'static>(
        &self,
        question: impl FnOnce(Time, &MemoryRuntime) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let (tx, rx) = oneshot::channel();
        let look: Look = Box::new(move |now, runtime| {
            let answer = runtime.map_or_else(|| Err(gone()), |runtime| question(now, runtime));
            // Who asked may have gone.
            let _ = tx.send(answer);
        });
        self.0.look(look).await;
        rx.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(super) async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError> {
        let (uid, name, asked) = (pod.clone(), container.to_string(), options.clone());
        let cursor = self.get(move |now, r| r.open_log(now, &uid, &name, &asked)).await?;
        let reader = Reader {
            streams: self.clone(),
            pod: pod.clone(),
            container: container.to_string(),
            cursor,
            follow: options.follow,
            over: false,
        };
        Ok(Box::pin(stream::unfold(reader, |mut reader| async {
            let text = reader.next().await?;
            Some((text, reader))
        })))
    }

    pub(super) async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let (uid, name, asked) = (pod.clone(), container.to_string(), request.clone());
        let process = self.get(move |_, r| r.exec(&uid, &name, &asked)).await?;
        let key = process.container.clone();
        let (stdin_tx, stdin) = mpsc::channel(MESSAGES_MAX);
        let (stdout, stdout_rx) = mpsc::channel(MESSAGES_MAX);
        let (stderr, stderr_rx) = mpsc::channel(MESSAGES_MAX);
        let tty = process.tty;
        let player = Player { stdout, stderr: if tty { None } else { Some(stderr) }, tty, stdin };
        let (streams, uid) = (self.clone(), pod.clone());
        let (end_tx, end) = oneshot::channel();
        let task = tokio::spawn(async move {
            let end = tokio::select! {
                code = player.play(process) => Ok(code),
                code = streams.end_of(&uid, &key) => code.map(|_| 137),
            };
            // Who waits for the end may have gone.
            let _ = end_tx.send(end);
        });
        Ok(ExecSession {
            stdin: request.stdin.then(|| Box::new(Sink(stdin_tx)) as Box<dyn ByteSink>),
            stdout: request.stdout.then(|| receive(stdout_rx)),
            stderr: (request.stderr && !tty).then(|| receive(stderr_rx)),
            control: Box::new(Control(Some(task.abort_handle()))),
            status: Box::pin(async move { end.await.unwrap_or_else(|_| Err(gone())) }),
        })
    }

    /// Attaching shows what the container writes from now on.
    pub(super) async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let (uid, name, asked) = (pod.clone(), container.to_string(), request.clone());
        let process = self.get(move |_, r| r.exec(&uid, &name, &asked)).await?;
        let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
        let log = self.logs(pod, container, options).await?;
        let (streams, uid) = (self.clone(), pod.clone());
        Ok(ExecSession {
            // No process reads it.
            stdin: request.stdin.then(|| Box::new(Nowhere) as Box<dyn ByteSink>),
            stdout: request.stdout.then_some(log),
            stderr: None,
            control: Box::new(Control(None)),
            status: Box::pin(async move { streams.end_of(&uid, &process.container).await }),
        })
    }

    pub(super) async fn port_forward(&self, pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError> {
        let message = format!(
            "dial tcp4 127.0.0.1:{port}: connection refused: pod {pod} is simulated and listens nowhere"
        );
        Err(RuntimeError::Unavailable { message })
    }

    /// Waits for the end of an attempt.
    async fn end_of(&self, pod: &PodUid, key: &ContainerKey) -> Result<i32, RuntimeError> {
        loop {
            let (uid, attempt) = (pod.clone(), key.clone());
            if let Some(code) = self.get(move |_, r| r.exit_code(&uid, &attempt)).await? {
                return Ok(code);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

struct Reader {
    streams: SimStreams,
    pod: PodUid,
    container: String,
    cursor: LogCursor,
    follow: bool,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Bytes, RuntimeError>> {
        loop {
            if self.over {
                return None;
            }
            let (uid, name, mut cursor) = (self.pod.clone(), self.container.clone(), self.cursor.clone());
            let page = self.streams.get(move |now, r| {
                let page = r.read_log(now, &uid, &name, &mut cursor)?;
                Ok((page, cursor))
            });
            let page = match page.await {
                Ok((page, cursor)) => {
                    self.cursor = cursor;
                    page
                }
                // A container that was removed has ended.
                Err(_) => return None,
            };
            if !page.text.is_empty() {
                self.over = !page.more;
                return Some(Ok(page.text.into()));
            }
            if !page.more || !self.follow {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn receive(rx: mpsc::Receiver<Bytes>) -> ByteStream {
    Box::pin(stream::unfold(rx, |mut rx| async {
        let bytes = rx.recv().await?;
        Some((Ok(bytes), rx))
    }))
}

struct Sink(mpsc::Sender<Bytes>);

#[async_trait]
impl ByteSink for Sink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError> {
        let closed = |_| RuntimeError::Unavailable { message: "the process has ended".into() };
        self.0.send(bytes).await.map_err(closed)
    }
}

struct Nowhere;

#[async_trait]
impl ByteSink for Nowhere {
    async fn write(&mut self, _bytes: Bytes) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// Ends the player with the session. A simulated terminal has no size.
struct Control(Option<tokio::task::AbortHandle>);

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

#[async_trait]
impl Session for Control {
    async fn resize(&mut self, _width: u16, _height: u16) {}
}

/// Plays a simulated process in real time.
struct Player {
    stdout: mpsc::Sender<Bytes>,
    /// A terminal has one output.
    stderr: Option<mpsc::Sender<Bytes>>,
    tty: bool,
    stdin: mpsc::Receiver<Bytes>,
}

const INTERRUPTED: i32 = 130;
const PROMPT: &[u8] = b"# ";

impl Player {
    async fn write(&self, stream: Stream, bytes: &[u8]) {
        let to = match (&self.stderr, stream) {
            (Some(stderr), Stream::Stderr) => stderr,
            _ => &self.stdout,
        };
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.tty && *byte == b'\n' {
                out.push(b'\r');
            }
            out.push(*byte);
        }
        // A client that does not listen changes nothing for the process.
        let _ = to.send(out.into()).await;
    }

    /// What a terminal shows of input goes out as it is.
    async fn echo(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let _ = self.stdout.send(bytes.into()).await;
        }
    }

    async fn play(mut self, process: SimProcess) -> i32 {
        match &process.program {
            Program::Run(run) => self.run(run).await,
            Program::Copies => self.copy().await,
            Program::Reads => self.shell(&process).await,
        }
    }

    /// Waits, unless the terminal interrupts; what else is typed meanwhile is lost.
    async fn wait(&mut self, time: Duration) -> bool {
        if time.is_zero() {
            return true;
        }
        let timer = tokio::time::sleep(time);
        tokio::pin!(timer);
        if !self.tty {
            timer.await;
            return true;
        }
        loop {
            tokio::select! {
                () = &mut timer => return true,
                bytes = self.stdin.recv() => match bytes {
                    Some(bytes) if bytes.contains(&3) => {
                        self.echo(b"^C\r\n".to_vec()).await;
                        return false;
                    }
                    Some(bytes) => {
                        let (echo, _) = LineInput::new(true).feed(&bytes);
                        self.echo(echo).await;
                    }
                    None => {
                        timer.await;
                        return true;
                    }
                },
            }
        }
    }

    async fn run(&mut self, run: &Run) -> i32 {
        let mut now = Duration::ZERO;
        for write in &run.writes {
            if !self.wait(write.after.saturating_sub(now)).await {
                return INTERRUPTED;
            }
            now = now.max(write.after);
            self.write(write.stream, &write.bytes).await;
        }
        match &run.end {
            End::Exit(at, code) => match self.wait(at.saturating_sub(now)).await {
                true => *code,
                false => INTERRUPTED,
            },
            End::Loops { first, from, period } => {
                // The first round is among the writes.
                let mut round_end = from.saturating_add(*period);
                loop {
                    for write in run.writes.iter().skip(*first) {
                        let at = round_end.saturating_add(write.after.saturating_sub(*from));
                        if !self.wait(at.saturating_sub(now)).await {
                            return INTERRUPTED;
                        }
                        now = now.max(at);
                        self.write(write.stream, &write.bytes).await;
                    }
                    round_end = round_end.saturating_add(*period);
                    if !self.wait(round_end.saturating_sub(now)).await {
                        return INTERRUPTED;
                    }
                    now = now.max(round_end);
                }
            }
            End::Never | End::Copies | End::Reads | End::Unknown { .. } => {
                while self.wait(Duration::from_secs(3600)).await {}
                INTERRUPTED
            }
        }
    }

    async fn copy(&mut self) -> i32 {
        let mut input = LineInput::new(self.tty);
        while let Some(bytes) = self.stdin.recv().await {
            if !self.tty {
                self.write(Stream::Stdout, &bytes).await;
                continue;
            }
            let (echo, events) = input.feed(&bytes);
            self.echo(echo).await;
            for event in events {
                match event {
                    LineEvent::Line(line) => self.write(Stream::Stdout, format!("{line}\n").as_bytes()).await,
                    LineEvent::Interrupt => return INTERRUPTED,
                    LineEvent::End => return 0,
                }
            }
        }
        0
    }

    async fn shell(&mut self, process: &SimProcess) -> i32 {
        let mut input = LineInput::new(self.tty);
        let mut code = 0;
        if self.tty {
            self.echo(PROMPT.to_vec()).await;
        }
        loop {
            let (events, over) = match self.stdin.recv().await {
                Some(bytes) => {
                    let (echo, events) = input.feed(&bytes);
                    self.echo(echo).await;
                    (events, false)
                }
                None => (input.finish().into_iter().collect(), true),
            };
            for event in events {
                match event {
                    LineEvent::Line(line) => {
                        let run = process.line(&line, code);
                        code = self.run(&run).await;
                        if run.exits {
                            return code;
                        }
                    }
                    LineEvent::Interrupt => code = INTERRUPTED,
                    LineEvent::End => return code,
                }
                if self.tty {
                    self.echo(PROMPT.to_vec()).await;
                }
            }
            if over {
                return code;
            }
        }
    }
}
