//! A recorded program on several CPUs at once.
//!
//! **Guarantee.** Steps that concern each other are made in the recorded order, so every snapshot, result and line of the kernel must still agree;
//! all others are made when their CPU comes to them. So faults meet changes, and changes each other, wherever the program allowed it.
//!
//! **Mechanism.** [`footprint`] finds what each step looks at and changes, by a replay in order. [`plan`] deals the threads to CPUs and notes for each
//! step which steps of other CPUs must come before it. [`crew`] are the CPUs: each makes its steps in order and sleeps until what it needs is
//! there, which is nobody's cost. [`simulated`] runs them under the seeded scheduler and charges what faults and changes do to cache lines;
//! [`threads`] runs them as threads of the host.

mod crew;
mod footprint;
mod plan;
#[cfg(feature = "sched")]
pub mod simulated;
pub mod threads;

pub use footprint::{Footprint, Footprints, footprints};
pub use plan::{Plan, WINDOW};
