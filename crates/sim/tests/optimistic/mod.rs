//! A design for tests: a fault holds nothing.
//!
//! **Guarantee.** As [`spile::locking`] says; and unlike the shipped designs, a fault's hold ends at any moment: so whoever forgets to ask
//! under a table's lock is found out (P1, P2, P4).
//!
//! **Mechanism.** A sequence in each mapping, odd while it is claimed. A fault remembers it, in a read section that keeps the mapping
//! allocated, and asks whether it is still the same. A claim that is never released marks a dead mapping. Nobody waits for a fault.

use spile::locking::{Miss, Stable};
use spile::{Locking, Mm, Platform, Range, Vma};
use spile_rcu::Rcu;
use spile_sync::atomic::{AtomicU64, Ordering};
use std::ptr::NonNull;

/// A sequence in each mapping.
#[derive(Debug)]
pub struct Optimistic;

const CLAIMED: u64 = 1;

/// A mapping that was there.
pub struct Seen<'m, P: Platform> {
    vma: NonNull<Vma<P, Optimistic>>,
    sequence: u64,
    _section: <P::Rcu as Rcu>::Guard<'m>,
}

impl<P: Platform> Stable<P, Optimistic> for Seen<'_, P> {
    fn vma(&self) -> &Vma<P, Optimistic> {
        // SAFETY: (1) found in the section that we are still in.
        unsafe { self.vma.as_ref() }
    }

    fn range(&self) -> Range {
        self.vma().range()
    }

    fn still_valid(&self) -> bool {
        // SAFETY: (1) the design.
        let words = unsafe { self.vma().design() };
        words.load(Ordering::Acquire) == self.sequence
    }
}

// SAFETY: (1) the mapping was found in the section that the hold has, and its sequence was even; (2) the range is the mapping's; (3) a claim
// makes the sequence odd and a release a new one, which whoever locks a table after the claimer sees; (4) the release is read; (5) as provided.
unsafe impl Locking for Optimistic {
    const NAME: &'static str = "optimistic";
    type PerMm = ();
    type PerVma = AtomicU64;
    type Fast<'m, P: Platform> = Seen<'m, P>;

    fn born_claimed() -> AtomicU64 {
        AtomicU64::new(CLAIMED)
    }

    fn try_stabilise<P: Platform>(mm: &Mm<P, Self>, at: u64) -> Result<Seen<'_, P>, Miss> {
        let section = mm.platform().rcu().read();
        let vma = NonNull::from(mm.find(&section, at).ok_or_else(|| mm.miss(at))?);
        // SAFETY: (1) in the section still; (2) the design.
        let sequence = unsafe { vma.as_ref().design() }.load(Ordering::Acquire);
        match sequence & CLAIMED {
            0 => Ok(Seen { vma, sequence, _section: section }),
            _ => Err(Miss::Contended),
        }
    }

    fn claim(sequence: &AtomicU64) {
        sequence.fetch_or(CLAIMED, Ordering::AcqRel);
    }

    fn release(sequence: &AtomicU64) {
        let now = sequence.load(Ordering::Relaxed);
        sequence.store((now | CLAIMED) + 1, Ordering::Release);
    }

    fn quiesce<P: Platform>(_: &Mm<P, Self>, _: &AtomicU64) {}
}
