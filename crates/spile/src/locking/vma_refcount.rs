//! `vma_refcount`: a fault holds a reference on its mapping. (M. Wilcox's mail of December 2019; Linux since 6.15 in this form.)
//!
//! **Guarantee.** A fault that has a reference has a mapping that is not claimed, and its claim's quiesce waits for it.
//!
//! **Mechanism.** One word in each mapping: a count, and a bit that refuses new references. Found in a read section, taken by a
//! compare-exchange that sees both, so that claim and reference cannot miss each other. A claim that is never released marks a
//! dead mapping. The one who waits in quiesce is woken by whoever gives up the last reference.

use super::{Locking, Miss, Stable};
use crate::Event;
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use crate::wait::{self, Token};
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::{order, seeded};

/// A reference count in each mapping.
#[derive(Debug)]
pub struct VmaRefcount;

const CLAIMED: u32 = 1 << 31;

/// The word: [`CLAIMED`], and how many references there are.
#[derive(Debug)]
pub struct References(AtomicU32);

impl References {
    /// One more, unless claimed, or so many were forgotten that one more would claim it.
    #[inline]
    fn try_get(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word < CLAIMED - 1 || seeded!("reference-a-claimed-vma") {
            // Acquire [vma-get]: the mapping's release comes before.
            match self.0.compare_exchange(word, word + 1, order!("vma-get", Acquire), Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn thing(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// A mapping with a reference on it.
#[derive(Debug)]
pub struct Referenced<'m, P: Platform> {
    mm: &'m Mm<P, VmaRefcount>,
    vma: NonNull<Vma<P, VmaRefcount>>,
}

impl<P: Platform> Stable<P, VmaRefcount> for Referenced<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, VmaRefcount> {
        // SAFETY: (1) found in the index in a read section, so alive then; (2) it is deferred only after a quiesce, which waits
        // for this reference.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(VmaRefcount);
}

impl<P: Platform> Drop for Referenced<'_, P> {
    #[inline]
    fn drop(&mut self) {
        let (mm, references) = (self.mm, &self.vma().lock);
        let thing = references.thing();
        // Release [vma-put]: what this fault did comes before what the claimer does next. The mapping may be gone after this.
        let before = references.0.fetch_sub(1, order!("vma-put", Release));
        if before == CLAIMED | 1 {
            wait::happened(mm.platform(), thing);
        }
    }
}

// SAFETY: (1) a reference is taken in the section in which the mapping was found, unless it is claimed, and `quiesce` waits for it; (2) the
// range is the mapping's; (3) the count and the claim are one word, and the last reference's Release meets `quiesce`'s Acquire; (4) so do
// `release` and `try_get`; (5) as provided. A hold of the slow way is a share of the lock.
unsafe impl Locking for VmaRefcount {
    const NAME: &'static str = "vma_refcount";
    type PerMm<P: Platform> = ();
    type PerVma = References;
    type Fast<'m, P: Platform> = Referenced<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> References {
        References(AtomicU32::new(CLAIMED))
    }

    #[inline]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Referenced<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        if !vma.lock.try_get() {
            return Err(Miss::Contended);
        }
        Ok(Referenced { mm, vma: NonNull::from(vma) })
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Relaxed: nothing is read or given up yet; `quiesce` acquires.
        vma.lock.0.fetch_or(CLAIMED, Ordering::Relaxed);
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Release [vma-release]: whoever gets a reference sees what the change did.
        vma.lock.0.fetch_and(!CLAIMED, order!("vma-release", Release));
    }

    fn quiesce<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>) {
        let (p, references) = (mm.platform(), &vma.lock);
        // Acquire [vma-drained]: what the last fault did is seen.
        let held = || references.0.load(order!("vma-drained", Acquire)) & !CLAIMED != 0;
        while held() && !seeded!("claim-without-quiesce") {
            let token = Token::for_thing(p, references.thing());
            if held() {
                mm.count(Event::HoldWait);
                token.wait();
            }
        }
    }
}
