//! `pt_range`: a fault holds the lock of what its page's table maps, shared. (After CortenMM, 2025.)
//!
//! **Guarantee.** Between a fault and a change that have a table in common one waits for the other, or goes the slow way; faults and changes under
//! different tables do not meet.
//!
//! **Mechanism.** Locks of the tables' spans, in [`paging`](crate::paging). A mapping has no state: a fault locks first and looks into the index
//! then, in a read section; a change excludes the tables of its whole window before it publishes, and lets faults in at its end. (The
//! original has no index of mappings, and keeps what they are in the tables; it has no lock for changes either.)

use super::{Exclusive, Held, Locking, Miss, Slowly, Stable};
use crate::Event;
use crate::addr::Range;
use crate::mm::Mm;
use crate::paging::SpanShare;
use crate::platform::Platform;
use crate::vma::Vma;
use core::cell::Cell;
use core::ptr::NonNull;
use spile_rcu::Rcu;

/// A lock in each table.
#[derive(Debug)]
pub struct PtRange;

/// A mapping whose table is locked.
#[derive(Debug)]
pub struct Covered<'m, P: Platform> {
    vma: NonNull<Vma<P, PtRange>>,
    range: Range,
    _share: SpanShare<'m, P>,
}

impl<P: Platform> Stable<P, PtRange> for Covered<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, PtRange> {
        // SAFETY: (1) found when the table was locked; who takes it out of the index excludes all of its tables first, and so waits for us.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.range
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(PtRange);
}

/// All of the lock. Its end lets faults in where it has kept them out.
#[derive(Debug)]
pub struct Excluding<'m, P: Platform> {
    mm: &'m Mm<P, PtRange>,
    /// Around all that was excluded.
    excluded: Cell<Option<Range>>,
    // Unlocked when faults are let in.
    _right: Exclusive<'m, P>,
}

impl<P: Platform> Drop for Excluding<'_, P> {
    fn drop(&mut self) {
        if let Some(range) = self.excluded.get() {
            self.mm.page_table().readmit_span(self.mm.platform(), range);
        }
    }
}

// SAFETY: (1) the mapping is found in a section after its page's table was locked, and whoever takes it out excludes that table before, and waits;
// what is published in a window is found by nobody, for its tables are excluded; (2) the range is clipped to the mapping; (3) `exclude` waits for
// all shares; (4) by the word of the table; (5) all of the lock; (6) by a grace period, and no hold is left.
unsafe impl Locking for PtRange {
    const NAME: &'static str = "pt_range";
    const LETS_GO: bool = false;
    type PerMm<P: Platform> = ();
    type PerVma = ();
    type Fast<'m, P: Platform> = Covered<'m, P>;
    type Slow<'m, P: Platform> = Held<'m, P, Self>;
    type Write<'m, P: Platform> = Excluding<'m, P>;
    type Tail<'m, P: Platform> = Excluding<'m, P>;

    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Covered<'_, P>, Miss> {
        let share = mm.page_table().share_span(mm.platform(), at).ok_or(Miss::Contended)?;
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let range = vma.range().overlap(share.range()).expect("both contain the address");
        Ok(Covered { vma: NonNull::from(vma), range, _share: share })
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
        let right = mm.wait_for_all();
        Excluding { mm, excluded: Cell::new(None), _right: right }
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        // Whoever shared a table that goes now, for what is beside it, would be found by no later change.
        right
    }

    fn exclude<P: Platform>(right: &Self::Write<'_, P>, range: Range) {
        right.excluded.set(Some(right.excluded.get().map_or(range, |before| before.around(range))));
        right.mm.page_table().exclude_span(right.mm.platform(), range, right.mm.counting(Event::HoldWait));
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
}
