//! A simulated runtime whose containers can also run `tar` and `test` of this machine, for `kubectl cp`, and whose
//! pods listen: port 7 sends back what it gets, port 9 is closed.

use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use icp_node::runtime::{
    ByteSink, ByteStream, Duplex, ExecRequest, ExecSession, LogOptions, Outcome, PodUid, Runtime,
    RuntimeCall, RuntimeError, RuntimeEvents, Session,
};
use icp_node::shell::SimRuntime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub(crate) struct TestRuntime(pub(crate) SimRuntime);

struct Stdin(tokio::process::ChildStdin);

fn broken(e: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Unavailable { message: e.to_string() }
}

#[async_trait]
impl ByteSink for Stdin {
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError> {
        self.0.write_all(&bytes).await.map_err(broken)
    }
}

struct NoSession;

#[async_trait]
impl Session for NoSession {
    async fn resize(&mut self, _width: u16, _height: u16) {}
}

struct Echo(mpsc::Sender<Bytes>);

#[async_trait]
impl ByteSink for Echo {
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError> {
        self.0.send(bytes).await.map_err(broken)
    }
}

fn bytes_of(read: impl AsyncRead + Send + Unpin + 'static) -> ByteStream {
    Box::pin(stream::unfold(read, |mut read| async {
        let mut buffer = vec![0; 8192];
        match read.read(&mut buffer).await {
            Ok(0) => None,
            Ok(n) => {
                buffer.truncate(n);
                Some((Ok(buffer.into()), read))
            }
            Err(e) => Some((Err(broken(e)), read)),
        }
    }))
}

#[async_trait]
impl Runtime for TestRuntime {
    async fn perform(&self, call: RuntimeCall) -> Result<Outcome, RuntimeError> {
        self.0.perform(call).await
    }

    fn events(&self) -> RuntimeEvents {
        self.0.events()
    }

    async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError> {
        self.0.logs(pod, container, options).await
    }

    async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let (program, arguments) = match request.command.as_slice() {
            [program, rest @ ..] if program == "tar" || program == "test" => (program, rest),
            _ => return self.0.exec(pod, container, request).await,
        };
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        Ok(ExecSession {
            stdin: child.stdin.take().map(|s| Box::new(Stdin(s)) as Box<dyn ByteSink>),
            stdout: child.stdout.take().map(bytes_of),
            stderr: child.stderr.take().map(bytes_of),
            control: Box::new(NoSession),
            status: Box::pin(
                async move { child.wait().await.map(|s| s.code().unwrap_or(137)).map_err(broken) },
            ),
        })
    }

    async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.0.attach(pod, container, request).await
    }

    async fn port_forward(&self, _pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError> {
        if port != 7 {
            return Err(broken(format!("dial tcp4 127.0.0.1:{port}: connect: connection refused")));
        }
        let (tx, rx) = mpsc::channel(4);
        let read =
            stream::unfold(rx, |mut rx: mpsc::Receiver<Bytes>| async { Some((Ok(rx.recv().await?), rx)) });
        Ok(Duplex { read: Box::pin(read), write: Box::new(Echo(tx)) })
    }
}
