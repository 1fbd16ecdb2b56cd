//! Looking at an address space.
//!
//! **Guarantee.** Readers take no lock that a fault or a change waits for, where the design's index lets them: but for the two oldest designs, all do. A
//! mapping that is replaced meanwhile may be seen twice, in pieces; what stays mapped is never left out.
//!
//! **Mechanism.** One look of the design per mapping, and one read section per table of its pages. What happened is counted by who does it, with feature
//! `counters`.

mod counters;
mod maps;
mod smaps;

#[cfg(feature = "counters")]
pub use counters::Counters;
pub use counters::Event;
pub(crate) use counters::{Counts, Way};
pub use maps::{Contents, Mapping};
pub use smaps::Resident;
