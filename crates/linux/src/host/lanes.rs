//! Numbers of things that are free.
//!
//! **Guarantee.** A number that was taken is nobody else's until it is given back. Nothing allocates.
//!
//! **Mechanism.** A stack for each of a few CPUs, so that threads on different ones seldom meet; who finds his own empty takes half of another's.

use arrayvec::ArrayVec;
use spile_sync::atomic::{AtomicUsize, Ordering};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many stacks there are.
pub const LANES: usize = 8;
/// How many numbers come over from another stack at once, at most.
const MOST: usize = 32;

/// Which of so many stacks is this thread's now.
pub fn here() -> usize {
    // SAFETY: (1) a question.
    unsafe { libc::sched_getcpu() }.max(0) as usize % LANES
}

/// A lock, whatever became of who had it: what these guard is whole between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[repr(align(128))]
struct Lane {
    free: Mutex<Vec<u32>>,
    count: AtomicUsize,
}

/// Stacks of numbers.
pub struct Lanes([Lane; LANES]);

impl Lanes {
    /// That have room for `all`, of which `free` are free.
    pub fn new(all: usize, free: Range<u32>) -> Self {
        let share = free.len().div_ceil(LANES).max(1);
        let part = |lane: usize| {
            let of = |nth: usize| free.start + (nth * share).min(free.len()) as u32;
            // Lowest first; and room for all, as it may come to that.
            let mut stack = Vec::with_capacity(all);
            stack.extend((of(lane)..of(lane + 1)).rev());
            Lane { count: AtomicUsize::new(stack.len()), free: Mutex::new(stack) }
        };
        Self(std::array::from_fn(part))
    }

    /// Takes one.
    pub fn take(&self) -> Option<u32> {
        let here = here();
        self.0[here].pop().or_else(|| (1..LANES).find_map(|n| self.bring(here, (here + n) % LANES)))
    }

    /// Takes one from another stack, and brings some more from there.
    fn bring(&self, here: usize, there: usize) -> Option<u32> {
        // Relaxed: a hint; who is told of none looks at the next, and if there is none anywhere, that may have been so.
        if self.0[there].count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let brought: ArrayVec<u32, MOST> = {
            let mut from = lock(&self.0[there].free);
            let half = from.len().div_ceil(2).min(MOST);
            let brought = from.drain(..half).collect();
            self.0[there].count.store(from.len(), Ordering::Relaxed);
            brought
        };
        let (first, rest) = brought.split_first()?;
        rest.iter().for_each(|number| self.0[here].push(*number));
        Some(*first)
    }

    /// Gives one back.
    pub fn give(&self, number: u32) {
        self.0[here()].push(number);
    }

    /// How many are free, about.
    pub fn count(&self) -> usize {
        self.0.iter().map(|lane| lane.count.load(Ordering::Relaxed)).sum()
    }
}

impl Lane {
    fn pop(&self) -> Option<u32> {
        let mut free = lock(&self.free);
        let number = free.pop();
        self.count.store(free.len(), Ordering::Relaxed);
        number
    }

    fn push(&self, number: u32) {
        let mut free = lock(&self.free);
        debug_assert!(free.len() < free.capacity(), "a number was given twice");
        free.push(number);
        self.count.store(free.len(), Ordering::Relaxed);
    }
}
