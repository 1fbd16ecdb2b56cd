//! A sequence in a mapping, for designs whose changes do not wait for faults.
//!
//! **Guarantee.** A fault that remembers the sequence of a mapping that is not claimed, and finds it the same under the lock of a table, was not overtaken by
//! a claim whose claimer had that lock before.
//!
//! **Mechanism.** It is odd while the mapping is claimed, for ever if the claim is never released. All of it is Relaxed: that a fault and a change do not
//! miss each other is the work of the table's lock, which both take after they have asked and told.

use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::seeded;

/// How often a mapping was claimed and released, and whether it is claimed. 64 bits do not come round while a section lasts.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

const CLAIMED: u64 = 1;

impl Sequence {
    pub(super) fn claimed() -> Self {
        Self(AtomicU64::new(CLAIMED))
    }

    /// What to remember, unless it is claimed.
    #[inline]
    pub(super) fn unclaimed(&self) -> Option<u64> {
        // Relaxed: see the module.
        let now = self.0.load(Ordering::Relaxed);
        (now & CLAIMED == 0 || seeded!("hold-a-claimed-vma")).then_some(now)
    }

    #[inline]
    pub(super) fn is_still(&self, remembered: u64) -> bool {
        // Relaxed: see the module.
        self.0.load(Ordering::Relaxed) == remembered || seeded!("no-revalidation")
    }

    /// With the right to change.
    pub(super) fn claim(&self) {
        // Relaxed: only who has the right writes it.
        self.0.store(self.0.load(Ordering::Relaxed) | CLAIMED, Ordering::Relaxed);
    }

    /// With the right to change.
    pub(super) fn release(&self) {
        // Relaxed: as above.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store((now | CLAIMED) + 1, Ordering::Relaxed);
    }
}
