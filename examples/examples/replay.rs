//! Steps through a saved trace of `simulate`:
//!
//! ```text
//! cargo run --release --example replay -- simulate-seed-17.trace                 # step by step
//! cargo run --release --example replay -- simulate-seed-17.trace --until 61.5 --grep 'master|m1' --state
//! ```

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::simulate::replay::{Query, Saved};

/// Steps through a saved trace: lists steps, stops at a time, filters, shows the state at the end.
#[derive(Parser)]
#[command(name = "replay")]
struct Arguments {
    /// The trace.
    file: PathBuf,
    /// Only steps at or after this second.
    #[arg(long)]
    from: Option<f64>,
    /// Only steps up to this second.
    #[arg(long)]
    until: Option<f64>,
    /// Only steps that contain this text; `a|b` for one of two.
    #[arg(long)]
    grep: Option<String>,
    /// Only steps of this host.
    #[arg(long)]
    host: Option<String>,
    /// Only the last so many.
    #[arg(long)]
    last: Option<usize>,
    /// Shows the state at the end after the steps.
    #[arg(long)]
    state: bool,
}

const HELP: &str =
    "enter: next 20   N: next N   /TEXT: next with TEXT   @T: from second T   s: state at the end   q: end";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let saved = std::fs::read_to_string(&arguments.file)
        .map_err(|e| e.to_string())
        .and_then(|text| Saved::parse(text).map_err(|e| e.to_string()));
    let saved = match saved {
        Ok(saved) => saved,
        Err(e) => {
            eprintln!("{}: {e}", arguments.file.display());
            return ExitCode::FAILURE;
        }
    };
    let out = std::io::stdout();
    let plain = arguments.from.is_some()
        || arguments.until.is_some()
        || arguments.grep.is_some()
        || arguments.host.is_some()
        || arguments.last.is_some()
        || arguments.state
        || !std::io::stdin().is_terminal()
        || !out.is_terminal();
    let shown = if plain { list(&saved, &arguments) } else { step(&saved) };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn list(saved: &Saved, arguments: &Arguments) -> std::io::Result<()> {
    let query = Query {
        from: arguments.from,
        until: arguments.until,
        grep: arguments.grep.clone(),
        host: arguments.host.clone(),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "{}", saved.header())?;
    let found = saved.find(&query);
    let skip = arguments.last.map_or(0, |last| found.len().saturating_sub(last));
    for at in found.iter().skip(skip) {
        writeln!(out, "{at:>7} {}", saved.step(*at))?;
    }
    writeln!(out, "{} of {} steps", found.len() - skip, saved.steps())?;
    if arguments.state {
        saved.state().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    out.flush()
}

fn step(saved: &Saved) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}\n{} steps. {HELP}", saved.header(), saved.steps())?;
    let mut at = 0;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        write!(out, "{at}> ")?;
        out.flush()?;
        let Some(line) = lines.next().transpose()? else { return Ok(()) };
        let line = line.trim();
        let mut show = |from: usize, many: usize| -> std::io::Result<usize> {
            let end = from.saturating_add(many).min(saved.steps());
            (from..end).try_for_each(|i| writeln!(out, "{i:>7} {}", saved.step(i)))?;
            Ok(end)
        };
        if line == "q" {
            return Ok(());
        } else if line == "s" {
            saved.state().try_for_each(|line| writeln!(out, "{line}"))?;
        } else if let Some(text) = line.strip_prefix('/') {
            let query = Query { grep: Some(text.into()), ..Query::default() };
            match saved.find(&query).into_iter().find(|i| *i >= at) {
                Some(found) => at = show(found, 1)?,
                None => writeln!(out, "no step from {at} on has it")?,
            }
        } else if let Some(second) = line.strip_prefix('@').and_then(|t| t.parse().ok()) {
            let query = Query { from: Some(second), ..Query::default() };
            at = show(saved.find(&query).first().copied().unwrap_or(saved.steps()), 20)?;
        } else if line.is_empty() {
            at = show(at, 20)?;
        } else if let Ok(many) = line.parse() {
            at = show(at, many)?;
        } else {
            writeln!(out, "{HELP}")?;
        }
    }
}
