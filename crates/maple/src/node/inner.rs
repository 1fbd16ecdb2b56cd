//! Inner nodes: children, the keys between them, and the free space under them. See [`node`](super) for the layout.

use super::{INNER, KEYS, Kind, Link, NodePtr, load, rank, slots};
use core::ptr::NonNull;
use spile_sync::atomic::AtomicPtr;
use spile_sync::cell::UnsafeCell;

#[repr(C)]
pub(super) struct InnerKeys {
    pub(super) pivots: [u64; KEYS],
    len: u8,
}

/// A node of children.
#[repr(C, align(64))]
pub(crate) struct Inner {
    pub(super) keys: UnsafeCell<InnerKeys>,
    pub(super) slots: [AtomicPtr<()>; INNER],
    pub(super) link: Link,
    /// The longest free area under each child. Read and written by the writer alone.
    gaps: UnsafeCell<[u64; INNER]>,
}

/// A child as its parent will hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) node: NodePtr,
    /// The last key of its part of the key space.
    pub(crate) last: u64,
    pub(crate) gap: u64,
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
