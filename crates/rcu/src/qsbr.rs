//! Quiescent-state based: for kernels and simulators.
//!
//! **Guarantee.** A read section costs nothing: no store, no fence, no heap. A period ends only after every CPU that was
//! online has reported, later than the period's start, a moment at which it held no reference, or was idle.
//!
//! **Mechanism.** Each CPU has a word on a line of its own, written by that CPU alone:
//!
//! ```text
//! 0         idle or offline: reads nothing
//! period    online; at its last quiescent state this period had started
//! ```
//!
//! A quiescent state copies the number of the running period into the word. It needs no fence: the number is read with
//! Acquire from the driver that unlinked (or heard of the unlinking) before. Coming online does: between the store of the word
//! and the first read the driver must either see the CPU or have unlinked.
//!
//! What a kernel calls where:
//!
//! | moment | call |
//! |---|---|
//! | context switch, return to user mode, a kernel thread's own choice | [`Qsbr::quiescent`] |
//! | entering and leaving the idle loop; an interrupt that reads on an idle CPU | [`Qsbr::idle`], [`Qsbr::online`] |
//! | hotplug | [`Qsbr::idle`] when it leaves, [`Qsbr::online`] when it comes |
//! | somewhere that holds nothing (softirq, a verb's way out) | [`Rcu::relieve`] |

use crate::backlog::{self, Backlog};
use crate::grace::{Cookie, Grace};
use crate::head::Head;
use crate::{BACKLOG_BOUND, Rcu};
use core::marker::PhantomData;
use core::ptr::NonNull;
use spile_sync::atomic::{AtomicU64, Ordering};
use spile_sync::lock::TryLock;
use spile_sync::{fence, order};

/// What a domain needs of the machine.
pub trait Machine {
    /// The number of the CPU that runs this. The caller of any method of [`Qsbr`] stays on it during the call. To
    /// [`Srcu`](crate::srcu::Srcu) it is a hint.
    fn cpu(&self) -> usize;
    /// Called by a waiting `synchronize` in its `round`-th round, outside every read section: must let each CPU, this one
    /// too, come to a quiescent state (by scheduling, by an IPI to a CPU that runs long, or by calling `quiescent`).
    fn relax(&self, round: u32);
    /// How many objects make one grace period worth its price.
    const BATCH: usize = 64;
}

/// What RCU keeps per CPU. The caller supplies one for each CPU it may ever bring online.
#[derive(Debug)]
#[repr(align(128))]
pub struct Cpu {
    word: AtomicU64,
    backlog: Backlog,
}

impl Cpu {
    /// An offline CPU.
    #[cfg(not(loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), backlog: Backlog::new() }
    }

    /// An offline CPU.
    #[cfg(loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { word: AtomicU64::new(0), backlog: Backlog::new() }
    }
}

/// A domain whose readers are the CPUs of a machine.
#[derive(Debug)]
pub struct Qsbr<'c, M> {
    grace: Grace,
    drive: TryLock,
    cpus: &'c [Cpu],
    machine: M,
}

/// A read section: a promise of the caller not to report a quiescent state, not to sleep and not to migrate meanwhile.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct QsbrGuard<'r, M> {
    domain: *const Grace,
    /// A CPU's: not `Send`, not `Sync`.
    pinned: PhantomData<(&'r M, *mut ())>,
}

impl<'c, M: Machine> Qsbr<'c, M> {
    /// A domain over `cpus`, all of them offline.
    ///
    /// # Safety
    ///
    /// (1) `machine.cpu()` is below `cpus.len()` and true for the length of each call; (2) a CPU enters sections only between
    /// [`online`](Self::online) and [`idle`](Self::idle); (3) `cpus` belongs to no other domain, now or later; (4) nobody calls
    /// `synchronize` or [`barrier`](Self::barrier) inside a section, or `machine.relax` notices and does not return.
    #[cfg(not(loom))]
    pub const unsafe fn new(cpus: &'c [Cpu], machine: M) -> Self {
        Self { grace: Grace::new(), drive: TryLock::new(), cpus, machine }
    }

    /// A domain over `cpus`, all of them offline.
    ///
    /// # Safety
    ///
    /// As above.
    #[cfg(loom)]
    pub unsafe fn new(cpus: &'c [Cpu], machine: M) -> Self {
        Self { grace: Grace::new(), drive: TryLock::new(), cpus, machine }
    }

