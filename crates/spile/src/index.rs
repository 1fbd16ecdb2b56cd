//! Where mappings are found.
//!
//! **Guarantee.** A lookup waits for nobody. What it finds stays allocated while its read section, or the lock it was found under, lasts.
//!
//! **Mechanism.** A range tree of mappings, each in a box that waits for its grace period.

use crate::locking::{Exclusive, Locking, SharedGuard};
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_maple::{Heap, RangeTree, Writer};
use spile_rcu::{Rcu, RcuBox};

/// What the tree holds per range.
pub(crate) type VmaBox<P, L> = RcuBox<Vma<P, L>>;
/// The right to change the tree.
pub(crate) type IndexWriter<'t, P, L> = Writer<'t, VmaBox<P, L>, <P as Platform>::Rcu, Heap>;

/// The mappings of an address space.
pub(crate) struct Index<P: Platform, L: Locking> {
    tree: RangeTree<VmaBox<P, L>, P::Rcu, Heap>,
}

impl<P: Platform, L: Locking> Index<P, L> {
    pub(crate) fn new(rcu: P::Rcu) -> Self {
        Self { tree: RangeTree::with(rcu, Heap) }
    }

    /// The mapping that covers `at`.
    #[inline]
    pub(crate) fn find<'g>(&'g self, section: &'g <P::Rcu as Rcu>::Guard<'_>, at: u64) -> Option<&'g Vma<P, L>> {
        self.tree.get(section, at).map(|(_, vma)| vma)
    }

    /// The mapping that covers `at`, or the next above.
    pub(crate) fn find_from<'g>(&'g self, section: &'g <P::Rcu as Rcu>::Guard<'_>, at: u64) -> Option<&'g Vma<P, L>> {
        self.tree.find(section, at).map(|(_, vma)| vma)
    }

    /// The mapping that covers `at`, for as long as the lock is shared.
    pub(crate) fn locked(&self, _lock: &SharedGuard<'_, P>, at: u64) -> Option<NonNull<Vma<P, L>>> {
        let section = self.tree.rcu().read();
        self.find(&section, at).map(NonNull::from)
    }

    /// The right to change, by the address space's lock.
    pub(crate) fn writer(&self, _right: &Exclusive<'_, P>) -> IndexWriter<'_, P, L> {
        // SAFETY: (1) there is one `Exclusive` per address space at a time, and whoever has it makes one writer, in `Change`, which
        // owns both.
        unsafe { self.tree.write_unchecked() }
    }

    /// The right to change, by owning all of it.
    pub(crate) fn writer_mut(&mut self) -> IndexWriter<'_, P, L> {
        self.tree.write_mut()
    }
}
