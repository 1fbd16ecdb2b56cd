//! From a frame to the entries that show it, and from there to a slot: so that memory can be smaller than the work.
//!
//! **Guarantee.** No byte is lost: a page leaves memory when every CPU has forgotten it and its store has it, and a page that could not be written stays.
//! A fault that finds no frame waits, and is refused only when nothing could be freed several times in a row. Reclaim never sleeps, and takes no lock that a sleeper holds.
//! On a host that says `()` all of it is compiled out.
//!
//! **Mechanism.** Four parts: [`rmap`](self) (where is a frame shown), `lru` (which one next), `evict` (out), and [`backing`](crate::backing)'s slots
//! (where to, and in again by faults). Nothing runs by itself: reclaim is done by whoever calls it, be that a thread of the host's that
//! does nothing else, or a fault's caller that waits for a frame.
//!
//! | lock | order | held for |
//! |---|---|---|
//! | a design's hold | before all of these | as ever |
//! | a family | then | a walk over one page's entries |
//! | a table | then | an entry |
//! | the list of spaces, the queues | last | a lookup, a batch |

mod advise;
mod clock;
mod evict;
mod families;
#[cfg(feature = "file")]
mod files;
#[cfg(feature = "file")]
mod links;
mod lists;
mod lru;
mod none;
mod readahead;
mod residents;
mod rmap;
mod to_swap;

pub use evict::{Marks, Reclaimed};
pub use lru::{Policy, SecondChance};
pub use rmap::Record;

use crate::addr::{FrameId, Range, Slot, SpaceId};
use crate::backing::{Completed, InSlot, SwapArea, SwapStore, Window};
#[cfg(feature = "file")]
use crate::backing::{File, Unwritten, WeakFile};
use crate::paging::{PageTable, Pte};
use crate::platform::Platform;
use crate::shared::Moment;
#[cfg(feature = "file")]
use crate::wait::Token;
use core::fmt;
use core::ops::Deref;
use families::Spaces;
use spile_sync::atomic::{AtomicBool, AtomicU32, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::seeded;

/// What becomes of pages for which there is no room: one of the two that this module has.
pub trait Reclaim<P: Platform>: sealed::Reclaim<P> {}

impl<P: Platform, R: sealed::Reclaim<P>> Reclaim<P> for R {}

/// Pages leave memory for a host's slots. For hosts that are [`Pressed`].
#[derive(Debug)]
pub enum ToSwap {}

/// A host whose pages go to slots when there is no room.
///
/// # Safety
///
/// An implementor owes: (1) [`reclaimer`](Self::reclaimer) is the same always, and no other host's; (2) [`record`](Self::record) is the same for a frame
/// always, and another for each; (3) whoever accesses or writes a page through an entry has it marked so, by the MMU or by a trap, before.
pub unsafe trait Pressed: Platform<Reclaim = ToSwap> {
    /// Where the contents of slots are.
    type Swap: SwapStore<Self>;
    /// Which page leaves next: [`SecondChance`], unless the host knows better.
    type Policy: Policy<Self>;

    /// What knows the pages of this host.
    fn reclaimer(&self) -> &Reclaimer<Self>;

    /// How many frames are free, about.
    fn free_frames(&self) -> usize;

    /// What is known of a page, by its frame.
    fn record(&self, frame: FrameId) -> &Record;
}

/// What a host knows of its pages: which can leave, and where they go.
pub struct Reclaimer<P: Pressed> {
    area: SwapArea<P::Swap>,
    spaces: Spaces<P>,
    /// All that are open.
    #[cfg(feature = "file")]
    files: lists::Numbered<alloc::sync::Arc<WeakFile<P>>>,
    policy: P::Policy,
    /// How many pages are read where one is wanted from a slot.
    readahead: Window,
    /// Whether pages leave.
    is_idle: bool,
    /// How many pages of files are being read or written.
    moving: AtomicU32,
    /// How many are at it.
    evicting: AtomicU32,
    /// How often somebody found nothing to free, since something was freed or a fault was refused.
    fruitless: AtomicU32,
    /// Whether somebody has looked in vain since something was freed.
    in_doubt: AtomicBool,
    /// Held by who looks again.
    looker: TryLock,
    /// How many writes failed, since one did not or a fault was refused.
    failed: AtomicU32,
}

/// How often nothing is found to free, or a write fails, until a fault is refused: others may have held for a moment what could go.
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 16 };

