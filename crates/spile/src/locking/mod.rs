//! How a fault holds its mapping still, and how a change makes faults let go.
//!
//! **Guarantee.** While a fault has a [`Stable`] whose `still_valid` is true under the lock of the page's table, the mapping it names
//! covers the page, and whoever unmaps or replaces it has not begun to zap.
//!
//! **Mechanism.** One fault path and one change sequence serve all designs; a design answers the questions of [`Locking`].
//!
//! | design | a fault holds | still valid | claim | quiesce |
//! |---|---|---|---|---|
//! | [`MmapLock`] | the address space's lock, shared | always | nothing: the lock is exclusive | nothing |
//! | [`BTreeMapRwLock`] | the same, over a `BTreeMap` | always | nothing | nothing |
//! | [`MmapLockRbTree`] | the same, over a red-black tree | always | nothing | nothing |
//! | [`RangeLock`] | a lock on its page | always | nothing: all of the mapping is locked | nothing |
//! | [`SpfSrcu`] | a section that may sleep | the mapping's sequence is unchanged | the sequence is odd | nothing |
//! | [`SpfSeq`] | a read section | the space's sequence is unchanged | the sequence is odd | nothing |
//! | [`SpfRefcount`] | a reference on the mapping | its sequence is unchanged | the sequence is odd | nothing |
//! | [`VmaRefcount2019`] | a reference on the mapping | always | a mark | waits until references and sections are gone |
//! | [`VmaRwsem`] | the mapping's lock, shared | always | the lock, alone, and the space's number | nothing |
//! | [`VmaRefcount`] | a reference on the mapping | always | new references are refused | waits until the old ones are gone |
//! | [`UnderRcu`] | a read section | the mapping's sequence is unchanged | the sequence is odd | nothing |
//! | [`RcuPrealloc`] | the same, and tables for its page | the same | the same | nothing |
//! | [`RcuLateZap`] | a read section | always | a mark | waits for a grace period |
//! | [`PtRange`] | the lock of what its table maps, shared | always | the tables of the range, alone | nothing |
//!
//! A design that misses its fast way falls back to the address space's lock ([`Held`]), which is the same for all but [`RangeLock`].

/// What designs have whose changes exclude each other by the address space's lock, which is also the slow way of a fault.
macro_rules! falls_back_to_the_lock {
    () => {
        type Slow<'m, P: Platform> = $crate::locking::Held<'m, P, Self>;
        type Write<'m, P: Platform> = $crate::locking::Exclusive<'m, P>;
        type Tail<'m, P: Platform> = $crate::locking::SharedGuard<'m, P>;

        fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> $crate::locking::Slowly<'_, Self::Slow<'_, P>, P> {
            $crate::locking::Held::at(mm, at)
        }

        fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
            mm.wait_for_all()
        }

        fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
            right.downgrade()
        }
    };
}

/// What designs have that find mappings in a read section, where they stay as they are.
macro_rules! finds_in_a_section {
    () => {
        type Index<P: Platform> = $crate::index::Maple<P, Self>;

        fn look<P: Platform, T>(mm: &Mm<P, Self>, at: u64, see: impl FnOnce(Option<&Vma<P, Self>>) -> T) -> T {
            see(mm.index().find_from(&spile_rcu::Rcu::read(mm.platform().rcu()), at))
        }
    };
}

/// What designs have whose mappings have a [`Sequence`](sequence::Sequence) and nothing else.
macro_rules! is_claimed_by_a_sequence {
    () => {
        type PerVma = $crate::locking::sequence::Sequence;

        fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> Self::PerVma {
            Self::PerVma::claimed()
        }

        unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
            vma.lock.claim();
        }

        unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
            vma.lock.release();
        }

        fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
    };
}

/// What their holds have.
macro_rules! asks_the_sequence {
    () => {
        #[inline]
        fn still_valid(&self) -> bool {
            self.vma().lock.is_still(self.sequence)
        }
    };
}

/// What designs have whose index may be looked at under the lock alone.
macro_rules! looks_under_the_lock {
    () => {
        fn look<P: Platform, T>(mm: &Mm<P, Self>, at: u64, see: impl FnOnce(Option<&Vma<P, Self>>) -> T) -> T {
            let _share = mm.lock().wait_for_share(mm.platform());
            // SAFETY: (1) we have a share of the lock.
            see(unsafe { $crate::index::Index::find_still(mm.index(), at) })
        }
    };
}

