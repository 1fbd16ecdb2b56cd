//! What a program says about its pages: cold, out, free.
//!
//! **Guarantee.** None of it changes what a program reads, but for *free*: a page that it wrote last before it said so may be zeros from then on, all of
//! it, until it writes there again.
//!
//! **Mechanism.** A free page is one whose entry is not dirty: all others are, from the beginning. Who writes it again marks it, and it is a page as any. So nothing is
//! noted but in the entry, and an evictor that finds a page that only one entry shows, and clean, drops it instead of writing it.

use super::lru::BATCH;
use super::sealed::Advice;
use super::{Pressed, Reclaimed, Reclaimer};
use crate::addr::Range;
use crate::paging::{Gather, PageTable};

impl<P: Pressed> Reclaimer<P> {
    /// Follows an advice about private pages in `range` of `tables`. For [`Advice::Free`] the caller keeps changes of their mapping out.
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

    /// Lets the private pages of `range` leave memory, also those that were used.
    fn send_out(&self, p: &P, tables: &PageTable<P>, range: Range) {
        let mut pages = [None; BATCH];
        let mut found = 0;
        tables.each_page(p, range, |_, pte| {
            // Of a file's page, and of zeros, there is no home.
            let Some(pte) = pte.filter(|pte| p.record(pte.frame).is_private()) else { return };
            pages[found] = Some(pte.frame);
            found += 1;
            if found == BATCH {
                found = 0;
                self.batch(p, core::mem::take(&mut pages), true, &mut Reclaimed::default());
            }
        });
        self.batch(p, pages, true, &mut Reclaimed::default());
    }
}
