//! Sections that may sleep.
//!
//! **Guarantee.** A section of an [`Srcu`] may block, for as long as it likes: it delays the releases of its own domain and no
//! other. Entering never waits and never allocates: it is one increment of a counter that the threads of one shard share, and
//! a fence; leaving is one decrement of the same counter. A guard belongs to no thread: sections nest, overlap, and may end on
//! another thread than they began on. A period ends only after every section that had begun before it started.
//!
//! **Mechanism.** Each shard has two counters of the sections that run. An index says which of the two new sections take; a
//! guard remembers the counter, so no counter falls below the truth. A period looks at every counter until it was zero once:
//!
//! ```text
//!              index = 0                            index = 1
//!  shard       0   1   2   3                        0   1   2   3
//!  sections[1] ├── first half ──▶ all zero once ──▶ new sections come here
//!  sections[0] new sections come here       flip    ├── second half ──▶ all zero once ──▶ the period is over
//! ```
//!
//! Why it is right takes one counter and one section at a time. The section increments, passes a fence, and reads; the driver
//! hears of the unlinking, passes a fence, and looks. That is a Dekker handshake: either the driver sees the increment, and
//! waits until it was taken back; or the section sees the unlinking, and does not find the object. What the section read of
//! the index is no part of this. A reader that read the index and is delayed for whole periods before its increment is
//! therefore like any other: the period that runs then misses it rightly, and the next ones find it, whichever counter it
//! took, for each looks at both. The index is for progress alone: a counter that no new section takes runs dry, while one that
//! is always in use might never be seen at zero (`bug:srcu-one-counter`). The first half waits for those that were delayed, the
//! second for those that came before the flip. One half is not enough: a flip without the first passes over a delayed reader
//! (`bug:srcu-flip-once`).
//!
//! A look takes up where the last one ended, so `drive` never waits, and the counters are looked at by whoever has the drive
//! lock; the lock hands on what the last one saw.
//!
//! The protocol of two counters and an index is that of sleepable RCU (McKenney, 2006). No code is taken from there. One domain
//! per use is the idea: who sleeps in a section holds up whoever shares its domain.
//!
//! ```
//! use spile_rcu::qsbr::Machine;
//! use spile_rcu::srcu::Srcu;
//! use spile_rcu::Rcu;
//!
//! struct Threads;
//! impl Machine for Threads {
//!     fn cpu(&self) -> usize {
//!         0 // a hint: the number of the CPU, or of the thread
//!     }
//!     fn relax(&self, _: u32) {
//!         std::thread::yield_now();
//!     }
//! }
//!
//! static CALLBACKS: Srcu<Threads, 4> = Srcu::new(Threads);
//!
//! let section = CALLBACKS.read();
//! let cookie = CALLBACKS.cookie();
//! std::thread::spawn(move || {
//!     CALLBACKS.drive();
//!     assert!(!CALLBACKS.poll(cookie));
//!     drop(section); // began on another thread
//! })
//! .join()
//! .unwrap();
//! CALLBACKS.synchronize();
//! assert!(CALLBACKS.poll(cookie));
//! ```

use crate::backlog::{self, Backlog};
use crate::grace::{Cookie, Grace};
use crate::head::Head;
use crate::qsbr::Machine;
use crate::{BACKLOG_BOUND, Rcu};
use core::ptr::NonNull;
use spile_sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::{fence, order, seeded};

/// What the callers with one hint share.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// How many sections run that began here, by the index they read. 64 bits, so that leaked guards do not overflow it.
    sections: [AtomicU64; 2],
    backlog: Backlog,
}

/// Which counter new sections take. Read by each of them, so on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Index(AtomicUsize);

/// A domain of sections that may sleep, over `SHARDS` pairs of counters.
///
/// Of its [`Machine`] it wants less than [`Qsbr`](crate::qsbr::Qsbr) does: [`cpu`](Machine::cpu) is a hint, taken modulo
/// `SHARDS`; a wrong one costs time and nothing else. [`relax`](Machine::relax) lets the threads go on that sleep in a section.
/// As many shards as CPUs keep the counters' lines at home; fewer make a period cheaper, which looks at each.
///
/// A domain that is dropped releases nothing: call [`barrier`](Self::barrier) before.
#[derive(Debug)]
pub struct Srcu<M, const SHARDS: usize> {
    index: Index,
    shards: [Shard; SHARDS],
    grace: Grace,
    drive: TryLock,
    /// How many counters were seen at zero in the period that runs; the flip is at half. Touched under the drive lock.
    seen: AtomicUsize,
    machine: M,
}

/// A section of an [`Srcu`]. May be held while its thread sleeps, and dropped by another.
// `Send` and `Sync`, by its fields: (1) leaving touches the counter that was raised, whoever leaves; (2) a thread that got the
// guard, or a reference to it, got it after the fence in `read`, and its reads come before the drop.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct SrcuGuard<'r> {
    shard: &'r Shard,
    index: usize,
}

impl Drop for SrcuGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let index = if seeded!("srcu-leave-other") { self.index ^ 1 } else { self.index };
        // Release [srcu-leave]: our reads happen before the scan that sees us gone, and so before the free. Later entries and
        // exits are read-modify-writes, so they carry this on to a scan that reads one of theirs.
        self.shard.sections[index].fetch_sub(1, order!("srcu-leave", Release));
    }
}

