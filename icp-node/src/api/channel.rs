//! The streams of a process over one WebSocket (`k8s.io/apimachinery/pkg/util/remotecommand`,
//! `k8s.io/kubelet/pkg/cri/streaming/remotecommand/websocket.go`).
//!
//! Each message begins with the number of its channel. Version 5 (KEP-4006) adds channel 255, by which the client
//! says that a channel ends.
//!
//! ```
//! use icp_node::api::channel::{Input, Protocol, input};
//! let protocol = Protocol::choose("v4.channel.k8s.io, v5.channel.k8s.io").unwrap();
//! assert_eq!(protocol, Protocol::V5);
//! assert_eq!(input(protocol, &b"\x00ls\n"[..].into()), Input::Stdin(b"ls\n"[..].into()));
//! assert_eq!(input(protocol, &b"\xff\x00"[..].into()), Input::CloseStdin);
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::api::{Status, StatusCause, StatusDetails, reason};
use serde::Deserialize;

use super::websocket::encode_prefixed;
use crate::runtime::RuntimeError;

/// From the client: stdin.
const STDIN: u8 = 0;
/// To the client: stdout.
pub const STDOUT: u8 = 1;
/// To the client: stderr.
pub const STDERR: u8 = 2;
/// To the client: how it ended.
pub const ERROR: u8 = 3;
/// From the client: the size of the terminal.
const RESIZE: u8 = 4;
/// From the client, version 5: a channel ends.
const CLOSE: u8 = 255;

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `channel.k8s.io`: the end is a text, or nothing when all went well.
    V1,
    /// `v4.channel.k8s.io`: the end is a `metav1.Status`.
    V4,
    /// `v5.channel.k8s.io`: the client can end its stdin.
    V5,
}

impl Protocol {
    /// All names that are understood, for people.
    pub const ALL: &'static str = "v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io";

    /// The best of the names in a `Sec-WebSocket-Protocol`. A client that names none speaks the first version.
    #[must_use]
    pub fn choose(offered: &str) -> Option<Self> {
        let has = |name: &str| offered.split(',').any(|o| o.trim() == name);
        if offered.trim().is_empty() {
            return Some(Self::V1);
        }
        [Self::V5, Self::V4, Self::V1].into_iter().find(|p| has(p.name()))
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for stdin.
    Stdin(Bytes),
    /// No more stdin.
    CloseStdin,
    /// The terminal's width and height, in characters.
    Resize(u16, u16),
    /// Nothing of interest.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TerminalSize {
    width: u16,
    height: u16,
}

/// Reads a message of a client.
#[must_use]
pub fn input(protocol: Protocol, message: &Bytes) -> Input {
    let Some(channel) = message.first() else { return Input::Nothing };
    let payload = message.slice(1..);
    match *channel {
        STDIN => Input::Stdin(payload),
        RESIZE => match serde_json::from_slice::<TerminalSize>(&payload) {
            Ok(size) => Input::Resize(size.width, size.height),
            Err(_) => Input::Nothing,
        },
        CLOSE if protocol == Protocol::V5 && payload.first() == Some(&STDIN) => Input::CloseStdin,
        _ => Input::Nothing,
    }
}

/// What a process ended with, as a status (`remotecommand.ServeExec`).
#[must_use]
pub fn end_status(end: &Result<i32, RuntimeError>, what: &str) -> Status {
    match end {
        Ok(0) => Status { code: 0, ..Status::default() },
        Ok(code) => {
            let cause = StatusCause {
                reason: "ExitCode".into(),
                message: code.to_string(),
                ..StatusCause::default()
            };
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            let details = StatusDetails { causes: Vec::from([cause]), ..StatusDetails::default() };
            Status { code: 0, details: Some(details), ..Status::failure(0, "NonZeroExitCode", message) }
        }
        Err(error) => {
            let message = format!("Internal error occurred: error {what}: {error}");
            let causes = Vec::from([StatusCause { message: error.to_string(), ..StatusCause::default() }]);
            let details = StatusDetails { causes, ..StatusDetails::default() };
            Status { details: Some(details), ..Status::failure(500, reason::INTERNAL_ERROR, message) }
        }
    }
}

/// The message that tells how a process ended; `None` where the protocol says nothing of success.
#[must_use]
pub fn end_message(protocol: Protocol, status: &Status) -> Option<Bytes> {
    if protocol == Protocol::V1 {
        let failed = status.status != "Success";
        return failed.then(|| encode_prefixed(ERROR, status.message.as_bytes()));
    }
    let json: String = serde_json::to_string(status).unwrap_or_default();
    Some(encode_prefixed(ERROR, json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fifth_version_can_end_stdin() {
        let end = Bytes::from_static(&[255, 0]);
        assert_eq!(input(Protocol::V5, &end), Input::CloseStdin);
        assert_eq!(input(Protocol::V4, &end), Input::Nothing);
        assert_eq!(input(Protocol::V5, &Bytes::from_static(&[255, 1])), Input::Nothing);
        assert_eq!(input(Protocol::V5, &Bytes::new()), Input::Nothing);
        let size = Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}");
        assert_eq!(input(Protocol::V4, &size), Input::Resize(80, 24));
        assert_eq!(input(Protocol::V4, &Bytes::from_static(b"\x04{}")), Input::Nothing);
    }

    #[test]
    fn ends() {
        let text = |end| serde_json::to_value(end_status(&end, "executing command in container")).unwrap();
        assert_eq!(text(Ok(0))["status"], "Success");
        let failed = text(Ok(42));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(failed["details"]["causes"][0]["message"], "42");
        let broken = text(Err(RuntimeError::Start { message: "no such file".into() }));
        assert_eq!(
            broken["message"],
            "Internal error occurred: error executing command in container: failed to start: no such file"
        );
        assert!(end_message(Protocol::V1, &end_status(&Ok(0), "")).is_none());
        assert!(end_message(Protocol::V4, &end_status(&Ok(0), "")).is_some());
    }

    #[test]
    fn protocols() {
        assert_eq!(Protocol::choose(""), Some(Protocol::V1));
        assert_eq!(Protocol::choose("channel.k8s.io,v4.channel.k8s.io"), Some(Protocol::V4));
        assert_eq!(Protocol::choose("v9.channel.k8s.io"), None);
    }
}
