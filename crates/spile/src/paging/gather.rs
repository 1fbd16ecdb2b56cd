//! What a flush is about, and what waits for it.
//!
//! **Guarantee.** A frame that was put into a [`Gather`] is given up, and a table freed, only after every CPU has acknowledged the flush
//! of the addresses at which they were (P8); a table waits for a grace period besides. While entries have been changed and
//! their flush is not over, [`PageTable`] says so (P6).
//!
//! **Mechanism.** Changes are noted under the table's lock. `issue → dispatch → wait` are three steps of one value, which carries the
//! frames: whoever drops it early waits in the drop.

use super::limbo::Chain;
use super::table::PageTable;
use crate::addr::{FrameId, Range, SpaceId};
use crate::frame;
use crate::platform::Platform;
use spile_sync::atomic::{AtomicU32, Ordering};
use spile_sync::{order, seeded};

/// How many frames wait for one flush.
#[cfg(not(loom))]
const ROOM: usize = 64;
#[cfg(loom)]
const ROOM: usize = 2;

/// Changed entries of one address space, not yet flushed, and the frames and tables that were behind them.
#[must_use = "dropping it flushes and waits"]
pub struct Gather<'p, P: Platform> {
    p: &'p P,
    space: SpaceId,
    unflushed: &'p AtomicU32,
    range: Option<Range>,
    load: Load,
}

/// What rides in a flush.
struct Load {
    frames: [FrameId; ROOM],
    len: usize,
    tables: Chain,
}

impl<'p, P: Platform> Gather<'p, P> {
    /// Nothing yet.
    pub fn new(p: &'p P, table: &'p PageTable<P>) -> Self {
        let load = Load { frames: [FrameId(0); ROOM], len: 0, tables: Chain::EMPTY };
        Self { p, space: table.space, unflushed: &table.unflushed, range: None, load }
    }

    /// Entries of `range` have just been changed, under their table's lock, which is still held.
    pub(super) fn changed(&mut self, range: Range) {
        if self.range.is_none() {
            // Relaxed: whoever must see it takes the same table's lock after us.
            self.unflushed.fetch_add(1, Ordering::Relaxed);
        }
        self.range = Some(self.range.map_or(range, |before| before.around(range)));
    }

    /// The hold of an emptied entry on its frame. There is room: see [`is_full`](Self::is_full).
    pub(super) fn frame(&mut self, frame: FrameId) {
        if seeded!("p8-free-before-flush") {
            return frame::put(self.p, frame);
        }
        self.load.frames[self.load.len] = frame;
        self.load.len += 1;
    }

    /// Whether it must be flushed before it takes another frame.
    pub(super) fn is_full(&self) -> bool {
        self.load.len == ROOM
    }

    /// A table that was just detached; it was the way to `range`.
    pub(super) fn table(&mut self, range: Range, table: FrameId) {
        self.changed(range);
        self.load.tables.push(self.p, table);
    }

    /// Flushes this CPU and notes the others; none if nothing has changed.
    pub fn issue(&mut self) -> Option<Issued<'p, P>> {
        let range = self.range.take()?;
        let empty = Load { frames: self.load.frames, len: 0, tables: Chain::EMPTY };
        let load = core::mem::replace(&mut self.load, empty);
        let flush = self.p.issue(self.space, range);
        Some(Issued(Flight { p: self.p, unflushed: self.unflushed, flush, load }))
    }

    /// All three steps. Spins: may be called under table locks, and from a fault.
    pub fn flush(&mut self) {
        if let Some(issued) = self.issue() {
            issued.dispatch().wait();
        }
    }

    /// As [`flush`](Self::flush), and waits too for what others have changed in `range` and not flushed yet (P6): when it
    /// returns no CPU uses what was there before.
    pub fn settle(&mut self, range: Range) {
        let own = u32::from(self.range.is_some());
        // Relaxed: raised under table locks that the caller has held since.
        if self.unflushed.load(Ordering::Relaxed) > own && !seeded!("p6-ignore-pending") {
            self.changed(range);
        }
        self.flush();
    }
}

impl<P: Platform> Drop for Gather<'_, P> {
    fn drop(&mut self) {
        self.flush();
    }
}

struct Flight<'p, P: Platform> {
    p: &'p P,
    unflushed: &'p AtomicU32,
    flush: P::Flush,
    load: Load,
}

/// A flush that this CPU has done and no other knows of.
#[must_use = "other CPUs still use what was changed; dropping it dispatches and waits"]
pub struct Issued<'p, P: Platform>(Flight<'p, P>);

/// A flush that all CPUs have been asked for.
#[must_use = "other CPUs may still use what was changed; dropping it waits"]
pub struct Dispatched<'p, P: Platform>(Flight<'p, P>);

impl<'p, P: Platform> Issued<'p, P> {
    /// Asks the other CPUs.
    pub fn dispatch(mut self) -> Dispatched<'p, P> {
        self.0.p.dispatch(&mut self.0.flush);
        Dispatched(self.0)
    }
}

impl<P: Platform> Dispatched<'_, P> {
    /// Waits until all have answered, then gives up what rides in it.
    pub fn wait(self) {}
}

impl<P: Platform> Drop for Flight<'_, P> {
    fn drop(&mut self) {
        while !seeded!("no-await") && !self.p.acked(&mut self.flush) {
            self.p.relax();
        }
        // Release [gather-over]: whoever reads a lower count need not wait, and sees what was done by old translations; what rode in the flush is ours to give up.
        self.unflushed.fetch_sub(1, order!("gather-over", Release));
        self.load.frames[..self.load.len].iter().for_each(|frame| frame::put(self.p, *frame));
        self.p.shared().limbo.add(self.p, &mut self.load.tables);
    }
}
