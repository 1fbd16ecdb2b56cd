//! What is in the pages of a region, by rule, and a backing that keeps what threads wrote.
//!
//! Of each page a thread owns a word, and all others say which page of which region they are. A backing looks at all words of what it is given.

use super::workers::{MAY_FAIL, THREADS};
use super::{Kind, Scene, Totals, count, wrong};
use crate::proofs::mix;
use spile_linux::PAGE;
use spile_linux::backing::{Backing, Page};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

const WORDS: u64 = PAGE / 8;

pub struct Book {
    id: u64,
    scene: Scene,
    totals: Arc<Totals>,
    /// What was kept of the words that threads own.
    kept: Vec<[AtomicU64; THREADS]>,
    asked: AtomicU64,
    /// It does not fail for now: not before everything is mapped.
    pub is_calm: AtomicBool,
}

impl Book {
    pub fn new(id: u64, pages: u64, scene: Scene, totals: Arc<Totals>) -> Self {
        let mut book = Self { id, scene, totals, kept: Vec::new(), asked: AtomicU64::new(0), is_calm: AtomicBool::new(true) };
        let words = |page| std::array::from_fn(|thread| AtomicU64::new(book.owned(page, thread, 0)));
        book.kept = (0..pages).map(words).collect();
        book
    }

    pub fn pages(&self) -> u64 {
        self.kept.len() as u64
    }

    /// What word `nth` of a page is if no thread owns it.
    pub fn word(&self, page: u64, nth: u64) -> u64 {
        mix(self.id << 40 | page << 10 | nth)
    }

    /// Which word of a page a thread owns.
    pub fn nth_owned(&self, page: u64, thread: usize) -> u64 {
        self.word(page, WORDS) % (WORDS / THREADS as u64) * THREADS as u64 + thread as u64
    }

    /// What that is when it was written so often.
    pub fn owned(&self, page: u64, thread: usize, count: u64) -> u64 {
        self.word(page, self.nth_owned(page, thread)).wrapping_add(mix(count) & u64::from(count > 0).wrapping_neg())
    }

    /// The same, of what was kept.
    pub fn holds(&self, page: u64, thread: usize, count: u64) {
        let (is, was) = (self.kept[page as usize][thread].load(Relaxed), self.owned(page, thread, count));
        self.must(is == was, page, || format!("the word of thread {thread} was kept as {is:#x}, and is {was:#x}"));
    }

    pub fn must(&self, is_so: bool, page: u64, what: impl FnOnce() -> String) {
        if !is_so {
            wrong(&self.scene, format_args!("wrong: region {}, page {page}: {}", self.id, what()));
        }
    }

    /// A number for each call.
    fn chance(&self) -> u64 {
        mix(self.scene.seed ^ self.id << 32 ^ self.asked.fetch_add(1, Relaxed))
    }

    /// A device takes its time, now and then.
    fn linger(&self, chance: u64) {
        if chance.is_multiple_of(1024) {
            sleep(Duration::from_millis(3));
        } else if chance.is_multiple_of(16) {
            sleep(Duration::from_micros(chance >> 8 & 127));
        }
    }

    fn refuse(&self, is_refused: bool, total: &AtomicU64) -> io::Result<()> {
        if is_refused && !self.is_calm.load(Relaxed) {
            count(total);
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    fn keep(&self, page: u64, bytes: &Page) {
        let word = |nth: u64| u64::from_ne_bytes(bytes[nth as usize * 8..][..8].try_into().expect("eight bytes"));
        let owned: [u64; THREADS] = std::array::from_fn(|thread| self.nth_owned(page, thread));
        for nth in (0..WORDS).filter(|nth| !owned.contains(nth)) {
            let (is, was) = (word(nth), self.word(page, nth));
            self.must(is == was, page, || format!("word {nth} is written back as {is:#x}, and is {was:#x}"));
        }
        owned.iter().zip(&self.kept[page as usize]).for_each(|(nth, kept)| kept.store(word(*nth), Relaxed));
    }
}

/// A region's part of a book: all of it.
// SAFETY: (1) it gives what was kept, and what is by rule; a write that is refused changes nothing; (2) the same each time. But for the controls, which end the process.
unsafe impl Backing for BookOf {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        let chance = self.0.chance();
        self.0.linger(chance);
        if self.0.scene.kind == Kind::Hangs && chance >> 32 & 0xff == 0 && !self.0.is_calm.load(Relaxed) {
            loop {
                std::thread::park();
            }
        }
        // A thread that touches a page would get a signal.
        self.0.refuse(MAY_FAIL.get() && (chance >> 16).is_multiple_of(4), &self.0.totals.refused_fills)?;
        for (page, bytes) in (first..).zip(pages) {
            for (nth, bytes) in (0..).zip(bytes.chunks_mut(8)) {
                bytes.copy_from_slice(&self.0.word(page, nth).to_ne_bytes());
            }
            // Beyond the pages it has there are none.
            for (thread, kept) in self.0.kept.get(page as usize).into_iter().flatten().enumerate() {
                let at = self.0.nth_owned(page, thread) as usize * 8;
                bytes[at..][..8].copy_from_slice(&kept.load(Relaxed).to_ne_bytes());
            }
            count(&self.0.totals.filled);
        }
        Ok(())
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        let chance = self.0.chance();
        self.0.linger(chance);
        self.0.refuse((chance >> 16).is_multiple_of(8), &self.0.totals.refused_writes)?;
        let forgets = self.0.scene.kind == Kind::Forgets && chance >> 32 & 0xff == 0;
        for (page, bytes) in (first..).zip(pages).filter(|_| !forgets) {
            self.0.keep(page, bytes);
            count(&self.0.totals.written);
        }
        Ok(())
    }

    fn takes_writes(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        let chance = self.0.chance();
        self.0.linger(chance);
        self.0.refuse(chance >> 16 & 7 == 0, &self.0.totals.refused_syncs)
    }
}

/// A book, as a region's backing.
pub struct BookOf(pub Arc<Book>);
