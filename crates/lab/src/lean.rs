//! A machine that only counts: what the core does on it is nearly all that takes time.
//!
//! **Guarantee.** Every frame that was given is accounted for: [`Stage::finish`](crate::stage::Stage::finish) finds what was forgotten. CPUs that fault at once share no line
//! of this machine, but now and then the pool's.
//!
//! **Mechanism.** Each CPU, a thread that [`as_cpu`](Lean::as_cpu) was told to be one, keeps a stock of frames and tables, and exchanges them with
//! the pool by the dozen. Tables have memory, which is there when it is first touched. Pages have some only if asked for: recordings tell of
//! faults, and not of bytes. Nothing caches translations, so a flush is a number that is added to.

use memmap2::{MmapMut, MmapRaw};
use spile::paging::Table;
use spile::platform::{FrameMeta, Frames, Machine, Mmu, Platform};
use spile::{FrameId, PAGE, Range, Shared, SpaceId};
use spile_rcu::Global;
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const BYTES: usize = PAGE as usize;
/// So many frames go to a CPU or come from it at once.
const BATCH: usize = 64;
/// One table for so many frames, and a few.
const FRAMES_PER_TABLE: u32 = 8;
const TABLES: u32 = 4096;

thread_local! {
    /// The CPU that this thread stands for.
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// The machine. Cheap to clone; the clones are one.
#[derive(Clone, Debug)]
pub struct Lean(Arc<Host>);

#[derive(Debug)]
struct Host {
    metas: Box<[FrameMeta]>,
    /// Data frames are the numbers from 1 on, tables those from here on.
    first_table: u32,
    pages: Option<Pages>,
    tables: Pages,
    stocks: Box<[Stock]>,
    pool: Mutex<Kept>,
    shared: Shared,
}

/// What a CPU has at hand.
#[derive(Debug)]
#[repr(align(128))]
struct Stock(Mutex<Kept>);

/// Frames that nobody uses, and what was counted.
#[derive(Debug, Default)]
struct Kept {
    frames: Vec<FrameId>,
    tables: Vec<FrameId>,
    /// Frames and tables that were given, less those that came back.
    given: i64,
    /// The most there were.
    peak: i64,
    flushes: u64,
    /// Frames for pages that were given since the beginning.
    given_ever: u64,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that begins as zeros, and is not there before it is touched.
#[derive(Debug)]
struct Pages(MmapRaw);

impl Pages {
    fn new(count: u32) -> Self {
        Self(MmapRaw::from(MmapMut::map_anon(count as usize * BYTES).expect("addresses for the machine's memory")))
    }

    /// In large pages of the host, if it has some: as a kernel sees its memory.
    fn large(self) -> Self {
        #[cfg(target_os = "linux")]
        let _ = self.0.advise(memmap2::Advice::HugePage);
        self
    }

    /// Page `n`.
    fn page(&self, n: u32) -> *mut u8 {
        assert!((n as usize) < self.0.len() / BYTES, "there is no page {n}");
        self.0.as_mut_ptr().wrapping_add(n as usize * BYTES)
    }
}

impl Lean {
    /// A machine with so many CPUs and frames, whose pages have bytes or not.
    pub fn new(cpus: usize, frames: u32, with_bytes: bool) -> Self {
        assert!(cpus > 0 && frames > 0, "a machine has a CPU and a frame");
        let tables = frames / FRAMES_PER_TABLE + TABLES;
        let first_table = frames + 1;
        let pool = Kept {
            frames: (1..first_table).rev().map(FrameId).collect(),
            tables: (first_table..first_table + tables).rev().map(FrameId).collect(),
            ..Kept::default()
        };
        Self(Arc::new(Host {
            metas: (0..first_table + tables).map(|_| FrameMeta::new()).collect(),
            first_table,
            pages: with_bytes.then(|| Pages::new(first_table).large()),
            tables: Pages::new(tables),
            stocks: (0..cpus).map(|_| Stock(Mutex::default())).collect(),
            pool: Mutex::new(pool),
            shared: Shared::new(),
        }))
    }

    /// Runs `program` as the CPU with this number.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn as_cpu<T>(&self, number: usize, program: impl FnOnce() -> T) -> T {
        assert!(number < self.0.stocks.len(), "there is no cpu {number}");
        let before = CPU.replace(number);
        let result = program();
        CPU.set(before);
        result
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.0.stocks.iter().map(|stock| lock(&stock.0).flushes).sum()
    }

    /// How many frames were given for pages.
    pub fn given(&self) -> u64 {
        self.0.stocks.iter().map(|stock| lock(&stock.0).given_ever).sum()
    }

    /// How many frames and tables are in use.
    pub fn in_use(&self) -> i64 {
        self.0.stocks.iter().map(|stock| lock(&stock.0).given).sum()
    }

    /// How many were in use at most; with several CPUs, at least as many as that.
    pub fn peak(&self) -> i64 {
        self.0.stocks.iter().map(|stock| lock(&stock.0).peak).sum()
    }

    fn stock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0.stocks[self.cpu() % self.0.stocks.len()].0)
    }

    fn give(&self, of: fn(&mut Kept) -> &mut Vec<FrameId>) -> Option<FrameId> {
        let mut stock = self.stock();
        if of(&mut stock).is_empty() {
            let mut pool = lock(&self.0.pool);
            let rest = of(&mut pool).len().saturating_sub(BATCH);
            let batch = of(&mut pool).split_off(rest);
            of(&mut stock).extend(batch);
        }
        let frame = of(&mut stock).pop()?;
        stock.given += 1;
        stock.given_ever += u64::from(frame.0 < self.0.first_table);
        stock.peak = stock.peak.max(stock.given);
        Some(frame)
    }

    fn take(&self, frame: FrameId, of: fn(&mut Kept) -> &mut Vec<FrameId>) {
        let mut stock = self.stock();
        stock.given -= 1;
        of(&mut stock).push(frame);
        if of(&mut stock).len() >= 2 * BATCH {
            let batch: Vec<_> = of(&mut stock).drain(..BATCH).collect();
            of(&mut lock(&self.0.pool)).extend(batch);
        }
    }
}

