//! `rcu`: a fault holds a read section, and writes nothing that others read but the page's entry. (M. Wilcox's third phase, 2019; option 2 of
//! January 2020: tables are allocated without sleeping.)
//!
//! **Guarantee.** A fault's hold ends when its mapping is claimed, and the fault sees that under the table's lock.
//!
//! **Mechanism.** A [`Sequence`](super::sequence::Sequence) in each mapping, odd while it is claimed. A fault remembers it, in a section that keeps the
//! mapping allocated, and asks whether it is still the same. Nobody waits for a fault.

use super::{Locking, Miss, Stable};
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;

/// A read section, and a sequence in each mapping.
#[derive(Debug)]
pub struct UnderRcu;

/// A mapping that was there.
pub struct InSection<'m, P: Platform> {
    vma: NonNull<Vma<P, UnderRcu>>,
    sequence: u64,
    _section: <P::Rcu as Rcu>::Guard<'m>,
}

impl<P: Platform> Stable<P, UnderRcu> for InSection<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, UnderRcu> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    asks_the_sequence!();

    looks_beside_in_a_section!(UnderRcu, and_stays);
}

// SAFETY: (1) the mapping was found in the section that the hold has, and its sequence was even; (2) the range is the mapping's; (3) a claim
// makes the sequence odd and a release a new one, which whoever locks a table after the claimer sees; (4) by the tables' locks, as nothing else
// is read; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for UnderRcu {
    const NAME: &'static str = "rcu";
    type PerMm<P: Platform> = ();
    type Fast<'m, P: Platform> = InSection<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();
    is_claimed_by_a_sequence!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<InSection<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let sequence = vma.lock.unclaimed().ok_or(Miss::Contended)?;
        Ok(InSection { vma: NonNull::from(vma), sequence, _section: section })
    }
}
