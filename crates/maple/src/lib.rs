//! A B-tree of disjoint ranges of `u64` that readers search without waiting.
//!
//! **Guarantee.** Any number of readers under RCU beside one writer. A lookup is wait-free: one descent, no lock, no retry, no
//! allocation, no store to shared memory, and it may run in a signal or interrupt handler that interrupted the writer itself.
//! Every change, however many nodes it touches, becomes visible by one store: while a range is split, merged or replaced a
//! reader sees the old state or the new, and a key that stays covered is never seen uncovered. The writer reserves memory first
//! and cannot fail halfway.
//!
//! **Mechanism.** Nodes are written once and replaced, never edited; a slot is the only thing that changes. The module heads
//! carry the protocol: `node` (what a node is), `tree` (why a replaced node is still a valid answer), `splice` and `climb` (how a
//! change is made), `stock` (where nodes come from and go), `gap` (free space), `iter` (walking).
//!
//! # Which type
//!
//! | | for | locks | values |
//! |---|---|---|---|
//! | [`RangeMap<V>`](RangeMap) | a program with `rangemap` or `RwLock<BTreeMap>` today (feature `std`) | its own, for writers | boxed, `V: Clone` |
//! | [`RangeTree<H, R, A>`](RangeTree) | kernels, VMMs, emulators: bring your own RCU, memory and writer lock | the caller's, proved by a [`Writer`] | one pointer-sized owned [`Handle`] per range |
//!
//! ```
//! use spile_maple::{Fit, RangeTree, Span, Token};
//! use spile_rcu::{Global, Rcu};
//!
//! let page = 0x1000;
//! let tree = RangeTree::new();
//! let text = Span::with_len(0x40_0000, 16 * page).unwrap();
//! let one = Token::new(1).unwrap();
//!
//! let mut writer = tree.try_write().expect("nobody else writes");
//! drop(writer.store(text, one)?); // dropping what was displaced retires it
//! let hole = writer.highest_gap(Fit::aligned(4 * page, page, 0)?, Span::new(0, 0x7fff_ffff).unwrap());
//! assert_eq!(hole, Some(0x7fff_ffff + 1 - 4 * page));
//!
//! // Three pieces in the place of one, in one step.
//! let piece = |i: u64, pages: u64| (Span::with_len(0x40_0000 + i * page, pages * page).unwrap(), Token::new(i as usize));
//! drop(writer.replace(text, [piece(0, 4), piece(4, 1), piece(5, 11)])?);
//! drop(writer);
//!
//! let section = Global.read();
//! let (span, token) = tree.get(&section, 0x40_4fff).unwrap();
//! assert_eq!((span.len(), token.get()), (page, 4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory a change takes
//!
//! | change | nodes |
//! |---|---|
//! | the same span stored again; an erasure that leaves its leaf as it is | 0 |
//! | any change within a leaf that neither overflows nor runs empty | 1 |
//! | a leaf divides or joins its neighbour, a change across leaves | at most 3 leaves, 3 nodes per level above and a new root; usually 2 leaves and 1 node |
//!
//! [`Writer::bound`] says it for a given window, [`Writer::reserve`] takes it beforehand. A leaf is 512 bytes (768 where its ranges
//! lie too far apart for 31-bit offsets), an inner node 768.
//!
//! # Bad input
//!
//! | input | answer |
//! |---|---|
//! | an empty or inverted range | there is no such [`Span`]: `None` or [`EmptySpan`] |
//! | free space of size 0, an alignment that is no power of two, an offset not below it | [`BadFit`] |
//! | entries outside their window, overlapping, or a window that cuts a range | [`Refused`], with the entries |
//! | no memory | [`NoMemory`], with the value; nothing was changed |
//! | a guard of another RCU domain | a panic, before anything is read (with [`Global`](spile_rcu::Global) there is only one) |
//! | two writers | the second gets no [`Writer`] |
//!
//! The design is the Linux kernel's maple tree's (a B-tree of ranges for VMAs by L. Howlett and M. Wilcox), built from its
//! published protocol, with four differences: free space is not stored, nodes carry no dead mark and no parent pointer, most
//! leaves store offsets, and erased nodes go round within the tree.
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
pub use writer::{Displaced, Pieces, Refused, Rejected, Writer};
