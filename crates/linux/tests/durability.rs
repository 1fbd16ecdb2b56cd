//! What a crash leaves: after a flush that succeeded, whatever was written before it.
//!
//! Longer: `SPILE_CRASH_PROGRAMS=20000 SPILE_CRASH_FLUSHES=20000 cargo test --release -p spile-linux --test durability -- --nocapture`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod pagers;
mod proofs;

use pagers::pager;
use proofs::{Numbers, mix, seed, size};
use spile_linux::backing::{Backing, Page};
use spile_linux::{PAGE, Pager, Region};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};

/// Pages of a region.
const PAGES: u64 = 24;
/// Words of a page that are written: one in each eighth of it.
const WORDS: u64 = 8;
const ALL: u64 = PAGES * WORDS;

/// What the words of a page are: numbers that become larger.
type Words = [u64; WORDS as usize];

/// The byte of word `nth` in its page.
fn byte_of(nth: u64) -> usize {
    (nth * (PAGE / WORDS) + nth * 8) as usize
}

fn words_of(page: &Page) -> Words {
    std::array::from_fn(|nth| u64::from_ne_bytes(page[byte_of(nth as u64)..][..8].try_into().expect("eight bytes")))
}

/// What happened, in this order.
enum Event {
    /// A page is being written: from now on a crash may leave it.
    Writes { page: u64, words: Words },
    /// The write that began with that event is over. Its page is what it had before, the new, or a mixture.
    Wrote(usize),
    /// It is durable what was written before that event.
    Synced(usize),
    /// A flush has succeeded. Words were at least that when it began.
    Flushed(Box<[u64; ALL as usize]>),
}

/// How a device is to fail.
#[derive(Default)]
struct Faults {
    /// One in so many writes is refused; 0: none.
    writes: AtomicU64,
    syncs: AtomicU64,
    /// It says that all is durable, and has done nothing.
    forgets: bool,
    /// Others have time to do something between its steps.
    lingers: bool,
}

/// A device with a cache, and its story.
#[derive(Default)]
struct Logged {
    faults: Faults,
    /// What it gives to who reads.
    pages: Mutex<Vec<Words>>,
    story: Mutex<Vec<Event>>,
    nth: AtomicU64,
    seed: u64,
}

impl Logged {
    fn new(seed: u64, faults: Faults) -> Arc<Self> {
        Arc::new(Self { faults, seed, pages: Mutex::new(vec![[0; WORDS as usize]; PAGES as usize]), ..Self::default() })
    }

    fn tell(&self, event: Event) -> usize {
        let mut story = self.story.lock().unwrap();
        story.push(event);
        story.len() - 1
    }

    /// Whether to do as if the device had refused.
    fn refuses(&self, one_in: &AtomicU64) -> io::Result<()> {
        let (nth, one_in) = (self.nth.fetch_add(1, Relaxed), one_in.load(Relaxed));
        let is_refused = one_in > 0 && mix(self.seed ^ nth << 20).is_multiple_of(one_in);
        if is_refused { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    fn linger(&self) {
        if self.faults.lingers {
            std::thread::yield_now();
        }
    }
}

/// A region's part of it.
struct Shared(Arc<Logged>);

// SAFETY: (1) what it gives is what it was given, of the words that are written, and zeros else; a write that it refuses changes nothing that it gives; (2) nobody else changes that.
unsafe impl Backing for Shared {
    fn fill(&self, first: u64, pages: &mut [&mut Page]) -> io::Result<()> {
        let kept = self.0.pages.lock().unwrap();
        for (kept, page) in kept[first as usize..].iter().zip(pages) {
            page.fill(0);
            (0..).zip(kept).for_each(|(nth, word)| page[byte_of(nth)..][..8].copy_from_slice(&word.to_ne_bytes()));
        }
        Ok(())
    }

    fn write_back(&self, first: u64, pages: &[&Page]) -> io::Result<()> {
        for (page, bytes) in (first..).zip(pages) {
            let words = words_of(bytes);
            let began = self.0.tell(Event::Writes { page, words });
            self.0.linger();
            self.0.refuses(&self.0.faults.writes)?;
            self.0.pages.lock().unwrap()[page as usize] = words;
            self.0.tell(Event::Wrote(began));
        }
        Ok(())
    }

    fn takes_writes(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        let began = self.0.story.lock().unwrap().len();
        self.0.linger();
        self.0.refuses(&self.0.faults.syncs)?;
        if !self.0.faults.forgets {
            self.0.tell(Event::Synced(began));
        }
        Ok(())
    }
}

/// A write whose page need not be durable.
struct Cached {
    began: usize,
    is_over: Option<usize>,
    page: u64,
    words: Words,
}

/// What a device has.
struct Device {
    durable: Vec<Words>,
    cached: Vec<Cached>,
}

/// What becomes of cached writes when the power goes.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Lost,
    Kept,
    /// Some are lost, some kept, of some there is the beginning.
    Some,
}

impl Device {
    /// Whether the last write of that page was of the same words, and did not end: it is this one now.
    fn begins_again(&mut self, began: usize, page: u64, words: &Words) -> bool {
        let last = self.cached.iter_mut().rfind(|write| write.page == page);
        let same = last.filter(|write| write.is_over.is_none() && write.words == *words);
        same.map(|write| write.began = began).is_some()
    }

