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
mod evict;
mod lru;
mod rmap;

pub use evict::{Marks, Reclaimed};
pub use lru::{Policy, SecondChance};
pub use rmap::Record;

use crate::addr::{FrameId, Prot, Range, Slot, SpaceId};
use crate::backing::{Completed, InSlot, SwapArea, SwapStore};
use crate::frame;
use crate::paging::{PageTable, Pte};
use crate::platform::Platform;
use crate::shared::Moment;
use crate::wait::Token;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use rmap::Spaces;
use spile_sync::atomic::{AtomicU32, Ordering};
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
    policy: P::Policy,
    /// How many are at it.
    evicting: AtomicU32,
    /// How often somebody found nothing to free, since something was freed or a fault was refused.
    fruitless: AtomicU32,
    /// How many writes failed, since one did not or a fault was refused.
    failed: AtomicU32,
}

/// How often nothing is found to free, or a write fails, until a fault is refused: others may have held for a moment what could go.
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 16 };

impl<P: Pressed> Reclaimer<P> {
    /// That sends pages to so many slots of `store`. Without slots it does nothing.
    pub fn new(store: P::Swap, slots: u32) -> Self {
        let none = || AtomicU32::new(0);
        let (area, policy) = (SwapArea::new(store, slots), P::Policy::default());
        Self { area, spaces: Spaces::new(), policy, evicting: none(), fruitless: none(), failed: none() }
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
    }

    /// Whether frames may come without anybody's doing: pages are being written, or others let pages go.
    fn is_under_way(&self) -> bool {
        // Acquire: whoever finds nobody at it finds what they freed. (No model shows it: as in `SwapArea::writing`.)
        self.evicting.load(Ordering::Acquire) > 0 || self.area.writing() > 0
    }

    /// Where those wait who wait for a frame.
    fn thing(&self) -> usize {
        crate::shared::place_of(&self.fruitless)
    }

    fn is_idle(&self) -> bool {
        self.area.slots() == 0
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
        /// Somebody is told that `slot`, which his entry says, could not be read: the next tries again. Whether nobody was told before.
        fn tell_unreadable(p: &P, slot: Slot) -> bool;
        /// Whether `slot`, which the caller's entry says, is in `frame`.
        fn still_has(p: &P, slot: Slot, frame: FrameId) -> bool;
        /// Whether, besides, nobody else has either; the caller has a hold on the frame.
        fn is_sole(p: &P, slot: Slot, frame: FrameId) -> bool;

        /// Whether pages are on the way out, or may go: asked where there was no frame. Not under a table's lock.
        fn has_relief(p: &P) -> bool;
        /// Follows an advice about private pages of a mapping that the caller keeps from changes.
        fn advise(p: &P, tables: &PageTable<P>, range: Range, advice: Advice);

        /// Frees pages, or starts to.
        fn free_some(p: &P) -> Freeing;
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

use sealed::{Advice, Freeing};

impl<P: Platform> sealed::Reclaim<P> for () {
    const KEEPS: bool = false;
    type Seen = ();
    type Keeps = ();
    type Tables = Inline<PageTable<P>>;

    #[inline(always)]
    fn seen(_: &P, _: u64) {}

    #[inline(always)]
    fn slot((): ()) -> Option<Slot> {
        None
    }

    #[inline(always)]
    fn keeps(_: impl FnOnce() -> bool) {}

    #[inline(always)]
    fn is_kept((): ()) -> bool {
        false
    }

    #[inline(always)]
    fn is_still(_: &P, (): (), _: u64) -> bool {
        true
    }

    fn keep(_: &P, tables: PageTable<P>, _: Option<SpaceId>) -> Inline<PageTable<P>> {
        Inline(tables)
    }

    fn leave(_: &P, _: &Self::Tables) {}

    #[inline(always)]
    fn begins(_: &P, _: FrameId) {}

    #[inline(always)]
    fn comes(_: &P, _: SpaceId, _: FrameId, _: u64) {}

    #[inline(always)]
    fn returns(_: &P, _: &PageTable<P>, _: FrameId, _: u64, _: bool) {}

    #[inline(always)]
    fn moved(_: &P, _: SpaceId, _: Pte, _: u64) {}

    #[inline(always)]
    fn share(_: &P, _: Slot) {}

    #[inline(always)]
    fn give_up(_: &P, _: Slot) {}

    fn find(_: &P, _: Slot) -> InSlot<'_, P> {
        InSlot::Gone
    }

    fn tell_unreadable(_: &P, _: Slot) -> bool {
        false
    }

    fn still_has(_: &P, _: Slot, _: FrameId) -> bool {
        false
    }

    fn is_sole(_: &P, _: Slot, _: FrameId) -> bool {
        false
    }

    #[inline(always)]
    fn has_relief(_: &P) -> bool {
        false
    }

    #[inline(always)]
    fn advise(_: &P, _: &PageTable<P>, _: Range, _: Advice) {}

    fn free_some(_: &P) -> Freeing {
        Freeing::Nothing
    }
}

/// Tables that nobody but their space finds.
#[derive(Debug)]
pub struct Inline<T>(T);

impl<T> Deref for Inline<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<P: Pressed> sealed::Reclaim<P> for ToSwap {
    const KEEPS: bool = true;
    type Seen = Option<Slot>;
    type Keeps = bool;
    type Tables = Arc<PageTable<P>>;

    fn seen(p: &P, raw: u64) -> Option<Slot> {
        p.decode_slot(raw)
    }

