//! The domain of a `std` process.
//!
//! **Guarantee.** As [`slots`](crate::slots), and: the first section of a thread may be inside a signal handler, or in the
//! destructor of a thread-local; threads may end at any time; after `fork` the child goes on with its one thread.
//!
//! **Mechanism.** A thread finds its slot through a thread-local pointer without a destructor, which exists from the thread's
//! first to its last instruction. Nothing is registered for thread exit: a claim that finds no free slot asks the kernel
//! which owners are alive (`tgkill` with signal 0) before it maps another block. Where the kernel has
//! `membarrier(2)` (`PRIVATE_EXPEDITED`), readers pay a compiler fence and drivers an expedited barrier on all CPUs that run
//! this process; elsewhere both pay a SeqCst fence. Which one is decided before the first slot is claimed, by registering
//! for it.
//!
//! No crate gives this: crossbeam-epoch and seize allocate on a thread's first use and register a thread-local
//! destructor, so neither may be entered in a signal handler, and neither has a grace period that can be polled or waited for.

use crate::slots::{Block, Domain, Host, Slot};
use crate::{Cookie, Head, Rcu};
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::{NonNull, null};
use core::sync::atomic::compiler_fence;
use core::time::Duration;
use spile_sync::atomic::{AtomicU32, Ordering, fence};

/// The read-copy-update domain of this process.
///
/// A signal handler may `read`, `poll`, take a `cookie`, `drive` and `defer`; it drops the guards it made and no others. It must
/// not `synchronize`, `relieve` or `barrier`: it may have interrupted the one who runs the period.
///
/// After `fork` the child has the sections of the thread that forked, and whatever was deferred; an object that another thread
/// was releasing at that moment is lost in the child. What a section of another thread protected is not protected
/// there. A release or a signal handler must not fork, and a child made by a bare `clone` system call must not use RCU.
///
/// A guard that is leaked keeps its section open for ever, past the end of its thread too: `Box::leak` makes it lend
/// references that outlive the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Global;

/// A read section of [`Global`] on the current thread.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct GlobalGuard {
    slot: &'static Slot,
    /// The slot is this thread's: not `Send`, not `Sync`.
    pinned: PhantomData<*mut ()>,
}

static DOMAIN: Domain<Process> = Domain::new();

thread_local! {
    /// `const` and without `Drop`: a plain load, valid in handlers and in other thread-locals' destructors.
    static SLOT: Cell<*const Slot> = const { Cell::new(null()) };
}

/// How readers and drivers are ordered: undecided, by fences, by membarrier.
static BARRIER: AtomicU32 = AtomicU32::new(UNDECIDED);
const UNDECIDED: u32 = 0;
const FENCES: u32 = 1;
const MEMBARRIER: u32 = 2;

#[derive(Debug)]
struct Process;

/// Out of line: beside the price of the fence a call is nothing, and the way around it is straight.
#[cold]
#[inline(never)]
fn whole_fence() {
    // SeqCst [light]: the reader's half of the Dekker pair with `heavy`.
    fence(Ordering::SeqCst);
}

// SAFETY: (1) both are a SeqCst fence, or `light` orders the compiler and membarrier puts a full fence into every running thread
// between its call and its return, the caller's included; all threads use the same of the two, see `start`; (2) as fences;
// (3) a new mapping, never unmapped (elsewhere: an allocation, never freed); (4) the kernel forgets a thread's number after
// its last instruction in user mode and a full fence, and `is_dead` ends in an Acquire fence (elsewhere: never dead).
unsafe impl Host for Process {
    #[inline(always)]
    fn light() {
        // Relaxed: decided before this thread claimed its slot, and never changed.
        if BARRIER.load(Ordering::Relaxed) == MEMBARRIER {
            // SeqCst [light]: for the compiler; membarrier makes it one for the processor when a driver asks.
            compiler_fence(Ordering::SeqCst);
        } else {
            whole_fence();
        }
    }

    fn heavy() {
        start();
        // Relaxed: decided in the line above, if not before.
        if BARRIER.load(Ordering::Relaxed) == MEMBARRIER {
            os::membarrier();
        } else {
            // SeqCst [heavy]: the driver's half of the Dekker pair with `light`.
            fence(Ordering::SeqCst);
        }
    }

    fn grow() -> Option<NonNull<Block>> {
        os::zeroed_block()
    }

    fn is_dead(owner: u32) -> bool {
        os::is_dead(owner)
    }

