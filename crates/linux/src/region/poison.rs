//! Pages that could not be had, and shall not be had by who comes later either.
//!
//! **Guarantee.** From when a page is poisoned until it is discarded who touches it has SIGBUS, and calls say so: also if the backing works again meanwhile. Nothing allocates.
//!
//! **Mechanism.** A list, which the backing is wrapped in: it fills no page that is noted. Who notes one looks once more after that; if it cannot be had then, no read of it succeeds any more, so
//! nobody shows a page there, and the kernel is told to poison the address (`UFFDIO_POISON`).

use super::Served;
use crate::PAGE;
use crate::backing::{Backing, Page};
use crate::host::lock;
use crate::registry::Answer;
use crate::stopped::Cause;
use spile::{Access, Denied, Locking};
use spile_sync::atomic::{AtomicUsize, Ordering};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// How many pages of a region can be poisoned.
const MOST: usize = 4096;
/// How often the kernel is asked that has a page there still, which leaves.
const PATIENCE: u32 = 1000;

/// Which pages of a region are.
pub(super) struct Poisoned {
    pages: Mutex<Vec<u64>>,
    count: AtomicUsize,
}

/// A backing that fills none of them.
pub(super) struct But {
    pub(super) backing: Arc<dyn Backing>,
    pub(super) poisoned: Arc<Poisoned>,
}

impl Poisoned {
    /// None.
    pub(super) fn new() -> Self {
        Self { pages: Mutex::new(Vec::with_capacity(MOST)), count: AtomicUsize::new(0) }
    }

    /// Notes one. Whether it was not noted, and there was room.
    fn add(&self, page: u64) -> bool {
        let mut pages = lock(&self.pages);
        let place = pages.binary_search(&page).err().filter(|_| pages.len() < MOST);
        place.into_iter().for_each(|place| pages.insert(place, page));
        // Relaxed, here and below: who has noted one asks the backing himself afterwards, and waits for who asked before.
        self.count.store(pages.len(), Ordering::Relaxed);
        place.is_some()
    }

    fn remove(&self, gone: &Range<u64>) {
        let mut pages = lock(&self.pages);
        pages.retain(|page| !gone.contains(page));
        self.count.store(pages.len(), Ordering::Relaxed);
    }

    /// Those of a range.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<u64> {
        lock(&self.pages).iter().copied().filter(|page| range.contains(page)).collect()
    }

    fn has_any(&self, range: &Range<u64>) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && {
            let pages = lock(&self.pages);
            pages.get(pages.partition_point(|page| *page < range.start)).is_some_and(|page| *page < range.end)
        }
    }
}

// SAFETY: (1) and (2) what it gives is the backing's, as it gave it.
unsafe impl Backing for But {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        if self.poisoned.has_any(&(first..first + pages.len() as u64)) {
            return Err(io::Error::from_raw_os_error(libc::EHWPOISON));
        }
        self.backing.fill(first, pages)
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        self.backing.write_back(first, pages)
    }

    fn takes_writes(&self) -> bool {
        self.backing.takes_writes()
    }

    fn sync(&self) -> io::Result<()> {
        self.backing.sync()
    }

    fn discard(&self, pages: Range<u64>) {
        self.backing.discard(pages);
    }
}

impl<L: Locking> Served<L> {
    /// Poisons a page that could not be had.
    pub(super) fn poison(&self, page: u64, access: Access) -> Answer {
        let (Some(poisoned), at, this) = (&self.poisoned, self.start + page * PAGE, page..page + 1) else {
            return Answer::HandOn;
        };
        while poisoned.add(page) {
            let came = self.fault(at, access);
            let is_poisoned = came == Err(Denied::Bus) && self.poison_address(at);
            if !is_poisoned {
                poisoned.remove(&this);
                return if came.is_ok() { Answer::Repeat } else { Answer::HandOn };
            }
            // Now the kernel raises the signal. If it is noted no more it was discarded meanwhile.
            if poisoned.has_any(&this) {
                return Answer::Repeat;
            }
        }
        // The kernel does not say it; or there is no room.
        if poisoned.has_any(&this) { Answer::Broken } else { Answer::HandOn }
    }

    /// Has the kernel poison an address at which nobody shows a page any more. Whether it has.
    fn poison_address(&self, at: u64) -> bool {
        let host = self.mm.platform();
        for _ in 0..PATIENCE {
            // SAFETY: (1) who touches it is told.
            match unsafe { host.uffd().poison(at, PAGE) } {
                Ok(()) => return true,
                // What an evictor has left there, if it is not poisoned.
                Err(stopped) if stopped.cause() == Cause::PageThere => host.forget(&(at..at + PAGE)),
                Err(_) => return false,
            }
            std::thread::yield_now();
        }
        true
    }

    /// Those of `pages` that are poisoned are so no more, if they can be had now: they are brought, for what is shown at an address poisons it no more.
    pub(super) fn cure(&self, pages: &Range<u64>) {
        for page in self.poisoned.iter().flat_map(|poisoned| poisoned.within(pages)) {
            self.poisoned.iter().for_each(|poisoned| poisoned.remove(&(page..page + 1)));
            if self.fault(self.start + page * PAGE, Access::Read).is_err() {
                self.poisoned.iter().for_each(|poisoned| _ = poisoned.add(page));
            }
        }
    }
}
