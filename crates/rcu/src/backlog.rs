//! Objects that wait for their grace period.
//!
//! **Guarantee.** [`push`](Backlog::push) never waits, never allocates, and may interrupt another `push` on the same CPU. What
//! is pushed is released exactly once, after a period that started later.
//!
//! **Mechanism.** Each shard (one per CPU, or a few per process) has a Treiber stack of new arrivals. A driver takes all of
//! them when no batch is waiting, gives the whole batch one cookie, and detaches it when that cookie is over:
//!
//! ```text
//! push → incoming ──(no batch waiting)──→ waiting + cookie ──(period over)──→ due → released by the caller, no lock held
//! ```

use crate::grace::{Cookie, Grace};
use crate::head::Head;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use spile_sync::cell::UnsafeCell;
use spile_sync::lock::TryLock;
use spile_sync::order;

/// How many objects may wait before [`Rcu::relieve`](crate::Rcu::relieve) helps; past eight times as many it waits.
pub const BACKLOG_BOUND: usize = if cfg!(any(loom, miri)) { 2 } else { 1024 };

/// A list of heads, linked by `next`.
#[derive(Debug)]
pub(crate) struct Chain(*mut Head);

impl Chain {
    const EMPTY: Self = Self(null_mut());

    fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// # Safety
    ///
    /// Nobody releases an object of the chain meanwhile.
    #[cfg(all(feature = "std", not(loom)))]
    #[allow(dead_code, reason = "where fork is not followed")]
    unsafe fn len(&self) -> usize {
        // SAFETY: (1) by contract the heads are alive.
        let next = |head: &NonNull<Head>| NonNull::new(unsafe { head.as_ref() }.next.load(Ordering::Relaxed));
        core::iter::successors(NonNull::new(self.0), next).count()
    }

    /// Releases every object of the chain; how many.
    ///
    /// # Safety
    ///
    /// (1) The chain's objects were deferred by the contract of `Rcu::defer`; (2) their grace period is over.
    pub(crate) unsafe fn release(self) -> usize {
        let mut at = self.0;
        let mut released = 0;
        while let Some(head) = NonNull::new(at) {
            // SAFETY: (1) the head is alive until `release` is called, and the link is read before that.
            let this = unsafe { head.as_ref() };
            at = this.next.load(Ordering::Relaxed);
            // SAFETY: (1) by this function's contract the object is ours to release, (2) once.
            unsafe { if cfg!(loom) { (this.release)(head) } else { call(this.release, head) } };
            released += 1;
        }
        released
    }
}

/// Calls `release`. The ABI turns an unwinding release into an abort: past it, the rest of the chain would be lost. (Not under
/// loom, which reports a race by unwinding.)
///
/// # Safety
///
/// The contract of `release`.
#[expect(improper_ctypes_definitions, reason = "called from here alone")]
unsafe extern "C" fn call(release: unsafe fn(NonNull<Head>), head: NonNull<Head>) {
    // SAFETY: (1) the caller's contract is the callee's.
    unsafe { release(head) }
}

/// Releases what is due in each of `backlogs`. Holds nothing while a release runs; gives up when somebody else drives.
///
/// # Safety
///
/// `drive` is the drive lock of `grace` and of each of `backlogs`.
pub(crate) unsafe fn release_due<'b>(backlogs: impl Iterator<Item = &'b Backlog>, grace: &Grace, drive: &TryLock) {
    for backlog in backlogs {
        let due = {
            let Some(_driving) = drive.try_lock() else {
                return;
            };
            // SAFETY: (1) the drive lock is held.
            unsafe { backlog.turn(grace) }
        };
        // SAFETY: (1) this chain came from this backlog's `turn`.
        unsafe { backlog.release(due) };
    }
}

/// One CPU's (or one stripe's) part of the backlog, on its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Backlog {
    incoming: AtomicPtr<Head>,
    count: AtomicUsize,
    /// Touched only by the holder of the domain's drive lock.
    waiting: UnsafeCell<(Chain, Option<Cookie>)>,
}

