//! A CPU's translation caches.
//!
//! **Guarantee.** They forget only what they are told to forget, and what no longer fits.
//!
//! **Mechanism.** Few sets of few ways, so that programs of a handful of pages evict; and a few leaf tables by the part of the address
//! that leads to them, as CPUs cache upper levels: a table that is freed unflushed is still walked.

use spile::{FrameId, PAGE_SHIFT, Range, SpaceId};

use spile::paging::{BITS, Pte};

const SETS: usize = 16;
const WAYS: usize = 4;
const WALKS: usize = 4;

/// A translation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) space: SpaceId,
    /// The page's address.
    pub(crate) at: u64,
    pub(crate) pte: Pte,
    /// How often the frame had been allocated.
    pub(crate) generation: u32,
    /// When it was read from the tables.
    pub(crate) filled: u64,
}

/// The leaf table of a part of the address space.
#[derive(Clone, Copy, Debug)]
struct Walk {
    space: SpaceId,
    prefix: u64,
    leaf: FrameId,
}

#[derive(Debug, Default)]
pub(crate) struct Tlb {
    sets: [[Option<Entry>; WAYS]; SETS],
    walks: [Option<Walk>; WALKS],
    turn: usize,
}

fn prefix(at: u64) -> u64 {
    at >> (PAGE_SHIFT + BITS)
}

fn set(at: u64) -> usize {
    (at >> PAGE_SHIFT) as usize % SETS
}

impl Tlb {
    pub(crate) fn get(&self, space: SpaceId, at: u64) -> Option<Entry> {
        self.sets[set(at)].iter().flatten().find(|entry| entry.space == space && entry.at == at).copied()
    }

    pub(crate) fn fill(&mut self, entry: Entry) {
        self.forget_page(entry.space, entry.at);
        self.turn += 1;
        let ways = &mut self.sets[set(entry.at)];
        let way = ways.iter().position(Option::is_none).unwrap_or(self.turn % WAYS);
        ways[way] = Some(entry);
    }

    pub(crate) fn leaf(&self, space: SpaceId, at: u64) -> Option<FrameId> {
        let walk = self.walks.iter().flatten().find(|walk| walk.space == space && walk.prefix == prefix(at));
        walk.map(|walk| walk.leaf)
    }

    pub(crate) fn fill_leaf(&mut self, space: SpaceId, at: u64, leaf: FrameId) {
        self.forget_leaf(space, at);
        self.turn += 1;
        self.walks[self.turn % WALKS] = Some(Walk { space, prefix: prefix(at), leaf });
    }

    fn forget_leaf(&mut self, space: SpaceId, at: u64) {
        self.retain_walks(|walk| walk.space != space || walk.prefix != prefix(at));
    }

    fn forget_page(&mut self, space: SpaceId, at: u64) {
        let same = |entry: &Entry| entry.space == space && entry.at == at;
        self.sets[set(at)].iter_mut().for_each(|way| *way = way.filter(|entry| !same(entry)));
    }

    /// As a CPU does when it raises a fault at `at`.
    pub(crate) fn faulted(&mut self, space: SpaceId, at: u64) {
        self.forget_page(space, at);
        self.forget_leaf(space, at);
    }

    /// Forgets `range`, and the upper levels of the whole space, as `INVLPG` does.
    pub(crate) fn flush(&mut self, space: SpaceId, range: Range) {
        self.sets
            .iter_mut()
            .flatten()
            .for_each(|way| *way = way.filter(|entry| entry.space != space || !range.contains(entry.at)));
        self.retain_walks(|walk| walk.space != space);
    }

    pub(crate) fn flush_all(&mut self) {
        *self = Self { turn: self.turn, ..Self::default() };
    }

    fn retain_walks(&mut self, keep: impl Fn(&Walk) -> bool) {
        self.walks.iter_mut().for_each(|walk| *walk = walk.filter(&keep));
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.sets.iter().flatten().flatten()
    }

    /// Whether an upper level leads to `table`.
    pub(crate) fn walks_to(&self, table: FrameId) -> bool {
        self.walks.iter().flatten().any(|walk| walk.leaf == table)
    }

    pub(crate) fn knows_space(&self, space: SpaceId) -> bool {
        self.entries().any(|entry| entry.space == space) || self.walks.iter().flatten().any(|walk| walk.space == space)
    }
}
