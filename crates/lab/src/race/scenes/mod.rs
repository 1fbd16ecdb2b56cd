//! The races of the catalogue, as programs: a file each, each with the designs as its parameter.

pub mod fork_cow;
pub mod freed_page;
pub mod freed_table;
pub mod hole_in_maps;
pub mod late_reader;
pub mod lost_wake;
pub mod nested_flush;
pub mod recycled;
pub mod stack_rot;
