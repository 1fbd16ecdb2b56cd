//! A `BTreeMap` by first address: what a small kernel starts with.
//!
//! **Guarantee.** As [`Index`] says, for who has the lock. Out of memory for its nodes it aborts, as the map does.
//!
//! **Mechanism.** The standard library's map. Free space is found by going through all mappings.

use super::locked::Locked;
use super::{Index, Pieces, VmaBox, Writer};
use crate::addr::Range;
use crate::change::NoMemory;
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Vma;
use alloc::collections::BTreeMap;

type Map<P, L> = BTreeMap<u64, VmaBox<P, L>>;

/// A map of mappings.
pub struct BTree<P: Platform, L: Locking>(Locked<Map<P, L>>);

// SAFETY: (1) the map's; (2) a displaced mapping is no longer in it.
unsafe impl<P: Platform, L: Locking> Index<P, L> for BTree<P, L> {
    type Writer<'t> = BTreeWriter<'t, P, L>;

    fn new(_: &P) -> Self {
        Self(Locked::new(BTreeMap::new()))
    }

    unsafe fn find_still(&self, at: u64) -> Option<&Vma<P, L>> {
        // SAFETY: (1) nobody changes it, says the caller.
        find(unsafe { self.0.look() }, at)
    }

    /// The standard library's map does not tell.
    unsafe fn height_still(&self) -> Option<usize> {
        None
    }

    unsafe fn writer(&self) -> BTreeWriter<'_, P, L> {
        BTreeWriter(&self.0)
    }
}

/// The right to change it.
pub struct BTreeWriter<'t, P: Platform, L: Locking>(&'t Locked<Map<P, L>>);

fn find<P: Platform, L: Locking>(map: &Map<P, L>, at: u64) -> Option<&Vma<P, L>> {
    get(map, at).or_else(|| map.range(at..).next().map(|(_, vma)| &**vma))
}

fn get<P: Platform, L: Locking>(map: &Map<P, L>, at: u64) -> Option<&Vma<P, L>> {
    map.range(..=at).next_back().map(|(_, vma)| &**vma).filter(|vma| vma.range().contains(at))
}

impl<P: Platform, L: Locking> BTreeWriter<'_, P, L> {
    fn map(&self) -> &Map<P, L> {
        // SAFETY: (1) `replace` and `clear` need all of the writer, which is the only one in use.
        unsafe { self.0.look() }
    }

    fn map_mut(&mut self) -> &mut Map<P, L> {
        // SAFETY: (1) the writer is borrowed, and the only one in use; those who look have a lock that it does not share.
        unsafe { self.0.change() }
    }

    /// The free spaces of `within`, ascending, in none of which an address above `within` is, nor below.
    fn gaps(&self, within: Range) -> impl DoubleEndedIterator<Item = Range> {
        // Before each mapping, up to the one below it; and behind the last.
        let below = move |vma: &Vma<P, L>| {
            let end = self.map().range(..vma.range().start()).next_back().map_or(0, |(_, below)| below.range().end());
            Range::new(end.max(within.start()), vma.range().start()).ok()
        };
        let last = self.iter(within).next_back().map_or(within.start(), |vma| vma.range().end());
        self.iter(within).filter_map(below).chain(Range::new(last, within.end()).ok())
    }
}

impl<P: Platform, L: Locking> Writer<P, L> for BTreeWriter<'_, P, L> {
    fn get(&self, at: u64) -> Option<&Vma<P, L>> {
        get(self.map(), at)
    }

    fn find(&self, at: u64) -> Option<&Vma<P, L>> {
        find(self.map(), at)
    }

    fn iter(&self, within: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>> {
        let first = get(self.map(), within.start()).map_or(within.start(), |vma| vma.range().start());
        self.map().range(first..within.end()).map(|(_, vma)| &**vma)
    }

    fn replace(
        &mut self,
        window: Range,
        new: &mut Pieces<P, L>,
        mut displaced: impl FnMut(VmaBox<P, L>),
    ) -> Result<(), NoMemory> {
        let map = self.map_mut();
        while let Some((&start, _)) = map.range(window.start()..window.end()).next() {
            map.remove(&start).into_iter().for_each(&mut displaced);
        }
        map.extend(new.iter_mut().filter_map(Option::take).map(|vma| (vma.range().start(), vma)));
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    fn lowest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.gaps(within).find(|gap| gap.len() >= len).map(|gap| gap.start())
    }

    fn highest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.gaps(within).rfind(|gap| gap.len() >= len).map(|gap| gap.end() - len)
    }

    fn clear(&mut self, displaced: impl FnMut(VmaBox<P, L>)) {
        core::mem::take(self.map_mut()).into_values().for_each(displaced);
    }
}
