//! What workers do: two that touch pages, one that takes them away, one that unmaps regions and maps them anew.

use super::book::BookOf;
use super::watch::Doing;
use super::{Slot, World, count, wrong};
use crate::proofs::Numbers;
use spile::Denied;
use spile_linux::{Failed, PAGE, Region};
use std::cell::Cell;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Workers that touch pages, the first of all.
pub const THREADS: usize = 2;

thread_local! {
    /// What this thread reads may fail: nobody touches the region, so nobody gets a signal.
    pub static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

type Verb = (&'static str, fn(&mut Worker<'_, '_>, &Slot));

const TOUCHES: &[Verb] = &[
    ("touch", |it, slot| it.touch(slot)),
    ("touch", |it, slot| it.touch(slot)),
    ("touch", |it, slot| it.touch(slot)),
    ("read_at", |it, slot| it.copy_out(slot)),
    ("write_at", |it, slot| it.copy_in(slot)),
    ("prefetch", |it, slot| it.prefetch(slot)),
];
const TAKES: &[Verb] = &[
    ("evict", |it, slot| it.evict(slot)),
    ("evict", |it, slot| it.evict(slot)),
    ("set_budget", |it, slot| it.set_budget(slot)),
    ("flush", |it, slot| it.flush(slot)),
];
const MAPS: &[Verb] = &[
    ("map anew", |it, slot| it.map_anew(slot)),
    ("prefetch", |it, slot| it.prefetch(slot)),
    ("prefetch", |it, slot| it.prefetch(slot)),
    ("prefetch", |it, slot| it.prefetch(slot)),
    ("flush", |it, slot| it.flush(slot)),
];

pub const ALL: [&[Verb]; 4] = [TOUCHES, TOUCHES, TAKES, MAPS];

/// What that worker calls that verb.
pub fn name(worker: usize, verb: u64) -> &'static str {
    ALL[worker][verb as usize].0
}

pub struct Worker<'w, 'p> {
    world: &'w World<'p>,
    nth: usize,
    numbers: Numbers,
    doing: &'w Doing,
}

/// Where a word of a region is.
fn word(region: &Region<BookOf>, page: u64, nth: u64) -> &AtomicU64 {
    assert!(page * PAGE < region.len());
    // SAFETY: (1) of the region; (2) used as an atomic, or copied by the region's own calls.
    unsafe { AtomicU64::from_ptr(region.as_ptr().add((page * PAGE + nth * 8) as usize).cast()) }
}

impl<'w, 'p> Worker<'w, 'p> {
    pub fn new(world: &'w World<'p>, nth: usize, doing: &'w Doing) -> Self {
        Self { world, nth, numbers: Numbers::new(world.scene.seed ^ (nth as u64 + 1) << 48), doing }
    }

    pub fn run(mut self, verbs: &[Verb]) {
        let world = self.world;
        while !world.is_over.load(Relaxed) {
            let _running = world.running.read().unwrap();
            let verb = self.numbers.below(verbs.len() as u64);
            let slot = self.numbers.below(world.slots.len() as u64) as usize;
            self.doing.begin(verb, slot);
            verbs[verb as usize].1(&mut self, &world.slots[slot]);
        }
    }

    /// Reads and writes pages, as a program does.
    fn touch(&mut self, slot: &Slot) {
        let _touched = slot.touched.read().unwrap();
        let region = slot.region.read().unwrap();
        let region = region.as_ref().expect("it is mapped");
        let pages = region.len() / PAGE;
        let first = self.numbers.below(pages);
        let is_random = self.numbers.one_in(2);
        for nth in 0..1 + self.numbers.below(48) {
            let page = if is_random { self.numbers.below(pages) } else { (first + nth) % pages };
            if self.numbers.one_in(2) {
                self.write(slot, region, page);
            } else {
                self.read(slot, region, page);
            }
        }
    }

    fn write(&self, slot: &Slot, region: &Region<BookOf>, page: u64) {
        let (book, thread) = (&slot.book, self.nth);
        let mut counts = slot.counts[thread].lock().unwrap();
        let now = &mut counts[page as usize];
        let was = word(region, page, book.nth_owned(page, thread)).swap(book.owned(page, thread, *now + 1), Relaxed);
        let expected = book.owned(page, thread, *now);
        book.must(was == expected, page, || {
            format!("thread {thread} had written {expected:#x}, {now} times, and finds {was:#x}")
        });
        *now += 1;
        count(&self.world.totals.writes);
    }

    /// This thread's word, and one that nobody writes.
    fn read(&mut self, slot: &Slot, region: &Region<BookOf>, page: u64) {
        let (book, thread) = (&slot.book, self.nth);
        let (own, any) = (book.nth_owned(page, thread), self.numbers.below(PAGE / 8));
        let is = word(region, page, own).load(Relaxed);
        self.compare(slot, page, own, is);
        let is = word(region, page, any).load(Relaxed);
        self.compare(slot, page, any, is);
        count(&self.world.totals.reads);
    }

    /// A word is what it must be, unless it is another thread's.
    fn compare(&self, slot: &Slot, page: u64, nth: u64, is: u64) {
        let book = &slot.book;
        let owner = (0..THREADS).find(|thread| book.nth_owned(page, *thread) == nth);
        let was = match owner {
            None => book.word(page, nth),
            Some(thread) if thread == self.nth => book.owned(page, thread, slot.counts[thread].lock().unwrap()[page as usize]),
            Some(_) => return,
        };
        book.must(is == was, page, || format!("thread {} finds {is:#x} in word {nth}, and it is {was:#x}", self.nth));
    }

    /// Does something whose reads may fail. Whether it was done.
    fn try_to<T>(&self, what: impl FnOnce() -> Result<T, Failed>) -> Option<T> {
        MAY_FAIL.set(true);
        let done = what();
        MAY_FAIL.set(false);
        let failed = match done {
            Ok(done) => return Some(done),
            Err(failed) => failed,
        };
        if failed.why != Denied::Bus {
            wrong(&self.world.scene, format_args!("wrong: {failed}"));
        }
        count(&self.world.totals.refused_accesses);
        None
    }

    fn copy_out(&mut self, slot: &Slot) {
        let _alone = slot.touched.write().unwrap();
        let region = slot.region.read().unwrap();
        let region = region.as_ref().expect("it is mapped");
        let words = self.numbers.part(region.len() / 8);
        let words = words.start..words.end.min(words.start + 2048);
        let mut bytes = vec![0; 8 * (words.end - words.start) as usize];
        if self.try_to(|| region.read_at(words.start * 8, &mut bytes)).is_some() {
            for (nth, bytes) in words.zip(bytes.chunks(8)) {
                let is = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
                self.compare(slot, nth / (PAGE / 8), nth % (PAGE / 8), is);
            }
            count(&self.world.totals.copied_out);
        }
    }

    fn copy_in(&mut self, slot: &Slot) {
        let mut region = slot.region.write().unwrap();
        let region = region.as_mut().expect("it is mapped");
        let page = self.numbers.below(region.len() / PAGE);
        let (book, thread) = (&slot.book, self.nth);
        let mut counts = slot.counts[thread].lock().unwrap();
        let next = book.owned(page, thread, counts[page as usize] + 1).to_ne_bytes();
        let at = page * PAGE + book.nth_owned(page, thread) * 8;
        if self.try_to(|| region.write_at(at, &next)).is_some() {
            counts[page as usize] += 1;
            count(&self.world.totals.copied_in);
        }
    }

    fn prefetch(&mut self, slot: &Slot) {
        let _alone = slot.touched.write().unwrap();
        let region = slot.region.read().unwrap();
        let region = region.as_ref().expect("it is mapped");
        let bytes = self.numbers.part(region.len());
        if self.try_to(|| region.prefetch(bytes)).is_some() {
            count(&self.world.totals.prefetched);
        }
    }

    fn evict(&mut self, slot: &Slot) {
        let region = slot.region.read().unwrap();
        let region = region.as_ref().expect("it is mapped");
        let bytes = self.numbers.part(region.len());
        // Seldom many at once: else nothing would have to leave for the budget.
        region.evict(if self.numbers.one_in(8) { bytes } else { bytes.start..bytes.end.min(bytes.start + 8 * PAGE) });
        count(&self.world.totals.evictions);
    }

    fn set_budget(&mut self, slot: &Slot) {
        let region = slot.region.read().unwrap();
        let bytes = (8 + self.numbers.below(64)) * PAGE;
        let budget = self.numbers.one_in(4).then_some(bytes);
        region.as_ref().expect("it is mapped").set_budget(budget).expect("it is enough");
        count(&self.world.totals.budgets);
    }

    fn flush(&mut self, slot: &Slot) {
        let region = slot.region.read().unwrap();
        let is_done = region.as_ref().expect("it is mapped").flush().is_ok();
        count(if is_done { &self.world.totals.flushes } else { &self.world.totals.refused_flushes });
    }

    /// A region goes, with all that was written kept, and another of the same pages comes.
    fn map_anew(&mut self, slot: &Slot) {
        let mut region = slot.region.write().unwrap();
        let before = region.take().expect("it is mapped");
        slot.book.is_calm.store(true, Relaxed);
        // A write that was refused before may end only now.
        let is_kept = (0..3).any(|_| before.flush().is_ok());
        drop(before);
        slot.book.is_calm.store(false, Relaxed);
        if !is_kept {
            wrong(&self.world.scene, format_args!("wrong: a flush fails, and the backing does not"));
        }
        slot.holds_all();
        *region = Some(self.world.map(&slot.book, &mut self.numbers));
    }
}
