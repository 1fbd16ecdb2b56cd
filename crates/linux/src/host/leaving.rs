//! Pages whose frames are free, and that are still where the program was shown them.
//!
//! **Guarantee.** A frame is given back after its page is gone. A page is dropped once, and before another is put in its place.
//!
//! **Mechanism.** What has left is noted, and dropped many at a time: other CPUs are then flushed once. Until then nobody can write it, for the core lets no page leave that is not
//! protected. Who wants to show another page there finds that one is [left](super::left), and has it dropped first: the kernel would tell him of it until its entry is empty, which is before other
//! CPUs are flushed. Pages are dropped under the lock under which they are noted, so who does not find one knows that it is gone, or has not come yet.

use super::Parts;
use super::drop_pages::MOST;
use super::lanes::{LANES, here, lock};
use arrayvec::ArrayVec;
use spile_sync::atomic::{AtomicUsize, Ordering};
use std::ops::Range;
use std::sync::Mutex;

#[derive(Clone, Copy)]
struct Page {
    at: u64,
    frame: u32,
}

#[derive(Default)]
struct Noted(ArrayVec<Page, MOST>);

#[repr(align(128))]
#[derive(Default)]
struct Lane {
    noted: Mutex<Noted>,
    count: AtomicUsize,
}

/// Pages that are to be dropped.
pub struct Leaving {
    lanes: [Lane; LANES],
}

impl Noted {
    /// Drops those that `gone` says, and gives their frames back.
    fn drop_those(&mut self, host: &Parts, gone: impl Fn(u64) -> bool) -> usize {
        let found: ArrayVec<Page, MOST> = self.0.iter().copied().filter(|page| gone(page.at)).collect();
        self.0.retain(|page| !gone(page.at));
        let mut pages: ArrayVec<u64, MOST> = found.iter().map(|page| page.at).collect();
        // SAFETY: (1) noted: their frames are nobody's.
        unsafe { host.drop_shown(&mut pages) };
        for page in &found {
            host.left.remove(page.at, page.frame);
            host.free.give(page.frame);
        }
        found.len()
    }
}

impl Leaving {
    /// None.
    pub fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Lane::default()) }
    }

    /// Notes that `frame` is free when the page at `at` is gone, which is protected.
    pub fn note(&self, at: u64, frame: u32, host: &Parts) {
        let lane = &self.lanes[here()];
        let mut noted = lock(&lane.noted);
        if noted.0.is_full() {
            noted.drop_those(host, |_| true);
        }
        noted.0.push(Page { at, frame });
        lane.count.store(noted.0.len(), Ordering::Relaxed);
    }

    /// Drops a batch, if there is one. Whether frames are free for that.
    pub fn drop_some(&self, host: &Parts) -> bool {
        let here = here();
        (0..LANES).any(|n| self.drop_of((here + n) % LANES, host, |_| true) > 0)
    }

    /// Drops the page at `at`, if it is noted. Whether it was.
    pub fn drop_at(&self, at: u64, host: &Parts) -> bool {
        (0..LANES).any(|lane| self.drop_of(lane, host, |page| page == at) > 0)
    }

    /// Drops all of `range`.
    pub fn drop_within(&self, range: &Range<u64>, host: &Parts) {
        (0..LANES).for_each(|lane| _ = self.drop_of(lane, host, |page| range.contains(&page)));
    }

    fn drop_of(&self, lane: usize, host: &Parts, gone: impl Fn(u64) -> bool) -> usize {
        let lane = &self.lanes[lane];
        let mut noted = lock(&lane.noted);
        let dropped = noted.drop_those(host, gone);
        lane.count.store(noted.0.len(), Ordering::Relaxed);
        dropped
    }

    /// How many there are, about.
    pub fn count(&self) -> usize {
        self.lanes.iter().map(|lane| lane.count.load(Ordering::Relaxed)).sum()
    }
}
