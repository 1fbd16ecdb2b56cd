//! Memory for pages that no address of the program's shows.
//!
//! **Guarantee.** A slot that was taken is nobody else's until it is given back. A *buffer* has a page, into which the kernel may read too; a *shelter* has none, so that one
//! can be moved there. Of slots that nobody has, few have pages.
//!
//! **Mechanism.** Addresses of the pager's own, registered, for pages are moved to registered ones alone. A slot that comes back has a page, and is a buffer next time: so reading
//! to a buffer and copying from there takes no page from the kernel. What is too much of them is dropped by the batch.

use super::drop_pages::{Advised, MOST};
use super::lanes::Lanes;
use super::memory::Memory;
use crate::{PAGE, Uffd};
use std::thread::yield_now;

/// How many slots there are beside one for each frame: for pages that are being written, one for each thread that does that.
const SPARE: u64 = 1024;

/// Slots for pages.
pub struct Stash {
    memory: Memory,
    /// Those that have a page, and those that have none.
    warm: Lanes,
    empty: Lanes,
    /// How many of the first are kept.
    most_warm: usize,
}

impl Stash {
    /// For so many frames.
    ///
    /// # Errors
    ///
    /// The kernel's, of memory or of the registration.
    pub fn new(uffd: &Uffd, frames: u64) -> std::io::Result<Self> {
        let slots = frames + SPARE;
        let memory = Memory::new(slots * PAGE)?;
        // SAFETY: (1) nobody uses it but this, which fills what is missing.
        unsafe { uffd.register(memory.at(0), memory.len()) }.map_err(|stopped| stopped.error())?;
        let all = slots as usize;
        let most_warm = (frames as usize / 64).clamp(2 * MOST, 16 * MOST);
        Ok(Self { memory, warm: Lanes::new(all, 0..0), empty: Lanes::new(all, 0..slots as u32), most_warm })
    }

    /// Where the page of a slot is.
    pub fn at(&self, slot: u32) -> u64 {
        self.memory.at(u64::from(slot))
    }

    /// A slot that has a page, of unspecified bytes; or there is no memory.
    pub fn buffer(&self, uffd: &Uffd) -> Option<u32> {
        loop {
            if let Some(slot) = self.warm.take() {
                return Some(slot);
            }
            if let Some(slot) = self.empty.take() {
                // SAFETY: (1) nobody uses it.
                if unsafe { uffd.zero(self.at(slot), PAGE) }.is_ok() {
                    return Some(slot);
                }
                self.empty.give(slot);
                return None;
            }
            // As many threads write as there are spare ones.
            yield_now();
        }
    }

    /// A slot that has none.
    pub fn shelter(&self, advised: &Advised) -> u32 {
        loop {
            if let Some(slot) = self.empty.take() {
                return slot;
            }
            if !self.cool(advised) {
                yield_now();
            }
        }
    }

    /// Gives one back that has a page.
    pub fn give(&self, slot: u32, advised: &Advised) {
        self.warm.give(slot);
        if self.warm.count() > self.most_warm {
            self.cool(advised);
        }
    }

    /// Drops some pages that nobody has. Whether there were any.
    fn cool(&self, advised: &Advised) -> bool {
        let (mut slots, mut pages, mut count) = ([0; MOST], [0; MOST], 0);
        while count < MOST
            && let Some(slot) = self.warm.take()
        {
            (slots[count], pages[count]) = (slot, self.at(slot));
            count += 1;
        }
        // SAFETY: (1) taken, by this.
        unsafe { advised.drop_pages(&mut pages[..count]) };
        slots[..count].iter().for_each(|slot| self.empty.give(*slot));
        count > 0
    }

    /// How many pages nobody has, about.
    pub fn idle(&self) -> usize {
        self.warm.count()
    }
}
