//! `hoist tune DIR…`

use std::path::PathBuf;
use std::sync::Arc;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::tune::{self, Call, Report};

/// Finds the settings of io.* with which directories read and write most, and prints them as a config.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories to tune for, best on a drive each; a file hoist-tune.part is made in each of them.
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// How long it takes for each directory, making the file included. [default: 30, which is the most]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<String>,
    /// Writes the config here, instead of printing it below the table.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the file of --output.
    #[arg(long, requires = "output")]
    force: bool,
    /// Also writes the report here, as JSON; docs/tune.md describes its keys.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When the call is wrong, a file cannot be made, read or written, its numbers would be the page cache's, or the run was
/// interrupted.
pub fn run(args: &Args) -> Result<(), Failure> {
    let output = args.output.as_deref().and_then(|path| tune::check_output(path, args.force).err());
    let problems = output.into_iter().chain(output::json_problem(args.json.as_deref()));
    let call = Failure::unless_right(Call::read(&args.directories, args.seconds.as_deref()), problems)?;
    let interrupt = Interrupt::install()?;
    let (names, json) = (call.names.clone(), args.json.clone());
    let (output, force) = (args.output.clone(), args.force);
    let shown: Vec<String> = call.directories.iter().map(|path| path.display().to_string()).collect();
    let publish = move |report: &Report| {
        let table = tune::print(report, &shown);
        // What was found before its time says too little to be used.
        let setting = report.chosen.filter(|_| !report.partial).map(|chosen| chosen.setting);
        let text = setting.map(|setting| tune::text(&table, &names, setting)).transpose()?;
        let printed = match (&text, &output) {
            (Some(text), None) => output::print(text),
            _ => output::print(&table),
        };
        if let (Some(text), Some(path)) = (&text, &output) {
            tune::write(path, text, force)?;
        }
        output::write_json(report, json.as_deref()).and(printed)
    };
    tune::run(&call, &interrupt, Arc::new(publish))
}
