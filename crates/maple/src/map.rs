//! A map from ranges to values, shared by readers that never wait.
//!
//! **Guarantee.** All of it is safe code's to use: lookups are those of [`RangeTree`], writers take turns by a lock inside, values
//! are boxed and dropped after the last reader that could see them has left.
//!
//! # Coming from another map
//!
//! | you have | you write | what changes |
//! |---|---|---|
//! | `RwLock<BTreeMap<u64, (u64, V)>>`, `range(..=k).next_back()` and a check of the end | `map.read().get(k)` | readers take no lock and do not stop for a writer; splitting and merging are done for you |
//! | `rangemap::RangeMap<u64, V>` under a lock, `get(&k)` | `map.read().get(k)` | equal neighbours are **not** merged; a value is cloned only where a range is divided in two |
//! | `rangemap`'s `insert(a..b, v)`, `remove(a..b)` | `map.insert(a..b, v)`, `map.remove(a..b)` | the same, through `&self`; empty and inverted ranges are an error, not a panic |
//! | `rangemap`'s `gaps(&outer)` | `map.read().gaps(outer)` | the same |
//! | `&mut` access to a value | `map.insert(range, new)` | values are replaced, never edited: readers may be looking |
//!
//! What a value must not do: change the same map in its `clone`, which runs while the map's lock is held; change any map in its
//! `drop`, which runs among other releases, of whichever thread relieves the backlog.
//!
//! What costs more: a write allocates a box for its value and copies a node (a few hundred bytes), and memory comes back a
//! grace period late. When **not** to use it: with a single thread, or with a handful of ranges, a `BTreeMap` or a sorted `Vec` is
//! smaller and as fast; where every access is a write, the lock is all that matters.

use crate::iter::Iter;
use crate::span::{EmptySpan, Span};
use crate::stock::NoMemory;
use crate::tree::RangeTree;
use alloc::alloc::handle_alloc_error;
use core::alloc::Layout;
use core::fmt;
use spile_rcu::{Global, GlobalGuard, Rcu, RcuBox};
use std::sync::{Mutex, PoisonError};

/// A map from disjoint ranges of `u64` to values. See the [module](self).
///
/// ```
/// use spile_maple::RangeMap;
///
/// let map = RangeMap::new();
/// map.insert(0x1000..0x5000, "heap")?;
/// map.insert(0x2000..0x3000, "guard")?; // divides the heap in two, in one step
///
/// let section = map.read();
/// assert_eq!(section.get(0x1fff), Some(&"heap"));
/// assert_eq!(section.get(0x2000), Some(&"guard"));
/// assert_eq!(section.get(0x3000), Some(&"heap"));
/// assert_eq!(section.iter().count(), 3);
/// # Ok::<(), spile_maple::EmptySpan>(())
/// ```
pub struct RangeMap<V: Send + Sync + 'static> {
    tree: RangeTree<RcuBox<V>, Global>,
    /// Held by the one writer.
    writing: Mutex<()>,
}

/// A read section over a map: what it shows stays until it is dropped. Not `Send`.
pub struct ReadMap<'m, V: Send + Sync + 'static> {
    tree: &'m RangeTree<RcuBox<V>, Global>,
    section: GlobalGuard,
}

/// Why a [`RangeMap::try_insert`] was refused. Nothing was changed.
#[derive(Debug)]
pub enum NotInserted<V> {
    /// The range was empty or inverted.
    EmptySpan(V),
    /// There was no memory.
    NoMemory(V),
}