    fn sync(&mut self, began: usize) {
        let is_durable = |write: &Cached| write.is_over.is_some_and(|over| over < began);
        // Up to which write each page is durable: what came before that is replaced.
        let mut upto = [None; PAGES as usize];
        for write in self.cached.iter().filter(|write| is_durable(write)) {
            self.durable[write.page as usize] = write.words;
            upto[write.page as usize] = Some(write.began);
        }
        self.cached.retain(|write| Some(write.began) > upto[write.page as usize]);
    }

    /// What is there after a crash.
    fn crash(&self, how: Crash, numbers: &mut Numbers, torn: &mut u64) -> Vec<Words> {
        let mut left = self.durable.clone();
        for write in &self.cached {
            let whole = WORDS as usize;
            let count = match how {
                Crash::Lost => 0,
                Crash::Kept => whole,
                Crash::Some => [0, whole, numbers.below(WORDS + 1) as usize][numbers.below(3) as usize],
            };
            *torn += u64::from(count > 0 && count < whole);
            left[write.page as usize][..count].copy_from_slice(&write.words[..count]);
        }
        left
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    programs: u64,
    flushed: u64,
    refused: u64,
    /// Writes that were not made.
    denied: u64,
    cuts: u64,
    torn: u64,
    /// Programs of which something is missing, and of the first of them what.
    lost: u64,
    first: Option<String>,
}

impl Found {
    /// Crashes at every point of a story: is anything missing that was flushed before, or there that nobody wrote?
    fn judge(&mut self, story: &[Event], last: &[u64; ALL as usize], seed: u64) {
        let mut device = Device { durable: vec![[0; WORDS as usize]; PAGES as usize], cached: Vec::new() };
        let mut flushed = [0; ALL as usize];
        let mut numbers = Numbers::new(seed);
        self.programs += 1;
        for (cut, event) in story.iter().enumerate() {
            match event {
                // One that was refused, and is made again, leaves nothing new.
                Event::Writes { page, words } if device.begins_again(cut, *page, words) => continue,
                Event::Writes { page, words } => {
                    device.cached.push(Cached { began: cut, is_over: None, page: *page, words: *words });
                }
                Event::Wrote(began) => {
                    let write = device.cached.iter_mut().find(|write| write.began == *began);
                    write.expect("it is not durable yet").is_over = Some(cut);
                }
                Event::Synced(began) => device.sync(*began),
                Event::Flushed(words) => {
                    self.flushed += 1;
                    flushed.iter_mut().zip(words.iter()).for_each(|(least, word)| *least = (*least).max(*word));
                }
            }
            for how in [Crash::Lost, Crash::Kept, Crash::Some, Crash::Some] {
                self.cuts += 1;
                let left = device.crash(how, &mut numbers, &mut self.torn);
                let wrong = left.iter().flatten().enumerate().find(|(n, word)| !(flushed[*n]..=last[*n]).contains(word));
                if let Some((n, word)) = wrong {
                    let (page, nth) = (n as u64 / WORDS, n as u64 % WORDS);
                    let told = format!(
                        "a crash after event {cut} of {}, cached writes {how:?}: word {nth} of page {page} is {word}; it was {} when it was flushed, and {} last",
                        story.len(),
                        flushed[n],
                        last[n]
                    );
                    self.lost += 1;
                    self.first.get_or_insert(told);
                    return;
                }
            }
        }
    }

    fn is_sound(&self, seed: u64) {
        println!("{self:?}");
        if let Some(first) = &self.first {
            panic!("{} of {} programs lose what was flushed; {first}. SPILE_CRASH_SEED={seed}", self.lost, self.programs);
        }
        assert!(self.flushed > 0 && self.refused > 0 && self.torn > 0, "nothing was tried");
    }
}

/// A program on its region.
struct Program {
    region: Region<Shared>,
    device: Arc<Logged>,
    /// What each word was written last.
    last: Box<[AtomicU64; ALL as usize]>,
}

impl Program {
    fn new(pager: &Pager, device: Arc<Logged>, window: u32) -> Self {
        let region = pager.region(Shared(device.clone()), PAGES * PAGE).around(window).budget(8 * PAGE);
        let last = Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { region: region.map().expect("there is memory"), device, last }
    }

    fn word(&self, n: u64) -> &AtomicU64 {
        let byte = n / WORDS * PAGE + byte_of(n % WORDS) as u64;
        // SAFETY: (1) of the region; (2) used as an atomic alone.
        unsafe { AtomicU64::from_ptr(self.region.as_ptr().add(byte as usize).cast()) }
    }

