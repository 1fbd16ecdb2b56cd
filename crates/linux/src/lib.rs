//! A process that pages its own memory on Linux.
//!
//! **Guarantee.** What cannot be had here is said, with what would grant it: nothing is done by a worse way in silence.
//!
//! **Mechanism.** [`Uffd`] is a userfaultfd, opened by a [`Door`]; [`probe()`] asks the kernel what it lets this process do, by doing it.
//! [`backing`] is where the contents of memory come from, and where they go.
//!
//! ```
//! let report = spile_linux::probe();
//! println!("{report}");
//! match report.engine {
//!     Ok(engine) => println!("faults would be resolved {engine}"),
//!     Err(refused) => println!("they cannot be: {refused}"),
//! }
//! ```
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod backing;
mod child;
mod door;
mod host;
mod latency;
mod pager;
mod pages;
mod probe;
mod region;
mod registry;
mod report;
mod scan;
mod signal;
mod status;
mod stopped;
mod tracked;
mod trial;
mod uffd;
mod watchdog;
mod working_set;

pub use door::{Door, Reason, Rights, Shut};
pub use latency::Latency;
pub use pager::{Builder, NoPager, Pager, Usage};
pub use probe::{Engine, Refused, Report, probe};
pub use region::{Failed, NoRegion, OnFailure, Region, RegionBuilder, Unwritten};
pub use signal::thread_can_fault;
pub use status::Status;
pub use stopped::{Call, Cause, Stopped};
pub use tracked::{NoTracking, Tracked};
pub use trial::{Ability, Why};
pub use uffd::{Features, Uffd};
pub use watchdog::{Asked, Watchdog};
pub use working_set::{Unreadable, WorkingSet};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
