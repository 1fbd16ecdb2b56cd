//! `mmap_lock`: a fault holds the address space's lock, shared. (Linux before 6.4.)
//!
//! **Guarantee.** Nothing changes while a fault is under way.
//!
//! **Mechanism.** The lock that all designs have, taken by every fault. Who unmaps keeps a share of it while pages are taken away: faults elsewhere go on,
//! other changes wait. (Linux since 4.20.)

use super::{Held, Locking, Miss};
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;

/// One read-write lock around an address space.
#[derive(Debug)]
pub struct MmapLock;

// SAFETY: (1) a hold is a share of the lock, which keeps `write` from being answered, and looks into the index under it; (2) the range is
// the mapping's; (3) and (4) by the lock; (5) all of the lock; what was taken away is found no more under a share; (6) by grace periods.
unsafe impl Locking for MmapLock {
    const NAME: &'static str = "mmap_lock";
    type PerMm<P: Platform> = ();
    type PerVma = ();
    type Fast<'m, P: Platform> = Held<'m, P, Self>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Held<'_, P, Self>, Miss> {
        Held::try_at(mm, at)
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
}