/// What holds of designs have that find mappings in a section; of those that stay in one, `and_stays`.
macro_rules! looks_beside_in_a_section {
    ($design:ty) => {
        const MAY_SLEEP: bool = true;

        looks_beside_in_a_section!(@beside $design);
    };
    ($design:ty, and_stays) => {
        const MAY_SLEEP: bool = false;

        looks_beside_in_a_section!(@beside $design);
    };
    (@beside $design:ty) => {
        fn beside<T>(&self, mm: &Mm<P, $design>, at: u64, see: impl FnOnce(Option<&Vma<P, $design>>) -> T) -> T {
            <$design as Locking>::look(mm, at, see)
        }
    };
}

mod pool;
mod ranges;
mod rwlock;
mod sequence;
mod vmacache;

pub use pool::Pool;
pub use ranges::{Footprint, RangeGuard, Ranges, Request};
pub use rwlock::{Exclusive, RwLock, SharedGuard};

/// The one list of designs, in the order of their history: a module each, its type, what it is called.
macro_rules! designs {
    ($dollar:tt $($module:ident::$design:ident)*) => {
        $(mod $module; pub use $module::$design;)*

        /// A module for each design, and in it a test for each `name => function;`: the function takes the design as its parameter. So a new
        /// design has all tests and models without further work.
        #[macro_export]
        macro_rules! test_each_design {
            (@one $dollar module:ident $dollar design:ident { $dollar($dollar name:ident => $dollar test:ident;)* }) => {
                mod $dollar module {
                    $dollar(
                        #[test]
                        fn $dollar name() {
                            super::$dollar test::<$crate::$dollar design>();
                        }
                    )*
                }
            };
            ($dollar($dollar tests:tt)*) => {
                $($crate::test_each_design! { @one $module $design { $dollar($dollar tests)* } })*
            };
        }

        /// Calls `$call!([name Type, …] …)`, a macro, with every design in the order of their history: for tables.
        #[macro_export]
        macro_rules! for_each_design {
            ($dollar call:ident!($dollar($dollar args:tt)*)) => { $dollar call! { [$($module $design,)*] $dollar($dollar args)* } };
        }
    };
}

designs! {
    $
    btreemap_rwlock::BTreeMapRwLock
    mmap_lock_rbtree::MmapLockRbTree
    mmap_lock::MmapLock
    range_lock::RangeLock
    spf_srcu::SpfSrcu
    spf_refcount::SpfRefcount
    vma_refcount_2019::VmaRefcount2019
    spf_seq::SpfSeq
    vma_rwsem::VmaRwsem
    vma_refcount::VmaRefcount
    rcu::UnderRcu
    rcu_prealloc::RcuPrealloc
    rcu_late_zap::RcuLateZap
    pt_range::PtRange
}

use crate::Event;
use crate::addr::Range;
use crate::change::NoMemory;
use crate::index::{Index, VmaBox};
use crate::mm::Mm;
use crate::paging::Spares;
use crate::platform::Platform;
use crate::vma::{Body, Vma};
use crate::wait::Token;
use core::ptr::NonNull;
use spile_sync::lock::Guarded;
use spile_sync::seeded;

/// What was not got on the fast way. Also the label of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No mapping covers the address, and none above it grows down. Final.
    NoVma,
    /// No mapping covers the address; the one above it grows down.
    Grow,
    /// Somebody changes the mapping, or holds the lock.
    Contended,
    /// The mapping was replaced while it was looked at.
    Stale,
}

/// The answer of a slow way that never blocks.
#[derive(Debug)]
pub enum Slowly<'m, T, P: Platform> {
    /// Here it is.
    Held(T),
    /// No mapping covers the address.
    NoVma,
    /// No mapping covers the address; the one above it grows down.
    Grow,
    /// Not now. Wait for this, and ask again.
    Wait(Token<'m, P>),
}

/// A mapping that is held still.
pub trait Stable<P: Platform, L: Locking> {
    /// Whether a fault may sleep with it until a page is read.
    const MAY_SLEEP: bool;

    /// The mapping.
    fn vma(&self) -> &Vma<P, L>;

    /// The addresses for which the hold is good: what a fault may touch (P9).
    fn range(&self) -> Range;

    /// Asked under the lock of the table that is about to be written (P1, P2, P4).
    fn still_valid(&self) -> bool;

    /// The tables that were taken before the mapping was held, for designs that do; the fault links no others.
    fn spares(&self) -> Option<&Spares<'_, P>> {
        None
    }

    /// Shows `see` another mapping of the space: the one that covers `at`, or the next above. None if there is none, or if a change is
    /// at it and it cannot be looked at without waiting.
    ///
    /// # Panics
    ///
    /// If `mm` is another space, and the hold says nothing about that.
    fn beside<T>(&self, mm: &Mm<P, L>, at: u64, see: impl FnOnce(Option<&Vma<P, L>>) -> T) -> T;
}

