//! Marks of pages, cleared because their program said so.
//!
//! **Guarantee.** No page is taken away. Where a mark is cleared that a CPU may have cached (the dirty mark), that is noted in the gather.

use super::table::{PageTable, away, index, parts};
use super::{Gather, Pte};
use crate::addr::{PAGE, Range};
use crate::frame;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// Forgets that the pages of `range` were used.
    pub(crate) fn cool(&self, p: &P, range: Range) {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(locked) = self.leaf(p, part.start()).and_then(|leaf| Self::lock(p, leaf)) else { continue };
            for at in (part.start()..part.end()).step_by(PAGE as usize) {
                locked.edit(index(at, 0), |now| Pte { accessed: false, ..now });
            }
        }
    }

    /// Forgets that the pages of `range` were written, where nobody else has them, and gives up those that are away: their contents are not wanted.
    pub(crate) fn lay_free(&self, p: &P, range: Range, gather: &mut Gather<'_, P>) {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(locked) = self.leaf(p, part.start()).and_then(|leaf| Self::lock(p, leaf)) else { continue };
            for at in (part.start()..part.end()).step_by(PAGE as usize) {
                let i = index(at, 0);
                if let Some(slot) = away(p, locked.raw(i)) {
                    locked.empty(i);
                    P::Reclaim::give_up(p, slot);
                }
                let is_own = |pte: &Pte| pte.frame != p.zero_frame() && frame::meta(p, pte.frame).refs() == 1;
                let Some(old) = locked.get(i).filter(is_own) else { continue };
                let clean = |now: Pte| Pte { accessed: false, dirty: false, ..now };
                self.commit(p, at, Some(old), Some(clean(old)));
                locked.edit(i, clean);
                gather.changed(Range::page_of(at));
            }
        }
    }
}
