//! Pages that stay shown: code uses them where they are that may not fault.
//!
//! **Guarantee.** A page that was pinned, and was found shown after that, is shown there until it is let go; one that was pinned to be written is writable as long.
//!
//! **Mechanism.** Two counts for each frame, in a word. Who is about to take a page from its address, or to protect it, asks under the lock of its table; who pins it does so before he looks
//! at the entry, under that lock. So either he finds what was done before, or is found.

use spile::FrameId;
use spile_sync::atomic::{AtomicU64, Ordering};

/// One who writes it, beside the one that every pin is.
const WRITER: u64 = 1 << 32;

/// Which pages are pinned, by their frames.
pub struct Pins {
    of: Box<[AtomicU64]>,
    /// How many pins there are, and how many there may be.
    count: AtomicU64,
    most: u64,
}

fn one(is_to_write: bool) -> u64 {
    if is_to_write { 1 + WRITER } else { 1 }
}

/// Counts `more`, if there are `most` at most then. Whether it did.
pub fn reserve(count: &AtomicU64, more: u64, most: u64) -> bool {
    let with = |now: u64| now.checked_add(more).filter(|all| *all <= most);
    // Relaxed: a number.
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
}

/// What of `pages` may be pinned: a quarter goes on being a place where others come and go, and as many as one instruction may touch.
pub fn most_of(pages: u64) -> u64 {
    pages.saturating_sub(pages.div_ceil(4).max(4))
}

impl Pins {
    /// None of so many frames.
    pub fn new(frames: usize) -> Self {
        Self { of: (0..frames).map(|_| AtomicU64::new(0)).collect(), count: AtomicU64::new(0), most: most_of(frames as u64 - 1) }
    }

    /// Makes room for so many, if there is.
    pub fn reserve(&self, pages: u64) -> bool {
        reserve(&self.count, pages, self.most)
    }

    /// So many are over.
    pub fn give(&self, pages: u64) {
        self.count.fetch_sub(pages, Ordering::Relaxed);
    }

    /// For how many there is room.
    pub fn room(&self) -> u64 {
        self.most.saturating_sub(self.count.load(Ordering::Relaxed))
    }

    /// How many frames are not pinned, at least.
    pub fn others(&self) -> usize {
        (self.of.len() - 1).saturating_sub(self.count.load(Ordering::Relaxed) as usize)
    }

    /// The page of `frame`, on which the caller has a hold, is to stay where it is.
    pub fn pin(&self, frame: FrameId, is_to_write: bool) {
        // Relaxed: the table's lock, which the caller takes next, releases it to who asks.
        self.of[frame.0 as usize].fetch_add(one(is_to_write), Ordering::Relaxed);
    }

    /// It may go, as far as this one is concerned.
    pub fn unpin(&self, frame: FrameId, is_to_write: bool) {
        // Release: what was done with the page comes before it goes.
        self.of[frame.0 as usize].fetch_sub(one(is_to_write), Ordering::Release);
    }

    /// Whether it may not go. Under the lock of the table that shows it.
    pub fn has(&self, frame: FrameId) -> bool {
        // Acquire: as said in `unpin`.
        self.of[frame.0 as usize].load(Ordering::Acquire) != 0
    }

    /// Whether it may not be protected. Alike.
    pub fn is_written(&self, frame: FrameId) -> bool {
        // Acquire: as above.
        self.of[frame.0 as usize].load(Ordering::Acquire) >= WRITER
    }
}
