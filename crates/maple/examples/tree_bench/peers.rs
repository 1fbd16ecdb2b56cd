//! The others: ordered maps from a range's first key to its end and value, and one that knows ranges itself.

use crate::contender::{Contender, Shared};
use crate::layout::Range;
use concurrent_map::ConcurrentMap;
use crossbeam_epoch::{Atomic, Guard, Owned};
use crossbeam_skiplist::SkipMap;
use parking_lot::{Mutex, RwLock};
use scc::TreeIndex;
use scc::tree_index::Proximity;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a range ends, and its value.
type Entry = (u64, u64);

fn entry(range: Range) -> (u64, Entry) {
    (range.start, (range.end, range.value))
}

/// The value of the range that begins at or below `key`, if it covers it.
fn covering(below: Option<Entry>, key: u64) -> Option<u64> {
    below.filter(|&(end, _)| key < end).map(|(_, value)| value)
}

fn sum(values: impl Iterator<Item = u64>) -> (usize, u64) {
    values.fold((0, 0), |(count, sum), value| (count + 1, sum + value))
}

fn lookup_in(map: &BTreeMap<u64, Entry>, key: u64) -> Option<u64> {
    covering(map.range(..=key).next_back().map(|(_, &entry)| entry), key)
}

fn find_in(map: &BTreeMap<u64, Entry>, key: u64) -> Option<u64> {
    lookup_in(map, key).or_else(|| map.range(key..).next().map(|(_, &(_, value))| value))
}

fn insert_into(map: &mut BTreeMap<u64, Entry>, range: Range) {
    let (start, entry) = entry(range);
    map.insert(start, entry);
}

fn merge_in(map: &mut BTreeMap<u64, Entry>, range: Range) {
    let [_, middle, last] = range.pieces();
    insert_into(map, range);
    map.remove(&middle.start);
    map.remove(&last.start);
}

/// The map of the standard library, for one thread.
pub struct BTree(BTreeMap<u64, Entry>);

impl Contender for BTree {
    const NAME: &'static str = "BTreeMap";

    fn empty() -> Self {
        Self(BTreeMap::new())
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        lookup_in(&self.0, key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        find_in(&self.0, key)
    }

    fn walk(&self) -> (usize, u64) {
        sum(self.0.values().map(|entry| entry.1))
    }

    fn insert(&mut self, range: Range) {
        insert_into(&mut self.0, range);
    }

    fn remove(&mut self, range: Range) {
        self.0.remove(&range.start);
    }

    fn split(&mut self, range: Range) {
        range.pieces().into_iter().for_each(|piece| insert_into(&mut self.0, piece));
    }

    fn merge(&mut self, range: Range) {
        merge_in(&mut self.0, range);
    }
}

/// What most programs do today.
#[derive(Clone)]
pub struct LockedBTree(Arc<RwLock<BTreeMap<u64, Entry>>>);

impl Contender for LockedBTree {
    const NAME: &'static str = "RwLock<BTreeMap>";

    fn empty() -> Self {
        Self(Arc::new(RwLock::new(BTreeMap::new())))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        lookup_in(&self.0.read(), key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        find_in(&self.0.read(), key)
    }

    fn walk(&self) -> (usize, u64) {
        sum(self.0.read().values().map(|entry| entry.1))
    }

    fn insert(&mut self, range: Range) {
        insert_into(&mut self.0.write(), range);
    }

    fn remove(&mut self, range: Range) {
        self.0.write().remove(&range.start);
    }

    fn split(&mut self, range: Range) {
        let mut map = self.0.write();
        range.pieces().into_iter().for_each(|piece| insert_into(&mut map, piece));
    }

    fn merge(&mut self, range: Range) {
        merge_in(&mut self.0.write(), range);
    }
}

impl Shared for LockedBTree {}

/// The `rangemap` crate: it splits and merges by itself.
#[derive(Clone)]
pub struct LockedRangeMap(Arc<RwLock<rangemap::RangeMap<u64, u64>>>);

impl Contender for LockedRangeMap {
    const NAME: &'static str = "RwLock<rangemap>";

    fn empty() -> Self {
        Self(Arc::new(RwLock::new(rangemap::RangeMap::new())))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        self.0.read().get(&key).copied()
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        self.0.read().overlapping(key..u64::MAX).next().map(|(_, &value)| value)
    }

