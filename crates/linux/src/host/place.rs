//! Where the bytes of a frame are.
//!
//! **Guarantee.** Who has a frame [pinned](Place::pin) finds its bytes where the pin says, until he lets go. One at a time changes where they are.
//!
//! **Mechanism.** A word per frame: an address of the program's or a slot of the stash, and how many have it pinned. Who takes the bytes away from a place says so first, and
//! waits for pins, which last as long as a page is copied; who finds that said waits for him.

use crate::PAGE;
use spile_sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

/// Where the bytes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Nowhere: they are unspecified.
    Nowhere,
    /// Nowhere: they are zeros.
    Zeros,
    /// In this slot of the stash.
    Stash(u32),
    /// At this address of the program's.
    Shown { at: u64, is_protected: bool },
}

/// Kinds, in the lowest bits.
const KIND: u64 = 3;
const NOWHERE: u64 = 0;
const ZEROS: u64 = 1;
const STASH: u64 = 2;
const SHOWN: u64 = 3;
/// The program cannot write it.
const PROTECTED: u64 = 4;
/// The bytes are being taken away from there.
const MOVING: u64 = 8;
/// One pin. Addresses end below.
const PIN: u64 = 1 << 52;
const STASH_SHIFT: u32 = 12;

/// Where the bytes of one frame are.
#[derive(Debug, Default)]
pub struct Place(AtomicU64);

/// The bytes stay where they are as long as this.
pub struct Pinned<'a> {
    place: &'a Place,
    pub(super) at: Where,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // Release: what was read comes before the bytes are taken away.
        self.place.0.fetch_sub(PIN, Ordering::Release);
    }
}

impl Where {
    fn encode(self) -> u64 {
        match self {
            Self::Nowhere => NOWHERE,
            Self::Zeros => ZEROS,
            Self::Stash(slot) => u64::from(slot) << STASH_SHIFT | STASH,
            Self::Shown { at, is_protected } => at | SHOWN | if is_protected { PROTECTED } else { 0 },
        }
    }

    fn decode(word: u64) -> Self {
        match word & KIND {
            NOWHERE => Self::Nowhere,
            ZEROS => Self::Zeros,
            STASH => Self::Stash(((word & (PIN - 1)) >> STASH_SHIFT) as u32),
            _ => Self::Shown { at: word & (PIN - 1) & !(PAGE - 1), is_protected: word & PROTECTED != 0 },
        }
    }
}

impl Place {
    /// Where they are. By who has the frame alone, or keeps others from moving it: under the lock of the table that shows it.
    pub fn get(&self) -> Where {
        // Acquire: what was put there before it was said to be there.
        Where::decode(self.0.load(Ordering::Acquire))
    }

    /// They are there now, and stay where they were too until nobody reads them there any more: waits for that.
    pub fn set(&self, to: Where) {
        self.swap(|_| to.encode());
    }

    /// They are about to be taken away from where they are, which [`set`](Self::set) ends: waits until nobody reads them.
    pub fn leave(&self) {
        self.swap(|word| word | MOVING);
    }

    fn swap(&self, to: impl Fn(u64) -> u64) {
        loop {
            // Relaxed: the exchange looks again.
            let word = self.0.load(Ordering::Relaxed);
            // AcqRel: what was read by who had it pinned comes before; what the caller has put there is seen by who pins it. Relaxed on failure: it begins anew.
            let is_still = word < PIN && self.0.compare_exchange(word, to(word), Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if is_still {
                return;
            }
            yield_now();
        }
    }

    /// Keeps them where they are, as long as a page is copied. By who has a hold on the frame.
    pub fn pin(&self) -> Pinned<'_> {
        loop {
            // Acquire: as in `get`.
            let word = self.0.fetch_add(PIN, Ordering::Acquire);
            if word & MOVING == 0 {
                return Pinned { place: self, at: Where::decode(word) };
            }
            // Relaxed: nothing was read.
            self.0.fetch_sub(PIN, Ordering::Relaxed);
            yield_now();
        }
    }

    /// Whether the program may write them has changed, where they are shown.
    pub fn protect(&self, is_protected: bool) {
        // Relaxed: read under the lock of the table alone under which it is changed.
        if is_protected {
            self.0.fetch_or(PROTECTED, Ordering::Relaxed)
        } else {
            self.0.fetch_and(!PROTECTED, Ordering::Relaxed)
        };
    }
}
