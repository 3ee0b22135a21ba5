//! Huge pages, and whether memory can be locked, by mapping some as a run does.

use std::fs;

use hoist_io::memory::{self, Obtained, Slab};

use super::{Finding, lock};
use crate::config::units::format_bytes;

/// Mapped to see what pages the machine gives: a few huge ones.
const TRIAL_BYTES: u64 = 16 << 20;
/// The pool of 2 MiB pages (Documentation/admin-guide/mm/hugetlbpage.rst).
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// Whether there are transparent ones (Documentation/admin-guide/mm/transhuge.rst).
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Which pages a slab gets, and whether they can be locked.
pub fn examine() -> Vec<Finding> {
    let config = memory::Config { budget_bytes: TRIAL_BYTES, ..memory::Config::default() };
    let slab = match Slab::map(&config) {
        Ok(slab) => slab,
        Err(error) => {
            let cost = "no slab of host memory, so nothing works";
            let mend = "free memory, or raise what this process may have (ulimit -v, the memory limit below)";
            return vec![Finding::broken("host memory", error.to_string(), cost, mend)];
        }
    };
    let count = |name: &str| fs::read_to_string(format!("{POOL}/{name}")).ok()?.trim().parse().ok();
    let machine = Machine {
        free: count("free_hugepages"),
        all: count("nr_hugepages"),
        setting: chosen(&fs::read_to_string(TRANSPARENT).unwrap_or_default()),
    };
    vec![huge(slab.obtained(), &machine), locked(slab.obtained())]
}

/// What the machine says that it has.
struct Machine {
    /// Hugetlb pages that nobody uses.
    free: Option<u64>,
    all: Option<u64>,
    /// `always`, `madvise` or `never`.
    setting: String,
}

/// The setting in brackets, as in `always [madvise] never`.
fn chosen(line: &str) -> String {
    let chosen = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    chosen.unwrap_or("not in this kernel").to_owned()
}

fn huge(obtained: &Obtained, machine: &Machine) -> Finding {
    let pool = match (machine.free, machine.all) {
        (Some(free), Some(all)) => format!("{free} of {all} hugetlb pages are free"),
        _ => "no hugetlb pages in this kernel".to_owned(),
    };
    let setting = &machine.setting;
    let found = format!(
        "of {}: {} in hugetlb pages, {} in transparent huge pages; {pool}, transparent ones: {setting}",
        format_bytes(obtained.bytes),
        format_bytes(obtained.hugetlb_bytes),
        format_bytes(obtained.transparent_bytes),
    );
    if obtained.small_bytes == 0 {
        return Finding::ok("huge pages", found);
    }
    let cost =
        "small pages: more time in the kernel for each transfer, more misses in the processor's tables";
    let mend = if setting == "never" {
        format!("echo madvise > {TRANSPARENT}")
    } else {
        "sysctl -w vm.nr_hugepages=N, N being host.budget / 2 MiB".to_owned()
    };
    let causes: Vec<_> =
        obtained.stepped_down.iter().filter(|step| !step.contains("mlock")).cloned().collect();
    Finding::degraded("huge pages", format!("{found}; {}", causes.join("; ")), cost, mend)
}

fn locked(obtained: &Obtained) -> Finding {
    if obtained.locked_bytes >= obtained.bytes {
        return Finding::ok("locking", format!("{} locked", format_bytes(obtained.locked_bytes)));
    }
    let found = format!("{} of {} locked", format_bytes(obtained.locked_bytes), format_bytes(obtained.bytes));
    Finding::degraded("locking", found, "what is not locked may be swapped out", lock::MEND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn obtained(hugetlb_bytes: u64, transparent_bytes: u64, locked_bytes: u64) -> Obtained {
        let small_bytes = TRIAL_BYTES - hugetlb_bytes - transparent_bytes;
        let (bytes, stepped_down) = (TRIAL_BYTES, Vec::new());
        Obtained { bytes, hugetlb_bytes, transparent_bytes, small_bytes, locked_bytes, stepped_down }
    }

    #[test]
    fn either_kind_of_huge_page_is_well() {
        let machine = |setting: &str| Machine { free: Some(0), all: Some(8), setting: setting.to_owned() };
        assert_eq!(huge(&obtained(TRIAL_BYTES, 0, 0), &machine("never")).state, State::Ok);
        assert_eq!(huge(&obtained(0, TRIAL_BYTES, 0), &machine("madvise")).state, State::Ok);
        let (never, fragmented) =
            (huge(&obtained(0, 0, 0), &machine("never")), huge(&obtained(0, 0, 0), &machine("always")));
        assert!(never.mend.unwrap().starts_with("echo madvise"));
        assert!(fragmented.mend.unwrap().contains("vm.nr_hugepages"));
        assert!(fragmented.found.contains("0 of 8 hugetlb pages are free"), "{}", fragmented.found);
    }

    #[test]
    fn all_must_be_locked() {
        assert_eq!(locked(&obtained(0, 0, TRIAL_BYTES)).state, State::Ok);
        assert_eq!(locked(&obtained(0, 0, TRIAL_BYTES - 4096)).state, State::Degraded);
    }

    #[test]
    fn the_setting_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen(""), "not in this kernel");
    }
}
