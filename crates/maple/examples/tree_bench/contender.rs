//! What every contender can do.

use crate::clock::Stopwatch;
use crate::layout::Range;

/// An index of disjoint ranges of keys.
///
/// Lookups enter and leave their read section themselves, writes take and leave their lock. A contender that threads share is a
/// cheap handle, of which each thread has a clone.
pub trait Contender: Sized {
    const NAME: &'static str;
    /// Whether a write copies everything: then few are done, and it is not built by inserting.
    const COPIES_ALL: bool = false;
    /// Whether only its writes differ from those of another row.
    const WRITES_ONLY: bool = false;

    fn empty() -> Self;

    /// With `ranges` inserted in this order.
    fn build(ranges: &[Range]) -> Self {
        let mut map = Self::empty();
        ranges.iter().for_each(|&range| map.insert(range));
        map
    }

    /// The value of the range that covers `key`.
    fn lookup(&self, key: u64) -> Option<u64>;

    /// The value of the range that covers `key`, or of the next above.
    fn find(&self, key: u64) -> Option<u64>;

    /// Visits all in order: how many, and the sum of their values.
    fn walk(&self) -> (usize, u64);

    /// Nothing was there.
    fn insert(&mut self, range: Range);

    /// Exactly this was there.
    fn remove(&mut self, range: Range);

    /// `range` gives way to its three pieces: in one step where the contender can, else in an order in which none
    /// of its keys is ever uncovered.
    fn split(&mut self, range: Range);

    /// Undoes [`split`](Self::split), as carefully.
    fn merge(&mut self, range: Range);

    /// Gives back the memory that is held for readers who may still be there, as far as a user can bring this about.
    /// `present` is a key that is there.
    fn settle(&mut self, present: u64) {
        for _ in 0..4096 {
            self.lookup(present);
        }
    }

    /// What the others do not have.
    fn extra(&mut self) -> Option<&mut dyn Extra> {
        None
    }
}

/// What the others do not have.
pub trait Extra {
    /// The highest free area of `size` keys below `below`.
    fn highest_gap(&mut self, size: u64, below: u64) -> Option<u64>;
    /// The lowest free area of `size` keys from `above` on.
    fn lowest_gap(&mut self, size: u64, above: u64) -> Option<u64>;
    /// Makes a copy of everything; the watch runs meanwhile, not while the copy is dropped.
    fn duplicate(&mut self, watch: &mut Stopwatch);
    /// Builds anew from ascending ranges in one pass, as `duplicate`.
    fn build_sorted(&mut self, ranges: &[Range], watch: &mut Stopwatch);
    /// Bytes of the nodes in the tree, by its own count.
    fn node_bytes(&mut self) -> usize;
}

/// A contender that two threads share.
pub trait Shared: Contender + Clone + Send + 'static {}
