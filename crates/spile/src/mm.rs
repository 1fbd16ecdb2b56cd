//! An address space, and what can be done with it.
//!
//! **Guarantee.** [`Mm::fault`] never sleeps, never does I/O, and never waits for a lock that a sleeper may hold. The verbs may sleep; each
//! happens whole or not at all.
//!
//! **Mechanism.** This is the one place that drives both sides. A fault that needs a change (a stack that grows) says so, and the change is
//! made with nothing held; a change that needs faults makes them when it is over. Only [`Mm::fault_and_wait`] sleeps for a fault.

use crate::addr::{Access, BadRange, PAGE, Prot, Range, SpaceId, TABLE_END};
use crate::change::{Change, Elsewhere, NoMemory};
use crate::fault::{self, Denied, Outcome};
use crate::flushing::{Flushing, Unmapping};
use crate::index::{Index, Writer};
use crate::locking::{Exclusive, Locking, Miss, RwLock};
use crate::observe::{Counts, Event};
use crate::paging::{Gather, PageTable};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::usage::Usage;
use crate::vma::{Attr, Flags, Vma};
use crate::wait;
use core::fmt;
use core::ops::Deref;
#[cfg(feature = "linux")]
use spile_sync::atomic::AtomicU64;
use spile_sync::atomic::{AtomicUsize, Ordering};
use spile_sync::seeded;

type Tables<P> = <<P as Platform>::Reclaim as Reclaim<P>>::Tables;

/// An address space of platform `P`, its faults and changes kept apart by `L`.
pub struct Mm<P: Platform, L: Locking> {
    platform: P,
    pub(crate) index: L::Index<P>,
    pub(crate) lock: RwLock,
    /// Taken only when the address space is gone.
    pub(crate) table: Tables<P>,
    pub(crate) usage: Usage,
    pub(crate) layout: Layout,
    pub(crate) waiting: fault::Policy,
    /// How many have said that they use it.
    users: AtomicUsize,
    /// Places whose munmap is not over, where that lets others in.
    pub(crate) flushing: Flushing,
    pub(crate) unmapping: Unmapping,
    /// How often a change has taken away what it was about to map again, or has mapped that: odd in between.
    #[cfg(feature = "linux")]
    gaps: AtomicU64,
    #[cfg(feature = "linux")]
    pub(crate) linux: crate::linux::State,
    pub(crate) counts: Counts,
    design: L::PerMm<P>,
}

/// A user of an address space.
#[derive(Debug)]
#[must_use = "the use ends when it is dropped"]
pub struct Attached<'m>(&'m AtomicUsize);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where mappings may be, and where they are put when nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Everything an address space may map.
    pub all: Range,
    /// Free space is searched from here down, then from here up.
    pub base: u64,
    /// How far a growing mapping stays away from what is below it, in bytes.
    pub stack_gap: u64,
}

impl Default for Layout {
    /// From 64 KiB up to the middle of what tables can map, searched from the top.
    fn default() -> Self {
        let end = if cfg!(loom) { TABLE_END } else { TABLE_END / 2 - PAGE };
        let start = if cfg!(loom) { 0 } else { 16 * PAGE };
        Self { all: Range::of(start, end), base: end, stack_gap: 256 * PAGE }
    }
}

/// Where a mapping shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There, in the place of whatever is there.
    Over(Range),
    /// There, if nothing is there.
    At(Range),
    /// Wherever this many bytes are free.
    Anywhere(u64),
}

/// Why a verb did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The numbers are no range.
    Range(BadRange),
    /// The range is outside of the address space.
    Outside(Range),
    /// Something is there already.
    Occupied(Range),
    /// This range is not wholly mapped: nothing is at the address.
    Unmapped(u64),
    /// The mapping at this address can never be writable.
    ReadOnly(u64),
    /// There is no free space of this size.
    NoSpace(u64),
    /// There was no memory. Nothing was changed, but for what lay below the address it says, if it says one.
    NoMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Range(bad) => bad.fmt(f),
            Error::Outside(range) => write!(f, "{range} is not within the address space; map inside of its layout"),
            Error::Occupied(range) => write!(f, "something is mapped in {range}; unmap it first, or map over it"),
            Error::Unmapped(at) => write!(f, "nothing is mapped at {at:#x}"),
            Error::ReadOnly(at) => write!(f, "the mapping at {at:#x} shares a file that was not opened for writing"),
            Error::NoSpace(len) => write!(f, "no {len:#x} bytes in a row are free"),
            Error::NoMemory => f.write_str("no memory; nothing was changed"),
        }
    }
}

