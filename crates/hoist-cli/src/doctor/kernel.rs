//! The kernel's version.

use super::Finding;

/// Without MADV_POPULATE_WRITE (Linux 5.14, madvise(2)) host memory cannot be filled.
const KERNEL_LEAST: (u32, u32) = (5, 14);
/// Oldest kernel with all that hoist's rings use (single issuer, deferred work; io_uring_setup(2)).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Oldest series without spurious errors that were fixed later (ENOMEM, fixed in 6.6.86 and 6.12.21; seastar issue
/// 2728).
const KERNEL_GOOD: (u32, u32) = (6, 6);

/// Whether the kernel is new enough.
pub fn examine() -> Finding {
    judge(&release())
}

/// Major and minor version of the running kernel.
pub fn running() -> Option<(u32, u32)> {
    version(&release())
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn judge(release: &str) -> Finding {
    let mend = "boot Linux 6.6.86, 6.12.21 or later";
    match version(release) {
        Some(version) if version >= KERNEL_GOOD => Finding::ok("kernel", release),
        Some(version) if version >= KERNEL_MIN => {
            let cost =
                "io_uring may refuse transfers for want of memory where there is enough; they are retried";
            Finding::degraded("kernel", release, cost, mend)
        }
        Some(version) if version < KERNEL_LEAST => {
            let cost = "host memory cannot be filled before it is used (MADV_POPULATE_WRITE, Linux 5.14)";
            Finding::broken("kernel", release, cost, mend)
        }
        Some(_) => {
            let cost =
                "rings without SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1): more processor time per block";
            Finding::degraded("kernel", release, cost, mend)
        }
        None => Finding::degraded("kernel", release, "what it can do is known by trying only", mend),
    }
}

/// Major and minor version of a release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn releases_have_versions() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn older_kernels_are_worse() {
        let states = ["6.12.30", "6.1.0-13-amd64", "5.15.0-91", "5.10.0", "next"];
        let states = states.map(|release| judge(release).state);
        let expected = [State::Ok, State::Degraded, State::Degraded, State::Broken, State::Degraded];
        assert_eq!(states, expected);
    }
}
