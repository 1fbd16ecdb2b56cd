//! The mappings that a CPU found last.
//!
//! **Guarantee.** What is found here is in the index, for who keeps the index from changing.
//!
//! **Mechanism.** A few entries per CPU, chosen by the page's number, and the number of the last change when they were made. Whoever takes a
//! mapping out of the index raises the address space's number; entries of an older one are forgotten when they are met. (Linux from 3.15 to
//! 6.0, where a thread has them; a host that does not say where it runs has one set for all.)

use crate::addr::PAGE_SHIFT;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// So many CPUs do not share entries.
#[cfg(not(loom))]
const CPUS: usize = 64;
// All share: the models are about that.
#[cfg(loom)]
const CPUS: usize = 1;

const ENTRIES: usize = 4;

/// Of one address space.
#[derive(Debug)]
pub struct VmaCache<V> {
    sequence: AtomicU64,
    cpus: [PerCpu<V>; CPUS],
}

#[derive(Debug)]
#[repr(align(64))]
struct PerCpu<V> {
    sequence: AtomicU64,
    entries: [AtomicPtr<V>; ENTRIES],
}

impl<V> VmaCache<V> {
    /// Empty.
    pub(super) fn new() -> Self {
        let entries = || core::array::from_fn(|_| AtomicPtr::new(null_mut()));
        let per_cpu = |_| PerCpu { sequence: AtomicU64::new(0), entries: entries() };
        Self { sequence: AtomicU64::new(0), cpus: core::array::from_fn(per_cpu) }
    }

    fn entry(at: u64) -> usize {
        (at >> PAGE_SHIFT) as usize % ENTRIES
    }

    /// What may cover `at`. With a share of the lock.
    #[inline]
    pub(super) fn find(&self, cpu: usize, at: u64) -> Option<NonNull<V>> {
        let mine = &self.cpus[cpu % CPUS];
        // Relaxed: changes only under the lock. Acquire [vmacache-seen]: the old entries were forgotten before.
        if mine.sequence.load(order!("vmacache-seen", Acquire)) != self.sequence.load(Ordering::Relaxed) {
            return None;
        }
        // Relaxed: published under the lock, of which we have a share.
        NonNull::new(mine.entries[Self::entry(at)].load(Ordering::Relaxed))
    }

    /// `found` covers `at`. With a share of the lock.
    pub(super) fn remember(&self, cpu: usize, at: u64, found: NonNull<V>) {
        let mine = &self.cpus[cpu % CPUS];
        let now = self.sequence.load(Ordering::Relaxed);
        // Acquire [vmacache-seen]: as above.
        if mine.sequence.load(order!("vmacache-seen", Acquire)) != now {
            if !seeded!("keep-old-entries") {
                mine.entries.iter().for_each(|entry| entry.store(null_mut(), Ordering::Relaxed));
            }
            // Release [vmacache-forget]: who sees the number sees no older entry.
            mine.sequence.store(now, order!("vmacache-forget", Release));
        }
        mine.entries[Self::entry(at)].store(found.as_ptr(), Ordering::Relaxed);
    }

    /// A mapping is taken out of the index. With all of the lock.
    pub(super) fn invalidate(&self) {
        if !seeded!("stale-vmacache") {
            // Relaxed: written under the lock.
            self.sequence.store(self.sequence.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}
