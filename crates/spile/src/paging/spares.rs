//! Tables that are taken before it is known whether they will be wanted.
//!
//! **Guarantee.** Who has spares links one of them or none: nothing is allocated where they are used. What was not linked goes back.
//!
//! **Mechanism.** A walk counts the tables that are missing on the way to a page, leaves its read section, and takes as many. By the time they are
//! wanted somebody else may have linked some, or taken others away: then there are too many, or too few.

use super::table::index;
use super::{LEVELS, PageTable};
use crate::addr::FrameId;
use crate::frame;
use crate::platform::Platform;
use core::cell::Cell;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// Tables in no tree.
pub struct Spares<'m, P: Platform> {
    p: &'m P,
    tables: [Cell<Option<FrameId>>; LEVELS - 1],
}

impl<P: Platform> Spares<'_, P> {
    /// One of them, for who links it, if there is one left.
    pub(super) fn take(&self) -> Option<FrameId> {
        let table = self.tables.iter().find_map(Cell::take)?;
        if seeded!("spare-linked-and-kept") {
            self.tables[0].set(Some(table));
        }
        Some(table)
    }
}

impl<P: Platform> Drop for Spares<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.tables.iter().filter_map(Cell::take).for_each(|table| PageTable::give_table(self.p, table));
    }
}

impl<P: Platform> PageTable<P> {
    /// As many tables as are missing on the way to `at`; `None` without memory for them. Not in a read section of the caller's. Never sleeps.
    #[inline(always)]
    pub(crate) fn spares<'m>(&self, p: &'m P, at: u64) -> Option<Spares<'m, P>> {
        let spares = Spares { p, tables: [const { Cell::new(None) }; LEVELS - 1] };
        for table in spares.tables.iter().take(self.missing(p, at)) {
            table.set(Some(Self::take_table(p)?));
        }
        Some(spares)
    }

    /// How many tables are missing on the way to `at`.
    #[inline(always)]
    fn missing(&self, p: &P, at: u64) -> usize {
        let _section = p.rcu().read();
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            match frame::table(p, table).load(index(at, level)) {
                0 => return level,
                raw => table = p.decode_table(raw),
            }
        }
        0
    }
}