fn is_at_end(vain: u32) -> bool {
    vain >= if seeded!("refuse-at-once") { 1 } else { PATIENCE }
}

/// Whether patience is at an end, for one: then the others have patience again.
fn is_over(vain: &AtomicU32) -> bool {
    // Relaxed: numbers.
    is_at_end(vain.load(Ordering::Relaxed)) && is_at_end(vain.swap(0, Ordering::Relaxed))
}

/// The same, where whoever `looks` once more finds nothing either.
fn is_refused(vain: &AtomicU32, looks: impl FnOnce() -> bool) -> bool {
    // Relaxed: a number.
    is_at_end(vain.load(Ordering::Relaxed)) && !looks() && is_over(vain)
}

impl<P: Pressed> Reclaimer<P> {
    /// That sends pages to so many slots of `store`, and those of files back to where they come from.
    pub fn new(store: P::Swap, slots: u32) -> Self {
        Self::with(SwapArea::new(store, slots), false)
    }

    /// That knows where pages are shown, so that files can be flushed and cut, and lets none leave.
    pub fn idle(store: P::Swap) -> Self {
        Self::with(SwapArea::new(store, 0), true)
    }

    fn with(area: SwapArea<P::Swap>, is_idle: bool) -> Self {
        let none = || AtomicU32::new(0);
        Self {
            area,
            spaces: Spaces::new(),
            #[cfg(feature = "file")]
            files: lists::Numbered::new(),
            policy: P::Policy::default(),
            readahead: Window::new(),
            is_idle,
            moving: none(),
            evicting: none(),
            fruitless: none(),
            in_doubt: AtomicBool::new(false),
            looker: TryLock::new(),
            failed: none(),
        }
    }

    /// The slots.
    pub fn area(&self) -> &SwapArea<P::Swap> {
        &self.area
    }

    /// The transfer of `slot` that the store has started is over. By anybody, in any state in which [`Machine::wake`](crate::Machine::wake) may be
    /// called.
    ///
    /// # Safety
    ///
    /// (1) The store has started a transfer of `slot`, answered or answers [`Started`](crate::Transfer::Started), and nobody else completes it; (2)
    /// it does not use the frame any more; (3) `p` is the host of both.
    pub unsafe fn complete(&self, p: &P, slot: Slot, ok: bool) {
        match self.area.complete(p, slot, ok) {
            Completed::Freed => self.has_freed(),
            Completed::Kept(frame) => self.policy.arrive(p, frame),
            Completed::Failed(frame) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.policy.arrive(p, frame);
            }
            Completed::Unread => {}
        }
        crate::wait::happened(p, self.thing());
    }

    /// A frame is free.
    fn has_freed(&self) {
        // Relaxed, here and where they are read: numbers. Who is refused for them has looked himself.
        self.fruitless.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.in_doubt.store(false, Ordering::Relaxed);
    }

    /// Whether frames may come without anybody's doing: pages are on their way, or others let pages go.
    fn is_under_way(&self) -> bool {
        // Acquire: whoever finds nobody at it finds what they freed. (No model shows it: as in `SwapArea::writing`.)
        self.evicting.load(Ordering::Acquire) > 0 || self.has_transfers()
    }

    /// Whether pages are on their way: out, whose frames will be free, or in, whose frames can leave then. Each tells those who wait for a frame when it is over.
    fn has_transfers(&self) -> bool {
        // Acquire: as above.
        self.area.writing() > 0
            || (self.area.reading() > 0 && !seeded!("forget-what-is-read"))
            || self.moving.load(Ordering::Acquire) > 0
    }

    /// Where those wait who wait for a frame.
    fn thing(&self) -> usize {
        self.area.ends()
    }

    fn is_idle(&self) -> bool {
        self.is_idle
    }
}

