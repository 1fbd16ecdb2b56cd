//! `mmap_lock_rbtree`: the address space's lock over a red-black tree, with a cache of what was found last. (Linux before 6.1.)
//!
//! **Guarantee.** Nothing changes while a fault is under way; who lists mappings waits for changes, and they for it.
//!
//! **Mechanism.** As `mmap_lock`, but the index may be looked at under the lock alone. A fault asks the [`VmaCache`] first.

use super::vmacache::VmaCache;
use super::{Held, Locking, Miss};
use crate::addr::Range;
use crate::index::{RedBlack, VmaBox};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;

/// One read-write lock around an address space, and a red-black tree inside.
#[derive(Debug)]
pub struct MmapLockRbTree;

// SAFETY: (1) a hold is a share of the lock, which keeps `write` from being answered, and looks into the index, or a cache of it, under it; (2)
// the range is the mapping's; (3) and (4) by the lock; (5) all of the lock; what was taken away is found no more under a share; (6) whoever
// looks has a share of the lock too.
unsafe impl Locking for MmapLockRbTree {
    const NAME: &'static str = "mmap_lock_rbtree";
    type Index<P: Platform> = RedBlack<P, Self>;
    type PerMm<P: Platform> = VmaCache<Vma<P, Self>>;
    type PerVma = ();
    type Fast<'m, P: Platform> = Held<'m, P, Self>;

    falls_back_to_the_lock!();
    looks_under_the_lock!();

    fn per_mm<P: Platform>(_: &P, _: Option<&Self::PerMm<P>>) -> Self::PerMm<P> {
        VmaCache::new()
    }

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Held<'_, P, Self>, Miss> {
        let (p, cache) = (mm.platform(), mm.design());
        let share = mm.lock().try_read(p).ok_or(Miss::Contended)?;
        let cached = cache.find(p.cpu(), at);
        // SAFETY: (1) it is in the index, and we have a share of the lock.
        if let Some(vma) = cached.filter(|vma| unsafe { vma.as_ref() }.range().contains(at)) {
            return Ok(Held { vma, _lock: share });
        }
        let held = Held::under(mm, share, at)?;
        cache.remember(p.cpu(), at, held.vma);
        Ok(held)
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        mm.design().invalidate();
        drop(vma);
    }
}
