//! Asks a gRPC health service (`grpc.health.v1.Health/Check`) in plain text: as much of HTTP/2 (RFC 9113) as one call of
//! one stream needs. What the server says in compressed headers is not read: the answer is in the message.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest name of a service, so that lengths fit into one byte of the header encoding.
const NAME_MAX: usize = 100;
/// Longest frame that a server may send without being asked for more.
const FRAME_MAX: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, data: &[u8], out: &mut Vec<u8>) {
    let [_, a, b, c] = u32::try_from(data.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(data);
}

/// A text of the header encoding (RFC 7541, section 5.2), not compressed. At most 126 bytes.
fn text(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).unwrap_or(0) & 0x7f);
    out.extend_from_slice(text.as_bytes());
}

/// All that the client says; `None` if a name is too long.
pub(super) fn request(authority: &str, service: &str) -> Option<Vec<u8>> {
    if authority.len() > NAME_MAX || service.len() > NAME_MAX {
        return None;
    }
    // Entries of the static table (RFC 7541, appendix A), or literals with a name of it.
    let mut headers = Vec::from([0x83, 0x86, 0x04]);
    text(PATH, &mut headers);
    headers.push(0x01);
    text(authority, &mut headers);
    headers.extend_from_slice(&[0x0f, 0x10]);
    text("application/grpc", &mut headers);
    headers.push(0x00);
    text("te", &mut headers);
    text("trailers", &mut headers);
    headers.extend_from_slice(&[0x0f, 0x2b]);
    text("kube-probe/1.37", &mut headers);
    // The message: field 1, the name of the service; left out if empty.
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        text(service, &mut message);
    }
    let mut body = Vec::from([0]);
    body.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
    body.extend_from_slice(&message);
    let mut out = PREFACE.to_vec();
    frame(SETTINGS, 0, 0, &[], &mut out);
    frame(HEADERS, END_HEADERS, 1, &headers, &mut out);
    frame(DATA, END_STREAM, 1, &body, &mut out);
    Some(out)
}

/// What a server says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    buffer: Vec<u8>,
    body: Vec<u8>,
    /// What must be sent back.
    pub(super) reply: Vec<u8>,
}

impl Answer {
    /// Takes bytes from the server; answers once it has said all: nothing if it serves, else why not.
    pub(super) fn push(&mut self, data: &[u8]) -> Option<Result<(), String>> {
        self.buffer.extend_from_slice(data);
        loop {
            let (head, rest) = self.buffer.split_first_chunk::<9>()?;
            let [a, b, c, kind, flags, s @ ..] = *head;
            let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if len > FRAME_MAX {
                return Some(Err("it does not speak HTTP/2".into()));
            }
            let payload = rest.get(..len)?.to_vec();
            let stream = u32::from_be_bytes(s) & 0x7fff_ffff;
            self.buffer.drain(..9 + len);
            if let Some(end) = self.frame(kind, flags, stream, &payload) {
                return Some(end);
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<Result<(), String>> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut self.reply),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, &mut self.reply),
            GOAWAY => return Some(Err("it closed the connection".into())),
            RESET if stream == 1 => return Some(Err("it reset the call".into())),
            DATA if stream == 1 => {
                let data = match payload.split_first() {
                    Some((pad, data)) if flags & PADDED != 0 => {
                        data.get(..data.len().saturating_sub((*pad).into())).unwrap_or_default()
                    }
                    _ => payload,
                };
                self.body.extend_from_slice(data);
            }
            _ => {}
        }
        let ends = matches!(kind, DATA | HEADERS) && stream == 1 && flags & END_STREAM != 0;
        ends.then(|| verdict(&self.body))
    }
}

/// Reads the message `HealthCheckResponse`.
fn verdict(body: &[u8]) -> Result<(), String> {
    let status = match body {
        [] => {
            return Err(
                "it answered with an error: it has no health service, or does not know this one".into()
            );
        }
        // A message without the field has its default.
        [0, 0, 0, 0, 0, ..] => 0,
        [0, _, _, _, _, 0x08, status, ..] => *status,
        _ => return Err("its answer cannot be read".into()),
    };
    match status {
        1 => Ok(()),
        0 => Err("it answered UNKNOWN".into()),
        2 => Err("it answered NOT_SERVING".into()),
        3 => Err("it answered SERVICE_UNKNOWN".into()),
        other => Err(format!("it answered {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(list: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        list.iter().for_each(|(kind, flags, stream, data)| frame(*kind, *flags, *stream, data, &mut out));
        out
    }

    fn ask(list: &[(u8, u8, u32, &[u8])]) -> Result<(), String> {
        let bytes = frames(list);
        let (last, first) = bytes.split_last().unwrap();
        let mut answer = Answer::default();
        for byte in first {
            assert_eq!(answer.push(&[*byte]), None);
        }
        answer.push(&[*last]).unwrap()
    }

    #[test]
    fn the_request_is_well_formed() {
        let bytes = request("10.0.0.1:80", "db").unwrap();
        let rest = bytes.strip_prefix(PREFACE).unwrap();
        assert_eq!(&rest[..9], [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        let headers = &rest[9..];
        assert_eq!(&headers[3..9], [HEADERS, END_HEADERS, 0, 0, 0, 1]);
        let len = usize::from(headers[2]);
        assert_eq!(&headers[9..12], [0x83, 0x86, 0x04]);
        assert_eq!(usize::from(headers[12]), PATH.len());
        let data = &headers[9 + len..];
        assert_eq!(data, [0, 0, 9, DATA, END_STREAM, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert!(request("x", &"y".repeat(200)).is_none());
    }

    #[test]
    fn answers() {
        let hello: (u8, u8, u32, &[u8]) = (SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let begin: (u8, u8, u32, &[u8]) = (HEADERS, END_HEADERS, 1, &[0x88]);
        let end: (u8, u8, u32, &[u8]) = (HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]);
        let said = |data: &'static [u8]| (DATA, 0_u8, 1_u32, data);
        assert_eq!(ask(&[hello, begin, said(&[0, 0, 0, 0, 2, 8, 1]), end]), Ok(()));
        assert!(ask(&[hello, begin, said(&[0, 0, 0, 0, 2, 8, 2]), end]).unwrap_err().contains("NOT_SERVING"));
        assert!(ask(&[begin, said(&[0, 0, 0, 0, 0]), end]).unwrap_err().contains("UNKNOWN"));
        assert!(ask(&[hello, end]).unwrap_err().contains("error"));
        assert!(ask(&[hello, (GOAWAY, 0, 0, &[0; 8])]).is_err());
        assert!(ask(&[(RESET, 0, 1, &[0; 4])]).is_err());
        let padded: (u8, u8, u32, &[u8]) = (DATA, PADDED, 1, &[2, 0, 0, 0, 0, 2, 8, 1, 0, 0]);
        assert_eq!(ask(&[begin, padded, end]), Ok(()));
        let mut answer = Answer::default();
        assert!(answer.push(b"HTTP/1.1 400 Bad Request\r\n").unwrap().is_err());
    }

    #[test]
    fn settings_and_pings_are_acknowledged() {
        let mut answer = Answer::default();
        assert_eq!(answer.push(&frames(&[(SETTINGS, 0, 0, &[]), (PING, 0, 0, &[7; 8])])), None);
        assert_eq!(answer.reply, frames(&[(SETTINGS, ACK, 0, &[]), (PING, ACK, 0, &[7; 8])]));
    }
}
