//! The three kinds of node.
//!
//! **Guarantee.** Once a node is published, only its slots change, each by one atomic store of the single writer; its keys never do.
//! A reader that has a node may therefore use it without asking whether it is still in the tree: a node that was replaced is
//! frozen, and what it shows is a state the tree was in.
//!
//! **Mechanism.** A leaf holds entries (a first and a last key, and a slot for the handle); free space is what no entry covers. Most
//! leaves lie in a small part of the key space and are stored *narrow*: keys as 31-bit offsets from a base, in units of the
//! largest power of two that divides them all (pages, usually). A leaf for which that does not work is *wide*.
//!
//! ```text
//! Narrow, 512 bytes                    Wide, 768 bytes                 Inner, 768 bytes
//! ┌────────────────────────────┐       ┌──────────────────────┐        ┌────────────────────────────┐
//! │ lasts   32 × i32  2 lines  │       │ lasts   31 × u64     │        │ pivots  31 × u64           │ last key of child i
//! │ base, len, shift           │       │ firsts  30 × u64     │        │ len                        │
//! │ firsts  30 × i32           │       │ len                  │        │ slots   31 × child         │
//! │ link                       │       │ link                 │        │ link                       │
//! │ slots   30 × handle        │       │ slots   30 × handle  │        │ gaps    31 × u64           │ writer's only
//! └────────────────────────────┘       └──────────────────────┘        └────────────────────────────┘
//! ```
//!
//! Unused last keys and pivots are the maximum, unused slots are null, so that a search need not know the length. A search counts
//! the last keys below the key: without a branch, hence without a misprediction per level.
//! Node pointers carry the kind in their low bits. A null slot inside the length is an entry that was erased in place; `RESERVED` is
//! a range that is taken but shows nothing.

use crate::gap;
use crate::span::Span;
use crate::stock::Need;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, Ordering};
use spile_sync::cell::UnsafeCell;
use spile_sync::order;

/// Small nodes make rare paths (splits, merges, high trees) common where a checker runs.
const SMALL: bool = cfg!(any(loom, miri, feature = "sched"));
/// Entries of a leaf.
pub(crate) const LEAF: usize = if SMALL { 4 } else { 30 };
/// Children of an inner node.
pub(crate) const INNER: usize = if SMALL { 4 } else { 31 };
/// Searched keys of a narrow leaf: whole vectors.
const NARROW_KEYS: usize = if SMALL { 4 } else { 32 };
/// Searched keys of the other two: one less than a power of two.
const KEYS: usize = if SMALL { 7 } else { 31 };

/// The slot of a range that is taken but shows nothing.
pub(crate) const RESERVED: *mut () = core::ptr::without_provenance_mut(1);

/// Whether a slot shows a handle.
#[inline(always)]
pub(crate) fn shows(raw: *mut ()) -> bool {
    raw.addr() > 1
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Narrow,
    Wide,
    Inner,
}

const KIND_BITS: usize = 3;

/// A node's address with its kind in the low bits, or null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodePtr(*mut ());

impl NodePtr {
    pub(crate) const NULL: Self = Self(null_mut());

    pub(crate) fn from_raw(raw: *mut ()) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> *mut () {
        self.0
    }

    pub(crate) fn new(node: NonNull<u8>, kind: Kind) -> Self {
        Self(node.as_ptr().map_addr(|a| a | kind as usize).cast())
    }

    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        match self.0.addr() & KIND_BITS {
            0 => Kind::Narrow,
            1 => Kind::Wide,
            _ => Kind::Inner,
        }
    }

    #[inline(always)]
    pub(crate) fn is_inner(self) -> bool {
        self.0.addr() & KIND_BITS == Kind::Inner as usize
    }

    /// The address without the kind.
    #[inline(always)]
    pub(crate) fn address(self) -> *mut u8 {
        self.0.map_addr(|a| a & !KIND_BITS).cast()
    }

    /// # Safety
    ///
    /// (1) The kind is `Inner`; (2) the node is initialised and not freed during `'n`.
    #[inline(always)]
    pub(crate) unsafe fn inner<'n>(self) -> &'n Inner {
        debug_assert!(self.kind() == Kind::Inner);
        // SAFETY: (1, 2) the caller's.
        unsafe { &*self.address().cast::<Inner>() }
    }

    /// # Safety
    ///
    /// (1) The kind is a leaf's; (2) the node is initialised and not freed during `'n`.
    #[inline(always)]
    pub(crate) unsafe fn leaf<'n>(self) -> Leaf<'n> {
        // SAFETY: (1, 2) the caller's.
        unsafe {
            match self.kind() {
                Kind::Narrow => Leaf::Narrow(&*self.address().cast::<Narrow>()),
                _ => Leaf::Wide(&*self.address().cast::<Wide>()),
            }
        }
    }
}

