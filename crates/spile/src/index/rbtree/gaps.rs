//! Free space.
//!
//! **Guarantee.** The lowest and the highest place for some bytes are found in O(log n), however the bounds lie.
//!
//! **Mechanism.** Each entry knows how much is free below it, and each subtree the most of that. Bounds cut one free area each,
//! found by a lookup; from there the nearest area that is long enough is a climb and a descent away. What is free above the
//! last entry belongs to no node.

use super::RbTree;
use super::arena::{Link, Side};
use crate::addr::Range;

impl<T> RbTree<T> {
    /// The lowest start of `len` free bytes in `within`. `len` is not 0.
    pub(crate) fn lowest_gap(&self, len: u64, within: Range) -> Option<u64> {
        debug_assert_ne!(len, 0, "free space has a length");
        let highest = within.end().checked_sub(len)?;
        let at = self.first_above(within.start());
        if self.nodes.get(at).is_none_or(|node| node.range.start() >= within.start() + len) {
            return (within.start() <= highest).then_some(within.start());
        }
        let start = match self.nodes.get(self.nearest(at, Side::Right, len)) {
            Some(node) => node.range.start() - node.before,
            None => self.nodes[self.last].range.end(),
        };
        (start <= highest).then_some(start)
    }

    /// The highest start of `len` free bytes in `within`. `len` is not 0.
    pub(crate) fn highest_gap(&self, len: u64, within: Range) -> Option<u64> {
        debug_assert_ne!(len, 0, "free space has a length");
        let highest = within.end().checked_sub(len)?;
        let at = self.last_below(within.end());
        let start = match self.nodes.get(at) {
            None => highest,
            Some(node) if node.range.end() <= highest => highest,
            Some(node) if node.before >= len => node.range.start() - len,
            Some(_) => self.nodes.get(self.nearest(at, Side::Left, len))?.range.start() - len,
        };
        (start >= within.start()).then_some(start)
    }

    /// The nearest node on this side of `from` with `len` bytes free below it.
    fn nearest(&self, from: Link, side: Side, len: u64) -> Link {
        let mut at = from;
        loop {
            let beyond = self.nodes[at].child(side);
            if self.longest(beyond) >= len {
                return self.outermost(beyond, side.other(), len);
            }
            at = self.next_ancestor(at, side);
            if self.nodes.get(at).is_none_or(|node| node.before >= len) {
                return at;
            }
        }
    }

    /// The first ancestor on this side of `at`.
    fn next_ancestor(&self, mut at: Link, side: Side) -> Link {
        loop {
            let place = self.place(at);
            if place.parent == Link::NIL || place.side != side {
                return place.parent;
            }
            at = place.parent;
        }
    }

    /// The outermost node on this side below `top` with `len` bytes free below it. There is one.
    fn outermost(&self, top: Link, side: Side, len: u64) -> Link {
        let mut at = top;
        loop {
            let node = &self.nodes[at];
            if self.longest(node.child(side)) >= len {
                at = node.child(side);
            } else if node.before >= len {
                return at;
            } else {
                at = node.child(side.other());
            }
        }
    }

    /// Corrects what is free below `at`, whose range or predecessor may have changed.
    pub(super) fn settle(&mut self, at: Link) {
        let node = &self.nodes[at];
        let below = self.nodes.get(node.prev).map_or(0, |prev| prev.range.end());
        debug_assert!(below <= node.range.start(), "entries ascend, apart");
        let before = node.range.start().saturating_sub(below);
        if node.before != before {
            self.nodes[at].before = before;
            self.refresh_up(at);
        }
    }

    /// Corrects `longest` from `at` upwards, until it was right.
    pub(super) fn refresh_up(&mut self, mut at: Link) {
        while let Some(node) = self.nodes.get(at) {
            let (longest, parent) = (self.longest_at(at), node.parent);
            if node.longest == longest {
                return;
            }
            self.nodes[at].longest = longest;
            at = parent;
        }
    }

    /// What `longest` of `at` is, by its children.
    pub(super) fn longest_at(&self, at: Link) -> u64 {
        let node = &self.nodes[at];
        node.children.iter().fold(node.before, |longest, &child| longest.max(self.longest(child)))
    }

    fn longest(&self, at: Link) -> u64 {
        self.nodes.get(at).map_or(0, |node| node.longest)
    }
}
