//! `spf_refcount`: a fault pins its mapping by a reference, and speculates that it does not change. (L. Dufour, 2018.)
//!
//! **Guarantee.** A hold's mapping stays allocated, asleep or not, and the fault sees under the table's lock whether it was claimed.
//!
//! **Mechanism.** In each mapping a count of references, of which the index has one, and a sequence as `rcu` has. Nobody waits for a reference:
//! whoever gives up the last one, of a mapping that is no longer in the index, hands it to a grace period, for those who still look.

use super::sequence::Sequence;
use super::{Locking, Miss, Stable};
use crate::addr::Range;
use crate::index::VmaBox;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::{Rcu, RcuBox};
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::seeded;

/// A reference count and a sequence in each mapping.
#[derive(Debug)]
pub struct SpfRefcount;

/// What the design keeps in a mapping.
#[derive(Debug)]
pub struct Pinned {
    references: AtomicU32,
    sequence: Sequence,
}

impl Pinned {
    /// One reference more, unless there is none, or so many were forgotten that the count would come round.
    #[inline]
    fn try_get(&self) -> bool {
        let mut now = self.references.load(Ordering::Relaxed);
        while (now != 0 || seeded!("reference-a-freed-vma")) && now < u32::MAX / 2 {
            // Relaxed: what the mapping is was published with it, and what happened to it the sequence says.
            match self.references.compare_exchange(now, now + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }
}

/// Gives up a reference.
///
/// # Safety
///
/// (1) The caller has one, and does not use it any more.
#[inline]
unsafe fn put<P: Platform>(mm: &Mm<P, SpfRefcount>, vma: NonNull<Vma<P, SpfRefcount>>) {
    // SAFETY: (1) as long as the reference is there.
    let references = unsafe { &vma.as_ref().lock.references };
    // AcqRel: all uses come before the grace period that the last one asks for. (No model shows it: none looks into freed mappings.)
    if references.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: (1) made by an `RcuBox`, whose owner was the index, which has given up its reference; (2) there is one last reference; (3) it is
        // deferred; (4) it was taken out of the index before.
        super::defer(mm, unsafe { RcuBox::from_raw(vma) });
    }
}

/// A mapping with a reference on it.
#[derive(Debug)]
pub struct Pin<'m, P: Platform> {
    mm: &'m Mm<P, SpfRefcount>,
    vma: NonNull<Vma<P, SpfRefcount>>,
    sequence: u64,
}

impl<P: Platform> Stable<P, SpfRefcount> for Pin<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, SpfRefcount> {
        // SAFETY: (1) we have a reference.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    #[inline]
    fn still_valid(&self) -> bool {
        self.vma().lock.sequence.is_still(self.sequence)
    }

    looks_beside_in_a_section!(SpfRefcount);
}

impl<P: Platform> Drop for Pin<'_, P> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: (1) ours, and the last use.
        unsafe { put(self.mm, self.vma) };
    }
}

// SAFETY: (1) a reference is taken in the section in which the mapping was found, and before it is given up nobody defers it; the sequence was
// even; (2) the range is the mapping's; (3) and (4) as of `rcu`; (5) all of the lock; (6) deferred by whoever gives up the last reference, for
// those who look in sections.
unsafe impl Locking for SpfRefcount {
    const NAME: &'static str = "spf_refcount";
    type PerMm<P: Platform> = ();
    type PerVma = Pinned;
    type Fast<'m, P: Platform> = Pin<'m, P>;

    falls_back_to_the_lock!();
    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&()>) {}

    fn born_claimed<P: Platform>(_: &Mm<P, Self>) -> Pinned {
        Pinned { references: AtomicU32::new(1), sequence: Sequence::claimed() }
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Pin<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let sequence = vma.lock.sequence.unclaimed().ok_or(Miss::Contended)?;
        if !vma.lock.try_get() {
            return Err(Miss::Stale);
        }
        Ok(Pin { mm, vma: NonNull::from(vma), sequence })
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        vma.lock.sequence.claim();
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        vma.lock.sequence.release();
    }

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        // SAFETY: (1) the index's.
        unsafe { put(mm, RcuBox::into_raw(vma)) };
    }
}