/// One range of a leaf, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) span: Span,
    pub(crate) raw: *mut (),
}

/// A link for lists of nodes outside the tree (free, retired). Readers never look at it.
type Link = UnsafeCell<NodePtr>;

#[repr(C)]
struct NarrowKeys {
    lasts: [i32; NARROW_KEYS],
    base: u64,
    len: u8,
    shift: u8,
    firsts: [i32; LEAF],
}

/// A leaf whose keys are offsets.
#[repr(C, align(64))]
pub(crate) struct Narrow {
    keys: UnsafeCell<NarrowKeys>,
    link: Link,
    slots: [AtomicPtr<()>; LEAF],
}

#[repr(C)]
struct WideKeys {
    lasts: [u64; KEYS],
    firsts: [u64; LEAF],
    len: u8,
}

/// A leaf whose keys are whole.
#[repr(C, align(64))]
pub(crate) struct Wide {
    keys: UnsafeCell<WideKeys>,
    link: Link,
    slots: [AtomicPtr<()>; LEAF],
}

#[repr(C)]
struct InnerKeys {
    pivots: [u64; KEYS],
    len: u8,
}

/// A node of children.
#[repr(C, align(64))]
pub(crate) struct Inner {
    keys: UnsafeCell<InnerKeys>,
    slots: [AtomicPtr<()>; INNER],
    link: Link,
    /// The longest free area under each child. Read and written by the writer alone.
    gaps: UnsafeCell<[u64; INNER]>,
}

#[cfg(not(any(loom, miri, feature = "sched")))]
const _: () = {
    assert!(size_of::<Narrow>() == 512);
    assert!(size_of::<Wide>() == 768);
    assert!(size_of::<Inner>() == 768);
    assert!((KEYS + 1).is_power_of_two() && KEYS >= INNER - 1 && KEYS >= LEAF);
    assert!(NARROW_KEYS >= LEAF);
};

/// How many of `keys` are below `key`. `keys` ascends. One compare and one add per halving, no branch.
#[inline(always)]
fn rank(keys: &[u64; KEYS], key: u64) -> usize {
    let mut below = 0;
    let mut half = KEYS.div_ceil(2);
    while half > 0 {
        // SAFETY: (1) `below` is a sum of distinct earlier halves, so `below + half <= KEYS`.
        let probe = unsafe { *keys.get_unchecked(below + half - 1) };
        below += if probe < key { half } else { 0 };
        half /= 2;
    }
    below
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

    /// All entries but the erased ones.
    pub(crate) fn entries(self) -> impl DoubleEndedIterator<Item = Entry> + 'n {
        (0..self.len()).map(move |i| self.entry(i)).filter(|e| !e.raw.is_null())
    }
}

