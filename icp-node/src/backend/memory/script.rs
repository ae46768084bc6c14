//! The few commands that a simulated container understands: a small part of the shell's language, run in virtual
//! time.
//!
//! A run is a list of writes at times after its start and an end. Whatever is not understood is never guessed at: the
//! run ends there and says what it was.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::base::Duration;

/// The commands that are understood, for people.
pub(super) const KNOWN: &str = "echo, cat, env, printenv, hostname, pwd, sleep, true, false, exit, sh -c";
/// Most steps of one run.
const STEPS_MAX: usize = 10_000;
/// Deepest nesting of loops and of `sh -c`.
const DEPTH_MAX: usize = 8;

/// What a command sees of its container.
pub(super) trait World {
    /// The value of a variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// All variables, in order.
    fn environment(&self) -> Vec<(String, String)>;
    /// The host name.
    fn hostname(&self) -> String;
    /// The working directory.
    fn directory(&self) -> String;
    /// What is in a file, if there is one.
    fn file(&self, path: &str) -> Option<Vec<u8>>;
}

/// An output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// After the start of the run.
    pub after: Duration,
    /// Where to.
    pub stream: Stream,
    /// What.
    pub bytes: Vec<u8>,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a code, at a time after its start.
    Exit(Duration, i32),
    /// Never: the writes from this index on come again and again, first at `from`, each round after `period`.
    Loops {
        /// Index of the first write of a round.
        first: usize,
        /// When the first round begins, after the start of the run.
        from: Duration,
        /// How long a round takes; not zero.
        period: Duration,
    },
    /// Never, and nothing more is written.
    Never,
    /// It copies what it reads (`cat`).
    Copies,
    /// It reads commands (`sh` without arguments).
    Reads,
    /// Here stands what is not understood.
    Unknown {
        /// When it was reached, after the start of the run.
        at: Duration,
        /// The program, or the part of the language.
        what: String,
        /// Whether it is a program; else it is a part of the language.
        program: bool,
    },
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it writes, in order.
    pub writes: Vec<Write>,
    /// How it ends.
    pub end: End,
    /// Whether an `exit` ended it.
    pub exits: bool,
}

/// Runs a program with its arguments.
pub(super) fn run(command: &[String], world: &dyn World) -> Run {
    run_after(command, 0, world)
}

/// Runs a line of an interactive shell; `last` is the code of the line before.
pub(super) fn run_line(line: &str, last: i32, world: &dyn World) -> Run {
    run_after(&["sh".to_string(), "-c".to_string(), line.to_string()], last, world)
}

fn run_after(command: &[String], last: i32, world: &dyn World) -> Run {
    if command.is_empty() {
        // The image's own program.
        let end = End::Unknown { at: Duration::ZERO, what: String::new(), program: true };
        return Run { writes: Vec::new(), end, exits: false };
    }
    let mut shell =
        Shell { world, writes: Vec::new(), now: Duration::ZERO, steps: 0, last, bound: Vec::new() };
    let (end, exits) = match shell.simple(command, Stream::Stdout, 0, true) {
        Ok(code) => (End::Exit(shell.now, code), false),
        Err(Stop::Exit(code)) => (End::Exit(shell.now, code), true),
        Err(Stop::End(end)) => (end, false),
    };
    Run { writes: shell.writes, end, exits }
}

