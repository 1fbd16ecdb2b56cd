//! Where the contents of regions come from, and where they go.
//!
//! **Guarantee.** A [`Backing`] sees pages of its own region alone, whole, and while it has them nobody changes them.
//!
//! **Mechanism.** One trait, called by whichever thread faults or lets pages leave, in a handler of SIGBUS or not.

mod anonymous;
mod bits;
mod file;
mod generated;

pub use anonymous::Anonymous;
pub use file::{Mode, OnFile};
pub use generated::Generated;

use crate::PAGE;
use std::io;
use std::ops::Range;

/// The contents of a page. Those that a [`Backing`] is given begin at a page of memory, so they suit `O_DIRECT`.
pub type Page = [u8; PAGE as usize];

/// Where the contents of a region come from, and where they go.
///
/// Any thread calls it that touches the region, and several at once, about different pages; calls about one page come one after the other. So it must not touch that region, nor wait for a
/// thread that does. It may touch others of its pager; meanwhile its thread asks no backing to keep pages. It runs while the thread is
/// in a handler of a signal that its own load or store has raised: locks and the heap may be used, if no thread touches the region while it has that lock, or from within the heap.
/// A panic is an error.
///
/// # Safety
///
/// Programs have `&[u8]` of a region, whose bytes must not change by themselves. So an implementor owes: (1) what [`fill`](Self::fill) gives of a page is what
/// [`write_back`](Self::write_back) was given last; (2) before that, and since a [`discard`](Self::discard), the same each time.
pub unsafe trait Backing: Send + Sync + 'static {
    /// Fills `pages` with what is in the pages from number `first` on. What lies beyond the end of what there is becomes zeros.
    ///
    /// # Errors
    ///
    /// None of them is used; who wants one is asked for each alone, and told.
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()>;

    /// Keeps `pages`, from number `first` on, instead of what it had. It need not be durable until [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// They stay in memory, and are written again.
    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        let _ = (first, pages);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether it keeps what is written. If not, pages that were written stay in memory.
    fn takes_writes(&self) -> bool {
        false
    }

    /// Makes durable what was written back.
    ///
    /// # Errors
    ///
    /// It may not be; it is asked again.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// What it has of `pages`, by number, is not wanted any more.
    fn discard(&self, pages: Range<u64>) {
        let _ = pages;
    }
}
