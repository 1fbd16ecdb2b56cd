//! Leaves: ranges and their handles, narrow or wide. See [`node`](super) for the layout.

use super::{Entry, KEYS, Kind, LEAF, Link, NARROW_KEYS, NodePtr, copy_slots, load, own, rank, slots};
use crate::gap;
use crate::span::Span;
use core::ptr::NonNull;
use spile_sync::atomic::AtomicPtr;
use spile_sync::cell::UnsafeCell;

#[repr(C)]
pub(super) struct NarrowKeys {
    pub(super) lasts: [i32; NARROW_KEYS],
    base: u64,
    len: u8,
    shift: u8,
    firsts: [i32; LEAF],
}

/// A leaf whose keys are offsets.
#[repr(C, align(64))]
pub(crate) struct Narrow {
    pub(super) keys: UnsafeCell<NarrowKeys>,
    pub(super) link: Link,
    pub(super) slots: [AtomicPtr<()>; LEAF],
}

#[repr(C)]
pub(super) struct WideKeys {
    pub(super) lasts: [u64; KEYS],
    firsts: [u64; LEAF],
    len: u8,
}

/// A leaf whose keys are whole.
#[repr(C, align(64))]
pub(crate) struct Wide {
    pub(super) keys: UnsafeCell<WideKeys>,
    pub(super) link: Link,
    pub(super) slots: [AtomicPtr<()>; LEAF],
}

/// A leaf of either kind.
#[derive(Clone, Copy)]
pub(crate) enum Leaf<'n> {
    Narrow(&'n Narrow),
    Wide(&'n Wide),
}

/// Calls with the narrow or wide node's decoded view: the same words for both.
macro_rules! either {
    ($leaf:expr, $node:ident => $body:expr) => {
        match $leaf {
            Leaf::Narrow($node) => $body,
            Leaf::Wide($node) => $body,
        }
    };
}

impl<'n> Leaf<'n> {
    /// The index of the first entry that ends at or after `key`; at least `len` if there is none.
    #[inline(always)]
    pub(crate) fn index(self, key: u64) -> usize {
        either!(self, node => node.index(key))
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        either!(self, node => node.len())
    }

    /// The span of entry `i`, which is below `len`.
    #[inline(always)]
    pub(crate) fn span(self, i: usize) -> Span {
        either!(self, node => node.span(i))
    }

    #[inline(always)]
    pub(crate) fn slot(self, i: usize) -> &'n AtomicPtr<()> {
        either!(self, node => &node.slots[i])
    }

    /// The entry that covers `key`, erased and reserved ones included.
    #[inline(always)]
    pub(crate) fn covering(self, key: u64) -> Option<Entry> {
        either!(self, node => {
            let i = node.index(key);
            // At LEAF all entries end below the key; between `len` and LEAF the slot is null.
            if i >= LEAF {
                return None;
            }
            let raw = load(&node.slots[i]);
            if raw.is_null() {
                return None;
            }
            let span = node.span(i);
            (span.first() <= key).then_some(Entry { span, raw })
        })
    }

    /// Entry `i`, which is below `len`.
    #[inline(always)]
    pub(crate) fn entry(self, i: usize) -> Entry {
        either!(self, node => Entry { raw: load(&node.slots[i]), span: node.span(i) })
    }

    /// Entry `i`, if there is one and it is not erased.
    #[inline(always)]
    pub(crate) fn live(self, i: usize) -> Option<Entry> {
        if i >= self.len() {
            return None;
        }
        let entry = self.entry(i);
        (!entry.raw.is_null()).then_some(entry)
    }

    /// The longest free area of the leaf, which has `part` of the key space. For the writer.
    pub(crate) fn longest_gap(self, part: Span) -> u64 {
        match self {
            Leaf::Narrow(node) => match node.between() {
                Some((between, begin, end)) => between.max(begin.first() - part.first()).max(part.last() - end.last()),
                None => part.len(),
            },
            Leaf::Wide(_) => gap::longest(self.entries().map(|e| e.span), part),
        }
    }

    /// Whether more than `few` entries are not erased.
    #[inline]
    pub(crate) fn has_more_than(self, few: usize) -> bool {
        let slots: &[AtomicPtr<()>] = either!(self, node => &node.slots);
        let mut live = 0;
        for slot in &slots[..self.len()] {
            live += !own(slot).is_null() as usize;
            if live > few {
                return true;
            }
        }
        false
    }

    /// All entries but the erased ones.
    pub(crate) fn entries(self) -> impl DoubleEndedIterator<Item = Entry> + 'n {
        (0..self.len()).map(move |i| self.entry(i)).filter(|e| !e.raw.is_null())
    }
}

