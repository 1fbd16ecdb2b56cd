//! A process that pages its own memory on Linux.
//!
//! **Guarantee.** What cannot be had here is said, with what would grant it: nothing is done by a worse way in silence.
//!
//! **Mechanism.** [`Uffd`] is a userfaultfd; [`probe()`] asks the kernel what it lets this process do, by doing it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod probe;
mod uffd;

pub use probe::{Capabilities, Door, Engine, Refused, probe};
pub use uffd::{Features, Uffd};
