//! A region: addresses whose pages come from a backing, and go back there.
//!
//! **Guarantee.** What a program wrote it reads again, however often the page has left memory in between. A page that its backing cannot give is no page of zeros: who touches it is told
//! as the region says ([`OnFailure`]). A page that could not be written back stays.
//!
//! **Mechanism.** One address space of the core's ([`Mm`]) with one mapping, of one file of the core's, whose store is the backing. Loads and stores come by the handler of SIGBUS; calls
//! that are made here ask the core first, so that no signal is needed.

mod access;
mod build;
mod errors;
mod look;
mod pin;
mod poison;
mod prefetch;
mod share;
mod verbs;

pub use build::{OnFailure, RegionBuilder};
pub use errors::{Failed, NoPin, NoRegion, Unwritten};
pub use pin::{Pinned, PinnedMut, PinnedPtr};
pub use prefetch::Prefetch;
pub use verbs::Allowed;

use crate::PAGE;
use crate::backing::Backing;
use crate::host::{Contents, Errands, Host, Memory};
use crate::latency::Meter;
use crate::registry::{self, Answer, Serve, Visit};
use crate::trace::{Noted, What};
use crate::workers::Workers;
use crate::{events, report};
use poison::Poisoned;
use spile::backing::File;
use spile::linux::advice;
use spile::{Access, Denied, Done, Locking, Mm, VmaRefcount};
use spile_rcu::Global;
use spile_sync::atomic::AtomicU64;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::Arc;

/// What the handler has of a region.
struct Served<L: Locking> {
    mm: Mm<Host, L>,
    file: File<Host>,
    on_failure: OnFailure,
    start: u64,
    /// Signals.
    faults: Meter,
    /// If it poisons what cannot be had.
    poisoned: Option<Arc<Poisoned>>,
    /// How many pages are pinned.
    pinned: AtomicU64,
    noted: Noted,
    /// How many failures of the backing were told as events.
    failures_told: AtomicU64,
}

impl<L: Locking> Served<L> {
    fn contents(&self) -> &Contents {
        self.file.store().expect("it was made with one")
    }

    /// What is said of a byte of the region that cannot be had.
    fn failure(&self, at: u64, why: Denied) -> Failed {
        let error = if why == Denied::Bus { self.contents().take_error() } else { None };
        Failed { at, why, error }
    }

    /// A change of mappings.
    fn note_change(&self, what: What, at: Range<u64>) {
        self.noted.change(what, at, |each| self.mm.each_mapping(each));
    }

    fn fault(&self, at: u64, access: Access) -> Result<Done, Denied> {
        self.mm.platform().balance();
        let done = Errands::during(|| self.mm.fault_and_wait(at, access))?;
        if access == Access::Write {
            self.contents().note_write((at - self.start) / PAGE);
        }
        Ok(done)
    }

    /// That of a signal.
    fn resolve(&self, at: u64, access: Access) -> Result<(), Denied> {
        let done = self.fault(at, access)?;
        let page = at & !(PAGE - 1);
        if self.mm.platform().has_lost(page, done == Done::Spurious) {
            // The core takes its own entry away too. The next fault has the page shown.
            self.mm.madvise(page, PAGE, advice::DONTNEED).map_err(|_| Denied::Unmapped)?;
        }
        Ok(())
    }
}

impl<L: Locking> Serve for Served<L> {
    fn serve(&self, at: u64, access: Access) -> Result<(), Denied> {
        self.faults.time(|| self.resolve(at, access))?;
        self.noted.note(access.into(), at..at);
        Ok(())
    }

    fn bring(&self, page: u64) -> Result<(), Failed> {
        self.fault(self.start + page * PAGE, Access::Read).map(drop).map_err(|why| self.failure(page * PAGE, why))
    }

    fn failed(&self, at: u64, access: Access, why: Denied) -> Answer {
        if self.on_failure == OnFailure::Abort {
            let failed = self.failure(at - self.start, why);
            report::abort(format_args!("a {access:?} at {at:#x} failed: {failed}"));
        }
        if why == Denied::Bus { self.poison((at - self.start) / PAGE, access) } else { Answer::HandOn }
    }
}

/// Addresses whose pages come from a `B`, and go back there.
///
/// Threads share it by `&` or in an [`Arc`]: slices to read, [`read_at`](Self::read_at), [`prefetch`](Self::prefetch), [`pin`](Self::pin), [`evict`](Self::evict), [`flush`](Self::flush) and all that
/// it tells are for any number at once. What changes bytes takes it alone (`&mut`), for others may have slices; or is unsafe, and says what its caller sees to
/// ([`write_shared`](Self::write_shared), [`pin_ptr`](Self::pin_ptr), [`as_ptr`](Self::as_ptr)).
///
/// When it is dropped, what was written is written back, and errors of that are lost: [`flush`](Self::flush) first. That waits for all faults that are under way, of any region of the
/// process, and so for what backings wait for: drop it with no lock held that one takes, and not within a backing. In a child that a fork made nothing is done.
pub struct Region<B: Backing, L: Locking = VmaRefcount> {
    served: ManuallyDrop<Arc<Served<L>>>,
    backing: Arc<B>,
    workers: Arc<Workers>,
    memory: Memory,
    len: u64,
    is_writable: bool,
    /// Whether the handler knows it.
    is_known: bool,
}

impl<B: Backing, L: Locking> Region<B, L> {
    fn addresses(&self) -> Range<u64> {
        self.memory.at(0)..self.memory.at(0) + self.memory.len()
    }

    fn pages(&self) -> Range<u64> {
        0..self.len.div_ceil(PAGE)
    }

    /// The pages of some bytes.
    fn pages_of(&self, bytes: &Range<u64>) -> Range<u64> {
        bytes.start / PAGE..bytes.end.min(self.len).div_ceil(PAGE).max(bytes.start / PAGE)
    }

    /// Where pages are.
    fn at_pages(&self, pages: &Range<u64>) -> Range<u64> {
        self.memory.at(pages.start)..self.memory.at(pages.end)
    }

    fn range_of(&self, bytes: &Range<u64>) -> Result<spile::Range, spile::BadRange> {
        let pages = self.pages_of(bytes);
        spile::Range::with_len(self.memory.at(0) + pages.start * PAGE, (pages.end - pages.start) * PAGE)
    }

    fn failed(&self, at: u64, why: Denied) -> Failed {
        self.served.failure(at, why)
    }

    /// Its backing.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl<B: Backing, L: Locking> Drop for Region<B, L> {
    fn drop(&mut self) {
        // A child that a fork made has no such addresses, and what it has of the pager's is a copy: the descriptor is the parent's.
        if !self.memory.is_here() {
            return;
        }
        if self.is_known {
            // Its errors are lost, as it says.
            _ = self.flush();
            registry::remove(&self.addresses());
        }
        {
            let _visit = Visit::begin();
            let range = self.range_of(&(0..self.len)).expect("it has bytes");
            while self.served.mm.unmap(range).is_err() {
                std::thread::yield_now();
            }
            self.served.noted.note(What::Unmap, self.addresses());
        }
        self.take_out(self.pages());
        // SAFETY: (1) once, here, and not used after.
        drop(unsafe { ManuallyDrop::take(&mut self.served) });
        // What waits for readers that are gone: with it the backing goes.
        Global.barrier();
        events::ended(&self.addresses());
    }
}

impl<B: Backing, L: Locking> fmt::Debug for Region<B, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses();
        write!(f, "region {:#x}-{:#x}", addresses.start, addresses.end)
    }
}
