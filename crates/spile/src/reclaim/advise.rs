//! What a program says about its pages: cold, out, free.
//!
//! **Guarantee.** None of it changes what a program reads, but for *free*: a page that it wrote last before it said so may be zeros from then on, all of
//! it, until it writes there again.
//!
//! **Mechanism.** A free page is one whose entry is not dirty: all others are, from the beginning. Who writes it again marks it, and it is a page as any. So nothing is
//! noted but in the entry, and an evictor that finds a page that only one entry shows, and clean, drops it instead of writing it. What is *out* goes the way of any page that
//! leaves, without being asked whether it was used.

use super::lru::BATCH;
#[cfg(feature = "file")]
use super::rmap::Home;
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

    /// Lets the pages of `range` leave memory that nobody else has, also those that were used.
    fn send_out(&self, p: &P, tables: &PageTable<P>, range: Range) {
        // What was written back by the first walk leaves by the second, if that is over by then.
        if self.send_out_once(p, tables, range) {
            self.send_out_once(p, tables, range);
        }
    }

    /// The same, but for pages that have to be written back before they can leave: that is begun. Whether there were such. All of it in the section of the walk, under
    /// no lock.
    fn send_out_once(&self, p: &P, tables: &PageTable<P>, range: Range) -> bool {
        let (mut pages, mut found) = ([None; BATCH], 0);
        let mut is_any_dirty = false;
        // As any eviction: who wants a frame meanwhile knows of it, and is told.
        self.evicting(p, |done| {
            tables.each_page(p, range, |_, pte| {
                let Some(pte) = pte.filter(|pte| self.is_own(p, pte.frame)) else { return };
                is_any_dirty |= self.is_to_be_written(p, pte.frame);
                pages[found] = Some(pte.frame);
                found += 1;
                if found == BATCH {
                    found = 0;
                    self.batch(p, core::mem::take(&mut pages), true, done);
                }
            });
            self.batch(p, pages, true, done);
        });
        is_any_dirty
    }

    /// Whether nobody has the page of `frame`, which an entry shows, but that, its slot and its file: what others have is not for one to send away. Of zeros there is
    /// no home.
    fn is_own(&self, p: &P, frame: FrameId) -> bool {
        let record = p.record(frame);
        let is_in_slot = || record.slot().is_some_and(|slot| self.area.still_has(slot, frame));
        let elsewhere = !record.is_private() || is_in_slot();
        record.is_anyones() && frame::meta(p, frame).refs() <= 1 + u32::from(elsewhere)
    }

    /// Whether it is a file's, and differs from what is there.
    fn is_to_be_written(&self, p: &P, frame: FrameId) -> bool {
        match self.home(p, frame) {
            #[cfg(feature = "file")]
            Some(Home::File(file, page)) => file.is_dirty(page),
            _ => false,
        }
    }
}
