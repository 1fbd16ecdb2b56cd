//! Somebody lists mappings beside splits, merges and replacements.

use crate::race::stage::{PATIENCE, Scene, Stage, at, listed, map, pages};
use spile::{Locking, Prot};
use spile_sim::{Cpu, Rng};
use spile_sync::sched::{Outcome, label};

/// How many pages are mapped all the time while their mappings are cut, joined and replaced.
const ROW: u64 = 12;

fn lists<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    for _ in 0..4 {
        label("lists the mappings");
        let seen = listed(cpu, &stage.mm);
        let hole = (0..ROW).find(|n| !seen.iter().any(|range| range.contains(at(*n))));
        assert_eq!(hole, None, "a page that is missing in {seen:x?}");
    }
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            (0..ROW).for_each(|n| map(&user, pages(n, 1), if n % 3 == 0 { Prot::R } else { Prot::RW }));
        },
        sides: &[
            &|cpu, stage| {
                let (user, mut rng) = (cpu.enter(&stage.mm), Rng::new(stage.seed));
                for _ in 0..8 {
                    let first = rng.below(ROW);
                    let range = pages(first, 1 + rng.below((ROW - first).min(4)));
                    let prot = if rng.one_in(2) { Prot::R } else { Prot::RW };
                    if rng.one_in(4) {
                        map(&user, range, prot);
                    } else {
                        user.protect(range, prot).expect("it is mapped");
                    }
                }
            },
            &lists,
            &lists,
        ],
        after: &|cpu, stage| lists(cpu, stage),
        patience: PATIENCE,
    }
    .play(seed)
}
