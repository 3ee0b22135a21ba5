//! `hoist bench CONFIG`

use std::path::PathBuf;
use std::sync::Arc;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::report::{self, Report};
use crate::{bench, config};

/// Runs a workload through the tiers, checks every byte, and reports.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config of the run, such as config/quickstart.toml.
    config: PathBuf,
    /// Replaces one key of the config; may be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Also writes the report here, as JSON; docs/report.md describes its keys.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When the config is wrong, the work fails, bytes were wrong, or the run was interrupted.
pub fn run(args: &Args) -> Result<(), Failure> {
    let problem = output::json_problem(args.json.as_deref());
    let config = Failure::unless_right(config::load(&args.config, &args.sets), problem)?;
    for note in &config.notes {
        eprintln!("{note}");
    }
    let interrupt = Interrupt::install()?;
    let json = args.json.clone();
    let publish = move |report: &Report| {
        let printed = output::print(report::print(report));
        output::write_json(report, json.as_deref()).and(printed)
    };
    bench::run(&config, &interrupt, Arc::new(publish))
}
