//! Parent and child map and unmap the same page, which the one may only read and the other write; what one gives up the other may get as the memory
//! of its mapping.

use crate::race::stage::{PATIENCE, Scene, anon, at, map, pages, read};
use spile::{Denied, Locking, Mm, Place, Prot};
use spile_sim::{Cpu, Sim};
use spile_sync::sched::{Outcome, label};

const PARENTS: Prot = Prot::R;

fn maps<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>, prot: Prot) {
    cpu.call(|| mm.map(Place::Over(pages(0, 1)), anon(prot))).expect("there is memory");
}

fn unmaps<L: Locking>(cpu: &Cpu<'_>, mm: &Mm<Sim, L>) {
    cpu.call(|| mm.unmap(pages(0, 1))).expect("it is mapped");
}

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    Scene::<L> {
        before: &|cpu, stage| {
            map(&cpu.enter(&stage.mm), pages(0, 1), PARENTS);
            let child = stage.mm.fork().expect("there is memory");
            map(&cpu.enter(&child), pages(0, 1), Prot::RW);
            stage.child = Some(child);
        },
        sides: &[
            &|cpu, stage| {
                let (parent, child) = (&stage.mm, stage.child.as_ref().expect("it was forked"));
                for _ in 0..3 {
                    label("unmaps in the parent");
                    unmaps(cpu, parent);
                    label("maps in the child, to be written");
                    maps(cpu, child, Prot::RW);
                    assert_eq!(read(cpu, parent, at(0)), Err(Denied::Unmapped));
                    label("unmaps in the child");
                    unmaps(cpu, child);
                    label("maps in the parent, to be read");
                    maps(cpu, parent, PARENTS);
                    assert_eq!(read(cpu, child, at(0)), Err(Denied::Unmapped));
                    label("maps in the child, to be written");
                    maps(cpu, child, Prot::RW);
                }
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                for _ in 0..6 {
                    let stored = user.store(at(0), 0xbb);
                    assert!(stored.is_err(), "the parent stored where it may read at most");
                    let seen = user.load(at(0));
                    assert!([Ok(0), Err(Denied::Unmapped)].contains(&seen), "the parent sees {seen:?}");
                }
            },
            &|cpu, stage| {
                let user = cpu.enter(stage.child.as_ref().expect("it was forked"));
                for _ in 0..6 {
                    let stored = user.store(at(0), 0xcc);
                    assert!([Ok(()), Err(Denied::Unmapped)].contains(&stored), "the child, which may write, got {stored:?}");
                }
            },
        ],
        after: &|cpu, stage| assert_eq!(cpu.enter(&stage.mm).load(at(0)), Ok(0)),
        patience: PATIENCE,
    }
    .play(seed)
}