// SAFETY: (1) `waiting` is touched only under the drive lock; (2) the heads in it were given away for release by any
// thread (contract of `Rcu::defer`).
unsafe impl Send for Backlog {}
// SAFETY: as for `Send`.
unsafe impl Sync for Backlog {}

impl Backlog {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { incoming: AtomicPtr::new(null_mut()), count: AtomicUsize::new(0), waiting: UnsafeCell::new((Chain::EMPTY, None)) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { incoming: AtomicPtr::new(null_mut()), count: AtomicUsize::new(0), waiting: UnsafeCell::new((Chain::EMPTY, None)) }
    }

    /// Adds `head`.
    ///
    /// # Safety
    ///
    /// The contract of `Rcu::defer`.
    pub(crate) unsafe fn push(&self, head: NonNull<Head>) {
        // Relaxed: a count to act on, nothing is published by it. First, so that it never runs below the truth. It keeps up
        // the release sequence of [released].
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut top = self.incoming.load(Ordering::Relaxed);
        loop {
            // SAFETY: (1) by contract the head is ours until it is pushed.
            unsafe { head.as_ref() }.next.store(top, Ordering::Relaxed);
            // Release [push]: the link and the unlinking of the object happen before the batch's cookie.
            match self.incoming.compare_exchange(top, head.as_ptr(), order!("push", Release), Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// How many objects wait here, or are being released.
    pub(crate) fn count(&self) -> usize {
        // Acquire [count]: pairs with [released], so that what the releases did comes before the return of a `barrier`.
        self.count.load(order!("count", Acquire))
    }

    /// Detaches the batch whose period is over, and lets the arrivals start to wait if no batch does.
    ///
    /// # Safety
    ///
    /// The caller holds the drive lock of `grace`.
    pub(crate) unsafe fn turn(&self, grace: &Grace) -> Chain {
        self.waiting.with_mut(|waiting| {
            // SAFETY: (1) the drive lock excludes every other toucher of this cell.
            let (chain, cookie) = unsafe { &mut *waiting };
            let mut due = Chain::EMPTY;
            if cookie.is_some_and(|c| grace.poll(c)) || (spile_sync::seeded!("early-free") && cookie.is_some()) {
                due = core::mem::replace(chain, Chain::EMPTY);
                *cookie = None;
            }
            if cookie.is_none() && !self.incoming.load(Ordering::Relaxed).is_null() {
                // Acquire [push]: see `push`. The cookie is taken after it, so it is later than every unlinking in the batch; and
                // whoever gets the lock next may release what we take. (Not named: a fence lies between this and each
                // release, and loom lets a fence acquire what another thread read before it.)
                *chain = Chain(self.incoming.swap(null_mut(), Ordering::Acquire));
                *cookie = Some(grace.cookie());
            }
            due
        })
    }

    /// Releases what [`turn`](Self::turn) detached. Holds nothing.
    ///
    /// # Safety
    ///
    /// `due` came from `turn` of this backlog.
    pub(crate) unsafe fn release(&self, due: Chain) {
        if !due.is_empty() {
            // SAFETY: (1) deferred by contract; (2) `turn` detaches only what is over.
            let released = unsafe { due.release() };
            // Release [released]: to the `barrier` that sees them gone.
            self.count.fetch_sub(released, order!("released", Release));
        }
    }

    /// After a fork, in the child: what another thread was pushing or releasing at that moment is lost, so it must not count.
    ///
    /// # Safety
    ///
    /// (1) The caller holds the drive lock (2) and is the only thread.
    #[cfg(all(feature = "std", not(loom)))]
    #[allow(dead_code, reason = "where fork is not followed")]
    pub(crate) unsafe fn recount(&self) {
        let arrivals = Chain(self.incoming.load(Ordering::Relaxed));
        // SAFETY: (1) the drive lock excludes every other toucher of this cell; (2) nobody releases what is in either list.
        let waiting = self.waiting.with(|waiting| unsafe { (*waiting).0.len() + arrivals.len() });
        self.count.store(waiting, Ordering::Relaxed);
    }
}
