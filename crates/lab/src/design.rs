//! The designs, by their names.

use crate::bench::mapper::{Latencies, Mapper};
use crate::bench::play::Contender;
#[cfg(feature = "sched")]
use crate::bench::scenes::{Costs, Scene, measure};
use crate::bench::workload::Workload;
use crate::bench::{contender, latencies, real};
#[cfg(feature = "sched")]
use crate::concurrent::simulated::simulated;
use crate::concurrent::threads::threaded;
use crate::concurrent::{Found, Plan};
use crate::lean::Lean;
use crate::replay::{Progress, Report, Squeezed, replayed, squeezed};
use anyhow::{Result, bail};
use spile::Locking;
use spile_mmtrace::Step;

/// Is told now and then how many steps are done, by any thread.
pub type Tell<'a> = &'a (dyn Fn(usize) + Sync);

/// A design of the core's list, and what can be done with it.
pub struct Design {
    /// What it is called.
    pub name: &'static str,
    /// Makes the steps of a recording, and says now and then how many are done.
    pub replay: fn(&[Step], Progress<'_>) -> Report,
    /// The same with memory for a part, in per cent, of the pages that they want, by a seed.
    pub squeezed: fn(&[Step], usize, u64, Progress<'_>) -> Squeezed,
    /// Makes them as a plan says, by a seeded schedule, and counts what that costs.
    #[cfg(feature = "sched")]
    pub simulated: fn(&[Step], &Plan<'_>, u64, Tell<'_>) -> Found,
    /// Makes them as a plan says, on threads of the host.
    pub threaded: fn(&[Step], &Plan<'_>, Tell<'_>) -> Found,
    /// Makes a benchmark's passes on a machine, with so many threads.
    pub contender: fn(&Lean, &Workload, usize) -> Box<dyn Contender>,
    /// The same on real memory of this process, if that can be had.
    pub real: fn(&Workload, usize) -> Result<Box<dyn Contender>>,
    /// Measures how long calls take.
    pub latencies: fn(&Lean, Mapper) -> Latencies,
    /// Counts what so many simulated CPUs do to cache lines; none if the scene is not played on so many.
    #[cfg(feature = "sched")]
    pub lines: fn(Scene, usize) -> Option<Costs>,
}

macro_rules! list {
    ([$($module:ident $design:ident,)*]) => {
        &[$(Design {
            name: <spile::$design as Locking>::NAME,
            replay: replayed::<spile::$design>,
            squeezed: squeezed::<spile::$design>,
            #[cfg(feature = "sched")]
            simulated: simulated::<spile::$design>,
            threaded: threaded::<spile::$design>,
            contender: contender::<spile::$design>,
            real: real::<spile::$design>,
            latencies: latencies::<spile::$design>,
            #[cfg(feature = "sched")]
            lines: measure::<spile::$design>,
        },)*]
    };
}

impl Design {
    /// Makes the steps of a recording as a plan says, by the schedule of this seed.
    ///
    /// # Panics
    ///
    /// In a build without the scheduler: ask [`can_play`](crate::race::variant::can_play) before.
    #[cfg(feature = "sched")]
    pub fn simulate(&self, steps: &[Step], plan: &Plan<'_>, seed: u64) -> Found {
        (self.simulated)(steps, plan, seed, &|_| ())
    }

    /// The same.
    #[cfg(not(feature = "sched"))]
    pub fn simulate(&self, _: &[Step], _: &Plan<'_>, _: u64) -> Found {
        unreachable!("who simulates asks before whether this build can")
    }
}

/// All, in the order of their history. (A static: what it points to is compiled once.)
pub static DESIGNS: &[Design] = spile::for_each_design!(list!());

/// What a verb runs if it is not told.
pub const USUAL: &str = "vma_refcount";

/// Those of these names, in the order of the list; `all` is all.
///
/// # Errors
///
/// A name is no design's.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Design>> {
    let is_known = |name: &&String| *name == "all" || DESIGNS.iter().any(|design| design.name == *name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let all: Vec<_> = DESIGNS.iter().map(|design| design.name).collect();
        bail!("no design is called `{unknown}`; there are {} and all", all.join(", "));
    }
    let is_chosen = |design: &&Design| names.iter().any(|name| name == "all" || name == design.name);
    Ok(DESIGNS.iter().filter(is_chosen).collect())
}
