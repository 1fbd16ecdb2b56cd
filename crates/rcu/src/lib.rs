//! Read-copy-update for user space and kernels.
//!
//! **Guarantee.** What a reader reached inside a read section stays allocated until that section ends, and entering or
//! leaving a section never waits and never allocates, and (but for [`srcu`]) writes no cache line that another thread
//! writes. An object handed to [`Rcu::defer`] is released only after every section that was running at that moment has ended.
//!
//! **Mechanism.** Time is counted in *grace periods* ([`Cookie`]). A writer unlinks an object, takes a cookie, and may free
//! the object once [`Rcu::poll`] says that the cookie's period is over: by then every reader that could have seen the object
//! has left its section. Three backends answer "who is still reading?":
//!
//! * [`slots::Domain`]: each reading thread owns one slot (a word it alone writes). `Global` is the domain of a `std` process:
//!   slots are claimed on first use, even inside a signal handler, and the readers' store-load fence is moved to the writers by
//!   `membarrier(2)` where the kernel has it.
//! * [`qsbr::Qsbr`]: for kernels and simulators: a read section costs nothing, and each CPU reports the moments when it
//!   holds no reference (context switch, idle, return to user).
//! * [`srcu::Srcu`]: a domain for one use, whose sections may sleep and end on another thread: each counts itself in and out.
//!
//! | | `Global` | [`qsbr::Qsbr`] | [`srcu::Srcu`] |
//! |---|---|---|---|
//! | needs | `std` | a CPU number and memory for one line per CPU | a hint, and memory for a few lines |
//! | enter + leave | two stores to an own line | nothing | an increment, a fence and a decrement of a shared line |
//! | may sleep in a section | yes (delays frees) | no | yes (delays frees of this use) |
//! | who moves time on | whoever calls `drive`, `relieve` or `synchronize` | the same, and CPUs that pass through a quiescent state | as `Global` |
//!
//! The names and the idea of polled grace periods follow the Linux kernel's RCU (`get_state_synchronize_rcu`); the
//! slot with a nesting count in its low bits follows userspace-rcu (Desnoyers et al., 2012). No code is taken from either.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use spile_rcu::{Global, Rcu, RcuBox};
//! use std::sync::atomic::{AtomicPtr, Ordering};
//!
//! let shared = AtomicPtr::new(RcuBox::into_raw(RcuBox::new(1)).as_ptr());
//! {
//!     let section = Global.read();
//!     // SAFETY: (1) published above; (2) freed only by `defer`, which waits for this section.
//!     assert_eq!(unsafe { *shared.load(Ordering::Acquire) }, 1);
//!     drop(section);
//! }
//! let old = shared.swap(RcuBox::into_raw(RcuBox::new(2)).as_ptr(), Ordering::AcqRel);
//! // SAFETY: (1) `old` came from `into_raw`, (2) once; (3) it is only deferred; (4) it is unlinked.
//! unsafe { RcuBox::from_raw(std::ptr::NonNull::new(old).unwrap()) }.defer(&Global);
//! # let last = shared.load(Ordering::Acquire);
//! # // SAFETY: (1) to (4): as above, and nobody else is left.
//! # drop(unsafe { RcuBox::from_raw(std::ptr::NonNull::new(last).unwrap()) });
//! # Global.barrier();
//! # }
//! ```
#![cfg_attr(not(any(feature = "std", loom)), no_std)]
#![deny(missing_docs)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod backlog;
mod grace;
mod head;
pub mod qsbr;
#[cfg(feature = "alloc")]
mod rcu_box;
pub mod slots;
pub mod srcu;
#[cfg(all(feature = "std", not(loom)))]
mod std_global;

use core::ptr::NonNull;

pub use backlog::BACKLOG_BOUND;
pub use grace::Cookie;
pub use head::Head;
#[cfg(feature = "alloc")]
pub use rcu_box::RcuBox;
#[cfg(all(feature = "std", not(loom)))]
pub use std_global::{Global, GlobalGuard};

/// A domain of readers and the grace periods they delay.
///
/// # Safety
///
/// An implementor owes that between the return of [`read`](Rcu::read) and the drop of its guard, no cookie taken during or
/// after that time polls as over; that [`protects`](Rcu::protects) is true only for guards of this domain; and that what
/// happened in a section happens before a `poll` that says its period is over.
pub unsafe trait Rcu {
    /// Having a guard tells you: what you reach now stays allocated until you drop it.
    type Guard<'r>
    where
        Self: 'r;

    /// Enters a read section. Nests. Never waits.
    fn read(&self) -> Self::Guard<'_>;

    /// Whether `guard` is a section of this very domain: what a structure asks before it trusts somebody's guard.
    fn protects(&self, guard: &Self::Guard<'_>) -> bool;

    /// The grace period that what was unlinked before this call has to wait for. Never waits.
    fn cookie(&self) -> Cookie;

    /// Whether `cookie`'s period is over. One load.
    fn poll(&self, cookie: Cookie) -> bool;

    /// Tries to move time on: starts a period if none runs, ends it if its readers have left. Never waits and runs no
    /// deferred release, so it may be called with any lock held. May cost a system call.
    fn drive(&self);

    /// How many objects should wait together before somebody pays for a grace period, at its present price.
    fn batch(&self) -> usize;

    /// Releases the object of `head` after a grace period. Never waits, never allocates, may be called inside a section.
    ///
    /// # Safety
    ///
    /// (1) `head` is part of an object that no new reader can reach; (2) nobody else releases or defers it; (3) the object may
    /// be released by any thread, at any later time.
    unsafe fn defer(&self, head: NonNull<Head>);

    /// How many deferred objects are waiting. Approximate while others defer.
    fn backlog(&self) -> usize;

    /// Helps if more than [`BACKLOG_BOUND`] objects wait: moves time on and runs releases that are due; past eight times
    /// the bound it waits for a grace period. Inside a read section it does not wait, and may do nothing. For a caller that holds
    /// no lock which a release could want: a verb calls it on its way out.
    fn relieve(&self);

    /// Waits until every section that runs now has ended, running due releases meanwhile.
    ///
    /// # Panics
    ///
    /// Inside a read section of this domain, where it would wait for itself.
    fn synchronize(&self);
}

// SAFETY: (1) the domain that is referred to keeps the promises.
unsafe impl<R: Rcu> Rcu for &'static R {
    type Guard<'r>
        = R::Guard<'static>
    where
        Self: 'r;

    #[inline(always)]
    fn read(&self) -> Self::Guard<'_> {
        (**self).read()
    }

    #[inline(always)]
    fn protects(&self, guard: &Self::Guard<'_>) -> bool {
        (**self).protects(guard)
    }

    fn cookie(&self) -> Cookie {
        (**self).cookie()
    }

    fn poll(&self, cookie: Cookie) -> bool {
        (**self).poll(cookie)
    }

    fn drive(&self) {
        (**self).drive();
    }

    fn batch(&self) -> usize {
        (**self).batch()
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1, 2, 3) the caller's contract is the callee's.
        unsafe { (**self).defer(head) };
    }

    fn backlog(&self) -> usize {
        (**self).backlog()
    }

    fn relieve(&self) {
        (**self).relieve();
    }

    fn synchronize(&self) {
        (**self).synchronize();
    }
}
