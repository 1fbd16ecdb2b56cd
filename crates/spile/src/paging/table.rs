//! A table, its lock, and the tree of tables of one address space.

use crate::addr::{FrameId, PAGE_SHIFT, Range, Slot, SpaceId};
use crate::frame;
use crate::paging::Pte;
use crate::paging::span::SpanLock;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use core::fmt;
use core::marker::PhantomData;
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spile_sync::lock::{TryLock, TryLockGuard};
use spile_sync::{order, seeded};

/// log2 of the entries of a table. Models have small tables, so that each is soon full, empty and freed.
#[cfg(not(loom))]
pub const BITS: u32 = 9;
#[cfg(loom)]
#[allow(missing_docs, reason = "as above")]
pub const BITS: u32 = 1;

/// The levels of tables. Level 0 has the pages' entries.
#[cfg(not(loom))]
pub const LEVELS: usize = 4;
#[cfg(loom)]
#[allow(missing_docs, reason = "as above")]
pub const LEVELS: usize = 2;

const ENTRIES: usize = 1 << BITS;

/// A frame as a table.
#[derive(Debug)]
#[repr(transparent)]
pub struct Table([AtomicU64; ENTRIES]);

impl Table {
    /// With empty entries. For platforms whose tables are not in frames.
    #[allow(clippy::new_without_default, reason = "a page is not made by the way")]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Empties all entries.
    ///
    /// # Safety
    ///
    /// (1) The table is in no tree, and nobody else's.
    pub unsafe fn clear(&self) {
        // Relaxed: nobody else knows the table.
        self.0.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
    }

    /// The bits of entry `i`, as the MMU reads them.
    pub fn load(&self, i: usize) -> u64 {
        // Acquire [entry-load]: what a linked table or an installed page contains was written before.
        self.0[i].load(order!("entry-load", Acquire))
    }

    /// Changes entry `i` of a table that no MMU reads. What it was, if not `seen`.
    #[cfg(feature = "file")]
    pub(crate) fn exchange(&self, i: usize, seen: u64, new: u64) -> Result<(), u64> {
        // Release [entry-exchange]: what is behind it was written before. Acquire: what a reader was told of is seen by who takes it away.
        self.0[i].compare_exchange(seen, new, order!("entry-exchange", AcqRel), Ordering::Acquire).map(drop)
    }

    /// Sets bits of entry `i` as hardware does: unless it is no longer `seen`. For MMUs in software.
    ///
    /// # Safety
    ///
    /// (1) `marked` is `seen` with the accessed bit, or the accessed and the dirty bit, set; (2) the dirty bit only where `seen` lets writes pass.
    pub unsafe fn mark(&self, i: usize, seen: u64, marked: u64) -> bool {
        // Relaxed: it adds to an entry that this CPU has just read.
        self.0[i].compare_exchange(seen, marked, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The lock of a table, how many entries are in use, whether it is detached, and a link for lists of freed tables.
#[derive(Debug)]
pub struct TableLock {
    lock: TryLock,
    /// The lock of what the table maps, for designs that want one.
    pub(super) span: SpanLock,
    /// [`DETACHED`], and the number of entries in use. Written under the lock.
    state: AtomicU32,
    /// In lists of detached tables.
    pub(super) next: AtomicU32,
}

const DETACHED: u32 = 1 << 31;

impl TableLock {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { lock: TryLock::new(), span: SpanLock::new(), state: AtomicU32::new(0), next: AtomicU32::new(0) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { lock: TryLock::new(), span: SpanLock::new(), state: AtomicU32::new(0), next: AtomicU32::new(0) }
    }
}

/// The right to change the entries of a table. Having one tells you: the table is linked, or was when the lock was taken and
/// nobody else has unlinked it since.
pub(super) struct Locked<'p, P: Platform> {
    p: &'p P,
    pub(super) frame: FrameId,
    _lock: TryLockGuard<'p>,
    _pin: P::Pin,
}

impl<'p, P: Platform> Locked<'p, P> {
    fn state(&self) -> &'p AtomicU32 {
        &frame::meta(self.p, self.frame).table.state
    }

    fn entry(&self, i: usize) -> &'p AtomicU64 {
        &frame::table(self.p, self.frame).0[i]
    }

    pub(super) fn raw(&self, i: usize) -> u64 {
        // Relaxed: entries change under this lock, hardware's bits aside.
        self.entry(i).load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, i: usize) -> Option<Pte> {
        shown(self.p, self.raw(i))
    }

    /// Puts another word in the place of that of an entry in use, and says what was in it: hardware may have marked it until this moment.
    pub(super) fn exchange(&self, i: usize, raw: u64) -> u64 {
        debug_assert!(self.raw(i) != 0 && raw != 0, "an entry in use stays so");
        // Release [entry-swap]: as in `fill`.
        self.entry(i).swap(raw, order!("entry-swap", Release))
    }

