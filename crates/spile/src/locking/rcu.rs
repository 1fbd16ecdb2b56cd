//! `rcu`: a fault holds a read section, and writes nothing that others read but the page's entry. (M. Wilcox's third phase, 2019; option 2 of
//! January 2020: tables are allocated without sleeping.)
//!
//! **Guarantee.** A fault's hold ends when its mapping is claimed, and the fault sees that under the table's lock.
//!
//! **Mechanism.** A sequence in each mapping, odd while it is claimed, for ever if the claim is never released. A fault remembers it, in a
//! section that keeps the mapping allocated, and asks whether it is still the same. Nobody waits for a fault. All of it is Relaxed: that a
//! fault and a change do not miss each other is the work of the table's lock, which both take after they have asked and told.

use super::{Locking, Miss, Stable};
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::seeded;

/// A read section, and a sequence in each mapping.
#[derive(Debug)]
pub struct UnderRcu;

/// How often a mapping was claimed and released, and whether it is claimed. 64 bits do not come round while a section lasts.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

const CLAIMED: u64 = 1;

impl Sequence {
    pub(super) fn claimed() -> Self {
        Self(AtomicU64::new(CLAIMED))
    }

    /// What to remember, unless it is claimed.
    #[inline]
    pub(super) fn unclaimed(&self) -> Option<u64> {
        // Relaxed: see the module.
        let now = self.0.load(Ordering::Relaxed);
        (now & CLAIMED == 0 || seeded!("hold-a-claimed-vma")).then_some(now)
    }

    #[inline]
    pub(super) fn is_still(&self, remembered: u64) -> bool {
        // Relaxed: see the module.
        self.0.load(Ordering::Relaxed) == remembered || seeded!("no-revalidation")
    }

    /// With the right to change.
    pub(super) fn claim(&self) {
        // Relaxed: only who has the right writes it.
        self.0.store(self.0.load(Ordering::Relaxed) | CLAIMED, Ordering::Relaxed);
    }

    /// With the right to change.
    pub(super) fn release(&self) {
        // Relaxed: as above.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store((now | CLAIMED) + 1, Ordering::Relaxed);
    }
}

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

    #[inline]
    fn still_valid(&self) -> bool {
        self.vma().lock.is_still(self.sequence)
    }

    looks_beside_in_a_section!(UnderRcu, and_stays);
}

// SAFETY: (1) the mapping was found in the section that the hold has, and its sequence was even; (2) the range is the mapping's; (3) a claim
// makes the sequence odd and a release a new one, which whoever locks a table after the claimer sees; (4) by the tables' locks, as nothing else
// is read; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for UnderRcu {
    const NAME: &'static str = "rcu";
    type PerMm<P: Platform> = ();
    type PerVma = Sequence;
    type Fast<'m, P: Platform> = InSection<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> Sequence {
        Sequence::claimed()
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<InSection<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let sequence = vma.lock.unclaimed().ok_or(Miss::Contended)?;
        Ok(InSection { vma: NonNull::from(vma), sequence, _section: section })
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        vma.lock.claim();
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        vma.lock.release();
    }

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
}
