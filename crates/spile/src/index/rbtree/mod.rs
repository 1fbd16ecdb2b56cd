//! A tree of disjoint ranges for one user at a time: what address spaces were indexed by before trees that readers may search
//! beside a writer.
//!
//! **Guarantee.** Lookups, changes of one entry and searches for free space take O(log n); from an entry to its neighbour it is
//! one step. Without memory a change changes nothing. Displaced owners are handed over in ascending order, when the tree is
//! whole again.
//!
//! **Mechanism.** A red-black tree whose nodes are also a list by address, and know how much is free below them. [`arena`] has
//! the nodes, [`balance`] keeps the tree low, [`gaps`] looks for free space, [`iter`] walks. What is new in a window gets the
//! nodes of what is displaced there, for the order among them stays: only nodes that are too few or too many are attached or
//! detached.

mod arena;
mod balance;
mod gaps;
mod iter;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
mod validate;

use crate::addr::Range;
use crate::change::NoMemory;
use arena::{Arena, Link, Side};
use balance::Place;

/// The tree.
#[derive(Debug)]
pub(crate) struct RbTree<T> {
    nodes: Arena<T>,
    root: Link,
    first: Link,
    last: Link,
}

impl<T> RbTree<T> {
    pub(crate) const fn new() -> Self {
        Self { nodes: Arena::new(), root: Link::NIL, first: Link::NIL, last: Link::NIL }
    }

    /// The entry that covers `at`, or the next above.
    #[inline]
    pub(crate) fn find(&self, at: u64) -> Option<(Range, &T)> {
        self.entry(self.first_above(at))
    }

    /// The entry that covers `at`.
    #[inline]
    pub(crate) fn get(&self, at: u64) -> Option<(Range, &T)> {
        self.find(at).filter(|(range, _)| range.contains(at))
    }

    /// The entries that touch `within`, ascending.
    pub(crate) fn iter(&self, within: Range) -> impl DoubleEndedIterator<Item = (Range, &T)> {
        iter::Entries::new(self, within)
    }

