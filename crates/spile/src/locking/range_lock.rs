//! `range_lock`: who changes or uses a part of the address space locks that part. (M. Lespinasse's proposal, 2018 to 2020.)
//!
//! **Guarantee.** Nothing changes in a mapping while a fault is under way there, and nobody else changes anything in the footprint of a change.
//! Changes whose footprints are apart rewrite entries, and wait for other CPUs, at the same time.
//!
//! **Mechanism.** The address space's lock, held for short, and a fair lock of ranges. A change locks its *footprint*: what was wanted, a page on
//! each side, and all of every mapping that these meet, for it may be cut, or merged. It has the address space's lock too, but not while
//! entries are rewritten. A fault locks its page, under a share of the address space's lock, which it gives back: whoever wants to change
//! the mapping must lock all of it.
//!
//! ```text
//!            wanted: |-------|
//!  |--------------|  |----|    |---|  |-----|      mappings
//!                 |-----------|                    and a page on each side: meets one mapping
//!                 |-----------|                    the footprint
//! ```
//!
//! Nobody waits for ranges with the address space's lock, nor for ranges with ranges; who has ranges may wait for that lock, which is
//! held for short. Who had to wait looks again when its turn comes: its neighbours may have grown.

use super::ranges::{Footprint, RangeGuard, Ranges};
use super::{Exclusive, Locking, Miss, SharedGuard, Slowly, Stable};
use crate::Event;
use crate::addr::Range;
use crate::index::Index;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_sync::seeded;

/// A lock for each range that is used.
#[derive(Debug)]
pub struct RangeLock;

/// A mapping of which a page is locked.
#[derive(Debug)]
pub struct Pinned<'m, P: Platform> {
    vma: NonNull<Vma<P, RangeLock>>,
    _page: RangeGuard<'m, P>,
}

/// All of the lock, but when it is given back for a while, and a footprint, if something was wanted.
#[derive(Debug)]
pub struct Right<'m, P: Platform> {
    mm: &'m Mm<P, RangeLock>,
    footprint: Option<RangeGuard<'m, P>>,
    lock: Option<Exclusive<'m, P>>,
}

/// The footprint of `want`. With all of the lock.
fn footprint<P: Platform>(mm: &Mm<P, RangeLock>, want: &[Range], _: &Exclusive<'_, P>) -> Footprint {
    Footprint::of(want).map(|range| {
        if seeded!("footprint-as-wanted") {
            return range;
        }
        let near = range.with_neighbours();
        // SAFETY: (1) nobody else has any of the lock.
        let meets = |at| unsafe { mm.index().find_still(at) }.map(Vma::range).filter(|whole| whole.contains(at));
        [near.start(), near.end() - 1].into_iter().filter_map(meets).fold(near, Range::around)
    })
}

impl<'m, P: Platform> Pinned<'m, P> {
    /// The mapping at `at`, whose page is locked.
    fn at(mm: &'m Mm<P, RangeLock>, at: u64, page: RangeGuard<'m, P>, _: SharedGuard<'m, P>) -> Result<Self, Miss> {
        // SAFETY: (1) we have a share of the lock.
        match unsafe { mm.index().find_still(at) } {
            Some(vma) if vma.range().contains(at) => Ok(Self { vma: NonNull::from(vma), _page: page }),
            next => Err(mm.miss(at, || next)),
        }
    }
}

impl<P: Platform> Stable<P, RangeLock> for Pinned<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, RangeLock> {
        // SAFETY: (1) it was in the index when its page was locked; whoever takes it out has locked all of it, and so waits for us.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(RangeLock);
}

// SAFETY: (1) a hold is a lock on a page, which keeps `write` of the mapping from being answered, and looks into the index under a share of the
// lock, without which nobody changes that; (2) the range is the mapping's: who changes any of it locks all of it; (3) and (4) by the lock of
// ranges; (5) the footprint covers what was wanted and the mappings that touch it, as they are when the right is given; another
// mapping that touches it would be in the footprint of who makes it, and the two would meet; beside it all of the lock, but apart; (6) by
// grace periods.
unsafe impl Locking for RangeLock {
    const NAME: &'static str = "range_lock";
    const LETS_GO: bool = false;
    type PerMm<P: Platform> = Ranges;
    type PerVma = ();
    type Fast<'m, P: Platform> = Pinned<'m, P>;
    type Slow<'m, P: Platform> = Pinned<'m, P>;
    type Write<'m, P: Platform> = Right<'m, P>;
    type Tail<'m, P: Platform> = Option<RangeGuard<'m, P>>;

    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&Ranges>) -> Ranges {
        Ranges::new()
    }

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Pinned<'_, P>, Miss> {
        let share = mm.lock().try_read(mm.platform()).ok_or(Miss::Contended)?;
        let page = mm.design().try_read(mm.platform(), Range::page_of(at)).ok_or(Miss::Contended)?;
        Pinned::at(mm, at, page, share)
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Pinned<'_, P>, P> {
        let p = mm.platform();
        // The other way round: a share that is given back tells all who wait, which would turn over our own token, again and again.
        let locked = mm.design().read(p, Range::page_of(at)).and_then(|page| Ok((page, mm.lock().read(p)?)));
        // Not before it has both: else the turn for the one would be lost while it waits for the other.
        let locked = locked.inspect(|(page, _)| mm.design().has_come(page));
        match locked.map(|(page, share)| Pinned::at(mm, at, page, share)) {
            Err(token) => Slowly::Wait(token),
            Ok(Ok(held)) => Slowly::Held(held),
            Ok(Err(Miss::Grow)) => Slowly::Grow,
            // Nor is there a gap that somebody is about to fill: its footprint would be everything.
            Ok(Err(_)) => Slowly::NoVma,
        }
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, want: &[Range]) -> Right<'m, P> {
        let mut granted: Option<RangeGuard<'m, P>> = None;
        loop {
            let lock = mm.wait_for_all();
            let footprint = footprint(mm, want, &lock);
            // What is left over goes back: it may cut mappings that have come since.
            if let Some(footprint) = granted.take_if(|granted| granted.narrow(footprint) || seeded!("no-look-after-waiting")) {
                return Right { mm, footprint: Some(footprint), lock: Some(lock) };
            }
            // Too little of it is worse than nothing: two could wait for each other.
            drop(granted.take());
            if footprint.is_empty() {
                return Right { mm, footprint: None, lock: Some(lock) };
            }
            let mut request = mm.design().request(mm.platform(), footprint);
            match request.turn() {
                Ok(footprint) => return Right { mm, footprint: Some(footprint), lock: Some(lock) },
                Err(token) => {
                    drop(lock);
                    mm.count(Event::WriteWait);
                    token.wait();
                    granted = Some(request.wait());
                }
            }
        }
    }

    fn may_change<P: Platform>(right: &Right<'_, P>, range: Range) -> bool {
        right.footprint.as_ref().is_some_and(|locked| locked.footprint().covers(range))
    }

    fn apart<P: Platform, T>(right: &mut Right<'_, P>, work: impl FnOnce() -> T) -> T {
        right.lock = None;
        let done = work();
        right.lock = Some(right.mm.lock().wait_for_all(right.mm.platform(), || {}));
        done
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        right.footprint
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
}
