//! A seeded scheduler: the same seed and the same program give the same schedule, trace and counts.
//!
//! **Guarantee.** Inside a [`Run`] exactly one simulated thread executes at any time, and which one it is changes only at
//! yield points: every operation on the types of [`atomic`], every fence and every [`spin_loop`]. What is explored is
//! sequentially consistent interleavings; reordering by weak memory is not simulated (that is loom's job). Each access is
//! counted per cache line and simulated CPU. Outside a run everything here passes straight through.
//!
//! **Mechanism.** Simulated threads are OS threads that pass one baton (`baton`). At each yield point the holder asks the
//! strategy (`strategy`) who goes next, hands over if that is somebody else, and, once it has the baton again, charges its
//! access to a cache line (`lines`), writes it into the trace (`story`) and performs it.
//!
//! What the program owes in return:
//! * every loop that waits for another thread calls [`spin_loop`] in each round, otherwise a strategy may starve the one
//!   waited for and the run is reported as stuck;
//! * no simulated thread blocks in the operating system on something another simulated thread must do first;
//! * what it does depends on nothing but the seed: not on time, addresses or hash seeds. Which atomics share a cache line
//!   is the allocator's choice unless they are aligned to 64 bytes: only then do counts repeat in every process;
//! * destructors of thread locals run after a simulated thread has ended, hence outside of the schedule.

pub mod atomic;
mod baton;
mod lines;
mod outcome;
mod run;
mod state;
mod story;
mod strategy;

pub use lines::{CLASSES, Classify, Counters, LineId};
pub use outcome::{Failure, Outcome, Standing};
pub use run::{Explored, Run, explore};
pub use story::{Event, Op, What};
pub use strategy::Strategy;

use std::cell::Cell;
use std::fmt::Display;
use std::panic::Location;

/// Says "I wait for somebody": the strategy prefers other threads until one of them has written something.
///
/// Outside a run this is `core::hint::spin_loop`, with a `yield_now` in between for machines with few cores.
#[inline]
#[track_caller]
pub fn spin_loop() {
    if baton::active() {
        baton::point(Op::Spin, 0);
    } else {
        spin_outside();
    }
}

/// One round of a real spin: mostly the CPU's hint, sometimes the rest of the time slice.
fn spin_outside() {
    const ROUNDS_PER_YIELD: u32 = 64;
    thread_local!(static ROUNDS: Cell<u32> = const { Cell::new(0) });
    let rounds = ROUNDS.get().wrapping_add(1);
    ROUNDS.set(rounds);
    if rounds.is_multiple_of(ROUNDS_PER_YIELD) {
        std::thread::yield_now();
    } else {
        core::hint::spin_loop();
    }
}

/// Puts a named event into the trace, for stories such as "reader: entered". No yield point; nothing outside a run.
///
/// The text is formatted only inside a run: `label(format_args!("freed {n}"))` costs a shipped path nothing.
#[track_caller]
pub fn label(text: impl Display) {
    if baton::active() {
        let text = text.to_string().into_boxed_str();
        let at = Location::caller();
        baton::with_current(|baton, me| baton.label(me, text, at));
    }
}

/// What the current simulated CPU has done so far; none outside a run. The difference of two snapshots is the price of
/// what lies between them, provided that the CPU runs one simulated thread.
pub fn counters() -> Option<Counters> {
    counters_by_class().map(|classes| classes.into_iter().sum())
}

/// The same by the classes of [`Run::classify`].
pub fn counters_by_class() -> Option<[Counters; CLASSES]> {
    baton::with_current(|baton, me| baton.counters(me))
}

/// Sleeps until [`wake`]: the strategy chooses among the others. A program's own waits are quicker so than by spinning, and are no steps. Returns
/// at once outside a run. Who waits looks, and sleeps if it must: nothing comes between, for to look at what is no atomic of a run is no yield point.
///
/// If nobody is awake the run has failed.
#[track_caller]
pub fn sleep() {
    let at = Location::caller();
    baton::with_current(|baton, me| baton.sleep(me, at));
}

/// Ends the sleep of the thread with this index, if it sleeps. No yield point.
pub fn wake(thread: usize) {
    baton::with_current(|baton, _| baton.wake(thread));
}

/// Where something is: in a run the name of its cache line, by first touch, and the place in it; else its address. No yield point.
pub fn whereabouts(address: usize) -> usize {
    baton::with_current(|baton, _| baton.whereabouts(address)).unwrap_or(address)
}

/// Memory was given back: whoever gets it next gets lines that nobody has touched. An allocator that says so makes counts independent of
/// which object it puts where. No yield point; nothing outside a run.
pub fn given_back(address: usize, bytes: usize) {
    baton::with_current(|baton, _| baton.given_back(address, bytes));
}

/// Index of the current simulated thread, in order of its spawning; none outside a run.
pub fn thread_index() -> Option<usize> {
    baton::with_current(|_, me| me)
}

/// Number of the current simulated CPU; none outside a run.
pub fn cpu() -> Option<usize> {
    baton::with_current(|baton, me| baton.cpu(me))
}
