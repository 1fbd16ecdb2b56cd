//! Programs on threads, while other threads move their pages, for each design.
//!
//! **Guarantee.** Every page that a program reads is as it wrote it last, in all its bytes; no frame changes while a worker writes it; transfers that fail, or whose
//! store panics, lose nothing; at the end no store has anything.
//!
//! **Mechanism.** A family of spaces, each on a thread of its own with a model of its pages, and a queue whose workers are CPUs of the machine. The machine compares
//! what a store gives with what it got. `SPILE_SEEDS` sets the number of seeds.
#![cfg(target_os = "linux")]

mod common;

use common::programs::{Program, SLOTS, WORK, expect, first, seeds};
use common::{Failing, Spoiled, on_file};
use spile::{Denied, Locking, PAGE};
use spile_sim::{Rng, Sim};
use spile_stores::{Compressed, Memory, Over, Pages, Queued, Tiered};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

const PROGRAMS: usize = 3;
const WORKERS: usize = 2;

/// A store with workers, which are the CPUs after those of the programs.
fn queued<S: Pages>(store: S, places: usize) -> Arc<Queued<Sim, S>> {
    let complete = |over: Over<'_, Sim>| {
        over.host.run_on(PROGRAMS + over.worker, |cpu| {
            // SAFETY: (1) begun by the machine, and told once; (2) it is over.
            cpu.call(|| unsafe { over.host.swapped(over.slot, over.ok) });
        });
    };
    Arc::new(Queued::telling(store, WORKERS, places, complete).expect("there are threads"))
}

/// Programs that write, read and map beside each other, while there are frames for a part of what they write. Whether reads `may_fail`.
fn family<L: Locking>(seed: u64, store: &Arc<Queued<Sim, impl Pages>>, may_fail: bool) {
    // Tables: four for each space, and as many that wait for their grace period.
    let frames = PROGRAMS as u64 * 8 + 8 + WORK * PROGRAMS as u64 * [25, 40][seed as usize % 2] / 100;
    let sim = Sim::builder().cpus(PROGRAMS + WORKERS).frames(frames as u32).swap(SLOTS).seed(seed).build_on(store.clone());
    let refused = store.queue().refused;
    let mut programs = vec![first::<L>(&sim)];
    for _ in 1..PROGRAMS {
        programs.push(programs[0].fork(&sim.cpu(0)).expect("pages can leave"));
    }
    thread::scope(|scope| {
        let sim = &sim;
        let begin = |(number, program)| scope.spawn(move || sim.run_on(number, |_| run(sim, seed, number, program, may_fail)));
        let threads: Vec<_> = programs.iter_mut().enumerate().map(begin).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap_or_else(|why| resume_unwind(why)));
    });
    let told = format!("seed {seed}, at the end");
    if may_fail {
        programs.iter().for_each(|program| insist(&sim, program, &told));
    } else {
        programs.iter().for_each(|program| program.check(&sim, &told));
    }
    sim.cpu(0).call(|| drop(programs));
    store.wait_until_idle();
    sim.finish();
    let done = sim.swap().done();
    assert!(done.out > WORK && done.back > WORK, "there was no pressure: {done:?}");
    assert!(may_fail || done.failed == store.queue().refused - refused, "{done:?}, {:?}", store.queue());
}

fn run<L: Locking>(sim: &Sim, seed: u64, number: usize, program: &mut Program<L>, may_fail: bool) {
    let mut rng = Rng::new(seed ^ (number as u64) << 32);
    let cpu = sim.cpu(number);
    for op in 0..150 {
        let told = format!("seed {seed}, operation {op}, program {number}");
        program.act(&cpu, &mut rng, &told, |why| assert!(may_fail && why == Denied::Bus, "{told}: {why:?}"));
    }
}

/// Reads all pages, each as often as it takes.
fn insist<L: Locking>(sim: &Sim, program: &Program<L>, told: &str) {
    let cpu = sim.cpu(0);
    let user = cpu.enter(&program.mm);
    for (n, number) in &program.numbers {
        let is_there = (0..50).any(|_| expect(&user, *n, *number, told).is_ok());
        assert!(is_there, "{told}: page {n} cannot be read");
    }
}

fn on_memory<L: Locking>() {
    let store = queued(Memory::new(SLOTS), SLOTS as usize);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, false));
    let queue = store.queue();
    assert_eq!(
        (queue.under_way, queue.refused, queue.at_once, store.pages()),
        (0, 0, 0, 0),
        "there is room for one transfer of each slot"
    );
}

fn on_a_file<L: Locking>() {
    let store = queued(on_file(), 8);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, false));
    assert_eq!(store.failures(), 0);
}

fn on_two<L: Locking>() {
    let store = queued(Tiered::new(SLOTS, Compressed::new(SLOTS, 8 * PAGE), on_file()), 8);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, false));
    assert_eq!((store.behind(), store.first().stored().pages, store.second().failures()), (0, 0, 0));
}

/// Where one write and one read can wait, some are refused, and none is lost.
fn with_hardly_any_room<L: Locking>() {
    let store = queued(Memory::new(SLOTS), 1);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, false));
    assert!(store.queue().refused > 0 && store.pages() == 0, "{:?}", store.queue());
}

fn on_a_store_that_fails<L: Locking>() {
    let store = queued(Failing::new(Memory::new(SLOTS), 9, false), 8);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, true));
}

fn on_a_store_that_panics<L: Locking>() {
    let store = queued(Failing::new(Memory::new(SLOTS), 9, true), 8);
    (0..seeds()).for_each(|seed| family::<L>(seed, &store, true));
    assert!(store.queue().panics > 0);
}

/// The control: a bit that a store changes is found.
fn a_changed_bit_is_found<L: Locking>() {
    let store = queued(Spoiled(Memory::new(SLOTS)), 8);
    // By a program, and by the machine in a worker; of that the drop of the store tells.
    let found = |end: Result<(), Box<dyn Any + Send>>| *end.expect_err("it was not found").downcast::<String>().expect("a story");
    let told = found(catch_unwind(AssertUnwindSafe(|| family::<L>(0, &store, false))));
    assert!(told.contains("which was written there"), "{told}");
    store.wait_until_idle();
    let store = Arc::into_inner(store).expect("the machine is gone");
    let told = found(catch_unwind(AssertUnwindSafe(|| drop(store))));
    assert!(told.contains("is not what was written there"), "{told}");
}

spile::test_each_design! {
    on_memory => on_memory;
    on_a_file => on_a_file;
    on_two => on_two;
    with_hardly_any_room => with_hardly_any_room;
    on_a_store_that_fails => on_a_store_that_fails;
    on_a_store_that_panics => on_a_store_that_panics;
    a_changed_bit_is_found => a_changed_bit_is_found;
}