    fn walk(&self) -> (usize, u64) {
        sum(self.0.read().iter().map(|(_, &value)| value))
    }

    fn insert(&mut self, range: Range) {
        self.0.write().insert(range.start..range.end, range.value);
    }

    fn remove(&mut self, range: Range) {
        self.0.write().remove(range.start..range.end);
    }

    fn split(&mut self, range: Range) {
        let [_, middle, _] = range.pieces();
        self.insert(middle);
    }

    fn merge(&mut self, range: Range) {
        let [_, middle, _] = range.pieces();
        self.insert(Range { value: range.value, ..middle });
    }
}

impl Shared for LockedRangeMap {}

/// A lock-free B+ tree.
#[derive(Clone)]
pub struct Concurrent(ConcurrentMap<u64, Entry>);

impl Contender for Concurrent {
    const NAME: &'static str = "concurrent-map";

    fn empty() -> Self {
        Self(ConcurrentMap::default())
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        covering(self.0.get_lte(&key).map(|(_, entry)| entry), key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        self.lookup(key).or_else(|| self.0.get_gte(&key).map(|(_, (_, value))| value))
    }

    fn walk(&self) -> (usize, u64) {
        sum(self.0.iter().map(|(_, (_, value))| value))
    }

    fn insert(&mut self, range: Range) {
        let (start, entry) = entry(range);
        self.0.insert(start, entry);
    }

    fn remove(&mut self, range: Range) {
        self.0.remove(&range.start);
    }

    fn split(&mut self, range: Range) {
        // The last piece first: the first one still covers all.
        range.pieces().into_iter().rev().for_each(|piece| self.insert(piece));
    }

    fn merge(&mut self, range: Range) {
        let [_, middle, last] = range.pieces();
        self.insert(range);
        self.0.remove(&middle.start);
        self.0.remove(&last.start);
    }
}

impl Shared for Concurrent {}

#[derive(Clone)]
pub struct Skip(Arc<SkipMap<u64, Entry>>);

impl Contender for Skip {
    const NAME: &'static str = "SkipMap";

    fn empty() -> Self {
        Self(Arc::new(SkipMap::new()))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        covering(self.0.upper_bound(Bound::Included(&key)).map(|found| *found.value()), key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        self.lookup(key).or_else(|| self.0.lower_bound(Bound::Included(&key)).map(|found| found.value().1))
    }

    fn walk(&self) -> (usize, u64) {
        sum(self.0.iter().map(|found| found.value().1))
    }

    fn insert(&mut self, range: Range) {
        let (start, entry) = entry(range);
        self.0.insert(start, entry);
    }

    fn remove(&mut self, range: Range) {
        self.0.remove(&range.start);
    }

    fn split(&mut self, range: Range) {
        range.pieces().into_iter().rev().for_each(|piece| self.insert(piece));
    }

    fn merge(&mut self, range: Range) {
        let [_, middle, last] = range.pieces();
        self.insert(range);
        self.0.remove(&middle.start);
        self.0.remove(&last.start);
    }
}

impl Shared for Skip {}

#[derive(Clone)]
pub struct Index(Arc<TreeIndex<u64, Entry>>);

impl Contender for Index {
    const NAME: &'static str = "TreeIndex";

    fn empty() -> Self {
        Self(Arc::new(TreeIndex::new()))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        let guard = scc::Guard::new();
        let below = match self.0.locate(&key, &guard) {
            Proximity::Exact(at) | Proximity::Between(at) => at.get(),
            Proximity::Smaller(at) => at.get_back(),
            Proximity::Larger(_) | Proximity::Empty => None,
        };
        covering(below.map(|(_, &entry)| entry), key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        let guard = scc::Guard::new();
        let (below, next) = match self.0.locate(&key, &guard) {
            Proximity::Exact(at) => (at.get(), None),
            Proximity::Between(at) => (at.get(), at.get_back()),
            Proximity::Smaller(at) => (at.get_back(), None),
            Proximity::Larger(at) => (None, at.get()),
            Proximity::Empty => (None, None),
        };
        covering(below.map(|(_, &entry)| entry), key).or_else(|| next.map(|(_, &(_, value))| value))
    }

    fn walk(&self) -> (usize, u64) {
        let guard = scc::Guard::new();
        sum(self.0.iter(&guard).map(|(_, &(_, value))| value))
    }

    fn insert(&mut self, range: Range) {
        let (start, entry) = entry(range);
        self.0.upsert_sync(start, entry);
    }

    fn remove(&mut self, range: Range) {
        self.0.remove_sync(&range.start);
    }

    fn split(&mut self, range: Range) {
        range.pieces().into_iter().rev().for_each(|piece| self.insert(piece));
    }

    fn merge(&mut self, range: Range) {
        let [_, middle, last] = range.pieces();
        self.insert(range);
        self.0.remove_sync(&middle.start);
        self.0.remove_sync(&last.start);
    }
}

impl Shared for Index {}

/// First keys, and beside them ends and values.
#[derive(Clone, Default)]
struct Sorted {
    starts: Vec<u64>,
    entries: Vec<Entry>,
}

impl Sorted {
    fn insert(&mut self, range: Range) {
        let (start, entry) = entry(range);
        match self.starts.binary_search(&start) {
            Ok(i) => self.entries[i] = entry,
            Err(i) => {
                self.starts.insert(i, start);
                self.entries.insert(i, entry);
            }
        }
    }

