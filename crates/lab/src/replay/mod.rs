//! A recorded program, run through the core.
//!
//! **Guarantee.** Every call and fault of the recording is made; what differs from what the kernel had is counted and told with its line. Done one
//! after the other they come in the order in which the kernel made the changes.
//!
//! **Mechanism.** `program` has the address spaces and knows what a step does; this file makes the steps in order.

mod echo;
mod program;
mod report;
mod squeezed;

pub(crate) use program::Program;
pub(crate) use report::count;
pub use report::{Difference, Fullest, Report};
pub use squeezed::{Squeezed, squeezed};

use crate::heap;
use crate::lean::Lean;
use crate::stage::Stage;
use spile::{Locking, Mapping};
use spile_mmtrace::Step;
use std::collections::BTreeMap;

/// The memory of the machine that programs are replayed on, in frames: as much as the largest recording needs, and more. It is not there before it is used.
pub const FRAMES: u32 = 500_000;
/// Who shows progress is told how many steps are done.
pub type Progress<'p> = &'p mut dyn FnMut(usize);
/// So many steps are made between two words to that.
const STRIDE: usize = 1024;

/// All of `steps` under one design on a machine that only counts; `progress` is told how many are done.
pub fn replayed<L: Locking>(steps: &[Step], progress: Progress<'_>) -> Report {
    complete(Replay::<_, L>::new(steps), steps, progress)
}

/// The same on this machine.
pub fn replayed_on<P: Stage, L: Locking>(stage: P, steps: &[Step], progress: Progress<'_>) -> Report {
    complete(Replay::<P, L>::on(stage, steps), steps, progress)
}

fn complete<P: Stage, L: Locking>(mut replay: Replay<P, L>, steps: &[Step], progress: Progress<'_>) -> Report {
    replay.advance(steps, progress);
    replay.finish()
}

/// Makes the steps of a recording one after the other, on one CPU.
pub struct Replay<P: Stage, L: Locking> {
    program: Program<P, L>,
    report: Report,
    /// What this thread had in use before.
    heap: isize,
}

impl<L: Locking> Replay<Lean, L> {
    /// Of a program that will make these steps, on a machine that only counts.
    pub fn new(steps: &[Step]) -> Self {
        Self::on(Lean::new(1, FRAMES, false), steps)
    }
}

impl<P: Stage, L: Locking> Replay<P, L> {
    /// Of a program that will make these steps, on this machine.
    pub fn on(stage: P, steps: &[Step]) -> Self {
        Self::of(Program::new(stage, steps))
    }

    fn of(program: Program<P, L>) -> Self {
        Self { program, report: Report::default(), heap: heap::in_use() }
    }

    /// Makes `steps`, which come after those made before.
    pub fn advance(&mut self, steps: &[Step], progress: Progress<'_>) {
        let mut done = 0;
        for some in steps.chunks(STRIDE) {
            let Self { program, report, .. } = self;
            program.stage().run(0, || some.iter().for_each(|step| program.step(step, report)));
            self.weigh();
            done += some.len();
            progress(done);
        }
    }

    /// Remembers the moment if more is mapped than at any before.
    fn weigh(&mut self) {
        let (spaces, mappings) = self.program.extent();
        if mappings <= self.report.fullest.map_or(0, |fullest| fullest.mappings) {
            return;
        }
        self.program.stage().drain();
        let bytes = usize::try_from(heap::in_use() - self.heap).unwrap_or(0).saturating_sub(spaces * Program::<P, L>::SPACE);
        if bytes > 0 {
            let height = self.program.stage().run(0, || self.program.height());
            self.report.fullest = Some(Fullest { mappings, bytes, height });
        }
    }

    /// Nothing comes any more: what was found.
    ///
    /// # Panics
    ///
    /// If memory is missing then.
    pub fn finish(self) -> Report {
        let Self { program, mut report, .. } = self;
        let stage = program.stage().clone();
        let counted = program.finish();
        report.note(counted, stage.flushes());
        report
    }

    /// The mappings of each address space, by its number.
    pub fn mappings(&self) -> BTreeMap<usize, Vec<Mapping>> {
        self.program.mappings()
    }
}