/// A design. It holds nothing itself: its state is in the address space and in each mapping.
///
/// # Safety
///
/// A mapping is *claimed* from [`born_claimed`](Self::born_claimed) or [`claim`](Self::claim) on, until [`release`](Self::release); a claim that
/// is never released lasts for ever. A *hold* is what [`try_stabilise`](Self::try_stabilise) and [`stabilise`](Self::stabilise) give. A claim is
/// *settled* when [`quiesce`](Self::quiesce) of the mapping and then [`settle`](Self::settle) have returned.
/// An implementor owes:
///
/// (1) a hold names a mapping that was found in that `mm` and covers that `at`, and was not claimed when it was held; its
/// [`vma`](Stable::vma) is always that one, and alive as long as the hold: `settle` waits for it, or `retire` does, or it keeps
/// [`write`](Self::write) from being answered;
///
/// (2) its [`range`](Stable::range) lies within that mapping, and contains `at`;
///
/// (3) when a claim is settled, each hold of the mapping from before it is gone, or its
/// [`still_valid`](Stable::still_valid) is false for ever under each table lock that is taken after; what was done under a hold by then
/// happened before that return, or is seen by whoever takes the table's lock next. Nor is a claimed mapping held anew;
///
/// (4) who holds a mapping, and has then locked a table, sees what was done to that table before the mapping's release;
///
/// (5) `write` gives the right to change what was wanted of that `mm`: nobody else changes that, or the mappings that touch it, as long as the
/// right is there, nor anything at all but during [`apart`](Self::apart);
///
/// (6) a [`retire`](Self::retire)d mapping stays allocated as long as a hold or [`look`](Self::look) may use it;
///
/// (7) a hold that [may sleep](Stable::MAY_SLEEP) is in no read section of the host's domain; one of the slow way may sleep.
///
/// For a design whose holds keep `write` from being answered, (1), (3) and (4) hold without claims, which are made by who has that right, or in
/// a mapping that nobody can find.
pub unsafe trait Locking: Sized + Send + Sync + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// Whether its changes wait for grace periods, with [`settle`](Self::settle).
    const WAITS_FOR_READERS: bool = false;
    /// Whether a place from which everything was taken away can be zapped with no right to change: nothing beside it suffers.
    const LETS_GO: bool = true;
    /// Where it finds mappings.
    type Index<P: Platform>: Index<P, Self>;
    /// Its state in an address space, beside the lock that all designs have. Anybody gets at it by [`Mm::design`]: what is safe to do with it
    /// must break nothing.
    type PerMm<P: Platform>: Send + Sync;
    /// Its state in a mapping.
    type PerVma: Send + Sync;
    /// What a fault holds on the fast way.
    type Fast<'m, P: Platform>: Stable<P, Self>;
    /// What a fault holds on the slow way.
    type Slow<'m, P: Platform>: Stable<P, Self>;
    /// The right to change.
    type Write<'m, P: Platform>;
    /// What is left of that right while pages are taken away that nobody finds any more.
    type Tail<'m, P: Platform>;

    /// The state of an address space; of a fork's child, if there is a parent.
    fn per_mm<P: Platform>(p: &P, parent: Option<&Self::PerMm<P>>) -> Self::PerMm<P>;

    /// The state of a mapping that no fault may have yet.
    fn born_claimed<P: Platform>(mm: &Mm<P, Self>) -> Self::PerVma;

    /// Holds the mapping at `at`, a page's address. Never waits. (To be inlined, with the lookup: both kinds of faults, that which never sleeps and that
    /// which may, begin with it, and the compiler would share what they have in common.)
    ///
    /// # Errors
    ///
    /// [`Miss`].
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Self::Fast<'_, P>, Miss>;

    /// Holds the mapping at `at` when the fast way has failed. Never blocks.
    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Self::Slow<'_, P>, P>;

    /// Shows `see` the mapping that covers `at`, or the next above: for who looks at a space from outside, with no hold. May sleep.
    fn look<P: Platform, T>(mm: &Mm<P, Self>, at: u64, see: impl FnOnce(Option<&Vma<P, Self>>) -> T) -> T;

    /// The right to change `want` and the mappings that touch it. May sleep until it is given.
    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, want: &[Range]) -> Self::Write<'m, P>;

    /// Whether the right reaches over all of `range`, which need not have been wanted: where a place is looked for under the lock.
    fn may_change<P: Platform>(_right: &Self::Write<'_, P>, _range: Range) -> bool {
        true
    }

    /// Runs `work`, which does not touch the index, letting in who wants to change something else, if the design can.
    fn apart<P: Platform, T>(_right: &mut Self::Write<'_, P>, work: impl FnOnce() -> T) -> T {
        work()
    }

    /// Gives up the right but for what keeps others from what it has taken away.
    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P>;

    /// Keeps faults out of `range` until the right ends, for designs that lock places rather than mappings. Called before mappings there are
    /// claimed or published, and before tables there can become empty and go. May sleep.
    fn exclude<P: Platform>(_right: &Self::Write<'_, P>, _range: Range) {}

    /// Refuses new holds of a mapping. May sleep.
    ///
    /// # Safety
    ///
    /// (1) The caller has the right to change the mapping.
    unsafe fn claim<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>);

    /// Lets faults hold a mapping (again).
    ///
    /// # Safety
    ///
    /// (1) The caller has the right to change the mapping, or alone knows it; (2) it is in the index, or will be, and what claimed it is over.
    unsafe fn release<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>);

    /// Waits until nobody holds a claimed mapping. May sleep.
    fn quiesce<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>);

    /// After `quiesce` of each mapping that a change has claimed, if it has claimed any. May sleep.
    fn settle<P: Platform>(_mm: &Mm<P, Self>) {}

    /// A mapping that nobody finds yet, claimed.
    ///
    /// # Errors
    ///
    /// [`NoMemory`].
    #[inline]
    fn make<P: Platform>(mm: &Mm<P, Self>, body: impl FnOnce() -> Body<P>) -> Result<VmaBox<P, Self>, NoMemory> {
        Vma::boxed(mm, body)
    }

    /// Gives up a mapping that nobody finds in `mm`: it was made and never put in the index, or nobody uses the space any more.
    fn unmake<P: Platform>(_mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        drop(vma);
    }

    /// A mapping was taken out of the index, and `quiesce` has returned.
    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        defer(mm, vma);
    }
}

