//! The smallest lock: a flag that is tried, never waited for.
//!
//! **Guarantee.** At most one [`TryLock`] guard exists at a time, and what its holder wrote happens before the next holder reads.
//!
//! **Mechanism.** One compare-exchange to enter, one release store to leave. Waiting is the caller's business: a kernel
//! spins with interrupts off, a program parks, a model branches.

use crate::atomic::{AtomicBool, Ordering};

/// A try-only lock. `const`-constructible outside loom.
#[derive(Debug)]
pub struct TryLock(AtomicBool);

/// Having a `TryLockGuard` tells you: nobody else has one of the same lock.
#[derive(Debug)]
pub struct TryLockGuard<'a>(&'a TryLock);

impl TryLock {
    /// An open lock.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// An open lock.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Takes the lock if it is open. Never waits.
    #[inline]
    pub fn try_lock(&self) -> Option<TryLockGuard<'_>> {
        // Acquire [lock]: pairs with the Release of the last holder's drop, so that its writes are seen.
        // Relaxed on failure: nothing is read.
        self.0.compare_exchange(false, true, crate::order!("lock", Acquire), Ordering::Relaxed).ok().map(|_| TryLockGuard(self))
    }
}

impl Default for TryLock {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> TryLockGuard<'a> {
    /// The guard of a lock that this caller took and whose guard it forgot.
    ///
    /// # Safety
    ///
    /// (1) A guard of `lock` was passed to `mem::forget`, (2) and is recalled once.
    pub unsafe fn recall(lock: &'a TryLock) -> Self {
        Self(lock)
    }
}

impl Drop for TryLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release [unlock]: pairs with the Acquire of the next holder.
        self.0.0.store(false, crate::order!("unlock", Release));
    }
}
