//! Transcripts: commands and what they print.
//!
//! ```text
//! # A comment after an empty line or at the top.
//! @alone
//!
//! $ kubectl create configmap c --from-literal=a=1
//! configmap/c created
//!
//! ~ kubectl get pods
//! NAME  READY  STATUS   RESTARTS  AGE
//! web   1/1    Running  0         <age>
//!
//! % kubectl exec -it web -- sh
//! > #
//! < exit 3
//! [3]
//! ```
//!
//! | line | what |
//! |---|---|
//! | `$ LINE` | a line of sh; it runs in `manifests/`, in the namespace `$NS` of the script, with a scratch folder `$TMP` |
//! | `~ LINE` | the same again and again until it prints what is expected, for at most 30 seconds |
//! | `% LINE` | a dialogue on a terminal: `< TEXT` is typed, `> TEXT` must then appear |
//! | `! TEXT` | a line on standard error; all of them stand below those on standard output |
//! | `[CODE]` | the exit code, where it is not 0 |
//! | `...` | any lines, also none |
//! | `@sim`, `@real` | above a command: only in this mode; at the top: the whole script |
//! | `@alone` | at the top: no other script runs at the same time |

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::normal::normal;
use super::pty::{Turn, talk};

/// How long `~` tries.
const TRY: Duration = Duration::from_secs(30);
/// How long nothing must change for `~` to write what it sees.
const STABLE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Once,
    Until,
    Talk,
}

#[derive(Clone, Debug)]
enum Part {
    /// Lines that are kept as they are.
    Text(String),
    Command {
        how: How,
        line: String,
        mode: Option<String>,
        turns: Vec<Turn>,
        expected: Vec<String>,
    },
}

/// A transcript.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    path: PathBuf,
    /// Its name, and that of its namespace.
    pub(crate) name: String,
    /// The mode that it is for, if it is not for all.
    pub(crate) mode: Option<String>,
    /// No other script may run at the same time.
    pub(crate) alone: bool,
    parts: Vec<Part>,
    /// The command that took longest.
    pub(crate) slowest: (Duration, String),
}

/// The name of a script.
pub(crate) fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn command(line: &str) -> Option<(How, &str)> {
    let (mark, rest) = line.split_once(' ')?;
    match mark {
        "$" => Some((How::Once, rest)),
        "~" => Some((How::Until, rest)),
        "%" => Some((How::Talk, rest)),
        _ => None,
    }
}

impl Script {
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(path, &std::fs::read_to_string(path).unwrap())
    }

    fn parse(path: &Path, text: &str) -> Self {
        let mut script = Self {
            path: path.into(),
            name: name(path),
            mode: None,
            alone: false,
            parts: Vec::new(),
            slowest: Default::default(),
        };
        let (mut mode, mut empty) = (None, true);
        for line in text.lines() {
            let was_empty = std::mem::replace(&mut empty, line.is_empty());
            if let Some((how, rest)) = command(line) {
                let (line, mode) = (rest.to_string(), mode.take());
                script.parts.push(Part::Command { how, line, mode, turns: Vec::new(), expected: Vec::new() });
                continue;
            }
            let first = !script.parts.iter().any(|p| matches!(p, Part::Command { .. }));
            match line {
                "@alone" if first => script.alone = true,
                "@sim" | "@real" if was_empty => {
                    mode = Some(line[1..].to_string());
                    if first && script.parts.is_empty() {
                        script.mode = mode.take();
                    } else {
                        continue;
                    }
                }
                _ => {}
            }
            let comment = line.starts_with("# ") && was_empty;
            match script.parts.last_mut() {
                Some(Part::Command { how: How::Talk, turns, .. }) if line.starts_with("< ") => {
                    turns.push(Turn::Type(line[2..].into()));
                }
                Some(Part::Command { how: How::Talk, turns, .. }) if line.starts_with("> ") => {
                    turns.push(Turn::See(line[2..].into()));
                }
                Some(Part::Command { expected, .. }) if !comment => expected.push(line.into()),
                Some(Part::Text(text)) => {
                    text.push('\n');
                    text.push_str(line);
                    empty |= line.starts_with("# ");
                }
                _ => {
                    script.parts.push(Part::Text(line.into()));
                    empty = true;
                }
            }
        }
        for part in &mut script.parts {
            if let Part::Command { expected, .. } = part {
                while expected.last().is_some_and(String::is_empty) {
                    expected.pop();
                }
            }
        }
        script
    }

    /// The text of the file.
    fn print(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(&format!("{text}\n")),
                Part::Command { how, line, mode, turns, expected } => {
                    if let Some(mode) = mode {
                        out.push_str(&format!("@{mode}\n"));
                    }
                    let mark = match how {
                        How::Once => '$',
                        How::Until => '~',
                        How::Talk => '%',
                    };
                    out.push_str(&format!("{mark} {line}\n"));
                    for turn in turns {
                        out.push_str(&match turn {
                            Turn::Type(text) => format!("< {text}\n"),
                            Turn::See(text) => format!("> {text}\n"),
                        });
                    }
                    for line in expected {
                        out.push_str(&format!("{line}\n"));
                    }
                    out.push('\n');
                }
            }
        }
        format!("{}\n", out.trim_end())
    }

    pub(crate) fn write(&self) {
        std::fs::write(&self.path, self.print()).unwrap();
    }

    /// Runs all commands; what came out differently. With `update`, that becomes what is expected.
    pub(crate) fn run(&mut self, cluster: &Cluster, update: bool) -> Vec<String> {
        let name = self.name.clone();
        let start = format!(
            "kubectl create namespace {name} && kubectl config set-context --current --namespace={name} && \
             until_ok kubectl get serviceaccount default"
        );
        let started = cluster.run(&name, &start);
        let mut different = Vec::new();
        if started.code != 0 {
            different.push(format!("the namespace of the script: {started:?}"));
        }
        for part in &mut self.parts {
            let Part::Command { how, line, mode, turns, expected } = part else { continue };
            if mode.as_ref().is_some_and(|m| m != cluster.mode) {
                continue;
            }
            let began = Instant::now();
            let actual = match how {
                How::Once => once(cluster, &name, line),
                How::Until => until(cluster, &name, line, expected, update),
                How::Talk => match talk(cluster, &name, line, turns) {
                    Ok(0) => Vec::new(),
                    Ok(code) => vec![format!("[{code}]")],
                    Err(e) => vec![format!("! {e}")],
                },
            };
            self.slowest = std::cmp::max(self.slowest.clone(), (began.elapsed(), line.clone()));
            if !matches(expected, &actual) {
                different.push(difference(line, expected, &actual));
                if update {
                    *expected = actual;
                }
            }
        }
        cluster.run(&name, &format!("kubectl delete namespace {name} --wait=false --ignore-not-found"));
        different
    }
}