enum Stop {
    Exit(i32),
    End(End),
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Variable(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A word, and whether it was written without quotes (only then can it be a keyword).
    Word(Vec<Piece>, bool),
    Next,
    And,
    Or,
    ToStderr,
    ToNothing,
}

/// Cuts a text into tokens; an error names what is not understood.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied();
    let begins = |i: usize, what: &str| what.chars().enumerate().all(|(k, c)| at(i + k) == Some(c));
    let (mut out, mut i) = (Vec::new(), 0);
    let mut word: Option<(Vec<Piece>, bool)> = None;
    fn text_of(word: &mut Option<(Vec<Piece>, bool)>) -> &mut String {
        let pieces = &mut word.get_or_insert_with(|| (Vec::new(), true)).0;
        if !matches!(pieces.last(), Some(Piece::Text(_))) {
            pieces.push(Piece::Text(String::new()));
        }
        match pieces.last_mut() {
            Some(Piece::Text(text)) => text,
            _ => unreachable!("a text was pushed"),
        }
    }
    // The name after a `$`, and the index behind it.
    let variable = |i: usize| -> Result<(String, usize), String> {
        let braces = at(i) == Some('{');
        let start = i + usize::from(braces);
        let len =
            (start..).take_while(|k| at(*k).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')).count();
        let name: String = chars.iter().skip(start).take(len).collect();
        if !braces && at(i) == Some('?') {
            return Ok(("?".into(), i + 1));
        }
        let end = start + len + usize::from(braces);
        if name.is_empty() || (braces && at(start + len) != Some('}')) {
            return Err(format!("${}", at(i).unwrap_or(' ')));
        }
        Ok((name, end))
    };
    while let Some(c) = at(i) {
        i += 1;
        match c {
            '\'' => {
                let out = text_of(&mut word);
                loop {
                    match at(i) {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err("an open quote".into()),
                    }
                    i += 1;
                }
                i += 1;
                word.get_or_insert_default().1 = false;
            }
            '"' => {
                text_of(&mut word);
                loop {
                    match at(i) {
                        Some('"') => break,
                        Some('\\') if matches!(at(i + 1), Some('"' | '\\' | '$' | '`')) => {
                            text_of(&mut word).extend(at(i + 1));
                            i += 1;
                        }
                        Some('$') => {
                            let (name, end) = variable(i + 1)?;
                            word.get_or_insert_default().0.push(Piece::Variable(name));
                            i = end - 1;
                        }
                        Some('`') => return Err("`".into()),
                        Some(c) => text_of(&mut word).push(c),
                        None => return Err("an open quote".into()),
                    }
                    i += 1;
                }
                i += 1;
                word.get_or_insert_default().1 = false;
            }
            '\\' => {
                text_of(&mut word).extend(at(i));
                i += 1;
            }
            '$' => {
                let (name, end) = variable(i)?;
                word.get_or_insert_with(|| (Vec::new(), true)).0.push(Piece::Variable(name));
                i = end;
            }
            '#' if word.is_none() => {
                while at(i).is_some_and(|c| c != '\n') {
                    i += 1;
                }
            }
            ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '>' => {
                let number = match (&word, c) {
                    (Some((pieces, true)), '>') => match pieces.as_slice() {
                        [Piece::Text(t)] if t == "1" || t == "2" => {
                            let t = t.clone();
                            word = None;
                            t
                        }
                        _ => String::new(),
                    },
                    _ => String::new(),
                };
                if let Some((pieces, bare)) = word.take() {
                    out.push(Token::Word(pieces, bare));
                }
                match c {
                    '\n' | ';' => out.push(Token::Next),
                    '&' if at(i) == Some('&') => {
                        out.push(Token::And);
                        i += 1;
                    }
                    '|' if at(i) == Some('|') => {
                        out.push(Token::Or);
                        i += 1;
                    }
                    '>' if begins(i, "&2") && number != "2" => {
                        out.push(Token::ToStderr);
                        i += 2;
                    }
                    // Errors of what is understood go along, or nowhere: there are none to speak of.
                    '>' if begins(i, "&1") => i += 2,
                    '>' if begins(i, "/dev/null") || begins(i, " /dev/null") => {
                        i += "/dev/null".len() + usize::from(at(i) == Some(' '));
                        if number != "2" {
                            out.push(Token::ToNothing);
                        }
                    }
                    '>' if begins(i, "/dev/stderr") => {
                        i += "/dev/stderr".len();
                        out.push(Token::ToStderr);
                    }
                    '&' | '|' | '>' => return Err(c.to_string()),
                    _ => {}
                }
            }
            '<' | '(' | ')' | '`' | '*' | '[' => return Err(c.to_string()),
            c => text_of(&mut word).push(c),
        }
    }
    if let Some((pieces, bare)) = word {
        out.push(Token::Word(pieces, bare));
    }
    Ok(out)
}

#[derive(Clone, Debug)]
enum Command {
    Simple { words: Vec<Vec<Piece>>, to: Option<Stream>, nowhere: bool },
    Forever(Vec<Item>),
    For { name: String, words: Vec<Vec<Piece>>, body: Vec<Item> },
}

/// A command and what it depends on: the success (`&&`) or failure (`||`) of the one before.
#[derive(Clone, Debug)]
struct Item {
    after: Option<bool>,
    command: Command,
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

fn bare(word: &Token) -> Option<&str> {
    match word {
        Token::Word(pieces, true) => match pieces.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn skip_breaks(&mut self) {
        while self.peek() == Some(&Token::Next) {
            self.at += 1;
        }
    }

    fn keyword(&mut self, word: &str) -> Result<(), String> {
        self.skip_breaks();
        if self.peek().and_then(bare) != Some(word) {
            return Err(format!("a loop without {word}"));
        }
        self.at += 1;
        Ok(())
    }

    /// Commands up to the end, or up to `done` within a loop.
    fn list(&mut self, depth: usize) -> Result<Vec<Item>, String> {
        if depth > DEPTH_MAX {
            return Err("deep nesting".into());
        }
        let mut items = Vec::new();
        let mut after = None;
        loop {
            self.skip_breaks();
            match self.peek() {
                None => return Ok(items),
                Some(token) if bare(token) == Some("done") => return Ok(items),
                Some(_) => {}
            }
            let command = self.command(depth)?;
            items.push(Item { after, command });
            after = match self.peek() {
                Some(Token::And) => Some(true),
                Some(Token::Or) => Some(false),
                _ => None,
            };
            if after.is_some() {
                self.at += 1;
            }
        }
    }

    fn command(&mut self, depth: usize) -> Result<Command, String> {
        match self.peek().and_then(bare) {
            Some("while") => {
                self.at += 1;
                let condition = self.peek().and_then(bare);
                if !matches!(condition, Some("true" | ":")) {
                    return Err("while with a condition".into());
                }
                self.at += 1;
                Ok(Command::Forever(self.body(depth)?))
            }
            Some("for") => {
                self.at += 1;
                let name = self.peek().and_then(bare).ok_or("for without a name")?.to_string();
                self.at += 1;
                self.keyword("in")?;
                let mut words = Vec::new();
                while let Some(Token::Word(pieces, _)) = self.peek() {
                    words.push(pieces.clone());
                    self.at += 1;
                }
                Ok(Command::For { name, words, body: self.body(depth)? })
            }
            Some(
                word @ ("if" | "case" | "until" | "function" | "{" | "trap" | "set" | "export" | "cd" | "!"),
            ) => Err(word.to_string()),
            _ => self.simple(),
        }
    }

    fn body(&mut self, depth: usize) -> Result<Vec<Item>, String> {
        self.keyword("do")?;
        let body = self.list(depth + 1)?;
        self.keyword("done")?;
        Ok(body)
    }

    fn simple(&mut self) -> Result<Command, String> {
        let (mut words, mut to, mut nowhere) = (Vec::new(), None, false);
        loop {
            match self.peek() {
                Some(Token::Word(pieces, bare)) => {
                    if let ([Piece::Text(text), ..], true, true) =
                        (pieces.as_slice(), *bare, words.is_empty())
                        && text.contains('=')
                    {
                        return Err("an assignment".into());
                    }
                    words.push(pieces.clone());
                }
                Some(Token::ToStderr) => to = Some(Stream::Stderr),
                Some(Token::ToNothing) => nowhere = true,
                _ if words.is_empty() => return Err("a missing command".into()),
                _ => return Ok(Command::Simple { words, to, nowhere }),
            }
            self.at += 1;
        }
    }
}

struct Shell<'a> {
    world: &'a dyn World,
    writes: Vec<Write>,
    now: Duration,
    steps: usize,
    last: i32,
    /// Variables of loops.
    bound: Vec<(String, String)>,
}

impl Shell<'_> {
    fn unknown(&self, what: impl Into<String>, program: bool) -> Stop {
        Stop::End(End::Unknown { at: self.now, what: what.into(), program })
    }

