//! A red-black tree that knows its gaps, and a list: what Linux had before 6.1.
//!
//! **Guarantee.** As [`Index`] says, for who has the lock: a rotation shows a lookup beside it a tree that lacks ranges.
//!
//! **Mechanism.** [`RbTree`] of boxes.

use super::locked::Locked;
use super::rbtree::RbTree;
use super::{Index, PIECES, Pieces, VmaBox, Writer};
use crate::addr::Range;
use crate::change::NoMemory;
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Vma;

type Tree<P, L> = RbTree<VmaBox<P, L>>;

/// A red-black tree of mappings.
pub struct RedBlack<P: Platform, L: Locking>(Locked<Tree<P, L>>);

// SAFETY: (1) the tree's; (2) a displaced mapping is no longer in it.
unsafe impl<P: Platform, L: Locking> Index<P, L> for RedBlack<P, L> {
    type Writer<'t> = RedBlackWriter<'t, P, L>;

    fn new(_: &P) -> Self {
        Self(Locked::new(RbTree::new()))
    }

    unsafe fn find_still(&self, at: u64) -> Option<&Vma<P, L>> {
        // SAFETY: (1) nobody changes it, says the caller.
        unsafe { self.0.look() }.find(at).map(|(_, vma)| &**vma)
    }

    unsafe fn height_still(&self) -> Option<usize> {
        // SAFETY: (1) nobody changes it, says the caller.
        Some(unsafe { self.0.look() }.height())
    }

    unsafe fn writer(&self) -> RedBlackWriter<'_, P, L> {
        RedBlackWriter(&self.0)
    }
}

/// The right to change it.
pub struct RedBlackWriter<'t, P: Platform, L: Locking>(&'t Locked<Tree<P, L>>);

impl<P: Platform, L: Locking> RedBlackWriter<'_, P, L> {
    fn tree(&self) -> &Tree<P, L> {
        // SAFETY: (1) `replace` and its like need all of the writer, which is the only one in use.
        unsafe { self.0.look() }
    }

    fn tree_mut(&mut self) -> &mut Tree<P, L> {
        // SAFETY: (1) the writer is borrowed, and the only one in use; those who look have a lock that it does not share.
        unsafe { self.0.change() }
    }
}

impl<P: Platform, L: Locking> Writer<P, L> for RedBlackWriter<'_, P, L> {
    fn get(&self, at: u64) -> Option<&Vma<P, L>> {
        self.tree().get(at).map(|(_, vma)| &**vma)
    }

    fn find(&self, at: u64) -> Option<&Vma<P, L>> {
        self.tree().find(at).map(|(_, vma)| &**vma)
    }

    fn iter(&self, within: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>> {
        self.tree().iter(within).map(|(_, vma)| &**vma)
    }

    fn replace(&mut self, window: Range, new: &mut Pieces<P, L>, displaced: impl FnMut(VmaBox<P, L>)) -> Result<(), NoMemory> {
        let entries = new.each_mut().map(|slot| slot.take().map(|vma| (vma.range(), vma)));
        self.tree_mut().replace(window, entries, displaced).map_err(|given| {
            *new = given.map(|entry| entry.map(|(_, vma)| vma));
            NoMemory
        })
    }

    fn reserve(&mut self, changes: usize) -> Result<(), NoMemory> {
        self.tree_mut().reserve(changes * PIECES)
    }

    fn lowest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.tree().lowest_gap(len, within)
    }

    fn highest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.tree().highest_gap(len, within)
    }

    fn clear(&mut self, displaced: impl FnMut(VmaBox<P, L>)) {
        self.tree_mut().clear(displaced);
    }
}
