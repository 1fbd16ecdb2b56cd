//! `vma_rwsem`: a fault holds a lock in its mapping, shared. (S. Baghdasaryan; Linux 6.4.)
//!
//! **Guarantee.** A fault that holds the lock has a mapping that is neither claimed nor dead; who claims waits for it.
//!
//! **Mechanism.** Beside the lock each mapping has a number, and each address space has one: a mapping is claimed if the two are equal. To
//! claim is to lock the mapping, alone, write the number, and unlock: so several mappings are claimed without a list, and all of them are
//! released at once, by the next number, when the right to change ends. A reader asks before and after it has locked: a false "claimed" costs
//! a fault, a false "free" there is not. Numbers have 64 bits, for one that came round would be such a false one.

use super::{Exclusive, Held, Locking, Miss, RwLock, SharedGuard, Slowly, Stable};
use crate::Event;
use crate::addr::Range;
use crate::index::VmaBox;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// A lock in each mapping.
#[derive(Debug)]
pub struct VmaRwsem;

/// The number of the change that is under way or comes next. Nobody but the design writes it: whoever could would release what is claimed.
#[derive(Debug)]
pub struct Number(AtomicU64);

/// What the design keeps in a mapping.
#[derive(Debug)]
pub struct Semaphore {
    lock: RwLock,
    /// Written under the lock, and with the right to change.
    claimed_in: AtomicU64,
    /// It was taken out of the index. So it stays.
    detached: AtomicBool,
}

impl Semaphore {
    /// Whether a change has claimed it, of which the last that is known is `now`.
    fn is_claimed(&self, now: u64) -> bool {
        // Relaxed: before the lock is shared it is a guess; after, the lock orders it.
        self.claimed_in.load(Ordering::Relaxed) == now
    }
}

/// A mapping whose lock is shared.
#[derive(Debug)]
pub struct Shared<'m, P: Platform> {
    vma: NonNull<Vma<P, VmaRwsem>>,
    _lock: SharedGuard<'m, P>,
}

impl<P: Platform> Stable<P, VmaRwsem> for Shared<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, VmaRwsem> {
        // SAFETY: (1) its lock is shared: who takes it out of the index claims it first, and so has waited for us, or it is dead, and we have
        // not come this far.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        true
    }

    looks_beside_in_a_section!(VmaRwsem);
}

/// All of the lock. Its end releases whatever was claimed.
#[derive(Debug)]
pub struct Claiming<'m, P: Platform> {
    claims: Claims<'m>,
    // Unlocked when all are released.
    right: Exclusive<'m, P>,
}

#[derive(Debug)]
struct Claims<'m>(&'m AtomicU64);

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let now = self.0.load(Ordering::Relaxed);
        // Release [sem-next]: who finds a mapping released by this sees what the change did, and which are dead.
        self.0.store(now + 1, order!("sem-next", Release));
    }
}

// SAFETY: (1) the lock is shared in the section in which the mapping was found, and asked again under it: a claim waits for the lock, and a
// dead mapping stays marked; (2) the range is the mapping's; (3) `claim` takes the lock alone, so all holds are over; after it the number
// is the space's, and a reader that has the lock later sees that; (4) by the number, read with Acquire; (5) all of the lock; (6) by a grace
// period, and no hold is left.
unsafe impl Locking for VmaRwsem {
    const NAME: &'static str = "vma_rwsem";
    type PerMm<P: Platform> = Number;
    type PerVma = Semaphore;
    type Fast<'m, P: Platform> = Shared<'m, P>;
    type Slow<'m, P: Platform> = Held<'m, P, Self>;
    type Write<'m, P: Platform> = Claiming<'m, P>;
    type Tail<'m, P: Platform> = SharedGuard<'m, P>;

    finds_in_a_section!();

    fn per_mm<P: Platform>(_: &P, _: Option<&Number>) -> Number {
        Number(AtomicU64::new(1))
    }

    fn born_claimed<P: Platform>(mm: &Mm<P, Self>) -> Semaphore {
        let now = if seeded!("born-released") { 0 } else { mm.design().0.load(Ordering::Relaxed) };
        Semaphore { lock: RwLock::new(), claimed_in: AtomicU64::new(now), detached: AtomicBool::new(false) }
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Shared<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        // Relaxed: a guess, which saves a write to the lock.
        if vma.lock.is_claimed(mm.design().0.load(Ordering::Relaxed)) {
            return Err(Miss::Contended);
        }
        let vma = NonNull::from(vma);
        // SAFETY: (1) in the section; and as long as the lock is shared, if the mapping is found not to be dead below.
        let semaphore: &Semaphore = unsafe { &(*vma.as_ptr()).lock };
        let lock = semaphore.lock.try_read(mm.platform()).ok_or(Miss::Contended)?;
        // Acquire [sem-now]: a mapping that an earlier number kept claimed is seen as that change left it.
        let now = mm.design().0.load(order!("sem-now", Acquire));
        if semaphore.is_claimed(now) && !seeded!("no-second-look") {
            return Err(Miss::Contended);
        }
        // Relaxed: marked before the number that released it.
        if semaphore.detached.load(Ordering::Relaxed) && !seeded!("hold-a-dead-vma") {
            return Err(Miss::Stale);
        }
        Ok(Shared { vma, _lock: lock })
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
        Claiming { right: mm.wait_for_all(), claims: Claims(&mm.design().0) }
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        let Claiming { claims, right } = right;
        // Those that are left; what was taken away is dead.
        drop(claims);
        right.downgrade()
    }

    unsafe fn claim<P: Platform>(mm: &Mm<P, Self>, vma: &Vma<P, Self>) {
        let now = mm.design().0.load(Ordering::Relaxed);
        if vma.lock.is_claimed(now) {
            return;
        }
        let _alone = (!seeded!("claim-beside-readers")).then(|| vma.lock.lock.wait_for_all(mm.platform(), mm.counting(Event::HoldWait)));
        vma.lock.claimed_in.store(now, Ordering::Relaxed);
    }

    /// Not yet: all at once, at the end.
    unsafe fn release<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &Vma<P, Self>) {}

    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        vma.lock.detached.store(true, Ordering::Relaxed);
        super::defer(mm, vma);
    }
}