    /// Makes sure that the next `entries` insertions find memory.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn reserve(&mut self, entries: usize) -> Result<(), NoMemory> {
        self.nodes.reserve(entries)
    }

    /// Makes `new` all that is in `window`. They ascend, disjoint, within the window, and no entry sticks out of it.
    ///
    /// # Errors
    ///
    /// `new`, if there is no memory for more entries than were displaced; nothing was changed.
    pub(crate) fn replace<const N: usize>(
        &mut self,
        window: Range,
        mut new: [Option<(Range, T)>; N],
        mut taken: impl FnMut(T),
    ) -> Result<(), [Option<(Range, T)>; N]> {
        let below = self.last_below(window.start());
        let (displaced, wanted) = (self.count(below, window), new.iter().flatten().count());
        if self.nodes.reserve(wanted.saturating_sub(displaced)).is_err() {
            return Err(new);
        }
        let surplus = displaced.saturating_sub(wanted);
        let leavers = self.cut(below, surplus);
        self.write(below, window, &mut new);
        self.settle_from(below, wanted + 1);
        self.release(leavers, surplus, &mut taken);
        new.into_iter().flatten().for_each(|(_, owner)| taken(owner));
        Ok(())
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self, mut taken: impl FnMut(T)) {
        let leavers = self.first;
        (self.root, self.first, self.last) = (Link::NIL, Link::NIL, Link::NIL);
        self.release(leavers, usize::MAX, &mut taken);
    }

    /// How many nodes are on the longest way down. Linear in the tree.
    pub(crate) fn height(&self) -> usize {
        self.height_below(self.root)
    }

    /// Its depth is that of the tree, which is low.
    fn height_below(&self, at: Link) -> usize {
        let deepest = |node: &arena::Node<T>| node.children.iter().map(|child| self.height_below(*child)).max();
        self.nodes.get(at).and_then(deepest).map_or(0, |below| below + 1)
    }

    /// How many entries of `window` follow `below`, the last that begins below it.
    fn count(&self, below: Link, window: Range) -> usize {
        debug_assert!(self.nodes.get(below).is_none_or(|node| node.range.end() <= window.start()), "none sticks out below");
        let (mut count, mut at) = (0, self.after(below));
        while self.is_in(at, window) {
            (count, at) = (count + 1, self.nodes[at].next);
        }
        debug_assert!(self.nodes.get(at).is_none_or(|node| node.range.start() >= window.end()), "none sticks out above");
        count
    }

    /// Takes the `count` entries after `below` out of tree and list. They still follow each other from the one returned.
    fn cut(&mut self, below: Link, count: usize) -> Link {
        let first = self.after(below);
        let mut at = first;
        for _ in 0..count {
            self.detach(at);
            at = self.nodes[at].next;
        }
        if count > 0 {
            self.join(below, at);
        }
        first
    }

    /// Writes `new` over the entries of `window` that follow `below`, which are not more, and adds what is left of it. The owners
    /// that were there are in `new` then.
    fn write<const N: usize>(&mut self, below: Link, window: Range, new: &mut [Option<(Range, T)>; N]) {
        let mut last = below;
        for slot in new {
            let Some((range, owner)) = slot.take() else { continue };
            debug_assert!(window.covers(range), "what is new lies in the window");
            let next = self.after(last);
            if self.is_in(next, window) {
                let node = &mut self.nodes[next];
                node.range = range;
                *slot = node.owner.replace(owner).map(|owner| (range, owner));
                last = next;
            } else {
                last = self.insert_after(last, range, owner);
            }
        }
    }

    fn insert_after(&mut self, prev: Link, range: Range, owner: T) -> Link {
        let next = self.after(prev);
        let at = self.nodes.take(range, owner);
        self.join(prev, at);
        self.join(at, next);
        // Of two neighbours one is below the other, and there has no child on the side of the other.
        let place = match (self.nodes.get(prev), self.nodes.get(next)) {
            (Some(node), _) if node.child(Side::Right) == Link::NIL => Place::of(prev, Side::Right),
            (_, Some(_)) => Place::of(next, Side::Left),
            (_, None) => Place::ROOT,
        };
        self.attach(at, place);
        at
    }

    /// Corrects what is free below `count` entries after `below`.
    fn settle_from(&mut self, below: Link, count: usize) {
        let mut at = self.after(below);
        for _ in 0..count {
            let Some(next) = self.nodes.get(at).map(|node| node.next) else { return };
            self.settle(at);
            at = next;
        }
    }

    /// Gives back at most `count` nodes that follow each other, and are in the tree no more.
    fn release(&mut self, first: Link, count: usize, taken: &mut impl FnMut(T)) {
        let mut at = first;
        for _ in 0..count {
            let Some(next) = self.nodes.get(at).map(|node| node.next) else { return };
            taken(self.nodes.give(at));
            at = next;
        }
    }

    /// Makes `prev` and `next` neighbours in the list. None is its end.
    fn join(&mut self, prev: Link, next: Link) {
        match self.nodes.get_mut(prev) {
            Some(node) => node.next = next,
            None => self.first = next,
        }
        match self.nodes.get_mut(next) {
            Some(node) => node.prev = prev,
            None => self.last = prev,
        }
    }

    fn after(&self, at: Link) -> Link {
        self.nodes.get(at).map_or(self.first, |node| node.next)
    }

    fn is_in(&self, at: Link, window: Range) -> bool {
        self.nodes.get(at).is_some_and(|node| window.covers(node.range))
    }

    #[inline]
    fn entry(&self, at: Link) -> Option<(Range, &T)> {
        let node = self.nodes.get(at)?;
        Some((node.range, node.owner.as_ref()?))
    }

    /// The first entry that ends above `at`.
    #[inline]
    fn first_above(&self, at: u64) -> Link {
        let (mut found, mut link) = (Link::NIL, self.root);
        while let Some(node) = self.nodes.get(link) {
            if node.range.end() <= at {
                link = node.child(Side::Right);
                continue;
            }
            found = link;
            if node.range.start() <= at {
                break;
            }
            link = node.child(Side::Left);
        }
        found
    }

    /// The last entry that begins below `at`.
    fn last_below(&self, at: u64) -> Link {
        let (mut found, mut link) = (Link::NIL, self.root);
        while let Some(node) = self.nodes.get(link) {
            let side = if node.range.start() < at { Side::Right } else { Side::Left };
            if side == Side::Right {
                found = link;
            }
            link = node.child(side);
        }
        found
    }
}
