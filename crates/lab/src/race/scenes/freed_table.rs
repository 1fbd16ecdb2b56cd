//! The last page of a table is unmapped, and the table goes with it, while a fault of another CPU in another mapping is on its way there.

use crate::race::stage::{PATIENCE, Scene, at, map, pages};
use spile::{Locking, Prot};
use spile_sync::sched::Outcome;

/// A page in the same table, in a mapping that stays.
const NEAR: u64 = 5;

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            [0, NEAR].into_iter().for_each(|n| map(&user, pages(n, 1), Prot::RW));
        },
        sides: &[
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for _ in 0..4 {
                    user.store(at(0), 7).expect("it is mapped");
                    user.unmap(pages(0, 1)).expect("it is mapped");
                    map(&user, pages(0, 1), Prot::RW);
                }
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                let mut is = 0;
                for n in 1..6 {
                    if user.discard(pages(NEAR, 1)) {
                        is = 0;
                    }
                    assert_eq!(user.load(at(NEAR)), Ok(is), "the page near by, which nobody else writes");
                    user.store(at(NEAR), n).expect("it is mapped");
                    is = n;
                    cpu.pause();
                    assert_eq!(user.load(at(NEAR)), Ok(is), "the page near by, which nobody else writes");
                }
            },
        ],
        after: &|cpu, stage| assert_eq!(cpu.enter(&stage.mm).load(at(NEAR)), Ok(5), "the page near by"),
        patience: PATIENCE,
    }
    .play(seed)
}
