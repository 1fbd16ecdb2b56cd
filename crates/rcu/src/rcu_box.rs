//! A box that can wait for its grace period.

use crate::{Head, Rcu};
use alloc::boxed::Box;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

#[repr(C)]
struct Inner<T> {
    head: Head,
    value: T,
}

/// A `Box` with room for a [`Head`]: what it owns can be deferred without allocating.
///
/// Dropping an `RcuBox` frees it at once; [`defer`](Self::defer) frees it after a grace period.
pub struct RcuBox<T>(NonNull<Inner<T>>);

// SAFETY: (1) an `RcuBox` owns its value like a `Box`.
unsafe impl<T: Send> Send for RcuBox<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Sync> Sync for RcuBox<T> {}

impl<T> RcuBox<T> {
    /// How many bytes of the heap one takes.
    pub const SIZE: usize = size_of::<Inner<T>>();

    /// Boxes `value`. Aborts when out of memory, like `Box::new`.
    pub fn new(value: T) -> Self {
        let inner = Box::new(Inner { head: Head::new(release::<T>), value });
        Self(NonNull::from(Box::leak(inner)))
    }

    /// Boxes `value`, or gives it back when there is no memory.
    pub fn try_new(value: T) -> Result<Self, T> {
        let mut value = Some(value);
        let boxed = Self::try_with(|| value.take().expect("called once"));
        boxed.ok_or_else(|| value.expect("not called without memory"))
    }

    /// Boxes what `make` makes, or does not call it when there is no memory. (Its panic leaks the memory.)
    #[inline]
    pub fn try_with(make: impl FnOnce() -> T) -> Option<Self> {
        let layout = core::alloc::Layout::new::<Inner<T>>();
        // SAFETY: (1) the layout holds a `Head`, so its size is not zero.
        let raw = unsafe { alloc::alloc::alloc(layout) }.cast::<Inner<T>>();
        let inner = NonNull::new(raw)?;
        // SAFETY: (1) freshly allocated with the layout of `Inner<T>`; (2) nobody else knows it.
        unsafe { inner.write(Inner { head: Head::new(release::<T>), value: make() }) };
        Some(Self(inner))
    }

    /// The value, out of its box.
    pub fn into_inner(self) -> T {
        let inner = core::mem::ManuallyDrop::new(self).0;
        // SAFETY: (1) allocated by `new` or `try_with` with the global allocator and this layout; (2) owned, and given up above.
        unsafe { Box::from_raw(inner.as_ptr()) }.value
    }

    /// Gives up ownership as a pointer to the value. Take it back with [`from_raw`](Self::from_raw).
    pub fn into_raw(this: Self) -> NonNull<T> {
        let inner = core::mem::ManuallyDrop::new(this).0;
        // SAFETY: (1) `inner` is alive; only the address of the field is formed, with the provenance of the whole.
        unsafe { NonNull::new_unchecked(&raw mut (*inner.as_ptr()).value) }
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// (1) `value` came from [`into_raw`](Self::into_raw) of the same `T`; (2) each such pointer is taken back once; (3) while a
    /// reader may still hold what it reached by it, the box is neither dropped nor written to, only
    /// [`defer`](Self::defer)red, to the domain of those readers; (4) no new reader can reach it.
    pub unsafe fn from_raw(value: NonNull<T>) -> Self {
        // SAFETY: (1) by contract `value` lies in an `Inner<T>`, whose provenance the pointer kept.
        Self(unsafe { value.byte_sub(core::mem::offset_of!(Inner<T>, value)) }.cast())
    }

    /// Drops the value after a grace period of `rcu`. Never waits, never allocates. The drop runs on any thread, as
    /// [`Head::new`] says: one that panics aborts the process.
    pub fn defer<R: Rcu>(self, rcu: &R)
    where
        T: Send + 'static,
    {
        let inner = core::mem::ManuallyDrop::new(self).0;
        // SAFETY: (1) nobody else hands it to new readers: a box is owned, or came from `from_raw`, whose caller owes it; (2)
        // ownership ends here; (3) `T: Send + 'static`.
        unsafe { rcu.defer(inner.cast()) };
    }
}

/// Frees the box whose head is `head`.
///
/// # Safety
///
/// (1) `head` is the head of an `Inner<T>` that an `RcuBox` owned; (2) called once.
unsafe fn release<T>(head: NonNull<Head>) {
    // SAFETY: (1) the head is the first field of a `repr(C)` struct; (2) the caller owns it.
    drop(RcuBox::<T>(head.cast()));
}

impl<T> Drop for RcuBox<T> {
    fn drop(&mut self) {
        // SAFETY: (1) allocated by `new` or `try_with` with the global allocator and this layout; (2) owned.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<T> Deref for RcuBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: (1) alive while owned.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> DerefMut for RcuBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: (1) alive while owned; (2) borrowed exclusively.
        unsafe { &mut self.0.as_mut().value }
    }
}

impl<T: Clone> Clone for RcuBox<T> {
    fn clone(&self) -> Self {
        Self::new((**self).clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for RcuBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
