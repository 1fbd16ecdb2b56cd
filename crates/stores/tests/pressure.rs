//! Programs that want more memory than there is, with the stores behind them, for each design.
//!
//! **Guarantee.** Every page that a program reads is as it wrote it last, in all its bytes, wherever it was in between; a store that refuses keeps no page and loses
//! none; at the end no store has anything.
//!
//! **Mechanism.** A family of spaces, each with a model of its pages, acts on one CPU in turn while pages of every kind leave and come back. The machine
//! compares what a store gives with what it got. `SPILE_SEEDS` sets the number of seeds.
#![cfg(target_os = "linux")]

mod common;

use common::programs::{SLOTS, SPACES, WORK, expect, first, map, pages, seeds, write};
use common::{Spoiled, on_file};
use spile::{Denied, Layout, Locking, Mm, PAGE};
use spile_sim::{Rng, Sim};
use spile_stores::{AtOnce, Compressed, Memory, OnFile, Pages, Stored, Tiered};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Programs that write, read, map, fork and end, while there are frames for a part of what they write.
fn family<L: Locking>(seed: u64, store: Arc<AtOnce<impl Pages>>) {
    let mut rng = Rng::new(seed);
    let work = WORK * SPACES as u64;
    // Tables: four for each space, and as many that wait for their grace period.
    let frames = SPACES as u64 * 8 + 8 + work * [10, 25, 40][seed as usize % 3] / 100;
    let sim = Sim::builder().cpus(4).frames(frames as u32).swap(SLOTS).seed(seed).build_on(store);
    sim.swap().set_delay(rng.below(3) as u32);
    let mut programs = vec![first::<L>(&sim)];
    for op in 0..300 {
        let one = rng.below(programs.len() as u64) as usize;
        let told = format!("seed {seed}, operation {op}, program {one}");
        match rng.below(20) {
            0 if programs.len() > 1 => {
                let gone = programs.swap_remove(one);
                sim.cpu(0).call(|| drop(gone));
            }
            1 | 2 if programs.len() < SPACES => {
                let child = programs[one].fork(&sim.cpu(0)).unwrap_or_else(|error| panic!("{told}: {error}"));
                programs.push(child);
            }
            _ => {
                let cpu = sim.cpu(rng.below(4) as usize);
                programs[one].act(&cpu, &mut rng, &told, |why| panic!("{told}: {why:?}"));
            }
        }
    }
    programs.iter().for_each(|program| program.check(&sim, &format!("seed {seed}, at the end")));
    sim.cpu(0).call(|| drop(programs));
    sim.finish();
    let done = sim.swap().done();
    assert!(done.out > WORK && done.back > WORK && done.failed == 0, "there was no pressure: {done:?}");
}

fn on_memory<L: Locking>() {
    let store = Arc::new(AtOnce(Memory::new(SLOTS)));
    (0..seeds()).for_each(|seed| family::<L>(seed, Arc::clone(&store)));
    assert_eq!(store.pages(), 0);
}

fn on_compressed<L: Locking>() {
    let store = Arc::new(AtOnce(Compressed::new(SLOTS, u64::from(SLOTS) * PAGE)));
    (0..seeds()).for_each(|seed| family::<L>(seed, Arc::clone(&store)));
    assert_eq!(store.stored(), Stored::default());
}

fn on_a_file<L: Locking>() {
    let store = Arc::new(AtOnce(on_file()));
    (0..seeds()).for_each(|seed| family::<L>(seed, Arc::clone(&store)));
    assert_eq!(store.failures(), 0);
}

fn on_two<L: Locking>() {
    let store = Arc::new(AtOnce(Tiered::new(SLOTS, Compressed::new(SLOTS, 8 * PAGE), on_file())));
    (0..seeds()).for_each(|seed| family::<L>(seed, Arc::clone(&store)));
    let (first, second) = (store.first().stored(), store.second());
    assert!(first.refused > 0, "the second was not needed");
    assert_eq!(first, Stored { refused: first.refused, ..Stored::default() });
    assert_eq!((store.behind(), second.failures()), (0, 0));
}

