//! Moving pages to other addresses.

use super::Gather;
use super::install::Lost;
use super::table::{Locked, PageTable, index, parts, shown};
use crate::addr::{PAGE, Range};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_rcu::Rcu;
use spile_sync::seeded;

/// How many entries move per flush.
#[cfg(not(loom))]
const BATCH: usize = 32;
#[cfg(loom)]
const BATCH: usize = 2;

impl<P: Platform> PageTable<P> {
    /// Links the tables that [`relocate`](Self::relocate) will need, so that it cannot fail.
    ///
    /// # Errors
    ///
    /// [`Lost::NoMemory`]; tables may have been linked.
    ///
    /// # Safety
    ///
    /// (1) `p` is the platform of these tables; (2) `from`, and as much from `to` on, lie in what tables can map, in whole pages; (3) the caller
    /// has the right to change both.
    pub unsafe fn prepare_relocation(&self, p: &P, from: Range, to: u64) -> Result<(), Lost> {
        let _section = p.rcu().read();
        for part in parts(from, 1).filter(|part| self.leaf_or_never(p, part.start()).is_some()) {
            for target in parts(Range::of(part.start() - from.start() + to, part.end() - from.start() + to), 1) {
                while self.leaf_or_link(p, target.start(), None, &|| true)?.is_none() {}
            }
        }
        Ok(())
    }

    /// Moves the entries of `from` to the addresses from `to` on, where nothing is. The caller's claims keep faults out of both. An
    /// entry is emptied and flushed before it is shown elsewhere, so that no CPU writes through the old address what a copy
    /// made through the new one would miss.
    ///
    /// # Safety
    ///
    /// (1) `p` is the platform of these tables, and `gather` was made for them; (2) [`prepare_relocation`](Self::prepare_relocation) was called
    /// for the same addresses, and the caller has had the right to change them since; (3) its claims keep faults out of both; (4) there is
    /// nothing from `to` on, and the two do not overlap.
    pub unsafe fn relocate(&self, p: &P, from: Range, to: u64, gather: &mut Gather<'_, P>) {
        let _section = p.rcu().read();
        for part in parts(from, 1) {
            let mut rest = Some(part);
            while let Some(now) = rest {
                let Some(source) = self.leaf(p, now.start()) else { break };
                let there = now.start() - from.start() + to;
                let span = PAGE * BATCH as u64;
                let end = now.end().min(now.start() + span);
                let target = parts(Range::of(there, there + (end - now.start())), 1).next().expect("not empty");
                let now_part = Range::of(now.start(), now.start() + target.len());
                // Claims keep entries from coming, but not a table: a fault on a neighbour may have linked it after the target was
                // prepared, which has no table then, and needs none.
                if Self::is_used_in(p, source, now_part) {
                    self.relocate_batch(p, source, now_part, target, gather);
                }
                rest = part.above(now_part.end());
            }
        }
    }

    /// Whether a table of level 0 has an entry in `range`, from which claims keep faults. Asked under its lock: one that came in before the
    /// claims may be about to fill an entry.
    fn is_used_in(p: &P, table: crate::FrameId, range: Range) -> bool {
        let is_used =
            |locked: Locked<'_, P>| (range.start()..range.end()).step_by(PAGE as usize).any(|at| locked.raw(index(at, 0)) != 0);
        Self::lock(p, table).is_some_and(is_used)
    }

    fn relocate_batch(&self, p: &P, source: crate::FrameId, from: Range, to: Range, gather: &mut Gather<'_, P>) {
        // Unlocked in the reverse order, as pins demand.
        let (low, high) = loop {
            let linked = self.leaf_or_link(p, to.start(), None, &|| true);
            debug_assert!(linked.is_ok(), "the target was not prepared");
            let Ok(Some(target)) = linked else { continue };
            let Some(pair) = Self::lock_two(p, source, target) else { continue };
            break pair;
        };
        let high = high.as_ref().unwrap_or(&low);
        let (source, target) = if low.frame == source { (&low, high) } else { (high, &low) };
        let mut moved = [0; BATCH];
        for (raw, at) in moved.iter_mut().zip((from.start()..from.end()).step_by(PAGE as usize)) {
            if source.raw(index(at, 0)) != 0 {
                *raw = source.empty(index(at, 0));
                if let Some(old) = shown(p, *raw) {
                    self.commit(p, at, Some(old), None);
                    gather.changed(Range::page_of(at));
                }
            }
        }
        if !seeded!("relocate-without-flush") {
            gather.flush();
        }
        for (raw, at) in moved.into_iter().zip((to.start()..to.end()).step_by(PAGE as usize)).filter(|(raw, _)| *raw != 0) {
            if let Some(pte) = shown(p, raw) {
                self.commit(p, at, None, Some(pte));
                P::Reclaim::moved(p, self.space, pte, at);
            }
            target.fill(index(at, 0), raw);
        }
    }

    /// Locks two tables of one level, the lower frame first; the second is none if they are one.
    fn lock_two(p: &P, one: crate::FrameId, two: crate::FrameId) -> Option<(Locked<'_, P>, Option<Locked<'_, P>>)> {
        let low = Self::lock(p, one.min(two))?;
        let high = if one == two { None } else { Some(Self::lock(p, one.max(two))?) };
        Some((low, high))
    }
}