    fn slot(seen: Option<Slot>) -> Option<Slot> {
        seen
    }

    fn keeps(keeps: impl FnOnce() -> bool) -> bool {
        keeps()
    }

    fn is_kept(keeps: bool) -> bool {
        keeps
    }

    fn is_still(p: &P, seen: Option<Slot>, raw: u64) -> bool {
        p.decode_slot(raw) == seen
    }

    fn keep(p: &P, tables: PageTable<P>, parent: Option<SpaceId>) -> Arc<PageTable<P>> {
        let tables = Arc::new(tables);
        if !p.reclaimer().is_idle() {
            p.reclaimer().spaces.join(p, &tables, parent);
        }
        tables
    }

    fn leave(p: &P, tables: &Arc<PageTable<P>>) {
        if p.reclaimer().is_idle() {
            return;
        }
        if !seeded!("exit-in-silence") {
            p.reclaimer().spaces.leave(p, tables.space());
        }
        // Whoever found them before may not have told all CPUs yet of what it took away.
        loop {
            let token = Token::for_thing(p, tables.flush_thing());
            if !tables.is_unflushed() || seeded!("exit-before-the-flush") {
                break;
            }
            token.wait();
        }
        // Nor have let go of them: then it would be its drop that frees them, under a family's lock perhaps.
        while Arc::strong_count(tables) > 1 && !seeded!("exit-in-silence") && !seeded!("exit-before-the-flush") {
            p.relax();
        }
    }

    fn begins(p: &P, frame: FrameId) {
        if !p.reclaimer().is_idle() {
            p.record(frame).forget();
        }
    }

    fn comes(p: &P, space: SpaceId, frame: FrameId, at: u64) {
        if !p.reclaimer().is_idle() {
            p.record(frame).belongs(space, at);
            p.reclaimer().policy.arrive(p, frame);
        }
    }

    fn returns(p: &P, tables: &PageTable<P>, frame: FrameId, at: u64, is_sole: bool) {
        let reclaimer = p.reclaimer();
        if reclaimer.is_idle() {
            return;
        }
        let record = p.record(frame);
        if is_sole {
            record.belongs(tables.space(), at);
        } else if record.home().is_none() {
            // Any of the family may have it: all descend from its founder.
            let founder = reclaimer.spaces.founder(p, tables.space());
            record.belongs(founder.unwrap_or(tables.space()), at);
        }
        reclaimer.policy.arrive(p, frame);
    }

    fn moved(p: &P, space: SpaceId, pte: Pte, at: u64) {
        // What may be written nobody else shows. Of a page that is shared the others have an entry at the old address.
        let is_own = || pte.prot.has(Prot::W) || frame::meta(p, pte.frame).refs() == 1;
        if !p.reclaimer().is_idle() && p.record(pte.frame).home().is_some() && is_own() {
            p.record(pte.frame).belongs(space, at);
        }
    }

    fn share(p: &P, slot: Slot) {
        p.reclaimer().area.share(slot);
    }

    fn give_up(p: &P, slot: Slot) {
        p.reclaimer().area.give_up(p, slot);
    }

    fn find(p: &P, slot: Slot) -> InSlot<'_, P> {
        let begins = |frame| {
            p.record(frame).is_of(slot);
            p.reclaimer().policy.arrive(p, frame);
        };
        p.reclaimer().area.find(p, slot, begins)
    }

    fn tell_unreadable(p: &P, slot: Slot) -> bool {
        p.reclaimer().area.tell_unreadable(slot)
    }

    fn still_has(p: &P, slot: Slot, frame: FrameId) -> bool {
        p.reclaimer().area.still_has(slot, frame)
    }

    fn is_sole(p: &P, slot: Slot, frame: FrameId) -> bool {
        let area = &p.reclaimer().area;
        // In this order. Once the caller's is the only entry nobody can show the frame who does not yet. Those who do are counted, beside the slot's
        // hold and the caller's; if the slot had given its own up by then, it has the frame no more.
        let is_alone = || frame::meta(p, frame).refs() == 2 || seeded!("sole-in-the-slot-alone");
        area.is_last(slot) && is_alone() && area.still_has(slot, frame)
    }

    fn has_relief(p: &P) -> bool {
        let reclaimer = p.reclaimer();
        let is_over = |count: &AtomicU32| {
            // Whoever is refused lets the next look again.
            let over = count.load(Ordering::Relaxed) >= PATIENCE;
            over && count.swap(0, Ordering::Relaxed) >= PATIENCE
        };
        if reclaimer.is_idle() || is_over(&reclaimer.failed) || seeded!("refuse-without-reclaim") {
            return false;
        }
        // What was found by others, a while ago, is no reason.
        !is_over(&reclaimer.fruitless) || Self::free_some(p) != Freeing::Nothing
    }

    fn advise(p: &P, tables: &PageTable<P>, range: Range, advice: Advice) {
        if !p.reclaimer().is_idle() {
            p.reclaimer().advise(p, tables, range, advice);
        }
    }

    fn free_some(p: &P) -> Freeing {
        let reclaimer = p.reclaimer();
        if reclaimer.reclaim(p, lru::BATCH).freed > 0 {
            return Freeing::Done;
        }
        // Before it is asked what is under way; and after the end of what was done here, which is such a moment too.
        let moment = p.shared().moment(reclaimer.thing());
        if reclaimer.is_under_way() {
            return Freeing::UnderWay(moment);
        }
        reclaimer.fruitless.fetch_add(1, Ordering::Relaxed);
        p.relax();
        Freeing::Nothing
    }
}
