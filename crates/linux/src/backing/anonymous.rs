//! Memory that begins as zeros, whose pages go to a store.
//!
//! **Guarantee.** A page is zeros until it was written back, and after it was discarded; in between it is what the store gives back, or an error. A page of zeros takes no room.
//!
//! **Mechanism.** The page's number is its slot in a store of `spile-stores`, and a bit for each says whether the store has it: stores are never asked for what they were not given.

use super::bits::Bits;
use super::{Backing, Page};
use crate::PAGE;
use spile::Slot;
use spile_stores::{Compressed, Memory, OnFile, Pages};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

static ZEROS: Page = [0; PAGE as usize];

/// Memory that begins as zeros, whose pages go to a store. It is not for keeping: it ends with this, and [`sync`](Backing::sync) does nothing, at once.
///
/// ```
/// use spile_linux::backing::{Anonymous, Backing};
///
/// let memory = Anonymous::compressed(1000, 1 << 20)?;
/// let mut page = [0xff; 4096];
/// memory.fill(7, &mut [&mut page])?;
/// assert_eq!(page, [0; 4096]);
///
/// memory.write_back(7, &[&[1; 4096]])?;
/// memory.fill(7, &mut [&mut page])?;
/// assert_eq!(page, [1; 4096]);
/// assert_eq!(memory.store().stored().pages, 1);
///
/// memory.discard(0..1000);
/// assert_eq!(memory.store().stored().pages, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// In memory as long as that is enough, and then in a file:
///
/// ```
/// use spile_linux::backing::Anonymous;
/// use spile_stores::{Compressed, OnFile, Tiered};
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let file = OnFile::temporary_in(directory).expect("it may be written");
/// let store = Tiered::new(1000, Compressed::new(1000, 1 << 20), file);
/// // SAFETY: (1) these stores give back what they were given, and the file has no name by which others would find it.
/// let memory = unsafe { Anonymous::new(store, 1000) }?;
/// assert_eq!(memory.pages(), 1000);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Anonymous<S> {
    store: S,
    pages: u64,
    /// Which pages the store has.
    kept: Bits,
}

impl Anonymous<Memory> {
    /// `pages` pages, which go to the heap as they are.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there are no slots for so many.
    pub fn on_heap(pages: u64) -> io::Result<Self> {
        Ok(Self::of(Memory::new(slots(pages)?), pages))
    }
}

impl Anonymous<Compressed> {
    /// `pages` pages, which go to the heap, compressed, as long as that takes at most `budget` bytes; those beyond stay in memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there are no slots for so many.
    pub fn compressed(pages: u64, budget: u64) -> io::Result<Self> {
        Ok(Self::of(Compressed::new(slots(pages)?, budget), pages))
    }
}

impl Anonymous<OnFile> {
    /// `pages` pages, which go to a file without a name in `directory`, that is gone with this.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there are no slots for so many. Of other kinds: none can be made there.
    pub fn temporary_in(directory: impl AsRef<Path>, pages: u64) -> io::Result<Self> {
        slots(pages)?;
        let store = OnFile::temporary_in(directory).map_err(|no_file| io::Error::new(no_file.error().kind(), no_file))?;
        Ok(Self::of(store, pages))
    }
}

impl<S: Pages> Anonymous<S> {
    /// `pages` pages, which go to `store`: it should have a slot for each. What it refuses stays in memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there are no slots for so many.
    ///
    /// # Safety
    ///
    /// (1) What `store` gives of a slot, if it gives anything, is what it was given last.
    pub unsafe fn new(store: S, pages: u64) -> io::Result<Self> {
        slots(pages)?;
        Ok(Self::of(store, pages))
    }
}

impl<S> Anonymous<S> {
    fn of(store: S, pages: u64) -> Self {
        Self { store, pages, kept: Bits::new(pages) }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}

/// As many slots.
fn slots(pages: u64) -> io::Result<u32> {
    let too_many = |_| format!("there are slots for {} pages, and not for {pages}", u32::MAX);
    u32::try_from(pages).map_err(too_many).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Of a page below the bound that [`slots`] checked.
fn slot(number: u64) -> Slot {
    Slot(number as u32)
}

impl<S: Pages> Anonymous<S> {
    fn has(&self, number: u64) -> bool {
        number < self.pages && self.kept.has(number)
    }

    fn get(&self, number: u64, page: &mut Page) -> io::Result<()> {
        if !self.has(number) {
            page.fill(0);
            Ok(())
        } else if self.store.get(slot(number), page) {
            Ok(())
        } else {
            Err(io::Error::other(format!("the store does not give page {number} back")))
        }
    }

    fn put(&self, number: u64, page: &Page) -> io::Result<()> {
        self.forget(number);
        if *page == ZEROS {
            return Ok(());
        }
        if number >= self.pages {
            let why = format!("cannot keep page {number}: there are {}", self.pages);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if !self.store.put(slot(number), page) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("the store does not take page {number}")));
        }
        self.kept.set(number);
        Ok(())
    }

    fn forget(&self, number: u64) {
        if self.has(number) {
            self.kept.clear(number);
            self.store.forget(slot(number));
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Anonymous<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages, which go to {:?}", self.pages, self.store)
    }
}

// SAFETY: (1) the store gives back what it was given, says who gave it, and this asks for nothing else: a bit is set when the store has the page, and cleared before it has not. A page
// without one is of zeros, or was refused, and then nobody asks; (2) zeros.
unsafe impl<S: Pages> Backing for Anonymous<S> {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        (first..).zip(pages).try_for_each(|(number, page)| self.get(number, page))
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        (first..).zip(pages).try_for_each(|(number, page)| self.put(number, page))
    }

    fn takes_writes(&self) -> bool {
        true
    }

    fn discard(&self, pages: Range<u64>) {
        self.kept.set_in(pages.start..pages.end.min(self.pages)).for_each(|number| self.forget(number));
    }
}
