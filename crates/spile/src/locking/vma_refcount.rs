//! `vma_refcount`: a fault holds a reference on its mapping. (M. Wilcox's mail of December 2019; Linux since 6.15 in this form.)
//!
//! **Guarantee.** A fault that has a reference has a mapping of its address space that is not claimed, and its claim's quiesce waits for it.
//!
//! **Mechanism.** One word in each mapping: a count, and a bit that refuses new references. Found in a read section, taken by a
//! compare-exchange that sees both, so that claim and reference cannot miss each other. A claim that is never released marks a
//! dead mapping. The one who waits in quiesce is woken by whoever gives up the last reference.
//!
//! The memory of a mapping is another's as soon as nobody has a reference ([`Pool`]), maybe in a fork. So whoever finds a mapping looks at
//! nothing but that word before it has a reference, and then asks whose the mapping is, and where.

use crate::shared::place_of;
use super::pool::Pool;
use super::{Locking, Miss, Stable};
use crate::Event;
use crate::addr::Range;
use crate::change::NoMemory;
use crate::index::{Index, VmaBox};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Body, Vma};
use crate::wait::{self, Token};
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// A reference count in each mapping.
#[derive(Debug)]
pub struct VmaRefcount;

const CLAIMED: u32 = 1 << 31;

/// What may be looked at without a reference.
#[derive(Debug)]
pub struct References {
    /// [`CLAIMED`], and how many references there are.
    word: AtomicU32,
    /// The number of the address space. Written while claimed.
    space: AtomicU64,
}

impl References {
    /// One more, unless claimed, or so many were forgotten that one more would claim it.
    #[inline]
    fn try_get(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word < CLAIMED - 1 || seeded!("reference-a-claimed-vma") {
            // Acquire [vma-get]: the mapping's release comes before.
            match self.word.compare_exchange(word, word + 1, order!("vma-get", Acquire), Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn thing(&self) -> usize {
        place_of(self)
    }
}

/// A mapping with a reference on it.
#[derive(Debug)]
pub struct Referenced<'m, P: Platform> {
    mm: &'m Mm<P, VmaRefcount>,
    vma: NonNull<Vma<P, VmaRefcount>>,
}

impl<'m, P: Platform> Referenced<'m, P> {
    /// A reference on what was found in `mm` at a place of which `is_there` tells whether it is there.
    #[inline]
    fn get(mm: &'m Mm<P, VmaRefcount>, vma: &Vma<P, VmaRefcount>, is_there: impl FnOnce(Range) -> bool) -> Result<Self, Miss> {
        if !vma.lock.try_get() {
            return Err(Miss::Contended);
        }
        let held = Self { mm, vma: NonNull::from(vma) };
        // Relaxed: written before the release that `try_get` has seen, and not while there are references.
        let is_ours = vma.lock.space.load(Ordering::Relaxed) == mm.space().0 || seeded!("recycled-of-another");
        // The reference of somebody else's mapping goes as any other: its claimer may already wait for it.
        if is_ours && (is_there(held.range()) || seeded!("recycled-elsewhere")) { Ok(held) } else { Err(Miss::Stale) }
    }

    /// The mapping that covers `at`, or the next above. As the index has it: one that was used again may be another than the next.
    fn next(mm: &'m Mm<P, VmaRefcount>, at: u64) -> Option<Result<Self, Miss>> {
        let section = mm.platform().rcu().read();
        let (place, vma) = mm.index().find_place(&section, at)?;
        Some(Self::get(mm, vma, |range| range == place))
    }
}

impl<P: Platform> Deref for Referenced<'_, P> {
    type Target = Vma<P, VmaRefcount>;

    fn deref(&self) -> &Self::Target {
        self.vma()
    }
}

impl<P: Platform> Stable<P, VmaRefcount> for Referenced<'_, P> {
    const MAY_SLEEP: bool = true;

    #[inline]
    fn vma(&self) -> &Vma<P, VmaRefcount> {
        // SAFETY: (1) found in the index in a read section, so allocated then; (2) it goes back to the pool only after a quiesce, which
        // waits for this reference.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    fn beside<T>(&self, mm: &Mm<P, VmaRefcount>, at: u64, see: impl FnOnce(Option<&Vma<P, VmaRefcount>>) -> T) -> T {
        see(Referenced::next(mm, at).and_then(Result::ok).as_deref())
    }
}

