//! A hunt for holes: keys that are always mapped and yet not found, or found with a value they never had.
//!
//! The writer splits and merges, and beside that removes and inserts ranges that nobody asks for and fills gaps, so that leaves
//! and inner nodes divide and join under the reader. The reader asks by `get`, by `find` and by a walk in turn.

use crate::clock;
use crate::contender::Contender;
use crate::layout::{Asked, KEYS, PAGE, Random, Range, World};
use crate::ours::OurTree;
use spile_maple::{Span, Token};
use spile_rcu::{Global, GlobalGuard, Rcu};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a hunt has seen.
pub struct Bag {
    pub lookups: u64,
    pub writes: u64,
    pub holes: u64,
}

pub fn hunt(n: usize, time: Duration) -> Bag {
    let world = Arc::new(World::new(n));
    // Every fourth range, the victims among them, comes and goes; nobody asks for the others of these.
    let (unstable, stable): (Vec<Range>, Vec<Range>) =
        world.shuffled.iter().filter(|range| !world.victims.contains(range)).partition(|range| range.value % 8 == 0);
    let map = OurTree::build(&world.shuffled);
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (map, world, over) = (map.clone(), Arc::clone(&world), Arc::clone(&over));
        std::thread::spawn(move || write(map, &world, &unstable, &over))
    };
    let reader = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || read(&map, &stable, &world.victims, &over))
    };
    std::thread::sleep(time);
    over.store(true, Ordering::Relaxed);
    let (lookups, holes) = reader.join().expect("the reader does not panic");
    Bag { lookups, holes, writes: writer.join().expect("the writer does not panic") }
}

fn write(mut map: OurTree, world: &World, unstable: &[Range], over: &AtomicBool) -> u64 {
    clock::pin_to_cpu(1);
    let mut random = Random::new(3);
    let mut writes = 0;
    while !over.load(Ordering::Relaxed) {
        let split: Vec<Range> = (0..8).map(|_| world.victims[random.below(world.victims.len())]).collect();
        let gone = unstable[random.below(unstable.len())];
        let from = random.below(world.gaps.len().saturating_sub(64).max(1));
        let filled = &world.gaps[from..world.gaps.len().min(from + 64)];
        split.iter().for_each(|&range| map.split(range));
        map.remove(gone);
        filled.iter().for_each(|&gap| map.insert(gap));
        split.iter().for_each(|&range| map.merge(range));
        map.insert(gone);
        filled.iter().for_each(|&gap| map.remove(gap));
        writes += 2 * (split.len() + filled.len()) as u64 + 2;
    }
    writes
}

fn read(map: &OurTree, stable: &[Range], victims: &[Range], over: &AtomicBool) -> (u64, u64) {
    clock::pin_to_cpu(0);
    let mut random = Random::new(5);
    let ask = |among: &[Range], random: &mut Random| {
        let range = among[random.below(among.len())];
        (range.start + random.below((range.end - range.start) as usize) as u64, range.value)
    };
    let of_stable: Vec<Asked> = (0..KEYS).map(|_| ask(stable, &mut random)).collect();
    let of_victims: Vec<Asked> = (0..KEYS).map(|_| ask(victims, &mut random)).collect();
    let (mut lookups, mut holes) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for i in 0..KEYS {
            let section = Global.read();
            let (key, value) = of_stable[i];
            holes += u64::from(seen(map, &section, key, i) != Some(value));
            let (key, value) = of_victims[i];
            holes += u64::from(seen(map, &section, key, i).map(|seen| seen | 1) != Some(value | 1));
            lookups += 2;
        }
    }
    (lookups, holes)
}

/// The value at `key`, asked for in the `i`th way.
fn seen(map: &OurTree, section: &GlobalGuard, key: u64, i: usize) -> Option<u64> {
    let covering = |found: Option<(Span, Token)>| found.filter(|(span, _)| span.contains(key));
    let found = match i % 8 {
        0 => covering(map.0.find(section, key)),
        1 => covering(map.0.find_back(section, key)),
        2 => {
            let around = Span::new(key.saturating_sub(64 * PAGE), key + 64 * PAGE)?;
            map.0.iter(section, around).find(|(span, _)| span.contains(key))
        }
        _ => map.0.get(section, key),
    };
    found.map(|(_, token)| token.get() as u64)
}
