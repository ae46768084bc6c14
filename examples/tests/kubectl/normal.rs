//! What differs from run to run, replaced.
//!
//! | what | by |
//! |---|---|
//! | a time in the form of RFC 3339, or of `kubectl describe` | `<time>` |
//! | an age or a time in seconds: `5s`, `2m3s`, and `2m` to `9m` | `<age>` |
//! | a uid | `<uid>` |
//! | an IPv4 address; after a loopback address also the port | `<ip>`, `<ip>:<port>` |
//! | the name of a machine: `worker-1`, `master-1` | `<node>` |
//! | the hash of a pod template: the last or last but one part of a name, or a whole word | `<hash>` |
//! | five generated characters at the end of a name | `<id>` |
//! | a number from 30000 to 32767 | `<nodeport>` |
//! | the number after `resourceVersion:` | `<rv>` |
//! | the patch of version 1.37 | `v1.37.<n>` |
//! | two and more spaces after the first word of a line | two spaces |
//! | spaces at the end of a line, empty lines at the end | nothing |

/// The characters of generated names (`k8s.io/apimachinery/pkg/util/rand`).
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";

/// The lines of a text without what differs from run to run.
pub(crate) fn normal(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn line(text: &str) -> String {
    let text = dates(text.trim_end());
    let indent = text.len() - text.trim_start().len();
    let mut out = text[..indent].to_string();
    let mut rest = &text[indent..];
    let mut before = "";
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if end > 0 {
            out.push_str(&word(&rest[..end], before));
            if rest[..end].bytes().any(|b| b.is_ascii_alphanumeric()) {
                before = &rest[..end];
            }
            rest = &rest[end..];
            continue;
        }
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        match spaces {
            0 => {
                let c = rest.chars().next().unwrap_or(' ');
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
            n => {
                out.push_str(if n == 1 { " " } else { "  " });
                rest = &rest[n..];
            }
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':')
}

/// Replaces `Wed, 25 Nov 2026 15:26:04 +0000`.
fn dates(text: &str) -> String {
    const LENGTH: usize = "Wed, 25 Nov 2026 15:26:04 +0000".len();
    let mut out = text.to_string();
    for day in ["Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, "] {
        while let Some(at) = out.find(day) {
            let date = out.get(at..at + LENGTH).unwrap_or_default();
            if !date.ends_with("+0000") {
                break;
            }
            out.replace_range(at..at + LENGTH, "<time>");
        }
    }
    out
}

fn generated(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.chars().all(|c| GENERATED.contains(c)) && text != "https"
}

fn hash(text: &str) -> bool {
    generated(text, 8..=10) && text.contains(|c: char| c.is_ascii_digit())
}

fn word(text: &str, before: &str) -> String {
    // A word may end with a colon or a full stop that belongs to the sentence.
    let core = text.trim_end_matches([':', '.']);
    let tail = &text[core.len()..];
    let new = replaced(core, before);
    format!("{new}{tail}")
}

fn replaced(text: &str, before: &str) -> String {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if is_uid(text) {
        return "<uid>".into();
    }
    if text.len() >= 20
        && text.ends_with('Z')
        && text.as_bytes().get(10) == Some(&b'T')
        && text.starts_with("20")
    {
        return "<time>".into();
    }
    if before.trim_end_matches(':') == "resourceVersion" && digits(text) {
        return "<rv>".into();
    }
    let node_port = |t: &str| digits(t) && t.parse().is_ok_and(|port: u32| (30000..=32767).contains(&port));
    match text.split_once(':') {
        Some((port, node)) if digits(port) && node_port(node) => return format!("{port}:<nodeport>"),
        None if node_port(text) => return "<nodeport>".into(),
        _ => {}
    }
    if let Some(seconds) = text.strip_suffix('s') {
        let (minutes, seconds) = seconds.split_once('m').unwrap_or(("0", seconds));
        if digits(minutes) && digits(seconds) {
            return "<age>".into();
        }
    }
    if matches!(text.as_bytes(), [b'2'..=b'9', b'm']) {
        return "<age>".into();
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return match port {
            Some(_) if address.is_loopback() => "<ip>:<port>".into(),
            Some(port) => format!("<ip>:{port}"),
            None => "<ip>".into(),
        };
    }
    if text.starts_with("v1.37.") {
        return "v1.37.<n>".into();
    }
    for machine in ["worker-", "master-"] {
        if text.strip_prefix(machine).is_some_and(digits) {
            return "<node>".into();
        }
    }
    if hash(text) {
        return "<hash>".into();
    }
    let Some((name, last)) = text.rsplit_once('-') else { return text.into() };
    if hash(last) {
        return format!("{name}-<hash>");
    }
    if generated(last, 5..=5) {
        return match name.rsplit_once('-') {
            Some((name, middle)) if hash(middle) => format!("{name}-<hash>-<id>"),
            _ => format!("{name}-<id>"),
        };
    }
    text.into()
}

fn is_uid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Checks this module, as a test would in a program with a harness.
pub(crate) fn check() {
    for (text, want) in [
        ("web-58b54dbfbf-9qqvh   1/1  Running   0          4s  ", "web-<hash>-<id>  1/1  Running  0  <age>"),
        ("  Created:  Wed, 25 Nov 2026 15:26:04 +0000", "  Created:  <time>"),
        ("since 2026-11-25T15:26:04Z, 2026-11-25T15:26:04.123456Z", "since <time>, <time>"),
        ("https://127.0.0.1:42487 10.1.2.3:80,10.1.2.4", "https://<ip>:<port> <ip>:80,<ip>"),
        ("pod-template-hash=58b54dbfbf web-58b54dbfbf", "pod-template-hash=<hash> web-<hash>"),
        ("resourceVersion: \"123\"", "resourceVersion: \"<rv>\""),
        ("\"resourceVersion\": \"123\",", "\"resourceVersion\": \"<rv>\","),
        ("uid: 63066b8f-79a4-4893-8427-eda403fb368a", "uid: <uid>"),
        ("node/worker-1 v1.37.4+icp 10m 300s 2m3s 2m", "node/<node> v1.37.<n>+icp 10m <age> <age> <age>"),
        ("80:31234/TCP nodePort: 30000", "80:<nodeport>/TCP nodePort: <nodeport>"),
        ("kube-root-ca.crt kube-system default", "kube-root-ca.crt kube-system default"),
    ] {
        assert_eq!(line(text), want);
    }
}
