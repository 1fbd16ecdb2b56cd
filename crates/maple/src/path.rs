//! The writer's way from the root to a leaf.

use crate::gap;
use crate::node::{self, Inner, Leaf, NodePtr};
use crate::span::Span;
use crate::splice::FEW;
use crate::tree::MAX_HEIGHT;
use core::mem::MaybeUninit;
use spile_sync::atomic::AtomicPtr;

/// One step of the way: at `inner`, which ends at `last`, to its child `at`.
#[derive(Clone, Copy)]
pub(crate) struct Step<'t> {
    pub(crate) inner: &'t Inner,
    pub(crate) at: usize,
    pub(crate) last: u64,
}

impl Step<'_> {
    /// The last key of child `i`.
    pub(crate) fn last_of(&self, i: usize) -> u64 {
        if i + 1 < self.inner.len() { self.inner.pivot(i) } else { self.last }
    }
}

/// The way to the leaf that holds a key, and the leaf's part of the key space.
///
/// Having a `Path` tells you: its nodes are in the tree until you, the writer, publish something else.
pub(crate) struct Path<'t> {
    steps: [MaybeUninit<Step<'t>>; MAX_HEIGHT],
    height: usize,
    pub(crate) leaf: NodePtr,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl<'t> Path<'t> {
    /// No way yet. To be walked where it lies: it is too long to be moved about.
    #[inline]
    pub(crate) fn new() -> Self {
        let steps = [const { MaybeUninit::uninit() }; MAX_HEIGHT];
        Self { steps, height: 0, leaf: NodePtr::NULL, first: 0, last: u64::MAX }
    }

    /// Walks from `root` to the leaf of `key`; false if the tree is empty.
    ///
    /// # Safety
    ///
    /// The caller is the writer of the tree that hangs on `root`, and retires nothing of it during `'t` that it still uses.
    #[inline]
    pub(crate) unsafe fn walk(&mut self, root: &'t AtomicPtr<()>, key: u64) -> bool {
        let mut node = NodePtr::from_raw(node::own(root));
        if node.is_null() {
            return false;
        }
        while node.is_inner() {
            // SAFETY: (1) of that kind; (2) in the tree, whose writer is the caller.
            let inner: &'t Inner = unsafe { node.inner() };
            let at = inner.index(key);
            let step = Step { inner, at, last: self.last };
            if at > 0 {
                self.first = inner.pivot(at - 1) + 1;
            }
            self.last = step.last_of(at);
            self.steps[self.height].write(step);
            self.height += 1;
            node = inner.child(at);
        }
        self.leaf = node;
        true
    }

    /// The number of inner nodes on the way.
    pub(crate) fn height(&self) -> usize {
        self.height
    }

    /// Step `i`, counted from the root.
    #[inline]
    pub(crate) fn step(&self, i: usize) -> Step<'t> {
        assert!(i < self.height);
        // SAFETY: (1) steps below `height` were written by `to`.
        unsafe { self.steps[i].assume_init() }
    }

    /// The leaf.
    #[inline]
    pub(crate) fn leaf(&self) -> Leaf<'t> {
        // SAFETY: (1) the way ends at a leaf; (2) it is in the tree.
        unsafe { self.leaf.leaf() }
    }

    /// Whether the leaf is the first of the tree: the only one that may begin with free space.
    pub(crate) fn is_leftmost(&self) -> bool {
        self.first == 0
    }

    /// Where the leaf before this one under the same parent begins; for a way whose last step is not at child 0.
    pub(crate) fn first_before(&self) -> u64 {
        let parent = self.step(self.height - 1);
        if parent.at >= 2 {
            return parent.inner.pivot(parent.at - 2) + 1;
        }
        let before = |step: &Step<'_>| (step.at > 0).then(|| step.inner.pivot(step.at - 1) + 1);
        (0..self.height - 1).rev().find_map(|i| before(&self.step(i))).unwrap_or(0)
    }

    /// Whether the leaf is the last of the tree.
    pub(crate) fn is_rightmost(&self) -> bool {
        self.last == u64::MAX
    }

    /// Content of fewer entries than this should join a neighbour; a leaf that is the root has none.
    pub(crate) fn few(&self) -> usize {
        if self.height == 0 { 1 } else { FEW }
    }

    /// The slot that holds the leaf: its parent's, or `root`.
    #[inline]
    pub(crate) fn slot(&self, root: &'t AtomicPtr<()>) -> &'t AtomicPtr<()> {
        match self.height.checked_sub(1) {
            Some(up) => self.step(up).inner.slot(self.step(up).at),
            None => root,
        }
    }

    /// Entries `cut.0` to `cut.1` of `old`, whose spans were `before`, have given way to `after`, which made the leaf `now`:
    /// tells the nodes above what the longest free area under the leaf is. Looks at no more of the leaf than it must.
    ///
    /// # Safety
    ///
    /// The caller is the writer, and the inner nodes on the way are in the tree.
    #[inline]
    pub(crate) unsafe fn refill(
        &self,
        old: Leaf<'_>,
        cut: (usize, usize),
        now: Leaf<'_>,
        before: impl Iterator<Item = Span>,
        after: impl Iterator<Item = Span>,
    ) {
        let Some(up) = self.height.checked_sub(1) else { return };
        let below = (0..cut.0).rev().find_map(|i| old.live(i)).map_or(self.first, |e| e.span.last() + 1);
        let above = (cut.1..old.len()).find_map(|i| old.live(i)).map_or(self.last, |e| e.span.first() - 1);
        let around = Span::of(below, above);
        let (was, is) = (gap::longest(before, around), gap::longest(after, around));
        let parent = self.step(up);
        // SAFETY: (1) the caller is the writer.
        unsafe {
            let longest = parent.inner.gap(parent.at);
            if is >= longest {
                self.set_gap(self.height, is);
            } else if was == longest {
                self.set_gap(self.height, now.longest_gap(Span::of(self.first, self.last)));
            }
        }
    }

    /// Tells the lowest `levels` nodes, and those above them, that the longest free area under the child on the way is now `gap`.
    ///
    /// # Safety
    ///
    /// The caller is the writer, and the nodes on the way are in the tree.
    #[inline]
    pub(crate) unsafe fn set_gap(&self, levels: usize, mut gap: u64) {
        for i in (0..levels).rev() {
            let Step { inner, at, .. } = self.step(i);
            // SAFETY: (1) the caller is the writer.
            unsafe {
                let before = inner.gap(at);
                inner.set_gap(at, gap);
                let Some(up) = i.checked_sub(1) else { return };
                let parent = self.step(up);
                let longest = parent.inner.gap(parent.at);
                if gap < longest {
                    if before < longest {
                        return;
                    }
                    gap = inner.max_gap();
                }
                if gap == longest {
                    return;
                }
            }
        }
    }
}
