//! `rcu_prealloc`: as `rcu`, but the tables that a fault may want are allocated before its read section. (M. Wilcox, January 2020, option 1.)
//!
//! **Guarantee.** As in `rcu`; and nothing is allocated for a table while the hold lasts.
//!
//! **Mechanism.** The page tables are walked first, in a section of their own, to see how many tables are missing; these are taken; then the mapping is
//! looked up in the section that lasts. If there is no memory for them, the fault takes the slow way, which allocates as it goes.

use super::{Locking, Miss, Stable};
use crate::addr::Range;
use crate::mm::Mm;
use crate::paging::Spares;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// Tables, a read section, and a sequence in each mapping.
#[derive(Debug)]
pub struct RcuPrealloc;

/// A mapping that was there, and tables for its page.
pub struct Prepared<'m, P: Platform> {
    vma: NonNull<Vma<P, RcuPrealloc>>,
    sequence: u64,
    _section: <P::Rcu as Rcu>::Guard<'m>,
    /// Last: given back when the section is over.
    spares: Spares<'m, P>,
}

impl<P: Platform> Stable<P, RcuPrealloc> for Prepared<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, RcuPrealloc> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    asks_the_sequence!();

    #[inline]
    fn spares(&self) -> Option<&Spares<'_, P>> {
        (!seeded!("tables-on-the-way")).then_some(&self.spares)
    }

    looks_beside_in_a_section!(RcuPrealloc, and_stays);
}

// SAFETY: as for `UnderRcu`, whose sequence this is: (1) the mapping was found in the section that the hold has, and its sequence was even; (2)
// the range is the mapping's; (3) a claim makes the sequence odd and a release a new one, which whoever locks a table after the claimer sees; (4)
// by the tables' locks, as nothing else is read; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for RcuPrealloc {
    const NAME: &'static str = "rcu_prealloc";
    type PerMm<P: Platform> = ();
    type Fast<'m, P: Platform> = Prepared<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();
    is_claimed_by_a_sequence!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Prepared<'_, P>, Miss> {
        let spares = mm.page_table().spares(mm.platform(), at).ok_or(Miss::Contended)?;
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let sequence = vma.lock.unclaimed().ok_or(Miss::Contended)?;
        Ok(Prepared { vma: NonNull::from(vma), sequence, _section: section, spares })
    }
}
