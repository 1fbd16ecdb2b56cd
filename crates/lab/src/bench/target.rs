//! Whose memory calls are measured.
//!
//! **Guarantee.** The same loop runs on every target, so what is proven of it on one that counts holds for the others.
//!
//! **Mechanism.** The core's verbs are called as a kernel's system calls would call them, and pages are touched as an MMU does that finds nothing:
//! each touch is a fault. [`host`](super::host) has the system calls themselves.

use super::workload::{Counts, PAGE, Workload};
use crate::lean::Lean;
use spile::linux::{advice, map, prot};
use spile::{Access, Event, Layout, Locking, Mm};
use std::fmt::Write as _;

/// Somebody who has address spaces.
///
/// # Panics
///
/// A call panics if it fails: no definition has calls that do.
pub trait Target: Sync {
    /// Runs `program` as the thread with this number.
    fn run<T>(&self, thread: usize, program: impl FnOnce() -> T) -> T;
    /// Maps, there and nowhere else, or anywhere; says where.
    fn map(&self, at: Option<u64>, len: u64) -> u64;
    /// Maps there, in the place of what is there, and writes to it.
    fn map_over(&self, at: u64, len: u64);
    /// Unmaps.
    fn unmap(&self, at: u64, len: u64);
    /// Writes a byte of each page.
    fn write(&self, at: u64, len: u64);
    /// Reads a byte of each page.
    fn read(&self, at: u64, len: u64);
    /// Drops pages.
    fn discard(&self, at: u64, len: u64);
    /// Lets it be read, and written or not.
    fn protect(&self, at: u64, len: u64, writable: bool);
    /// Moves the break to so many bytes above where it was in the beginning.
    fn brk(&self, above: u64);
    /// Forks, and waits until the child is gone.
    fn fork(&self);
    /// Lists the mappings as text; says how many bytes that are.
    fn list(&self, text: &mut String) -> usize;
    /// The same with how much of each is in memory.
    fn list_with_pages(&self, text: &mut String) -> usize;
    /// What has happened since the beginning; as far as it is known.
    fn events(&self) -> Events;
}

/// What a target has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Events {
    /// What definitions speak of.
    pub counts: Counts,
    /// Faults that asked for a mapping; more than faults if some had to ask again.
    pub lookups: u64,
    /// Faults that were resolved on the design's fast way.
    pub fast: u64,
    /// Flushes of translation caches.
    pub flushes: u64,
}

impl Events {
    /// Since the `earlier` moment.
    pub fn since(self, earlier: Self) -> Self {
        let counts = Counts {
            faults: self.counts.faults - earlier.counts.faults,
            changes: self.counts.changes - earlier.counts.changes,
            frames: self.counts.frames - earlier.counts.frames,
        };
        Self {
            counts,
            lookups: self.lookups - earlier.lookups,
            fast: self.fast - earlier.fast,
            flushes: self.flushes - earlier.flushes,
        }
    }

    /// Both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            counts: self.counts.plus(other.counts),
            lookups: self.lookups + other.lookups,
            fast: self.fast + other.fast,
            flushes: self.flushes + other.flushes,
        }
    }
}

/// An address space of the core.
pub struct Core<L: Locking> {
    lean: Lean,
    mm: Box<Mm<Lean, L>>,
}

/// Where the break begins: nothing else is near.
const BREAK: u64 = 0x1000_0000;

impl<L: Locking> Core<L> {
    /// An empty one on this machine.
    pub fn new(lean: &Lean) -> Self {
        let mm = Box::new(Mm::new(lean.clone(), Layout::default()).expect("a frame for an address space"));
        mm.set_brk_start(BREAK, BREAK);
        Self { lean: lean.clone(), mm }
    }

    fn touch(&self, at: u64, len: u64, access: Access) {
        for page in (at..at + len).step_by(PAGE as usize) {
            self.mm.fault_and_wait(page, access).expect("it is mapped, and there are frames");
        }
    }
}

impl<L: Locking> Target for Core<L> {
    fn run<T>(&self, thread: usize, program: impl FnOnce() -> T) -> T {
        let _attached = self.mm.attach();
        self.lean.as_cpu(thread, program)
    }

    #[inline]
    fn map(&self, at: Option<u64>, len: u64) -> u64 {
        let fixed = if at.is_some() { map::FIXED_NOREPLACE } else { 0 };
        let flags = map::PRIVATE | map::ANONYMOUS | fixed;
        self.mm
            .mmap(at.unwrap_or(0), len, prot::READ | prot::WRITE, flags, None, 0)
            .expect("nothing is there, and there is memory")
    }

    #[inline]
    fn map_over(&self, at: u64, len: u64) {
        let flags = map::PRIVATE | map::ANONYMOUS | map::FIXED | map::POPULATE;
        self.mm.mmap(at, len, prot::READ | prot::WRITE, flags, None, 0).expect("there is memory");
    }

    #[inline]
    fn unmap(&self, at: u64, len: u64) {
        self.mm.munmap(at, len).expect("there is memory");
    }

    #[inline]
    fn write(&self, at: u64, len: u64) {
        self.touch(at, len, Access::Write);
    }

    #[inline]
    fn read(&self, at: u64, len: u64) {
        self.touch(at, len, Access::Read);
    }

    #[inline]
    fn discard(&self, at: u64, len: u64) {
        self.mm.madvise(at, len, advice::DONTNEED).expect("it is mapped");
    }

    #[inline]
    fn protect(&self, at: u64, len: u64, writable: bool) {
        let bits = if writable { prot::READ | prot::WRITE } else { prot::READ };
        self.mm.mprotect(at, len, bits).expect("it is mapped, and there is memory");
    }

    #[inline]
    fn brk(&self, above: u64) {
        self.mm.brk(BREAK + above);
    }

    #[inline]
    fn fork(&self) {
        drop(self.mm.fork().expect("there is memory"));
    }

    fn list(&self, text: &mut String) -> usize {
        text.clear();
        self.mm.each_mapping(|mapping| writeln!(text, "{mapping}").expect("text grows"));
        text.len()
    }

    fn list_with_pages(&self, text: &mut String) -> usize {
        text.clear();
        self.mm.each_mapping(|mapping| {
            // Gone since, perhaps.
            let pages = self.mm.resident(mapping.range.start()).map_or(0, |(_, resident)| resident.anon + resident.file);
            writeln!(text, "{mapping}\nRss: {} kB", pages * PAGE / 1024).expect("text grows");
        });
        text.len()
    }

    fn events(&self) -> Events {
        let counted = self.mm.counters();
        // A change that had to begin anew elsewhere was given two rights.
        let changes = counted[Event::Write] - counted[Event::Elsewhere];
        let faults = counted[Event::FastResolved] + counted[Event::SlowResolved];
        Events {
            counts: Counts { faults, changes, frames: self.lean.given() },
            lookups: counted[Event::Lookup],
            fast: counted[Event::FastResolved],
            flushes: self.lean.flushes(),
        }
    }
}

/// A machine that has enough for so many address spaces that carry out `workload` one after the other, with so many threads each.
pub fn machine(workload: &Workload, threads: usize, spaces: usize) -> Lean {
    // What a setup has made stays; everything else is gone before the next.
    let spaces = if workload.setup.is_empty() { 1 } else { spaces };
    // A stock of each CPU is beside what is in use.
    let frames = workload.frames(threads) * spaces as u64 + 1024 * (threads as u64 + 1);
    Lean::new(threads, u32::try_from(frames).expect("a machine has less than 16 TiB"), true)
}
