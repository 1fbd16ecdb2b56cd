//! Looking at the entries of a range.

use super::table::{PageTable, index, parts, shown};
use super::{LEVELS, Pte};
use crate::addr::{FrameId, PAGE, Range};
use crate::frame;
use crate::platform::Platform;
use spile_rcu::Rcu;

impl<P: Platform> PageTable<P> {
    /// Calls `each` with the address and the entry of every page in `range` that has one, ascending, without locks: each entry as it
    /// was at some moment of the call; none of a page that is away.
    pub(crate) fn each_page(&self, p: &P, range: Range, mut each: impl FnMut(u64, Option<Pte>)) {
        let _section = p.rcu().read();
        Self::each_under(p, self.root, LEVELS - 1, range, &mut each);
    }

    fn each_under(p: &P, table: FrameId, level: usize, range: Range, each: &mut impl FnMut(u64, Option<Pte>)) {
        if level == 0 {
            for at in (range.start()..range.end()).step_by(PAGE as usize) {
                let raw = frame::table(p, table).load(index(at, 0));
                if raw != 0 {
                    each(at, shown(p, raw));
                }
            }
            return;
        }
        for part in parts(range, level) {
            let raw = frame::table(p, table).load(index(part.start(), level));
            if raw != 0 {
                Self::each_under(p, p.decode_table(raw), level - 1, part, each);
            }
        }
    }
}