impl core::error::Error for Error {}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Error::NoMemory
    }
}

impl From<BadRange> for Error {
    fn from(bad: BadRange) -> Self {
        Error::Range(bad)
    }
}

impl<P: Platform, L: Locking> Mm<P, L> {
    /// An empty address space. May sleep, where pages can leave memory for it.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`].
    pub fn new(platform: P, layout: Layout) -> Result<Self, Error> {
        let space = SpaceId(platform.shared().number());
        let table = wait::with_room(&platform, || PageTable::new(&platform, space)).ok_or(Error::NoMemory)?;
        Ok(Self::with(L::per_mm(&platform, None), platform, table, layout, None))
    }

    /// Empty, for a fork of this one.
    pub(crate) fn child(&self) -> Option<Self> {
        let (design, platform) = (L::per_mm(&self.platform, Some(&self.design)), self.platform.clone());
        let table = PageTable::new(&platform, SpaceId(platform.shared().number()))?;
        let mut child = Self::with(design, platform, table, self.layout, Some(self.space()));
        child.unmapping = self.unmapping;
        child.waiting = self.waiting;
        P::Reclaim::inherit(self.table.residents(), child.table.residents());
        Some(child)
    }

    fn with(design: L::PerMm<P>, platform: P, table: PageTable<P>, layout: Layout, parent: Option<SpaceId>) -> Self {
        let index = Index::new(&platform);
        let table = P::Reclaim::keep(&platform, table, parent);
        Self {
            platform,
            index,
            lock: RwLock::new(),
            table,
            usage: Usage::new(),
            layout,
            waiting: fault::Policy::default(),
            users: AtomicUsize::new(0),
            flushing: Flushing::new(),
            unmapping: Unmapping::default(),
            #[cfg(feature = "linux")]
            gaps: AtomicU64::new(0),
            #[cfg(feature = "linux")]
            linux: crate::linux::State::new(),
            counts: Counts::new(),
            design,
        }
    }