/// What the budget does not admit stays in memory, and is as it was.
fn a_budget_keeps_pages_in_memory<L: Locking>() {
    let store = Arc::new(AtOnce(Compressed::new(SLOTS, 3 * PAGE)));
    let sim = Sim::builder().swap(SLOTS).build_on(store.clone());
    let program = first::<L>(&sim);
    let before = sim.free_frames();
    sim.cpu(1).reclaim(usize::MAX);
    let stored = store.stored();
    assert!(stored.pages > 6 && stored.bytes <= store.budget() && stored.refused > 0, "{stored:?}");
    assert_eq!(sim.free_frames() - before, stored.pages as usize, "the others stayed");
    println!("{} of {WORK} pages in {} bytes: {:.1} to 1", stored.pages, stored.bytes, stored.ratio());
    program.check(&sim, "after some have left");
    sim.cpu(0).call(|| drop(program));
    sim.finish();
    assert_eq!(store.stored(), Stored { refused: store.stored().refused, ..Stored::default() });
}

/// Where the budget is too small for what has to leave there is an end to memory, and nothing is lost.
fn a_budget_may_be_too_small<L: Locking>() {
    let store = Arc::new(AtOnce(Compressed::new(SLOTS, PAGE)));
    let sim = Sim::builder().frames(20).swap(SLOTS).build_on(store.clone());
    let mm = Mm::<Sim, L>::new(sim.clone(), Layout::default()).unwrap();
    let cpu = sim.cpu(0);
    let user = cpu.enter(&mm);
    map(&user, 0, 2 * WORK);
    let end = (0..2 * WORK).map(|n| write(&user, n, n)).position(|outcome| outcome == Err(Denied::NoMemory));
    let end = end.expect("there is an end to memory") as u64;
    assert!(store.stored().pages > 0 && store.stored().refused > 0, "{store:?}");
    // What is away comes back to where the others were.
    user.unmap(pages(end / 2, end - end / 2)).unwrap();
    (0..end / 2).for_each(|n| assert_eq!(expect(&user, n, n, "after memory had ended"), Ok(())));
    drop(user);
    drop(mm);
    sim.finish();
}

/// A device that takes nothing loses nothing.
fn a_full_device_loses_nothing<L: Locking>() {
    let store = Arc::new(AtOnce(OnFile::create("/dev/full").expect("it can be opened")));
    for delay in 0..2 {
        let sim = Sim::builder().swap(SLOTS).build_on(store.clone());
        sim.swap().set_delay(delay);
        let program = first::<L>(&sim);
        let before = (sim.free_frames(), store.failures());
        sim.cpu(1).reclaim(usize::MAX);
        (0..5).for_each(|_| sim.cpu(1).pause());
        assert_eq!(sim.free_frames(), before.0, "what could not be written left memory");
        assert!(store.failures() >= before.1 + WORK && store.take_failure().is_some());
        program.check(&sim, "after none could leave");
        sim.cpu(0).call(|| drop(program));
        sim.finish();
    }
}

/// The control: a bit that a store changes is found.
fn a_changed_bit_is_found<L: Locking>() {
    let store = Arc::new(AtOnce(Spoiled(Memory::new(SLOTS))));
    let end = catch_unwind(AssertUnwindSafe(|| family::<L>(0, store)));
    let story = *end.expect_err("it was not found").downcast::<String>().expect("a story");
    assert!(story.contains("is not what was written there"), "{story}");
}

spile::test_each_design! {
    on_memory => on_memory;
    on_compressed => on_compressed;
    on_a_file => on_a_file;
    on_two => on_two;
    a_budget_keeps_pages_in_memory => a_budget_keeps_pages_in_memory;
    a_budget_may_be_too_small => a_budget_may_be_too_small;
    a_full_device_loses_nothing => a_full_device_loses_nothing;
    a_changed_bit_is_found => a_changed_bit_is_found;
}
