//! Pages leave.
//!
//! **Guarantee.** A page is written to its slot when no CPU can write it any more, and its frame is given up when the store has it. Nothing here sleeps
//! or waits for a transfer.
//!
//! **Mechanism.** Pages are taken from the queues by the batch. For each: was it accessed; a slot for it; every entry that shows it says the slot
//! instead. Then one flush for all of them, and only then the slots are finished: written, or given up where a fault has fetched the page
//! meanwhile, or the frame dropped where the store has the page already.

use super::lru::{BATCH, Policy as _};
use super::{Pressed, Reclaimer};
use crate::addr::{FrameId, Slot};
use crate::backing::{Claim, Left};
use crate::frame::{self, Frame};
use crate::paging::Owed;
use crate::wait;
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

/// What was done about a shortage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Pages whose frames are free.
    pub freed: usize,
    /// Pages that are being written: their frames follow.
    pub writing: usize,
}

/// When pages leave before somebody waits for them, in free frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// With fewer they begin to leave.
    pub low: usize,
    /// Until there are so many.
    pub high: usize,
}

/// A page whose entries are gone, and which some CPU may still use.
struct Leaving<'p, P: Pressed> {
    /// None: its contents are not wanted.
    claim: Option<Claim<'p, P::Swap>>,
    held: Frame<'p, P>,
    /// Entries that showed it: their holds are the evictor's now.
    entries: usize,
}

impl<P: Pressed> Reclaimer<P> {
    /// Lets pages go if fewer frames are free than `marks` want, so many that there will be as many as they want. For a thread of the host's that does
    /// this now and then, before a fault has to wait for it. Never sleeps.
    pub fn balance(&self, p: &P, marks: Marks) -> Reclaimed {
        let soon = p.free_frames() + self.area.writing() as usize;
        if soon < marks.low { self.reclaim(p, marks.high.saturating_sub(soon)) } else { Reclaimed::default() }
    }

    /// Lets about `want` pages go, of those that were not used lately, if there are such. Each page is looked at three times at most: used,
    /// not used since, and gone. Never sleeps.
    pub fn reclaim(&self, p: &P, want: usize) -> Reclaimed {
        self.evicting.fetch_add(1, Ordering::Relaxed);
        let mut done = Reclaimed::default();
        // How many there are at first: those that arrive meanwhile can wait.
        let (mut looked_at, mut first) = (0, None);
        while done.freed + done.writing < want && first.is_none_or(|all| looked_at < 3 * all) {
            let mut pages = [None; BATCH];
            let all = self.policy.take(p, &mut pages);
            first = first.or(Some(all));
            let taken = pages.iter().flatten().count();
            if taken == 0 {
                break;
            }
            looked_at += taken;
            self.batch(p, pages, false, &mut done);
        }
        if done.freed > 0 {
            self.has_freed();
        }
        // Release: see `is_under_way`.
        self.evicting.fetch_sub(1, Ordering::Release);
        // Who found nothing meanwhile waits for what was found here.
        wait::happened(p, self.thing());
        done
    }

    /// Lets `pages` go: those that were used too, if `even_used`.
    pub(super) fn batch(&self, p: &P, pages: [Option<FrameId>; BATCH], even_used: bool, done: &mut Reclaimed) {
        let mut owed = Owed::new();
        let leaving = pages.map(|page| self.empty_entries(p, page?, even_used, &mut owed));
        owed.flush(p);
        for Leaving { claim, held, entries } in leaving.into_iter().flatten() {
            let frame = held.id();
            (0..entries).for_each(|_| frame::put(p, frame));
            match claim.map_or(Left::Gone, |claim| claim.finish(p, held)) {
                Left::Gone => done.freed += 1,
                // It arrives again by the completion, if it stays.
                Left::Writing => done.writing += 1,
                Left::Kept => self.policy.stays(p, frame, false),
            }
        }
    }

    /// Takes the page of `frame` out of every entry that shows it, if it may leave: they say its slot instead, or nothing if what is in it is not wanted.
    fn empty_entries<'p>(&'p self, p: &'p P, frame: FrameId, even_used: bool, owed: &mut Owed<P>) -> Option<Leaving<'p, P>> {
        // None: it is free, or a table. When it becomes a page it arrives.
        let held = Frame::try_share(p, frame)?;
        let (record, Seen { entries, accessed, dirty, kept }) = (p.record(frame), self.look(p, frame));
        if record.home().is_none() && record.slot().is_none() {
            // A page of a file by now, or about to be a page: then it arrives.
            return None;
        }
        let claim = record.slot().and_then(|slot| self.area.claim_again(slot, frame));
        let is_being_moved = claim.is_none() && record.slot().is_some_and(|slot| self.area.still_has(slot, frame));
        // Its own hold, and its slot's if it is in one already. Whoever else has one is about to show it, or uses it.
        let known = entries + 1 + usize::from(claim.is_some());
        let is_alone = frame::meta(p, frame).refs() as usize <= known || seeded!("forget-what-is-held");
        let is_known = (entries > 0 || claim.is_some()) && is_alone;
        let may_leave = is_known && (even_used || !accessed) && !kept && !is_being_moved;
        if may_leave && claim.is_none() && entries == 1 && !dirty {
            let dropped = self.drop_clean(p, frame, owed);
            if dropped {
                return Some(Leaving { claim, held, entries });
            }
        }
        let claim = match claim {
            Some(claim) if may_leave => Some(claim),
            Some(claim) => {
                claim.cancel(p);
                None
            }
            None if may_leave => self.area.claim(&held, p),
            None => None,
        };
        let Some(claim) = claim else {
            self.policy.stays(p, frame, accessed);
            return None;
        };
        record.is_of(claim.slot());
        let entries = self.send_away(p, frame, claim.slot(), owed);
        Some(Leaving { claim: Some(claim), held, entries })
    }

    /// Empties the only entry that shows the page of `frame`, if it is still clean.
    fn drop_clean(&self, p: &P, frame: FrameId, owed: &mut Owed<P>) -> bool {
        let mut dropped = false;
        let Some((space, at)) = p.record(frame).home() else { return false };
        self.spaces.visit(p, space, |tables| dropped = dropped || tables.drop_clean(p, at, frame, owed));
        dropped
    }

    /// Lets every entry that shows the page of `frame` say `slot`. How many did.
    fn send_away(&self, p: &P, frame: FrameId, slot: Slot, owed: &mut Owed<P>) -> usize {
        let mut entries = 0;
        let Some((space, at)) = p.record(frame).home() else { return 0 };
        self.spaces.visit(p, space, |tables| entries += usize::from(tables.send_away(p, at, frame, slot, owed)));
        entries
    }

    /// Looks at the entries that show the page of `frame`.
    fn look(&self, p: &P, frame: FrameId) -> Seen {
        let mut seen = Seen::default();
        let Some((space, at)) = p.record(frame).home() else { return seen };
        self.spaces.visit(p, space, |tables| {
            if let Some((pte, kept)) = tables.take_accessed(p, at, frame) {
                seen.entries += 1;
                seen.kept |= kept;
                seen.accessed |= pte.accessed;
                seen.dirty |= pte.dirty;
            }
        });
        seen
    }
}

/// What shows a page.
#[derive(Default)]
struct Seen {
    entries: usize,
    /// Through any of them, since this was asked last.
    accessed: bool,
    dirty: bool,
    /// By any of them.
    kept: bool,
}
