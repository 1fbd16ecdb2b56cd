//! Pages of files that leave their entries, or are about to be written back, by whoever has no hold on their mapping.
//!
//! **Guarantee.** As in `away`. Who has first seen to it that a page is shown nowhere from now on, or not writable, finds every entry that shows it so: when the
//! [`Owed`] is flushed, no CPU uses the page there.
//!
//! **Mechanism.** A fault asks the page's file under its table's lock. Where there is no table, the lock is taken of the one in which it would be linked: so
//! whoever links it later, and asks, has seen what was done before (P2). And where others have taken an entry away and not flushed it yet, that is done here too (P6).

use super::away::Owed;
use super::table::{Locked, index, shown};
use super::{LEVELS, PageTable, Pte};
use crate::addr::{FrameId, Prot, Range};
use crate::platform::Platform;
use alloc::sync::Arc;
use spile_rcu::Rcu;
use spile_sync::{order, seeded};

/// What became of an entry that shows a page which is about to be written back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// It does not show it; or it is kept, and read-only.
    Not,
    /// It is empty.
    Wholly,
    /// Somebody besides the program has the page, and may write it: it is read-only for the program, if who has it bears that.
    InUse,
}

impl<P: Platform> Owed<P> {
    /// What was at `page` may have been taken away by others who have not flushed it yet (P6): this one does.
    fn settle(&mut self, tables: &Arc<PageTable<P>>, page: Range) {
        let own = u32::from(self.debts.iter().flatten().any(|(other, _)| other.space == tables.space));
        // Raised under table locks that the caller has had since. Acquire [owed-settle]: if it is over, what programs did by old translations comes before what is
        // done with the page next: it is written to its store.
        if tables.unflushed.load(order!("owed-settle", Acquire)) > own && !seeded!("clean-beside-a-flush") {
            self.changed(tables, page);
        }
    }
}

impl<P: Platform> PageTable<P> {
    /// Empties the entry of `at`, if it shows `frame`, a page of a file that faults find there. Its hold on the frame is the caller's then.
    pub(crate) fn hide(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, owed: &mut Owed<P>) -> bool {
        self.empty_if(p, at, frame, |_| true, owed)
    }

    /// Lets no CPU write through the entry of `at`, if it shows `frame`, when `owed` is flushed: the next write is a fault. Also through one that others have
    /// just taken away. What came of it: where somebody writes the page who may not fault, it stays writable.
    pub(crate) fn clean(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, owed: &mut Owed<P>) -> Hidden {
        owed.make_room_for(p, self);
        let _section = p.rcu().read();
        let found = self.surely_showing(p, at, frame);
        let hidden = found.map_or(Hidden::Not, |(locked, _)| self.protect_entry(p, &locked, at, owed));
        owed.settle(self, Range::page_of(at));
        hidden
    }

    /// Empties the entry of `at`, if it shows `frame` and is not kept, as [`hide`](Self::hide) does; else does as [`clean`](Self::clean). What came of it.
    pub(crate) fn hide_or_clean(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, owed: &mut Owed<P>) -> Hidden {
        owed.make_room_for(p, self);
        let _section = p.rcu().read();
        let mut hidden = Hidden::Not;
        if let Some((locked, i)) = self.surely_showing(p, at, frame) {
            let raw = locked.raw(i);
            if locked.is_kept(i) {
                hidden = self.protect_entry(p, &locked, at, owed);
            } else if shown(p, locked.empty(i)).is_some_and(|old| self.leave(p, at, old)) {
                owed.changed(self, Range::page_of(at));
                hidden = Hidden::Wholly;
            } else {
                locked.fill(i, raw);
                self.protect_entry(p, &locked, at, owed);
                hidden = Hidden::InUse;
            }
        }
        owed.settle(self, Range::page_of(at));
        hidden
    }

    /// Lets no CPU write through the entry of `at`, whose table is locked, if the platform does.
    fn protect_entry(self: &Arc<Self>, p: &P, locked: &Locked<'_, P>, at: u64, owed: &mut Owed<P>) -> Hidden {
        let (i, read_only) = (index(at, 0), |now: Pte| Pte { dirty: false, ..now.with_prot(now.prot.without(Prot::W)) });
        let Some(old) = locked.get(i).filter(|old| old.prot.has(Prot::W)) else { return Hidden::Not };
        if !self.may_clean(p, at, old, read_only(old)) {
            return Hidden::InUse;
        }
        locked.edit(i, read_only);
        owed.changed(self, Range::page_of(at));
        Hidden::Not
    }

    /// Empties the entry of `at`, if it shows `frame`, be it kept or not: the page is lost. Its hold on the frame is the caller's then. When `owed` is
    /// flushed no CPU uses the page there, also not through an entry that others have just taken away.
    pub(crate) fn cut(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, owed: &mut Owed<P>) -> bool {
        owed.make_room_for(p, self);
        let _section = p.rcu().read();
        let found = self.surely_showing(p, at, frame);
        if let Some((locked, i)) = &found {
            let old = shown(p, locked.empty(*i));
            self.commit(p, at, old, None);
            owed.changed(self, Range::page_of(at));
        }
        owed.settle(self, Range::page_of(at));
        found.is_some()
    }

    /// The same, for whoever has seen to it that nobody shows it from now on: if it is not found, no fault is about to show it that did not see that.
    fn surely_showing<'p>(&self, p: &'p P, at: u64, frame: FrameId) -> Option<(Locked<'p, P>, usize)> {
        if seeded!("cut-without-a-lock") {
            return self.showing(p, at, frame);
        }
        self.surely(p, at).and_then(|locked| Self::if_shows(locked, at, frame))
    }

    /// The table of the entry of `at`, locked. If there is none, then the lock of the one was taken in which it would be linked (P2): who links it later has seen
    /// what the caller did before.
    fn surely<'p>(&self, p: &'p P, at: u64) -> Option<Locked<'p, P>> {
        loop {
            // P3: what was detached meanwhile is walked round.
            match self.surely_leaf(p, at) {
                None => {}
                Some(None) => return None,
                Some(Some(leaf)) => {
                    if let Some(locked) = Self::lock(p, leaf) {
                        return Some(locked);
                    }
                }
            }
        }
    }

    /// None: a table on the way was detached meanwhile.
    fn surely_leaf(&self, p: &P, at: u64) -> Option<Option<FrameId>> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let i = index(at, level);
            table = match Self::child_now(p, table, i) {
                Some(child) => child,
                None => match Self::lock(p, table)?.raw(i) {
                    0 => return Some(None),
                    raw => p.decode_table(raw),
                },
            };
        }
        Some(Some(table))
    }
}