fn once(cluster: &Cluster, script: &str, line: &str) -> Vec<String> {
    let ended = cluster.run(script, line);
    let dir = cluster.dir_of(script);
    let clean = |text: &str| normal(&text.replace(&*dir.to_string_lossy(), "<tmp>"));
    let mut lines = clean(&ended.stdout);
    lines.extend(
        clean(&ended.stderr).into_iter().map(|l| if l.is_empty() { "!".into() } else { format!("! {l}") }),
    );
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if ended.code != 0 {
        lines.push(format!("[{}]", ended.code));
    }
    lines
}

fn until(cluster: &Cluster, script: &str, line: &str, expected: &[String], update: bool) -> Vec<String> {
    let started = Instant::now();
    let mut last = (Instant::now(), Vec::new());
    loop {
        let actual = once(cluster, script, line);
        if last.1 != actual {
            last = (Instant::now(), actual);
        }
        let settled = update && expected.is_empty() && last.0.elapsed() > STABLE;
        if settled
            || started.elapsed() > TRY
            || (!(update && expected.is_empty()) && matches(expected, &last.1))
        {
            return last.1;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Whether lines are as expected, where `...` is any lines.
fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((any, rest)) if any == "..." => (0..=actual.len()).any(|i| matches(rest, &actual[i..])),
        Some((line, rest)) => actual.first() == Some(line) && matches(rest, &actual[1..]),
    }
}

fn difference(line: &str, expected: &[String], actual: &[String]) -> String {
    let indent = |lines: &[String]| lines.iter().map(|l| format!("    {l}\n")).collect::<String>();
    format!("  $ {line}\n  expected:\n{}  printed:\n{}", indent(expected), indent(actual))
}

/// Checks this module, as a test would in a program with a harness.
pub(crate) fn check() {
    let text = "# Top.\n@alone\n\n$ a b\nout\n\nmore\n! err\n[2]\n\n# Note.\n@sim\n~ c\n...\nx\n\n% d\n< in\n> out\n[5]\n";
    let script = Script::parse(Path::new("/x/name.txt"), text);
    assert!(script.alone && script.name == "name" && script.mode.is_none());
    assert_eq!(script.print(), text, "{:?}", script.parts);
    let lines = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    assert!(matches(&lines("a ... c"), &lines("a c")) && matches(&lines("a ... c"), &lines("a b b c")));
    assert!(!matches(&lines("a ... c"), &lines("a b")) && !matches(&lines("a"), &lines("a b")));
}
