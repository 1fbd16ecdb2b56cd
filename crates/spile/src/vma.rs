//! A mapping, as it is published: what it covers and what it is.
//!
//! **Guarantee.** A published [`Vma`] never changes, but for its anonymous identity, which is set once. Whoever wants another one
//! replaces it. What a design does with its memory afterwards is that design's matter.

use crate::addr::{PAGE_SHIFT, Prot, Range};
#[cfg(feature = "file")]
use crate::backing::File;
use crate::change::NoMemory;
use crate::index::{PIECES, Pieces, VmaBox};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
#[cfg(feature = "file")]
use crate::reclaim::sealed::Reclaim;
use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use spile_rcu::RcuBox;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::cell::UnsafeCell;
use spile_sync::seeded;

/// Properties of a mapping that are on or off. Two mappings merge only if theirs are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(&'static str, u32)] = &[$((stringify!($name), 1 << $bit)),*];
        }
    };
}

flags! {
    /// Stores are seen by others who map the same object; otherwise they are private.
    SHARED = 0;
    /// A shared mapping may be made writable: its file was opened so. Always set where the mapping is private.
    MAY_WRITE = 1;
    /// Grows towards lower addresses when the page below it is touched.
    GROWS_DOWN = 2;
    /// Its pages stay in memory.
    LOCKED = 3;
    /// As `LOCKED`, but only pages that have been touched.
    LOCK_ON_FAULT = 4;
    /// Counts as memory promised to the owner.
    ACCOUNTED = 5;
    /// Asked not to be counted.
    NO_RESERVE = 6;
    /// A fork does not copy it.
    DONT_FORK = 7;
    /// A fork's copy begins as zeros.
    WIPE_ON_FORK = 8;
    /// Left out of core dumps.
    DONT_DUMP = 9;
    /// No huge pages.
    NO_HUGE_PAGE = 10;
    /// Huge pages are welcome.
    HUGE_PAGE = 11;
    /// Will be read at random.
    RANDOM = 12;
    /// Will be read in order.
    SEQUENTIAL = 13;
    /// Equal pages may be merged.
    MERGEABLE = 14;
    /// The platform's own: never merged, never expanded.
    SPECIAL = 15;
    /// May be executed and not even be read, where the processor can withhold that.
    EXEC_ONLY = 16;
    /// Faults are to be durable in the file system. Kept, and without effect.
    SYNC = 17;
}

