//! Page tables: walking, installing, zapping, protecting, gathering what a flush must wait for.
//!
//! **Guarantee.** Whatever runs at the same time: an entry is installed only where nothing was, and only while whoever asked still holds
//! what it holds (P1); a table is linked only into a table that is linked itself (P2, P3); a frame is given up only after every
//! CPU has forgotten it (P8). This module knows no VMAs: it takes a range, a permission and a closure that says whether
//! the caller's hold is still good.
//!
//! **Mechanism.** Tables are frames, entries are words. Walks read words without locks, in a read section of the platform's RCU, for
//! table frames are freed after a grace period. Each table has a lock; an entry changes only under the lock of its
//! table, save for the accessed and dirty bits, which hardware sets. A table that is about to be freed is *detached* first: under
//! its lock and its parent's, when it is empty. Whoever locks a table looks at that mark, and walks again.
//!
//! Locks are taken from the root down, two at most; of two tables of one level, the lower frame number first.

mod advise;
mod away;
mod commit;
mod copy;
#[cfg(feature = "file")]
mod cut;
mod each;
mod gather;
mod hold;
mod install;
mod keep;
mod limbo;
mod protect;
mod pte;
mod relocate;
mod span;
mod spares;
mod table;
mod visit;
mod zap;

pub(crate) use away::Owed;
#[cfg(feature = "file")]
pub(crate) use cut::Hidden;
pub use gather::{Dispatched, Gather, Issued};
pub use install::Lost;
pub(crate) use install::Spot;
pub(crate) use limbo::Limbo;
pub use pte::{Format, Pte};
pub use span::SpanShare;
pub use spares::Spares;
pub use table::{BITS, LEVELS, PageTable, Table, TableLock};
pub(crate) use visit::Displacing;
