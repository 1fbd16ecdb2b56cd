//! Pages on the heap, as they are.
//!
//! **Guarantee.** A page that was put is there until it is forgotten. Without memory for it, it is refused.
//!
//! **Mechanism.** A box for each slot.

use crate::pages::{Page, Pages};
use crate::slots::{Slots, on_heap};
use spile::Slot;
use std::fmt;

/// Pages on the heap, as they are: the simplest store, for tests, and for hosts whose frames are scarcer than their heap.
pub struct Memory(Slots<Box<[u8]>>);

impl Memory {
    /// For so many slots; those beyond are refused.
    pub fn new(slots: u32) -> Self {
        Self(Slots::new(slots))
    }

    /// How many pages it has. Exact when nobody uses it.
    pub fn pages(&self) -> usize {
        self.0.count(|_| true)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages in memory", self.pages())
    }
}

impl Pages for Memory {
    fn put(&self, slot: Slot, page: &Page) -> bool {
        self.forget(slot);
        on_heap(page).is_some_and(|copy| self.0.put(slot, copy))
    }

    fn get(&self, slot: Slot, page: &mut Page) -> bool {
        let copied = self.0.with(slot, |place| place.as_deref().map(|kept| page.copy_from_slice(kept)));
        copied.flatten().is_some()
    }

    fn forget(&self, slot: Slot) {
        drop(self.0.take(slot));
    }
}
