//! Races that Linux had, or found in review: each as it is here, and each with the mistakes that make it.
//!
//! **Guarantee.** For each seed tried no race of the catalogue happens in any design, and each mistake of the catalogue is found in each design that it
//! names, within [`spile_lab::race::variant::BOUND`] seeds.
//!
//! **Mechanism.** [`spile_lab::race`]. The control plays the faulty variants, by the program itself:
//! `cargo test -p spile-lab --features sched --test known_races -- --nocapture known_mistakes` tells their interleavings. `SPILE_SEEDS` sets the
//! number of seeds.
#![cfg(feature = "sched")]

use spile::Locking;
use spile_lab::race::{CATALOGUE, Race, named, variant};
use std::path::Path;

/// Letters of a story's line.
const WIDTH: usize = 120;

fn seeds() -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300)
}

/// No seed fails.
fn passes<L: Locking>(race: &Race) {
    let all = seeds();
    for seed in 0..all {
        let outcome = race.play(L::NAME, seed);
        if !outcome.is_ok() {
            println!("{} {}: {seed} seeds passed; then", race.title, L::NAME);
            outcome.expect_ok();
        }
    }
    println!("{} {}: {all} seeds passed", race.title, L::NAME);
}

/// Each race of the catalogue is a test of each design.
macro_rules! races {
    ($($test:ident $name:literal,)*) => {
        $(fn $test<L: Locking>() {
            passes::<L>(named($name).expect("it is in the catalogue"));
        })*

        /// What is tested above.
        const TESTED: &[&str] = &[$($name),*];
    };
}

races! {
    freed_page "freed-page",
    freed_table "freed-table",
    fork_cow "fork-cow",
    hole_in_maps "hole-in-maps",
    late_reader "late-reader",
    lost_wake "lost-wake",
    nested_flush "nested-flush",
    recycled "recycled",
    stack_rot "stack-rot",
}

spile::test_each_design! {
    known_freed_page => freed_page;
    known_freed_table => freed_table;
    known_fork_cow => fork_cow;
    known_hole_in_maps => hole_in_maps;
    known_late_reader => late_reader;
    known_lost_wake => lost_wake;
    known_nested_flush => nested_flush;
    known_recycled => recycled;
    known_stack_rot => stack_rot;
}

#[test]
fn each_race_is_tested() {
    let untested: Vec<_> = CATALOGUE.iter().map(|race| race.name).filter(|name| !TESTED.contains(name)).collect();
    assert!(untested.is_empty(), "races without a test: {untested:?}");
}

#[test]
fn known_mistakes_are_found() {
    let spile = Path::new(env!("CARGO_BIN_EXE_spile"));
    let mut missed = Vec::new();
    for race in CATALOGUE {
        for (mistake, design) in race.shown() {
            let played = variant::played(spile, race, design, Some(mistake.bug), 0, variant::BOUND).expect("a result");
            match &played.story.failure {
                Some(why) => {
                    println!("\n==== {}: {} {design}: {} seeds passed; then", mistake.bug, race.title, played.passed);
                    println!("{}{why}", played.story.end(variant::ROWS_OF_THE_FAULTY).0.text(WIDTH, &[]));
                }
                None => missed.push((race.name, mistake.bug, design)),
            }
        }
    }
    assert!(missed.is_empty(), "mistakes that no seed found: {missed:?}");
}
