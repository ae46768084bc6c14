//! Small programs that the acceptance list runs inside machines and pods: `full-cluster tool NAME ARGUMENTS`.
//!
//! | tool | what |
//! |---|---|
//! | `serve PORT` | a web server that answers with its pod's name and version, and logs each request |
//! | `probe HOST PORT COUNT` | looks `HOST` up and calls it `COUNT` times; prints one line of JSON |
//! | `addresses` | the addresses of this network namespace, one a line |
#![expect(clippy::disallowed_methods, reason = "programs: they own the clock and their threads")]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::report::percentile;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Runs a tool.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["serve", port] => port.parse().map_err(|_| format!("{port:?} is no port")).and_then(serve),
        ["probe", host, port, count] => match (port.parse(), count.parse()) {
            (Ok(port), Ok(count)) => probe(host, port, count),
            _ => Err("usage: probe HOST PORT COUNT".into()),
        },
        ["addresses"] => addresses(),
        _ => Err("usage: tool serve PORT | probe HOST PORT COUNT | addresses".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tool: {e}");
            ExitCode::FAILURE
        }
    }
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(text)?;
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_string();
    let version = std::env::var("VERSION").unwrap_or_default();
    println!("serving on {port}");
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (name, version) = (name.clone(), version.clone());
        // One thread a connection: who calls is the acceptance list and the probes of the node.
        std::thread::spawn(move || answer(stream, &name, &version));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str, version: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(ANSWER_BYTES_MAX);
    let (mut line, mut agent) = (String::new(), String::new());
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("User-Agent: ") {
            agent = value.trim().to_string();
        }
    }
    if !agent.starts_with("kube-probe") {
        println!("{} {}", stream.peer_addr()?, line.trim());
    }
    let body = format!("{name} {version}\n");
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn call(address: std::net::SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CALL_TIMEOUT)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head.lines().next().unwrap_or("").to_string()));
    }
    Ok(body.trim().to_string())
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Looks a name up and calls it, again and again; a failure is told with how far it came.
fn probe(host: &str, port: u16, count: usize) -> Result<(), String> {
    let (mut lookups, mut calls) = (Vec::new(), Vec::new());
    let mut answers = std::collections::BTreeMap::<String, usize>::new();
    let mut address = None;
    for i in 0..count {
        let started = Instant::now();
        let found = (host, port).to_socket_addrs().map_err(|e| format!("looking {host} up: {e}"))?.next();
        let found = found.ok_or_else(|| format!("{host} has no address"))?;
        lookups.push(micros_since(started));
        address = Some(found);
        let started = Instant::now();
        let answer = call(found).map_err(|e| format!("call {i} to {found}: {e}"))?;
        calls.push(micros_since(started));
        *answers.entry(answer).or_default() += 1;
    }
    lookups.sort_unstable();
    calls.sort_unstable();
    let line = json!({
        "address": address.map(|a| a.ip().to_string()),
        "dns_p50_us": percentile(&lookups, 50), "dns_p99_us": percentile(&lookups, 99),
        "call_p50_us": percentile(&calls, 50), "call_p99_us": percentile(&calls, 99),
        "answers": answers,
    });
    println!("{line}");
    Ok(())
}

fn addresses() -> Result<(), String> {
    let mut rtnl = icp_net::backend::rtnl::Rtnl::open().map_err(text)?;
    for address in rtnl.addresses(None).map_err(text)? {
        println!("{}", address.net.addr());
    }
    Ok(())
}
