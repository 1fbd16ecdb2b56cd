//! Pages that an evictor has taken out of their entries, and that are still where the program was shown them.
//!
//! **Guarantee.** Whoever is about to show a page at an address knows whether another is left there. What is not left there is gone from every CPU.
//!
//! **Mechanism.** Lists of frames, linked through an array, by their addresses. A page is left, or shown again, under the lock of the table of its address; it is struck off after
//! the call is over that has dropped it: for a moment before the entry of the kernel's is empty, and a CPU may still read what was there.

use super::lanes::lock;
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;

/// How many lists there are.
const LISTS: usize = 1024;

/// Frames whose pages are left, by address.
pub struct Left {
    /// The first of each list, plus one; 0: there is none.
    lists: Box<[Mutex<u32>]>,
    /// What follows a frame, alike; and where it is left.
    next: Box<[AtomicU32]>,
    at: Box<[AtomicU64]>,
}

impl Left {
    /// None of so many frames.
    pub fn new(frames: usize) -> Self {
        Self {
            lists: (0..LISTS).map(|_| Mutex::new(0)).collect(),
            next: (0..frames).map(|_| AtomicU32::new(0)).collect(),
            at: (0..frames).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn list(&self, at: u64) -> &Mutex<u32> {
        // Neighbours are in different ones.
        &self.lists[(at / crate::PAGE) as usize % LISTS]
    }

    // Relaxed, all of `next` and `at`: under the lock of the list.

    /// The page of `frame` is left at `at`.
    pub fn add(&self, at: u64, frame: u32) {
        let mut first = lock(self.list(at));
        self.at[frame as usize].store(at, Ordering::Relaxed);
        self.next[frame as usize].store(*first, Ordering::Relaxed);
        *first = frame + 1;
    }

    /// It is not left there any more.
    pub fn remove(&self, at: u64, frame: u32) {
        let mut first = lock(self.list(at));
        let after = self.next[frame as usize].load(Ordering::Relaxed);
        let before = self.each(*first).find(|before| self.next[*before as usize].load(Ordering::Relaxed) == frame + 1);
        match before {
            Some(before) => self.next[before as usize].store(after, Ordering::Relaxed),
            None => *first = after,
        }
    }

    /// Whose page is left at `at`.
    pub fn find(&self, at: u64) -> Option<u32> {
        let first = lock(self.list(at));
        self.each(*first).find(|frame| self.at[*frame as usize].load(Ordering::Relaxed) == at)
    }

    /// The frames of a list, whose lock the caller has.
    fn each(&self, first: u32) -> impl Iterator<Item = u32> {
        let frame = |link: u32| link.checked_sub(1);
        std::iter::successors(frame(first), move |of| frame(self.next[*of as usize].load(Ordering::Relaxed)))
    }
}
