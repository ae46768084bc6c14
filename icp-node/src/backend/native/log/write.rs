//! Writes logs.

use alloc::format;
use alloc::vec::Vec;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use icp_core::base::Time;

use super::Channel;
use crate::backend::native::plan::LogPlan;

/// A longer line is written in parts (`maxContainerLogLineSize` of containerd).
const LINE_MAX: usize = 16 * 1024;

/// Writes the log of a container and rotates it.
#[derive(Debug)]
pub(crate) struct LogWriter {
    plan: LogPlan,
    file: File,
    bytes: u64,
    /// What has no end of line yet, of stdout and stderr.
    pending: [Vec<u8>; 2],
}

/// RFC 3339 with nine fractional digits.
fn stamp(now: Time, nanos: u32) -> alloc::string::String {
    let micros = now.to_rfc3339_micros();
    format!("{}{:03}Z", micros.trim_end_matches('Z'), nanos % 1000)
}

impl LogWriter {
    pub(crate) fn open(plan: LogPlan) -> io::Result<Self> {
        if let Some(dir) = plan.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&plan.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { plan, file, bytes, pending: [Vec::new(), Vec::new()] })
    }

    /// Takes output of the container, read at this time (with the nanoseconds below the microsecond).
    pub(crate) fn push(&mut self, now: Time, nanos: u32, channel: Channel, data: &[u8]) -> io::Result<()> {
        let mut lines = Vec::new();
        let [out, err] = &mut self.pending;
        let pending = match channel {
            Channel::Stdout => out,
            Channel::Stderr => err,
        };
        let head = format!("{} {}", stamp(now, nanos), channel.as_str());
        let mut line = |tag: &str, text: &[u8]| {
            lines.extend_from_slice(head.as_bytes());
            lines.extend_from_slice(tag.as_bytes());
            lines.extend_from_slice(text);
            lines.push(b'\n');
        };
        for piece in data.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            pending.extend_from_slice(text);
            while pending.len() > LINE_MAX {
                let rest = pending.split_off(LINE_MAX);
                line(" P ", pending);
                *pending = rest;
            }
            if ends {
                line(" F ", pending);
                pending.clear();
            }
        }
        self.write(&lines)
    }

    /// Writes what has no end of line, as parts: nothing more comes.
    pub(crate) fn finish(&mut self, now: Time, nanos: u32) -> io::Result<()> {
        let pending = core::mem::take(&mut self.pending);
        for (text, channel) in pending.iter().zip([Channel::Stdout, Channel::Stderr]) {
            if !text.is_empty() {
                let mut line = format!("{} {} P ", stamp(now, nanos), channel.as_str()).into_bytes();
                line.extend_from_slice(text);
                line.push(b'\n');
                self.write(&line)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes >= self.plan.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| -> PathBuf {
            let mut name = self.plan.path.clone().into_os_string();
            if n > 0 {
                name.push(format!(".{n}"));
            }
            name.into()
        };
        let oldest = self.plan.max_files.max(1) - 1;
        for n in (0..oldest).rev() {
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if oldest == 0 {
            std::fs::remove_file(&self.plan.path)?;
        }
        self.file = OpenOptions::new().create(true).append(true).open(&self.plan.path)?;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("icp-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn lines_parts_and_streams() {
        let dir = scratch("lines");
        let path = dir.join("0.log");
        let mut log =
            LogWriter::open(LogPlan { path: path.clone(), max_bytes: 1 << 20, max_files: 5 }).unwrap();
        let now = Time::from_micros(1_500_000);
        log.push(now, 1_500_007, Channel::Stdout, b"one\ntw").unwrap();
        log.push(now, 7, Channel::Stderr, b"bad\n").unwrap();
        log.push(now, 7, Channel::Stdout, b"o\nrest").unwrap();
        log.finish(now, 7).unwrap();
        let t = "1970-01-01T00:00:01.500000007Z";
        let want = format!("{t} stdout F one\n{t} stderr F bad\n{t} stdout F two\n{t} stdout P rest\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), want);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn long_lines_come_in_parts() {
        let dir = scratch("long");
        let path = dir.join("0.log");
        let mut log =
            LogWriter::open(LogPlan { path: path.clone(), max_bytes: 1 << 20, max_files: 5 }).unwrap();
        let mut text = alloc::vec![b'x'; LINE_MAX + 5];
        text.push(b'\n');
        log.push(Time::ZERO, 0, Channel::Stdout, &text).unwrap();
        let got = std::fs::read_to_string(&path).unwrap();
        let lens: Vec<_> = got.lines().map(|l| (l.contains(" P "), l.matches('x').count())).collect();
        assert_eq!(lens, [(true, LINE_MAX), (false, 5)]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn rotation_keeps_a_bound() {
        let dir = scratch("rotate");
        let path = dir.join("0.log");
        let mut log = LogWriter::open(LogPlan { path, max_bytes: 100, max_files: 3 }).unwrap();
        for i in 0..50 {
            log.push(Time::ZERO, 0, Channel::Stdout, format!("line {i}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
        assert!(std::fs::read_to_string(dir.join("0.log")).unwrap().contains("line 49"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
