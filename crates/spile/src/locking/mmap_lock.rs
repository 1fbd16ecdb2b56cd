//! `mmap_lock`: a fault holds the address space's lock, shared. (Linux before 6.4.)

use super::{Held, Locking, Miss};
use crate::mm::Mm;
use crate::platform::Platform;

/// One read-write lock around an address space.
#[derive(Debug)]
pub struct MmapLock;

// SAFETY: (1) a hold is a share of the lock, which keeps `write` from being answered, and looks into the index under it; (2) the range is
// the mapping's; (3) and (4) by the lock; (5) as provided.
unsafe impl Locking for MmapLock {
    const NAME: &'static str = "mmap_lock";
    type PerMm = ();
    type PerVma = ();
    type Fast<'m, P: Platform> = Held<'m, P, Self>;

    fn born_claimed() {}

    #[inline]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Held<'_, P, Self>, Miss> {
        Held::try_at(mm, at)
    }

    fn claim((): &()) {}

    fn release((): &()) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, (): &()) {}
}