    fn relax(round: u32) {
        if round < 16 {
            spile_sync::hint::spin_loop();
        } else if round < 256 {
            std::thread::yield_now();
        } else {
            // A reader may sleep in its section: so do we.
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    // A membarrier takes about 10 us; 256 nodes share it, and go round in little more than the cache nearest to a core.
    const BATCH: usize = 256;
}

/// This thread's slot, if it has one.
#[inline]
fn mine() -> Option<&'static Slot> {
    let slot = SLOT.get();
    // SAFETY: (1) null or the address of a slot in a block, and blocks live for ever.
    unsafe { slot.as_ref() }
}

/// This thread's slot, claimed on first use.
#[cold]
#[inline(never)]
fn claim() -> &'static Slot {
    start();
    let Some(claimed) = DOMAIN.claim(os::thread_number()) else {
        // No block could be mapped. A read section cannot fail and cannot go on unprotected.
        os::die("spile-rcu: no memory for a reader's slot");
    };
    // A handler that interrupted us may have claimed one and left it for the thread. If one comes between this look and
    // the `set`, its slot, in no section any more, is idle until the thread ends.
    match mine() {
        Some(earlier) => {
            // SAFETY: (1) claimed above; (2) not entered; (3) known to nobody.
            unsafe { DOMAIN.give_back(claimed) };
            earlier
        }
        None => {
            SLOT.set(claimed);
            claimed
        }
    }
}

