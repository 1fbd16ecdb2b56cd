//! Pages that a function makes.
//!
//! **Guarantee.** Each page is what the function makes of zeros, each time anew; nothing is kept, and nothing is written.
//!
//! **Mechanism.** A call for each page.

use super::{Backing, Page};
use crate::PAGE;
use std::fmt;
use std::io;

/// Pages that `F` makes: numbers in an order, the result of a computation, what another place has. They are for reading: one that was written stays in memory.
///
/// ```
/// use spile_linux::backing::{Backing, Generated, Page};
///
/// // SAFETY: (1) what is made depends on the place alone.
/// let squares = unsafe {
///     Generated::new(|first: u64, page: &mut Page| {
///         for (n, number) in (first / 8..).zip(page.chunks_mut(8)) {
///             number.copy_from_slice(&(n * n).to_le_bytes());
///         }
///         Ok(())
///     })
/// };
/// let mut page = [0xff; 4096];
/// squares.fill(2, &mut [&mut page])?;
/// assert_eq!(page[8..16], (1025u64 * 1025).to_le_bytes());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Generated<F> {
    make: F,
}

impl<F: Fn(u64, &mut Page) -> io::Result<()> + Send + Sync + 'static> Generated<F> {
    /// Each page is what `make` makes of zeros; it is told which byte is the page's first. Its errors are given to whoever wants the page.
    ///
    /// # Safety
    ///
    /// (1) Of one page `make` makes the same each time, if it makes one.
    pub unsafe fn new(make: F) -> Self {
        Self { make }
    }
}

impl<F> fmt::Debug for Generated<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pages that are made")
    }
}

// SAFETY: (1) `write_back` takes nothing; (2) the same each time, says who gave the function, and of the same zeros.
unsafe impl<F: Fn(u64, &mut Page) -> io::Result<()> + Send + Sync + 'static> Backing for Generated<F> {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        (first..).zip(pages).try_for_each(|(number, page)| {
            page.fill(0);
            (self.make)(number * PAGE, page)
        })
    }
}
