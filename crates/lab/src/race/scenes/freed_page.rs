//! A page is unmapped while another CPU, which has its translation cached, writes to it.

use crate::race::stage::{PATIENCE, Scene, at, map, pages};
use spile::{Denied, Locking, Prot};
use spile_sync::atomic::{AtomicBool, Ordering};
use spile_sync::sched::Outcome;

/// One interleaving.
pub fn play<L: Locking>(seed: u64) -> Outcome {
    let is_written = AtomicBool::new(false);
    Scene::<L> {
        before: &|cpu, stage| map(&cpu.enter(&stage.mm), pages(0, 1), Prot::RW),
        sides: &[
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                // SeqCst, here and below: a word of the scene's own, outside of what is played.
                while !is_written.load(Ordering::SeqCst) {
                    cpu.pause();
                }
                user.unmap(pages(0, 1)).expect("it is mapped");
                assert_eq!(user.load(at(0)), Err(Denied::Unmapped));
            },
            &|cpu, stage| {
                let user = cpu.enter(&stage.mm);
                while user.store(at(0), 0xbb).is_ok() {
                    is_written.store(true, Ordering::SeqCst);
                    cpu.pause();
                }
            },
        ],
        after: &|cpu, stage| assert_eq!(cpu.enter(&stage.mm).load(at(0)), Err(Denied::Unmapped)),
        patience: PATIENCE,
    }
    .play(seed)
}
