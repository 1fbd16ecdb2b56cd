//! Increments of words whose pages are taken away all the time: none is lost.
//!
//! Longer: `SPILE_RACE_INCREMENTS=1000000000 SPILE_RACE_EVICTIONS=20000 cargo test --release -p spile-linux --test eviction_race -- --nocapture --test-threads 1`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
mod pagers;
mod proofs;

use common::Map;
use pagers::{Kept, built};
use proofs::{Numbers, seed, size};
use spile_linux::backing::{Backing, Page};
use spile_linux::{Engine, Features, PAGE, Pager, Uffd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Pages that are written, of which a part is in memory at once.
const PAGES: u64 = 96;
/// Threads that write, at most.
const THREADS: usize = 2;
/// Increments of a word before a thread goes to another page, at most.
const BURST: u64 = 1 << 14;

/// The word of a thread in each page: on a cache line of its own.
const fn nth_of(thread: usize) -> usize {
    64 * thread + 8
}

/// Who writes, and where.
#[derive(Default)]
struct Writers {
    at: [AtomicU64; THREADS],
    increments: [AtomicU64; THREADS],
    are_done: AtomicBool,
}

impl Writers {
    fn increments(&self) -> u64 {
        self.increments.iter().map(|of_thread| of_thread.load(Relaxed)).sum()
    }

    /// Writes pages from `start` on until it is done. How many increments are not there.
    fn write(&self, start: u64, thread: usize, mut numbers: Numbers) -> u64 {
        // SAFETY: (1) a word of a page that is mapped, or brought by who resolves faults; (2) used as an atomic alone.
        let word = |page: u64| unsafe { AtomicU64::from_ptr((start + page * PAGE + nth_of(thread) as u64 * 8) as *mut u64) };
        let mut counts = [0; PAGES as usize];
        while !self.are_done.load(Relaxed) {
            let page = numbers.below(PAGES);
            self.at[thread].store(page, Relaxed);
            let burst = 1 + numbers.below(BURST);
            (0..burst).for_each(|_| _ = word(page).fetch_add(1, Relaxed));
            counts[page as usize] += burst;
            self.increments[thread].fetch_add(burst, Relaxed);
        }
        (0..PAGES).map(|page| counts[page as usize] - word(page).load(Relaxed)).sum()
    }
}

/// What became of a race.
struct Outcome {
    increments: u64,
    evictions: u64,
    lost: u64,
}

/// Until there are so many of both.
struct Until {
    increments: u64,
    evictions: u64,
}

impl Until {
    fn told(increments: u64, evictions: u64) -> Self {
        Self { increments: size("SPILE_RACE_INCREMENTS", increments), evictions: size("SPILE_RACE_EVICTIONS", evictions) }
    }
}

/// So many threads write pages from `start` on, while `evict` is called for the pages where they are. It says how many pages were taken away so far that were newer than before.
fn race(start: u64, writers: &Writers, threads: usize, until: &Until, seed: u64, mut evict: impl FnMut(u64) -> u64) -> Outcome {
    let mut numbers = Numbers::new(seed);
    let mut evictions = 0;
    let lost = std::thread::scope(|scope| {
        let of_thread = |thread| {
            let numbers = Numbers::new(numbers.any());
            scope.spawn(move || writers.write(start, thread, numbers))
        };
        let threads: Vec<_> = (0..threads).map(of_thread).collect();
        while writers.increments() < until.increments || evictions < until.evictions {
            evictions = evict(writers.at[numbers.below(threads.len() as u64) as usize].load(Relaxed));
        }
        writers.are_done.store(true, Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("it only counts")).sum()
    });
    Outcome { increments: writers.increments(), evictions, lost }
}

/// Pages in memory, which it counts as they come.
struct Counted {
    kept: Kept,
    writers: Arc<Writers>,
    /// Pages that were newer than before.
    newer: AtomicU64,
    /// Of these, those where a thread was writing just then.
    busy: AtomicU64,
}

// SAFETY: (1) and (2) as `Kept` does.
unsafe impl Backing for Counted {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        self.kept.fill(first, pages)
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        for (page, bytes) in (first..).zip(pages) {
            let word = |nth: usize| u64::from_ne_bytes(bytes[nth * 8..][..8].try_into().expect("eight bytes"));
            let words = || (0..THREADS).map(nth_of).map(|nth| (self.kept.word(page, nth), word(nth)));
            if words().any(|(before, now)| now < before) {
                return Err(io::Error::other(format!("page {page} is older than before")));
            }
            if words().any(|(before, now)| now > before) {
                self.newer.fetch_add(1, Relaxed);
                let is_busy = self.writers.at.iter().any(|at| at.load(Relaxed) == page);
                self.busy.fetch_add(u64::from(is_busy), Relaxed);
            }
        }
        self.kept.write_back(first, pages)
    }

    fn takes_writes(&self) -> bool {
        true
    }
}

