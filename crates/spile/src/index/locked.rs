//! An index that nobody may look at while it changes.
//!
//! **Guarantee.** None of its own: who looks has a share of the address space's lock, who changes has all of it, and both say so.
//!
//! **Mechanism.** A cell. Under the models' checker it is one that reports a look beside a change.

use spile_sync::cell::UnsafeCell;

/// What is guarded by the lock of its address space.
pub struct Locked<T>(UnsafeCell<T>);

// SAFETY: (1) an owner of what may be sent; (2) shared, it gives references by `look` and `change` alone, whose callers keep them apart.
unsafe impl<T: Send + Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// (1) Nobody has what [`change`](Self::change) gives as long as the reference is used.
    pub(super) unsafe fn look(&self) -> &T {
        // SAFETY: (1) the caller says so.
        self.0.with(|value| unsafe { &*value })
    }

    /// # Safety
    ///
    /// (1) Nobody has what this or [`look`](Self::look) gives as long as the reference is used.
    #[allow(clippy::mut_from_ref, reason = "the caller owes what the borrow checker would")]
    pub(super) unsafe fn change(&self) -> &mut T {
        // SAFETY: (1) the caller says so.
        self.0.with_mut(|value| unsafe { &mut *value })
    }
}
