//! HTTP, TCP and gRPC probes from the node, and sockets in a pod's network.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::grpc;
use crate::runtime::{HttpGet, ProbeOutcome, RuntimeError};

/// Most of an answer that is read, as the kubelet does (`k8s.io/kubernetes/pkg/probe/http`).
const BODY_MAX: usize = 10 * 1024;
/// Most of a message.
const MESSAGE_MAX: usize = 1024;

fn outcome(success: bool, message: impl Into<String>) -> ProbeOutcome {
    let mut message = message.into();
    while message.len() > MESSAGE_MAX {
        message.pop();
    }
    ProbeOutcome { success, message }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Opens a TCP connection and closes it.
pub(crate) async fn tcp(to: SocketAddr, wait: Duration) -> ProbeOutcome {
    match timeout(wait, TcpStream::connect(to)).await {
        Ok(Ok(_)) => outcome(true, ""),
        Ok(Err(e)) => outcome(false, format!("dial tcp {to}: {e}")),
        Err(_) => outcome(false, format!("dial tcp {to}: i/o timeout after {} ms", millis(wait))),
    }
}

/// Sends a GET; a status of 200 to 399 is a success.
pub(crate) async fn http(get: &HttpGet, pod: Option<IpAddr>) -> Result<ProbeOutcome, RuntimeError> {
    if get.https {
        return Err(RuntimeError::Unsupported {
            what: "HTTPS probes (use a tcpSocket or exec probe)".into(),
        });
    }
    let host = match &get.host {
        Some(host) => host.clone(),
        None => match pod {
            Some(ip) => format!("{ip}"),
            None => return Ok(outcome(false, "the pod has no address")),
        },
    };
    let bad = |text: &str| text.bytes().any(|b| b.is_ascii_control());
    if bad(&get.path) || get.path.contains(' ') || get.headers.iter().any(|(n, v)| bad(n) || bad(v)) {
        return Ok(outcome(false, "the path or a header holds characters that HTTP does not allow"));
    }
    let result = timeout(get.timeout, exchange(get, &host)).await;
    Ok(match result {
        Ok(Ok((status, body))) => {
            let good = (200..400).contains(&status);
            let text = String::from_utf8_lossy(&body);
            if good {
                outcome(true, text)
            } else {
                outcome(false, format!("HTTP probe failed with statuscode: {status}"))
            }
        }
        Ok(Err(e)) => outcome(false, format!("Get \"http://{host}:{}{}\": {e}", get.port, get.path)),
        Err(_) => {
            let wait = millis(get.timeout);
            outcome(
                false,
                format!("Get \"http://{host}:{}{}\": timed out after {wait} ms", get.port, get.path),
            )
        }
    })
}

/// Asks the gRPC health service at an address.
pub(crate) async fn grpc_health(to: SocketAddr, service: &str, wait: Duration) -> ProbeOutcome {
    let fail = |why: &str| outcome(false, format!("service unhealthy (grpc {to}, {service:?}): {why}"));
    let Some(request) = grpc::request(&format!("{to}"), service) else {
        return fail("the name of the service is too long");
    };
    let ask = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&request).await?;
        let (mut answer, mut chunk, mut read) = (grpc::Answer::default(), [0; 4096], 0);
        while read < BODY_MAX {
            let n = stream.read(&mut chunk).await?;
            if n == 0 {
                break;
            }
            read += n;
            if let Some(verdict) = answer.push(chunk.get(..n).unwrap_or_default()) {
                return Ok(verdict);
            }
            stream.write_all(&core::mem::take(&mut answer.reply)).await?;
        }
        Ok(Err("it ended without an answer".into()))
    };
    match timeout(wait, ask).await {
        Ok(Ok(Ok(()))) => outcome(true, "SERVING"),
        Ok(Ok(Err(why))) => fail(&why),
        Ok(Err(error)) => {
            let error: io::Error = error;
            fail(&format!("{error}"))
        }
        Err(_) => fail(&format!("timed out after {} ms", millis(wait))),
    }
}

