//! The parent writes while it is forked, for the first time since pages are shared.

use crate::race::stage::{PATIENCE, Scene, at, map, pages, read};
use spile::{Locking, Prot};
use spile_sync::sched::{Outcome, label};

/// Two pages in two tables, written in turn, the first first.
const PAIR: [u64; 2] = [0, 0x10000];

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    let pair = PAIR.map(at);
    Scene::<L> {
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            for n in PAIR {
                map(&user, pages(n, 1), Prot::RW);
                user.store(at(n), 1).expect("it is mapped");
            }
        },
        sides: &[
            &|cpu, stage| {
                let child = Box::new(cpu.enter(&stage.mm).fork().expect("there is memory"));
                let look = || pair.map(|page| read(cpu, &child, page).expect("it is mapped in the child, too"));
                let first = look();
                label(format_args!("its child has {first:?}"));
                assert!(first[1] <= first[0], "the child has {first:?}, of which the second was never ahead");
                (0..3).for_each(|_| cpu.pause());
                assert_eq!(look(), first, "nobody writes to the child");
                stage.children.lock().expect("nobody panicked").push(*child);
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for count in 2..8 {
                    pair.into_iter().for_each(|page| user.store(page, count).expect("it is mapped"));
                }
            },
        ],
        after: &|cpu, stage| assert_eq!(pair.map(|page| cpu.enter(&stage.mm).load(page)), [Ok(7), Ok(7)]),
        patience: PATIENCE,
    }
    .play(seed)
}
