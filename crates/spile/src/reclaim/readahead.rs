//! Pages that are read before anybody wants them.
//!
//! **Guarantee.** Nobody waits for it, and nobody is refused memory for it: it takes frames only where there are plenty. What was read for nobody leaves as any page, without being
//! written.
//!
//! **Mechanism.** A fault that has to wait for its page begins to read what lies beside it, in a window of addresses for slots and of pages for files, clipped to its
//! mapping, or to the file. Where a store answers at once nobody waits, and nothing is read ahead. What cannot be read is as if it had not been tried: who wants it reads it himself. (Linux reads ahead of slots by addresses, too, since 4.15.)

use super::{Policy as _, Pressed, Reclaimer};
use crate::addr::{FrameId, PAGE, Range, Slot};
use crate::paging::PageTable;

impl<P: Pressed> Reclaimer<P> {
    /// From now on a fault that waits for a page in a slot begins to read what is away of so many pages around it, itself included. A power of two; 1, at first:
    /// none.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn set_readahead(&self, pages: u32) {
        self.readahead.set(pages);
    }

    /// Begins to read what is away around `at`, as far as `range` goes.
    pub(super) fn read_ahead(&self, p: &P, tables: &PageTable<P>, at: u64, range: Range) {
        let Some(window) = self.readahead.around(at / PAGE) else { return };
        let pages = window.end - window.start;
        let window = range.above(window.start * PAGE).and_then(|rest| rest.below(window.end * PAGE));
        let Some(window) = window else { return };
        tables.each_away(p, window, |slot| {
            if self.can_spare(p, pages) {
                self.read_slot_ahead(p, slot);
            }
        });
    }

    /// Begins to read `slot`, which an entry says.
    pub(super) fn read_slot_ahead(&self, p: &P, slot: Slot) {
        self.area.read_ahead(p, slot, |frame| self.read_begins(p, slot, frame));
    }

    /// `slot` is being read into `frame`, be it wanted or not.
    pub(super) fn read_begins(&self, p: &P, slot: Slot, frame: FrameId) {
        p.record(frame).is_of(slot);
        self.policy.arrive(p, frame);
    }

    /// Whether there is memory for so many pages that nobody wants yet.
    pub(super) fn can_spare(&self, p: &P, pages: u64) -> bool {
        p.free_frames() as u64 > 2 * pages
    }
}
