//! Frames: memory that is watched.
//!
//! **Guarantee.** A frame is freed once, with no owner left, and not used after; a table is given back empty, and only what is a table
//! is walked. Whoever forgets a frame is found at the end.
//!
//! **Mechanism.** Each frame has a kind, bytes behind a lock, and a count of how often it was allocated. Freed bytes are poisoned, and new ones
//! stay so. A frame's words as a table are kept apart from its bytes, and are all zero while it is none: so tables need no
//! clearing. Each CPU keeps some tables in reserve.

use crate::rng::Rng;
use spile::paging::Table;
use spile::reclaim::Record;
use spile::{FrameId, FrameMeta, PAGE};
use spile_sync::atomic::{AtomicU32, Ordering};
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a page.
const BYTES: usize = PAGE as usize;
/// What freed bytes are.
const POISON: u8 = 0xde;
/// How many empty tables a CPU keeps.
const RESERVE: usize = 2;

/// Which allocations of frames fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// None, as long as there are frames.
    Never,
    /// The one with this number, from now on, counted from 0.
    Once(u64),
    /// That one and all after it.
    From(u64),
    /// One in so many, by the seed.
    OneIn(u64),
}

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Free,
    Data,
    Table,
    /// A table that nobody has.
    Reserve,
    /// The zero frame.
    Zero,
}

struct Content {
    kind: Kind,
    generation: u32,
    bytes: Box<[u8]>,
}

/// On lines of its own: neighbours would share one, and be counted for it.
#[repr(align(64))]
struct Slot {
    meta: FrameMeta,
    record: Record,
    /// Stands for the frame's bytes where accesses are counted and scheduled.
    line: AtomicU32,
    content: Mutex<Content>,
    table: OnceLock<Box<Table>>,
}

struct Pool {
    free: Vec<FrameId>,
    reserves: Vec<Vec<FrameId>>,
    failures: Failures,
    asked: u64,
    rng: Rng,
    /// Whether the frame that was freed last is the next one given.
    last_first: bool,
}

/// How many frames are in use, and at most were at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// For pages.
    pub pages: usize,
    /// For tables.
    pub tables: usize,
    /// Pages, at most.
    pub most_pages: usize,
    /// Tables, at most.
    pub most_tables: usize,
}

/// All frames.
pub(crate) struct Arena {
    slots: Box<[Slot]>,
    pool: Mutex<Pool>,
    uses: Mutex<Uses>,
    zero: FrameId,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} frames are free", self.free_count(), self.slots.len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uses {
    fn begin(&mut self, kind: Kind) {
        let (now, most) = match kind {
            Kind::Table => (&mut self.tables, &mut self.most_tables),
            _ => (&mut self.pages, &mut self.most_pages),
        };
        *now += 1;
        *most = (*most).max(*now);
    }
}

impl Arena {
    pub(crate) fn new(frames: u32, cpus: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let slot = |_| Slot {
            meta: FrameMeta::new(),
            record: Record::new(),
            line: AtomicU32::new(0),
            content: Mutex::new(Content { kind: Kind::Free, generation: 0, bytes: Box::default() }),
            table: OnceLock::new(),
        };
        let slots: Box<[Slot]> = (0..=frames).map(slot).collect();
        let zero = FrameId(0);
        {
            let mut content = lock(&slots[0].content);
            (content.kind, content.bytes) = (Kind::Zero, vec![0; BYTES].into());
        }
        let last_first = rng.one_in(2);
        let free = (1..=frames).rev().map(FrameId).collect();
        let reserves = vec![Vec::new(); cpus];
        let pool = Pool { free, reserves, failures: Failures::Never, asked: 0, rng, last_first };
        Self { slots, pool: Mutex::new(pool), uses: Mutex::default(), zero }
    }

    fn slot(&self, frame: FrameId) -> &Slot {
        &self.slots[frame.0 as usize]
    }

    pub(crate) fn fail(&self, failures: Failures) {
        let mut pool = lock(&self.pool);
        (pool.failures, pool.asked) = (failures, 0);
    }

    /// How many were asked for since [`fail`](Self::fail).
    pub(crate) fn asked(&self) -> u64 {
        lock(&self.pool).asked
    }

    pub(crate) fn free_count(&self) -> usize {
        let pool = lock(&self.pool);
        pool.free.len() + pool.reserves.iter().map(Vec::len).sum::<usize>()
    }

    pub(crate) fn uses(&self) -> Uses {
        *lock(&self.uses)
    }

    pub(crate) fn zero(&self) -> FrameId {
        self.zero
    }

    pub(crate) fn meta(&self, frame: FrameId) -> &FrameMeta {
        &self.slot(frame).meta
    }

    pub(crate) fn record(&self, frame: FrameId) -> &Record {
        &self.slot(frame).record
    }

    pub(crate) fn alloc(&self) -> Option<FrameId> {
        let frame = lock(&self.pool).take()?;
        self.becomes(frame, Kind::Data);
        Some(frame)
    }

    pub(crate) fn alloc_table(&self, cpu: usize) -> Option<FrameId> {
        let mut pool = lock(&self.pool);
        let frame = match pool.reserves[cpu].pop() {
            Some(reserved) if !pool.fails() => reserved,
            Some(reserved) => {
                pool.reserves[cpu].push(reserved);
                return None;
            }
            None => pool.take()?,
        };
        drop(pool);
        self.becomes(frame, Kind::Table);
        Some(frame)
    }

