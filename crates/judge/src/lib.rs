//! Random sequences of Linux memory calls, executed side by side and compared.
//!
//! **Guarantee.** Two [`Subject`]s that pass [`judge`](compare::Judge) gave the same result for every call of every
//! sequence, and showed the same mappings, the same readable pages and the same bytes whenever they were looked at. A
//! difference is reported with the shortest sequence found that still shows it.
//!
//! **Mechanism.** A [`World`] says where sequences happen, with which files and which limits. [`generate`] makes sequences
//! that succeed more often than not. Three subjects exist: [`host`], the kernel this runs on, in a process that may be
//! lost; [`naive`], the plainest model of the same calls, one entry per page, which also serves where there is no such
//! kernel; and the implementation under test, which brings its own. [`compare`] runs two of them step by step.
//!
//! What is *not* judged: where the kernel puts a mapping that may lie anywhere. A result outside the window is
//! [`Outcome::Elsewhere`], and the subject unmaps it at once.
#![deny(missing_docs)]

pub mod abi;
pub mod call;
pub mod compare;
pub mod divergence;
pub mod generate;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod host;
pub mod naive;
pub mod report;
pub mod shrink;
pub mod subject;
pub mod us;
pub mod world;

pub use call::Call;
pub use subject::{Backing, Counters, Lost, MapLine, Outcome, PageView, Signal, Subject, VmFlags};
pub use world::World;
