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

impl TryLock {
    /// Whether nobody has it, at this moment. Who spins asks this in between: it leaves the cache line where it is.
    #[inline]
    pub fn is_open(&self) -> bool {
        // Relaxed: a guess.
        !self.0.load(Ordering::Relaxed)
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

/// A value behind a [`TryLock`].
#[derive(Debug)]
pub struct Guarded<T> {
    lock: TryLock,
    value: crate::cell::UnsafeCell<T>,
}

// SAFETY: (1) the value is reached by the one holder of the lock, or by the owner; (2) so sharing it moves it between threads.
unsafe impl<T: Send> Sync for Guarded<T> {}

/// Having a `GuardedMut` tells you: nobody else reaches the value.
#[derive(Debug)]
pub struct GuardedMut<'a, T> {
    value: &'a crate::cell::UnsafeCell<T>,
    _lock: TryLockGuard<'a>,
}

impl<T> Guarded<T> {
    /// `value`, unlocked.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self { lock: TryLock::new(), value: crate::cell::UnsafeCell::new(value) }
    }

    /// `value`, unlocked.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self { lock: TryLock::new(), value: crate::cell::UnsafeCell::new(value) }
    }

    /// The value, unless somebody has it. Never waits.
    pub fn try_lock(&self) -> Option<GuardedMut<'_, T>> {
        Some(GuardedMut { _lock: self.lock.try_lock()?, value: &self.value })
    }
}

impl<T> core::ops::Deref for GuardedMut<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: (1) the lock is held, so there is no other access; (2) borrowed as long as `self`.
        self.value.with(|value| unsafe { &*value })
    }
}

impl<T> core::ops::DerefMut for GuardedMut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        self.value.with_mut(|value| unsafe { &mut *value })
    }
}
