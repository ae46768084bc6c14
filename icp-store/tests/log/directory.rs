//! What the operating system and its users do to a directory: each answer names the path and what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icp_core::storage::{KeyRange, RangeRequest, Storage, StorageError};
use icp_store::log::{LogError, LogOptions, OsFiles};
use icp_store::{Disk, DiskOptions};

use super::peer::{find, temp_dir};
use super::workload::{one_more, open, put, txn};

/// The directory that a child process is to open, and what it is to do there.
const DIRECTORY: &str = "ICP_STORE_LOG_DIRECTORY";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refusal(path: &Path) -> LogError {
    OsFiles::open(path).map(|_| ()).unwrap_err()
}

/// The error says which path is meant.
fn names(error: &LogError, path: &Path) {
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

fn filled(name: &str) -> PathBuf {
    let dir = temp_dir(name);
    let (mut log, mut store) = open(OsFiles::open(&dir).unwrap()).unwrap();
    for n in 0..8 {
        one_more(&mut log, &mut store, &format!("{n}"));
    }
    dir
}

#[test]
fn a_missing_directory_is_made_with_all_above_it_and_private() {
    let above = temp_dir("above");
    let dir = above.join("a/b/c");
    drop(OsFiles::open(&dir).unwrap());
    assert_eq!((mode(&above.join("a")), mode(&dir), mode(&dir.join("LOCK"))), (0o700, 0o700, 0o600));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    drop(OsFiles::open(&dir).unwrap());
    assert_eq!(mode(&dir), 0o700);
    fs::remove_dir_all(above).unwrap();
}

#[test]
fn the_files_of_a_store_are_its_users_alone() {
    let dir = filled("modes");
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    fs::remove_dir_all(dir).unwrap();
}

/// It would be made private: a home directory or `/tmp` must not be taken by mistake.
#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let dir = temp_dir("foreign");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let error = refusal(&dir);
    assert!(matches!(&error, LogError::Foreign { file, .. } if file == "notes.txt"), "{error}");
    names(&error, &dir);
    assert_eq!((mode(&dir), fs::read_dir(&dir).unwrap().count()), (0o755, 1));
    // What a file system puts into its root is nobody's.
    fs::rename(dir.join("notes.txt"), dir.join("lost+found")).unwrap();
    drop(OsFiles::open(&dir).unwrap());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn foreign_files_beside_a_store_are_left_alone() {
    let dir = filled("beside");
    let segment = dir.join("0000000000000001.log");
    for name in [
        "notes.txt",
        "000000000000000A.log",
        "0000000000000000.log",
        "+000000000000001.log",
        "1.log",
        "x.snap",
    ] {
        fs::copy(&segment, dir.join(name)).unwrap();
    }
    fs::create_dir(dir.join("directory")).unwrap();
    // Someone took the lock for a leftover.
    fs::remove_file(dir.join("LOCK")).unwrap();
    let (_, store) = open(OsFiles::open(&dir).unwrap()).unwrap();
    assert_eq!(store.visible(), 9);
    assert!(dir.join("notes.txt").exists() && dir.join("+000000000000001.log").exists());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_directory_is_refused() {
    let above = temp_dir("file");
    fs::write(above.join("file"), "").unwrap();
    symlink(above.join("nowhere"), above.join("dangling")).unwrap();
    for (path, help) in [("file", "name a directory"), ("file/below", "name a directory"), ("dangling", "")] {
        let error = refusal(&above.join(path));
        assert!(matches!(error, LogError::Io { .. }), "{error}");
        names(&error, &above.join(path));
        assert!(error.to_string().contains(help), "{error}");
    }
    // A link to a directory is one.
    fs::create_dir(above.join("real")).unwrap();
    symlink(above.join("real"), above.join("link")).unwrap();
    drop(OsFiles::open(&above.join("link")).unwrap());
    fs::remove_dir_all(above).unwrap();
}

#[test]
fn a_directory_in_the_place_of_a_file_is_named() {
    for name in ["0000000000000001.log", "0000000000000009.snap", "snapshot.tmp", "LOCK"] {
        let dir = temp_dir("place");
        fs::create_dir(dir.join(name)).unwrap();
        let error = OsFiles::open(&dir).and_then(open).map(|_| ()).unwrap_err();
        assert!(matches!(error, LogError::Io { .. }), "{error}");
        names(&error, &dir.join(name));
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    for name in ["ffffffffffffffff.log", "ffffffffffffffff.snap"] {
        let dir = filled("numbers");
        let kind = if name.ends_with(".snap") { *b"icpstsnp" } else { *b"icpstlog" };
        let seq = u64::from_str_radix(name.split('.').next().unwrap(), 16).unwrap();
        let mut bytes =
            [&kind[..], &1_u32.to_le_bytes(), &[0; 4], &seq.to_le_bytes(), &4_u32.to_le_bytes()].concat();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        fs::write(dir.join(name), bytes).unwrap();
        let error = OsFiles::open(&dir).and_then(open).map(|_| ()).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{name}: {error}");
        fs::remove_dir_all(dir).unwrap();
    }
}

/// Whoever ends a store, its directory is free at once: also while a snapshot is being written.
#[test]
fn a_store_that_was_dropped_can_be_opened_again_at_once() {
    let dir = temp_dir("again");
    let options = DiskOptions {
        log: LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() },
        snapshot_log_bytes: 0,
        ..DiskOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 0..30 {
        let store = Disk::open(&dir, options).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert!(matches!(Disk::open(&dir, options), Err(LogError::Locked { .. })));
        runtime.block_on(async {
            for n in 0..20 {
                let value = "x".repeat(10_000);
                store.txn(txn(vec![put(format!("{n}"), value)])).await.unwrap();
            }
        });
    }
    fs::remove_dir_all(dir).unwrap();
}

/// A process that opens a directory as somebody, or somewhere, else: a test that does nothing unless it is started so.
#[test]
fn other_process() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    if dir.ends_with("small") {
        return a_disk_that_fills_up(&dir);
    }
    let error = refusal(&dir);
    println!("{}", format!("{error:?}").split_whitespace().next().unwrap());
    println!("says {error}");
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "directory::other_process", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, dir);
    command
}

/// What the child printed; `None`, with the reason, if the system does not let it be started.
fn output(command: &mut Command, needs: &str) -> Option<String> {
    let done = command.stdin(Stdio::null()).output();
    let done = done.ok().filter(|d| d.status.success() || !d.stdout.is_empty());
    let Some(done) = done else {
        assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs {needs}");
        println!("skipped: needs {needs}");
        return None;
    };
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    Some(text)
}

#[test]
fn another_users_directory_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root, to be another user");
    }
    let dir = temp_dir("owner");
    for (mode, expected) in [(0o777, "Owner"), (0o700, "Io")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        let Some(text) = output(child(&dir).uid(65_534).gid(65_534), "a program that others may run") else {
            return;
        };
        assert!(text.contains(expected) && text.contains(&dir.display().to_string()), "{text}");
        assert!(
            text.contains("must be able to read and write") || text.contains("change its owner"),
            "{text}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Runs the child with a file system of its own at `dir`.
fn on_file_system(dir: &Path, mount_options: &str) -> Option<String> {
    let unshare = find("unshare")?;
    let script =
        format!("mount -t tmpfs -o {mount_options} none '{}' && exec \"$@\"", dir.parent()?.display());
    let child = child(dir);
    let mut command = Command::new(unshare);
    command.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(child.get_program()).args(child.get_args()).env(DIRECTORY, dir);
    output(&mut command, "mount namespaces")
}

#[test]
fn a_file_system_that_is_read_only_is_told() {
    let above = temp_dir("read-only");
    if let Some(text) = on_file_system(&above.join("store"), "ro") {
        assert!(text.contains("mount it writable") && text.contains(&above.display().to_string()), "{text}");
    }
    fs::remove_dir_all(above).unwrap();
}

#[test]
fn a_real_disk_fills_up_and_recovers() {
    let above = temp_dir("full");
    on_file_system(&above.join("small"), "size=2m");
    fs::remove_dir_all(above).unwrap();
}

fn a_disk_that_fills_up(dir: &Path) {
    let log = LogOptions { segment_bytes: 128 << 10, ..LogOptions::default() };
    let options = DiskOptions { log, snapshot_log_bytes: 256 << 10, ..DiskOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let others = dir.with_extension("others");
    fs::write(&others, vec![1; 600 << 10]).unwrap();
    let store = Disk::open(dir, options).unwrap();
    runtime.block_on(async {
        let mut acknowledged = 0;
        let refused = loop {
            match store.txn(txn(vec![put(format!("{acknowledged}"), "x".repeat(5_000))])).await {
                Ok(_) => acknowledged += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, StorageError::NoSpace { .. }), "{refused}");
        assert!(refused.to_string().contains("spare.log"), "{refused}");
        assert!(acknowledged > 50, "{acknowledged}");
        fs::remove_file(&others).unwrap();
        // Space has returned: within the time of a retry writes are taken again.
        let mut tries = 0;
        while let Err(e) = store.txn(txn(vec![put("more", "x")])).await {
            assert!(matches!(e, StorageError::NoSpace { .. }), "{e}");
            tries += 1;
            assert!(tries < 1_000);
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        let count = store.range(RangeRequest::new(KeyRange::prefix(""))).await.unwrap().count;
        assert_eq!(count, acknowledged + 1);
        drop(store);
        let store = Disk::open(dir, options).unwrap();
        assert_eq!(store.range(RangeRequest::new(KeyRange::prefix(""))).await.unwrap().count, count);
    });
}
