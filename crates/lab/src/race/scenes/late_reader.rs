//! A fault finds a mapping before it is taken out of the index, and takes hold of it after.

use crate::race::stage::{PATIENCE, Scene, Stage, at, map, pages};
use spile::{Denied, Locking, Prot};
use spile_sim::{Cpu, User};
use spile_sync::sched::Outcome;

fn uses<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    let user = cpu.enter(&stage.mm);
    for n in [0, 1, 0, 1, 0, 1] {
        assert_ne!(user.store(at(n), 0x80), Err(Denied::NoMemory));
    }
}

fn is_gone<L: Locking>(user: &User<'_, '_, L>) {
    (0..2).for_each(|n| assert_eq!(user.load(at(n)), Err(Denied::Unmapped), "page {n} was unmapped"));
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| map(&cpu.enter(&stage.mm), pages(0, 2), Prot::RW),
        sides: &[
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for _ in 0..3 {
                    user.unmap(pages(0, 2)).expect("it is mapped");
                    is_gone(&user);
                    cpu.pause();
                    is_gone(&user);
                    map(&user, pages(0, 2), Prot::R);
                    cpu.pause();
                    (0..2).for_each(|n| assert_eq!(user.load(at(n)), Ok(0), "page {n} was never written"));
                    map(&user, pages(0, 2), Prot::RW);
                }
                user.unmap(pages(0, 2)).expect("it is mapped");
            },
            &uses,
            &uses,
        ],
        after: &|cpu, stage| is_gone(&cpu.enter(&stage.mm)),
        patience: PATIENCE,
    }
    .play(seed)
}
