//! How a region comes to be.
//!
//! **Guarantee.** What was asked for and cannot be had is said: no region is mapped by another rule than its builder's.
//!
//! **Mechanism.** One address space of the core's with one mapping, of one file of the core's, whose store is the backing. The handler knows it when all is there.

use super::poison::{But, Poisoned};
use super::{NoRegion, Region, Served};
use crate::backing::Backing;
use crate::host::Contents;
use crate::latency::Meter;
use crate::pager::Pager;
use crate::registry::{self, Serve, Visit};
use crate::trace::{Noted, What};
use crate::{Ability, PAGE, events};
use spile::backing::File;
use spile::{Attr, Flags, Layout, Locking, Mm, Place, Prot, VmaRefcount};
use spile_sync::atomic::AtomicU64;
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// What becomes of a thread that touches a page which cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It gets the SIGBUS that it would have got without a pager, as for a mapped file that cannot be read: who handled that before has it, and if nobody did the process ends.
    #[default]
    Signal,
    /// The process ends, with a line that says why.
    Abort,
    /// The page is poisoned (`UFFDIO_POISON`): from now on whoever touches it has SIGBUS with `BUS_MCEERR_AR`, as of memory that is broken, whether the backing works again or not; system calls
    /// get `EHWPOISON` or `EFAULT`, and calls of the region's [say so](crate::Failed::is_poisoned). Until it is [discarded](Region::discard), and can be had then. Takes
    /// [`Ability::Poison`]; of more than 4,096 pages, and of what fails for another reason than its backing, it is as [`Signal`](Self::Signal).
    Poison,
}

/// How a region is to be.
#[must_use = "it is not mapped yet"]
pub struct RegionBuilder<'p, B: Backing, L: Locking = VmaRefcount> {
    pager: &'p Pager<L>,
    backing: B,
    len: u64,
    budget: Option<u64>,
    window: u32,
    is_writable: bool,
    on_failure: OnFailure,
}

pub(super) const LEAST: u64 = 8 * PAGE;
pub(super) const MOST: u64 = 1 << 46;
pub(super) const MOST_AROUND: u32 = 16;

impl<'p, B: Backing, L: Locking> RegionBuilder<'p, B, L> {
    /// The least budget, in bytes.
    pub const LEAST: u64 = LEAST;
    /// How many pages are brought by one fault, at most.
    pub const MOST_AROUND: u32 = MOST_AROUND;

    pub(crate) fn new(pager: &'p Pager<L>, backing: B, len: u64) -> Self {
        let is_writable = backing.takes_writes();
        Self { pager, backing, len, budget: None, window: MOST_AROUND, is_writable, on_failure: OnFailure::default() }
    }

    /// How many bytes it may show, of the pager's budget. All, unless said.
    pub fn budget(self, bytes: u64) -> Self {
        Self { budget: Some(bytes), ..self }
    }

    /// How many pages a fault brings, around the one that is missed: a power of two. 16, unless said; 1 where accesses are random.
    pub fn around(self, pages: u32) -> Self {
        Self { window: pages, ..self }
    }

    /// Whether it may be written. If its backing takes writes, unless said. What is written and cannot be written back stays in memory.
    pub fn writable(self, is_writable: bool) -> Self {
        Self { is_writable, ..self }
    }

    /// What becomes of a thread that touches a page which cannot be had.
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        Self { on_failure, ..self }
    }

    /// Maps it.
    ///
    /// # Errors
    ///
    /// [`NoRegion`].
    pub fn map(self) -> Result<Region<B, L>, NoRegion> {
        if !(1..=MOST).contains(&self.len) {
            return Err(NoRegion::Length(self.len));
        }
        if !self.window.is_power_of_two() || self.window > MOST_AROUND {
            return Err(NoRegion::Window(self.window));
        }
        if self.on_failure == OnFailure::Poison && !self.pager.poisons() {
            return Err(NoRegion::Lacks(Ability::Poison));
        }
        if let Some(bytes) = self.budget.filter(|bytes| *bytes < LEAST) {
            return Err(NoRegion::Budget(bytes));
        }
        let host = self.pager.host().clone();
        let memory = host.memory(self.len.next_multiple_of(PAGE)).map_err(|(what, error)| NoRegion::Kernel(what, error))?;
        let backing = Arc::new(self.backing);
        let poisoned = (self.on_failure == OnFailure::Poison).then(|| Arc::new(Poisoned::new()));
        let contents = Contents::new(match &poisoned {
            Some(poisoned) => Arc::new(But { backing: backing.clone(), poisoned: poisoned.clone() }),
            None => backing.clone(),
        });
        let _visit = Visit::begin();
        let file = File::new(host.clone(), contents, self.len).ok_or(NoRegion::NoMemory)?;
        file.set_readahead(self.window);
        let range = spile::Range::with_len(memory.at(0), memory.len()).expect("whole pages");
        let mm = Mm::new(host, Layout { all: range, base: range.end(), stack_gap: 0 }).map_err(|_| NoRegion::NoMemory)?;
        let prot = if self.is_writable { Prot::RW } else { Prot::R };
        let attr = |_| Attr {
            prot,
            flags: Flags::SHARED
                .with(Flags::when(self.is_writable, Flags::MAY_WRITE))
                .with(Flags::when(self.window == 1, Flags::RANDOM)),
            backing: spile::Backing::File(file.clone(), 0),
            name: None,
        };
        mm.map(Place::At(range), attr).map_err(|_| NoRegion::NoMemory)?;
        if let Some(bytes) = self.budget {
            mm.set_limit(Some(bytes / PAGE));
        }
        let served = Arc::new(Served {
            mm,
            file,
            on_failure: self.on_failure,
            start: memory.at(0),
            faults: Meter::default(),
            poisoned,
            pinned: AtomicU64::new(0),
            noted: Noted::new(self.pager.traced()),
            failures_told: AtomicU64::new(0),
        });
        served.note_change(What::Map(prot.bits()), range.start()..range.end());
        let region = Region {
            served: ManuallyDrop::new(served),
            backing,
            workers: Arc::clone(self.pager.workers()),
            memory,
            len: self.len,
            is_writable: self.is_writable,
            is_known: false,
        };
        region.publish()
    }
}

impl<B: Backing, L: Locking> Region<B, L> {
    /// Lets the handler know it.
    fn publish(mut self) -> Result<Self, NoRegion> {
        self.is_known = registry::add(&self.addresses(), Arc::clone(&self.served) as Arc<dyn Serve>);
        if !self.is_known {
            return Err(NoRegion::NoMemory);
        }
        events::mapped(&self.addresses(), self.is_writable);
        Ok(self)
    }
}
