//! What each locking design does to real programs.
//!
//! **Guarantee.** What is printed was done by the shipped core: no figure is kept anywhere, and a recording that differs from what the kernel had says where.
//!
//! **Mechanism.** A verb of the command line is a file in [`verb`]. Designs are taken from the core's own list, so that a new one is in every table.
#![deny(missing_docs)]

pub mod bench;
pub mod concurrent;
pub mod design;
pub mod heap;
pub mod interrupt;
pub mod jobs;
pub mod lean;
pub mod output;
mod panics;
pub mod parts;
pub mod progress;
pub mod race;
pub mod replay;
pub mod report;
pub mod source;
pub mod stage;
pub mod timeline;
pub mod verb;