impl<P: Platform> Drop for Referenced<'_, P> {
    #[inline]
    fn drop(&mut self) {
        let (mm, references) = (self.mm, &self.vma().lock);
        let thing = references.thing();
        // Release [vma-put]: what this fault did comes before what the claimer does next. The mapping may be gone after this.
        let before = references.word.fetch_sub(1, order!("vma-put", Release));
        if before == CLAIMED | 1 {
            wait::happened(mm.platform(), thing);
        }
    }
}

// SAFETY: (1) a reference is taken in the section in which the mapping was found, unless it is claimed, and `quiesce` waits for it; whose it is
// and where is asked with the reference; (2) the range is the mapping's; (3) the count and the claim are one word, and the last reference's
// Release meets `quiesce`'s Acquire; (4) so do `release` and `try_get`; (5) as provided; (6) it goes to the pool, or waits for a grace period:
// who finds it is in a section, and touches its word. A hold of the slow way is a share of the lock.
unsafe impl Locking for VmaRefcount {
    const NAME: &'static str = "vma_refcount";
    type Index<P: Platform> = crate::index::Maple<P, Self>;
    type PerMm<P: Platform> = Pool<P, Self>;
    type PerVma = References;
    type Fast<'m, P: Platform> = Referenced<'m, P>;

    falls_back_to_the_lock!();

    fn per_mm<P: Platform>(_: &P, parent: Option<&Pool<P, Self>>) -> Pool<P, Self> {
        Pool::new(parent)
    }

    fn born_claimed<P: Platform>(mm: &Mm<P, Self>) -> References {
        References { word: AtomicU32::new(CLAIMED), space: AtomicU64::new(mm.space().0) }
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Referenced<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        if let Some(vma) = mm.index().find(&section, at) {
            return Referenced::get(mm, vma, |range| range.contains(at));
        }
        let mut refused = None;
        let miss = mm.miss(at, || Referenced::next(mm, at)?.map_err(|miss| refused = Some(miss)).ok());
        Err(refused.unwrap_or(miss))
    }

    /// Without waiting, unless a change is at that mapping.
    fn look<P: Platform, T>(mm: &Mm<P, Self>, at: u64, see: impl FnOnce(Option<&Vma<P, Self>>) -> T) -> T {
        match Referenced::next(mm, at) {
            None => see(None),
            Some(Ok(held)) => see(Some(&held)),
            Some(Err(_)) => {
                let _share = mm.lock().wait_for_share(mm.platform());
                // SAFETY: (1) we have a share of the lock.
                see(unsafe { mm.index().find_still(at) })
            }
        }
    }

    unsafe fn claim<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Relaxed: nothing is read or given up yet; `quiesce` acquires.
        vma.lock.word.fetch_or(CLAIMED, Ordering::Relaxed);
    }

    unsafe fn release<P: Platform>(_: &Mm<P, Self>, vma: &Vma<P, Self>) {
        // Release [vma-release]: whoever gets a reference sees what the change did, and what mapping it is.
        vma.lock.word.fetch_and(!CLAIMED, order!("vma-release", Release));
    }

    fn quiesce<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>) {
        let (p, references) = (mm.platform(), &vma.lock);
        // Acquire [vma-drained]: what the last fault did is seen.
        let held = || references.word.load(order!("vma-drained", Acquire)) & !CLAIMED != 0;
        while held() && !seeded!("claim-without-quiesce") {
            let token = Token::for_thing(p, references.thing());
            if held() {
                mm.count(Event::HoldWait);
                token.wait();
            }
        }
    }

    fn make<P: Platform>(mm: &Mm<P, Self>, body: impl FnOnce() -> Body<P>) -> Result<VmaBox<P, Self>, NoMemory> {
        // Relaxed: the release that lets anybody have a reference comes after.
        mm.design().make(mm, body, |references| references.space.store(mm.space().0, Ordering::Relaxed))
    }

    fn unmake<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        // A fault of a space that had this memory before may find it, and have a reference for a moment. A wait that panics loses the memory.
        let vma = ManuallyDrop::new(vma);
        if !seeded!("exit-without-claim") {
            // SAFETY: (1) nobody else changes it: it is not in the index, or nobody has the space any more.
            unsafe { Self::claim(mm, &vma) };
        }
        Self::quiesce(mm, &vma);
        Self::retire(mm, ManuallyDrop::into_inner(vma));
    }

    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        // SAFETY: (1) claimed for good, and `quiesce` has returned.
        unsafe { mm.design().give_back(mm, vma) };
    }
}
