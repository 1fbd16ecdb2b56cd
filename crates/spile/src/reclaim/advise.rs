//! What a program says about its pages: cold, out, free.
//!
//! **Guarantee.** None of it changes what a program reads, but for *free*: a page that it wrote last before it said so may be zeros from then on, all of
//! it, until it writes there again.
//!
//! **Mechanism.** A free page is one whose entry is not dirty: all others are, from the beginning. Who writes it again marks it, and it is a page as any. So nothing is
//! noted but in the entry, and an evictor that finds a page that only one entry shows, and clean, drops it instead of writing it. What is *out* goes the way of any page that
//! leaves, without being asked whether it was used.

use super::lru::BATCH;
use super::sealed::Advice;
use super::{Pressed, Reclaimer};
use crate::addr::{FrameId, Range};
use crate::frame;
use crate::paging::{Gather, PageTable};

impl<P: Pressed> Reclaimer<P> {
    /// Follows an advice about pages in `range` of `tables`. For [`Advice::Free`], which is about private ones, the caller keeps changes of their mapping out.
    pub(super) fn advise(&self, p: &P, tables: &PageTable<P>, range: Range, advice: Advice) {
        match advice {
            Advice::Cold => tables.cool(p, range),
            Advice::Out => self.send_out(p, tables, range),
            Advice::Free => {
                let mut gather = Gather::new(p, tables);
                tables.lay_free(p, range, &mut gather);
                gather.settle(range);
            }
        }
    }

    /// Lets the pages of `range` leave memory that nobody else has, also those that were used. Looks at them by the batch, so that what their stores do is done in no section: what a
    /// program has put in the place of one meanwhile leaves in its stead.
    fn send_out(&self, p: &P, tables: &PageTable<P>, range: Range) {
        // As any eviction: who wants a frame meanwhile knows of it, and is told.
        self.evicting(p, |done| {
            let mut rest = Some(range);
            while let Some(range) = rest {
                let mut pages = [None; BATCH];
                let (_, next) = tables.first_pages(p, range, |pte| self.is_own(p, pte.frame), &mut pages);
                self.batch(p, pages, true, done);
                rest = range.above(next);
            }
        });
    }

    /// Whether nobody has the page of `frame`, which an entry shows, but that, its slot and its file: what others have is not for one to send away. Of zeros there is
    /// no home.
    fn is_own(&self, p: &P, frame: FrameId) -> bool {
        let record = p.record(frame);
        let is_in_slot = || record.slot().is_some_and(|slot| self.area.still_has(slot, frame));
        let elsewhere = !record.is_private() || is_in_slot();
        record.is_anyones() && frame::meta(p, frame).refs() <= 1 + u32::from(elsewhere)
    }
}
