//! Pages of a file that are read before anybody wants them.
//!
//! **Guarantee.** Nobody waits for it. It takes frames only where there are plenty, which is for a host to say whose pages can leave.
//!
//! **Mechanism.** As for slots: who waits for a page begins to read what lies beside it, in a window of pages, if nobody has. What cannot be read is as if it had not been tried.

use super::away::{is_away, slot_of};
use super::{AHEAD, File, READING};
use crate::frame;
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;

impl<P: Platform> File<P> {
    /// From now on a fault that waits for a page begins to read what is not in memory of so many pages around it, itself included. A power of two; 1, at first:
    /// none. For all openings.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn set_readahead(&self, pages: u32) {
        self.object.readahead.set(pages);
    }

    /// Somebody waits for `page`: begins to read what is around it.
    pub(crate) fn read_ahead(&self, p: &P, page: u64) {
        let Some(window) = self.object.readahead.around(page) else { return };
        let pages = window.end - window.start;
        for page in window.take_while(|page| !self.ends_before(*page)) {
            let Some((table, i)) = self.slot(page, false) else { continue };
            match frame::table(p, table).load(i) {
                _ if !P::Reclaim::can_spare(p, pages) => return,
                // What comes from nowhere is not read.
                0 if self.store().is_some() => _ = self.begin(p, table, i, page, READING | AHEAD),
                raw if is_away::<P>(raw) => P::Reclaim::read_slot_ahead(p, slot_of(raw)),
                _ => {}
            }
        }
    }
}