    fn remove(&mut self, start: u64) {
        if let Ok(i) = self.starts.binary_search(&start) {
            self.starts.remove(i);
            self.entries.remove(i);
        }
    }
}

/// A sorted array, copied for each write: lookups cannot be much cheaper, and writes cannot be used.
#[derive(Clone)]
pub struct Floor(Arc<(Atomic<Sorted>, Mutex<()>)>);

impl Floor {
    fn sorted<'g>(&self, guard: &'g Guard) -> &'g Sorted {
        // SAFETY: (1) never null; (2) alive while the guard is.
        unsafe { self.0.0.load(Ordering::Acquire, guard).deref() }
    }

    fn change(&self, change: impl FnOnce(&mut Sorted)) {
        let turn = self.0.1.lock();
        let guard = crossbeam_epoch::pin();
        let mut sorted = self.sorted(&guard).clone();
        change(&mut sorted);
        let old = self.0.0.swap(Owned::new(sorted), Ordering::AcqRel, &guard);
        // SAFETY: (1) no longer reachable; (2) deferred once.
        unsafe { guard.defer_destroy(old) };
        guard.flush();
        drop(turn);
    }
}

impl Contender for Floor {
    const NAME: &'static str = "copied Vec (floor)";
    const COPIES_ALL: bool = true;

    fn empty() -> Self {
        Self(Arc::new((Atomic::new(Sorted::default()), Mutex::new(()))))
    }

    fn build(ranges: &[Range]) -> Self {
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|range| range.start);
        let (starts, entries) = ranges.into_iter().map(entry).unzip();
        Self(Arc::new((Atomic::new(Sorted { starts, entries }), Mutex::new(()))))
    }

    #[inline]
    fn lookup(&self, key: u64) -> Option<u64> {
        let guard = crossbeam_epoch::pin();
        let sorted = self.sorted(&guard);
        let below = sorted.starts.partition_point(|&start| start <= key).checked_sub(1)?;
        covering(Some(sorted.entries[below]), key)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        let guard = crossbeam_epoch::pin();
        let sorted = self.sorted(&guard);
        let above = sorted.starts.partition_point(|&start| start <= key);
        let below = above.checked_sub(1).map(|below| sorted.entries[below]);
        covering(below, key).or_else(|| sorted.entries.get(above).map(|entry| entry.1))
    }

    fn walk(&self) -> (usize, u64) {
        let guard = crossbeam_epoch::pin();
        sum(self.sorted(&guard).entries.iter().map(|entry| entry.1))
    }

    fn insert(&mut self, range: Range) {
        self.change(|sorted| sorted.insert(range));
    }

    fn remove(&mut self, range: Range) {
        self.change(|sorted| sorted.remove(range.start));
    }

    fn split(&mut self, range: Range) {
        self.change(|sorted| range.pieces().into_iter().for_each(|piece| sorted.insert(piece)));
    }

    fn merge(&mut self, range: Range) {
        self.change(|sorted| {
            let [_, middle, last] = range.pieces();
            sorted.insert(range);
            sorted.remove(middle.start);
            sorted.remove(last.start);
        });
    }
}

impl Shared for Floor {}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Some((sorted, _)) = Arc::get_mut(&mut self.0) {
            // SAFETY: (1) never null; (2) this is the last handle, so nobody else has it.
            drop(unsafe { std::mem::replace(sorted, Atomic::null()).into_owned() });
        }
    }
}
