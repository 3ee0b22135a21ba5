//! The mapping: its size, its pages, its pieces, what a forked child sees.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_memory::{Config, Error, Slab};
use std::sync::Mutex;

const MIB: u64 = 1 << 20;

/// Tests here read the counters of the whole process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn status_bytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_budget_is_rounded_down_and_never_passed() {
    let _alone = alone();
    let before = status_bytes("VmRSS:") + status_bytes("HugetlbPages:");
    let slab = Slab::map(&Config { budget_bytes: 100 * MIB + 5000, ..Config::default() }).unwrap();
    let after = status_bytes("VmRSS:") + status_bytes("HugetlbPages:");
    assert_eq!(slab.pages(), 100);
    let obtained = slab.obtained();
    assert_eq!(obtained.bytes, 100 * MIB);
    assert_eq!(obtained.hugetlb_bytes + obtained.transparent_bytes + obtained.small_bytes, 100 * MIB);
    assert!(obtained.locked_bytes <= 100 * MIB);
    let steps = obtained.stepped_down.len();
    assert!(steps > 0 || obtained.hugetlb_bytes == 100 * MIB && obtained.locked_bytes == 100 * MIB);
    // All of it is populated, and nothing but the slab's small tables beside it (1 MiB is generous for 100 pages).
    let grown = after - before;
    assert!((100 * MIB..101 * MIB).contains(&grown), "the process grew by {grown} bytes: {obtained}");
    drop(slab);
    let end = status_bytes("VmRSS:") + status_bytes("HugetlbPages:");
    assert!(end < before + MIB, "{before} bytes before, {end} after");
}

#[test]
fn no_span_crosses_a_piece_and_neighbours_are_joined() {
    let _alone = alone();
    let config = Config { budget_bytes: 7 * MIB, page_bytes: MIB as usize, piece_bytes: 4 * MIB as usize };
    let slab = Slab::map(&config).unwrap();
    let pieces: Vec<_> = slab.pieces().collect();
    assert_eq!(pieces.iter().map(|piece| piece.bytes as u64).collect::<Vec<_>>(), [4 * MIB, 3 * MIB]);
    assert_eq!(pieces[1].address, pieces[0].address + pieces[0].bytes);
    let slot = slab.allocate(7 * MIB).unwrap();
    let spans: Vec<_> = slot.spans(0, 7 * MIB).collect();
    assert_eq!(spans.len(), 2, "fresh pages are neighbours: {spans:?}");
    for (span, piece) in spans.iter().zip(&pieces) {
        assert_eq!((span.address, span.bytes, span.piece), (piece.address, piece.bytes, Some(piece.index)));
    }
    let inner: Vec<_> = slot.spans(3 * MIB + 4096, MIB).collect();
    assert_eq!(inner.iter().map(|span| span.bytes as u64).collect::<Vec<_>>(), [MIB - 4096, 4096]);
    assert_eq!(inner[0].address, pieces[0].address + 3 * MIB as usize + 4096);
}

#[test]
fn padding_is_zero_even_in_a_page_used_before() {
    let _alone = alone();
    let slab = Slab::map(&Config { budget_bytes: MIB, ..Config::default() }).unwrap();
    let mut slot = slab.allocate(MIB).unwrap();
    slot.parts_mut().for_each(|part| part.fill(0xA5));
    drop(slot);
    let slot = slab.allocate(5000).unwrap();
    let span = slot.spans(5000, 8192 - 5000).next().unwrap();
    let padding = std::ptr::with_exposed_provenance::<u8>(span.address);
    // SAFETY: the span lies in the slot, which is alive and not being written.
    let padding = unsafe { std::slice::from_raw_parts(padding, span.bytes) };
    assert!(padding.len() == 3192 && padding.iter().all(|byte| *byte == 0));
    assert_eq!(slot.parts().next().unwrap()[4999], 0xA5, "the rest is as it was left");
}

#[test]
#[should_panic(expected = "bytes 4096+4097 of a slot of 8192")]
fn a_span_behind_the_padding_is_refused() {
    let _alone = alone();
    let slab = Slab::map(&Config { budget_bytes: MIB, ..Config::default() }).unwrap();
    let slot = slab.allocate(5000).unwrap();
    let _ = slot.spans(4096, 4097).count();
}

#[test]
fn a_bad_config_is_refused_before_anything_is_mapped() {
    let error = Slab::map(&Config { budget_bytes: 10, ..Config::default() }).unwrap_err();
    assert!(matches!(&error, Error::Config(problems) if problems[0].key == "host.budget"), "{error}");
}

#[test]
fn a_forked_child_is_refused_and_does_not_have_the_memory() {
    let _alone = alone();
    let slab = Slab::map(&Config { budget_bytes: 4 * MIB, ..Config::default() }).unwrap();
    let held = slab.allocate(MIB).unwrap();
    let address = slab.pieces().next().unwrap().address;
    slab.check_owner().unwrap();
    // SAFETY: the child calls only what needs no lock that another thread may hold (loads, a system call), and leaves
    // with _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = slab.allocate(MIB).is_none() && matches!(slab.check_owner(), Err(Error::Forked { .. }));
        // mincore fails with ENOMEM where nothing is mapped.
        let mut resident = 0u8;
        // SAFETY: the call writes one byte, for one page, to `resident`.
        let absent =
            unsafe { libc::mincore(std::ptr::without_provenance_mut(address), 4096, &raw mut resident) }
                == -1;
        // SAFETY: ends the child without running destructors of the parent's values.
        unsafe { libc::_exit(i32::from(!refused) + 2 * i32::from(!absent)) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: waits for the child made above; `status` is an int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "1: allocate was not refused, 2: the memory is mapped");
    drop(held);
    assert_eq!(slab.pages_free(), 4);
}
