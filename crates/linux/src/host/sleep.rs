//! Threads that sleep until something happened.
//!
//! **Guarantee.** Who is known to sleep when it happens is woken. Nothing allocates; where nobody sleeps, to wake costs no system call.
//!
//! **Mechanism.** A futex for a few keys each: who sleeps counts himself in, then asks whether there is still reason to; who wakes has seen to it before that there is none.

use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering, fence};

const BEDS: usize = 64;

#[repr(align(64))]
#[derive(Default)]
struct Bed {
    /// How many sleep, or are about to.
    sleepers: AtomicU32,
    /// How often they were woken.
    woken: AtomicU32,
}

/// Where threads sleep.
pub struct Beds([Bed; BEDS]);

impl Beds {
    /// Empty ones.
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| Bed::default()))
    }

    fn of(&self, key: usize) -> &Bed {
        &self.0[key % BEDS]
    }

    /// Sleeps while `still()`, until somebody [wakes](Self::wake) `key`; or returns early.
    pub fn sleep(&self, key: usize, still: &dyn Fn() -> bool) {
        let bed = self.of(key);
        bed.sleepers.fetch_add(1, Ordering::Relaxed);
        // SeqCst: with `wake`. Either that finds this sleeper, or this thread finds that there is no reason any more.
        fence(Ordering::SeqCst);
        // Acquire: read before `still` is asked. Whoever wakes after that has changed it, and the futex does not sleep.
        let woken = bed.woken.load(Ordering::Acquire);
        if still() {
            futex(&bed.woken, libc::FUTEX_WAIT, woken);
        }
        bed.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes all who sleep for `key`.
    pub fn wake(&self, key: usize) {
        let bed = self.of(key);
        // SeqCst: with `sleep`.
        fence(Ordering::SeqCst);
        if bed.sleepers.load(Ordering::Relaxed) > 0 {
            // Release: who finds it changed finds no reason to sleep.
            bed.woken.fetch_add(1, Ordering::Release);
            futex(&bed.woken, libc::FUTEX_WAKE, i32::MAX as u32);
        }
    }
}

fn futex(word: &AtomicU32, what: i32, value: u32) {
    let none = null::<libc::timespec>();
    // SAFETY: (1) the word is there as long as the call. Who was not put to sleep, or was woken by a signal, returns early, which sleepers may.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what | libc::FUTEX_PRIVATE_FLAG, value, none) };
}
