//! Benchmarks of the field, on the core and on the host.
//!
//! **Guarantee.** What a figure is of was checked while it was measured: the counters of the core have to say what the benchmark's definition says.
//! Times are those of this machine and this moment: only their ratios within one run mean anything.
//!
//! **Mechanism.** A definition (`workload`) is carried out by one loop (`play`) on any `target`; contenders take turns (`rounds`). What more
//! CPUs than the host has would do is counted on simulated ones (`scenes`), and only then put into a `model` of time.

pub mod catalogue;
pub mod child;
pub mod clock;
#[cfg(target_os = "linux")]
pub mod host;
pub mod mapper;
pub mod model;
pub mod play;
pub mod report;
pub mod rounds;
#[cfg(feature = "sched")]
pub mod scenes;
pub mod target;
pub mod workload;

use crate::lean::Lean;
use mapper::{Latencies, Mapper};
use play::{Contender, Player};
use spile::Locking;
use target::Core;
use workload::Workload;

/// A design as a contender, on this machine.
pub fn contender<L: Locking>(lean: &Lean, workload: &Workload, threads: usize) -> Box<dyn Contender> {
    Box::new(Player::new(L::NAME, Core::<L>::new(lean), workload, threads))
}

/// Latencies under a design.
pub fn latencies<L: Locking>(lean: &Lean, mapper: Mapper) -> Latencies {
    mapper.measure(&Core::<L>::new(lean))
}