/// Decides how readers and drivers are ordered. Safe in a signal handler; deciding twice gives the same answer.
fn start() {
    core::hint::black_box(os::AT_LOAD);
    // Acquire here and on failure, AcqRel on success [decided]: whoever finds a decision comes after the registration it rests on.
    if BARRIER.load(Ordering::Acquire) == UNDECIDED {
        let with = if os::register_membarrier() { MEMBARRIER } else { FENCES };
        let _ = BARRIER.compare_exchange(UNDECIDED, with, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Global {
    /// Waits until everything deferred before this call has been released (by this thread or another), and what others defer
    /// meanwhile. What the releases did happens before the return.
    ///
    /// # Panics
    ///
    /// Inside a read section.
    pub fn barrier(&self) {
        DOMAIN.barrier(mine());
    }

    /// Whether read sections are ordered by `membarrier(2)` (true) or by a SeqCst fence each (false).
    pub fn uses_membarrier(&self) -> bool {
        start();
        BARRIER.load(Ordering::Relaxed) == MEMBARRIER
    }
}

// SAFETY: (1) sections are those of `Domain`, each on its thread's own slot; (2) there is one domain, so every
// guard is of it; (3) leave → scan → complete → poll is a chain of release/acquire pairs.
unsafe impl Rcu for Global {
    type Guard<'r> = GlobalGuard;

    #[inline(always)]
    fn read(&self) -> GlobalGuard {
        let slot = match mine() {
            Some(slot) => slot,
            None => claim(),
        };
        // SAFETY: (1) this thread's slot, kept until the thread ends.
        unsafe { DOMAIN.enter(slot) };
        GlobalGuard { slot, pinned: PhantomData }
    }

    #[inline(always)]
    fn protects(&self, _: &GlobalGuard) -> bool {
        true
    }

    fn cookie(&self) -> Cookie {
        DOMAIN.cookie()
    }

    #[inline]
    fn poll(&self, cookie: Cookie) -> bool {
        DOMAIN.poll(cookie)
    }

    fn drive(&self) {
        DOMAIN.drive(mine());
    }

    fn batch(&self) -> usize {
        DOMAIN.batch(mine())
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { DOMAIN.defer(head, SLOT.get().addr() >> 7) };
    }

    fn backlog(&self) -> usize {
        DOMAIN.backlog()
    }

    fn relieve(&self) {
        DOMAIN.relieve(mine());
    }

    fn synchronize(&self) {
        DOMAIN.synchronize(mine());
    }
}

impl Drop for GlobalGuard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: (1) this thread's slot, for a guard stays on its thread; (2) this guard entered it, and leaves it once.
        unsafe { DOMAIN.leave(self.slot) };
    }
}

/// Linux and Android, outside Miri: membarrier, thread numbers that can be asked after, fork.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod os {
    use super::{Block, DOMAIN, NonNull, Ordering, fence, mine};
    use spile_sync::lock::TryLockGuard;

    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;

    fn syscall_membarrier(command: libc::c_int) -> bool {
        // SAFETY: (1) membarrier touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// `SPILE_RCU_FENCES=1` keeps to fences, to compare or to test them.
    pub(super) fn register_membarrier() -> bool {
        // SAFETY: (1) the name is a NUL-terminated string; (2) getenv is called before any of ours sets a variable.
        let fences = unsafe { libc::getenv(c"SPILE_RCU_FENCES".as_ptr()) };
        fences.is_null() && syscall_membarrier(REGISTER_PRIVATE_EXPEDITED)
    }

    pub(super) fn membarrier() {
        if !syscall_membarrier(PRIVATE_EXPEDITED) {
            // Registered, so only a filter installed later can refuse it. Readers rely on it: there is no way on.
            die("spile-rcu: membarrier(2) was registered but is now refused (a seccomp filter?)");
        }
    }

    pub(super) fn thread_number() -> u32 {
        // SAFETY: (1) gettid has no arguments and cannot fail.
        unsafe { libc::syscall(libc::SYS_gettid) as u32 }
    }

    #[cfg(target_os = "android")]
    use libc::__errno as errno;
    #[cfg(target_os = "linux")]
    use libc::__errno_location as errno;

    pub(super) fn is_dead(owner: u32) -> bool {
        // SAFETY: (1) signal 0 checks and delivers nothing; (2) errno is this thread's, and as it was for whom we interrupt.
        unsafe {
            let errno = errno();
            let before = *errno;
            let gone = libc::syscall(libc::SYS_tgkill, libc::getpid(), owner as libc::c_int, 0) == -1 && *errno == libc::ESRCH;
            *errno = before;
            // Acquire [dead]: the kernel's word that the thread is gone comes after all it did.
            fence(Ordering::Acquire);
            gone
        }
    }

    pub(super) fn zeroed_block() -> Option<NonNull<Block>> {
        // SAFETY: (1) a new private anonymous mapping overlaps nothing.
        let block = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                size_of::<Block>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if block == libc::MAP_FAILED { None } else { NonNull::new(block.cast()) }
    }

    pub(super) fn die(why: &str) -> ! {
        // SAFETY: (1) the buffer is `why`'s; (2) write and abort may be called in a signal handler.
        unsafe {
            libc::write(2, why.as_ptr().cast(), why.len());
            libc::write(2, c"\n".as_ptr().cast(), 1);
            libc::abort()
        }
    }

    /// Fork handlers must exist before the first fork, and `pthread_atfork` may allocate, so a signal handler cannot
    /// register them: the loader does, before `main`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    pub(super) static AT_LOAD: extern "C" fn() = at_load;

    extern "C" fn at_load() {
        super::start();
        // SAFETY: (1) the three handlers are `extern "C"` functions without arguments.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child)) };
    }

    /// # Safety
    ///
    /// Called by `fork` alone, in the parent, before it.
    unsafe extern "C" fn before_fork() {
        core::mem::forget(DOMAIN.hold_still());
    }

    /// # Safety
    ///
    /// Called by `fork` alone, in the parent, after it.
    unsafe extern "C" fn after_fork_parent() {
        // SAFETY: (1) `before_fork` of this thread took the lock and forgot the guard.
        drop(unsafe { TryLockGuard::recall(DOMAIN.drive_lock()) });
    }

    /// # Safety
    ///
    /// Called by `fork` alone, in the child, by its one thread.
    unsafe extern "C" fn after_fork_child() {
        // SAFETY: (1) a child has one thread; (2) `before_fork` took the lock; (3) as `Global` demands of whoever forks.
        unsafe { DOMAIN.forked(mine(), thread_number()) };
        // SAFETY: as in the parent, whose copy we are.
        drop(unsafe { TryLockGuard::recall(DOMAIN.drive_lock()) });
    }
}

/// Elsewhere, and under Miri: fences, and a slot given back when its thread ends. The first section of a thread must not be in
/// a signal handler there, and a child of `fork` must not use RCU before `exec`.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
mod os {
    use super::{Block, DOMAIN, NonNull, SLOT, mine};
    use core::sync::atomic::{AtomicU32, Ordering};

    pub(super) const AT_LOAD: () = ();

    pub(super) fn register_membarrier() -> bool {
        false
    }

    pub(super) fn membarrier() {
        unreachable!("membarrier was never registered");
    }

    struct Leaver(u32);

    impl Drop for Leaver {
        fn drop(&mut self) {
            // A later destructor that reads claims a slot anew, and that one stays with its number.
            if let Some(slot) = mine().filter(|slot| !slot.in_section()) {
                SLOT.set(core::ptr::null());
                // SAFETY: (1) this thread's slot; (2) in no section; (3) forgotten above.
                unsafe { DOMAIN.give_back(slot) };
            }
        }
    }

    pub(super) fn thread_number() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        thread_local! {
            static LEAVER: Leaver = Leaver(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        LEAVER.try_with(|leaver| leaver.0).unwrap_or_else(|_| NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn is_dead(_: u32) -> bool {
        false
    }

    pub(super) fn zeroed_block() -> Option<NonNull<Block>> {
        let layout = core::alloc::Layout::new::<Block>();
        // SAFETY: (1) a block is not of size zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }.cast())
    }

    pub(super) fn die(why: &str) -> ! {
        eprintln!("{why}");
        std::process::abort()
    }
}