/// A reader's load of a slot.
#[inline(always)]
pub(crate) fn load(slot: &AtomicPtr<()>) -> *mut () {
    // Acquire [descend]: pairs with [publish]: the child's (or the handle's) contents are visible behind its address.
    slot.load(order!("descend", Acquire))
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
        let live = |i: &usize| !own(&self.slots[*i]).is_null();
        let begin = (0..keys.len as usize).find(live)?;
        let mut end = begin;
        // In units, and one too many: the distance from a last to the next first.
        let mut longest = 1;
        for i in (begin + 1..keys.len as usize).filter(live) {
            longest = longest.max(keys.firsts[i] - keys.lasts[end]);
            end = i;
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
    fn shift_for(entries: &[Entry]) -> Option<u8> {
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

impl Inner {
    #[inline(always)]
    fn keys(&self) -> &InnerKeys {
        // SAFETY: as for `Narrow::keys`.
        self.keys.with(|keys| unsafe { &*keys })
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.keys().len as usize
    }

    /// The index of the child whose part of the key space holds `key`.
    #[inline(always)]
    pub(crate) fn index(&self, key: u64) -> usize {
        rank(&self.keys().pivots, key)
    }

    /// The last key of child `i`; `u64::MAX`, to be bounded by the parent's, for the last child.
    #[inline(always)]
    pub(crate) fn pivot(&self, i: usize) -> u64 {
        self.keys().pivots[i]
    }

    #[inline(always)]
    pub(crate) fn child(&self, i: usize) -> NodePtr {
        NodePtr(load(&self.slots[i]))
    }

    pub(crate) fn slot(&self, i: usize) -> &AtomicPtr<()> {
        &self.slots[i]
    }

    /// The longest free area under child `i`.
    ///
    /// # Safety
    ///
    /// The caller is the tree's writer.
    #[inline]
    pub(crate) unsafe fn gap(&self, i: usize) -> u64 {
        // SAFETY: (1) gaps are touched by the writer alone, which the caller is.
        self.gaps.with(|gaps| unsafe { (*gaps)[i] })
    }

    /// # Safety
    ///
    /// The caller is the tree's writer.
    #[inline]
    pub(crate) unsafe fn set_gap(&self, i: usize, gap: u64) {
        // SAFETY: (1) as for `gap`.
        self.gaps.with_mut(|gaps| unsafe { (*gaps)[i] = gap });
    }

    /// The longest free area under this node.
    ///
    /// # Safety
    ///
    /// The caller is the tree's writer.
    pub(crate) unsafe fn max_gap(&self) -> u64 {
        // SAFETY: (1) as for `gap`. Unused gaps are zero.
        self.gaps.with(|gaps| unsafe { (*gaps).iter().copied().fold(0, u64::max) })
    }
}

/// A child as its parent will hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) node: NodePtr,
    /// The last key of its part of the key space.
    pub(crate) last: u64,
    pub(crate) gap: u64,
}

impl Class {
    /// One node of this class.
    pub(crate) fn one(self) -> Need {
        match self {
            Class::Small => Need { small: 1, large: 0 },
            Class::Large => Need { small: 0, large: 1 },
        }
    }
}

/// The memory class of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Small,
    Large,
}

impl Class {
    pub(crate) const fn layout(self) -> core::alloc::Layout {
        match self {
            Class::Small => core::alloc::Layout::new::<Narrow>(),
            Class::Large if size_of::<Inner>() >= size_of::<Wide>() => core::alloc::Layout::new::<Inner>(),
            Class::Large => core::alloc::Layout::new::<Wide>(),
        }
    }
}

impl Kind {
    pub(crate) fn class(self) -> Class {
        match self {
            Kind::Narrow => Class::Small,
            Kind::Wide | Kind::Inner => Class::Large,
        }
    }

    /// The kind of leaf that can hold `entries`.
    pub(crate) fn for_entries(entries: &[Entry]) -> Self {
        if Narrow::shift_for(entries).is_some() { Kind::Narrow } else { Kind::Wide }
    }
}

/// Slots of a new node, the rest of them null.
#[inline(always)]
fn slots<const N: usize>(raws: impl Iterator<Item = *mut ()>) -> [AtomicPtr<()>; N] {
    let mut slots = core::array::from_fn(|_| AtomicPtr::new(null_mut()));
    for (slot, raw) in slots.iter_mut().zip(raws) {
        *slot = AtomicPtr::new(raw);
    }
    slots
}

/// The writer's copy of slots into a new node.
#[inline(always)]
fn copy_slots(new: &mut [AtomicPtr<()>], old: &[AtomicPtr<()>]) {
    for (new, old) in new.iter_mut().zip(old) {
        *new = AtomicPtr::new(own(old));
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

/// Writes an inner node of `children` (1 to `INNER` of them) into `memory`.
///
/// # Safety
///
/// (1) `memory` has the layout of `Class::Large` and (2) belongs to the caller.
pub(crate) unsafe fn write_inner(memory: NonNull<u8>, children: &[Child]) -> NodePtr {
    debug_assert!(!children.is_empty() && children.len() <= INNER);
    let mut pivots = [u64::MAX; KEYS];
    for (pivot, child) in pivots.iter_mut().zip(&children[..children.len() - 1]) {
        *pivot = child.last;
    }
    let mut gaps = [0; INNER];
    for (gap, child) in gaps.iter_mut().zip(children) {
        *gap = child.gap;
    }
    let node = Inner {
        keys: UnsafeCell::new(InnerKeys { pivots, len: children.len() as u8 }),
        slots: slots(children.iter().map(|c| c.node.0)),
        link: Link::new(NodePtr::NULL),
        gaps: UnsafeCell::new(gaps),
    };
    // SAFETY: (1, 2) the caller's.
    unsafe { memory.cast().write(node) };
    NodePtr::new(memory, Kind::Inner)
}

impl NodePtr {
    fn link(&self) -> &Link {
        // SAFETY: (1) whoever lists nodes owns them, and they are initialised.
        unsafe {
            match self.kind() {
                Kind::Narrow => &(*self.address().cast::<Narrow>()).link,
                Kind::Wide => &(*self.address().cast::<Wide>()).link,
                Kind::Inner => &(*self.address().cast::<Inner>()).link,
            }
        }
    }

    /// The next node of the list this one is in.
    ///
    /// # Safety
    ///
    /// (1) The node is initialised and out of the tree; (2) the caller is the tree's writer.
    pub(crate) unsafe fn next(self) -> NodePtr {
        // SAFETY: (2) the caller's: nobody else touches links.
        self.link().with(|link| unsafe { *link })
    }

    /// # Safety
    ///
    /// As for [`next`](Self::next).
    pub(crate) unsafe fn set_next(self, next: NodePtr) {
        // SAFETY: as above.
        self.link().with_mut(|link| unsafe { *link = next });
    }

    /// For seeded bugs: writes the keys of a node that has been published.
    pub(crate) fn write_late(self) {
        // SAFETY: none: this is the bug that a model must find.
        unsafe {
            match self.kind() {
                Kind::Narrow => (*self.address().cast::<Narrow>()).keys.with_mut(|k| k.write(k.read())),
                Kind::Wide => (*self.address().cast::<Wide>()).keys.with_mut(|k| k.write(k.read())),
                Kind::Inner => (*self.address().cast::<Inner>()).keys.with_mut(|k| k.write(k.read())),
            }
        }
    }

    /// For seeded bugs: gives a leaf that has been published what `other`, of the same kind, holds.
    pub(crate) fn overwrite(self, other: NodePtr) {
        // SAFETY: none: this is the bug that a model must find.
        unsafe {
            match self.kind() {
                Kind::Narrow => {
                    let keys = (*other.address().cast::<Narrow>()).keys.with(|k| k.read());
                    (*self.address().cast::<Narrow>()).keys.with_mut(|k| k.write(keys));
                }
                _ => {
                    let keys = (*other.address().cast::<Wide>()).keys.with(|k| k.read());
                    (*self.address().cast::<Wide>()).keys.with_mut(|k| k.write(keys));
                }
            }
            (0..LEAF).for_each(|i| publish(self.leaf().slot(i), own(other.leaf().slot(i))));
        }
    }

    /// Makes a freed node show nothing, and lets a checker see that it was written.
    #[cfg(any(loom, feature = "sched"))]
    pub(crate) fn poison(self) {
        // SAFETY: (1) the caller believes that nobody reads the node any more, and the checker tells if somebody does.
        unsafe {
            match self.kind() {
                Kind::Narrow => (*self.address().cast::<Narrow>()).keys.with_mut(|k| (*k).lasts = [i32::MIN; NARROW_KEYS]),
                Kind::Wide => (*self.address().cast::<Wide>()).keys.with_mut(|k| (*k).lasts = [0; KEYS]),
                Kind::Inner => (*self.address().cast::<Inner>()).keys.with_mut(|k| (*k).pivots = [0; KEYS]),
            }
        }
    }

    /// Ends the node's life: its memory can be written anew.
    ///
    /// # Safety
    ///
    /// (1) No reader and no parent has it any more; (2) it is not used as a node again.
    pub(crate) unsafe fn unmake(self) -> NonNull<u8> {
        // SAFETY: (1, 2) the caller's. With the shipped atomics there is nothing to drop; a checker's are told.
        unsafe {
            match self.kind() {
                Kind::Narrow => self.address().cast::<Narrow>().drop_in_place(),
                Kind::Wide => self.address().cast::<Wide>().drop_in_place(),
                Kind::Inner => self.address().cast::<Inner>().drop_in_place(),
            }
            NonNull::new_unchecked(self.address())
        }
    }
}

/// Publishes `raw` in `slot`: the one store that makes a change visible.
#[inline(always)]
pub(crate) fn publish(slot: &AtomicPtr<()>, raw: *mut ()) {
    // Release [publish]: what was written into the new nodes comes before their address. Pairs with [descend].
    slot.store(raw, order!("publish", Release));
}

/// The writer's own load: it wrote what it reads.
#[inline(always)]
pub(crate) fn own(slot: &AtomicPtr<()>) -> *mut () {
    slot.load(Ordering::Relaxed)
}