macro_rules! constructors {
    ($($const:ident)?) => {
        impl Shard {
            $($const)? fn new() -> Self {
                Self { sections: [AtomicU64::new(0), AtomicU64::new(0)], backlog: Backlog::new() }
            }
        }

        impl<M: Machine, const SHARDS: usize> Srcu<M, SHARDS> {
            /// A domain without sections.
            pub $($const)? fn new(machine: M) -> Self {
                const { assert!(SHARDS > 0, "a domain needs a shard") };
                Self {
                    index: Index(AtomicUsize::new(0)),
                    shards: constructors!(@array $($const)?),
                    grace: Grace::new(),
                    drive: TryLock::new(),
                    seen: AtomicUsize::new(0),
                    machine,
                }
            }
        }
    };
    (@array const) => { [const { Shard::new() }; SHARDS] };
    (@array) => { core::array::from_fn(|_| Shard::new()) };
}
#[cfg(not(loom))]
constructors!(const);
#[cfg(loom)]
constructors!();

impl<M: Machine, const SHARDS: usize> Srcu<M, SHARDS> {
    /// The machine this domain was made with.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Waits until nothing is deferred any more. What the releases did happens before the return.
    ///
    /// Inside a section of this domain it would not return.
    pub fn barrier(&self) {
        let mut round = 0;
        while self.backlog() > 0 {
            self.synchronize();
            self.machine.relax(round);
            round += 1;
        }
    }

    #[inline]
    fn shard(&self) -> &Shard {
        &self.shards[self.machine.cpu() % SHARDS]
    }

    /// Under the drive lock.
    fn advance(&self) {
        // [srcu-start] against [srcu-enter]: a section whose increment a look misses after this sees what was unlinked before.
        let barrier = || fence!("srcu-start");
        self.grace.advance(barrier, |_| self.scan());
    }

    /// Goes on looking for counters at zero; whether each has been seen so in this period. Under the drive lock.
    fn scan(&self) -> bool {
        // Relaxed, here and below: only the holder of the drive lock changes `seen` and the index.
        let mut seen = self.seen.load(Ordering::Relaxed);
        while seen < 2 * SHARDS {
            let (drained, shard) = (self.index.0.load(Ordering::Relaxed) ^ 1, seen % SHARDS);
            // Acquire [srcu-scan]: pairs with [srcu-leave] of every section that was counted here.
            let running = self.shards[shard].sections[drained].load(order!("srcu-scan", Acquire));
            let passed_over = (seeded!("srcu-flip-once") && seen < SHARDS) || (seeded!("srcu-skip-a-shard") && shard > 0);
            if running != 0 && !passed_over {
                break;
            }
            seen += 1;
            if seen == SHARDS && !seeded!("srcu-no-flip") {
                // Relaxed: what a reader makes of it matters to progress alone.
                self.index.0.store(drained, Ordering::Relaxed);
            }
        }
        let over = seen == 2 * SHARDS;
        self.seen.store(if over && !seeded!("srcu-stale-scan") { 0 } else { seen }, Ordering::Relaxed);
        over
    }

    /// Moves time on and runs what is due. Holds nothing while a release runs.
    fn help(&self) {
        self.drive();
        // SAFETY: (1) the lock, the time and the backlogs are of one domain.
        unsafe { backlog::release_due(self.shards.iter().map(|shard| &shard.backlog), &self.grace, &self.drive) };
    }
}

// SAFETY: (1) the fence of a section that runs when a cookie is taken comes before the fence of that cookie's period, so the
// scan, which then looks at every counter, finds the increment; it goes on only from a zero, which the section's own
// decrement is a part of: no other guard takes it back; (2) `protects` asks whether the shard is one of this domain's, which no
// other owns while this lives; (3) leave → scan → (drive lock) → complete → poll is a chain of release/acquire pairs.
unsafe impl<M: Machine, const SHARDS: usize> Rcu for Srcu<M, SHARDS> {
    type Guard<'r>
        = SrcuGuard<'r>
    where
        Self: 'r;

    #[inline]
    fn read(&self) -> SrcuGuard<'_> {
        let shard = self.shard();
        // Relaxed: either counter is right.
        let index = if seeded!("srcu-one-counter") { 0 } else { self.index.0.load(Ordering::Relaxed) & 1 };
        // Relaxed: the fence orders it; and it carries on what [srcu-leave] released, being a read-modify-write.
        shard.sections[index].fetch_add(1, Ordering::Relaxed);
        // [srcu-enter] against [srcu-start]: either the scan sees the increment, or we see what was unlinked.
        fence!("srcu-enter");
        SrcuGuard { shard, index }
    }

    #[inline]
    fn protects(&self, guard: &SrcuGuard<'_>) -> bool {
        self.shards.as_ptr_range().contains(&core::ptr::from_ref(guard.shard))
    }

    fn cookie(&self) -> Cookie {
        self.grace.cookie()
    }

    fn poll(&self, cookie: Cookie) -> bool {
        self.grace.poll(cookie)
    }

    fn drive(&self) {
        if let Some(_driving) = self.drive.try_lock() {
            self.advance();
        }
    }

    fn batch(&self) -> usize {
        M::BATCH
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.shard().backlog.push(head) };
    }

    fn backlog(&self) -> usize {
        self.shards.iter().map(|shard| shard.backlog.count()).sum()
    }

    /// Helps as the trait says, but never waits: whether the caller is in a section is not known here.
    fn relieve(&self) {
        if self.backlog() > BACKLOG_BOUND {
            self.help();
        }
    }

    /// As the trait says; but whose a section is, is not known here, so inside one this does not return instead of panicking.
    fn synchronize(&self) {
        self.grace.wait(|| self.help(), |round| self.machine.relax(round));
    }
}
