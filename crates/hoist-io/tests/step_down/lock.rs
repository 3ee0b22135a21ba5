//! Less memory may be locked than there is.

use crate::bytes::{backend, check, slab, step};
use crate::child;
use crate::ring::has_ring;

/// Less than one piece of the slab; what Linux gave by default before 5.16.
const LIMIT_BYTES: u64 = 64 << 10;

/// The effective capabilities, as `/proc/self/status` has them.
fn capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(digits.trim(), 16).unwrap()
}

#[test]
fn a_low_limit_of_locked_memory_leaves_pages_unlocked_and_unregistered() {
    let Some(folder) = child::folder() else {
        if !child::is_root() && capabilities() != 0 {
            return println!(
                "skipped: no limit holds for a user with capabilities, and only root can drop them"
            );
        }
        return child::run(
            "lock::a_low_limit_of_locked_memory_leaves_pages_unlocked_and_unregistered",
            |command| {
                child::drop_rights(command);
                child::set(command, || {
                    let limit = libc::rlimit { rlim_cur: LIMIT_BYTES, rlim_max: LIMIT_BYTES };
                    // SAFETY: the call reads the limit, which outlives it.
                    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }
                });
            },
        );
    };
    assert_eq!(capabilities(), 0);
    let slab = slab();
    let memory = slab.obtained();
    assert_eq!(memory.locked_bytes, 0, "{memory}");
    step(&memory.stepped_down, &["0 of 4194304 bytes locked", "ulimit -l", "CAP_IPC_LOCK"]);
    let mut backend = backend(&slab);
    check(&mut *backend, &slab, &folder);
    let obtained = backend.obtained();
    if obtained.backend == "uring" {
        assert_eq!(obtained.registered_pieces, 0, "{obtained}");
        step(&obtained.stepped_down, &["unregistered memory", "(os error 12)", "ulimit -l"]);
    } else {
        // A kernel whose rings are locked memory, too (before 5.12), or none at all.
        step(&obtained.stepped_down, &["pread instead of io_uring"]);
        println!("io_uring otherwise: {}", has_ring());
    }
}