    fn becomes(&self, frame: FrameId, kind: Kind) {
        let mut content = lock(&self.slot(frame).content);
        assert!(matches!(content.kind, Kind::Free | Kind::Reserve), "{frame:?} was given away while it was {:?}", content.kind);
        content.kind = kind;
        lock(&self.uses).begin(kind);
        content.generation += 1;
        if content.bytes.is_empty() && kind == Kind::Data {
            content.bytes = vec![POISON; BYTES].into();
        }
    }

    /// Takes a frame back. What is wrong with that, if anything.
    pub(crate) fn free(&self, frame: FrameId) -> Option<String> {
        let refs = self.meta(frame).refs();
        {
            let mut content = lock(&self.slot(frame).content);
            if content.kind != Kind::Data || refs != 0 {
                return Some(format!("{frame:?} was freed as data, and is {:?} with {refs} owners", content.kind));
            }
            content.kind = Kind::Free;
            content.bytes.fill(POISON);
        }
        lock(&self.uses).pages -= 1;
        lock(&self.pool).give(frame);
        None
    }

    /// Takes a table back. What is wrong with that, if anything.
    pub(crate) fn free_table(&self, frame: FrameId, cpu: usize) -> Option<String> {
        let refs = self.meta(frame).refs();
        let kind = self.kind(frame);
        let used = used_entries(self.words(frame));
        if kind != Kind::Table || refs != 0 || used != 0 {
            return Some(format!("{frame:?} was freed as a table, and is {kind:?} with {refs} owners and {used} entries in use"));
        }
        lock(&self.uses).tables -= 1;
        let mut pool = lock(&self.pool);
        let keeps = pool.reserves[cpu].len() < RESERVE;
        lock(&self.slot(frame).content).kind = if keeps { Kind::Reserve } else { Kind::Free };
        if keeps {
            pool.reserves[cpu].push(frame)
        } else {
            pool.give(frame)
        }
        None
    }

    pub(crate) fn kind(&self, frame: FrameId) -> Kind {
        lock(&self.slot(frame).content).kind
    }

    pub(crate) fn generation(&self, frame: FrameId) -> u32 {
        lock(&self.slot(frame).content).generation
    }

    fn words(&self, frame: FrameId) -> &Table {
        self.slot(frame).table.get_or_init(|| Box::new(Table::new()))
    }

    /// The frame as a table, and what is wrong with that, if anything.
    pub(crate) fn table(&self, frame: FrameId) -> (&Table, Option<String>) {
        let kind = self.kind(frame);
        let wrong = (kind != Kind::Table).then(|| format!("{frame:?} is used as a table, and is {kind:?}"));
        (self.words(frame), wrong)
    }

    /// Calls `f` with the bytes, as one access of the kernel's or, if there is a `generation`, of a program's that was shown the frame
    /// when it was that. What is wrong with that, if anything.
    pub(crate) fn touch<T>(
        &self,
        frame: FrameId,
        write: bool,
        generation: Option<u32>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, String> {
        let slot = self.slot(frame);
        // Relaxed: stands for a plain access.
        if write {
            slot.line.store(1, Ordering::Relaxed);
        } else {
            slot.line.load(Ordering::Relaxed);
        }
        let mut content = lock(&slot.content);
        let right_kind = content.kind == Kind::Data || (content.kind == Kind::Zero && !write);
        if !right_kind || generation.is_some_and(|then| then != content.generation) {
            let (kind, now) = (content.kind, content.generation);
            let verb = if write { "written" } else { "read" };
            return Err(format!("{frame:?}, {kind:?} for the {now}th time, was {verb}; its user knew {generation:?}"));
        }
        Ok(f(&mut content.bytes))
    }

    /// Frames that are neither free nor in reserve.
    pub(crate) fn in_use(&self) -> Vec<(FrameId, Kind, u32)> {
        let all = (1..self.slots.len() as u32).map(FrameId);
        all.map(|frame| (frame, self.kind(frame), self.meta(frame).refs()))
            .filter(|(_, kind, _)| !matches!(kind, Kind::Free | Kind::Reserve))
            .collect()
    }
}

/// How many entries of a table that nobody uses are not 0.
fn used_entries(table: &Table) -> usize {
    const WORDS: usize = BYTES / size_of::<u64>();
    const { assert!(size_of::<Table>() == BYTES) };
    // SAFETY: (1) a `Table` is words and nothing else; (2) its only owner gave it back, so nobody writes.
    let words = unsafe { &*core::ptr::from_ref(table).cast::<[u64; WORDS]>() };
    words.iter().filter(|word| **word != 0).count()
}

impl Pool {
    fn fails(&mut self) -> bool {
        let number = self.asked;
        self.asked += 1;
        match self.failures {
            Failures::Never => false,
            Failures::Once(n) => number == n,
            Failures::From(n) => number >= n,
            Failures::OneIn(n) => self.rng.one_in(n),
        }
    }

    fn take(&mut self) -> Option<FrameId> {
        if self.fails() {
            return None;
        }
        self.free.pop().or_else(|| self.reserves.iter_mut().find_map(Vec::pop))
    }

    fn give(&mut self, frame: FrameId) {
        if self.last_first {
            self.free.push(frame);
        } else {
            self.free.insert(0, frame);
        }
    }
}
