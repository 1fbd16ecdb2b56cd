//! A process that pages its own memory on Linux.
//!
//! **Guarantee.** What cannot be had here is said, with what would grant it: nothing is done by a worse way in silence.
//!
//! **Mechanism.** A [`Pager`] has memory for [`Region`]s: addresses whose pages come from a [`backing`](backing::Backing) when they are touched, and go back there. A fault raises SIGBUS
//! on the thread that took it ([`Uffd`], opened by a [`Door`]), whose handler asks the core. [`probe()`] asks the kernel what it lets this process do, by doing it. [`Tracked`] is memory
//! that is not paged, and knows which of its pages were written.
//!
//! ```
//! use spile_linux::Pager;
//! use spile_linux::backing::{Mode, OnFile};
//! use std::{error::Error, path::Path};
//!
//! /// The sum of the numbers in a file of any length, in 8 MiB of memory.
//! fn sum(path: &Path) -> Result<u64, Box<dyn Error>> {
//!     let pager = Pager::builder().budget(8 << 20).build()?;
//!     // SAFETY: (1) nobody writes the file meanwhile.
//!     let file = unsafe { OnFile::open(path, Mode::READ) }?;
//!     let len = file.len();
//!     let numbers = pager.map(file, len)?;
//!     let sum = numbers.as_slice::<u64>().iter().sum();
//!     println!("{}", numbers.status());
//!     Ok(sum)
//! }
//! # if spile_linux::probe().engine.is_ok() {
//! #     let directory = tempfile::tempdir()?;
//! #     let path = directory.path().join("numbers");
//! #     std::fs::write(&path, (0..2_000_000u64).flat_map(u64::to_ne_bytes).collect::<Vec<_>>())?;
//! #     assert_eq!(sum(&path)?, 1_999_999_000_000);
//! # }
//! # Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! Where the kernel, or a container's profile, does not let it, [`Builder::build`] says why. To ask before:
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
mod events;
mod host;
mod latency;
mod pager;
mod pages;
mod probe;
mod region;
mod registry;
mod report;
mod runs;
mod scan;
mod signal;
mod status;
mod stopped;
mod trace;
mod tracked;
mod trial;
mod uffd;
mod watchdog;
mod workers;
mod working_set;

/// What can be had as a slice of is said by its traits: bounds of a user's own are by these.
pub use bytemuck;
pub use door::{Door, Reason, Rights, Shut};
pub use latency::Latency;
pub use pager::{Builder, NoPager, Pager, Usage};
pub use probe::{Engine, Refused, Report, probe};
pub use region::{
    Allowed, Failed, NoPin, NoRegion, OnFailure, Pinned, PinnedMut, PinnedPtr, Prefetch, Region, RegionBuilder, Unwritten,
};
pub use signal::thread_can_fault;
pub use status::Status;
pub use stopped::{Call, Cause, Stopped};
pub use trace::Trace;
pub use tracked::{NoTracking, Tracked};
pub use trial::{Ability, Why};
pub use uffd::{Features, Uffd};
pub use watchdog::{Asked, Watchdog};
pub use working_set::{Unreadable, WorkingSet};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
