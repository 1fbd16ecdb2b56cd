//! What is done with a region's pages: they are brought, written back, let go, and taken away.
//!
//! **Guarantee.** What was written leaves memory when the backing has it, or is not wanted any more.
//!
//! **Mechanism.** The core's verbs, of the file and of the mapping.

use super::build::LEAST;
use super::{Failed, NoRegion, Region, Unwritten};
use crate::backing::Backing;
use crate::host::most_of;
use crate::registry::{self, Serve, Visit};
use crate::trace::{self, What};
use crate::working_set::WorkingSet;
use crate::{PAGE, events};
use spile::{Locking, Prot};
use spile_sync::atomic::Ordering;
use std::io;
use std::ops::Range;

/// What may be done with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Neither read nor write them.
    Nothing,
    /// Read them.
    Reads,
    /// Read and write them.
    Writes,
}

impl<B: Backing, L: Locking> Region<B, L> {
    /// Brings what is missing of `bytes`, so that no access there has to wait, for now: before it is handed to code that may not take a signal. More than the budget it does not hold.
    ///
    /// # Errors
    ///
    /// [`Failed`]: what lies before is there.
    pub fn prefetch(&self, bytes: Range<u64>) -> Result<(), Failed> {
        let _visit = Visit::begin();
        let pages = self.pages_of(&bytes);
        pages.clone().try_for_each(|page| self.served.bring(page))?;
        self.note(trace::PREFETCH, &pages);
        Ok(())
    }

    /// Writes back what was written, and waits until the backing says that it is durable.
    ///
    /// # Errors
    ///
    /// [`Unwritten`].
    pub fn flush(&self) -> Result<(), Unwritten> {
        let _visit = Visit::begin();
        self.flush_pages(self.pages())
    }

    fn flush_pages(&self, pages: Range<u64>) -> Result<(), Unwritten> {
        let flushed = self.served.file.flush(pages.clone()).map_err(|_| Unwritten(self.served.contents().take_error()));
        events::flushed(self.memory.at(0), &pages, &flushed);
        match flushed {
            Ok(()) => self.note(What::Sync, &pages),
            Err(_) => self.tell_failures(),
        }
        flushed
    }

    /// Lets the pages of `bytes` leave memory, if nobody has them; what was written is written back first. What could not be stays.
    pub fn evict(&self, bytes: Range<u64>) {
        let _visit = Visit::begin();
        let pages = self.pages_of(&bytes);
        self.served.file.send_out(pages.clone());
        self.note(trace::EVICT, &pages);
    }

    /// From now on it may show so many bytes, of the pager's budget; what is too much leaves.
    ///
    /// # Errors
    ///
    /// [`NoRegion::Budget`]; [`NoRegion::Pinned`], if what is pinned now would leave too few for others.
    pub fn set_budget(&self, bytes: Option<u64>) -> Result<(), NoRegion> {
        if let Some(bytes) = bytes.filter(|bytes| *bytes < LEAST) {
            return Err(NoRegion::Budget(bytes));
        }
        // Relaxed: a moment's truth; pins that are made meanwhile are bounded by the budget before.
        let pinned = self.served.pinned.load(Ordering::Relaxed);
        if let Some(budget) = bytes.filter(|bytes| most_of(bytes / PAGE) < pinned) {
            return Err(NoRegion::Pinned { budget, pinned: pinned * PAGE });
        }
        let _visit = Visit::begin();
        let before = self.served.mm.resident_pages();
        self.served.mm.set_limit(bytes.map(|bytes| bytes / PAGE));
        events::limited(self.memory.at(0), bytes, before.saturating_sub(self.served.mm.resident_pages()) * PAGE);
        self.tell_failures();
        Ok(())
    }

    /// What is in `bytes` is not wanted any more, whole pages of it: it is taken out of memory, without being written, and the backing is told. What is read there next is what the
    /// backing says. Waits for all faults that are under way, as the end of a region does. What is [poisoned](crate::OnFailure::Poison) there is brought, and is poisoned no more if it can be.
    pub fn discard(&mut self, bytes: Range<u64>) {
        let pages = bytes.start.div_ceil(PAGE)..if bytes.end >= self.len { self.pages().end } else { bytes.end / PAGE };
        if !pages.is_empty() {
            self.take_out(pages.clone());
            self.note(trace::DISCARD, &pages);
            self.served.contents().discard(pages.clone());
            let _visit = Visit::begin();
            self.served.cure(&pages);
        }
    }

    /// What may be done with the pages of `bytes`, from now on. Who does more is told as of a page that cannot be had: calls by [`Denied::Protected`](spile::Denied), the program by the
    /// SIGBUS that it would have had without a pager, or as [`OnFailure::Abort`](crate::OnFailure) says. What was written is kept.
    ///
    /// # Errors
    ///
    /// The core's: it was mapped to be read, or what is there was unmapped, or there is no memory for another mapping.
    pub fn protect(&mut self, bytes: Range<u64>, may: Allowed) -> Result<(), spile::Error> {
        let _visit = Visit::begin();
        let prot = match may {
            Allowed::Nothing => Prot::NONE,
            Allowed::Reads => Prot::R,
            Allowed::Writes => Prot::RW,
        };
        self.served.mm.protect(self.range_of(&bytes)?, prot)?;
        self.served.note_change(What::Protect(prot.bits()), self.at_pages(&self.pages_of(&bytes)));
        Ok(())
    }

    /// Takes the pages of `bytes` away: what was written is written back first, and who touches them is [told](crate::OnFailure). Waits for all faults that are under way, as the end of a region does.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]: nothing was unmapped.
    pub fn unmap(&mut self, bytes: Range<u64>) -> Result<(), Unwritten> {
        let pages = self.pages_of(&bytes);
        let Ok(range) = self.range_of(&bytes) else { return Ok(()) };
        {
            let _visit = Visit::begin();
            self.flush_pages(pages.clone())?;
            self.served.mm.unmap(range).map_err(|_| Unwritten(Some(io::ErrorKind::OutOfMemory.into())))?;
            self.note(What::Unmap, &pages);
        }
        self.take_out(pages);
        Ok(())
    }

    /// What the backing could not do since that was told last, in handlers too.
    fn tell_failures(&self) {
        let failed = self.served.contents().done().failed.load(Ordering::Relaxed);
        // Relaxed, both: numbers.
        let told = self.served.failures_told.fetch_max(failed, Ordering::Relaxed);
        if failed > told {
            events::failed(self.memory.at(0), failed - told);
        }
    }

    /// Something was done to `pages`.
    fn note(&self, what: What, pages: &Range<u64>) {
        self.tell_failures();
        if !pages.is_empty() {
            self.served.noted.note(what, self.at_pages(pages));
        }
    }

    /// Nothing of `pages` stays in memory, and none is shown, also of what an evictor has left.
    pub(super) fn take_out(&self, pages: Range<u64>) {
        let at = self.at_pages(&pages);
        {
            let _visit = Visit::begin();
            self.served.file.invalidate(pages);
        }
        // Evictors may have a frame of it, which they give back.
        registry::wait_for_visits();
        self.served.mm.platform().forget(&at);
    }

    /// Brings pages in this order, as far as they are of the region: what [`recorded`](Self::recorded) gave, another time. As [`prefetch`](Self::prefetch), of each.
    ///
    /// # Errors
    ///
    /// [`Failed`]: those before it are there.
    pub fn replay(&self, set: &WorkingSet) -> Result<(), Failed> {
        let pages = set.pages().iter().filter(|page| self.pages().contains(page));
        pages.map(|page| page * PAGE).try_for_each(|at| self.prefetch(at..at + 1))
    }
}
