//! Which CPU makes which step, and what must be done before.
//!
//! **Guarantee.** Who follows a plan never waits for ever: the first step in the recorded order that is not made can be.
//!
//! **Mechanism.** The threads of the recording are dealt to CPUs in turn. A step needs the last steps of other CPUs, within a window of the
//! recording, that it meets. And it waits until all before the window are made: so nothing is done long before its time.

use super::footprint::{Footprint, Footprints};
use super::free::Renaming;
use spile_mmtrace::Step;
use std::collections::BTreeMap;

/// How far a step may come before its time, in steps, unless told.
pub const WINDOW: usize = 256;

/// Who does what.
#[derive(Debug)]
pub struct Plan<'f> {
    /// Faults that are denied in order.
    pub(super) denied: usize,
    /// Where areas are placed anew, how.
    pub(super) renaming: Option<&'f Renaming>,
    /// The steps of each CPU, in the recorded order.
    pub(super) cpus: Vec<Vec<Task>>,
    /// How far a step may come before its time.
    pub(super) window: usize,
    /// The memory of a machine on which it can be carried out, in frames.
    pub(super) frames: u32,
}

/// What is freed late is still in use, and CPUs keep frames and tables at hand.
fn room(frames: u32, cpus: usize) -> u32 {
    frames + frames / 2 + 256 * cpus as u32 + 4096
}

/// A step to make.
#[derive(Debug)]
pub(super) struct Task {
    /// Its place in the recording.
    pub(super) at: usize,
    /// CPUs, and how many of their steps must have been made.
    pub(super) needs: Box<[(u32, u32)]>,
}

impl<'f> Plan<'f> {
    /// For how many CPUs it is.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// For this many CPUs.
    ///
    /// # Panics
    ///
    /// If there are none, or the window is nothing.
    pub fn new(steps: &[Step], footprints: &'f Footprints, cpus: usize, window: usize) -> Self {
        assert!(cpus > 0 && window > 0, "somebody must do something");
        let frames = room(footprints.frames, cpus);
        let renaming = footprints.renaming.as_ref();
        let mut plan =
            Self { denied: footprints.denied, renaming, cpus: (0..cpus).map(|_| Vec::new()).collect(), window, frames };
        // Of each step its CPU, and how many that had made with it.
        let mut places: Vec<(u32, u32)> = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let cpu = step.tid as usize % cpus;
            let needs = needs(at, cpu, &footprints.steps, &places[at.saturating_sub(window)..at]);
            plan.cpus[cpu].push(Task { at, needs });
            places.push((cpu as u32, plan.cpus[cpu].len() as u32));
        }
        plan
    }
}

/// What the step at `at` on `cpu` needs of the steps before it, of which these are the places.
fn needs(at: usize, cpu: usize, footprints: &[Footprint], before: &[(u32, u32)]) -> Box<[(u32, u32)]> {
    let first = at - before.len();
    let met = (first..at).zip(before).filter(|(other, (on, _))| *on != cpu as u32 && footprints[at].meets(&footprints[*other]));
    let needs: BTreeMap<u32, u32> = met.map(|(_, place)| *place).collect();
    needs.into_iter().collect()
}
