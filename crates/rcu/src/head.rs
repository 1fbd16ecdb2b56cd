//! The two words an object lends to RCU while it waits for its grace period.

use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::AtomicPtr;

/// Embedded in an object that is released by [`Rcu::defer`](crate::Rcu::defer): the link of the waiting list, and what to call
/// when the time has come. 16 bytes on a 64-bit machine; deferring therefore never allocates.
#[derive(Debug)]
#[repr(C)]
pub struct Head {
    pub(crate) next: AtomicPtr<Head>,
    pub(crate) release: unsafe fn(NonNull<Head>),
}

impl Head {
    /// A head that will release its object by calling `release` once, with its own address. `release` runs on any thread and may
    /// itself defer; it must not wait for releases (`barrier`), nor help with them (`relieve`, `synchronize`: each would nest
    /// inside the last). One that unwinds aborts the process.
    pub fn new(release: unsafe fn(NonNull<Head>)) -> Self {
        Self { next: AtomicPtr::new(null_mut()), release }
    }
}
