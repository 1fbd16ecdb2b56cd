//! Where mappings are found. The index belongs to the design: what a lookup may run beside decides what it can be.
//!
//! **Guarantee.** An index holds disjoint mappings. One change is under way at a time, and each is one step for those who look: they find
//! the mappings of before or of after it.
//!
//! **Mechanism.** [`Index`] is what every design needs: a lookup for who keeps the index from changing, and a [`Writer`]. Lookups beside
//! changes are an index's own matter: [`Maple`] has one, in a read section.

mod btree;
mod locked;
mod maple;
mod rbtree;
mod redblack;

pub use btree::BTree;
pub use maple::Maple;
pub use redblack::RedBlack;

use crate::addr::Range;
use crate::change::NoMemory;
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Vma;
use spile_rcu::RcuBox;

/// A mapping, in a box that can wait for its grace period.
pub type VmaBox<P, L> = RcuBox<Vma<P, L>>;

/// How many mappings a change brings at most.
pub const PIECES: usize = 3;

/// What shall stand in a window, ascending.
pub type Pieces<P, L> = [Option<VmaBox<P, L>>; PIECES];

/// The mappings of an address space.
///
/// # Safety
///
/// An implementor owes: (1) what is found was put there and not yet displaced, and covers what was asked for; (2) a reference to it is not
/// followed after it was displaced, but by the displacer.
pub unsafe trait Index<P: Platform, L: Locking>: Sized + Send + Sync {
    /// The right to change it.
    type Writer<'t>: Writer<P, L>
    where
        Self: 't;

    /// Without mappings.
    fn new(p: &P) -> Self;

    /// The mapping that covers `at`, or the next above.
    ///
    /// # Safety
    ///
    /// (1) Nobody changes the index as long as the caller uses what it gets.
    unsafe fn find_still(&self, at: u64) -> Option<&Vma<P, L>>;

    /// How many levels of nodes there are, each entry's own included, if the index can tell.
    ///
    /// # Safety
    ///
    /// (1) Nobody changes the index meanwhile.
    unsafe fn height_still(&self) -> Option<usize>;

    /// The right to change.
    ///
    /// # Safety
    ///
    /// (1) Of all writers that there are, one is used at a time, by who has the right to change the address space, and no lookup that needs
    /// an index that stands still meanwhile.
    unsafe fn writer(&self) -> Self::Writer<'_>;
}

/// Who changes an index.
pub trait Writer<P: Platform, L: Locking> {
    /// The mapping that covers `at`.
    fn get(&self, at: u64) -> Option<&Vma<P, L>>;

    /// The mapping that covers `at`, or the next above.
    fn find(&self, at: u64) -> Option<&Vma<P, L>>;

    /// The mappings that touch `within`, ascending.
    fn iter(&self, within: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>>;

    /// Makes `new` all that is in `window`, which covers them and cuts nothing, in one step, then gives what was there to `displaced`.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed, and `new` is as it was. On success nothing is left of it.
    fn replace(&mut self, window: Range, new: &mut Pieces<P, L>, displaced: impl FnMut(VmaBox<P, L>)) -> Result<(), NoMemory>;

    /// Makes sure that the next `changes` calls of [`replace`](Self::replace) find memory.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    fn reserve(&mut self, changes: usize) -> Result<(), NoMemory>;

    /// The lowest `len` free bytes of `within`.
    fn lowest_gap(&self, len: u64, within: Range) -> Option<u64>;

    /// The highest `len` free bytes of `within`.
    fn highest_gap(&self, len: u64, within: Range) -> Option<u64>;

    /// Takes out everything.
    fn clear(&mut self, displaced: impl FnMut(VmaBox<P, L>));
}
