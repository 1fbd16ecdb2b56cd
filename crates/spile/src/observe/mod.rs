//! Looking at an address space.
//!
//! **Guarantee.** Readers take no lock that a fault or a change waits for, where the design's index lets them: but for the two oldest designs, all do. A
//! mapping that is replaced meanwhile may be seen twice, in pieces; what stays mapped is never left out.
//!
//! **Mechanism.** One look of the design per mapping, and one read section per table of its pages.

mod maps;
mod smaps;

pub use maps::{Contents, Mapping};
pub use smaps::Resident;
