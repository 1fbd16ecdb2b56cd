//! Two models agree without any kernel, and the generator keeps its promises.

use spile_judge::compare::{Judge, Options};
use spile_judge::naive::{Broken, Naive};
use spile_judge::world::Traits;
use spile_judge::{Lost, Subject, World, generate};

fn naive(world: &World) -> Result<Box<dyn Subject>, Lost> {
    Ok(Box::new(Naive::new(world)))
}

#[test]
fn a_model_agrees_with_itself() {
    let world = World::new(Traits::default());
    let report = Judge::new(&world, &naive, &naive, Options::default()).run(3, 10_000, 500).expect("no process");
    assert!(report.finding.is_none());
    assert!(report.tally.count("name", "ok") > 0, "names are tried where there are names");
}

#[test]
fn a_broken_model_is_found() {
    let world = World::new(Traits::default());
    let broken = |world: &World| Ok(Box::new(Naive::broken(world, Broken::MoveLosesBytes)) as Box<dyn Subject>);
    let report = Judge::new(&world, &naive, &broken, Options::default()).run(3, 10_000, 500).expect("no process");
    let finding = report.finding.expect("bytes are compared");
    assert_eq!(finding.calls.last().map(spile_judge::Call::verb), Some("mremap"), "{finding}");
}

#[test]
fn a_seed_is_a_sequence() {
    let world = World::new(Traits::default());
    assert_eq!(generate::sequence(&world, 5, 300), generate::sequence(&world, 5, 300));
    assert_ne!(generate::sequence(&world, 5, 300), generate::sequence(&world, 6, 300));
}
