//! A recorded program with less memory than it wants.
//!
//! **Guarantee.** What is compared with the kernel's is compared as without pressure: mappings, results of calls, which faults are allowed. No fault is refused for want of
//! memory.
//!
//! **Mechanism.** Replayed twice on a machine whose MMU marks what is accessed: with as much memory as it wants, to see how much that is, and with a part of that, slots for the
//! rest, and as many tables. Both times with accesses of which the recording does not tell.

use super::{Program, Progress, Replay, Report, complete};
use spile::Locking;
use spile_mmtrace::Step;
use spile_sim::{Sim, Swapped, Uses};

/// Frames beside those for pages: for tables that wait for a grace period, and to balance with.
const BESIDE: usize = 48;

/// What a squeezed replay found.
#[derive(Clone, Debug)]
pub struct Squeezed {
    /// What it found.
    pub report: Report,
    /// What the program had in memory at most, with as much as it wanted.
    pub wanted: Uses,
    /// The frames that it had for pages.
    pub frames: usize,
    /// Pages that went to slots, and came back.
    pub swapped: Swapped,
    /// Faults that were denied with as much memory as it wanted.
    pub denied_in_plenty: usize,
}

impl Squeezed {
    /// Whether it is as the kernel had it, and no fault was denied that was not with enough memory.
    pub fn agrees(&self) -> bool {
        self.report.agrees() && self.report.denied() == self.denied_in_plenty
    }
}

/// All of `steps` with frames for `percent` of the pages that they want.
pub fn squeezed<L: Locking>(steps: &[Step], percent: usize, seed: u64, progress: Progress<'_>) -> Squeezed {
    let plenty = Sim::builder().cpus(1).frames(super::FRAMES).seed(seed).build();
    let in_plenty = echoed::<L>(&plenty, steps, seed, &mut |done| progress(done / 2));
    let wanted = plenty.uses();
    let frames = wanted.most_pages * percent / 100;
    let all = frames + wanted.most_tables + BESIDE;
    let scarce = Sim::builder().cpus(1).frames(all as u32).swap(2 * wanted.most_pages as u32).seed(seed).build();
    let report = echoed::<L>(&scarce, steps, seed, &mut |done| progress((steps.len() + done) / 2));
    Squeezed { report, wanted, frames, swapped: scarce.swap().done(), denied_in_plenty: in_plenty.denied() }
}

fn echoed<L: Locking>(machine: &Sim, steps: &[Step], seed: u64, progress: Progress<'_>) -> Report {
    let program = Program::<_, L>::new(machine.clone(), steps).with_echo(seed);
    complete(Replay::of(program), steps, progress)
}