    /// Fills an empty entry.
    pub(super) fn fill(&self, i: usize, raw: u64) {
        debug_assert_eq!(self.raw(i), 0, "an entry in use was filled");
        // Relaxed: written under the lock.
        self.state().store(self.state().load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Release [entry-store]: whoever walks here sees what is behind it.
        self.entry(i).store(raw, order!("entry-store", Release));
    }

    /// Empties an entry in use, and says what was in it: hardware may have marked it until this moment.
    pub(super) fn empty(&self, i: usize) -> u64 {
        self.state().store(self.state().load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        // Relaxed: nothing is published, and what the frame contains is other CPUs' business until the flush.
        self.entry(i).swap(0, Ordering::Relaxed)
    }

    /// Empties an entry in use, if `wanted` says so of what it is at that moment, and says what was in it.
    pub(super) fn empty_if(&self, i: usize, wanted: impl Fn(Pte) -> bool) -> Option<Pte> {
        loop {
            let raw = self.raw(i);
            let pte = shown(self.p, raw).filter(|pte| wanted(*pte))?;
            // Relaxed: as in `empty`.
            if self.entry(i).compare_exchange(raw, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.state().store(self.state().load(Ordering::Relaxed) - 1, Ordering::Relaxed);
                return Some(pte);
            }
        }
    }

    /// Changes an entry in use, keeping what hardware marks meanwhile. Returns what was in it.
    pub(super) fn edit(&self, i: usize, change: impl Fn(Pte) -> Pte) -> Option<Pte> {
        loop {
            let raw = self.raw(i);
            let pte = shown(self.p, raw)?;
            let new = self.p.encode(change(pte)) | raw & kept::<P>();
            // Release [entry-edit]: a page that becomes writable here was read before by those who shared it.
            if self.entry(i).compare_exchange(raw, new, order!("entry-edit", Release), Ordering::Relaxed).is_ok() {
                return Some(pte);
            }
        }
    }

    /// Whether the page of entry `i` shall stay in memory.
    pub(super) fn is_kept(&self, i: usize) -> bool {
        self.raw(i) & kept::<P>() != 0
    }

    /// Lets the page of entry `i` stay in memory, if there is one, or lets it go.
    pub(super) fn keep(&self, i: usize, is_kept: bool) {
        loop {
            let raw = self.raw(i);
            let new = if is_kept { raw | kept::<P>() } else { raw & !kept::<P>() };
            // Relaxed: who asks has the lock.
            let is_page = shown(self.p, raw).is_some();
            if !is_page || self.entry(i).compare_exchange(raw, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Whether no entry is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.state().load(Ordering::Relaxed) & !DETACHED == 0
    }

    /// Nobody will find the table from now on, and whoever has found it will see that.
    pub(super) fn detach(self) {
        debug_assert!(self.is_empty(), "a table in use was detached");
        if !seeded!("p3-no-mark") {
            self.state().store(DETACHED, Ordering::Relaxed);
        }
    }
}

/// The page tables of one address space.
pub struct PageTable<P: Platform> {
    pub(super) root: FrameId,
    /// The number by which the MMU knows the space.
    pub(super) space: SpaceId,
    /// How many [`Gather`](super::Gather)s have changed entries and not yet awaited their flush. Raised under the table's lock
    /// (P6).
    pub(super) unflushed: AtomicU32,
    /// How many pages it shows.
    pub(super) residents: <P::Reclaim as Reclaim<P>>::Residents,
    /// How many look at it who found it by the files that it shows.
    pub(super) visitors: AtomicU32,
    /// How many changes have taken mappings out of the index whose pages may still be there.
    pub(super) displacing: AtomicU32,
    /// Where the platform's [`Shared`](crate::Shared) is, by which it is known.
    home: usize,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> fmt::Debug for PageTable<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tables of {:?} from {:?}", self.space, self.root)
    }
}

/// The page that a word shows.
#[inline(always)]
pub(super) fn shown<P: Platform>(p: &P, raw: u64) -> Option<Pte> {
    if away(p, raw).is_some() { None } else { p.decode(raw) }
}

/// What marks a word whose page stays in memory.
#[inline(always)]
pub(super) fn kept<P: Platform>() -> u64 {
    if P::Reclaim::KEEPS { P::FORMAT.kept } else { 0 }
}

/// Where the page is that a word says is away.
#[inline(always)]
pub(super) fn away<P: Platform>(p: &P, raw: u64) -> Option<Slot> {
    P::Reclaim::slot(P::Reclaim::seen(p, raw))
}

/// The bits of `at` that choose an entry of a table of `level`.
pub(super) fn index(at: u64, level: usize) -> usize {
    (at >> shift(level)) as usize & (ENTRIES - 1)
}

fn shift(level: usize) -> u32 {
    PAGE_SHIFT + BITS * level as u32
}

/// What a table of `level` on the way to `at` maps.
pub(super) fn span_of(at: u64, level: usize) -> Range {
    let size = 1u64 << shift(level + 1);
    let start = at & !(size - 1);
    Range::of(start, start + size)
}

/// The part of `range` in each entry of a table of `level`, ascending.
pub(super) fn parts(range: Range, level: usize) -> impl Iterator<Item = Range> {
    let size = 1u64 << shift(level);
    let mut rest = Some(range);
    core::iter::from_fn(move || {
        let now = rest?;
        let cut = (now.start() | (size - 1)) + 1;
        rest = now.above(cut);
        now.below(cut)
    })
}

impl<P: Platform> PageTable<P> {
    /// Empty tables for a new address space, or none without a frame.
    pub(crate) fn new(p: &P, space: SpaceId) -> Option<Self> {
        let root = Self::take_table(p)?;
        let none = || AtomicU32::new(0);
        let (unflushed, visitors, displacing) = (none(), none(), none());
        let (residents, home) = (Default::default(), p.shared().name());
        Some(Self { root, space, unflushed, residents, visitors, displacing, home, platform: PhantomData })
    }

    /// The frame of the topmost table: what a CPU is told when it enters the space.
    pub fn root(&self) -> FrameId {
        self.root
    }

    /// The number of the space.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// A new table, in no tree.
    pub(super) fn take_table(p: &P) -> Option<FrameId> {
        let frame = frame::relieved(p, P::alloc_table)?;
        // Relaxed: nobody else knows the table.
        let meta = &frame::meta(p, frame).table;
        meta.state.store(0, Ordering::Relaxed);
        meta.span.renew();
        Some(frame)
    }

    /// Gives back a table that no tree had, or whose grace period is over.
    pub(super) fn give_table(p: &P, frame: FrameId) {
        // SAFETY: (1) by `take_table`; (2) and (3) in no tree, or no more, and nobody walks there.
        unsafe { p.free_table(frame) };
    }

    /// Locks a table found by a walk; none if it has been detached since.
    pub(super) fn lock(p: &P, frame: FrameId) -> Option<Locked<'_, P>> {
        let pin = p.pin();
        let meta = &frame::meta(p, frame).table;
        let lock = loop {
            match meta.lock.try_lock() {
                Some(lock) => break lock,
                None => p.relax(),
            }
            while !meta.lock.is_open() {
                p.relax();
            }
        };
        let locked = Locked { p, frame, _lock: lock, _pin: pin };
        // P3. Relaxed: written under the lock.
        (locked.state().load(Ordering::Relaxed) & DETACHED == 0).then_some(locked)
    }

    /// A guess, without the lock, whether a table has entries in use.
    pub(super) fn seems_empty(p: &P, frame: FrameId) -> bool {
        frame::meta(p, frame).table.state.load(Ordering::Relaxed) == 0
    }

    /// The table of level 0 for `at`, if there is one. In a read section.
    pub(super) fn leaf(&self, p: &P, at: u64) -> Option<FrameId> {
        (1..LEVELS).rev().try_fold(self.root, |table, level| Self::child_now(p, table, index(at, level)))
    }

    /// What entry `i` of an inner table leads to at this moment.
    pub(super) fn child_now(p: &P, table: FrameId, i: usize) -> Option<FrameId> {
        let raw = frame::table(p, table).load(i);
        (raw != 0).then(|| p.decode_table(raw))
    }

    /// As [`leaf`](Self::leaf), for who has claimed: if there is none, none will be linked by a fault whose hold ended with the claim.
    pub(super) fn leaf_or_never(&self, p: &P, at: u64) -> Option<FrameId> {
        (1..LEVELS).rev().try_fold(self.root, |table, level| Self::child(p, table, index(at, level)))
    }

    /// What entry `i` of an inner table leads to. If to nothing, then the table's lock was taken to see that (P2): who links there later
    /// has seen the caller's claim.
    pub(super) fn child(p: &P, table: FrameId, i: usize) -> Option<FrameId> {
        Self::child_now(p, table, i).or_else(|| {
            if seeded!("p2-skip-empty") {
                return None;
            }
            let raw = Self::lock(p, table).map_or(0, |locked| locked.raw(i));
            (raw != 0).then(|| p.decode_table(raw))
        })
    }

    /// The entry of `at`, without a lock: what it was at some moment of this call.
    ///
    /// # Panics
    ///
    /// If `p` is another platform than that of the tables.
    pub fn peek(&self, p: &P, at: u64) -> Option<Pte> {
        assert_eq!(self.home, p.shared().name(), "the tables belong to another platform");
        self.spot(p, at, None, || false).seen()
    }
}
