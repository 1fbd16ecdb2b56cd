//! Grace periods as two counters.
//!
//! **Guarantee.** If `cookie()` was called after an object was unlinked and `poll` of that cookie is true, then every section
//! that could have reached the object has ended, and its reads happened before the poll.
//!
//! **Mechanism.** `started` numbers the period that runs (or the last one that ran), `completed` the last that ended:
//!
//! ```text
//! started == completed         idle
//! started == completed + STEP  period `started` is running: somebody scans for readers older than it
//! ```
//!
//! Numbers go up by [`STEP`] and end in a 1 of 16 bits, so that a reader can store one as it is and count its nesting in the
//! same word. A cookie is `started + STEP`: the first period whose start lies wholly after the unlinking. A driver starts a
//! period by raising `started`, then makes every reader's entry visible (the *heavy* barrier), then scans; readers that entered
//! with a number below `started` are waited for. (`Srcu` keeps no numbers: its scan waits until it saw each counter at zero.) See
//! docs/orderings.md: `cookie`, `enter-epoch`, `complete`, `poll`.

use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::{order, seeded};

/// Names a grace period that has to pass. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(u64);

/// From one period's number to the next.
pub(crate) const STEP: u64 = 1 << 16;
/// The number of the period before the first.
const BEFORE: u64 = STEP + 1;

#[derive(Debug)]
pub(crate) struct Grace {
    started: AtomicU64,
    completed: AtomicU64,
}

impl Grace {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { started: AtomicU64::new(BEFORE), completed: AtomicU64::new(BEFORE) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { started: AtomicU64::new(BEFORE), completed: AtomicU64::new(BEFORE) }
    }

    /// The period that what is unlinked now must wait for.
    pub(crate) fn cookie(&self) -> Cookie {
        // Release [cookie]: a read-modify-write, so that the next start reads from it and the unlinking happens before that
        // period. A plain load would leave writer and driver unordered when they are different threads. Nothing is
        // acquired: a cookie promises nothing about the past.
        let running = self.started.fetch_add(0, order!("cookie", Release));
        Cookie(if seeded!("cookie-not-later") { running } else { running + STEP })
    }

    pub(crate) fn poll(&self, cookie: Cookie) -> bool {
        // Acquire [poll]: pairs with `complete`, and through it with the exits of the readers that were waited for.
        self.completed.load(order!("poll", Acquire)) >= cookie.0
    }

    /// Waits for the period that what is unlinked now must wait for. `help` moves time on; `relax` is told how often it was
    /// called before.
    pub(crate) fn wait(&self, help: impl Fn(), relax: impl Fn(u32)) {
        let cookie = self.cookie();
        let mut round = 0;
        help();
        while !self.poll(cookie) {
            relax(round);
            help();
            round += 1;
        }
    }

    /// The period a reader enters in.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u64 {
        // Acquire [enter-epoch]: a reader that reads `s` here is not waited for by period `s`, so it must see what was
        // unlinked before `s` started. It pairs with [cookie], whose release sequence the start of `s` continues.
        self.started.load(order!("enter-epoch", Acquire))
    }

    /// Moves time on as far as it goes without waiting. The caller holds the drive lock. `barrier` begins with a SeqCst
    /// fence, and makes every entry that precedes it in its thread visible to `scan`; `scan(s)` says whether no reader older than
    /// `s` is left.
    pub(crate) fn advance(&self, barrier: impl FnOnce(), scan: impl FnOnce(u64) -> bool) {
        // Relaxed: only the holder of the drive lock changes these two (a cookie adds nothing).
        let mut running = self.started.load(Ordering::Relaxed);
        if running == self.completed.load(Ordering::Relaxed) {
            // Relaxed: what the cookies below it stand for was unlinked before the barrier, for the fence in it acquires what
            // this read. Readers that enter with this number read what the cookies released, for a read-modify-write
            // hands it on.
            running = self.started.fetch_add(STEP, Ordering::Relaxed) + STEP;
            barrier();
        }
        if scan(running) {
            // Release [complete]: hands the scan's acquired exits on to whoever polls.
            self.completed.store(running, order!("complete", Release));
        }
    }
}
