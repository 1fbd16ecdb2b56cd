//! The MMU: from an address to a frame, as hardware does it.
//!
//! **Guarantee.** What a program is let through to was in the tables when it was cached, and a stale translation is used only while a
//! flush of it is under way; else a story is told.
//!
//! **Mechanism.** Look into the CPU's translation cache, or walk the core's tables and mark the entry accessed, and dirty before the
//! first store, by compare-exchange. A walk is no RCU section: hardware knows nothing of those, it is the flushes that protect it. Each
//! hit is compared with the tables. An access that is refused forgets its translation, as x86-64 does.

use crate::Sim;
use crate::tlb::Entry;
use crate::watch::page_of;
use spile::paging::{BITS, LEVELS, Pte};
use spile::{Access, FrameId, Mmu, PAGE_SHIFT, Range, Refused, SpaceId, TABLE_END};

/// Present, writable, a program's, accessed.
const TABLE: u64 = 0x27;

/// The frame that an access may use, and how often it had been allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) frame: FrameId,
    pub(crate) generation: u32,
}

/// The name of a flush under way.
#[derive(Debug)]
pub struct Flush(u64);

fn index(at: u64, level: usize) -> usize {
    (at >> (PAGE_SHIFT + BITS * level as u32)) as usize & ((1 << BITS) - 1)
}

fn table_of(raw: u64) -> FrameId {
    FrameId((raw >> PAGE_SHIFT) as u32)
}

impl Sim {
    /// What `access` at `at` uses, on this CPU. None: it faults.
    pub(crate) fn translate(&self, at: u64, access: Access) -> Option<Way> {
        let (watch, cpu, page) = (&self.lanes().watch, self.lanes().cpu(), page_of(at));
        let (space, root) = watch.state().cpus[cpu].space.expect("a program runs in a space");
        if at >= TABLE_END {
            return None;
        }
        let cached = watch.state().cpus[cpu].tlb.get(space, page);
        if let Some(entry) = cached {
            self.judge_hit(cpu, root, entry);
            if !access.allowed_by(entry.pte.prot) {
                watch.state().cpus[cpu].tlb.faulted(space, page);
                return None;
            }
            // A clean translation does not do for a store: the entry must be marked.
            if access != Access::Write || entry.pte.dirty {
                return Some(Way { frame: entry.pte.frame, generation: entry.generation });
            }
        }
        let found = self.walk(cpu, space, root, page, access);
        if found.is_none() {
            watch.state().cpus[cpu].tlb.faulted(space, page);
        }
        found
    }

    /// Compares a hit with the tables. An entry may just have been emptied by somebody who has not said so yet.
    fn judge_hit(&self, cpu: usize, root: FrameId, entry: Entry) {
        let watch = &self.lanes().watch;
        let now = self.look(root, entry.at);
        let mut patience = 1000;
        while !watch.state().may_use(cpu, entry, now) && patience > 0 {
            spile_sync::hint::spin_loop();
            // Whoever it is may have lost its processor just there, to this thread.
            #[cfg(not(feature = "sched"))]
            std::thread::yield_now();
            patience -= 1;
        }
        watch.check(|state| ((), state.used(cpu, entry, now)));
    }

    /// The tables' entry of `page`, now.
    fn look(&self, root: FrameId, page: u64) -> Option<Pte> {
        let leaf = (1..LEVELS).rev().try_fold(root, |table, level| {
            let raw = self.words(table).load(index(page, level));
            (raw != 0).then(|| table_of(raw))
        })?;
        self.shown(self.words(leaf).load(index(page, 0)))
    }

    /// The page that an entry shows.
    fn shown(&self, raw: u64) -> Option<Pte> {
        if self.decode_slot(raw).is_some() { None } else { self.decode(raw) }
    }

    fn walk(&self, cpu: usize, space: SpaceId, root: FrameId, page: u64, access: Access) -> Option<Way> {
        let watch = &self.lanes().watch;
        let known = watch.state().cpus[cpu].tlb.leaf(space, page);
        let mut table = known.unwrap_or(root);
        for level in (1..LEVELS).rev().filter(|_| known.is_none()) {
            let raw = self.words(table).load(index(page, level));
            if raw == 0 {
                return None;
            }
            table = table_of(raw);
        }
        watch.state().cpus[cpu].tlb.fill_leaf(space, page, table);
        loop {
            let raw = self.words(table).load(index(page, 0));
            let pte = self.shown(raw).filter(|pte| access.allowed_by(pte.prot))?;
            let marked = if access == Access::Write { pte.dirtied() } else { Pte { accessed: true, ..pte } };
            // SAFETY: (1) only the marks differ; (2) the access was allowed.
            if marked != pte && !unsafe { self.words(table).mark(index(page, 0), raw, raw | self.encode(marked)) } {
                continue;
            }
            let generation = self.arena().generation(pte.frame);
            watch.state().fill(cpu, space, page, marked, generation);
            return Some(Way { frame: pte.frame, generation });
        }
    }
}

// SAFETY: (1) x86-64's format, unchanged; (2) a flush is over when every CPU that ran its space has forgotten the range, and each that
// came later has read the tables later.
unsafe impl Mmu for Sim {
    type Flush = Flush;

    fn encode_table(&self, table: FrameId) -> u64 {
        self.lanes().stall();
        u64::from(table.0) << PAGE_SHIFT | TABLE
    }

    fn decode_table(&self, raw: u64) -> FrameId {
        self.lanes().stall();
        table_of(raw)
    }

    unsafe fn commit(&self, space: SpaceId, at: u64, old: Option<Pte>, new: Option<Pte>) {
        let cpu = self.lanes().cpu();
        self.lanes().watch.check(|state| ((), state.commit(cpu, space, at, old, new)));
        self.lanes().stall();
    }

    unsafe fn leave(&self, space: SpaceId, at: u64, old: Pte) -> Result<(), Refused> {
        if self.lanes().watch.state().in_use.iter().any(|(frame, _)| *frame == old.frame) {
            return Err(Refused::Busy);
        }
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.commit(space, at, Some(old), None) };
        Ok(())
    }

    unsafe fn clean(&self, space: SpaceId, at: u64, old: Pte, new: Pte) -> Result<(), Refused> {
        if self.lanes().watch.state().in_use.contains(&(old.frame, true)) {
            return Err(Refused::Busy);
        }
        // SAFETY: (1) and (2) the caller says the same.
        unsafe { self.commit(space, at, Some(old), Some(new)) };
        Ok(())
    }

    fn issue(&self, space: SpaceId, range: Range) -> Flush {
        let cpu = self.lanes().cpu();
        Flush(self.lanes().watch.state().issue(cpu, space, range))
    }

    fn dispatch(&self, flush: &mut Flush) {
        let mask = self.lanes().watch.state().dispatch(flush.0);
        self.lanes().request(mask);
    }

    fn acked(&self, flush: &mut Flush) -> bool {
        let cpu = self.lanes().cpu();
        self.lanes().watch.check(|state| state.acked(cpu, flush.0))
    }

    unsafe fn retire(&self, space: SpaceId) {
        self.lanes().watch.check(|state| ((), state.retired(space)));
    }
}
