//! `hoist io DIR…`

use std::path::PathBuf;
use std::sync::Arc;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::io::{self, Call, Given, Report};
use crate::output;

/// Measures directories through the I/O that stores use, all at once, as fio would.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories to measure, best on a drive each; a file hoist-io.data is made in each of them.
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Leaves the files behind: the next run reads and writes the same ones.
    #[arg(long)]
    keep: bool,
    /// Also writes the report here, as JSON; docs/io.md describes its keys.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When the call is wrong, a file cannot be made, read or written, or the run was interrupted.
pub fn run(args: &Args) -> Result<(), Failure> {
    let problem = output::json_problem(args.json.as_deref());
    let call = Failure::unless_right(Call::read(&args.directories, &args.given, args.keep), problem)?;
    let interrupt = Interrupt::install()?;
    let json = args.json.clone();
    let publish = move |report: &Report| {
        let printed = output::print(io::print(report));
        output::write_json(report, json.as_deref()).and(printed)
    };
    io::run(&call, &interrupt, Arc::new(publish))
}
