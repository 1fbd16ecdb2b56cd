//! Walking the ranges in order.
//!
//! **Guarantee.** As [`RangeTree::iter`](crate::RangeTree::iter): ascending or descending, never a key twice that nobody changed,
//! never a hole where keys stay covered. Allocates nothing; each step is bounded by the tree's height and by the
//! erased and reserved ranges passed over.
//!
//! **Mechanism.** Each end keeps the way it came: the nodes from the root to a leaf, and the leaf's part of the key space as these
//! nodes have it. Going on, it takes the neighbouring child of the lowest node that has one. These nodes may have been
//! replaced meanwhile; frozen, they still divide the same keys among their children, so the walk covers each key once, and what
//! it finds through them was in the tree during the walk.

use crate::handle::Handle;
use crate::node::{self, Entry, Inner, Leaf, NodePtr, shows};
use crate::span::Span;
use crate::tree::{MAX_HEIGHT, by_ref};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use spile_sync::atomic::AtomicPtr;

/// The ranges of a tree that touch a span, ascending, with what they hold.
pub struct Iter<'g, H: Handle> {
    root: &'g AtomicPtr<()>,
    /// The keys that have not been walked: from here, up to there, unless all is done.
    from: u64,
    upto: u64,
    done: bool,
    front: Walk<'g>,
    back: Walk<'g>,
    handles: PhantomData<&'g H>,
}