    /// The machine this domain was made with.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// This CPU begins to read: it came online, left idle, or takes an interrupt in idle.
    ///
    /// # Safety
    ///
    /// This CPU is in no read section.
    pub unsafe fn online(&self) {
        let cpu = self.this();
        // Release [come-online]: a scan that reads this word passes over the sections before it, whose end `idle` released to a
        // scan that reads `idle`'s word alone.
        cpu.word.store(self.grace.epoch(), order!("come-online", Release));
        // [online] against [scan-cpus]: either the driver sees this CPU, or the CPU sees what was unlinked.
        fence!("online");
    }

    /// This CPU reads nothing until it calls [`online`](Self::online).
    ///
    /// # Safety
    ///
    /// This CPU is in no read section.
    pub unsafe fn idle(&self) {
        // Release [idle]: the reads of its last section come before the scan that passes over it.
        self.this().word.store(0, order!("idle", Release));
    }

    /// This CPU holds no reference at this moment. A load where nothing happens, two loads and a store after a period started.
    ///
    /// # Safety
    ///
    /// This CPU is in no read section.
    #[inline]
    pub unsafe fn quiescent(&self) {
        let cpu = self.this();
        let now = self.grace.epoch();
        // Relaxed: this CPU's own word. Zero is idle and stays so.
        let word = cpu.word.load(Ordering::Relaxed);
        if word != now && word != 0 {
            // Release [quiescent]: the reads of its last section come before the scan that sees this.
            cpu.word.store(now, order!("quiescent", Release));
        }
    }

    fn this(&self) -> &Cpu {
        &self.cpus[self.machine.cpu()]
    }

    /// Under the drive lock.
    fn advance(&self) {
        // [scan-cpus] against [online].
        let barrier = || fence!("scan-cpus");
        self.grace.advance(barrier, |period| {
            self.cpus.iter().all(|cpu| {
                // Acquire [scan-cpu]: pairs with `quiescent` and `idle`.
                let word = cpu.word.load(order!("scan-cpu", Acquire));
                word == 0 || word >= period || spile_sync::seeded!("skip-a-cpu")
            })
        });
    }

    /// Moves time on and runs what is due. Holds nothing while a release runs.
    fn help(&self) {
        self.drive();
        // SAFETY: (1) the lock, the time and the backlogs are of one domain.
        unsafe { backlog::release_due(self.cpus.iter().map(|cpu| &cpu.backlog), &self.grace, &self.drive) };
    }

    /// Waits until nothing is deferred any more.
    ///
    /// Inside a read section it would not return: see [`new`](Self::new).
    pub fn barrier(&self) {
        let mut round = 0;
        while self.backlog() > 0 {
            self.synchronize();
            self.machine.relax(round);
            round += 1;
        }
    }
}

// SAFETY: (1) by the contract of `new` a section lies between two reports of its CPU, so a period whose cookie was
// taken during it waits for the second; (2) `protects` compares domains; (3) quiescent or idle → scan → complete → poll
// is a chain of release/acquire pairs.
unsafe impl<M: Machine> Rcu for Qsbr<'_, M> {
    type Guard<'r>
        = QsbrGuard<'r, M>
    where
        Self: 'r;

    #[inline(always)]
    fn read(&self) -> QsbrGuard<'_, M> {
        QsbrGuard { domain: &raw const self.grace, pinned: PhantomData }
    }

    #[inline(always)]
    fn protects(&self, guard: &QsbrGuard<'_, M>) -> bool {
        core::ptr::eq(guard.domain, &self.grace)
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
        unsafe { self.this().backlog.push(head) };
    }

    fn backlog(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.backlog.count()).sum()
    }

    /// Helps as the trait says, but never waits: whether the caller is in a section is not known here. Where nothing is
    /// held and memory is short, a kernel calls `synchronize`.
    fn relieve(&self) {
        if self.backlog() > BACKLOG_BOUND {
            self.help();
        }
    }

    /// As the trait says; a section is not known here, so inside one this does not return instead of panicking: see
    /// [`Qsbr::new`].
    fn synchronize(&self) {
        self.grace.wait(|| self.help(), |round| self.machine.relax(round));
    }
}
