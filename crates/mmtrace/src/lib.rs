//! Recorded address-space traces of real programs.
//!
//! **Guarantee.** A trace is either read whole or refused with the line at which it is wrong, and why; [`salvaged`] keeps what comes before. [`steps`] are in the order in which the
//! kernel made the changes, not in which they were called or returned.
//!
//! **Mechanism.** A trace is text, usually compressed with xz: `#` lines, then a table of files (`f fN KIND`), then one event per line,
//! `DT TID OP ARGS…`, numbers in hexadecimal but for times and threads. [`Trace::read`] turns lines into [`Event`]s; [`steps`] pairs calls with their
//! results, places each at the moment its thread got the address space's lock for writing, and follows which thread uses
//! which address space.
//!
//! ```
//! let trace = spile_mmtrace::Trace::open(concat!(env!("CARGO_MANIFEST_DIR"), "/traces/ls.mmt.xz"))?;
//! let steps = spile_mmtrace::steps(&trace)?;
//! let faults = steps.iter().filter(|step| matches!(step.kind, spile_mmtrace::Kind::Fault(_))).count();
//! assert_eq!(faults, 117); // and three of the loader, which belong to its exec
//! # Ok::<(), spile_mmtrace::Refused>(())
//! ```
#![deny(missing_docs)]

mod event;
mod order;
mod parse;

pub use event::{Call, Event, Fault, FileArg, Op, Snapshot, SnapshotVma, VmaLine, What};
pub use order::{Kernel, Kind, Salvaged, Step, salvaged, steps};
pub use parse::{Refused, Trace};