impl<P: Pressed> fmt::Debug for Reclaimer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} writes under way", self.area, self.area.writing())
    }
}

/// What the core asks. Faults call what is not about shortage, under a table's lock or not, so none of it waits.
pub(crate) mod sealed {
    use super::*;

    pub trait Reclaim<P: Platform>: 'static {
        /// Whether pages leave memory, so that some must be kept from it.
        const KEEPS: bool;
        /// What an entry says of a page that is away.
        type Seen: Copy + PartialEq;
        /// Whether a page is kept.
        type Keeps: Copy;
        /// How many pages a space shows, and how many it may.
        type Residents: Default + fmt::Debug + Send + Sync;
        /// Where the tables of a space are.
        type Tables: Deref<Target = PageTable<P>> + Send + Sync;

        fn seen(p: &P, raw: u64) -> Self::Seen;
        fn slot(seen: Self::Seen) -> Option<Slot>;
        fn keeps(keeps: impl FnOnce() -> bool) -> Self::Keeps;
        fn is_kept(keeps: Self::Keeps) -> bool;
        /// Whether an entry that shows no page says what it said.
        fn is_still(p: &P, seen: Self::Seen, raw: u64) -> bool;

        /// The tables of a new space, a fork of `parent`.
        fn keep(p: &P, tables: PageTable<P>, parent: Option<SpaceId>) -> Self::Tables;
        /// A space is about to go: nobody finds its tables any more.
        fn leave(p: &P, tables: &Self::Tables);

        /// A space is about to show one page more. False: it may not.
        fn charge(p: &P, residents: &Self::Residents) -> bool;
        /// The same, whether it may or not.
        fn charge_anyway(p: &P, residents: &Self::Residents);
        /// It shows one less.
        fn uncharge(p: &P, residents: &Self::Residents);
        /// `child`, which is new, may show as many as `parent`.
        fn inherit(parent: &Self::Residents, child: &Self::Residents);
        /// Whether it shows none.
        fn shows_none(residents: &Self::Residents) -> bool;

        /// `frame`, which is the caller's alone, becomes another page.
        fn begins(p: &P, frame: FrameId);
        /// `frame`, which is the caller's alone, is about to be a private page of `space` at `at`.
        fn comes(p: &P, space: SpaceId, frame: FrameId, at: u64);
        /// `frame`, whose page was away or another's too, is about to be shown at `at`; nobody else shows it, or somebody may.
        fn returns(p: &P, tables: &PageTable<P>, frame: FrameId, at: u64, is_sole: bool);
        /// A private page of `space` is about to be shown at `at`, and no longer elsewhere.
        fn moved(p: &P, space: SpaceId, pte: Pte, at: u64);

        /// An entry more says `slot`, under the lock of one that does.
        fn share(p: &P, slot: Slot);
        /// An entry less.
        fn give_up(p: &P, slot: Slot);
        /// The page in `slot`.
        fn find(p: &P, slot: Slot) -> InSlot<'_, P>;
        /// A fault waits for the page of `at`, which is away: begins to read what is around it, as far as `range` goes.
        fn read_ahead(p: &P, tables: &PageTable<P>, at: u64, range: Range);
        /// Begins to read `slot`, which an entry says, though nobody waits for it.
        #[cfg(feature = "file")]
        fn read_slot_ahead(p: &P, slot: Slot);
        /// Whether there is memory for so many pages that nobody wants yet.
        fn can_spare(p: &P, pages: u64) -> bool;
        /// Somebody is told that `slot`, which his entry says, could not be read: the next tries again. Whether nobody was told before.
        fn tell_unreadable(p: &P, slot: Slot) -> bool;
        /// Whether `slot`, which the caller's entry says, is in `frame`.
        fn still_has(p: &P, slot: Slot, frame: FrameId) -> bool;
        /// Whether, besides, nobody else has either; the caller has a hold on the frame.
        fn is_sole(p: &P, slot: Slot, frame: FrameId) -> bool;