    fn write(&mut self, stream: Stream, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.writes.push(Write { after: self.now, stream, bytes });
        }
    }

    fn expand(&self, pieces: &[Piece]) -> String {
        let value = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) if name == "?" => self.last.to_string(),
            Piece::Variable(name) => {
                let bound = self.bound.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                bound.or_else(|| self.world.variable(name)).unwrap_or_default()
            }
        };
        pieces.iter().map(value).collect()
    }

    fn script(&mut self, text: &str, depth: usize, last: bool) -> Result<i32, Stop> {
        let tokens = tokens(text).map_err(|what| self.unknown(what, false))?;
        let items = Parser { tokens: &tokens, at: 0 }.whole().map_err(|what| self.unknown(what, false))?;
        self.items(&items, depth, last)
    }

    fn items(&mut self, items: &[Item], depth: usize, last: bool) -> Result<i32, Stop> {
        for (i, item) in items.iter().enumerate() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(self.unknown("a run of so many steps", false));
            }
            if item.after.is_some_and(|wanted| wanted != (self.last == 0)) {
                continue;
            }
            let last = last && i + 1 == items.len();
            self.last = match &item.command {
                Command::Simple { words, to, nowhere } => {
                    let words: Vec<String> = words.iter().map(|w| self.expand(w)).collect();
                    let before = self.writes.len();
                    let code = self.simple(&words, to.unwrap_or(Stream::Stdout), depth, last)?;
                    if *nowhere {
                        self.writes.truncate(before);
                    }
                    code
                }
                Command::Forever(body) => {
                    let (first, from) = (self.writes.len(), self.now);
                    self.items(body, depth, false)?;
                    let period = self.now - from;
                    if period.is_zero() {
                        return Err(self.unknown("a loop that never sleeps", false));
                    }
                    return Err(Stop::End(End::Loops { first, from, period }));
                }
                Command::For { name, words, body } => {
                    let words: Vec<String> = words.iter().map(|w| self.expand(w)).collect();
                    for word in words {
                        self.bound.push((name.clone(), word));
                        let done = self.items(body, depth, false);
                        self.bound.pop();
                        done?;
                    }
                    self.last
                }
            };
        }
        Ok(self.last)
    }

    /// Runs one program. `last` says that its end is the end of all, so that it may read its input.
    fn simple(&mut self, words: &[String], to: Stream, depth: usize, last: bool) -> Result<i32, Stop> {
        let Some((program, arguments)) = words.split_first() else { return Ok(0) };
        let name = program.rsplit('/').next().unwrap_or_default();
        let first = arguments.first().map(String::as_str);
        match name {
            "true" | ":" => Ok(0),
            "false" => Ok(1),
            "exec" => self.simple(arguments, to, depth, last),
            "exit" => Err(Stop::Exit(first.map_or(Ok(self.last), str::parse).unwrap_or(2) & 0xff)),
            "echo" => {
                let newline = first != Some("-n");
                let mut text =
                    arguments.iter().skip(usize::from(!newline)).cloned().collect::<Vec<_>>().join(" ");
                if newline {
                    text.push('\n');
                }
                self.write(to, text.into_bytes());
                Ok(0)
            }
            "hostname" if arguments.is_empty() => {
                let text = self.world.hostname() + "\n";
                self.write(to, text.into_bytes());
                Ok(0)
            }
            "pwd" => {
                let text = self.world.directory() + "\n";
                self.write(to, text.into_bytes());
                Ok(0)
            }
            "env" if arguments.is_empty() => {
                let text: String =
                    self.world.environment().into_iter().map(|(k, v)| format!("{k}={v}\n")).collect();
                self.write(to, text.into_bytes());
                Ok(0)
            }
            "printenv" => match first.map(|name| self.world.variable(name)) {
                None => self.simple(&["env".to_string()], to, depth, last),
                Some(None) => Ok(1),
                Some(Some(value)) => {
                    self.write(to, (value + "\n").into_bytes());
                    Ok(0)
                }
            },
            "sleep" if matches!(first, Some("infinity" | "inf")) => Err(Stop::End(End::Never)),
            "sleep" => match first.and_then(seconds) {
                Some(time) => {
                    self.now = self.now.saturating_add(time);
                    Ok(0)
                }
                None => Err(self.unknown(words.join(" "), true)),
            },
            "tail" if *arguments == ["-f", "/dev/null"] => Err(Stop::End(End::Never)),
            "cat" if arguments.is_empty() && last => Err(Stop::End(End::Copies)),
            "cat" if !arguments.is_empty() && !arguments.iter().any(|a| a.starts_with('-')) => {
                let mut code = 0;
                for path in arguments {
                    match self.world.file(path) {
                        Some(bytes) => self.write(to, bytes),
                        None => {
                            let text =
                                format!("cat: {path}: not a file that this simulated container knows\n");
                            self.write(Stream::Stderr, text.into_bytes());
                            code = 1;
                        }
                    }
                }
                Ok(code)
            }
            "sh" | "bash" | "ash" | "dash" => match (first, arguments.get(1)) {
                (Some("-c" | "-ec" | "-xc" | "-lc"), Some(text)) if depth < DEPTH_MAX => {
                    match self.script(text, depth + 1, last) {
                        // Within a shell, the end of another is its code.
                        Err(Stop::Exit(code)) if depth > 0 => Ok(code),
                        other => other,
                    }
                }
                (None | Some("-i" | "-l"), None) if last => Err(Stop::End(End::Reads)),
                _ => Err(self.unknown(words.join(" "), true)),
            },
            _ => Err(self.unknown(program.clone(), true)),
        }
    }
}