impl Narrow {
    #[inline(always)]
    fn keys(&self) -> &NarrowKeys {
        // SAFETY: (1) keys are written before the node is published and not again before it is recycled.
        self.keys.with(|keys| unsafe { &*keys })
    }

    fn len(&self) -> usize {
        self.keys().len as usize
    }

    #[inline(always)]
    fn index(&self, key: u64) -> usize {
        let keys = self.keys();
        // A key below the base is below every entry; one beyond the offsets is above every entry.
        let offset = key.saturating_sub(keys.base) >> keys.shift;
        let offset = offset.min(i32::MAX as u64) as i32;
        keys.lasts.iter().map(|&last| (last < offset) as usize).sum()
    }

    #[inline(always)]
    fn span(&self, i: usize) -> Span {
        let keys = self.keys();
        let unit = 1u64 << keys.shift;
        let first = keys.base + ((keys.firsts[i] as u64) << keys.shift);
        let last = keys.base + (((keys.lasts[i] as u64) << keys.shift) | (unit - 1));
        Span::of(first, last)
    }

    /// The longest free area between entries, and the spans of the first and the last; `None` if all are erased.
    fn between(&self) -> Option<(u64, Span, Span)> {
        let keys = self.keys();
        let len = self.len().min(LEAF);
        let begin = self.slots[..len].iter().position(|slot| !own(slot).is_null())?;
        let (mut end, mut last) = (begin, keys.lasts[begin]);
        // In units, and one too many: the distance from a last to the next first.
        let mut longest = 1;
        let mut i = begin + 1;
        while i < len {
            if !own(&self.slots[i]).is_null() {
                longest = longest.max(keys.firsts[i] - last);
                (end, last) = (i, keys.lasts[i]);
            }
            i += 1;
        }
        Some((((longest - 1) as u64) << keys.shift, self.span(begin), self.span(end)))
    }

    /// Whether `entries` can be stored with this leaf's base and shift.
    #[inline]
    pub(crate) fn can_hold(&self, entries: &[Entry]) -> bool {
        let keys = self.keys();
        let fits = |e: &Entry| {
            let first = e.span.first().wrapping_sub(keys.base);
            let last = e.span.last().wrapping_sub(keys.base);
            let odd = (first | last.wrapping_add(1)) & ((1u64 << keys.shift) - 1);
            e.span.first() >= keys.base && odd == 0 && (last >> keys.shift) < i32::MAX as u64
        };
        entries.iter().all(fits)
    }

    /// Writes a leaf into `memory` that is this one with `middle` in the place of the entries `from` to `upto`; erased entries
    /// elsewhere stay. Copies keys as they are.
    ///
    /// # Safety
    ///
    /// (1) `memory` has the layout of `Class::Small` and (2) belongs to the caller, (3) [`can_hold`](Self::can_hold) is true of
    /// `middle`, which fits between those entries; (4) all together are 1 to `LEAF`.
    #[inline]
    pub(crate) unsafe fn splice_into(&self, memory: NonNull<u8>, from: usize, middle: &[Entry], upto: usize) -> NodePtr {
        let old = self.keys();
        let kept = old.len as usize - upto;
        let resume = from + middle.len();
        let len = resume + kept;
        debug_assert!((1..=LEAF).contains(&len));
        let (base, shift) = (old.base, old.shift);
        let mut keys = NarrowKeys { lasts: [i32::MAX; NARROW_KEYS], base, len: len as u8, shift, firsts: [0; LEAF] };
        keys.lasts[..from].copy_from_slice(&old.lasts[..from]);
        keys.firsts[..from].copy_from_slice(&old.firsts[..from]);
        for (i, entry) in middle.iter().enumerate() {
            keys.lasts[from + i] = ((entry.span.last() - base) >> shift) as i32;
            keys.firsts[from + i] = ((entry.span.first() - base) >> shift) as i32;
        }
        keys.lasts[resume..len].copy_from_slice(&old.lasts[upto..upto + kept]);
        keys.firsts[resume..len].copy_from_slice(&old.firsts[upto..upto + kept]);
        let mut slots = slots(core::iter::empty());
        copy_slots(&mut slots[..from], &self.slots[..from]);
        for (slot, entry) in slots[from..resume].iter_mut().zip(middle) {
            *slot = AtomicPtr::new(entry.raw);
        }
        copy_slots(&mut slots[resume..len], &self.slots[upto..upto + kept]);
        // SAFETY: (1, 2) the caller's: room for a `Narrow`, aligned, unshared.
        unsafe { memory.cast().write(Narrow { keys: UnsafeCell::new(keys), link: Link::new(NodePtr::NULL), slots }) };
        NodePtr::new(memory, Kind::Narrow)
    }

