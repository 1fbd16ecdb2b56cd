//! Pagers, and backings in memory.
#![allow(dead_code, reason = "each test takes a part")]

use spile::Locking;
use spile_linux::backing::{Backing, Page};
use spile_linux::{Builder, Engine, PAGE, Pager};
use std::io;
use std::sync::Mutex;

/// A pager with such a budget, of the engine that `SPILE_ENGINE` names or the best that there is, or a word why the test is skipped.
pub fn pager(budget: u64) -> Option<Pager> {
    let builder = Pager::builder().budget(budget);
    built(match std::env::var("SPILE_ENGINE") {
        Err(_) => builder,
        Ok(name) => {
            let named = |engine: &Engine| format!("{engine:?}").eq_ignore_ascii_case(&name);
            builder.engine(Engine::ALL.into_iter().find(named).unwrap_or_else(|| panic!("SPILE_ENGINE={name}: there is none")))
        }
    })
}

/// One that was asked for so, or a word.
pub fn built<L: Locking>(builder: Builder<L>) -> Option<Pager<L>> {
    match builder.build() {
        Ok(pager) => Some(pager),
        Err(refused) if refused.is_refused() => {
            println!("skipped: {refused}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// Whether there are pagers here, or a word why not. Not by having one: that handles SIGBUS.
pub fn is_possible() -> bool {
    spile_linux::probe().engine.map_err(|refused| println!("skipped: {refused}")).is_ok()
}

/// Pages in memory.
pub struct Kept(Vec<Mutex<Box<Page>>>);

impl Kept {
    /// Full of zeros.
    pub fn new(pages: u64) -> Self {
        Self((0..pages).map(|_| Mutex::new(Box::new([0; PAGE as usize]))).collect())
    }

    /// Fills a page with a word.
    pub fn set(&self, page: u64, word: u64) {
        self.0[page as usize].lock().unwrap().chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_ne_bytes()));
    }

    pub fn word(&self, page: u64, nth: usize) -> u64 {
        u64::from_ne_bytes(self.0[page as usize].lock().unwrap()[nth * 8..][..8].try_into().unwrap())
    }
}

// SAFETY: (1) and (2) it gives what it was given.
unsafe impl Backing for Kept {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        for (kept, page) in self.0[first as usize..].iter().zip(pages) {
            page.copy_from_slice(&kept.lock().unwrap()[..]);
        }
        Ok(())
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        for (kept, page) in self.0[first as usize..].iter().zip(pages) {
            kept.lock().unwrap().copy_from_slice(&page[..]);
        }
        Ok(())
    }

    fn takes_writes(&self) -> bool {
        true
    }
}

/// What is asked before pages are filled or written: the first, and how many.
type Question = Box<dyn Fn(u64, usize) -> io::Result<()> + Send + Sync>;

/// [`Kept`] that does something first, or fails.
pub struct Asking {
    pub kept: Kept,
    fill: Question,
    write: Question,
}

impl Asking {
    /// Pages that have their number, and one more, as every word.
    pub fn numbered(pages: u64) -> Self {
        let kept = Kept::new(pages);
        (0..pages).for_each(|page| kept.set(page, page + 1));
        Self::new(kept)
    }

    /// Those.
    pub fn new(kept: Kept) -> Self {
        Self { kept, fill: Box::new(|_, _| Ok(())), write: Box::new(|_, _| Ok(())) }
    }

    /// Which asks this before it fills pages.
    pub fn fills(self, fill: impl Fn(u64, usize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { fill: Box::new(fill), ..self }
    }

    /// And this before it keeps some.
    pub fn writes(self, write: impl Fn(u64, usize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { write: Box::new(write), ..self }
    }
}

// SAFETY: (1) and (2) as `Kept`, if it does not fail.
unsafe impl Backing for Asking {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        (self.fill)(first, pages.len())?;
        self.kept.fill(first, pages)
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        (self.write)(first, pages.len())?;
        self.kept.write_back(first, pages)
    }

    fn takes_writes(&self) -> bool {
        true
    }
}