impl Flags {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Both together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All of it but `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `other`, if `on`.
    pub const fn when(on: bool, other: Self) -> Self {
        if on { other } else { Self::NONE }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| name)).finish()
    }
}

/// Where the contents of a mapping come from, and which page of it is the mapping's first.
pub enum Backing<P: Platform> {
    /// Zeros, until written. The number matters to merges alone: two neighbours merge if their pages are numbered in a row.
    Anon(u64),
    /// A file, from this page of it on.
    #[cfg(feature = "file")]
    File(File<P>, u64),
    #[doc(hidden)]
    Never(core::convert::Infallible, core::marker::PhantomData<P>),
}

impl<P: Platform> Clone for Backing<P> {
    fn clone(&self) -> Self {
        match self {
            Backing::Anon(page) => Backing::Anon(*page),
            #[cfg(feature = "file")]
            Backing::File(file, page) => Backing::File(file.clone(), *page),
            Backing::Never(never, _) => match *never {},
        }
    }
}

impl<P: Platform> fmt::Debug for Backing<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backing::Anon(page) => write!(f, "anon@{page:#x}"),
            #[cfg(feature = "file")]
            Backing::File(file, page) => write!(f, "file{}@{page:#x}", file.id()),
            Backing::Never(never, _) => match *never {},
        }
    }
}

impl<P: Platform> Backing<P> {
    /// The number of the first page.
    pub fn page(&self) -> u64 {
        match self {
            Backing::Anon(page) => *page,
            #[cfg(feature = "file")]
            Backing::File(_, page) => *page,
            Backing::Never(never, _) => match *never {},
        }
    }

    /// The same, `pages` further on.
    fn skip(&self, pages: u64) -> Self {
        match self {
            Backing::Anon(page) => Backing::Anon(page.wrapping_add(pages)),
            #[cfg(feature = "file")]
            Backing::File(file, page) => Backing::File(file.clone(), page.wrapping_add(pages)),
            Backing::Never(never, _) => match *never {},
        }
    }

    /// Whether both are anonymous, or the same file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Backing::Anon(_), Backing::Anon(_)) => true,
            #[cfg(feature = "file")]
            (Backing::File(a, _), Backing::File(b, _)) => a.is_same(b),
            _ => false,
        }
    }

    /// Whether `next` goes on where this ends after `pages`.
    pub(crate) fn continues_into(&self, pages: u64, next: &Self) -> bool {
        self.is_same(next) && self.page().wrapping_add(pages) == next.page()
    }

    /// Whether `frame` is `page` of the file that it is, if it is one.
    #[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "only files have pages"))]
    pub(crate) fn has(&self, p: &P, page: u64, frame: crate::FrameId) -> bool {
        match self {
            Backing::Anon(_) => false,
            #[cfg(feature = "file")]
            Backing::File(file, _) => file.still_has(p, page, frame),
            Backing::Never(never, _) => match *never {},
        }
    }

    /// What was told so far of pages that could not be read.
    #[cfg_attr(not(feature = "file"), allow(dead_code, reason = "only files have pages"))]
    pub(crate) fn told(&self) -> u64 {
        match self {
            Backing::Anon(_) => 0,
            #[cfg(feature = "file")]
            Backing::File(file, _) => file.told(),
            Backing::Never(never, _) => match *never {},
        }
    }

    /// Whether since then somebody was told of `page` of its file, if it is one's.
    #[cfg_attr(not(feature = "file"), allow(dead_code, unused_variables, reason = "only files have pages"))]
    pub(crate) fn was_told(&self, page: u64, since: u64) -> bool {
        match self {
            Backing::Anon(_) => false,
            #[cfg(feature = "file")]
            Backing::File(file, _) => file.was_told(page, since),
            Backing::Never(never, _) => match *never {},
        }
    }

    /// Whether its frames are `p`'s.
    #[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "only files have frames"))]
    pub(crate) fn is_of(&self, p: &P) -> bool {
        match self {
            Backing::Anon(_) => true,
            #[cfg(feature = "file")]
            Backing::File(file, _) => file.platform().shared().name() == p.shared().name(),
            Backing::Never(never, _) => match *never {},
        }
    }

    /// By what a mapping of `range` will be found from its file, if it is one's; `old` is what one has in whose place it comes, or with which it merges, none if
    /// its pages come from elsewhere.
    ///
    /// # Errors
    ///
    /// [`NoMemory`].
    #[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "only files have links"))]
    #[inline]
    pub(crate) fn link<L: Locking>(
        &self,
        mm: &Mm<P, L>,
        range: Range,
        skip: u64,
        old: Option<&Link<P>>,
    ) -> Result<Link<P>, NoMemory> {
        match self {
            Backing::Anon(_) => Ok(Link::<P>::default()),
            #[cfg(feature = "file")]
            Backing::File(file, page) => {
                P::Reclaim::link(mm.platform(), &mm.table, range, file, page.wrapping_add(skip), old).ok_or(NoMemory)
            }
            Backing::Never(never, _) => match *never {},
        }
    }

    /// Whether it is anonymous memory.
    pub fn is_anon(&self) -> bool {
        matches!(self, Backing::Anon(_))
    }
}

/// What somebody called a mapping. Names merge if they are equal.
pub type Name = Arc<str>;

/// Everything about a mapping but where it is.
pub struct Attr<P: Platform> {
    /// What may be done with it.
    pub prot: Prot,
    /// Its properties.
    pub flags: Flags,
    /// Its contents.
    pub backing: Backing<P>,
    /// Its name, if it was given one.
    pub name: Option<Name>,
}

impl<P: Platform> Clone for Attr<P> {
    fn clone(&self) -> Self {
        Self { prot: self.prot, flags: self.flags, backing: self.backing.clone(), name: self.name.clone() }
    }
}

impl<P: Platform> fmt::Debug for Attr<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} {:?}", self.prot, self.flags, self.backing, self.name)
    }
}

impl<P: Platform> Attr<P> {
    /// Private anonymous memory for the range from `start` on.
    pub fn anon(start: u64, prot: Prot) -> Self {
        Self { prot, flags: Flags::MAY_WRITE, backing: Backing::Anon(start >> PAGE_SHIFT), name: None }
    }

    /// The same, for a part that begins `bytes` further on.
    pub(crate) fn skip(&self, bytes: u64) -> Self {
        self.skip_pages(bytes >> PAGE_SHIFT)
    }

    /// The same, by pages; downwards if they wrap.
    pub(crate) fn skip_pages(&self, pages: u64) -> Self {
        Self { prot: self.prot, flags: self.flags, backing: self.backing.skip(pages), name: self.name.clone() }
    }

    /// The same, for a part that begins `bytes` further down.
    pub(crate) fn lower(&self, bytes: u64) -> Self {
        self.skip_pages((bytes >> PAGE_SHIFT).wrapping_neg())
    }

    /// What the MMU lets pass for it, if nothing is withheld: as on x86, what can be written or executed can be read.
    pub(crate) fn in_mmu(&self) -> Prot {
        let reads = !self.flags.has(Flags::EXEC_ONLY) && self.prot != Prot::NONE;
        if reads { self.prot.with(Prot::R) } else { self.prot }
    }

    /// Whether stores are seen by others who map the same.
    pub fn is_shared(&self) -> bool {
        self.flags.has(Flags::SHARED)
    }
}

/// Who the anonymous pages of a mapping belong to: set by its first private write, kept when it is split, and what keeps two mappings
/// apart that were written separately. (Linux's `anon_vma`.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnonId(u64);

const CLOSED: u64 = 1;
const INHERITED: u64 = 2;

impl AnonId {
    /// No private page yet.
    pub const NONE: Self = Self(0);

    pub(crate) fn new(number: u64) -> Self {
        Self(number << 2)
    }

    /// Some of its pages may still be shared with the parent of a fork.
    pub(crate) fn inherited(self) -> Self {
        Self(self.0 | INHERITED)
    }

    /// Whether some of its pages may be shared with a parent.
    pub fn is_inherited(self) -> bool {
        self.0 & INHERITED != 0
    }

    /// Whether it has been set.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// The one thing that a fault may set in a mapping (P10).
#[derive(Debug)]
pub(crate) struct AnonCell(AtomicU64);

impl AnonCell {
    pub(crate) fn new(id: AnonId) -> Self {
        Self(AtomicU64::new(id.0))
    }

    /// What it is set to.
    pub(crate) fn get(&self) -> AnonId {
        // Relaxed: a number; nothing is behind it.
        AnonId(self.0.load(Ordering::Relaxed) & !CLOSED)
    }

    /// Sets it, unless it is set or closed. True if it is set now.
    pub(crate) fn set(&self, id: AnonId) -> bool {
        // Acquire on failure is not needed either: a closed cell is met by whoever still holds the mapping, who gives up.
        match self.0.compare_exchange(0, id.0, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(now) => now & CLOSED == 0 || now & !CLOSED != 0,
        }
    }

    /// No fault sets it from now on. Says what it is.
    pub(crate) fn close(&self) -> AnonId {
        if seeded!("p10-copy-without-closing") {
            return self.get();
        }
        AnonId(self.0.fetch_or(CLOSED, Ordering::Relaxed) & !CLOSED)
    }

    /// Faults may set it again: the change that closed it did not happen.
    pub(crate) fn reopen(&self) {
        self.0.fetch_and(!CLOSED, Ordering::Relaxed);
    }
}

/// By what a walk from a file's page finds the mappings of it.
#[cfg(feature = "file")]
pub(crate) type Link<P> = <<P as Platform>::Reclaim as Reclaim<P>>::Link;
#[cfg(not(feature = "file"))]
pub(crate) type Link<P> = core::marker::PhantomData<P>;

/// A mapping, but for what the design keeps in it.
pub struct Body<P: Platform> {
    range: Range,
    attr: Attr<P>,
    anon: AnonCell,
    link: Link<P>,
}

impl<P: Platform> Body<P> {
    #[inline]
    pub(crate) fn new(range: Range, attr: Attr<P>, anon: AnonId, link: Link<P>) -> Self {
        Self { range, attr, anon: AnonCell::new(anon), link }
    }

    /// Of a mapping that there is not: nothing of anybody's is in it.
    pub(crate) fn nothing() -> Self {
        Self::new(Range::page_of(0), Attr::anon(0, Prot::NONE), AnonId::NONE, Link::<P>::default())
    }
}

/// A mapping.
pub struct Vma<P: Platform, L: Locking> {
    pub(crate) lock: L::PerVma,
    /// Written by [`replace`](Self::replace) alone. In a cell because a design may let somebody see `lock` at that moment, who found the
    /// mapping that had this memory before.
    body: UnsafeCell<Body<P>>,
}

// SAFETY: (1) the body is written by who alone uses it, says `rewrite`; else it is shared as it is.
unsafe impl<P: Platform, L: Locking> Sync for Vma<P, L> where Body<P>: Send + Sync {}

impl<P: Platform, L: Locking> Vma<P, L> {
    /// Boxed, and born claimed: no fault gets hold of it before it is released.
    #[inline]
    pub(crate) fn boxed(mm: &Mm<P, L>, body: impl FnOnce() -> Body<P>) -> Result<VmaBox<P, L>, NoMemory> {
        RcuBox::try_with(|| Self { lock: L::born_claimed(mm), body: UnsafeCell::new(body()) }).ok_or(NoMemory)
    }

    /// Makes it another mapping, and drops what it was.
    ///
    /// # Safety
    ///
    /// (1) The caller owns it, and nobody else looks at more of it than the design's part.
    pub(crate) unsafe fn rewrite(&self, body: Body<P>) {
        // SAFETY: (1) the caller's.
        drop(unsafe { self.replace(body) });
    }

    /// Makes it another mapping. What it was.
    ///
    /// # Safety
    ///
    /// As of [`rewrite`](Self::rewrite).
    pub(crate) unsafe fn replace(&self, body: Body<P>) -> Body<P> {
        // SAFETY: (1) the caller's.
        self.body.with_mut(|now| unsafe { now.replace(body) })
    }

    #[inline]
    fn body(&self) -> &Body<P> {
        // SAFETY: (1) not written while anybody has a reference by which he looks at it, as `rewrite` says.
        self.body.with(|body| unsafe { &*body })
    }

    /// What it covers.
    #[inline]
    pub fn range(&self) -> Range {
        self.body().range
    }

    /// What it is.
    #[inline]
    pub fn attr(&self) -> &Attr<P> {
        &self.body().attr
    }

    /// Whose its anonymous pages are.
    pub fn anon(&self) -> AnonId {
        self.anon_cell().get()
    }

    /// By what it is found from its file.
    #[inline]
    pub(crate) fn link(&self) -> &Link<P> {
        &self.body().link
    }

    /// Where that is said.
    #[inline]
    pub(crate) fn anon_cell(&self) -> &AnonCell {
        &self.body().anon
    }

    /// What the design keeps in it: for designs.
    ///
    /// # Safety
    ///
    /// (1) The caller is the design, which owes what [`Locking`] says; or it claims and releases only with the right to change and as the
    /// design would, lifts nobody else's claim, and gives up no reference but its own.
    pub unsafe fn design(&self) -> &L::PerVma {
        &self.lock
    }

    /// Which page of its backing is at `at`, which it covers.
    pub(crate) fn page_at(&self, at: u64) -> u64 {
        self.attr().backing.page().wrapping_add((at - self.range().start()) >> PAGE_SHIFT)
    }
}

impl<P: Platform, L: Locking> fmt::Debug for Vma<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.range(), self.attr(), self.anon())
    }
}

/// Mappings to be. Those that nobody took go back to the design.
pub(crate) struct Made<'m, P: Platform, L: Locking> {
    mm: &'m Mm<P, L>,
    /// The drop gives them back; that there is nothing left then the compiler need not find out.
    pub(crate) boxes: ManuallyDrop<Pieces<P, L>>,
}

impl<'m, P: Platform, L: Locking> Made<'m, P, L> {
    pub(crate) fn none(mm: &'m Mm<P, L>) -> Self {
        Self { mm, boxes: ManuallyDrop::new([const { None }; PIECES]) }
    }

    #[cold]
    fn unmake(&mut self) {
        self.boxes.iter_mut().filter_map(Option::take).for_each(|vma| L::unmake(self.mm, vma));
    }
}

impl<P: Platform, L: Locking> Drop for Made<'_, P, L> {
    #[inline]
    fn drop(&mut self) {
        // As a rule all were put in the index.
        if let [None, None, None] = *self.boxes {
            return;
        }
        self.unmake();
    }
}
