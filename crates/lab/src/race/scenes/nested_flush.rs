//! Two CPUs discard the same page: the one that comes second finds its entry empty, and not flushed yet.

use crate::race::stage::{PATIENCE, Scene, Stage, at, map, pages};
use spile::{Locking, Prot};
use spile_sim::Cpu;
use spile_sync::sched::Outcome;

fn discards<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>, mine: u8) {
    let user = cpu.enter(&stage.mm);
    for _ in 0..4 {
        user.store(at(0), mine).expect("it is mapped");
        if user.discard(pages(0, 1)) {
            assert_ne!(user.load(at(0)), Ok(mine), "what was discarded");
        }
    }
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| map(&cpu.enter(&stage.mm), pages(0, 1), Prot::RW),
        sides: &[&|cpu, stage| discards(cpu, stage, 0xaa), &|cpu, stage| discards(cpu, stage, 0xbb)],
        after: &|cpu, stage| assert!(cpu.enter(&stage.mm).load(at(0)).is_ok()),
        patience: PATIENCE,
    }
    .play(seed)
}
