//! Reads logs.
#![expect(clippy::disallowed_methods, reason = "a shell: following a file waits")]

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Cut, parse_line};
use crate::runtime::RuntimeError;

const CHUNK: usize = 64 * 1024;
/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The files of a log, oldest first. The newest one is named even if it is not there yet.
pub(crate) fn log_files(newest: &Path) -> Vec<PathBuf> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", newest.display()));
    let mut files: Vec<PathBuf> = (1..1000).map(numbered).take_while(|p| p.exists()).collect();
    files.reverse();
    files.push(newest.into());
    files
}

/// Where the last `count` lines begin: the number of the file in `files` and the offset in it.
pub(crate) fn last_lines(files: &[PathBuf], count: u64) -> io::Result<(usize, u64)> {
    let newest = files.len().saturating_sub(1);
    if count == 0 {
        let len = files.last().and_then(|f| std::fs::metadata(f).ok()).map_or(0, |m| m.len());
        return Ok((newest, len));
    }
    let mut missing = count;
    for (i, path) in files.iter().enumerate().rev() {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        // From the end: each full line that is passed counts once the next one before it is found.
        let mut data = Vec::new();
        let mut end = file.metadata()?.len();
        let mut starts: Vec<u64> = Vec::new();
        while end > 0 {
            let size = end.min(u64::try_from(CHUNK).unwrap_or(u64::MAX));
            end -= size;
            file.seek(SeekFrom::Start(end))?;
            let mut head = alloc::vec![0; usize::try_from(size).unwrap_or(CHUNK)];
            file.read_exact(&mut head)?;
            head.append(&mut data);
            data = head;
            starts = full_lines(&data, end);
            if u64::try_from(starts.len()).unwrap_or(u64::MAX) > missing {
                break;
            }
        }
        let found = u64::try_from(starts.len()).unwrap_or(u64::MAX);
        if found >= missing {
            let at = starts.len() - usize::try_from(missing).unwrap_or(starts.len());
            return Ok((i, starts.get(at).copied().unwrap_or(0)));
        }
        missing -= found;
    }
    Ok((0, 0))
}

