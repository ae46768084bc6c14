//! A whole cluster in one command: `cargo run --release --example full-cluster`.
//!
//! The same file is every program of the cluster: the lab starts it again as machine, daemon, tool or helper of the
//! container runtime.

use std::process::ExitCode;

use clap::Parser as _;
use examples::cluster::{self, options::Options};
use examples::{daemon, lab, tool};
use icp_node::backend::native::helper_main;

fn daemon(args: Vec<String>) -> ExitCode {
    let Some(file) = args.first() else {
        eprintln!("usage: daemon FILE");
        return ExitCode::from(2);
    };
    match daemon::read(file.as_ref()).and_then(daemon::Role::run_to_end) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{file}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn tool(args: Vec<String>) -> ExitCode {
    tool::main(&args)
}

fn main() -> ExitCode {
    if let Some(code) = helper_main(std::env::args_os()) {
        return code;
    }
    if let Some(code) = lab::dispatch(&[("daemon", daemon), ("tool", tool)]) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((word, rest)) if word == "daemon" => return daemon(rest.to_vec()),
        Some((word, rest)) if word == "tool" => return tool(rest.to_vec()),
        _ => {}
    }
    match cluster::run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("full-cluster: {e}");
            ExitCode::from(2)
        }
    }
}
