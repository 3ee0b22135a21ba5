//! io_uring, by a read through a ring, and who refuses it.

use hoist_io::memory::{self, Slab};
use hoist_io::{BackendChoice, Config, Error, Obtained, open};
use rustix::io::Errno;

use super::process::{CAP_SYS_ADMIN, Status};
use super::{Finding, kernel, lock};

/// A ring that is opened on it registers this much: one huge page.
const SLAB_BYTES: u64 = 2 << 20;
/// The first Linux with io_uring (io_uring_setup(2)).
const KERNEL_FIRST: (u32, u32) = (5, 1);
/// What hoist does without io_uring.
const COST: &str =
    "threads that call pread instead of a ring: a context switch per block, and 64 blocks at a time at most";

/// The line, and whether transfers go through rings.
pub struct Ring {
    pub line: Finding,
    pub works: bool,
}

/// Opens a ring as a store does, which reads 4 KiB through it and compares them.
pub fn examine() -> Ring {
    let config = Config { backend: BackendChoice::Uring, ..Config::default() };
    let slab = Slab::map(&memory::Config { budget_bytes: SLAB_BYTES, ..memory::Config::default() });
    let opened = slab.map_err(Error::from).and_then(|slab| open(&config, &slab));
    match opened {
        Ok(backend) => Ring { line: describe(backend.obtained()), works: true },
        Err(error) => Ring { line: refused(&error), works: false },
    }
}

/// What a ring that works was obtained with.
fn describe(obtained: &Obtained) -> Finding {
    const NAME: &str = "io_uring";
    const TIME: &str = "more processor time per block";
    let read = format!("4 KiB read through a ring ({})", obtained.ring_flags.join("|"));
    if obtained.stepped_down.is_empty() {
        return Finding::ok(NAME, format!("{read}, memory registered once for all rings"));
    }
    let found = format!("{read}; {}", obtained.stepped_down.join("; "));
    match obtained.registration_advice {
        Some(advice) if obtained.registered_pieces == 0 || obtained.registered_once => {
            Finding::degraded(NAME, found, TIME, advice)
        }
        _ if !obtained.registered_once => {
            let cost = "host.budget counts against the limit of locked memory once for each directory";
            Finding::degraded(NAME, found, cost, "boot Linux 6.12.21 or later")
        }
        _ => Finding::degraded(NAME, found, TIME, "boot Linux 6.1 or later"),
    }
}