// SAFETY: (1) a frame is in one stock, in the pool, or given; (2) the records lie in a slice that is never changed; (3) so does the memory, while
// a handle lives; (4) the handle is one `Arc`.
unsafe impl Frames for Lean {
    fn alloc(&self) -> Option<FrameId> {
        self.give(|kept| &mut kept.frames)
    }

    unsafe fn free(&self, frame: FrameId) {
        self.take(frame, |kept| &mut kept.frames);
    }

    #[inline]
    unsafe fn meta(&self, frame: FrameId) -> &FrameMeta {
        &self.0.metas[frame.0 as usize]
    }

    fn page(&self, frame: FrameId) -> *mut u8 {
        self.0.pages.as_ref().map_or(std::ptr::null_mut(), |pages| pages.page(frame.0))
    }

    unsafe fn zero(&self, frame: FrameId) {
        if let Some(pages) = &self.0.pages {
            // SAFETY: (1) a page of this machine, and the caller's alone.
            unsafe { pages.page(frame.0).write_bytes(0, BYTES) };
        }
    }

    unsafe fn copy(&self, from: FrameId, to: FrameId) {
        if let Some(pages) = &self.0.pages {
            // SAFETY: (1) two pages of this machine, the one held and the other the caller's alone; (2) so they are not one.
            unsafe { pages.page(to.0).copy_from_nonoverlapping(pages.page(from.0), BYTES) };
        }
    }

    unsafe fn read(&self, _: FrameId, _: usize, _: &mut [u8]) {
        unreachable!("nobody looks at bytes here");
    }

    unsafe fn write(&self, _: FrameId, _: usize, _: &[u8]) {
        unreachable!("nobody writes bytes here");
    }

    fn zero_frame(&self) -> FrameId {
        FrameId(0)
    }

    fn alloc_table(&self) -> Option<FrameId> {
        // It comes empty, and comes back empty.
        self.give(|kept| &mut kept.tables)
    }

    unsafe fn free_table(&self, frame: FrameId) {
        self.take(frame, |kept| &mut kept.tables);
    }

    #[inline]
    unsafe fn table(&self, frame: FrameId) -> &Table {
        let page = self.0.tables.page(frame.0 - self.0.first_table);
        // SAFETY: (1) a page of this machine, aligned, and as large as a table; (2) any bytes are one; (3) it stays while a handle lives.
        unsafe { &*page.cast() }
    }
}

// SAFETY: (1) x86-64's format, as provided; (2) nothing is cached.
unsafe impl Mmu for Lean {
    type Flush = ();

    fn issue(&self, _: SpaceId, _: Range) {
        self.stock().flushes += 1;
    }
}

impl Machine for Lean {
    type Pin = ();

    fn pin(&self) {}

    fn cpu(&self) -> usize {
        CPU.get()
    }

    fn relax(&self) {
        // There may be more CPUs than the host has.
        spile_sync::hint::spin_loop();
        std::thread::yield_now();
    }
}

impl Platform for Lean {
    type Rcu = Global;
    type Store = ();
    type Reclaim = ();

    fn rcu(&self) -> &Global {
        &Global
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spile::{Access, Attr, Layout, Mm, Outcome, Place, Prot, VmaRefcount};

    #[test]
    fn what_is_forgotten_is_seen() {
        let lean = Lean::new(2, 1000, true);
        let mm: Mm<Lean, VmaRefcount> = Mm::new(lean.clone(), Layout::default()).unwrap();
        let at = mm.map(Place::Anywhere(300 * PAGE), |at| Attr::anon(at.start(), Prot::RW)).unwrap();
        let touch = |n| assert!(matches!(mm.fault(at.start() + n * PAGE, Access::Write), Outcome::Done(_)));
        lean.as_cpu(1, || (0..300).for_each(touch));
        let pages = lean.in_use();
        assert!(pages > 300, "{pages} are not 300 pages and their tables");
        drop(mm);
        crate::stage::Stage::finish(&lean);
        let forgotten = lean.alloc();
        assert_eq!((forgotten.is_some(), lean.in_use()), (true, 1));
    }
}
