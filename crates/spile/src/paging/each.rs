//! Looking at the entries of a range.

use super::table::{PageTable, away, index, parts, shown};
use super::{LEVELS, Pte};
use crate::addr::{FrameId, PAGE, Range, Slot, TABLE_END};
use crate::frame;
use crate::platform::Platform;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// Calls `each` with the address and the entry of every page in `range` that has one, ascending, without locks: each entry as it
    /// was at some moment of the call; none of a page that is away.
    pub(crate) fn each_page(&self, p: &P, range: Range, mut each: impl FnMut(u64, Option<Pte>)) {
        self.each_page_while(p, range, |at, pte| {
            each(at, pte);
            true
        });
    }

    /// The same, as long as `each` says so.
    fn each_page_while(&self, p: &P, range: Range, mut each: impl FnMut(u64, Option<Pte>) -> bool) {
        let _section = p.rcu().read();
        Self::each_under(p, self.root, LEVELS - 1, range, &mut each);
    }

    fn each_under(p: &P, table: FrameId, level: usize, range: Range, each: &mut impl FnMut(u64, Option<Pte>) -> bool) -> bool {
        let entry = |at| frame::table(p, table).load(index(at, level));
        if level == 0 {
            let mut pages = (range.start()..range.end()).step_by(PAGE as usize).map(|at| (at, entry(at)));
            return pages.all(|(at, raw)| raw == 0 || each(at, shown(p, raw)));
        }
        parts(range, level)
            .map(|part| (part, entry(part.start())))
            .all(|(part, raw)| raw == 0 || Self::each_under(p, p.decode_table(raw), level - 1, part, each))
    }

    /// Calls `each` with the slot of every page in `range` that is away.
    pub(crate) fn each_away(&self, p: &P, range: Range, mut each: impl FnMut(Slot)) {
        let _section = p.rcu().read();
        for part in parts(range, 1) {
            let Some(leaf) = self.leaf(p, part.start()) else { continue };
            let slot = |at| away(p, frame::table(p, leaf).load(index(at, 0)));
            (part.start()..part.end()).step_by(PAGE as usize).filter_map(slot).for_each(&mut each);
        }
    }

    /// How many frames the tables have. Exact when nobody changes them.
    pub fn frames(&self, p: &P) -> u64 {
        let _section = p.rcu().read();
        frame::tables_under(p, self.root, LEVELS - 1, &|raw| p.decode_table(raw))
    }

    /// Notes the frames of the first pages of `range` that are shown and `wanted`, as many as there is room for. How many there are, and where to go on.
    pub(crate) fn first_pages(
        &self,
        p: &P,
        range: Range,
        wanted: impl Fn(Pte) -> bool,
        pages: &mut [Option<FrameId>],
    ) -> (usize, u64) {
        let (mut found, mut to) = (0, range.end());
        self.each_page_while(p, range, |at, pte| {
            if found == pages.len() {
                to = at;
                return false;
            }
            if let Some(pte) = pte.filter(|pte| wanted(*pte)) {
                pages[found] = Some(pte.frame);
                found += 1;
            }
            true
        });
        (found, to)
    }

    /// The first pages that are shown from `from` on, and after the last those from the beginning: their frames, zeros aside. How many there are, and where to go on.
    pub(crate) fn next_pages(&self, p: &P, from: u64, pages: &mut [Option<FrameId>]) -> (usize, u64) {
        let (mut found, mut to) = (0, from);
        for range in [Range::EVERYTHING.above(from), Range::EVERYTHING.below(from)].into_iter().flatten() {
            if found < pages.len() {
                let (more, next) = self.first_pages(p, range, |pte| pte.frame != p.zero_frame(), &mut pages[found..]);
                (found, to) = (found + more, next);
            }
        }
        (found, to % TABLE_END)
    }
}