impl<V: Send + Sync + 'static> RangeMap<V> {
    /// An empty map. Allocates nothing.
    pub const fn new() -> Self {
        Self { tree: RangeTree::new(), writing: Mutex::new(()) }
    }

    /// Enters a read section. Wait-free.
    pub fn read(&self) -> ReadMap<'_, V> {
        ReadMap { tree: &self.tree, section: Global.read() }
    }

    /// A copy of the value at `key`.
    pub fn get_cloned(&self, key: u64) -> Option<V>
    where
        V: Clone,
    {
        self.read().get(key).cloned()
    }

    /// Puts `value` over `range`, whatever was there; ranges that stick out stay, a divided one with a clone of its value.
    /// Waits for other writers, never for readers. Aborts without memory, as collections do.
    ///
    /// # Errors
    ///
    /// [`EmptySpan`], and nothing was changed.
    pub fn insert<S: TryInto<Span, Error: Into<EmptySpan>>>(&self, range: S, value: V) -> Result<(), EmptySpan>
    where
        V: Clone,
    {
        let span = range.try_into().map_err(Into::into)?;
        match self.try_insert(span, value) {
            Ok(()) => Ok(()),
            Err(NotInserted::EmptySpan(_)) => Err(EmptySpan),
            Err(NotInserted::NoMemory(_)) => handle_alloc_error(Layout::new::<V>()),
        }
    }

    /// [`insert`](Self::insert) that reports want of memory.
    ///
    /// # Errors
    ///
    /// [`NotInserted`], with the value, and nothing was changed.
    pub fn try_insert<S: TryInto<Span>>(&self, range: S, value: V) -> Result<(), NotInserted<V>>
    where
        V: Clone,
    {
        let Ok(span) = range.try_into() else {
            return Err(NotInserted::EmptySpan(value));
        };
        let boxed = RcuBox::try_new(value).map_err(NotInserted::NoMemory)?;
        self.write(|writer| match writer.store(span, boxed) {
            Ok(displaced) => {
                drop(displaced);
                Ok(())
            }
            Err(rejected) => Err(NotInserted::NoMemory(rejected.given.into_inner())),
        })
    }

    /// Frees `range`; ranges that stick out stay, a divided one with a clone of its value. Returns how many were taken out whole.
    /// Waits for other writers, never for readers. Aborts without memory.
    ///
    /// # Errors
    ///
    /// [`EmptySpan`], and nothing was changed.
    pub fn remove<S: TryInto<Span, Error: Into<EmptySpan>>>(&self, range: S) -> Result<usize, EmptySpan>
    where
        V: Clone,
    {
        let span = range.try_into().map_err(Into::into)?;
        self.write(|writer| match writer.erase(span) {
            Ok(displaced) => Ok(displaced.inspect(|_, _| ())),
            Err(NoMemory) => handle_alloc_error(Layout::new::<V>()),
        })
    }

    /// Frees everything, in one step.
    pub fn clear(&self) {
        self.write(|writer| drop(writer.clear()));
    }

    /// Gives memory that earlier changes left behind back to the allocator, as far as readers allow. Waits for other writers.
    pub fn trim(&self) {
        self.write(|writer| writer.trim());
    }

    fn write<T>(&self, verb: impl FnOnce(&mut crate::Writer<'_, RcuBox<V>, Global, crate::Heap>) -> T) -> T {
        // A writer that panicked (in a clone) had changed nothing: each verb is one step.
        let turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: (1) the tree is this map's alone, and each of its writers holds `writing`.
        let done = verb(&mut unsafe { self.tree.write_unchecked() });
        drop(turn);
        Global.relieve();
        done
    }
}

impl<V: Send + Sync + 'static> Default for RangeMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Clone + Send + Sync + 'static> FromIterator<(Span, V)> for RangeMap<V> {
    fn from_iter<I: IntoIterator<Item = (Span, V)>>(ranges: I) -> Self {
        let map = Self::new();
        for (span, value) in ranges {
            if let Err(EmptySpan) = map.insert(span, value) {
                unreachable!("a Span is not empty");
            }
        }
        map
    }
}

impl<V: fmt::Debug + Send + Sync + 'static> fmt::Debug for RangeMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read().iter()).finish()
    }
}

impl<V: Send + Sync + 'static> ReadMap<'_, V> {
    /// The value at `key`.
    #[inline]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.get_span(key).map(|(_, value)| value)
    }

    /// The range that covers `key`, and its value.
    #[inline]
    pub fn get_span(&self, key: u64) -> Option<(Span, &V)> {
        self.tree.get(&self.section, key)
    }

    /// Whether a range covers `key`.
    pub fn contains(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// All ranges with their values, ascending.
    pub fn iter(&self) -> Iter<'_, RcuBox<V>> {
        self.overlapping(Span::ALL)
    }

    /// The ranges that touch `within`, ascending.
    pub fn overlapping(&self, within: Span) -> Iter<'_, RcuBox<V>> {
        self.tree.iter(&self.section, within)
    }

    /// What no range covers within `within`, ascending.
    pub fn gaps(&self, within: Span) -> impl Iterator<Item = Span> + '_ {
        let mut free_from = Some(within.first());
        let taken = self.overlapping(within).map(|(span, _)| Some(span)).chain([None]);
        taken.filter_map(move |span| {
            let from = free_from?;
            let upto = match span {
                Some(span) => span.first().checked_sub(1),
                None => Some(within.last()),
            };
            free_from = span.and_then(|span| span.last().checked_add(1));
            Span::new(from, upto?)
        })
    }
}