async fn exchange(get: &HttpGet, host: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, get.port)).await?,
        Err(_) => TcpStream::connect((host, get.port)).await?,
    };
    let has = |name: &str| get.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    if !has("host") {
        let host = if host.contains(':') { format!("[{host}]") } else { host.into() };
        request += &format!("Host: {host}:{}\r\n", get.port);
    }
    if !has("user-agent") {
        request += "User-Agent: kube-probe/1.37\r\n";
    }
    if !has("accept") {
        request += "Accept: */*\r\n";
    }
    for (name, value) in &get.headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < BODY_MAX {
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            // A server may reset a connection that it has answered.
            Err(_) if status(&answer).is_some() => break,
            Err(e) => return Err(e),
        }
        if complete(&answer) {
            break;
        }
    }
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "malformed HTTP response");
    let status = status(&answer).ok_or_else(bad)?;
    let body = find(&answer, b"\r\n\r\n").and_then(|at| answer.get(at + 4..)).unwrap_or_default();
    Ok((status, body.into()))
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|w| w == what)
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.get(..find(answer, b"\n")?)?;
    let mut fields = core::str::from_utf8(line).ok()?.split_ascii_whitespace();
    fields.next().filter(|f| f.starts_with("HTTP/1."))?;
    let code = fields.next()?.parse().ok()?;
    (100..1000).contains(&code).then_some(code)
}

/// Whether an answer with a content length is whole: a server may keep the connection open all the same.
fn complete(answer: &[u8]) -> bool {
    let Some(end) = find(answer, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|n| answer.len() >= end + 4 + n)
}

/// Connects to a port on the loopback address of a network namespace.
///
/// # Errors
/// If nothing listens there, or the namespace is gone.
pub(crate) async fn connect_in(netns: OwnedFd, port: u16) -> io::Result<TcpStream> {
    // A socket belongs to the namespace of the thread that makes it; connecting can be done from anywhere.
    let make = move || -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(netns.as_fd(), kind)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = |family| rustix::net::socket_with(family, SocketType::STREAM, flags, None);
        Ok((socket(AddressFamily::INET)?, socket(AddressFamily::INET6).ok()))
    };
    let (done, made) = tokio::sync::oneshot::channel();
    // A thread of its own: a worker must not stay in the namespace.
    std::thread::Builder::new().name("icp-netns".into()).spawn(move || drop(done.send(make())))?;
    let (v4, v6) = made.await.map_err(io::Error::other)??;
    let connect = |fd: OwnedFd, ip: IpAddr| {
        TcpSocket::from_std_stream(std::net::TcpStream::from(fd)).connect(SocketAddr::new(ip, port))
    };
    match connect(v4, IpAddr::V4(Ipv4Addr::LOCALHOST)).await {
        Ok(stream) => Ok(stream),
        Err(error) => match v6 {
            Some(v6) => connect(v6, IpAddr::V6(Ipv6Addr::LOCALHOST)).await.map_err(|_| error),
            None => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.1 abc\r\n"), None);
        assert_eq!(status(b"SSH-2.0\r\n"), None);
        assert!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert!(!complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"));
        assert!(!complete(b"HTTP/1.1 200 OK\r\n\r\nok"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn health_is_asked_over_a_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let serve = async {
            for status in [1, 2] {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Settings, then headers, a message and the end of the stream.
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                stream.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]).await.unwrap();
                stream.write_all(&[0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 8, status]).await.unwrap();
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
            }
        };
        let wait = Duration::from_secs(5);
        let ask = async {
            assert!(grpc_health(to, "", wait).await.success);
            let bad = grpc_health(to, "db", wait).await;
            assert!(!bad.success && bad.message.contains("NOT_SERVING"), "{bad:?}");
        };
        tokio::join!(serve, ask);
        assert!(!grpc_health(SocketAddr::from(([127, 0, 0, 1], 1)), "", wait).await.success);
    }
}