/// One end of a walk: a place in a leaf and the way to it.
struct Walk<'g> {
    way: [MaybeUninit<(&'g Inner, u8)>; MAX_HEIGHT],
    height: usize,
    leaf: Option<Leaf<'g>>,
    /// Forward: the next entry. Backward: one past the next.
    at: usize,
    len: usize,
}

impl<'g> Walk<'g> {
    const START: Self = Self { way: [const { MaybeUninit::uninit() }; MAX_HEIGHT], height: 0, leaf: None, at: 0, len: 0 };

    fn level(&self, i: usize) -> (&'g Inner, usize) {
        debug_assert!(i < self.height);
        // SAFETY: (1) levels below `height` were written by `descend`.
        let (inner, at) = unsafe { self.way[i].assume_init() };
        (inner, at as usize)
    }

    /// Goes down from `node`, choosing a child at each level.
    #[inline]
    fn descend(&mut self, mut node: NodePtr, choose: impl Fn(&Inner) -> usize) {
        while node.is_inner() {
            // SAFETY: (1) of that kind; (2) reached under the section whose guard outlives `'g`, or by the writer.
            let inner: &'g Inner = unsafe { node.inner() };
            let i = choose(inner);
            self.way[self.height].write((inner, i as u8));
            self.height += 1;
            node = inner.child(i);
        }
        // SAFETY: as above.
        let leaf = unsafe { node.leaf() };
        self.len = leaf.len();
        self.leaf = Some(leaf);
    }

    /// To the first entry of the leaf after this one; false if there is none.
    fn next_leaf(&mut self) -> bool {
        while self.height > 0 {
            let (inner, i) = self.level(self.height - 1);
            self.height -= 1;
            if i + 1 < inner.len() {
                self.way[self.height].write((inner, (i + 1) as u8));
                self.height += 1;
                self.descend(inner.child(i + 1), |_| 0);
                self.at = 0;
                return true;
            }
        }
        self.leaf = None;
        false
    }

    /// To the last entry of the leaf before this one; false if there is none.
    fn prev_leaf(&mut self) -> bool {
        while self.height > 0 {
            let (inner, i) = self.level(self.height - 1);
            self.height -= 1;
            if i > 0 {
                self.way[self.height].write((inner, (i - 1) as u8));
                self.height += 1;
                self.descend(inner.child(i - 1), |inner| inner.len() - 1);
                self.at = self.len;
                return true;
            }
        }
        self.leaf = None;
        false
    }
}

impl<'g> Walk<'g> {
    /// A seeded bug: takes the same place of today's root for that of the root it came by.
    fn transplant(&mut self, root: &'g AtomicPtr<()>) {
        let now = NodePtr::from_raw(node::load(root));
        if self.height > 0 && now.is_inner() {
            // SAFETY: as in `descend`.
            self.way[0].write((unsafe { now.inner() }, self.level(0).1 as u8));
        }
    }
}

impl<'g, H: Handle> Iter<'g, H> {
    pub(crate) fn new(root: &'g AtomicPtr<()>, within: Span) -> Self {
        let (from, upto) = (within.first(), within.last());
        Self { root, from, upto, done: false, front: Walk::START, back: Walk::START, handles: PhantomData }
    }

    /// The root, unless the tree is empty, which ends the walk.
    fn top(&mut self) -> Option<NodePtr> {
        let root = NodePtr::from_raw(node::load(self.root));
        self.done |= root.is_null();
        (!root.is_null()).then_some(root)
    }

    /// To the next leaf (the first, at the first call); false if there is none. Apart, to keep the way through a leaf short.
    #[cold]
    #[inline(never)]
    fn step(&mut self) -> bool {
        if self.done {
            return false;
        }
        if self.front.leaf.is_some() {
            if spile_sync::seeded!("iterate-by-position") {
                self.front.transplant(self.root);
            }
            self.done = !self.front.next_leaf();
        } else if let Some(root) = self.top() {
            let key = self.from;
            self.front.descend(root, |inner| inner.index(key));
            self.front.at = self.front.leaf.map_or(0, |leaf| leaf.index(key));
        }
        !self.done
    }

    /// As [`step`](Self::step), downwards.
    #[cold]
    #[inline(never)]
    fn step_back(&mut self) -> bool {
        if self.done {
            return false;
        }
        if self.back.leaf.is_some() {
            self.done = !self.back.prev_leaf();
        } else if let Some(root) = self.top() {
            let key = self.upto;
            self.back.descend(root, |inner| inner.index(key));
            // One past the entry that covers the key, or that follows it: the latter is passed over.
            self.back.at = self.back.leaf.map_or(0, |leaf| leaf.len().min(leaf.index(key) + 1));
        }
        !self.done
    }

    /// Nothing is left.
    #[cold]
    #[inline(never)]
    fn end(&mut self) {
        self.done = true;
        (self.front.at, self.front.len, self.back.at) = (0, 0, 0);
    }

    /// The next entry in ascending order, reserved ones included.
    #[inline(always)]
    pub(crate) fn next_entry(&mut self) -> Option<Entry> {
        loop {
            while self.front.at < self.front.len
                && let Some(leaf) = self.front.leaf
            {
                let entry = leaf.entry(self.front.at);
                self.front.at += 1;
                // An entry that ends below was there when the leaf was chosen, and its keys have been walked already.
                if entry.raw.is_null() || entry.span.last() < self.from {
                    continue;
                }
                if entry.span.first() > self.upto {
                    self.end();
                    return None;
                }
                match entry.span.last().checked_add(1) {
                    Some(from) => self.from = from,
                    None => self.end(),
                }
                return Some(entry);
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// The next entry in descending order, reserved ones included.
    #[inline]
    pub(crate) fn next_entry_back(&mut self) -> Option<Entry> {
        loop {
            while self.back.at > 0
                && let Some(leaf) = self.back.leaf
            {
                self.back.at -= 1;
                let entry = leaf.entry(self.back.at);
                if entry.raw.is_null() || entry.span.first() > self.upto {
                    continue;
                }
                if entry.span.last() < self.from {
                    self.end();
                    return None;
                }
                match entry.span.first().checked_sub(1) {
                    Some(upto) => self.upto = upto,
                    None => self.end(),
                }
                return Some(entry);
            }
            if !self.step_back() {
                return None;
            }
        }
    }
}

impl<'g, H: Handle> Iterator for Iter<'g, H> {
    type Item = (Span, H::Ref<'g>);

    // Always: the way through a leaf is shorter than a call, and what is longer is apart.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = self.next_entry()?;
            if shows(entry.raw) {
                // SAFETY: (1) shown by this tree; (2) alive during `'g`, whose section the guard keeps.
                return Some((entry.span, unsafe { by_ref::<H>(entry.raw) }));
            }
        }
    }
}

impl<H: Handle> DoubleEndedIterator for Iter<'_, H> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let entry = self.next_entry_back()?;
            if shows(entry.raw) {
                // SAFETY: as in `next`.
                return Some((entry.span, unsafe { by_ref::<H>(entry.raw) }));
            }
        }
    }
}

impl<H: Handle> core::iter::FusedIterator for Iter<'_, H> {}
