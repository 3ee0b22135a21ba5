//! No huge pages, of either kind.

use crate::bytes::{backend, check, slab, step};
use crate::{child, filter};

#[test]
fn without_huge_pages_there_are_small_ones() {
    let Some(folder) = child::folder() else {
        return child::run("pages::without_huge_pages_there_are_small_ones", |command| {
            filter::refuse_hugetlb(command);
            child::set(command, || {
                // SAFETY: this prctl reads its arguments only. What it sets outlasts exec (prctl(2)).
                unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }
            });
        });
    };
    let slab = slab();
    let memory = slab.obtained();
    assert_eq!(
        (memory.small_bytes, memory.transparent_bytes, memory.hugetlb_bytes),
        (4 << 20, 0, 0),
        "{memory}"
    );
    step(&memory.stepped_down, &["no hugetlb pages from byte 0 on", "vm.nr_hugepages"]);
    step(&memory.stepped_down, &["4194304 bytes in small pages", "PR_SET_THP_DISABLE"]);
    let mut backend = backend(&slab);
    check(&mut *backend, &slab, &folder);
}