fn refused(error: &Error) -> Finding {
    let Error::NoRing { call, source, .. } = error else {
        return Finding::degraded("io_uring", error.to_string(), COST, "see what the other lines say");
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let facts = Facts {
        status: Status::here(),
        disabled: disabled.and_then(|digits| digits.trim().parse().ok()),
        kernel: kernel::running(),
    };
    let (cause, mend) = facts.explain(Errno::from_io_error(source));
    Finding::degraded("io_uring", format!("{call}: {source}: {cause}"), COST, mend)
}

/// What tells one refusal from another: the error is the same for most.
struct Facts {
    status: Status,
    /// `kernel.io_uring_disabled`, Linux 6.6: 1 for those without rights, 2 for all. It reads 0 inside a container whose
    /// seccomp profile refuses io_uring.
    disabled: Option<u32>,
    kernel: Option<(u32, u32)>,
}

impl Facts {
    /// Who refuses with this error, and what mends that.
    fn explain(&self, errno: Option<Errno>) -> (String, &'static str) {
        let refused = [Errno::PERM, Errno::NOSYS, Errno::ACCESS].map(Some).contains(&errno);
        let is_filtered = refused && self.status.is_filtered();
        if errno == Some(Errno::NOSYS) && self.kernel.is_some_and(|version| version < KERNEL_FIRST) {
            let cause = "the kernel is older than io_uring (Linux 5.1)";
            (cause.to_owned(), "boot Linux 6.6.86, 6.12.21 or later")
        } else if errno == Some(Errno::PERM) && self.is_disabled() {
            let level = self.disabled.unwrap_or_default();
            let more = if is_filtered { ", and a seccomp filter holds that may refuse it too" } else { "" };
            let cause = format!("kernel.io_uring_disabled is {level}{more}");
            (cause, "sysctl -w kernel.io_uring_disabled=0")
        } else if is_filtered {
            let cause = "a seccomp filter refuses it, as the default profiles of container engines do";
            (cause.to_owned(), "docker run --security-opt seccomp=config/seccomp-io-uring.json")
        } else if errno == Some(Errno::NOSYS) {
            let cause = "the kernel was built without CONFIG_IO_URING";
            (cause.to_owned(), "boot a kernel that has it")
        } else if refused {
            let cause =
                "no seccomp filter and no sysctl refuses it: a security module may (SELinux, AppArmor)";
            (cause.to_owned(), "ausearch -m AVC -ts recent, and allow what it names")
        } else if errno == Some(Errno::NOMEM) {
            ("the limit of locked memory is too low for a ring".to_owned(), lock::MEND)
        } else {
            ("none of the usual refusals".to_owned(), "see dmesg")
        }
    }

    fn is_disabled(&self) -> bool {
        match self.disabled {
            Some(0) | None => false,
            Some(1) => !self.status.has(CAP_SYS_ADMIN),
            Some(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(errno: Errno, seccomp: u32, disabled: u32, kernel: (u32, u32)) -> (String, &'static str) {
        let status = Status::from(&*format!("CapEff:\t0000000000000000\nSeccomp:\t{seccomp}\n"));
        Facts { status, disabled: Some(disabled), kernel: Some(kernel) }.explain(Some(errno))
    }

    #[test]
    fn what_a_ring_lacks_has_its_cost() {
        let whole = Obtained { registered_pieces: 1, registered_once: true, ..Obtained::default() };
        let line = describe(&whole);
        assert!(line.cost.is_none() && line.found.contains("once for all rings"), "{line}");
        let stepped_down = vec!["what, why".to_owned()];
        let alone = Obtained { registered_once: false, stepped_down: stepped_down.clone(), ..whole.clone() };
        let line = describe(&alone).to_string();
        assert!(line.contains("what, why") && line.contains("once for each directory"), "{line}");
        assert!(line.contains("6.12"), "{line}");
        let registration_advice = Some("let it through");
        let unregistered = Obtained { registered_pieces: 0, registration_advice, ..alone };
        assert!(describe(&unregistered).to_string().contains("let it through"));
        let no_files = Obtained { stepped_down: stepped_down.clone(), registration_advice, ..whole.clone() };
        assert!(describe(&no_files).to_string().contains("let it through"));
        assert!(describe(&Obtained { stepped_down, ..whole }).to_string().contains("Linux 6.1 "));
    }

    #[test]
    fn refusals_are_told_apart() {
        const NEW: (u32, u32) = (6, 12);
        for (found, word) in [
            (explain(Errno::PERM, 2, 0, NEW), "a seccomp filter refuses"),
            (explain(Errno::NOSYS, 2, 0, NEW), "a seccomp filter refuses"),
            (explain(Errno::PERM, 0, 2, NEW), "io_uring_disabled is 2"),
            (explain(Errno::PERM, 0, 1, NEW), "io_uring_disabled is 1"),
            (explain(Errno::PERM, 2, 2, NEW), "seccomp filter holds that may"),
            (explain(Errno::NOSYS, 0, 0, (4, 19)), "older than io_uring"),
            (explain(Errno::NOSYS, 2, 0, (4, 19)), "older than io_uring"),
            (explain(Errno::NOSYS, 0, 0, NEW), "CONFIG_IO_URING"),
            (explain(Errno::PERM, 0, 0, NEW), "security module"),
            (explain(Errno::NOMEM, 2, 0, (5, 10)), "locked memory"),
        ] {
            assert!(found.0.contains(word), "{word} in {found:?}");
        }
    }

    #[test]
    fn a_sysctl_of_one_is_for_those_without_rights() {
        let status = Status::from("CapEff:\t000001ffffffffff\nSeccomp:\t0\n");
        let facts = Facts { status, disabled: Some(1), kernel: Some((6, 12)) };
        assert!(facts.explain(Some(Errno::PERM)).0.contains("security module"));
    }
}