    /// One more uses it, until the guard is dropped: a thread that runs in it, or somebody who looks at it from outside. Changes made by
    /// the only user need not wait for others; if nobody says so, they do.
    pub fn attach(&self) -> Attached<'_> {
        // Relaxed: a number; see `has_one_user`.
        self.users.fetch_add(1, Ordering::Relaxed);
        Attached(&self.users)
    }

    /// Whether nobody but the caller seems to use it: for designs. Good for what may be left out, not for what must not be done beside
    /// others: somebody may come at any time.
    pub fn has_one_user(&self) -> bool {
        // Relaxed: as it says, nothing may rest on it.
        self.users.load(Ordering::Relaxed) == 1
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The number by which the MMU knows it.
    pub fn space(&self) -> SpaceId {
        self.table.space()
    }

    /// The page tables: for MMUs that walk them.
    pub fn page_table(&self) -> &PageTable<P> {
        &self.table
    }

    /// Where its mappings are: for designs.
    pub fn index(&self) -> &L::Index<P> {
        &self.index
    }

    /// The lock that keeps changes apart: for designs.
    pub fn lock(&self) -> &RwLock {
        &self.lock
    }

    /// All of that lock: for designs. May sleep.
    pub fn wait_for_all(&self) -> Exclusive<'_, P> {
        self.lock.wait_for_all(&self.platform, self.counting(Event::WriteWait))
    }

    /// What the design keeps: for designs.
    pub fn design(&self) -> &L::PerMm<P> {
        &self.design
    }

    /// What munmap holds while it takes pages away.
    pub fn unmapping(&self) -> Unmapping {
        self.unmapping
    }

    /// From now on it holds that; a fork's child does as its parent. [`Unmapping::Share`] unless told. `RangeLock` and `PtRange` do as they do.
    pub fn set_unmapping(&mut self, unmapping: Unmapping) {
        self.unmapping = unmapping;
    }

    /// How much is mapped.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// How many levels of nodes the index of mappings has, if it can tell: what a lookup passes. Waits for the right to change everything; may sleep.
    pub fn height(&self) -> Option<usize> {
        let _right = L::write(self, &[Range::EVERYTHING]);
        // SAFETY: (1) nobody else has the right to change.
        unsafe { self.index.height_still() }
    }

    /// Where mappings may be.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Makes the page of `at` accessible, or says why not. Never sleeps; may run with interrupts off.
    #[inline]
    pub fn fault(&self, at: u64, access: Access) -> Outcome<'_, P> {
        fault::fault::<_, _, false>(self, at, access)
    }

    /// As [`fault`](Self::fault), and waits, and lets stacks grow. May sleep; while a page is read for it, with what it holds of the address space, if
    /// that says so ([`set_waiting`](Self::set_waiting)).
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn fault_and_wait(&self, at: u64, access: Access) -> Result<fault::Done, Denied> {
        // A page that was waited for stays until the fault has come again: else it could be taken away before, each time.
        let mut awaited = None;
        loop {
            match fault::fault_asleep(self, at, access) {
                Outcome::Done(done) if done != fault::Done::Raced => return Ok(done),
                Outcome::Wait(token) if token.page().is_some() => {
                    token.wait();
                    awaited = Some(token).filter(|_| !seeded!("come-again-without-the-page"));
                }
                unfinished => {
                    // Who waits for memory holds none.
                    awaited = awaited.filter(|_| !matches!(&unfinished, Outcome::Wait(token) if token.is_for_memory()));
                    self.finish(at, unfinished)?;
                }
            }
        }
    }

    /// Does what a fault at `at` left to its caller: waits, or lets a stack grow. The access can be repeated then, and may fault again.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn finish(&self, at: u64, outcome: Outcome<'_, P>) -> Result<(), Denied> {
        match outcome {
            Outcome::Done(fault::Done::Raced) => {
                self.platform.relax();
                Ok(())
            }
            Outcome::Done(_) => Ok(()),
            Outcome::Denied(denied) => Err(denied),
            #[cfg(feature = "linux")]
            Outcome::Grow => self.grow(at, |added, whole, flags| self.may_grow(added, whole, flags)),
            #[cfg(not(feature = "linux"))]
            Outcome::Grow => self.grow(at, |_, _, _| true),
            Outcome::Wait(token) => {
                token.wait();
                Ok(())
            }
        }
    }

    /// Lets the mapping above `at` grow down to it, if `allowed` says so of what is added, its new length in bytes, and its properties. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn grow(&self, at: u64, allowed: impl FnOnce(Range, u64, Flags) -> bool) -> Result<(), Denied> {
        let gap = self.layout.stack_gap;
        let grow = |change: &mut Change<'_, P, L>| {
            self.lock.let_others_in();
            change.grow(at, gap, allowed)
        };
        self.change(&[Range::EVERYTHING], grow).map_err(|why| match why {
            crate::change::Ungrown::Refused => Denied::Unmapped,
            crate::change::Ungrown::NoMemory => Denied::NoMemory,
        })
    }

    /// Maps. May sleep. `attr`, which is called with the right to change, must not: a file is made before.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was changed.
    ///
    /// # Panics
    ///
    /// If `attr` says a file of another platform: its frames are not this one's. Nothing was changed.
    pub fn map(&self, place: Place, attr: impl FnOnce(Range) -> Attr<P>) -> Result<Range, Error> {
        let known = match place {
            Place::Over(at) | Place::At(at) => Some(at),
            Place::Anywhere(_) => None,
        };
        let mut attr = Some(attr);
        self.change_somewhere(known, |change| {
            let at = match place {
                Place::Over(at) => change.may_map(at)?,
                Place::At(at) if change.first(at).is_some() => return Ok(Err(Error::Occupied(at))),
                Place::At(at) => change.may_map(at)?,
                Place::Anywhere(len) => match change.free_range(len) {
                    None => return Ok(Err(Error::NoSpace(len))),
                    Some(at) => change.may_map(at)?,
                },
            };
            let attr = attr.take().expect("a change that went elsewhere did not come here");
            Ok(self.check(at).and_then(|()| Ok(change.map(at, attr(at))?)).map(|()| at))
        })
        .inspect(|at| self.wait_until_flushed(*at))
    }

    /// Unmaps whatever is in `at`. When it returns no CPU uses any of its pages. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was changed.
    pub fn unmap(&self, at: Range) -> Result<(), Error> {
        self.check(at)?;
        Ok(Change::begin(self, &[at]).unmap(at)?)
    }

    /// Changes what may be done with `at`, which is wholly mapped. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error`]; what lies below the mapping it is about was changed.
    pub fn protect(&self, at: Range, prot: Prot) -> Result<(), Error> {
        self.check(at)?;
        self.change(&[at], |change| {
            let mut rest = Some(at);
            while let Some(now) = rest {
                let vma = change.at(now.start()).ok_or(Error::Unmapped(now.start()))?;
                let part = now.overlap(vma.range()).expect("it covers the start");
                if prot.has(Prot::W) && !vma.attr().flags.has(Flags::MAY_WRITE) {
                    return Err(Error::ReadOnly(now.start()));
                }
                let attr = Attr { prot, ..vma.attr().skip(part.start() - vma.range().start()) };
                if vma.attr().prot != prot {
                    change.alter(part, attr)?;
                }
                rest = now.above(part.end());
            }
            Ok(())
        })
    }

    fn check(&self, at: Range) -> Result<(), Error> {
        if self.layout.all.covers(at) { Ok(()) } else { Err(Error::Outside(at)) }
    }

    /// Runs `verb` with the right to change `want`, then, with nothing held, gives back what waited.
    pub(crate) fn change<T>(&self, want: &[Range], verb: impl FnOnce(&mut Change<'_, P, L>) -> T) -> T {
        let done = verb(&mut Change::begin(self, want));
        self.relieve();
        done
    }

    /// As [`change`](Self::change), for a verb that finds out under way where it changes something.
    pub(crate) fn change_somewhere<T>(
        &self,
        known: Option<Range>,
        mut verb: impl FnMut(&mut Change<'_, P, L>) -> Result<T, Elsewhere>,
    ) -> T {
        let mut elsewhere = None;
        loop {
            let done = verb(&mut match elsewhere {
                // Where places are in the way it says so.
                None => Change::begin_among_flushes(self, known.as_slice()),
                Some(range) => Change::begin(self, &[range]),
            });
            self.relieve();
            match done {
                Ok(done) => return done,
                Err(Elsewhere(range)) => elsewhere = Some(range),
            }
            self.count(Event::Elsewhere);
        }
    }

    /// Until no CPU uses what was at `at` before. With nothing held; may sleep.
    #[inline]
    pub(crate) fn wait_until_flushed(&self, at: Range) {
        if self.flushing.is_any() {
            self.flushing.wait(&self.platform, at);
        }
    }

    /// Gives back what waited. With nothing held.
    pub(crate) fn relieve(&self) {
        self.platform.shared().relieve(&self.platform);
    }

    /// Takes away the pages of `at`, whose faults are kept out by claims; when it returns no CPU uses them.
    pub(crate) fn zap(&self, at: Range) {
        let mut gather = Gather::new(&self.platform, &self.table);
        // SAFETY: (1) the space's own; (2) claims keep faults out, says the caller; (3) settled next.
        unsafe { self.table.zap(&self.platform, at, &mut gather) };
        gather.settle(at);
    }

    /// Drops the pages of `at`, where mappings stay and faults go on: the next access finds what was there in the beginning. False if
    /// the caller's hold did not last; what was dropped by then is dropped.
    #[cfg(feature = "linux")]
    pub(crate) fn drop_pages(&self, at: Range, good: impl Fn() -> bool) -> bool {
        let mut gather = Gather::new(&self.platform, &self.table);
        // SAFETY: (1) the space's own; (2) `good` asks the caller's hold, or the caller has the right to change.
        let whole = unsafe { self.table.zap_while(&self.platform, at, &mut gather, good) };
        gather.settle(at);
        whole
    }

    /// What it means that no mapping was found at `at`, if `next` looks again for that or the next above: for designs.
    #[cold]
    pub fn miss<V: Deref<Target = Vma<P, L>>>(&self, at: u64, next: impl FnOnce() -> Option<V>) -> Miss {
        // Acquire: pairs with `end_gap`; the second look, below, finds what filled the gap. A gap that has begun is seen by whoever has
        // seen that something was taken away after it.
        #[cfg(feature = "linux")]
        let gaps = self.gaps.load(Ordering::Acquire);
        #[cfg(feature = "linux")]
        if gaps & 1 != 0 {
            return Miss::Contended;
        }
        let miss = match next() {
            Some(vma) if vma.range().contains(at) => Miss::Stale,
            Some(vma) if vma.attr().flags.has(Flags::GROWS_DOWN) => Miss::Grow,
            _ => Miss::NoVma,
        };
        // Relaxed: the look has acquired what it found, or did not find; if that was another gap, its number too.
        #[cfg(feature = "linux")]
        if self.gaps.load(Ordering::Relaxed) != gaps {
            return Miss::Contended;
        }
        miss
    }

    /// Until [`end_gap`](Self::end_gap) a fault that finds nothing waits for the change under way. With the right to change everything.
    #[cfg(feature = "linux")]
    pub(crate) fn begin_gap(&self) {
        // Relaxed: the store that takes the mapping out of the index releases it.
        self.gaps.store(self.gaps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// What was to be mapped is mapped.
    #[cfg(feature = "linux")]
    pub(crate) fn end_gap(&self) {
        // Release: whoever sees it sees the index as it is now.
        self.gaps.store(self.gaps.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Calls `each` with every mapping, ascending: one that is replaced meanwhile may be seen twice, in pieces; what stays mapped is never
    /// left out. `each` runs in a read section, with a reference, or under a share of the lock, as the design looks: it must not sleep, nor change
    /// anything.
    pub fn each_vma(&self, mut each: impl FnMut(&Vma<P, L>)) {
        // A look per mapping: nobody waits for the whole walk.
        let mut look = |from| {
            L::look(self, from, |vma| {
                vma.map(|vma| {
                    each(vma);
                    vma.range().end()
                })
            })
        };
        let mut from = Some(0);
        while let Some(now) = from {
            from = look(now);
        }
    }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// The highest free range of `len` bytes below the layout's base, or else the lowest above.
    pub(crate) fn free_range(&self, len: u64) -> Option<Range> {
        let Layout { all, base, .. } = self.mm.layout;
        let below = all.below(base).and_then(|below| self.highest_gap(len, below));
        below.or_else(|| self.lowest_gap(len, all.above(base)?))
    }

    /// The highest `len` free bytes of `within`.
    pub(crate) fn highest_gap(&self, len: u64, mut within: Range) -> Option<Range> {
        loop {
            let at = Range::with_len(self.index().highest_gap(len, within)?, len).ok()?;
            match self.reserved(at) {
                None => return Some(at),
                Some(place) => within = within.below(place.start())?,
            }
        }
    }

    /// The lowest `len` free bytes of `within`.
    pub(crate) fn lowest_gap(&self, len: u64, mut within: Range) -> Option<Range> {
        loop {
            let at = Range::with_len(self.index().lowest_gap(len, within)?, len).ok()?;
            match self.reserved(at) {
                None => return Some(at),
                Some(place) => within = within.above(place.end())?,
            }
        }
    }
}

impl<P: Platform, L: Locking> Drop for Mm<P, L> {
    /// exit: nobody is left. Frees pages and tables; waits for no grace period. May sleep, until a fault of a relative has looked at a
    /// mapping that had been of its space: in `VmaRefcount` for ever, if somebody forgot a hold (`mem::forget`), as a change of that mapping would.
    fn drop(&mut self) {
        P::Reclaim::leave(&self.platform, &self.table);
        // Tables may be there that no mapping needs: of faults that found no frame.
        if self.table.is_in_use(&self.platform) {
            let mut gather = Gather::new(&self.platform, &self.table);
            self.table.zap_all(&self.platform, &mut gather);
            gather.settle(Range::of(0, TABLE_END));
        }
        // SAFETY: (1) all of it is ours.
        unsafe { self.index.writer() }.clear(|vma| L::unmake(self, vma));
        self.table.destroy(&self.platform);
        self.relieve();
    }
}

impl<P: Platform, L: Locking> fmt::Debug for Mm<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        self.each_vma(|vma| {
            list.entry(vma);
        });
        list.finish()
    }
}