        /// Whether pages are on the way out, or may go: asked where there was no frame. Not under a table's lock.
        fn has_relief(p: &P) -> bool;
        /// Follows an advice about pages of a mapping that the caller keeps from changes.
        fn advise(p: &P, tables: &PageTable<P>, range: Range, advice: Advice);

        /// Frees pages, or starts to.
        fn free_some(p: &P) -> Freeing;

        /// Whether there may be room soon in a space that may show no more pages. Not under a table's lock.
        fn has_room_soon(p: &P, tables: &PageTable<P>) -> bool;
        /// Lets pages of that space leave, or starts to.
        fn free_room(p: &P, tables: &PageTable<P>) -> Freeing;

        /// Where the pages of a file are shown.
        #[cfg(feature = "file")]
        type Links: Default + Send + Sync;
        /// One such place.
        #[cfg(feature = "file")]
        type Link: Clone + Default + Send + Sync;

        /// `file` is open.
        #[cfg(feature = "file")]
        fn opened(p: &P, file: &File<P>);
        /// Nobody has the file of this number open any more.
        #[cfg(feature = "file")]
        fn closed(p: &P, file: u64);
        /// A mapping of `range`, with `page` of `file` first, is about to be published: in the place of one that has the link `old`, or beside it, so that nothing
        /// moves here from elsewhere; or of none. None: no memory.
        #[cfg(feature = "file")]
        fn link(
            p: &P,
            tables: &Self::Tables,
            range: Range,
            file: &File<P>,
            page: u64,
            old: Option<&Self::Link>,
        ) -> Option<Self::Link>;
        /// `frame`, which is the caller's alone, becomes `page` of the file of this number.
        #[cfg(feature = "file")]
        fn of_file(p: &P, frame: FrameId, file: u64, page: u64);
        /// `frame` has what is in `slot`, and is to be in no slot: by whoever has the only entry that says it, a file's. While nobody else is at the slot
        /// `takes` puts the frame there, if it can. Whether it did, or if somebody is at the slot, until when.
        #[cfg(feature = "file")]
        fn take(p: &P, slot: Slot, frame: FrameId, takes: impl FnOnce() -> bool) -> Result<bool, Token<'_, P>>;
        /// A page of a file is about to be read from its store, or written.
        #[cfg(feature = "file")]
        fn transfer_begins(p: &P);
        /// It was read, and is in `frame`; or could not be, or is not wanted any more.
        #[cfg(feature = "file")]
        fn read_ends(p: &P, frame: Option<FrameId>);
        /// What `frame` has was written, or could not be.
        #[cfg(feature = "file")]
        fn write_ends(p: &P, frame: FrameId, ok: bool);
        /// Writes back what was written to these pages of `file`, and waits until it is durable. Nothing, where it is not known where they are shown.
        #[cfg(feature = "file")]
        fn flush(p: &P, file: &File<P>, pages: core::ops::Range<u64>) -> Result<(), Unwritten>;
    }

    /// What a program says of its pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Advice {
        /// They will not be used soon.
        Cold,
        /// They may leave memory now.
        Out,
        /// Their contents are not wanted, until they are written again.
        Free,
    }

    /// How that went.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Freeing {
        /// There are free frames now, or were.
        Done,
        /// Others are at it, or pages are being written: something happens after this moment.
        UnderWay(Moment),
        /// Nothing can be freed, at this moment.
        Nothing,
    }
}
