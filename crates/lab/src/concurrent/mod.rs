//! A recorded program on several CPUs at once.
//!
//! **Guarantee.** Steps that concern each other are made in the recorded order, so every snapshot, result and line of the kernel must still agree;
//! all others are made when their CPU comes to them. So faults meet changes, and changes each other, wherever the program allowed it.
//!
//! **Mechanism.** `footprint` says which steps meet; `recorded` finds what each reaches where everything is at the recorded place, `free` where
//! every mapping is placed anew, and snapshots agree in how much is mapped of each kind. `plan` deals the threads to CPUs and notes for each
//! step which steps of other CPUs must come before it. `crew` are the CPUs: each makes its steps in order and sleeps until what it needs is
//! there, which is nobody's cost. `simulated` runs them under the seeded scheduler and charges what faults and changes do to cache lines;
//! `threads` runs them as threads of the host.

mod crew;
mod footprint;
mod found;
mod free;
mod plan;
mod recorded;
#[cfg(feature = "sched")]
pub mod simulated;
pub mod threads;

pub use footprint::Footprints;
pub use found::{Cost, Costs, Found};
pub use free::freely;
pub use plan::{Plan, WINDOW};
pub use recorded::as_recorded;
