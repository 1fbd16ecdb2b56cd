//! Whose atomics an access is about.

use std::panic::Location;

/// The parts, in the order of their numbers.
pub const PARTS: [&str; 5] = ["core", "page's table", "frame", "read sections", "machine"];
/// What comparisons of designs are about: the design, the index, the mappings, the address space.
pub const CORE: usize = 0;
/// The page's table: its lock with its state, its entries, and those of the tables above.
pub const TABLE: usize = 1;
/// The new frame: its record, and its bytes.
pub const FRAME: usize = 2;
const SECTION: usize = 3;
const MACHINE: usize = 4;

/// The number of the part by the place in the source. None for the lock that everybody uses: it belongs where its line does.
pub fn classify(at: &'static Location<'static>) -> Option<u8> {
    let file = at.file();
    let part = match () {
        () if file.ends_with("sync/src/lock.rs") => return None,
        () if file.ends_with("spile/src/paging/table.rs") => TABLE,
        () if file.ends_with("spile/src/platform.rs") || file.ends_with("sim/src/frames.rs") => FRAME,
        // Sections that may sleep are a design's own.
        () if file.contains("crates/rcu/") && !file.ends_with("srcu.rs") => SECTION,
        () if file.contains("crates/sim/") => MACHINE,
        () => CORE,
    };
    Some(part as u8)
}
