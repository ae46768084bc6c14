//! A whole cluster in one command: `cargo run --release --example full-cluster`.
//!
//! The same file is every daemon of the cluster: `full-cluster daemon FILE` runs the one that FILE configures.

use std::process::ExitCode;

use clap::Parser as _;
use examples::cluster::{self, options::Options};
use examples::daemon;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.get(1..) {
        Some([word, file]) if word == "daemon" => {
            daemon::read(file.as_ref()).and_then(daemon::Role::run_to_end).map(|()| true).map_err(Into::into)
        }
        _ => cluster::run(&Options::parse()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("full-cluster: {e}");
            ExitCode::from(2)
        }
    }
}
