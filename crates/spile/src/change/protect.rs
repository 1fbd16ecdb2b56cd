//! protect, and every other change of what a mapping is.

use super::{Change, Joins, New, NoMemory, Whose};
use crate::addr::{Prot, Range};
use crate::locking::Locking;
use crate::paging::Gather;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::vma::{Attr, Flags};
use spile_sync::seeded;

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// Cuts mappings at both ends of `at`; nothing else changes.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; at most one end was cut.
    #[cfg(feature = "linux")]
    pub(crate) fn split(&mut self, at: Range) -> Result<(), NoMemory> {
        for end in [at.start(), at.end()] {
            let Some(vma) = self.at(end).filter(|vma| vma.range().start() < end) else { continue };
            let upper = vma.range().above(end).expect("it covers the cut");
            let attr = vma.attr().skip(end - vma.range().start());
            drop(self.replace(upper, Some(&New::of(attr, Whose::TheOlds)), Joins::None)?);
        }
        Ok(())
    }

    /// Makes what is at `at`, which lies in one mapping, into `attr`; its pages stay. Rewrites their entries if the permission
    /// changed.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; nothing was changed.
    pub(crate) fn alter(&mut self, at: Range, attr: Attr<P>) -> Result<(), NoMemory> {
        let mm = self.mm;
        let (p, prot) = (mm.platform(), attr.in_mmu());
        let before = self.at(at.start()).map(|vma| (vma.attr().in_mmu(), vma.attr().flags.has(Flags::LOCKED)));
        let (before, was_kept) = before.unzip();
        let keeps = attr.flags.has(Flags::LOCKED);
        let mut fresh = self.replace(at, Some(&New::of(attr, Whose::TheOlds)), Joins::Both)?;
        if before != Some(prot) {
            // What may be written is found out page by page, by faults: a page may be shared, or clean.
            let lost_write = |had: Prot| if had.has(Prot::W) { prot } else { prot.without(Prot::W) };
            fresh.apart(|| {
                let mut gather = Gather::new(p, &mm.table);
                mm.table.protect(p, at, &mut gather, |old| lost_write(old.prot));
                gather.settle(at);
            });
        }
        if P::Reclaim::KEEPS && was_kept != Some(keeps) && !seeded!("lock-what-comes-alone") {
            fresh.apart(|| mm.table.keep(p, at, keeps));
        }
        Ok(())
    }
}