/// Does `work`, a few steps, under a flag that is spun for.
pub(crate) fn briefly<P: Platform, T, A>(p: &P, guarded: &Guarded<T>, work: impl FnOnce(&mut T) -> A) -> A {
    let _pin = p.pin();
    let mut value = loop {
        match guarded.try_lock() {
            Some(value) => break value,
            None => p.relax(),
        }
    };
    work(&mut value)
}

/// Frees a mapping that is found no more, when those who may have found it in a section are gone.
fn defer<P: Platform, L: Locking>(mm: &Mm<P, L>, vma: VmaBox<P, L>) {
    mm.count_by(Event::DeferredBytes, VmaBox::<P, L>::SIZE);
    if !seeded!("recycle-at-once") {
        vma.defer(mm.platform().rcu());
    }
}

/// A mapping held by the address space's lock, shared: nobody changes anything.
#[derive(Debug)]
pub struct Held<'m, P: Platform, L: Locking> {
    vma: NonNull<Vma<P, L>>,
    _lock: SharedGuard<'m, P>,
}

impl<'m, P: Platform, L: Locking> Held<'m, P, L> {
    /// The mapping at `at`, if the lock is free to share.
    ///
    /// # Errors
    ///
    /// [`Miss`].
    pub fn try_at(mm: &'m Mm<P, L>, at: u64) -> Result<Self, Miss> {
        let lock = mm.lock.try_read(mm.platform()).ok_or(Miss::Contended)?;
        Self::under(mm, lock, at)
    }

    /// The mapping at `at`, or what to wait for.
    pub fn at(mm: &'m Mm<P, L>, at: u64) -> Slowly<'m, Self, P> {
        match mm.lock.read(mm.platform()) {
            Err(token) => Slowly::Wait(token),
            Ok(lock) => match Self::under(mm, lock, at) {
                Ok(held) => Slowly::Held(held),
                Err(Miss::Grow) => Slowly::Grow,
                Err(_) => Slowly::NoVma,
            },
        }
    }

    fn under(mm: &'m Mm<P, L>, lock: SharedGuard<'m, P>, at: u64) -> Result<Self, Miss> {
        // SAFETY: (1) the lock is shared, and goes with what is found.
        let next = unsafe { mm.index.find_still(at) };
        match next {
            Some(vma) if vma.range().contains(at) => Ok(Self { vma: NonNull::from(vma), _lock: lock }),
            next => Err(mm.miss(at, || next)),
        }
    }
}

impl<P: Platform, L: Locking> Stable<P, L> for Held<'_, P, L> {
    const MAY_SLEEP: bool = true;

    #[inline]
    fn vma(&self) -> &Vma<P, L> {
        // SAFETY: (1) found in the index under the shared lock; (2) only a change, which needs all of the lock, defers it.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    fn beside<T>(&self, mm: &Mm<P, L>, at: u64, see: impl FnOnce(Option<&Vma<P, L>>) -> T) -> T {
        assert!(self._lock.is_of(&mm.lock), "what is held is of another address space");
        // SAFETY: (1) we have a share of the lock, as just asked.
        see(unsafe { mm.index.find_still(at) })
    }
}
