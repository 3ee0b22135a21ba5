//! What a slab is made of, and what is wrong with a config.

/// The grain of host memory in transit, of I/O blocks and of a batch of checksums: 1 MiB, where NVMe drives reach
/// their peak (agave, DeepSpeed and our own sweep agree).
pub const PAGE_BYTES_DEFAULT: usize = 1 << 20;

/// What is mapped, locked and registered at a time: 64 MiB. io_uring takes at most 1 GiB per registered buffer, and a
/// machine that refuses one large registration may still take smaller ones.
pub const PIECE_BYTES_DEFAULT: usize = 64 << 20;

/// The alignment that direct I/O never needs more of, and the size of a small memory page on the machines we support.
pub const SECTOR_BYTES: usize = 4096;

/// The size of a huge page on x86-64, and on aarch64 with 4 KiB base pages.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The shape of a slab. [`Config::default`] has no budget: set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes that the slab may map, at most. Rounded down to whole pages, never up.
    pub budget_bytes: u64,
    /// Bytes of a page, a multiple of 4096.
    pub page_bytes: usize,
    /// Bytes of a piece, a multiple of the page and of 2 MiB, at most 1 GiB.
    pub piece_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { budget_bytes: 0, page_bytes: PAGE_BYTES_DEFAULT, piece_bytes: PIECE_BYTES_DEFAULT }
    }
}

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as the user writes it.
    pub key: &'static str,
    /// What is wrong, with the value.
    pub what: String,
    /// A value that would do.
    pub would_be_right: String,
}

impl Config {
    /// Everything that is wrong, at once. Empty when [`crate::Slab::map`] may be tried.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key, what: String, right: &str| {
            problems.push(Problem { key, what, would_be_right: right.to_owned() });
        };
        let page = self.page_bytes;
        if page == 0 || !page.is_multiple_of(SECTOR_BYTES) {
            wrong("host.page", format!("{page} bytes is no multiple of {SECTOR_BYTES}"), "1 MiB");
        } else if !self.piece_bytes.is_multiple_of(page) {
            wrong("host.piece", format!("{} bytes is no multiple of the page", self.piece_bytes), "64 MiB");
        } else if self.budget_bytes < page as u64 {
            let what = format!("{} bytes is less than one page of {page} bytes", self.budget_bytes);
            wrong("host.budget", what, "room for two of the largest units at least");
        } else if self.budget_bytes / page as u64 >= u64::from(u32::MAX) {
            let what = format!("{} bytes is more than 2^32 - 1 pages", self.budget_bytes);
            wrong("host.budget", what, "a larger page or a smaller budget");
        }
        let piece = self.piece_bytes;
        if piece == 0 || !piece.is_multiple_of(HUGE_PAGE_BYTES) || piece > 1 << 30 {
            wrong("host.piece", format!("{piece} bytes is no multiple of 2 MiB up to 1 GiB"), "64 MiB");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_come_at_once() {
        let config = Config { budget_bytes: 1, page_bytes: 1000, piece_bytes: 3 };
        let keys: Vec<_> = config.problems().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["host.page", "host.piece"]);
        let config = Config { budget_bytes: 1 << 19, ..Config::default() };
        assert_eq!(config.problems()[0].key, "host.budget");
        let config = Config { budget_bytes: 1 << 20, ..Config::default() };
        assert!(config.problems().is_empty(), "one page is enough for the slab");
    }
}