fn nothing_is_lost(threads: usize, engine: Engine) {
    // Less than there are pages, and the region's part is less again: so pages leave for the pager and for the region, besides those that the evictor takes.
    let Some(pager) = built(Pager::builder().budget(<Pager>::LEAST).engine(engine)) else { return };
    let writers = Arc::new(Writers::default());
    let counted = Counted { kept: Kept::new(PAGES), writers: writers.clone(), newer: AtomicU64::new(0), busy: AtomicU64::new(0) };
    let region = pager.region(counted, PAGES * PAGE).around(1).budget(<Pager>::LEAST * 3 / 4).map().expect("there is memory");
    let (seed, until, mut calls) = (seed("SPILE_RACE_SEED"), Until::told(4_000_000, 200), 0u64);
    let outcome = race(region.as_ptr() as u64, &writers, threads, &until, seed, |page| {
        calls += 1;
        let all = calls.is_multiple_of(64);
        region.evict(if all { 0..PAGES * PAGE } else { page * PAGE..(page + 1) * PAGE });
        region.backing().newer.load(Relaxed)
    });
    let Outcome { increments, evictions, lost } = outcome;
    let (busy, status) = (region.backing().busy.load(Relaxed), region.status());
    let (filled, written) = (status.filled / PAGE, status.written / PAGE);
    println!(
        "{engine:?}, {threads} writing: {increments} increments, {lost} lost; {written} pages written back, {evictions} of them newer, {busy} where a thread was writing; {filled} read; \
         {calls} calls of the evictor"
    );
    assert_eq!(lost, 0, "increments are not there; SPILE_RACE_SEED={seed}");
    assert_eq!(status.failed, 0, "a page was older than before; SPILE_RACE_SEED={seed}");
    assert!(written >= evictions && busy > 0 && filled > PAGES, "pages were not taken away");
}

#[test]
fn nothing_is_lost_of_one_thread() {
    Engine::ALL.into_iter().for_each(|engine| nothing_is_lost(1, engine));
}

#[test]
fn nothing_is_lost_of_two() {
    Engine::ALL.into_iter().for_each(|engine| nothing_is_lost(2, engine));
}

/// A pager of one mapping, by hand: who misses a page sleeps until it is copied there again, which the evictor does.
struct ByHand {
    uffd: Uffd,
    map: Map,
    /// Whether a page cannot be written from when it is copied on: the protocol.
    protects: bool,
    kept: [Page; PAGES as usize],
    newer: u64,
}

impl ByHand {
    fn new(protects: bool) -> Option<Box<Self>> {
        let uffd = common::uffd(Features::PAGEFAULT_FLAG_WP)?;
        let map = Map::anonymous(PAGES);
        let kept = [[0; PAGE as usize]; PAGES as usize];
        // SAFETY: (1) who misses a page waits for this; (2) nobody writes zeros.
        unsafe {
            uffd.register(map.at(0), map.len()).expect("ours, and new");
            uffd.copy(map.at(0), kept.as_ptr() as u64, map.len(), false).expect("there is nothing");
        }
        Some(Box::new(Self { uffd, map, protects, kept, newer: 0 }))
    }

    /// Takes a page away, and brings it again. How many there were that were newer than before.
    fn evict(&mut self, page: u64) -> u64 {
        let (at, kept) = (self.map.at(page), &mut self.kept[page as usize]);
        let before = *kept;
        // SAFETY: (1) who writes a page that is protected, or misses one, waits for the last call; (2) words are read as atomics, as they are written; (3) nobody else has what is kept.
        unsafe {
            if self.protects {
                self.uffd.protect(at, PAGE, true).expect("it is there");
            }
            for (nth, bytes) in kept.chunks_mut(8).enumerate() {
                bytes.copy_from_slice(&AtomicU64::from_ptr((at as *mut u64).add(nth)).load(Relaxed).to_ne_bytes());
            }
            assert_eq!(libc::madvise(at as *mut libc::c_void, PAGE as usize, libc::MADV_DONTNEED), 0);
            self.uffd.copy(at, kept.as_ptr() as u64, PAGE, false).expect("it is gone");
        }
        self.newer += u64::from(*kept != before);
        self.newer
    }
}

/// How many are lost by hand, of so many increments and evictions at least.
fn lost_by_hand(protects: bool) -> Option<u64> {
    let mut by_hand = ByHand::new(protects)?;
    let (writers, until) = (Writers::default(), Until { increments: 1_000_000, evictions: 100 });
    let seed = seed("SPILE_RACE_SEED");
    let Outcome { increments, evictions, lost } = race(by_hand.map.at(0), &writers, 1, &until, seed, |page| by_hand.evict(page));
    println!(
        "by hand, protected: {protects}: {increments} increments, {evictions} evictions, {lost} lost; SPILE_RACE_SEED={seed}"
    );
    Some(lost)
}

#[test]
fn without_the_protocol_some_are_lost() {
    let Some(lost) = lost_by_hand(false) else { return };
    assert!(lost > 0, "the race does not find what it is for");
    assert_eq!(lost_by_hand(true), Some(0), "it finds what is not there");
}
