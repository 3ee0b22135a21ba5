//! `hoist snapshot list|create|delete|rollback`

use std::path::PathBuf;

use clap::Subcommand;

use super::ls::epoch_text;
use super::opened;
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Keeps epochs of a store under names, and goes back to them. No bytes are copied.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists all snapshots.
    List {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Keeps the newest epoch under a name.
    Create {
        /// The name.
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Keeps a snapshot no more.
    Delete {
        /// The name.
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Makes a new epoch of what a snapshot has. The snapshot stays, and so do all others.
    Rollback {
        /// The name.
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// The store's directory; more than once for more drives.
    #[arg(long, value_name = "DIR", required = true)]
    store: Vec<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When the store cannot be opened, has no such snapshot or has one already.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (Action::List { store: directories }
    | Action::Create { store: directories, .. }
    | Action::Delete { store: directories, .. }
    | Action::Rollback { store: directories, .. }) = &args.action;
    let mut store = opened::open(&directories.store)?;
    let failed = |doing: &str, error| Failure::Work(format!("{doing}: {error}"));
    let said = match &args.action {
        Action::List { .. } => {
            let space = store.store().space();
            let line = |(name, epoch): (&str, _)| {
                let alone = space.by_snapshot.get(name).copied().unwrap_or_default();
                format!("{name}: {}; {} are free without it\n", epoch_text(&epoch), format_bytes(alone))
            };
            Ok(store.store().snapshots().map(line).collect())
        }
        Action::Create { name, .. } => store
            .snapshot(name)
            .map(|()| format!("snapshot {name:?} is {}\n", epoch_text(&store.store().newest())))
            .map_err(|error| failed("making a snapshot", error)),
        Action::Delete { name, .. } => store
            .delete_snapshot(name)
            .map(|()| format!("snapshot {name:?} is deleted\n"))
            .map_err(|error| failed("deleting a snapshot", error)),
        Action::Rollback { name, .. } => store
            .rollback_to(name)
            .map(|_| format!("{} is what snapshot {name:?} has\n", epoch_text(&store.store().newest())))
            .map_err(|error| failed("going back to a snapshot", error)),
    };
    output::print(opened::close(store, said)?)
}
