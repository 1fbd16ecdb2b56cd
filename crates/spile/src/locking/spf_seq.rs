//! `spf_seq`: a fault speculates that nothing in the whole address space changes. (M. Lespinasse, 2021 and 2022.)
//!
//! **Guarantee.** A fault whose hold was good under the table's lock ran as if no change had been under way.
//!
//! **Mechanism.** A sequence in the address space, odd while somebody has the right to change. A fault remembers it, finds its mapping in
//! a read section, and asks whether it is still the same. (The original copies the mapping, which changes in place there; here a published
//! mapping never changes, and the section keeps it.) Any change anywhere fails every fault that is under way.

use super::{Exclusive, Held, Locking, Miss, SharedGuard, Slowly, Stable};
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// A sequence in each address space.
#[derive(Debug)]
pub struct SpfSeq;

/// How often somebody got or gave back the right to change. Nobody but the design writes it: whoever could would make old holds good.
#[derive(Debug)]
pub struct Changes(AtomicU64);

/// A mapping that was there.
pub struct Speculation<'m, P: Platform> {
    mm: &'m Mm<P, SpfSeq>,
    vma: NonNull<Vma<P, SpfSeq>>,
    sequence: u64,
    _section: <P::Rcu as Rcu>::Guard<'m>,
}

impl<P: Platform> Stable<P, SpfSeq> for Speculation<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, SpfSeq> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    #[inline]
    fn still_valid(&self) -> bool {
        // Relaxed: who has changed something tells so before it locks the table.
        self.mm.design().0.load(Ordering::Relaxed) == self.sequence || seeded!("no-revalidation")
    }

    looks_beside_in_a_section!(SpfSeq, and_stays);
}

/// All of the lock, and the sequence odd.
#[derive(Debug)]
pub struct Changing<'m, P: Platform> {
    odd: Odd<'m>,
    // Unlocked when the sequence is even again.
    right: Exclusive<'m, P>,
}

#[derive(Debug)]
struct Odd<'m>(&'m AtomicU64);

impl Drop for Odd<'_> {
    fn drop(&mut self) {
        let now = self.0.load(Ordering::Relaxed);
        // Release [spf-even]: who sees it sees what was changed.
        self.0.store(now + 1, order!("spf-even", Release));
    }
}

// SAFETY: (1) the mapping was found in the section that the hold has, after an even sequence was read, which says that nobody had changed
// what was found by then, or it is not valid; (2) the range is the mapping's; (3) and (4) the sequence is odd from `write` on, and new when it
// is even again, which whoever locks a table after the change sees; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for SpfSeq {
    const NAME: &'static str = "spf_seq";
    type PerMm<P: Platform> = Changes;
    type PerVma = ();
    type Fast<'m, P: Platform> = Speculation<'m, P>;
    type Slow<'m, P: Platform> = Held<'m, P, Self>;
    type Write<'m, P: Platform> = Changing<'m, P>;
    type Tail<'m, P: Platform> = SharedGuard<'m, P>;

    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&Changes>) -> Changes {
        Changes(AtomicU64::new(0))
    }

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) {}

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Speculation<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        // Acquire [spf-begin]: what the last change did is found.
        let sequence = mm.design().0.load(order!("spf-begin", Acquire));
        if sequence & 1 != 0 {
            return Err(Miss::Contended);
        }
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let vma = NonNull::from(vma);
        // Acquire: as above.
        let sequence = if seeded!("sequence-read-late") { mm.design().0.load(Ordering::Acquire) } else { sequence };
        Ok(Speculation { mm, vma, sequence, _section: section })
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
        let right = mm.wait_for_all();
        let now = mm.design().0.load(Ordering::Relaxed);
        // Relaxed: a fault that finds something changed, or locks a table after us, sees it; the index's and the lock's Release.
        mm.design().0.store(now + 1, Ordering::Relaxed);
        Changing { odd: Odd(&mm.design().0), right }
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        let Changing { odd, right } = right;
        // What was taken away is found no more, so faults may speculate again.
        drop(odd);
        right.downgrade()
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}
}
