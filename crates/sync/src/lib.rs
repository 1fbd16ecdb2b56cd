//! Where spile's atomics come from.
//!
//! **Guarantee.** Every atomic, fence, lock and shared cell of the spile crates is reached through this crate, so that one
//! source builds against three backends without a line of it changing:
//!
//! | backend | chosen by | what it is for |
//! |---|---|---|
//! | `core` | default | the shipped one: plain re-exports, nothing added |
//! | `loom` | `--cfg loom` | exhaustive models, weak memory included |
//! | `sched` | feature `sched` | a seeded scheduler in a normal binary: every operation is a yield point, counted per cache line and simulated CPU |
//!
//! **Mechanism.** [`atomic`], [`cell`], [`hint`] and [`lock`] have the same names and shapes in each backend. The
//! macros [`order!`], [`fence!`] and [`seeded!`] give orderings and deliberate bugs a name: in the shipped backend they are
//! constants; in the other two the environment variable `SPILE_MUTATE` switches one of them off (or on), so that a test can
//! show that a model fails without it.
#![cfg_attr(not(any(loom, feature = "sched")), no_std)]

#[cfg(all(feature = "sched", not(loom)))]
pub mod sched;

pub mod lock;
mod mutate;

#[doc(hidden)]
pub use mutate::mutated;

/// Atomics and fences of the chosen backend.
pub mod atomic {
    #[cfg(not(any(loom, feature = "sched")))]
    pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    #[cfg(all(feature = "sched", not(loom)))]
    pub use crate::sched::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence};
    #[cfg(all(feature = "sched", not(loom)))]
    pub use core::sync::atomic::Ordering;
}

/// Shared cells whose accesses a checker can see.
pub mod cell {
    #[cfg(loom)]
    pub use loom::cell::UnsafeCell;

    /// `core::cell::UnsafeCell` with loom's shape: access goes through a closure, so that a checker knows its extent.
    #[cfg(not(loom))]
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        /// A cell holding `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }
    }

    #[cfg(not(loom))]
    impl<T: ?Sized> UnsafeCell<T> {
        /// Calls `f` with a pointer for reading. The caller of `f`'s dereference owes that no write overlaps it.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing. The caller of `f`'s dereference owes that no other access overlaps it.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// Where something is, for who chooses by that: its address, or in a run of the scheduler a name that the same seed gives it again.
#[cfg(not(all(feature = "sched", not(loom))))]
#[inline(always)]
pub const fn whereabouts(address: usize) -> usize {
    address
}

#[cfg(all(feature = "sched", not(loom)))]
pub use sched::whereabouts;

/// What a spinning loop calls in each round.
pub mod hint {
    #[cfg(not(any(loom, feature = "sched")))]
    pub use core::hint::spin_loop;

    #[cfg(loom)]
    pub use loom::thread::yield_now as spin_loop;

    #[cfg(all(feature = "sched", not(loom)))]
    pub use crate::sched::spin_loop;
}

/// Names an ordering: `order!("publish", Release)` is `Ordering::Release`, or `Relaxed` in a checked build whose
/// `SPILE_MUTATE` is `order:publish`.
#[macro_export]
macro_rules! order {
    ($name:literal, $order:ident) => {
        if $crate::mutated(concat!("order:", $name)) {
            $crate::atomic::Ordering::Relaxed
        } else {
            $crate::atomic::Ordering::$order
        }
    };
}

/// Names a sequentially consistent fence; left out in a checked build whose `SPILE_MUTATE` is `fence:NAME`.
#[macro_export]
macro_rules! fence {
    ($name:literal) => {
        if !$crate::mutated(concat!("fence:", $name)) {
            $crate::atomic::fence($crate::atomic::Ordering::SeqCst);
        }
    };
}

/// A seeded bug: false in the shipped backend, true in a checked build whose `SPILE_MUTATE` is `bug:NAME`.
#[macro_export]
macro_rules! seeded {
    ($name:literal) => {
        $crate::mutated(concat!("bug:", $name))
    };
}
