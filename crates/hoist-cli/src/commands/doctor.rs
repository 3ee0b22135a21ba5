//! `hoist doctor [DIR…]`

use std::path::PathBuf;

use crate::doctor::{self, State};
use crate::failure::Failure;

/// Says what this machine can do, and what to change.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories that a store may go to; without any, the current one.
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When something is broken, so that hoist cannot work here.
pub fn run(args: &Args) -> Result<(), Failure> {
    let here = [PathBuf::from(".")];
    let directories = if args.directories.is_empty() { &here[..] } else { &args.directories };
    let findings = doctor::examine(directories);
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.iter().filter(|finding| finding.state == State::Broken).count();
    if broken == 0 {
        return Ok(());
    }
    Err(Failure::work(
        "examining this machine",
        format!("{broken} things are broken"),
        "do what the lines above say",
    ))
}
