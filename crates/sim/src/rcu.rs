//! The RCU domain of a simulated machine.
//!
//! **Guarantee.** A grace period waits for read sections and for nothing else: what is used outside of one may be gone. No CPU
//! sleeps, or waits for a grace period, inside a section.
//!
//! **Mechanism.** [`Qsbr`], told of a quiescent state at the end of each outermost section. A CPU is online while it is in the kernel;
//! a section on one that is not (a test that calls a verb without further ado) brings it online for its length.

use crate::machine::Lanes;
use crate::rng::Rng;
use spile_rcu::qsbr::{self, Qsbr};
use spile_rcu::{Cookie, Head, Rcu};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::panicking;

/// The machine, as `Qsbr` sees it.
#[derive(Debug)]
struct Ports(Arc<Lanes>);

impl qsbr::Machine for Ports {
    fn cpu(&self) -> usize {
        self.0.cpu()
    }

    fn relax(&self, _: u32) {
        self.0.relax();
    }

    /// Two make a period worth its price: so that memory is soon used again.
    const BATCH: usize = 2;
}

struct Domain {
    qsbr: Qsbr<'static, Ports>,
    lanes: Arc<Lanes>,
    rng: Mutex<Rng>,
    // After the domain that refers to it.
    _cpus: Words,
}

/// The CPUs' words.
struct Words(NonNull<[qsbr::Cpu]>);

// SAFETY: (1) an owner of what may be sent and shared.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: (1) it came from a box; (2) the domain, dropped before, was the only one that referred to it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The domain. Cheap to clone.
#[derive(Clone)]
pub struct SimRcu(Arc<Domain>);

impl fmt::Debug for SimRcu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.qsbr.fmt(f)
    }
}

/// A read section of a simulated CPU.
#[derive(Debug)]
#[must_use = "the section ends when the guard is dropped"]
pub struct Section<'r> {
    rcu: &'r SimRcu,
    cpu: usize,
    _pinned: PhantomData<*mut ()>,
}

impl SimRcu {
    pub(crate) fn new(lanes: Arc<Lanes>, seed: u64) -> Self {
        let cpus: Box<[qsbr::Cpu]> = (0..lanes.count()).map(|_| qsbr::Cpu::new()).collect();
        let cpus = Words(NonNull::from(Box::leak(cpus)));
        // SAFETY: (1) freed when the domain, which is the field before it, is gone.
        let words: &'static [qsbr::Cpu] = unsafe { cpus.0.as_ref() };
        // SAFETY: (1) `Lanes::cpu` is below their count, and a thread changes its CPU only between operations; (2) `read` sees to it; (3)
        // made here; (4) `outside` asserts it.
        let qsbr = unsafe { Qsbr::new(words, Ports(Arc::clone(&lanes))) };
        Self(Arc::new(Domain { qsbr, lanes, rng: Mutex::new(Rng::new(seed)), _cpus: cpus }))
    }

    /// This CPU enters the kernel, or wakes up in it.
    pub(crate) fn online(&self) {
        // SAFETY: (1) it was idle, and sections of an idle CPU are over before this is called.
        unsafe { self.0.qsbr.online() };
    }

    /// This CPU leaves the kernel, or sleeps in it.
    pub(crate) fn idle(&self) {
        // SAFETY: (1) asserted by the end of an operation and by sleep.
        unsafe { self.0.qsbr.idle() };
    }

    /// This CPU spins.
    pub(crate) fn spins(&self) {
        let cpu = self.0.lanes.cpu();
        let nothing_held = {
            let state = self.0.lanes.watch.state();
            state.cpus[cpu].kernel && state.cpus[cpu].sections == 0
        };
        if nothing_held {
            // SAFETY: (1) no section.
            unsafe { self.0.qsbr.quiescent() };
        }
    }

    /// Waits until nothing is deferred any more.
    pub(crate) fn barrier(&self) {
        self.outside(|qsbr| qsbr.barrier());
    }

    /// Waits by `wait`, idle: others may wait for this CPU.
    fn outside(&self, wait: impl FnOnce(&Qsbr<'static, Ports>)) {
        let Domain { lanes, qsbr, .. } = &*self.0;
        let cpu = lanes.cpu();
        let (sections, kernel) = {
            let state = lanes.watch.state();
            (state.cpus[cpu].sections, state.cpus[cpu].kernel)
        };
        lanes.watch.expect(sections == 0, || format!("cpu {cpu} waits for a grace period in {sections} sections"));
        if kernel {
            self.idle();
        }
        wait(qsbr);
        if kernel {
            self.online();
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let domain = &self.rcu.0;
        let (left, kernel) = {
            let mut state = domain.lanes.watch.state();
            let cpu = &mut state.cpus[self.cpu];
            cpu.sections -= 1;
            (cpu.sections, cpu.kernel)
        };
        match (left, kernel) {
            // SAFETY: (1) this was the outermost section.
            (0, true) => unsafe { domain.qsbr.quiescent() },
            // SAFETY: (1) as above.
            (0, false) => unsafe { domain.qsbr.idle() },
            _ => {}
        }
    }
}

// SAFETY: (1) `Qsbr`'s promises: a CPU is online before its first section, and reports nothing inside of one; (2) one domain per machine.
unsafe impl Rcu for SimRcu {
    type Guard<'r> = Section<'r>;

    fn read(&self) -> Section<'_> {
        let lanes = &self.0.lanes;
        let cpu = lanes.cpu();
        let comes = {
            let mut state = lanes.watch.state();
            let cpu = &mut state.cpus[cpu];
            cpu.sections += 1;
            cpu.sections == 1 && !cpu.kernel
        };
        if comes {
            self.online();
        }
        Section { rcu: self, cpu, _pinned: PhantomData }
    }

    fn protects(&self, guard: &Section<'_>) -> bool {
        Arc::ptr_eq(&self.0, &guard.rcu.0)
    }

    fn cookie(&self) -> Cookie {
        self.0.qsbr.cookie()
    }

    fn poll(&self, cookie: Cookie) -> bool {
        self.0.qsbr.poll(cookie)
    }

    fn drive(&self) {
        self.0.qsbr.drive();
    }

    fn batch(&self) -> usize {
        self.0.qsbr.batch()
    }

    unsafe fn defer(&self, head: NonNull<Head>) {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.0.qsbr.defer(head) };
    }

    fn backlog(&self) -> usize {
        self.0.qsbr.backlog()
    }

    /// Now and then releases what is due, although little waits: so that memory is soon somebody else's.
    fn relieve(&self) {
        if panicking() {
            return;
        }
        let eager = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).one_in(4);
        if eager && self.backlog() > 0 {
            self.synchronize();
        } else {
            self.0.qsbr.relieve();
        }
    }

    fn synchronize(&self) {
        self.outside(|qsbr| qsbr.synchronize());
    }
}
