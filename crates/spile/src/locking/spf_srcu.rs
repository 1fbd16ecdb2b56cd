//! `spf_srcu`: a fault speculates in a section in which it could sleep. (P. Zijlstra, 2016.)
//!
//! **Guarantee.** A hold's mapping stays allocated, asleep or not, and the fault sees under the table's lock whether it was claimed.
//!
//! **Mechanism.** A domain of sleepable sections in each address space, and a sequence in each mapping as `rcu` has. The section keeps the
//! mapping and nothing else: lookups in the index, and walks of tables, have read sections of their own inside. A mapping that was taken
//! out is released when all sections of the space have ended that had begun by then; nobody waits for that.

use super::{Exclusive, Held, Locking, Miss, SharedGuard, Slowly, Stable};
use crate::Event;
use crate::addr::Range;
use crate::index::VmaBox;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_rcu::srcu::{Srcu, SrcuGuard};
use spile_rcu::{Rcu, qsbr};

/// Sections that may sleep, and a sequence in each mapping.
#[derive(Debug)]
pub struct SpfSrcu;

/// As many counters as CPUs keep their lines at home; fewer are looked through faster.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };

/// The host, as the domain sees it.
#[derive(Debug)]
struct Ports<P>(P);

impl<P: Platform> qsbr::Machine for Ports<P> {
    fn cpu(&self) -> usize {
        self.0.cpu()
    }

    fn relax(&self, _: u32) {
        self.0.relax();
    }
}

/// The domain of an address space. Its drop releases what is left.
pub struct Faults<P: Platform>(Srcu<Ports<P>, SHARDS>);

impl<P: Platform> Drop for Faults<P> {
    fn drop(&mut self) {
        self.0.barrier();
    }
}

/// A mapping that was there.
pub struct Asleep<'m, P: Platform> {
    vma: NonNull<Vma<P, SpfSrcu>>,
    sequence: u64,
    _section: SrcuGuard<'m>,
}

impl<P: Platform> Stable<P, SpfSrcu> for Asleep<'_, P> {
    #[inline]
    fn vma(&self) -> &Vma<P, SpfSrcu> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    asks_the_sequence!();

    looks_beside_in_a_section!(SpfSrcu);
}

/// The lock, or a share of it. When it has been given back, what is due is released.
pub struct Releasing<'m, P: Platform, G> {
    lock: G,
    // With nothing held.
    due: Due<'m, P>,
}

struct Due<'m, P: Platform>(&'m Faults<P>);

impl<P: Platform> Drop for Due<'_, P> {
    fn drop(&mut self) {
        self.0.0.relieve();
    }
}

// SAFETY: (1) the mapping was found in the sleepable section that the hold has, and its sequence was even; (2) the range is the mapping's; (3)
// and (4) as of `rcu`; (5) all of the lock; (6) whoever finds a mapping is in a section of the domain, to which it is deferred.
unsafe impl Locking for SpfSrcu {
    const NAME: &'static str = "spf_srcu";
    type Index<P: Platform> = crate::index::Maple<P, Self>;
    type PerMm<P: Platform> = Faults<P>;
    type Fast<'m, P: Platform> = Asleep<'m, P>;
    type Slow<'m, P: Platform> = Held<'m, P, Self>;
    type Write<'m, P: Platform> = Releasing<'m, P, Exclusive<'m, P>>;
    type Tail<'m, P: Platform> = Releasing<'m, P, SharedGuard<'m, P>>;

    is_claimed_by_a_sequence!();

    fn per_mm<P: Platform>(p: &P, _: Option<&Faults<P>>) -> Faults<P> {
        Faults(Srcu::new(Ports(p.clone())))
    }

    #[inline(always)]
    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Asleep<'_, P>, Miss> {
        let sleepable = mm.design().0.read();
        let section = mm.platform().rcu().read();
        let Some(vma) = mm.index().find(&section, at) else {
            return Err(mm.miss(at, || mm.index().find_from(&section, at)));
        };
        let sequence = vma.lock.unclaimed().ok_or(Miss::Contended)?;
        Ok(Asleep { vma: NonNull::from(vma), sequence, _section: sleepable })
    }

    fn stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Slowly<'_, Held<'_, P, Self>, P> {
        Held::at(mm, at)
    }

    fn look<P: Platform, T>(mm: &Mm<P, Self>, at: u64, see: impl FnOnce(Option<&Vma<P, Self>>) -> T) -> T {
        let _sleepable = mm.design().0.read();
        see(mm.index().find_from(&mm.platform().rcu().read(), at))
    }

    fn write<'m, P: Platform>(mm: &'m Mm<P, Self>, _: &[Range]) -> Self::Write<'m, P> {
        Releasing { lock: mm.wait_for_all(), due: Due(mm.design()) }
    }

    fn downgrade<'m, P: Platform>(right: Self::Write<'m, P>) -> Self::Tail<'m, P> {
        let Releasing { lock, due } = right;
        Releasing { lock: lock.downgrade(), due }
    }

    fn retire<P: Platform>(mm: &Mm<P, Self>, vma: VmaBox<P, Self>) {
        mm.count_by(Event::DeferredBytes, VmaBox::<P, Self>::SIZE);
        vma.defer(&mm.design().0);
    }
}
