//! Two CPUs want to change the same page's mapping: the one that comes second sleeps until the first is done.

use crate::race::stage::{Scene, Stage, at, map, pages};
use spile::{Locking, Prot};
use spile_sim::Cpu;
use spile_sync::sched::Outcome;

/// More steps than it needs, and few enough to be told.
const PATIENCE: u64 = 12_000;

fn changes<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    let user = cpu.enter(&stage.mm);
    (0..3).for_each(|_| map(&user, pages(0, 1), Prot::RW));
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| map(&cpu.enter(&stage.mm), pages(0, 1), Prot::RW),
        sides: &[&changes, &changes],
        after: &|cpu, stage| assert_eq!(cpu.enter(&stage.mm).load(at(0)), Ok(0)),
        patience: PATIENCE,
    }
    .play(seed)
}
