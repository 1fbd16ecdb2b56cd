//! Benchmarks of the field, on the core and on the host.
//!
//! **Guarantee.** What a figure is of was checked while it was measured: the counters of the core have to say what the benchmark's definition says.
//! Times are those of this machine and this moment: only their ratios within one run mean anything.
//!
//! **Mechanism.** A definition (`workload`) is carried out by one loop (`play`) on any `target`: the core alone, the host, or the core on `real` memory; contenders take turns (`rounds`). What more
//! CPUs than the host has would do is counted on simulated ones (`scenes`), and only then put into a `model` of time.

pub mod catalogue;
pub mod child;
pub mod clock;
#[cfg(target_os = "linux")]
pub mod host;
pub mod mapper;
pub mod model;
pub mod play;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod real;
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

/// A design as a contender, on real memory of this process.
///
/// # Errors
///
/// The workload is not for that, or it cannot be had: says why, and what would change that.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn real<L: Locking>(workload: &Workload, threads: usize) -> anyhow::Result<Box<dyn Contender>> {
    Ok(Box::new(Player::new(L::NAME, real::Real::<L>::new(workload, threads)?, workload, threads)))
}

/// The same.
///
/// # Errors
///
/// Always: there is no pager for this computer.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn real<L: Locking>(_: &Workload, _: usize) -> anyhow::Result<Box<dyn Contender>> {
    anyhow::bail!("real memory takes Linux on x86-64: its pager is by userfaultfd")
}

/// Latencies under a design.
pub fn latencies<L: Locking>(lean: &Lean, mapper: Mapper) -> Latencies {
    mapper.measure(&Core::<L>::new(lean))
}
