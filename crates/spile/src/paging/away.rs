//! Pages that leave their entries, by whoever has no hold on their mapping.
//!
//! **Guarantee.** An entry changes only if it shows the page that shall leave (its frame is asked under the table's lock, and nothing else is trusted).
//! When an [`Owed`] is flushed, no CPU uses the page through an entry that it is about.
//!
//! **Mechanism.** Nobody is excluded. A fault that comes in between finds the slot, and the page there. A change that comes in between takes the slot away,
//! and waits for the flush that is owed, as for any (P6).

use super::table::{Locked, index};
use super::{PageTable, Pte};
use crate::addr::{FrameId, Range, Slot};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use crate::shared::place_of;
use crate::wait;
use alloc::sync::Arc;
use spile_rcu::Rcu;
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

/// Of how many spaces pages leave in one go, before it is flushed.
const ROOM: usize = 4;

/// Flushes of several spaces, not yet done.
#[must_use = "other CPUs still use what was taken away: flush"]
pub(crate) struct Owed<P: Platform> {
    pub(super) debts: [Option<(Arc<PageTable<P>>, Range)>; ROOM],
}

impl<P: Platform> Owed<P> {
    pub(crate) fn new() -> Self {
        Self { debts: [const { None }; ROOM] }
    }

    /// Flushes, if otherwise there is no room for something of `tables`.
    pub(super) fn make_room_for(&mut self, p: &P, tables: &PageTable<P>) {
        let has_room =
            |debt: &Option<(Arc<PageTable<P>>, Range)>| debt.as_ref().is_none_or(|(other, _)| other.space == tables.space);
        if !self.debts.iter().any(has_room) {
            self.flush(p);
        }
    }

    /// An entry of `page` was taken away, under its table's lock, which is still held.
    pub(super) fn changed(&mut self, tables: &Arc<PageTable<P>>, page: Range) {
        for debt in &mut self.debts {
            match debt {
                Some((other, range)) if other.space == tables.space => {
                    *range = range.around(page);
                    return;
                }
                Some(_) => {}
                None => {
                    // Relaxed: whoever must see it takes the same table's lock after us.
                    tables.unflushed.fetch_add(1, Ordering::Relaxed);
                    *debt = Some((Arc::clone(tables), page));
                    return;
                }
            }
        }
    }

    /// Makes every CPU forget it. Spins.
    pub(crate) fn flush(&mut self, p: &P) {
        let debts = core::mem::replace(&mut self.debts, [const { None }; ROOM]);
        let mut flights = debts.map(|debt| debt.map(|(tables, range)| (p.issue(tables.space, range), tables)));
        for (flush, _) in flights.iter_mut().flatten() {
            p.dispatch(flush);
        }
        for (mut flush, tables) in flights.into_iter().flatten() {
            while !p.acked(&mut flush) {
                p.relax();
            }
            drop(flush);
            // Release: pairs with `is_unflushed`: a space that ends is retired after the last that is done about it.
            tables.unflushed.fetch_sub(1, Ordering::Release);
            wait::happened(p, tables.flush_thing());
        }
    }
}

impl<P: Platform> PageTable<P> {
    /// Whether an entry was changed, of which some CPU may not have been told.
    pub(crate) fn is_unflushed(&self) -> bool {
        // Acquire: as in `flush`.
        self.unflushed.load(Ordering::Acquire) != 0
    }

    /// Where those wait who wait until every CPU has been told.
    pub(crate) fn flush_thing(&self) -> usize {
        place_of(&self.unflushed)
    }

    /// The entry of `at`, if it shows `frame`, and whether that is kept. From now on it was not accessed.
    pub(crate) fn take_accessed(&self, p: &P, at: u64, frame: FrameId) -> Option<(Pte, bool)> {
        let _section = p.rcu().read();
        let (locked, i) = self.showing(p, at, frame)?;
        Some((locked.edit(i, |now| Pte { accessed: false, ..now })?, locked.is_kept(i)))
    }

    /// Empties the entry of `at`, if it shows `frame` and is not dirty. Its hold on the frame is the caller's then.
    pub(crate) fn drop_clean(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, owed: &mut Owed<P>) -> bool {
        // Whoever writes it from here on marks it first, which is either before the entry is emptied, or a fault.
        self.empty_if(p, at, frame, |now| !now.dirty || seeded!("drop-what-is-written"), owed)
    }

    pub(super) fn empty_if(
        self: &Arc<Self>,
        p: &P,
        at: u64,
        frame: FrameId,
        wanted: impl Fn(Pte) -> bool,
        owed: &mut Owed<P>,
    ) -> bool {
        owed.make_room_for(p, self);
        let _section = p.rcu().read();
        let Some((locked, i)) = self.leaving(p, at, frame) else { return false };
        let Some(old) = locked.empty_if(i, wanted) else { return false };
        let leaves = self.leave(p, at, old);
        if leaves {
            owed.changed(self, Range::page_of(at));
        } else {
            locked.fill(i, p.encode(old));
        }
        leaves
    }

    /// Lets the entry of `at` say `slot` instead of showing `frame`, if it does that, and counts the entry there. Its hold on the frame is the caller's
    /// then. What is owed already is flushed first, here and elsewhere, if there is no room for more.
    pub(crate) fn send_away(self: &Arc<Self>, p: &P, at: u64, frame: FrameId, slot: Slot, owed: &mut Owed<P>) -> bool {
        owed.make_room_for(p, self);
        let _section = p.rcu().read();
        let Some((locked, i)) = self.leaving(p, at, frame) else { return false };
        // Before anybody finds it there.
        P::Reclaim::share(p, slot);
        let raw = locked.exchange(i, p.encode_slot(slot));
        if super::table::shown(p, raw).is_some_and(|old| !self.leave(p, at, old)) {
            locked.exchange(i, raw);
            P::Reclaim::give_up(p, slot);
            return false;
        }
        if !seeded!("write-before-the-flush") {
            owed.changed(self, Range::page_of(at));
        }
        true
    }

    /// As [`showing`](Self::showing), unless the page is kept: asked again where it counts, for it may have been locked since it was looked at.
    fn leaving<'p>(&self, p: &'p P, at: u64, frame: FrameId) -> Option<(Locked<'p, P>, usize)> {
        self.showing(p, at, frame).filter(|(locked, i)| !locked.is_kept(*i) || seeded!("evict-what-is-kept"))
    }

    /// The table of the entry of `at`, locked, if it shows `frame`.
    pub(super) fn showing<'p>(&self, p: &'p P, at: u64, frame: FrameId) -> Option<(Locked<'p, P>, usize)> {
        Self::if_shows(Self::lock(p, self.leaf(p, at)?)?, at, frame)
    }

    pub(super) fn if_shows<'p>(locked: Locked<'p, P>, at: u64, frame: FrameId) -> Option<(Locked<'p, P>, usize)> {
        let i = index(at, 0);
        locked.get(i).is_some_and(|pte| pte.frame == frame || seeded!("walk-trusts-the-record")).then_some((locked, i))
    }
}
