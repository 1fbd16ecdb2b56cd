//! `rcu_late_zap`: as `rcu`, but pages are taken away a grace period after their mapping. (M. Wilcox, February 2020, who found the sequence
//! faster.)
//!
//! **Guarantee.** A hold is good as long as it lasts: nobody takes pages away while a fault that found the mapping is under way.
//!
//! **Mechanism.** A mark in each mapping says that it is claimed. Between marking and zapping, the change waits for a grace period, and so for
//! every fault that did not see the mark. A fault asks once, at its beginning.

use super::{Locking, Miss, Stable};
use crate::Event;
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicBool, Ordering};
use spile_sync::seeded;

/// A read section, which changes wait for.
#[derive(Debug)]
pub struct RcuLateZap;

/// A mapping that stays.
pub struct Awaited<'m, P: Platform> {
    vma: NonNull<Vma<P, RcuLateZap>>,
    _section: <P::Rcu as Rcu>::Guard<'m>,
}

impl<P: Platform> Stable<P, RcuLateZap> for Awaited<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, RcuLateZap> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(RcuLateZap, and_stays);
}

// SAFETY: (1) the mapping was found in the section that the hold has, and was not marked; (2) the range is the mapping's; (3) `settle` waits for
// the sections of all who did not see the mark, and what they did happened before; (4) by the tables' locks, as nothing
// else is read; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for RcuLateZap {
    const NAME: &'static str = "rcu_late_zap";
    const WAITS_FOR_READERS: bool = true;
    type PerMm<P: Platform> = ();
    type PerVma = AtomicBool;
    type Fast<'m, P: Platform> = Awaited<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> AtomicBool {
        AtomicBool::new(true)
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Awaited<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        // Relaxed: a claim that is not seen waits for us, and what was done to a table before a release is seen by who locks it.
        if vma.lock.load(Ordering::Relaxed) {
            return Err(Miss::Contended);
        }
        Ok(Awaited { vma: NonNull::from(vma), _section: section })
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Relaxed: a section that begins after the grace period that `settle` waits for sees it.
        vma.lock.store(true, Ordering::Relaxed);
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Relaxed: as in `try_stabilise`.
        vma.lock.store(false, Ordering::Relaxed);
    }

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn settle<P: Platform>(mm: &Mm<P, Self>) {
        if !seeded!("zap-without-grace") {
            mm.count(Event::GraceWait);
            mm.platform().rcu().synchronize();
        }
    }
}
