//! An RCU-safe B-tree of disjoint ranges.
#![cfg_attr(not(any(feature = "std", loom)), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod buf;
mod build;
mod climb;
mod gap;
mod handle;
mod iter;
#[cfg(all(feature = "std", not(loom)))]
pub mod map;
mod node;
mod path;
mod span;
mod splice;
mod stock;
mod tree;
mod validate;
mod writer;

pub use build::Unbuilt;
pub use gap::{BadFit, Fit};
pub use handle::{Handle, Token};
pub use iter::Iter;
#[cfg(all(feature = "std", not(loom)))]
pub use map::{RangeMap, ReadMap};
pub use span::{EmptySpan, Span};
pub use splice::MAX_NEW;
pub use stock::{Heap, Need, NoMemory, NodeAlloc};
pub use tree::RangeTree;
pub use validate::{Broken, Stats};
pub use writer::{Displaced, Refused, Rejected, Writer};
