//! Which pages are free: a lock-free stack of page chains.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The end of a chain, and the head of an empty one.
pub(crate) const NO_PAGE: u32 = u32::MAX;

/// The pages of a slab, each in exactly one chain: the stack of free ones, or a slot.
///
/// `next` links the pages of both kinds of chain, so that a slot needs no list of its own. `head` is the top of the
/// stack in its low half and a count of changes in its high half: a walk over the stack is good only if the count did
/// not change meanwhile (the ABA problem; 2^32 changes during one walk do not happen).
pub(crate) struct FreePages {
    next: Box<[AtomicU32]>,
    head: AtomicU64,
    free: AtomicU32,
}

fn pack(change: u64, page: u32) -> u64 {
    (change << 32) | u64::from(page)
}

fn page_of(head: u64) -> u32 {
    (head & u64::from(u32::MAX)) as u32
}

impl FreePages {
    pub(crate) fn new(pages: u32) -> FreePages {
        assert!(pages < NO_PAGE, "{pages} pages");
        let next =
            (1..=pages).map(|page| AtomicU32::new(if page == pages { NO_PAGE } else { page })).collect();
        let top = if pages == 0 { NO_PAGE } else { 0 };
        FreePages { next, head: AtomicU64::new(pack(0, top)), free: AtomicU32::new(pages) }
    }

    pub(crate) fn pages(&self) -> u32 {
        self.next.len() as u32
    }

    pub(crate) fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// The page after `page` in the chain of the slot that owns it.
    pub(crate) fn next(&self, page: u32) -> u32 {
        self.next[page as usize].load(Ordering::Relaxed)
    }

    /// Takes a chain of `pages` (at least one) and returns its first, or None when fewer are free.
    pub(crate) fn take(&self, pages: u32) -> Option<u32> {
        assert!(pages > 0, "a chain has pages");
        // Counted off first: what passes here is in the stack, since `give` counts only after it has pushed.
        self.free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(pages)).ok()?;
        loop {
            let head = self.head.load(Ordering::Acquire);
            let Some(last) = self.walk(page_of(head), pages) else { continue };
            let rest = pack((head >> 32) + 1, self.next[last as usize].load(Ordering::Relaxed));
            if self.head.compare_exchange_weak(head, rest, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.next[last as usize].store(NO_PAGE, Ordering::Relaxed);
                return Some(page_of(head));
            }
        }
    }

    /// The last of `pages` from `first` on; None when a change under way made the walk end early.
    fn walk(&self, first: u32, pages: u32) -> Option<u32> {
        let mut page = first;
        for _ in 1..pages {
            page = self.next.get(page as usize)?.load(Ordering::Relaxed);
        }
        (page != NO_PAGE).then_some(page)
    }

    /// Gives a whole chain back.
    pub(crate) fn give(&self, first: u32, pages: u32) {
        let last = self.walk(first, pages);
        let last = last.unwrap_or_else(|| panic!("the chain from page {first} has fewer than {pages} pages"));
        debug_assert_eq!(self.next(last), NO_PAGE, "the chain from page {first} has more than {pages} pages");
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[last as usize].store(page_of(head), Ordering::Relaxed);
            let top = pack((head >> 32) + 1, first);
            match self.head.compare_exchange_weak(head, top, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        fence(Ordering::Release);
        self.free.fetch_add(pages, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(pages: &FreePages, first: u32) -> Vec<u32> {
        std::iter::successors(Some(first), |page| Some(pages.next(*page)).filter(|next| *next != NO_PAGE))
            .collect()
    }

    #[test]
    fn takes_in_order_and_refuses_what_is_not_there() {
        let pages = FreePages::new(5);
        let first = pages.take(3).unwrap();
        assert_eq!(chain(&pages, first), [0, 1, 2]);
        assert_eq!(pages.take(3), None);
        assert_eq!(pages.free(), 2, "a refusal takes nothing");
        let second = pages.take(2).unwrap();
        assert_eq!(chain(&pages, second), [3, 4]);
        pages.give(first, 3);
        pages.give(second, 2);
        let all = pages.take(5).unwrap();
        assert_eq!(chain(&pages, all), [3, 4, 0, 1, 2]);
    }

    #[test]
    fn threads_never_hold_the_same_page() {
        let pages = FreePages::new(16);
        let held: Vec<AtomicU32> = (0..16).map(|_| AtomicU32::new(0)).collect();
        // Miri is some thousand times slower, and tries many schedules.
        let turns: u32 = if cfg!(miri) { 40 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let (pages, held) = (&pages, &held);
                scope.spawn(move || {
                    for turn in 0..turns {
                        let count = 1 + (thread + turn) % 6;
                        let Some(first) = pages.take(count) else { continue };
                        let chain = chain(pages, first);
                        assert_eq!(chain.len() as u32, count);
                        for page in &chain {
                            assert_eq!(held[*page as usize].swap(thread + 1, Ordering::Relaxed), 0);
                        }
                        for page in &chain {
                            held[*page as usize].store(0, Ordering::Relaxed);
                        }
                        pages.give(first, count);
                    }
                });
            }
        });
        assert_eq!(pages.free(), 16);
        let all = pages.take(16).unwrap();
        assert_eq!(chain(&pages, all).len(), 16, "every page is still there");
    }
}
