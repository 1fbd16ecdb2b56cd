//! Pages that are lost.
//!
//! **Guarantee.** A page that was lost is not found any more, nor is what a read brings that was under way; and a page beyond the end is lost, also if its read began
//! beside the change of the length.
//!
//! **Mechanism.** The entry is emptied; where the store is still at it, it is marked, and emptied when that is over. Who begins a read looks at the length once more
//! after he has claimed the entry; who changes the length looks at the entries after that: one of the two sees the other.

use super::away::{is_away, slot_of, with_zeros};
use super::{DIRTY, File, HERE, LEAVING, LOST, READING, UNREADABLE, WRITING, decode_frame};
use crate::addr::{FrameId, PAGE};
use crate::frame::{self, Frame};
use crate::paging::{BITS, LEVELS};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use core::ops::Range;
use spile_sync::atomic::Ordering;
use spile_sync::{fence, seeded};

impl<P: Platform> File<P> {
    /// Says how long it is. What lies beyond the end, or is read there, is to be lost next; one at a time.
    pub(crate) fn set_len(&self, len: u64) {
        self.object.len.store(len, Ordering::Relaxed);
        // [file-cut]: with `file-claimed`. Either who claims finds the new length, or what looks at the entries next finds the claim.
        fence!("file-cut");
    }

    /// `page` was just claimed for a read.
    pub(super) fn lose_if_beyond_end(&self, page: u64) {
        // [file-claimed]: with `file-cut`.
        fence!("file-claimed");
        if self.ends_before(page) && !seeded!("read-beyond-the-end") {
            self.change(page, |raw| Some(raw | LOST));
        }
    }

    /// `page` is the file's no more. A hold on its frame, if it may be shown somewhere.
    pub(crate) fn lose<'m>(&self, p: &'m P, page: u64) -> Option<Frame<'m, P>> {
        let (table, i) = self.slot(page, false)?;
        loop {
            let raw = frame::table(p, table).load(i);
            if raw & LEAVING != 0 {
                p.relax();
                continue;
            }
            let lost = match raw & (READING | HERE | WRITING | LOST | UNREADABLE) {
                0 if is_away::<P>(raw) => 0,
                READING => raw | LOST,
                HERE | UNREADABLE => 0,
                state if state == HERE | WRITING => raw & !(HERE | DIRTY) | LOST,
                _ => return None,
            };
            // Before the entry says so: the file's own may go right after.
            let held = if raw & HERE == 0 { None } else { self.hold(p, table, i, raw) };
            if raw & HERE != 0 && held.is_none() || frame::table(p, table).exchange(i, raw, lost).is_err() {
                p.relax();
                continue;
            }
            if raw & HERE != 0 && lost == 0 {
                frame::put(p, decode_frame(raw));
            }
            if is_away::<P>(raw) && !seeded!("lost-and-in-a-slot") {
                P::Reclaim::give_up(p, slot_of(raw));
            }
            return held;
        }
    }

    /// `page` is read anew, if it is being read.
    pub(crate) fn lose_read(&self, page: u64) {
        self.change(page, |raw| (raw & (READING | LOST) == READING).then_some(raw | LOST));
    }

    /// Calls `each` with every page of `pages` that has an entry, and with that.
    pub(crate) fn each_cached(&self, pages: Range<u64>, mut each: impl FnMut(u64, u64)) {
        self.each_while(pages, |page, raw| {
            each(page, raw);
            true
        });
    }

    /// The same, as long as `each` says so.
    pub(crate) fn each_while(&self, pages: Range<u64>, mut each: impl FnMut(u64, u64) -> bool) {
        self.each_under(self.object.root, LEVELS - 1, 0, &pages, &mut each);
    }

    fn each_under(
        &self,
        table: FrameId,
        level: usize,
        first: u64,
        pages: &Range<u64>,
        each: &mut impl FnMut(u64, u64) -> bool,
    ) -> bool {
        let span = 1u64 << (BITS * level as u32);
        (0..1u64 << BITS).map(|i| (i, first + i * span)).all(|(i, first)| {
            if first >= pages.end || first + span <= pages.start {
                return true;
            }
            match frame::table(&self.object.p, table).load(i as usize) {
                0 => true,
                raw if level == 0 => each(first, raw),
                raw => self.each_under(decode_frame(raw), level - 1, first, pages, each),
            }
        })
    }

    /// Fills what lies beyond `len` in the page of that with zeros, if the page is in memory; if it is away, when it comes in. Spins while it leaves.
    pub(crate) fn zero_tail(&self, p: &P, len: u64) {
        let (page, offset) = (len / PAGE, (len % PAGE) as usize);
        if offset == 0 {
            return;
        }
        // What is read meanwhile may be what was there.
        self.lose_read(page);
        let Some((table, i)) = self.slot(page, false) else { return };
        loop {
            let raw = frame::table(p, table).load(i);
            if is_away::<P>(raw) {
                if seeded!("tail-of-what-is-away") || frame::table(p, table).exchange(i, raw, with_zeros(raw, offset)).is_ok() {
                    return;
                }
            } else if raw & HERE == 0 {
                return;
            } else if let Some(frame) = self.hold(p, table, i, raw) {
                zero_from(p, &frame, offset);
                // What is being written may be what was there.
                let is_written = |now: u64| now & (HERE | WRITING) == HERE | WRITING && decode_frame(now) == frame.id();
                self.change(page, |now| (is_written(now) && now & DIRTY == 0).then_some(now | DIRTY));
                return;
            }
            p.relax();
        }
    }
}

/// Fills the page from `offset` on with zeros.
pub(super) fn zero_from<P: Platform>(p: &P, frame: &Frame<'_, P>, offset: usize) {
    let zeros = [0; 256];
    (offset..PAGE as usize).step_by(zeros.len()).for_each(|from| {
        let part = &zeros[..zeros.len().min(PAGE as usize - from)];
        // SAFETY: (1) held, and a page that programs may write, of which this is as a write beyond the end.
        unsafe { p.write(frame.id(), from, part) };
    });
}
