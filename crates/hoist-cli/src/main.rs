//! The command `hoist`.
//!
//! Each command is a module of [`commands`] that turns arguments into work and work into text; what takes more than
//! that has a module of its own: [`config`], [`model`], [`bench`], [`io`], [`tune`], [`report`],
//! [`doctor`].

#![forbid(unsafe_code)]

mod bench;
mod commands;
mod config;
mod contents;
mod doctor;
mod failure;
mod interrupt;
mod io;
mod model;
mod output;
mod report;
mod tune;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
    Import(commands::import::Args),
    Export(commands::export::Args),
    Ls(commands::ls::Args),
    Verify(commands::verify::Args),
    Snapshot(commands::snapshot::Args),
    Gc(commands::gc::Args),
    Io(commands::io::Args),
    Tune(commands::tune::Args),
    Doctor(commands::doctor::Args),
}

fn main() -> ExitCode {
    // clap ends the process with status 2 when the call is wrong.
    let cli = Cli::parse();
    log_to_stderr(matches!(cli.command, Command::Tune(_)));
    let result = match &cli.command {
        Command::Bench(args) => commands::bench::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Ls(args) => commands::ls::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Snapshot(args) => commands::snapshot::run(args),
        Command::Gc(args) => commands::gc::run(args),
        Command::Io(args) => commands::io::run(args),
        Command::Tune(args) => commands::tune::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hoist: {failure}");
            failure.status()
        }
    }
}

/// Warnings of libraries, which name each step down. Those of memory are left out: small pages are usual, cost a
/// short command nothing, and are said by `hoist doctor` and by every report. A command that opens the same files again
/// and again says itself what I/O stepped down from, once.
fn log_to_stderr(reopens: bool) {
    let io = if reopens { LevelFilter::ERROR } else { LevelFilter::WARN };
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("hoist_io", io)
        .with_target("hoist_memory", LevelFilter::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time();
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
