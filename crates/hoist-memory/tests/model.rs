//! A slab against a model that is too small to be wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_memory::{Config, Slab, Slot, SlotFiller, SlotReader};
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

const PAGE_BYTES: usize = 8192;
const PAGES: u64 = 24;

/// A slab of 24 pages; its single piece is larger.
fn slab() -> Arc<Slab> {
    let budget_bytes = PAGES * PAGE_BYTES as u64;
    Slab::map(&Config { budget_bytes, page_bytes: PAGE_BYTES, piece_bytes: 2 << 20 }).unwrap()
}

/// The byte at `index` of the slot that was stamped with `stamp`.
fn byte(stamp: u64, index: u64) -> u8 {
    ((stamp * 131 + index) % 251) as u8
}

fn stamp(slot: &mut Slot, stamp: u64) {
    let mut index = 0;
    for part in slot.parts_mut() {
        for place in part {
            *place = byte(stamp, index);
            index += 1;
        }
    }
    assert_eq!(index, slot.bytes());
}

fn check<'part>(parts: impl Iterator<Item = &'part [u8]>, bytes: u64, stamp: u64) {
    let mut index = 0;
    for part in parts {
        for found in part {
            assert_eq!(*found, byte(stamp, index), "byte {index} of stamp {stamp}");
            index += 1;
        }
    }
    assert_eq!(index, bytes);
}

enum Held {
    Writer(Slot),
    Readers(Vec<SlotReader>),
    Fillers(Vec<SlotFiller>),
}

struct Item {
    held: Held,
    bytes: u64,
    stamp: u64,
}

impl Item {
    fn addresses(&self) -> Vec<usize> {
        let spans: Vec<_> = match &self.held {
            Held::Writer(slot) => slot.spans(0, self.bytes).collect(),
            Held::Readers(readers) => readers[0].spans(0, self.bytes).collect(),
            Held::Fillers(fillers) => fillers[0].spans(0, self.bytes).collect(),
        };
        spans.iter().flat_map(|span| (span.address..span.address + span.bytes).step_by(PAGE_BYTES)).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(u64),
    Share(usize),
    Divide(usize),
    Clone(usize),
    DropOne(usize),
    Unshare(usize),
    Rewrite(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6 * PAGE_BYTES as u64).prop_map(Op::Allocate),
        2 => any::<usize>().prop_map(Op::Share),
        1 => any::<usize>().prop_map(Op::Divide),
        2 => any::<usize>().prop_map(Op::Clone),
        4 => any::<usize>().prop_map(Op::DropOne),
        2 => any::<usize>().prop_map(Op::Unshare),
        1 => any::<usize>().prop_map(Op::Rewrite),
    ]
}

/// Does `op` to the item that it picks; whether the item lives on.
fn change(item: &mut Item, op: &Op, stamps: &mut u64) -> bool {
    let held = std::mem::replace(&mut item.held, Held::Readers(Vec::new()));
    item.held = match (held, op) {
        (Held::Writer(slot), Op::Share(_)) => Held::Readers(vec![slot.share()]),
        (Held::Writer(slot), Op::Divide(_)) => Held::Fillers(vec![slot.divide()]),
        (Held::Writer(_), Op::DropOne(_)) => return false,
        (Held::Writer(mut slot), Op::Rewrite(_)) => {
            *stamps += 1;
            item.stamp = *stamps;
            stamp(&mut slot, item.stamp);
            Held::Writer(slot)
        }
        (Held::Readers(mut readers), Op::Clone(_)) => {
            readers.push(readers[0].clone());
            Held::Readers(readers)
        }
        (Held::Readers(mut readers), Op::DropOne(_)) => {
            readers.pop();
            if readers.is_empty() {
                return false;
            }
            Held::Readers(readers)
        }
        (Held::Readers(mut readers), Op::Unshare(_)) => {
            let others = readers.len() > 1;
            match readers.pop().unwrap().try_into_slot() {
                Ok(slot) => {
                    assert!(!others || item.bytes == 0, "a writer beside readers");
                    Held::Writer(slot)
                }
                Err(reader) => {
                    assert!(others, "the last reader must become the writer");
                    readers.push(reader);
                    Held::Readers(readers)
                }
            }
        }
        (Held::Fillers(mut fillers), Op::Clone(_)) => {
            fillers.push(fillers[0].clone());
            Held::Fillers(fillers)
        }
        (Held::Fillers(mut fillers), Op::DropOne(_)) => {
            fillers.pop();
            if fillers.is_empty() {
                return false;
            }
            Held::Fillers(fillers)
        }
        (Held::Fillers(mut fillers), Op::Unshare(_)) => match fillers.pop().unwrap().try_into_slot() {
            Ok(slot) => {
                assert!(fillers.is_empty() || item.bytes == 0, "a writer beside fillers");
                Held::Writer(slot)
            }
            Err(filler) => {
                assert!(!fillers.is_empty(), "the last filler must become the writer");
                fillers.push(filler);
                Held::Fillers(fillers)
            }
        },
        (held, _) => held,
    };
    true
}