impl Parser<'_> {
    fn whole(mut self) -> Result<Vec<Item>, String> {
        let items = self.list(0)?;
        match self.peek() {
            None => Ok(items),
            Some(_) => Err("done without a loop".into()),
        }
    }
}

/// `5`, `0.2`, `3s`, `2m`, `1h`.
fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.char_indices().next_back()? {
        (i, 's') => (text.get(..i)?, 1.0),
        (i, 'm') => (text.get(..i)?, 60.0),
        (i, 'h') => (text.get(..i)?, 3600.0),
        (i, 'd') => (text.get(..i)?, 86400.0),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    Duration::try_from_secs_f64(number * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed;

    impl World for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "WHO").then(|| "world".into())
        }

        fn environment(&self) -> Vec<(String, String)> {
            Vec::from([("WHO".into(), "world".into())])
        }

        fn hostname(&self) -> String {
            "web-0".into()
        }

        fn directory(&self) -> String {
            "/".into()
        }

        fn file(&self, path: &str) -> Option<Vec<u8>> {
            (path == "/etc/hostname").then(|| b"web-0\n".to_vec())
        }
    }

    fn of(words: &[&str]) -> Run {
        run(&words.iter().map(ToString::to_string).collect::<Vec<_>>(), &Fixed)
    }

    fn sh(text: &str) -> Run {
        of(&["/bin/sh", "-c", text])
    }

    /// Both outputs, as one text, with the time of each write in milliseconds.
    fn shown(run: &Run) -> Vec<(u128, char, String)> {
        let of = |w: &Write| {
            let stream = if w.stream == Stream::Stdout { 'o' } else { 'e' };
            (w.after.as_millis(), stream, String::from_utf8_lossy(&w.bytes).into_owned())
        };
        run.writes.iter().map(of).collect()
    }

    fn exit(run: &Run) -> (u128, i32) {
        match run.end {
            End::Exit(at, code) => (at.as_millis(), code),
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn programs() {
        assert_eq!(shown(&of(&["echo", "a", "b"])), [(0, 'o', "a b\n".into())]);
        assert_eq!(shown(&of(&["echo", "-n", "a"])), [(0, 'o', "a".into())]);
        assert_eq!(shown(&of(&["hostname"])), [(0, 'o', "web-0\n".into())]);
        assert_eq!(shown(&of(&["/usr/bin/env"])), [(0, 'o', "WHO=world\n".into())]);
        assert_eq!(shown(&of(&["cat", "/etc/hostname"])), [(0, 'o', "web-0\n".into())]);
        assert_eq!(exit(&of(&["cat", "/nope"])), (0, 1));
        assert_eq!(exit(&of(&["printenv", "NOPE"])), (0, 1));
        assert_eq!(exit(&of(&["sleep", "1.5"])), (1500, 0));
        assert_eq!(exit(&of(&["false"])), (0, 1));
        assert_eq!(of(&["sleep", "infinity"]).end, End::Never);
        assert_eq!(of(&["cat"]).end, End::Copies);
        assert_eq!(of(&["sh"]).end, End::Reads);
        let unknown = End::Unknown { at: Duration::ZERO, what: "nginx".into(), program: true };
        assert_eq!(of(&["nginx", "-g"]).end, unknown);
    }

    #[test]
    fn scripts() {
        let run = sh("echo \"hello $WHO\"; sleep 2; echo 'bye $WHO' >&2; exit 3; echo never");
        assert_eq!(shown(&run), [(0, 'o', "hello world\n".into()), (2000, 'e', "bye $WHO\n".into())]);
        assert_eq!(exit(&run), (2000, 3));
        assert_eq!(
            shown(&sh("false && echo a || echo b; echo $?")),
            [(0, 'o', "b\n".into()), (0, 'o', "0\n".into())]
        );
        assert_eq!(exit(&sh("false")), (0, 1));
        assert_eq!(
            shown(&sh("for i in 1 2; do echo ${i}; sleep 1; done")),
            [(0, 'o', "1\n".into()), (1000, 'o', "2\n".into())]
        );
        assert_eq!(shown(&sh("echo a > /dev/null 2>&1; sh -c 'exit 4'; echo $?")), [(0, 'o', "4\n".into())]);
        assert_eq!(exit(&sh("echo hi # a remark\n")), (0, 0));
    }

    #[test]
    fn endless_loops_are_described_not_run() {
        let run = sh("echo start; while true; do echo tick; sleep 0.5; done");
        let end = End::Loops { first: 1, from: Duration::ZERO, period: Duration::from_millis(500) };
        assert_eq!((run.end, run.writes.len()), (end, 2));
        assert!(matches!(sh("while :; do echo x; done").end, End::Unknown { program: false, .. }));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, what) in [
            ("ls | wc", "|"),
            ("echo $(date)", "$("),
            ("i=0", "an assignment"),
            ("if true; then echo; fi", "if"),
            ("while read x; do echo; done", "while with a condition"),
            ("echo 'a", "an open quote"),
            ("echo > /tmp/x", ">"),
            ("done", "done without a loop"),
        ] {
            let expected = End::Unknown { at: Duration::ZERO, what: what.into(), program: false };
            assert_eq!(sh(text).end, expected, "{text}");
        }
        let run = sh("echo a; sleep 1; date");
        let end = End::Unknown { at: Duration::from_secs(1), what: "date".into(), program: true };
        assert_eq!((run.writes.len(), run.end), (1, end));
        // A program that would read its input in the middle.
        assert!(matches!(sh("cat; echo").end, End::Unknown { .. }));
    }

    proptest! {
        /// Any text ends in bounded time, and what it writes is in order.
        #[test]
        fn never_runs_on(text in "[a-z0-9 ;&|$'\"{}>\\n=?:#]{0,80}|((for i in a b c; do |while true; do |echo |sleep 1; |done; ){0,12})") {
            let run = sh(&text);
            prop_assert!(run.writes.is_sorted_by_key(|w| w.after));
        }
    }
}
