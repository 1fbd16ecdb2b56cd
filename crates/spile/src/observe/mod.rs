//! Looking at an address space without holding anybody up.
//!
//! **Guarantee.** Readers take no lock that a fault or a change waits for. A mapping that is replaced meanwhile may be seen twice, in
//! pieces; what stays mapped is never left out.
//!
//! **Mechanism.** One read section per mapping, and per table of its pages.

mod maps;
mod smaps;

pub use maps::{Contents, Mapping};
pub use smaps::Resident;
