//! Pages on the heap, compressed, up to a budget.
//!
//! **Guarantee.** What it counts as stored is at most its budget, at every moment; a page beyond it is refused. A page never costs more than itself.
//!
//! **Mechanism.** A page whose bytes are all the same is that byte. Any other goes through LZ4, a block of its own, whose table and output are on the
//! stack; what does not become smaller is kept as it is. Bytes are counted before a page is put, and given back after it is gone.

use crate::pages::{Page, Pages};
use crate::slots::{Slots, on_heap};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use spile::{PAGE, Slot};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pages on the heap, compressed, up to a budget. A write needs about 20 KiB of stack, in optimised code.
///
/// A page that is refused stays in memory, and is offered again when others do not suffice: so put a file behind it ([`Tiered`](crate::Tiered)), or give it a
/// budget that is enough.
pub struct Compressed {
    slots: Slots<Kept>,
    budget: u64,
    stored: Mutex<Stored>,
}

/// What a [`Compressed`] store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Pages.
    pub pages: u64,
    /// Of them, those whose bytes are all the same.
    pub uniform: u64,
    /// Of them, those that are kept as they are.
    pub plain: u64,
    /// Bytes that the pages take: 1 for one that is all the same. What the heap and the list of slots take besides is not counted.
    pub bytes: u64,
    /// Pages that were refused so far: over the budget, or without memory.
    pub refused: u64,
}

impl Stored {
    /// How many bytes one byte stands for; of no pages, 1.
    pub fn ratio(&self) -> f64 {
        if self.pages == 0 { 1.0 } else { (self.pages * PAGE) as f64 / self.bytes as f64 }
    }
}

/// A page.
enum Kept {
    /// All bytes are this one.
    Uniform(u8),
    /// A block of LZ4.
    Packed(Box<[u8]>),
    /// The bytes.
    Plain(Box<[u8]>),
}

/// What is counted of a page.
#[derive(Clone, Copy)]
struct Share {
    bytes: u64,
    uniform: u64,
    plain: u64,
}

impl Kept {
    /// None without memory.
    fn of(page: &Page) -> Option<Self> {
        if page.iter().all(|byte| *byte == page[0]) {
            return Some(Self::Uniform(page[0]));
        }
        let mut packed = [0; get_maximum_output_size(PAGE as usize)];
        match compress_into(page, &mut packed) {
            Ok(len) if len < page.len() => on_heap(&packed[..len]).map(Self::Packed),
            _ => on_heap(page).map(Self::Plain),
        }
    }

    fn fill(&self, page: &mut Page) -> bool {
        match self {
            Self::Uniform(byte) => page.fill(*byte),
            Self::Packed(packed) => return decompress_into(packed, page).is_ok_and(|len| len == page.len()),
            Self::Plain(bytes) => page.copy_from_slice(bytes),
        }
        true
    }

    fn share(&self) -> Share {
        match self {
            Self::Uniform(_) => Share { bytes: 1, uniform: 1, plain: 0 },
            Self::Packed(bytes) => Share { bytes: bytes.len() as u64, uniform: 0, plain: 0 },
            Self::Plain(bytes) => Share { bytes: bytes.len() as u64, uniform: 0, plain: 1 },
        }
    }
}

impl Compressed {
    /// For so many slots, and at most `budget` bytes of pages; slots beyond are refused.
    pub fn new(slots: u32, budget: u64) -> Self {
        Self { slots: Slots::new(slots), budget, stored: Mutex::default() }
    }

    /// What it has, at one moment.
    pub fn stored(&self) -> Stored {
        *self.counts()
    }

    /// How many bytes it may have.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    fn counts(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a page in. False, and nothing is, if that is over the budget.
    fn count_in(&self, Share { bytes, uniform, plain }: Share) -> bool {
        let mut stored = self.counts();
        let has_room = bytes <= self.budget - stored.bytes;
        if has_room {
            stored.pages += 1;
            stored.bytes += bytes;
            stored.uniform += uniform;
            stored.plain += plain;
        }
        has_room
    }

    fn count_out(&self, Share { bytes, uniform, plain }: Share) {
        let mut stored = self.counts();
        stored.pages -= 1;
        stored.bytes -= bytes;
        stored.uniform -= uniform;
        stored.plain -= plain;
    }

    /// Keeps the page, if there is room for it.
    fn keep(&self, slot: Slot, page: &Page) -> bool {
        let Some(kept) = Kept::of(page) else { return false };
        let share = kept.share();
        if !self.count_in(share) {
            return false;
        }
        let is_kept = self.slots.put(slot, kept);
        if !is_kept {
            self.count_out(share);
        }
        is_kept
    }
}

impl fmt::Debug for Compressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = self.stored();
        write!(f, "{} pages in {} of {} bytes, {} refused", stored.pages, stored.bytes, self.budget, stored.refused)
    }
}

impl Pages for Compressed {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.forget(slot);
        let is_kept = self.keep(slot, page);
        if !is_kept {
            self.counts().refused += 1;
        }
        is_kept
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        self.slots.with(slot, |place| place.as_ref().is_some_and(|kept| kept.fill(page))) == Some(true)
    }

    fn forget(&self, slot: Slot) {
        if let Some(kept) = self.slots.take(slot) {
            let share = kept.share();
            drop(kept);
            self.count_out(share);
        }
    }
}
