//! Memory for pages that no address of the program's shows.
//!
//! **Guarantee.** A slot that was taken is nobody else's until it is given back. A *buffer* has a page, into which the kernel may read too; a *shelter* has none, so that one
//! can be moved there. Of slots that nobody has, few have pages.
//!
//! **Mechanism.** Addresses of the pager's own, registered, for pages are moved to registered ones alone. A slot that comes back has a page, and is a buffer next time: so reading
//! to a buffer and copying from there takes no page from the kernel. What is too much of them is dropped by the batch. Besides there are a few *runs* of adjacent slots, for pages that are
//! read together and shown together, by one call each: one is free again when all of its slots are.

use super::drop_pages::{Advised, MOST};
use super::lanes::Lanes;
use super::memory::Memory;
use crate::{Cause, PAGE, Uffd};
use spile_sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::yield_now;

/// How many slots there are beside one for each frame: for pages that are being written, one for each thread that does that.
const SPARE: u64 = 1024;

/// How many slots a run has.
pub const RUN: usize = 16;

/// Why there is no buffer.
pub enum Short {
    /// All slots are taken, for a moment.
    Slots,
    /// The kernel has no memory.
    Memory,
}

/// Slots for pages.
pub struct Stash {
    memory: Memory,
    /// Slots from here on are those of runs.
    singles: u32,
    /// Runs that are free, how many slots of each are not, and whether it has pages.
    runs: Lanes,
    taken: Box<[AtomicU32]>,
    has_pages: Box<[AtomicBool]>,
    /// Those that have a page, those that have one which was moved there, and those that have none.
    warm: Lanes,
    moved: Lanes,
    empty: Lanes,
    /// Whether what is in a slot was moved there: others may have that page too (`vmsplice`), so it is not filled again.
    is_moved: Box<[AtomicBool]>,
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
        let (singles, runs) = (frames + SPARE, (frames / 2048).clamp(2, 128));
        let memory = Memory::new((singles + runs * RUN as u64) * PAGE)?;
        // SAFETY: (1) nobody uses it but this, which fills what is missing.
        unsafe { uffd.register_missing(memory.at(0), memory.len()) }.map_err(|stopped| stopped.error())?;
        let all = singles as usize;
        Ok(Self {
            memory,
            singles: singles as u32,
            runs: Lanes::new(runs as usize, 0..runs as u32),
            taken: (0..runs).map(|_| AtomicU32::new(0)).collect(),
            has_pages: (0..runs).map(|_| AtomicBool::new(false)).collect(),
            warm: Lanes::new(all, 0..0),
            moved: Lanes::new(all, 0..0),
            is_moved: (0..singles).map(|_| AtomicBool::new(false)).collect(),
            empty: Lanes::new(all, 0..singles as u32),
            most_warm: (frames as usize / 256).clamp(MOST / 2, 16 * MOST),
        })
    }

    /// Where the page of a slot is.
    pub fn at(&self, slot: u32) -> u64 {
        self.memory.at(u64::from(slot))
    }

    /// A slot that has a page, of unspecified bytes; or there is no memory. Waits for one.
    pub fn buffer(&self, uffd: &Uffd) -> Option<u32> {
        loop {
            match self.buffer_at_once(uffd) {
                Ok(slot) => return Some(slot),
                Err(Short::Memory) => return None,
                // As many threads wait for one as there are spare ones, at most.
                Err(Short::Slots) => yield_now(),
            }
        }
    }

    /// The same, for who has some already, for which others may wait.
    ///
    /// # Errors
    ///
    /// [`Short`].
    pub fn buffer_at_once(&self, uffd: &Uffd) -> Result<u32, Short> {
        if let Some(slot) = self.warm.take() {
            return Ok(slot);
        }
        let slot = self.empty.take().ok_or(Short::Slots)?;
        // SAFETY: (1) nobody uses it.
        if unsafe { uffd.zero(self.at(slot), PAGE) }.is_ok() {
            return Ok(slot);
        }
        self.empty.give(slot);
        Err(Short::Memory)
    }

    /// So many adjacent buffers, of unspecified bytes: the first. None, where no run is free, or there is no memory.
    pub fn buffers(&self, uffd: &Uffd, count: usize) -> Option<u32> {
        let run = self.runs.take()?;
        let first = self.singles + run * RUN as u32;
        // Relaxed, here and below: the caller has the run alone, by the lock under which it was taken.
        if !self.has_pages[run as usize].load(Ordering::Relaxed) {
            if !self.fill(uffd, first) {
                self.runs.give(run);
                return None;
            }
            self.has_pages[run as usize].store(true, Ordering::Relaxed);
        }
        self.taken[run as usize].store(count as u32, Ordering::Relaxed);
        Some(first)
    }

    /// Puts pages to the slots of a run, from `first` on. Whether there was memory for them.
    fn fill(&self, uffd: &Uffd, first: u32) -> bool {
        (first..first + RUN as u32).all(|slot| {
            // SAFETY: (1) nobody uses it.
            let filled = unsafe { uffd.zero(self.at(slot), PAGE) };
            // Some may be there, where there was no memory for all.
            filled.map_or_else(|stopped| stopped.cause() == Cause::PageThere, |()| true)
        })
    }

    /// A slot that has none.
    pub fn shelter(&self, advised: &Advised) -> u32 {
        loop {
            if let Some(slot) = self.empty.take() {
                // Relaxed, here and where it is read: the slot's owner's, who has it by a list's lock.
                self.is_moved[slot as usize].store(true, Ordering::Relaxed);
                return slot;
            }
            if !self.cool(advised) {
                yield_now();
            }
        }
    }

    /// Gives one back that has none still.
    pub fn return_shelter(&self, slot: u32) {
        self.is_moved[slot as usize].store(false, Ordering::Relaxed);
        self.empty.give(slot);
    }

    /// Gives one back that has a page.
    pub fn give(&self, slot: u32, advised: &Advised) {
        if let Some(nth) = slot.checked_sub(self.singles) {
            let run = nth / RUN as u32;
            // AcqRel: what was done with the slots comes before what is done with the run next.
            if self.taken[run as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
                self.runs.give(run);
            }
            return;
        }
        if self.is_moved[slot as usize].load(Ordering::Relaxed) {
            self.moved.give(slot);
        } else {
            self.warm.give(slot);
        }
        if self.moved.count() >= MOST / 2 || self.warm.count() > self.most_warm {
            self.cool(advised);
        }
    }

    /// Drops some pages that nobody has. Whether there were any.
    fn cool(&self, advised: &Advised) -> bool {
        let (mut slots, mut pages, mut count) = ([0; MOST], [0; MOST], 0);
        while count < MOST
            && let Some(slot) = self.moved.take().or_else(|| self.warm.take())
        {
            (slots[count], pages[count]) = (slot, self.at(slot));
            count += 1;
        }
        // SAFETY: (1) taken, by this.
        unsafe { advised.drop_pages(&mut pages[..count]) };
        slots[..count].iter().for_each(|slot| self.return_shelter(*slot));
        count > 0
    }

    /// How many pages nobody has, about.
    pub fn idle(&self) -> usize {
        let has_pages = |run: &usize| self.has_pages[*run].load(Ordering::Relaxed);
        let of_run = |run: usize| RUN - (self.taken[run].load(Ordering::Relaxed) as usize).min(RUN);
        let of_runs: usize = (0..self.taken.len()).filter(has_pages).map(of_run).sum();
        self.warm.count() + self.moved.count() + of_runs
    }
}
