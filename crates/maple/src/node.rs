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

mod inner;
mod leaf;

use crate::span::Span;
use crate::stock::Need;
use core::ptr::{NonNull, null_mut};
use spile_sync::atomic::{AtomicPtr, Ordering};
use spile_sync::cell::UnsafeCell;
use spile_sync::order;

pub(crate) use inner::{Child, Inner, write_inner};
use leaf::Wide;
pub(crate) use leaf::{Leaf, Narrow, write_leaf};

/// Small nodes make rare paths (splits, merges, high trees) common where a checker runs.
const SMALL: bool = cfg!(any(loom, miri, feature = "small-nodes"));
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

#[cfg(not(any(loom, miri, feature = "small-nodes")))]
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

/// A reader's load of a slot.
#[inline(always)]
pub(crate) fn load(slot: &AtomicPtr<()>) -> *mut () {
    // Acquire [descend]: pairs with [publish]: the child's (or the handle's) contents are visible behind its address.
    slot.load(order!("descend", Acquire))
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