/// The offsets at which lines of the container begin whose end lies in `data`, which begins at `base` of its file. A
/// line that begins before `data` is left out unless `base` is 0; one that has no end yet counts too.
fn full_lines(data: &[u8], base: u64) -> Vec<u64> {
    let mut starts = Vec::new();
    let mut at = base;
    // Whether the piece at hand goes on with the line before it.
    let mut within = base > 0;
    for line in data.split_inclusive(|b| *b == b'\n') {
        if !within {
            starts.push(at);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        within = parse_line(text).is_some_and(|l| !l.full);
        at += u64::try_from(line.len()).unwrap_or(0);
    }
    starts
}

/// Sends a log from a place on. With `is_over` it goes on until the log ends after `is_over` said so; without, until
/// the present end.
pub(crate) async fn follow(
    files: Vec<PathBuf>,
    start: (usize, u64),
    mut cut: Cut,
    is_over: Option<impl Fn() -> bool>,
    to: mpsc::Sender<Result<Bytes, RuntimeError>>,
) {
    let fail = |e: io::Error| RuntimeError::Unavailable { message: format!("cannot read the log: {e}") };
    let Some(newest) = files.last().cloned() else { return };
    let mut queue: VecDeque<PathBuf> = files.into_iter().skip(start.0).collect();
    let mut offset = start.1;
    let mut current = None;
    let mut rest: Vec<u8> = Vec::new();
    let mut chunk = alloc::vec![0; CHUNK];
    // What was written before the file was moved away is read before it is left.
    let mut leaving = false;
    loop {
        let over = is_over.as_ref().is_none_or(|f| f());
        if current.is_none() {
            let Some(path) = queue.pop_front() else { return };
            let at = core::mem::take(&mut offset);
            match File::open(&path) {
                Ok(mut file) => {
                    if let Err(e) = file.seek(SeekFrom::Start(at)) {
                        let _ = to.send(Err(fail(e))).await;
                        return;
                    }
                    current = Some((file, path));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && path != newest => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound && over => return,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    queue.push_back(newest.clone());
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(e) => {
                    let _ = to.send(Err(fail(e))).await;
                    return;
                }
            }
        }
        let Some((file, path)) = &mut current else { continue };
        let n = match file.read(&mut chunk) {
            Ok(n) => n,
            Err(e) => {
                let _ = to.send(Err(fail(e))).await;
                return;
            }
        };
        if n > 0 {
            rest.extend_from_slice(chunk.get(..n).unwrap_or_default());
            let mut out = Vec::new();
            let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            for line in rest.get(..whole).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
                cut.line(line.strip_suffix(b"\n").unwrap_or(line), &mut out);
            }
            rest.drain(..whole);
            if !out.is_empty() && to.send(Ok(out.into())).await.is_err() || cut.is_done() {
                return;
            }
            continue;
        }
        // At the end: of an older file, of one that was rotated away meanwhile, or of the log.
        let inode = file.metadata().map(|m| m.ino()).ok();
        let moved = *path != newest || inode != std::fs::metadata(&newest).map(|m| m.ino()).ok();
        if moved && !leaving {
            leaving = true;
        } else if moved {
            leaving = false;
            if *path == newest {
                queue.push_back(newest.clone());
            }
            current = None;
        } else if over {
            return;
        } else {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = to.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use std::string::String;

    fn scratch(name: &str, files: &[&str]) -> (PathBuf, Vec<PathBuf>) {
        let dir = std::env::temp_dir().join(format!("icp-logread-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let newest = dir.join("0.log");
        for (i, text) in files.iter().rev().enumerate() {
            let path = if i == 0 { newest.clone() } else { dir.join(format!("0.log.{i}")) };
            std::fs::write(path, text).unwrap();
        }
        let list = log_files(&newest);
        (dir, list)
    }

    fn lines(from: u32, to: u32) -> String {
        (from..to).map(|i| format!("2026-01-01T00:00:00Z stdout F line {i}\n")).collect()
    }

    async fn all(files: &[PathBuf], tail: Option<u64>) -> String {
        let start = tail.map_or(Ok((0, 0)), |n| last_lines(files, n)).unwrap();
        let (to, mut from) = mpsc::channel(100);
        follow(files.to_vec(), start, Cut::new(None, false, None), None::<fn() -> bool>, to).await;
        let mut got = Vec::new();
        while let Some(piece) = from.recv().await {
            got.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(got).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tails_across_files() {
        let (dir, files) = scratch("tail", &[&lines(0, 2000), &lines(2000, 6000), &lines(6000, 6010)]);
        for n in [1, 9, 10, 11, 4009, 4010, 4011, 6010, 7000] {
            let got = all(&files, Some(n)).await;
            let want = u64::from(6010_u32).min(n);
            assert_eq!(u64::try_from(got.lines().count()).unwrap(), want);
            assert!(got.starts_with(&format!("line {}\n", 6010 - want)), "{n}");
        }
        assert_eq!(all(&files, Some(0)).await, "");
        assert_eq!(all(&files, None).await.lines().count(), 6010);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn parts_are_one_line() {
        let text = "t stdout F one\nt stdout P tw\nt stdout F o\nt stdout P thr\n";
        let (dir, files) = scratch("parts", &[text]);
        assert_eq!(all(&files, Some(1)).await, "thr");
        assert_eq!(all(&files, Some(2)).await, "two\nthr");
        assert_eq!(all(&files, Some(3)).await, "one\ntwo\nthr");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn follows_through_rotation() {
        let (dir, files) = scratch("follow", &[&lines(0, 3)]);
        let step = Cell::new(0);
        let newest = dir.join("0.log");
        let is_over = || {
            step.set(step.get() + 1);
            match step.get() {
                3 => std::fs::rename(&newest, dir.join("0.log.1")).unwrap(),
                4 => std::fs::write(&newest, lines(3, 5)).unwrap(),
                _ => {}
            }
            step.get() > 8
        };
        let (to, mut from) = mpsc::channel(100);
        follow(files, (0, 0), Cut::new(None, false, None), Some(is_over), to).await;
        let mut got = Vec::new();
        while let Some(piece) = from.recv().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8(got).unwrap(), "line 0\nline 1\nline 2\nline 3\nline 4\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
