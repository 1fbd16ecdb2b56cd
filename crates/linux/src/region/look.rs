//! What a region tells of itself.
//!
//! **Guarantee.** Each answer was so at some moment while it was asked for. Nobody waits for who asks.
//!
//! **Mechanism.** Numbers that the core and the contents keep, and a walk of the file's pages.

use super::Region;
use crate::backing::Backing;
use crate::status::Status;
use crate::watchdog::{Asked, Watchdog};
use crate::working_set::WorkingSet;
use crate::{PAGE, events, runs};
use spile::Locking;
use spile_sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::io;
use std::ops::Range;
use std::time::Duration;

impl<B: Backing, L: Locking> Region<B, L> {
    /// From now on it is noted which pages are brought, and in which order: the next `most`; and which are written, by as many faults and calls. Once.
    pub fn record(&self, most: usize) {
        self.served.contents().record(most);
    }

    /// Those that were, since [`record`](Self::record).
    pub fn recorded(&self) -> WorkingSet {
        self.served.contents().recorded()
    }

    /// Which pages are in memory, as bytes. A moment's truth, as all that follows.
    pub fn resident(&self) -> Vec<Range<u64>> {
        self.pages_that(|_| true)
    }

    /// Which differ from what the backing has: since they were written back, or brought.
    pub fn dirty(&self) -> Vec<Range<u64>> {
        self.pages_that(|is_dirty| is_dirty)
    }

    /// Which are [poisoned](crate::OnFailure::Poison).
    pub fn poisoned(&self) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        for page in self.served.poisoned.iter().flat_map(|poisoned| poisoned.within(&self.pages())) {
            runs::add(&mut found, self.bytes_of(page));
        }
        found
    }

    fn bytes_of(&self, page: u64) -> Range<u64> {
        page * PAGE..((page + 1) * PAGE).min(self.len)
    }

    fn pages_that(&self, are: impl Fn(bool) -> bool) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        self.served.file.each_page(self.pages(), |page, is_dirty| {
            if are(is_dirty) {
                runs::add(&mut found, self.bytes_of(page));
            }
        });
        found
    }

    /// Tells `tell`, from a thread of its own, of a call of the backing that lasts longer than `limit`: once, while it lasts. Until what it gives is dropped.
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub fn watch(&self, limit: Duration, tell: impl Fn(Asked, Duration) + Send + 'static) -> io::Result<Watchdog> {
        let region = self.memory.at(0);
        let tell = move |asked, lasts| {
            events::lasts(region, asked, lasts);
            tell(asked, lasts);
        };
        Watchdog::of(self.served.contents().calls().clone(), limit, tell)
    }

    /// How it is, and what it has done.
    pub fn status(&self) -> Status {
        let done = self.served.contents().done();
        let load = |number: &AtomicU64| number.load(Relaxed);
        Status {
            at: self.addresses(),
            is_writable: self.is_writable,
            len: self.len,
            limit: self.served.mm.limit().map(|pages| pages * PAGE),
            shown: self.served.mm.resident_pages() * PAGE,
            resident: self.served.file.cached_pages() * PAGE,
            dirty: self.served.file.dirty_pages() * PAGE,
            filled: load(&done.filled) * PAGE,
            written: load(&done.written) * PAGE,
            failed: load(&done.failed),
            faults: self.served.faults.read(),
            fills: done.fills.read(),
            writes: done.writes.read(),
            asked: self.served.contents().calls().longest(),
        }
    }
}
