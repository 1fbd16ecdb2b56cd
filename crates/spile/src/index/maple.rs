//! A range tree: lookups in a read section, beside changes. (Linux since 6.1.)
//!
//! **Guarantee.** A lookup waits for nobody. What it finds stays allocated while its read section, or the lock it was found under, lasts.
//!
//! **Mechanism.** [`RangeTree`] of mappings, each in a box that waits for its grace period.

use super::{Index, PIECES, Pieces, VmaBox, Writer};
use crate::addr::{PAGE, Range};
use crate::change::NoMemory;
use crate::locking::Locking;
use crate::platform::Platform;
use crate::vma::Vma;
use core::ptr::NonNull;
use spile_maple::{Fit, Heap, RangeTree, Refused};
use spile_rcu::Rcu;

/// A range tree of mappings.
pub struct Maple<P: Platform, L: Locking> {
    tree: RangeTree<VmaBox<P, L>, P::Rcu, Heap>,
}

impl<P: Platform, L: Locking> Maple<P, L> {
    /// The mapping that covers `at`. For the design, which knows whether the section keeps it allocated.
    #[inline(always)]
    pub(crate) fn find<'g>(&'g self, section: &'g <P::Rcu as Rcu>::Guard<'_>, at: u64) -> Option<&'g Vma<P, L>> {
        self.tree.get(section, at).map(|(_, vma)| vma)
    }

    /// The mapping that covers `at`, or the next above.
    pub(crate) fn find_from<'g>(&'g self, section: &'g <P::Rcu as Rcu>::Guard<'_>, at: u64) -> Option<&'g Vma<P, L>> {
        self.find_place(section, at).map(|(_, vma)| vma)
    }

    /// The same, and where it is found.
    pub(crate) fn find_place<'g>(&'g self, section: &'g <P::Rcu as Rcu>::Guard<'_>, at: u64) -> Option<(Range, &'g Vma<P, L>)> {
        let (span, vma) = self.tree.find(section, at)?;
        Some((Range::of(span.first(), span.last() + 1), vma))
    }
}

// SAFETY: (1) the tree's; (2) a reader has a section, which the displacer's grace period waits for, or a lock that keeps it out.
unsafe impl<P: Platform, L: Locking> Index<P, L> for Maple<P, L> {
    type Writer<'t> = spile_maple::Writer<'t, VmaBox<P, L>, P::Rcu, Heap>;

    fn new(p: &P) -> Self {
        Self { tree: RangeTree::with(p.rcu().clone(), Heap) }
    }

    unsafe fn find_still(&self, at: u64) -> Option<&Vma<P, L>> {
        let section = self.tree.rcu().read();
        let found = self.tree.find(&section, at).map(|(_, vma)| NonNull::from(vma));
        // SAFETY: (1) found in a section; (2) nobody displaces it, says the caller.
        found.map(|vma| unsafe { vma.as_ref() })
    }

    unsafe fn height_still(&self) -> Option<usize> {
        Some(self.tree.height(&self.tree.rcu().read()))
    }

    unsafe fn writer(&self) -> Self::Writer<'_> {
        // SAFETY: (1) the caller's contract is the callee's.
        unsafe { self.tree.write_unchecked() }
    }
}

impl<P: Platform, L: Locking> Writer<P, L> for spile_maple::Writer<'_, VmaBox<P, L>, P::Rcu, Heap> {
    fn get(&self, at: u64) -> Option<&Vma<P, L>> {
        self.get(at).map(|(_, vma)| vma)
    }

    fn find(&self, at: u64) -> Option<&Vma<P, L>> {
        self.find(at).map(|(_, vma)| vma)
    }

    fn iter(&self, within: Range) -> impl DoubleEndedIterator<Item = &Vma<P, L>> {
        self.iter(within.span()).map(|(_, vma)| vma)
    }

    #[inline]
    fn replace(&mut self, window: Range, new: &mut Pieces<P, L>, displaced: impl FnMut(VmaBox<P, L>)) -> Result<(), NoMemory> {
        let mut boxes = new.iter_mut().filter_map(|slot| slot.take().map(|vma| (vma.range().span(), Some(vma))));
        macro_rules! with {
            ($($piece:ident),*) => {
                match self.replace(window.span(), [$($piece),*]) {
                    // SAFETY: (1) the caller hands each to `Locking::retire`, whose duty that is.
                    Ok(done) => Ok(unsafe { done.hand_over(displaced) }),
                    Err(rejected) => {
                        debug_assert_eq!(rejected.why, Refused::NoMemory, "a window covers what it cuts");
                        new.iter_mut().zip(rejected.given).for_each(|(slot, (_, vma))| *slot = vma);
                        Err(NoMemory)
                    }
                }
            };
        }
        match (boxes.next(), boxes.next(), boxes.next()) {
            (Some(a), Some(b), Some(c)) => with!(a, b, c),
            (Some(a), Some(b), None) => with!(a, b),
            (Some(a), None, None) => with!(a),
            _ => with!(),
        }
    }

    fn reserve(&mut self, changes: usize) -> Result<(), NoMemory> {
        self.reserve_changes(changes, PIECES).map_err(|_| NoMemory)
    }

    fn lowest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.lowest_gap(Fit::aligned(len, PAGE, 0).ok()?, within.span())
    }

    fn highest_gap(&self, len: u64, within: Range) -> Option<u64> {
        self.highest_gap(Fit::aligned(len, PAGE, 0).ok()?, within.span())
    }

    fn clear(&mut self, displaced: impl FnMut(VmaBox<P, L>)) {
        // SAFETY: (1) as above.
        unsafe { self.clear().hand_over(displaced) };
    }
}
