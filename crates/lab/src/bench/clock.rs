//! Time of a thread, and threads on CPUs of their own.
//!
//! **Guarantee.** What is read is the time that the thread had a CPU, in the program and in the kernel. The price of reading it is taken off.

use crate::jobs::{processors, stay_on};
use std::time::Duration;

/// CPU time of this thread, since some moment.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
    processors().len()
}

/// Keeps this thread on a CPU of its own, as long as there are as many; where there are fewer, several share one.
pub fn pin(thread: usize) {
    let processors = processors();
    if let Some(processor) = processors[thread % processors.len()] {
        stay_on(processor);
    }
}