    /// Writes the next number to a word, by the thread that writes it alone.
    fn write(&self, n: u64) {
        let next = self.last[n as usize].load(Relaxed) + 1;
        assert_eq!(self.word(n).swap(next, Relaxed), next - 1, "word {n}");
        // Release: who finds this number knows that it is in the region.
        self.last[n as usize].store(next, Ordering::Release);
    }

    /// The same, unless the page finds no memory: where a device refuses writes nothing may be able to leave.
    fn try_write(&self, n: u64, found: &mut Found) {
        let at = n / WORDS * PAGE;
        match self.region.prefetch(at..at + 1) {
            Ok(()) => self.write(n),
            Err(_) => found.denied += 1,
        }
    }

    fn last(&self) -> Box<[u64; ALL as usize]> {
        let last = Box::new(std::array::from_fn(|n| self.last[n].load(Ordering::Acquire)));
        fence(Ordering::SeqCst);
        last
    }

    fn evict(&self, numbers: &mut Numbers) {
        let part = numbers.part(PAGES);
        self.region.evict(part.start * PAGE..part.end * PAGE);
    }

    fn flush(&self, found: &mut Found) {
        let last = self.last();
        match self.region.flush() {
            Ok(()) => _ = self.device.tell(Event::Flushed(last)),
            Err(_) => found.refused += 1,
        }
    }

    /// So many steps, by this thread alone: the same of the same numbers.
    fn play(&self, steps: u64, numbers: &mut Numbers, found: &mut Found) {
        let faults = &self.device.faults;
        for _ in 0..steps {
            match numbers.below(16) {
                0..5 => self.try_write(numbers.below(ALL), found),
                5..9 if faults.writes.load(Relaxed) == 0 => self.write(numbers.below(ALL)),
                5..9 => {}
                9..12 => self.evict(numbers),
                12..14 => self.flush(found),
                14 => faults.syncs.store(numbers.below(3), Relaxed),
                _ => faults.writes.store([0, 0, 4, 1][numbers.below(4) as usize], Relaxed),
            }
        }
        // What is not durable after this would be lost with the region.
        faults.syncs.store(0, Relaxed);
        faults.writes.store(0, Relaxed);
        self.flush(found);
    }

    fn judge(self, seed: u64, found: &mut Found) {
        let story = std::mem::take(&mut *self.device.story.lock().unwrap());
        found.judge(&story, &self.last(), seed);
    }
}

/// Programs by one thread each, on a device that `forgets` what it has to sync, or not.
fn programs(pager: &Pager, first: u64, count: u64, forgets: bool) -> Found {
    let mut found = Found::default();
    for seed in first..first + count {
        let device = Logged::new(seed, Faults { forgets, ..Faults::default() });
        let mut numbers = Numbers::new(seed);
        let program = Program::new(pager, device, if seed.is_multiple_of(2) { 1 } else { 16 });
        program.play(160, &mut numbers, &mut found);
        program.judge(seed, &mut found);
    }
    found
}

#[test]
fn what_was_flushed_is_there_after_a_crash() {
    let Some(pager) = pager(<Pager>::LEAST) else { return };
    let seed = seed("SPILE_CRASH_SEED");
    programs(&pager, seed, size("SPILE_CRASH_PROGRAMS", 100), false).is_sound(seed);
}

#[test]
fn it_is_not_where_a_sync_does_nothing() {
    let Some(pager) = pager(<Pager>::LEAST) else { return };
    let found = programs(&pager, 1, 40, true);
    println!("{found:?}");
    assert!(found.lost > found.programs / 2, "crashes do not lose what they may");
}

#[test]
fn it_is_there_where_others_write_and_evict_meanwhile() {
    let Some(pager) = pager(<Pager>::LEAST) else { return };
    let (seed, flushes) = (seed("SPILE_CRASH_SEED"), size("SPILE_CRASH_FLUSHES", 300));
    let mut found = Found::default();
    for round in 0..flushes.div_ceil(30) {
        let seed = seed + round;
        let faults = Faults { lingers: true, writes: AtomicU64::new(24), syncs: AtomicU64::new(6), ..Faults::default() };
        let program = Program::new(&pager, Logged::new(seed, faults), 1);
        let (program_of_all, is_over) = (&program, AtomicBool::new(false));
        let until_over = |numbers: u64, step: fn(&Program, &mut Numbers)| {
            let mut numbers = Numbers::new(numbers);
            while !is_over.load(Relaxed) {
                step(program_of_all, &mut numbers);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| until_over(seed, |program, numbers| program.write(numbers.below(ALL))));
            scope.spawn(|| until_over(!seed, Program::evict));
            (0..30).for_each(|_| program.flush(&mut found));
            is_over.store(true, Relaxed);
        });
        program.judge(seed, &mut found);
    }
    found.is_sound(seed);
}
