//! Time, and the CPU it is spent on.
//!
//! One thread: thread CPU time, which a neighbour on a shared machine disturbs least. Two threads: the time stamp counter,
//! which sees what one thread makes the other wait for; intervals with a preemption in them are thrown away.

use crate::report::median;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// CPU time of this thread, ns.
fn thread_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: (1) `now` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Adds up the CPU time of pieces of work, without that of the clock itself: it is a system call.
pub struct Stopwatch {
    price: f64,
    pub ns: f64,
}

impl Stopwatch {
    pub fn new() -> Self {
        let prices = (0..31).map(|_| -thread_time() + thread_time()).collect();
        Self { price: median(prices), ns: 0.0 }
    }

    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = thread_time();
        let result = work();
        self.ns += thread_time() - begin - self.price;
        result
    }
}

/// The time stamp counter, after everything before it.
#[cfg(target_arch = "x86_64")]
pub fn ticks() -> u64 {
    use core::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: (1) every x86-64 has both.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn ticks() -> u64 {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

pub fn ticks_per_ns() -> f64 {
    let (begin, first) = (Instant::now(), ticks());
    while begin.elapsed() < Duration::from_millis(50) {}
    (ticks() - first) as f64 / begin.elapsed().as_nanos() as f64
}

pub fn pin_to_cpu(cpu: usize) {
    // SAFETY: (1) all zeroes is the empty set; (2) `cpu` is 0 or 1; (3) the set is ours and of that size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// How often this thread lost its CPU to another.
pub fn preemptions() -> i64 {
    // SAFETY: (1) all zeroes is a `rusage`; (2) it is ours to write.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nivcsw
    }
}

/// Nanoseconds for a cache line to go from CPU 0 to CPU 1. A virtual machine's two CPUs may be moved near to each other or far
/// apart while we run, and two-thread figures move with this one.
pub fn hand_over(ticks_per_ns: f64) -> f64 {
    const BATCHES: u64 = 50;
    const TRIPS: u64 = 1000;
    let ball = Arc::new(AtomicU64::new(0));
    let returned = Arc::clone(&ball);
    let partner = std::thread::spawn(move || {
        pin_to_cpu(1);
        for i in 0..BATCHES * TRIPS {
            wait_for(&returned, 2 * i + 1);
            returned.store(2 * i + 2, Ordering::Release);
        }
    });
    let server = std::thread::spawn(move || {
        pin_to_cpu(0);
        let batch = |batch: u64| {
            let begin = ticks();
            for i in batch * TRIPS..(batch + 1) * TRIPS {
                ball.store(2 * i + 1, Ordering::Release);
                wait_for(&ball, 2 * i + 2);
            }
            (ticks() - begin) as f64 / ticks_per_ns / (2 * TRIPS) as f64
        };
        median((0..BATCHES).map(batch).collect())
    });
    partner.join().expect("the partner does not panic");
    server.join().expect("the server does not panic")
}

fn wait_for(ball: &AtomicU64, value: u64) {
    while ball.load(Ordering::Acquire) != value {
        std::hint::spin_loop();
    }
}
