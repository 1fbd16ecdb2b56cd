//! `vma_refcount_2019`: a fault holds a reference on its mapping; a change waits for those, and for a grace period. (M. Wilcox's and J. Glisse's
//! mails of December 2019.)
//!
//! **Guarantee.** A fault that has a reference has a mapping that is not claimed, and its claim's quiesce waits for it.
//!
//! **Mechanism.** Each mapping has a count and, beside it, a mark: new-born until its predecessors' pages are gone, then none, then zombie. A fault counts
//! itself in and looks at the mark; a claim sets the mark and looks at the count: with a fence between, one of the two sees the other. The
//! count's highest bit says that somebody waits for it. After the counts comes a grace period, for those who found the mapping and have not
//! yet counted themselves: for its memory alone, which could be deferred as elsewhere, but waiting for it is what this design is. It is skipped
//! for the only user of a space, who is the one who waits.

use crate::shared::place_of;
use super::{Locking, Miss, Stable};
use crate::Event;
use crate::addr::Range;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use crate::wait::{self, Token};
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicBool, AtomicU32, Ordering};
use spile_sync::{fence, order, seeded};

/// A reference count in each mapping, and grace periods.
#[derive(Debug)]
pub struct VmaRefcount2019;

/// What the design keeps in a mapping.
#[derive(Debug)]
pub struct Counted {
    references: AtomicU32,
    /// New-born, or zombie.
    marked: AtomicBool,
}

const AWAITED: u32 = 1 << 31;

/// With so many references some were forgotten; a few more, and the count would seem to come round. Between this and that is room for all who
/// just look.
const FORGOTTEN: u32 = AWAITED / 2;

impl Counted {
    fn thing(&self) -> usize {
        place_of(self)
    }
}

/// Gives up a reference.
///
/// # Safety
///
/// (1) The caller has one, or is in the section in which it found the mapping.
#[inline]
unsafe fn put<P: Platform>(p: &P, vma: NonNull<Vma<P, VmaRefcount2019>>) {
    // SAFETY: (1) as long as the reference is there.
    let counted = unsafe { &vma.as_ref().lock };
    let thing = counted.thing();
    // Release [count-put]: what this fault did comes before what the claimer does next. The mapping may be gone after this.
    if counted.references.fetch_sub(1, order!("count-put", Release)) == AWAITED | 1 {
        wait::happened(p, thing);
    }
}

/// A mapping with a reference on it.
#[derive(Debug)]
pub struct Reference<'m, P: Platform> {
    mm: &'m Mm<P, VmaRefcount2019>,
    vma: NonNull<Vma<P, VmaRefcount2019>>,
}

impl<P: Platform> Stable<P, VmaRefcount2019> for Reference<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, VmaRefcount2019> {
        // SAFETY: (1) found in the index in a read section, and not marked when we were counted; (2) it is deferred only after a quiesce, which
        // waits for this reference.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(VmaRefcount2019);
}

impl<P: Platform> Drop for Reference<'_, P> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: (1) ours.
        unsafe { put(self.mm.platform(), self.vma) };
    }
}

// SAFETY: (1) a fault that is counted and sees no mark afterwards is seen by the claim that sets one, and `quiesce` waits for it; (2) the range
// is the mapping's; (3) by the fences, and the last reference's Release meets `quiesce`'s Acquire; (4) the mark is taken away with Release and read
// with Acquire; (5) all of the lock; (6) by a grace period.
unsafe impl Locking for VmaRefcount2019 {
    const NAME: &'static str = "vma_refcount_2019";
    const WAITS_FOR_READERS: bool = true;
    type PerMm<P: Platform> = ();
    type PerVma = Counted;
    type Fast<'m, P: Platform> = Reference<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> Counted {
        Counted { references: AtomicU32::new(0), marked: AtomicBool::new(true) }
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Reference<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        // Relaxed: a guess, which saves a write to the count of a mapping that is being changed.
        if vma.lock.marked.load(Ordering::Relaxed) {
            return Err(Miss::Contended);
        }
        // Relaxed: the fence orders it.
        let before = vma.lock.references.fetch_add(1, Ordering::Relaxed);
        if before & !AWAITED >= FORGOTTEN {
            // Relaxed: of so many it is not the last, for which somebody waits.
            vma.lock.references.fetch_sub(1, Ordering::Relaxed);
            return Err(Miss::Contended);
        }
        // [count-enter] against [count-claim]: the claim sees the count, or we see the mark.
        fence!("count-enter");
        let reference = Reference { mm, vma: NonNull::from(vma) };
        // Acquire [count-get]: the mapping's release comes before: it may have been claimed and released since we were counted.
        if vma.lock.marked.load(order!("count-get", Acquire)) && !seeded!("no-look-at-the-mark") {
            return Err(Miss::Contended);
        }
        Ok(reference)
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Relaxed: the fence in `quiesce` orders it.
        vma.lock.marked.store(true, Ordering::Relaxed);
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Release [count-release]: whoever gets a reference sees what the change did.
        vma.lock.marked.store(false, order!("count-release", Release));
    }

    fn quiesce<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>) {
        let (p, counted) = (mm.platform(), &vma.lock);
        // [count-claim] against [count-enter]: we see the count, or the fault sees the mark.
        fence!("count-claim");
        // Acquire [count-drained]: what the last fault did is seen.
        let held = || counted.references.load(order!("count-drained", Acquire)) & !AWAITED != 0;
        while held() && !seeded!("mark-without-waiting") {
            let token = Token::for_thing(p, counted.thing());
            // Relaxed: whoever takes the last reference away after this sees it in the same word.
            counted.references.fetch_or(AWAITED, Ordering::Relaxed);
            if held() {
                mm.count(Event::HoldWait);
                token.wait();
            }
        }
        // Relaxed: nobody is counted.
        counted.references.fetch_and(!AWAITED, Ordering::Relaxed);
    }

    /// Without the wait the memory is still safe, being deferred: so a user who comes at this moment does not matter.
    fn settle<P: Platform>(mm: &Mm<P, Self>) {
        if !mm.has_one_user() {
            mm.count(Event::GraceWait);
            mm.platform().rcu().synchronize();
        }
    }
}
