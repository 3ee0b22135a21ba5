//! `hoist doctor [DIR…]`

use std::path::PathBuf;

use crate::doctor::Diagnosis;
use crate::failure::Failure;
use crate::output;

/// Says what this machine can do, what that costs, and what mends it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories that a store may go to; without any, the current one.
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Also writes the lines here, as JSON; docs/doctor.md describes its keys.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When something is broken, so that hoist cannot work here, or the JSON cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    Failure::unless_right(Ok(()), output::json_problem(args.json.as_deref()))?;
    let here = [PathBuf::from(".")];
    let directories = if args.directories.is_empty() { &here[..] } else { &args.directories };
    let diagnosis = Diagnosis::of(directories);
    let lines: String = diagnosis.lines.iter().map(|line| format!("{line}\n")).collect();
    let printed = output::print(lines);
    output::write_json(&diagnosis, args.json.as_deref()).and(printed)?;
    let things = match diagnosis.broken() {
        0 => return Ok(()),
        1 => "1 thing is broken".to_owned(),
        broken => format!("{broken} things are broken"),
    };
    Err(Failure::work("examining this machine", things, "do what the lines above say"))
}