    /// The shift with which `entries` can be stored, if they can.
    pub(super) fn shift_for(entries: &[Entry]) -> Option<u8> {
        let base = entries[0].span.first();
        // The end of the whole key space is aligned to everything; its sum wraps to zero, which says so.
        let bits = entries.iter().fold(0, |bits, e| bits | (e.span.first() - base) | (e.span.last() - base).wrapping_add(1));
        let shift = bits.trailing_zeros().min(63);
        let reach = (entries[entries.len() - 1].span.last() - base) >> shift;
        (reach < i32::MAX as u64).then_some(shift as u8)
    }
}

impl Wide {
    #[inline(always)]
    fn keys(&self) -> &WideKeys {
        // SAFETY: as for `Narrow::keys`.
        self.keys.with(|keys| unsafe { &*keys })
    }

    fn len(&self) -> usize {
        self.keys().len as usize
    }

    #[inline(always)]
    fn index(&self, key: u64) -> usize {
        rank(&self.keys().lasts, key)
    }

    #[inline(always)]
    fn span(&self, i: usize) -> Span {
        let keys = self.keys();
        Span::of(keys.firsts[i], keys.lasts[i])
    }
}

/// Writes a leaf of `entries` (1 to `LEAF` of them, ascending, apart) into `memory`.
///
/// # Safety
///
/// (1) `memory` has the layout of `kind`'s class and (2) belongs to the caller; (3) `kind` came from `Kind::for_entries`.
pub(crate) unsafe fn write_leaf(memory: NonNull<u8>, kind: Kind, entries: &[Entry]) -> NodePtr {
    debug_assert!(!entries.is_empty() && entries.len() <= LEAF);
    let slots = slots(entries.iter().map(|e| e.raw));
    let link = Link::new(NodePtr::NULL);
    let len = entries.len() as u8;
    if kind == Kind::Narrow {
        let base = entries[0].span.first();
        let shift = Narrow::shift_for(entries).unwrap_or(0);
        let offset = |key: u64| ((key - base) >> shift) as i32;
        let mut keys = NarrowKeys { lasts: [i32::MAX; NARROW_KEYS], base, len, shift, firsts: [0; LEAF] };
        for (i, entry) in entries.iter().enumerate() {
            keys.lasts[i] = offset(entry.span.last());
            keys.firsts[i] = offset(entry.span.first());
        }
        // SAFETY: (1, 2) the caller's: room for a `Narrow`, aligned, unshared.
        unsafe { memory.cast().write(Narrow { keys: UnsafeCell::new(keys), link, slots }) };
    } else {
        let mut keys = WideKeys { lasts: [u64::MAX; KEYS], firsts: [u64::MAX; LEAF], len };
        for (i, entry) in entries.iter().enumerate() {
            keys.lasts[i] = entry.span.last();
            keys.firsts[i] = entry.span.first();
        }
        // SAFETY: (1, 2) as above, for a `Wide`.
        unsafe { memory.cast().write(Wide { keys: UnsafeCell::new(keys), link, slots }) };
    }
    NodePtr::new(memory, kind)
}
