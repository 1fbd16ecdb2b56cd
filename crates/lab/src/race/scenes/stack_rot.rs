//! Two CPUs let a stack grow, which changes nodes of the index; a third looks at what is around.

use crate::race::stage::{PATIENCE, Scene, Stage, at, listed, pages};
use spile::{Attr, Flags, Locking, Place, Prot};
use spile_sim::Cpu;
use spile_sync::sched::{Outcome, label};

/// Where the stack is before it grows, and how far it does.
const STACK: u64 = 8;
const GROWN: u64 = 6;
/// Single pages above it, two apart.
const NEIGHBOURS: [u64; 6] = [10, 12, 14, 16, 18, 20];

fn value(n: u64) -> u8 {
    0x40 | n as u8
}

fn grows<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>, by: [u64; 3]) {
    let user = cpu.enter(&stage.mm);
    by.map(|by| STACK - by).into_iter().for_each(|n| user.store(at(n), value(n)).expect("a stack grows"));
}

fn looks<L: Locking>(cpu: &Cpu<'_>, stage: &Stage<L>) {
    for n in NEIGHBOURS.into_iter().chain([STACK]) {
        label("lists the mappings");
        let seen = listed(cpu, &stage.mm);
        let misses = |n: &u64| !seen.iter().any(|range| range.contains(at(*n)));
        let missed = NEIGHBOURS.into_iter().chain([STACK]).find(misses);
        assert_eq!(missed, None, "a page that is missing in {seen:x?}");
        assert_eq!(cpu.enter(&stage.mm).load(at(n)), Ok(value(n)));
    }
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| {
            let user = cpu.enter(&stage.mm);
            for n in NEIGHBOURS.into_iter().chain([STACK]) {
                let flags = Flags::MAY_WRITE.with(Flags::when(n == STACK, Flags::GROWS_DOWN));
                let attr = |at: spile::Range| Attr { flags, ..Attr::anon(at.start(), Prot::RW) };
                user.map(Place::Over(pages(n, 1)), attr).expect("there is memory");
                user.store(at(n), value(n)).expect("it is mapped");
            }
        },
        sides: &[&|cpu, stage| grows(cpu, stage, [1, 3, 5]), &|cpu, stage| grows(cpu, stage, [2, 4, GROWN]), &looks],
        after: &|cpu, stage| {
            let whole = pages(STACK - GROWN, GROWN + 1);
            let should: Vec<_> = std::iter::once(whole).chain(NEIGHBOURS.map(|n| pages(n, 1))).collect();
            assert_eq!(listed(cpu, &stage.mm), should);
            let user = cpu.enter(&stage.mm);
            (STACK - GROWN..=STACK).chain(NEIGHBOURS).for_each(|n| assert_eq!(user.load(at(n)), Ok(value(n)), "page {n}"));
        },
        patience: PATIENCE,
    }
    .play(seed)
}
