//! `btreemap_rwlock`: one read-write lock around a `BTreeMap`. (What small kernels ship.)
//!
//! **Guarantee.** Nothing changes while anybody looks, and nobody looks while anything changes.
//!
//! **Mechanism.** The lock that all designs have, taken by every fault, by every change for all of its length, and by whoever lists mappings.

use super::{Exclusive, Held, Locking, Miss, Slowly};
use crate::addr::Range;
use crate::index::{BTree, VmaBox};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;

/// One read-write lock around an address space, and a `BTreeMap` inside.
#[derive(Debug)]
pub struct BTreeMapRwLock;

// SAFETY: (1) a hold is a share of the lock, which keeps `write` from being answered, and looks into the index under it; (2) the range is
// the mapping's; (3) and (4) by the lock; (5) all of the lock; (6) whoever looks has a share of the lock too.
unsafe impl Locking for BTreeMapRwLock {
    const NAME: &'static str = "btreemap_rwlock";
    type Index<P: Platform> = BTree<P, Self>;
    type PerMm<P: Platform> = ();
    type PerVma = ();
    type Fast<'m, P: Platform> = Held<'m, P, Self>;

    type Slow<'m, P: Platform> = Held<'m, P, Self>;
    type Write<'m, P: Platform> = Exclusive<'m, P>;
    type Tail<'m, P: Platform> = Exclusive<'m, P>;

    looks_under_the_lock!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Held<'_, P, Self>, Miss> {
        Held::try_at(mm, at)
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
        mm.wait_for_all()
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        right.let_others_in();
        right
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn retire<P: Platform>(_: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        drop(vma);
    }
}
