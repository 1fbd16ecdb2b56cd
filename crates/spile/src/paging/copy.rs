//! The pages of a forked address space.

use super::install::Lost;
use super::table::{PageTable, away, index, parts, shown};
use super::{Gather, Pte};
use crate::addr::{PAGE, Prot, Range};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_rcu::Rcu;
use spile_sync::seeded;

impl<P: Platform> PageTable<P> {
    /// Shares the pages of `range` with `child`, write-protected on both sides so that the first write copies. The child's tables are
    /// the caller's alone; claims keep faults out of `range` here.
    ///
    /// # Errors
    ///
    /// [`Lost::NoMemory`]: some pages are shared and some are not; what was write-protected may stay so.
    pub(crate) fn share(&self, p: &P, child: &Self, range: Range, gather: &mut Gather<'_, P>) -> Result<(), Lost> {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(from) = self.leaf_or_never(p, part.start()) else { continue };
            // Asked under its lock: a fault that came in before the claims may be replacing its only page.
            if Self::lock(p, from).is_none_or(|from| from.is_empty()) {
                continue;
            }
            let to = loop {
                if let Some(to) = child.leaf_or_link(p, part.start(), None, &|| true)? {
                    break to;
                }
            };
            let Some(from) = Self::lock(p, from) else { continue };
            let Some(to) = Self::lock(p, to) else { continue };
            for at in (part.start()..part.end()).step_by(PAGE as usize) {
                let i = index(at, 0);
                let raw = from.raw(i);
                let Some(old) = shown(p, raw) else {
                    if let Some(slot) = away(p, raw) {
                        if !seeded!("fork-without-its-slots") {
                            P::Reclaim::share(p, slot);
                        }
                        to.fill(i, raw);
                    }
                    continue;
                };
                let read_only = old.prot.without(Prot::W);
                if old.prot != read_only {
                    let new = old.with_prot(read_only);
                    self.commit(p, at, Some(old), Some(new));
                    from.edit(i, |now| now.with_prot(read_only));
                    if !seeded!("fork-without-flush") {
                        gather.changed(Range::page_of(at));
                    }
                }
                crate::frame::get(p, old.frame);
                let copy = Pte { prot: read_only, ..old };
                child.commit(p, at, None, Some(copy));
                to.fill(i, p.encode(copy));
            }
        }
        Ok(())
    }
}
