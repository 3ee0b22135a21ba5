//! Who may touch which range of device memory: one writer by value, or counted readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::arena::Arena;

/// Counts the holders of one claimed range: 0 is free, 1 is a slot or the last reader.
///
/// The count is apart from the `Arc`'s own, because the table of claims (`ranges.rs`) keeps a
/// reference too, to see that a range is free again without a lock or a message.
pub(crate) struct Hold {
    arena: Arc<Arena>,
    holders: AtomicU32,
}

impl Hold {
    /// A count for a range of `arena`, held by nobody yet.
    pub fn new(arena: Arc<Arena>) -> Self {
        Self { arena, holders: AtomicU32::new(0) }
    }

    /// True when no slot and no reader is left. Acquire: what the last holder did with the bytes
    /// happened before whatever the caller does next with them.
    pub fn is_free(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0
    }
}

/// A range of the arena with one holder of it counted; dropping it gives the holder back.
struct Held {
    hold: Arc<Hold>,
    offset: u64,
    bytes: u64,
}

impl Held {
    /// True when this is the only holder: nobody else can become one, because only a holder clones.
    fn is_last(&self) -> bool {
        self.hold.holders.load(Ordering::Acquire) == 1
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Release: the bytes are not touched after this; `is_free` and `is_last` acquire it.
        self.hold.holders.fetch_sub(1, Ordering::Release);
    }
}

/// A range of device memory with one owner, who may write it. Dropping it frees the range.
pub struct DeviceSlot(Held);

impl DeviceSlot {
    /// The slot of a range that the table of claims has found free.
    pub(crate) fn new(hold: Arc<Hold>, offset: u64, bytes: u64) -> Self {
        let before = hold.holders.swap(1, Ordering::Relaxed);
        assert_eq!(before, 0, "range {offset}+{bytes} is claimed while {before} hold it");
        Self(Held { hold, offset, bytes })
    }

    /// Where the range starts in the arena, bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// The length of the range, bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The bytes, one slice. (The emulated device's memory is host memory.)
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: this slot is the range's only holder (claims of live ranges never overlap), and
        // writing through it needs `&mut self`, which the borrow of `self` excludes.
        unsafe { self.0.hold.arena.slice(self.0.offset, self.0.bytes) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: this slot is the range's only holder, and `&mut self` excludes every other borrow.
        unsafe { self.0.hold.arena.slice_mut(self.0.offset, self.0.bytes) }
    }

    /// Gives up writing so that any number can read.
    pub fn share(self) -> DeviceReader {
        DeviceReader(self.0)
    }
}

/// One of any number of readers of a range. The range is free when the last one is dropped.
pub struct DeviceReader(Held);

impl DeviceReader {
    /// Where the range starts in the arena, bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// The length of the range, bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The bytes, one slice.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: while a reader lives there is no slot of the range (`share` consumed it, and
        // `try_into_slot` needs the last reader by value), so nothing writes it.
        unsafe { self.0.hold.arena.slice(self.0.offset, self.0.bytes) }
    }

    /// The slot again when this is the last reader, else the reader back.
    pub fn try_into_slot(self) -> Result<DeviceSlot, DeviceReader> {
        if self.0.is_last() { Ok(DeviceSlot(self.0)) } else { Err(self) }
    }
}

impl Clone for DeviceReader {
    fn clone(&self) -> Self {
        // Relaxed: this reader keeps the count above 0, and the bytes do not change while it lives.
        let before = self.0.hold.holders.fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "{before} readers of the device range at {}", self.0.offset);
        Self(Held { hold: Arc::clone(&self.0.hold), offset: self.0.offset, bytes: self.0.bytes })
    }
}

impl std::fmt::Debug for DeviceSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceSlot({}+{})", self.offset(), self.bytes())
    }
}

impl std::fmt::Debug for DeviceReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceReader({}+{})", self.offset(), self.bytes())
    }
}
