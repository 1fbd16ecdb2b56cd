//! CPUs: which one runs this, how it spins, sleeps and answers requests.
//!
//! **Guarantee.** A CPU that spins or sleeps answers flush requests. Nobody sleeps with a table lock or in a read section. Who sleeps wakes
//! only when it is woken: a missed wake-up is found.
//!
//! **Mechanism.** A thread carries the number of the CPU it stands for. Sleeping is waiting for a count of wake-ups to go up: by spinning
//! under the seeded scheduler, where that is passing the baton, and by a condition variable else. Requests are served by a CPU itself
//! where it spins and between operations, or on its behalf, as if they interrupted it: while it sleeps, between operations that no
//! [`run_on`](crate::Sim::run_on) holds together, and on every second machine, by its seed, whenever no access is under way.

use crate::rng::Rng;
use crate::store::Device;
use crate::watch::Watch;
use spile_sync::atomic::{AtomicU64, Ordering};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys are few; who is woken by somebody else's looks again.
const BEDS: usize = 64;
/// How many rounds late a CPU is, at most.
const STALL: u64 = 48;

thread_local! {
    /// The CPU that this thread stands for.
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// The CPUs, as far as they matter to each other.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) watch: Watch,
    /// Raised for each request to a CPU: its own line.
    requests: Box<[Line]>,
    /// Raised when a CPU has served a request.
    served: Line,
    woken: Box<[Line]>,
    stalls: Mutex<(Option<u64>, Rng)>,
    #[cfg(not(feature = "sched"))]
    beds: Box<[(std::sync::Mutex<()>, std::sync::Condvar)]>,
}

/// A word on a line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

fn lines(count: usize) -> Box<[Line]> {
    (0..count).map(|_| Line(AtomicU64::new(0))).collect()
}

/// Says in the story of a seeded schedule what this CPU does; nothing else.
pub(crate) fn tell(what: impl std::fmt::Display) {
    #[cfg(feature = "sched")]
    spile_sync::sched::label(what);
    #[cfg(not(feature = "sched"))]
    drop(what);
}

/// Runs as a CPU until it is dropped.
#[derive(Debug)]
pub(crate) struct As {
    before: usize,
    _here: PhantomData<*mut ()>,
}

impl As {
    pub(crate) fn cpu(number: usize) -> Self {
        Self { before: CPU.replace(number), _here: PhantomData }
    }
}

impl Drop for As {
    fn drop(&mut self) {
        CPU.set(self.before);
    }
}

/// Having a `Pin` tells you: this CPU holds a table lock, so it must not sleep.
#[derive(Debug)]
pub struct Pin {
    lanes: Arc<Lanes>,
    cpu: usize,
    _here: PhantomData<*mut ()>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.lanes.watch.check(|state| ((), state.pin(self.cpu, false)));
    }
}

impl Lanes {
    pub(crate) fn new(cpus: usize, seed: u64, interruptible: bool) -> Self {
        Self {
            watch: Watch::new(cpus, interruptible),
            requests: lines(cpus),
            served: Line(AtomicU64::new(0)),
            woken: lines(BEDS),
            stalls: Mutex::new((None, Rng::new(seed))),
            #[cfg(not(feature = "sched"))]
            beds: (0..BEDS).map(|_| Default::default()).collect(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn cpu(&self) -> usize {
        let cpu = CPU.get();
        assert!(cpu < self.count(), "this thread stands for cpu {cpu} of another machine");
        cpu
    }

    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        let cpu = self.cpu();
        self.stall();
        self.watch.check(|state| ((), state.pin(cpu, true)));
        Pin { lanes: Arc::clone(self), cpu, _here: PhantomData }
    }

    /// Asks the CPUs in `mask`.
    pub(crate) fn request(&self, mask: u128) {
        for (cpu, line) in self.requests.iter().enumerate() {
            if mask & (1 << cpu) != 0 {
                // Relaxed: the request itself is behind the watch's lock.
                line.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Serves what this CPU was asked for.
    pub(crate) fn serve(&self) {
        if self.watch.state().serve(self.cpu()) {
            // Relaxed: as above.
            self.served.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn relax(&self) {
        self.serve();
        spile_sync::hint::spin_loop();
    }

    pub(crate) fn stall_one_in(&self, n: u64) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(n);
    }

    /// This CPU is late, now and then, as one whose host runs something else.
    pub(crate) fn stall(&self) {
        let rounds = {
            let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
            let (often, rng) = &mut *stalls;
            often.filter(|n| rng.one_in(*n)).map_or(0, |_| rng.below(STALL))
        };
        (0..rounds).for_each(|_| self.relax());
    }

    pub(crate) fn wake(&self, key: usize) {
        tell("wakes who sleeps");
        self.watch.state().counts.wakes += 1;
        // Release [wake]: what the sleeper waits for was done before.
        self.woken[key % BEDS].0.fetch_add(1, Ordering::Release);
        #[cfg(not(feature = "sched"))]
        {
            let (mutex, condvar) = &self.beds[key % BEDS];
            drop(mutex.lock());
            condvar.notify_all();
        }
    }

    /// Sleeps, with the requests served by others and `device` going on.
    pub(crate) fn sleep(&self, key: usize, still: &dyn Fn() -> bool, device: &Device) {
        let woken = &self.woken[key % BEDS].0;
        // Acquire [wake].
        let before = woken.load(Ordering::Acquire);
        if !still() {
            return;
        }
        tell("sleeps");
        let mut rounds = 0u64;
        while woken.load(Ordering::Acquire) == before {
            device.tick();
            self.doze(key, &mut rounds);
        }
        tell("is awake");
    }

    #[cfg(feature = "sched")]
    fn doze(&self, _key: usize, rounds: &mut u64) {
        *rounds += 1;
        // Inside a run the limit of steps comes first.
        assert!(*rounds < 100_000_000, "nobody wakes a CPU that sleeps");
        spile_sync::hint::spin_loop();
    }

    #[cfg(not(feature = "sched"))]
    fn doze(&self, key: usize, rounds: &mut u64) {
        *rounds += 1;
        assert!(*rounds < 60_000, "nobody wakes a CPU that sleeps");
        let (mutex, condvar) = &self.beds[key % BEDS];
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        // The wake-up may have come before the lock; then the time limit is short.
        drop(condvar.wait_timeout(guard, std::time::Duration::from_millis(1)));
    }
}
