//! Time of a thread, and threads on CPUs of their own.
//!
//! **Guarantee.** What is read is the time that the thread had a CPU, in the program and in the kernel. The price of reading it is taken off.

use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

/// CPU time of this thread, since some moment.
#[cfg(target_os = "linux")]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
fn now() -> Duration {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A stretch of a thread's time.
pub struct Stopwatch {
    /// What reading costs.
    price: Duration,
    spent: Duration,
    since: Option<Duration>,
}

impl Stopwatch {
    /// One that stands at 0.
    pub fn new() -> Self {
        const READINGS: u32 = 64;
        let before = now();
        (1..READINGS).for_each(|_| _ = std::hint::black_box(now()));
        Self { price: (now() - before) / READINGS, spent: Duration::ZERO, since: None }
    }

    /// Goes on from here.
    pub fn start(&mut self) {
        self.since = Some(now());
    }

    /// Stands still.
    pub fn stop(&mut self) {
        let until = now();
        if let Some(since) = self.since.take() {
            self.spent += (until - since).saturating_sub(self.price);
        }
    }

    /// What it has counted.
    pub fn spent(&self) -> Duration {
        self.spent
    }
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self::new()
    }
}

/// How many CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps this thread on the CPU with this number, of those that the process may use; where there are fewer, several share one.
#[cfg(target_os = "linux")]
pub fn pin(thread: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    // None: the calling thread. Where it is not allowed the thread runs where it likes, which costs time and nothing else.
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let numbers: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if let Some(cpu) = numbers.get(thread % numbers.len().max(1)) {
        let mut only = CpuSet::new();
        only.set(*cpu);
        let _ = sched_setaffinity(None, &only);
    }
}

/// Keeps this thread where it likes.
#[cfg(not(target_os = "linux"))]
pub fn pin(_: usize) {}
