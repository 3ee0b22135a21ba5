//! How much memory may be locked.

use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::process::{CAP_IPC_LOCK, Status};
use crate::config::units::format_bytes;

/// What the smallest useful run locks: `host.budget` of `config/quickstart.toml`. Registering it with rings counts
/// against the same limit, but is not added to it.
const WANTED_BYTES: u64 = 512 << 20;

/// What lets memory be locked.
pub const MEND: &str =
    "ulimit -l unlimited (a container: docker run --ulimit memlock=-1:-1, or --cap-add IPC_LOCK)";

/// RLIMIT_MEMLOCK against what is wanted.
pub fn examine() -> Finding {
    judge(getrlimit(Resource::Memlock).current, &Status::here())
}

fn judge(limit_bytes: Option<u64>, status: &Status) -> Finding {
    const NAME: &str = "lockable memory";
    let Some(bytes) = limit_bytes else { return Finding::ok(NAME, "unlimited") };
    let found = format!("{} (ulimit -l)", format_bytes(bytes));
    if status.has(CAP_IPC_LOCK) {
        Finding::ok(NAME, format!("{found}, which does not hold with CAP_IPC_LOCK"))
    } else if bytes >= WANTED_BYTES {
        Finding::ok(NAME, format!("{found}: keep host.budget below it"))
    } else {
        let found = format!("{found} of the {} that quickstart wants", format_bytes(WANTED_BYTES));
        let cost =
            "host memory beyond it may be swapped out, and is looked up page by page for each transfer";
        Finding::degraded(NAME, found, cost, MEND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn limits_hold_without_the_capability_only() {
        let (nobody, root) = (Status::from(""), Status::from("CapEff:\t0000000000004000\n"));
        assert_eq!(judge(Some(8 << 20), &nobody).state, State::Degraded);
        assert_eq!(judge(Some(8 << 20), &root).state, State::Ok);
        assert_eq!(judge(Some(1 << 30), &nobody).state, State::Ok);
        assert_eq!(judge(None, &nobody).state, State::Ok);
    }

    #[test]
    fn what_is_wanted_is_what_quickstart_wants() {
        let text = include_str!("../../../../config/quickstart.toml");
        let config: toml::Table = text.parse().unwrap();
        let budget = config["host"]["budget"].as_str().unwrap();
        assert_eq!(crate::config::units::parse_bytes(budget), Some(WANTED_BYTES));
    }
}