proptest! {
    #[test]
    fn no_page_is_in_two_slots_and_contents_stay(ops in proptest::collection::vec(op(), 1..120)) {
        let slab = slab();
        let mut items: Vec<Item> = Vec::new();
        let mut stamps = 0;
        for op in ops {
            let used_pages: u64 = items.iter().map(|item| item.bytes.div_ceil(PAGE_BYTES as u64)).sum();
            prop_assert_eq!(slab.pages_free() as u64, PAGES - used_pages);
            match &op {
                Op::Allocate(bytes) => {
                    let fits = bytes.div_ceil(PAGE_BYTES as u64) <= PAGES - used_pages;
                    let slot = slab.allocate(*bytes);
                    prop_assert_eq!(slot.is_some(), fits);
                    if let Some(mut slot) = slot {
                        let padded = bytes.next_multiple_of(4096);
                        let spans: u64 = slot.spans(*bytes, padded - bytes).map(|span| span.bytes as u64).sum();
                        prop_assert_eq!(spans, padded - bytes);
                        stamps += 1;
                        stamp(&mut slot, stamps);
                        items.push(Item { held: Held::Writer(slot), bytes: *bytes, stamp: stamps });
                    }
                }
                Op::Share(pick) | Op::Divide(pick) | Op::Clone(pick) | Op::DropOne(pick) | Op::Unshare(pick) | Op::Rewrite(pick) => {
                    if items.is_empty() {
                        continue;
                    }
                    let index = pick % items.len();
                    if !change(&mut items[index], &op, &mut stamps) {
                        items.swap_remove(index);
                    }
                }
            }
            let mut seen = HashSet::new();
            for item in &items {
                for address in item.addresses() {
                    prop_assert!(seen.insert(address), "a page in two slots");
                }
                match &item.held {
                    Held::Writer(slot) => check(slot.parts(), item.bytes, item.stamp),
                    Held::Readers(readers) => {
                        readers.iter().for_each(|reader| check(reader.parts(), item.bytes, item.stamp));
                    }
                    // What they fill cannot be looked at; that their pages are nobody else's was seen above.
                    Held::Fillers(_) => {}
                }
            }
        }
        drop(items);
        prop_assert_eq!(slab.pages_free() as u64, PAGES);
    }
}

#[test]
fn threads_see_what_was_written_before_a_slot_came_to_them() {
    let slab = slab();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<(u64, SlotReader)>(8);
    let receiver = std::sync::Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let received = receiver.lock().unwrap().recv();
                    let Ok((stamp, reader)) = received else { return };
                    check(reader.parts(), reader.bytes(), stamp);
                }
            });
        }
        for number in 0..3000u64 {
            let bytes = 1 + number * 977 % (3 * PAGE_BYTES as u64);
            let mut slot = loop {
                match slab.allocate(bytes) {
                    Some(slot) => break slot,
                    None => std::thread::yield_now(),
                }
            };
            stamp(&mut slot, number);
            let reader = slot.share();
            sender.send((number, reader.clone())).unwrap();
            sender.send((number, reader)).unwrap();
        }
        drop(sender);
    });
    assert_eq!(slab.pages_free() as u64, PAGES);
}
