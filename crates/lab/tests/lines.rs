//! Which shared cache lines a fault writes: the claim of the design `rcu`.
//!
//! **Guarantee.** In each scene a fault under `rcu` on a page whose table exists writes no line that another CPU touches, but those of the
//! table: its lock and the entry.
//!
//! **Mechanism.** The scenes of `spile bench --sim`, on fewer CPUs. The controls show that writes to the lock of an address space are seen, and
//! those to a table that several use.
#![cfg(feature = "sched")]

use spile::{MmapLock, UnderRcu};
use spile_lab::bench::scenes::{Cost, Costs, Scene, measure};
use spile_lab::heap::Heap;
use spile_lab::parts::{CORE, FRAME, PARTS, TABLE};

#[global_allocator]
static HEAP: Heap = Heap;

const CPUS: [usize; 2] = [2, 8];

fn each(check: impl Fn(Scene, &str, usize)) {
    Scene::ALL
        .into_iter()
        .filter(|scene| scene.is_of_faults())
        .for_each(|scene| CPUS.into_iter().for_each(|cpus| check(scene, scene.name(), cpus)));
}

/// The price of reading what changes replace is paid only where there are changes.
fn assert_nothing(costs: &Costs, part: usize, transfers_too: bool, what: &str) {
    let cost = costs.of(part);
    let nothing = if transfers_too { cost == Cost::default() } else { cost.writes == 0 };
    assert!(nothing, "{what}: {} takes {cost:?}: {:#?}", PARTS[part], costs.places);
}

#[test]
fn rcu_writes_nothing_shared_but_the_table() {
    each(|scene, name, cpus| {
        let costs = measure::<UnderRcu>(scene, cpus).expect("it comes to an end");
        let what = format!("{name}, {cpus} CPUs");
        assert_nothing(&costs, CORE, scene != Scene::BesideChanges, &what);
        assert_nothing(&costs, FRAME, true, &what);
        if scene == Scene::OneTable {
            assert!(costs.of(TABLE).writes >= costs.ops, "{what}: writes to a shared table are not seen");
        } else {
            assert_nothing(&costs, TABLE, true, &what);
        }
    });
}

#[test]
fn the_lock_of_an_address_space_is_seen() {
    each(|scene, name, cpus| {
        let costs = measure::<MmapLock>(scene, cpus).expect("it comes to an end");
        let writes = costs.of(CORE).writes;
        assert!(writes >= costs.ops, "{name}, {cpus} CPUs: {writes} writes of {} faults", costs.ops);
    });
}

#[test]
fn counts_repeat() {
    let count = || measure::<MmapLock>(Scene::BesideChanges, 4).expect("it comes to an end").places;
    assert_eq!(count(), count());
}
