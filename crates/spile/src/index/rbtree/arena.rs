//! Where the nodes of a tree are.
//!
//! **Guarantee.** A node keeps its [`Link`] for as long as it is taken. Only [`Arena::reserve`] asks for memory, and where
//! there is none nothing changes.
//!
//! **Mechanism.** One array. Nodes given back form a list through `next`, and are taken first.

use crate::addr::Range;
use crate::change::NoMemory;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// The most nodes of a tree. Few in tests, which want to see the end of memory.
pub(super) const MOST: usize = if cfg!(test) { 1 << 12 } else { u32::MAX as usize };

/// A node by its place in the array, or no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u32);

impl Link {
    /// No node. The array never gets so long that it would be one.
    pub(super) const NIL: Self = Self(u32::MAX);
}

/// A side of a node: the addresses below it or above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// An entry, its place in the tree and its place in the list. A step of a lookup loads one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Node<T> {
    pub(super) range: Range,
    /// How many bytes are free between the entry before, or address 0, and this.
    pub(super) before: u64,
    /// The largest `before` in the subtree.
    pub(super) longest: u64,
    pub(super) parent: Link,
    pub(super) children: [Link; 2],
    pub(super) prev: Link,
    pub(super) next: Link,
    pub(super) red: bool,
    /// There in a node that is taken.
    pub(super) owner: Option<T>,
}

const _: () = assert!(size_of::<Node<&u8>>() == 64, "a node is one cache line");

impl<T> Node<T> {
    pub(super) fn child(&self, side: Side) -> Link {
        self.children[side as usize]
    }
}

/// The nodes of a tree, and those it had.
#[derive(Debug)]
pub(super) struct Arena<T> {
    nodes: Vec<Node<T>>,
    free: Link,
    taken: usize,
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: Link::NIL, taken: 0 }
    }

    /// Makes sure that `nodes` more can be taken.
    pub(super) fn reserve(&mut self, nodes: usize) -> Result<(), NoMemory> {
        let total = self.taken.checked_add(nodes).filter(|&total| total <= MOST).ok_or(NoMemory)?;
        self.nodes.try_reserve(total.saturating_sub(self.nodes.len())).map_err(|_| NoMemory)
    }

    /// A node of which was [reserved](Self::reserve), in neither tree nor list.
    pub(super) fn take(&mut self, range: Range, owner: T) -> Link {
        let (nil, owner) = (Link::NIL, Some(owner));
        let node = Node { range, before: 0, longest: 0, parent: nil, children: [nil; 2], prev: nil, next: nil, red: true, owner };
        self.taken += 1;
        if self.free == nil {
            debug_assert!(self.nodes.len() < self.nodes.capacity(), "reserved");
            self.nodes.push(node);
            return Link(self.nodes.len() as u32 - 1);
        }
        let link = self.free;
        self.free = self[link].next;
        self[link] = node;
        link
    }

    /// Gives back a node that is in the tree no more.
    pub(super) fn give(&mut self, link: Link) -> T {
        let free = self.free;
        let node = &mut self[link];
        let owner = node.owner.take().expect("a node that is taken has an owner");
        node.next = free;
        self.free = link;
        self.taken -= 1;
        owner
    }

    #[inline]
    pub(super) fn get(&self, link: Link) -> Option<&Node<T>> {
        self.nodes.get(link.0 as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, link: Link) -> Option<&mut Node<T>> {
        self.nodes.get_mut(link.0 as usize)
    }

    /// How many nodes are taken, as counted and as found.
    #[cfg(test)]
    pub(super) fn census(&self) -> (usize, usize) {
        (self.taken, self.nodes.iter().filter(|node| node.owner.is_some()).count())
    }

    /// The nodes that are free, as the list has them.
    #[cfg(test)]
    pub(super) fn free(&self) -> impl Iterator<Item = &Node<T>> {
        core::iter::successors(self.get(self.free), |node| self.get(node.next)).take(self.nodes.len() + 1)
    }

    /// How many nodes there are, taken or free.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl<T> Index<Link> for Arena<T> {
    type Output = Node<T>;

    #[inline]
    fn index(&self, link: Link) -> &Node<T> {
        &self.nodes[link.0 as usize]
    }
}

impl<T> IndexMut<Link> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, link: Link) -> &mut Node<T> {
        &mut self.nodes[link.0 as usize]
    }
}
