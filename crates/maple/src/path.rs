//! The writer's way from the root to a leaf.

use crate::node::{self, Inner, Leaf, NodePtr};
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
    /// The way to `key`, unless the tree is empty.
    ///
    /// # Safety
    ///
    /// The caller is the writer of the tree that hangs on `root`, and retires nothing of it during `'t` that it still uses.
    #[inline]
    pub(crate) unsafe fn to(root: &'t AtomicPtr<()>, key: u64) -> Option<Self> {
        let mut node = NodePtr::from_raw(node::own(root));
        if node.is_null() {
            return None;
        }
        let mut path = Self {
            steps: [const { MaybeUninit::uninit() }; MAX_HEIGHT],
            height: 0,
            leaf: NodePtr::NULL,
            first: 0,
            last: u64::MAX,
        };
        while node.is_inner() {
            // SAFETY: (1) of that kind; (2) in the tree, whose writer is the caller.
            let inner: &'t Inner = unsafe { node.inner() };
            let at = inner.index(key);
            let step = Step { inner, at, last: path.last };
            if at > 0 {
                path.first = inner.pivot(at - 1) + 1;
            }
            path.last = step.last_of(at);
            path.steps[path.height].write(step);
            path.height += 1;
            node = inner.child(at);
        }
        path.leaf = node;
        Some(path)
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

    /// Tells the nodes above step `level` that the longest free area under child `at` of that step is now `gap`.
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
                if before == gap {
                    return;
                }
                inner.set_gap(at, gap);
                gap = inner.max_gap();
            }
        }
    }
}
