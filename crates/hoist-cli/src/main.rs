//! The command `hoist`.
//!
//! Each command is a module of [`commands`] that turns arguments into work and work into text; what takes more than
//! that has a module of its own: [`config`], [`model`], [`bench`], [`report`].

#![forbid(unsafe_code)]

mod bench;
mod commands;
mod config;
mod contents;
mod failure;
mod interrupt;
mod model;
mod report;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps a model's state in device memory, host memory and NVMe, and moves every byte before it is asked for.
#[derive(Debug, Parser)]
#[command(name = "hoist", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    // clap ends the process with status 2 when the call is wrong.
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .init();
    let result = match &cli.command {
        Command::Bench(args) => commands::bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hoist: {failure}");
            failure.status()
        }
    }
}
