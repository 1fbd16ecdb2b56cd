//! Pages leave.
//!
//! **Guarantee.** A page is written to its slot when no CPU can write it any more, and its frame is given up when the store has it. Nothing here sleeps
//! or waits for a transfer.
//!
//! **Mechanism.** Pages are taken from the queues by the batch. For each: was it accessed; a slot for it; every entry that shows it says the slot
//! instead. Then one flush for all of them, and only then the slots are finished: written, or given up where a fault has fetched the page
//! meanwhile, or the frame dropped where the store has the page already. Pages of files are in `files`.

use super::lru::{BATCH, Policy as _};
use super::rmap::Home;
use super::sealed::Freeing;
use super::{Pressed, Reclaimer};
use crate::addr::FrameId;
use crate::backing::{Claim, Left};
#[cfg(feature = "file")]
use crate::backing::{File, Write, Writes};
use crate::frame::{self, Frame};
use crate::paging::{Owed, PageTable};
use crate::wait;
use alloc::sync::Arc;
use spile_sync::atomic::{Ordering, fence};
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

/// A page of which no entry is as it was, and which some CPU may still use.
pub(super) struct Leaving<'p, P: Pressed> {
    pub(super) to: To<'p, P>,
    pub(super) held: Frame<'p, P>,
    /// Entries that showed it: their holds are the evictor's now.
    pub(super) entries: usize,
}

/// Where it goes.
pub(super) enum To<'p, P: Pressed> {
    /// Its contents are not wanted.
    Nowhere,
    /// Others write it already.
    Elsewhere,
    /// To a slot.
    Slot(Claim<'p, P::Swap>),
    /// Its file's page; the store has it.
    #[cfg(feature = "file")]
    File(File<P>, u64),
    /// The same, but the store has not, yet: it stays until it is written.
    #[cfg(feature = "file")]
    Store(Write<'p, P>),
    /// To a slot: its file's page, if it is that still and nobody else has it.
    #[cfg(feature = "file")]
    Away(Claim<'p, P::Swap>),
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
        self.evicting(p, |done| {
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
                self.batch(p, pages, false, done);
            }
        })
    }

    /// Lets a batch of pages go for somebody who waits for a frame.
    ///
    /// Where nothing was found before, one looks at a time, and the others wait for him: else each who finds nothing would wait for others who find nothing, again and again,
    /// and it would take long until somebody is refused.
    pub(super) fn free_some(&self, p: &P) -> Freeing {
        let moment = p.shared().moment(self.thing());
        // Relaxed: a hint; who is not told of it looks beside others.
        let is_alone = self.in_doubt.load(Ordering::Relaxed) && !seeded!("all-look-at-once");
        // SeqCst: with `tell`. Who finds it locked after the last transfer's word was over is told by him who has it.
        fence(Ordering::SeqCst);
        let looker = is_alone.then(|| self.looker.try_lock());
        if let Some(None) = looker {
            return Freeing::UnderWay(moment);
        }
        let done = self.reclaim(p, BATCH);
        if done == Reclaimed::default() {
            self.in_doubt.store(true, Ordering::Relaxed);
        }
        // While nobody else looks: whoever comes next is no reason to wait.
        let was_under_way = self.is_under_way();
        if looker.map(drop).is_some() && !seeded!("looked-in-silence") {
            self.tell(p, done);
        }
        if done.freed > 0 {
            return Freeing::Done;
        }
        if !was_under_way {
            self.fruitless.fetch_add(1, Ordering::Relaxed);
            p.relax();
            return Freeing::Nothing;
        }
        // Before it is asked what is under way; and after the end of what was done here, which is such a moment too.
        let moment = p.shared().moment(self.thing());
        // SeqCst: as above.
        fence(Ordering::SeqCst);
        // Else it is over by now.
        if self.is_under_way() { Freeing::UnderWay(moment) } else { Freeing::Done }
    }

    /// Does it, and tells who waits for a frame what came of it.
    pub(super) fn evicting(&self, p: &P, evict: impl FnOnce(&mut Reclaimed)) -> Reclaimed {
        self.evicting.fetch_add(1, Ordering::Relaxed);
        let mut done = Reclaimed::default();
        evict(&mut done);
        if done.freed > 0 {
            self.has_freed();
        }
        // Release: see `is_under_way`.
        self.evicting.fetch_sub(1, Ordering::Release);
        self.tell(p, done);
        done
    }

    /// Who found nothing meanwhile waits for what was found here; or if that is nothing, for the end of what is on its way. That tells him.
    fn tell(&self, p: &P, done: Reclaimed) {
        // SeqCst: what is over here is said to be before it is asked what is on its way. So either who has waited for it finds that it is over, or this finds that nothing
        // is on its way any more of which he could be told. (No model shows it: models have one event for all.)
        fence(Ordering::SeqCst);
        if done.freed > 0 || !self.has_transfers() {
            wait::happened(p, self.thing());
        }
    }

    /// Lets `pages` go: those that were used too, if `even_used`. How many others are writing already.
    pub(super) fn batch(&self, p: &P, pages: [Option<FrameId>; BATCH], even_used: bool, done: &mut Reclaimed) -> usize {
        let mut owed = Owed::new();
        let leaving = pages.map(|page| self.empty_entries(p, page?, even_used, &mut owed));
        owed.flush(p);
        let mut elsewhere = 0;
        #[cfg(feature = "file")]
        let mut writes = Writes::<P, BATCH>::new();
        for Leaving { to, held, entries } in leaving.into_iter().flatten() {
            let frame = held.id();
            (0..entries).for_each(|_| frame::put(p, frame));
            let left = match to {
                To::Nowhere => Left::Gone,
                To::Elsewhere => {
                    elsewhere += 1;
                    continue;
                }
                To::Slot(claim) => claim.finish(p, held),
                #[cfg(feature = "file")]
                To::File(file, page) => self.evict_held(p, &file, page, held),
                #[cfg(feature = "file")]
                To::Store(write) => {
                    writes.add(write);
                    continue;
                }
                #[cfg(feature = "file")]
                To::Away(claim) => self.send_away(p, claim, held),
            };
            self.has_left(p, frame, left, done);
        }
        #[cfg(feature = "file")]
        writes.start(|started| self.has_left(p, started.frame, Self::written(&started), done));
        elsewhere
    }

    /// What became of the page that was in `frame`.
    fn has_left(&self, p: &P, frame: FrameId, left: Left, done: &mut Reclaimed) {
        match left {
            Left::Gone => done.freed += 1,
            // It arrives again by the completion, if it stays.
            Left::Writing => done.writing += 1,
            // Found meanwhile, or not written: among the inactive many such would keep those that are used from being looked at again.
            Left::Kept => self.policy.stays(p, frame, true),
        }
    }

    /// Takes the page of `frame` out of every entry that shows it, if it may leave.
    fn empty_entries<'p>(&'p self, p: &'p P, frame: FrameId, even_used: bool, owed: &mut Owed<P>) -> Option<Leaving<'p, P>> {
        // None: it is free, or a table. When it becomes a page it arrives.
        let held = Frame::try_share(p, frame)?;
        // What its file has no more may be in a slot.
        let home = self.home(p, frame).filter(|home| home.has(p, frame));
        let seen = home.as_ref().map_or(Seen::default(), |home| self.look(p, home, frame));
        match home {
            #[cfg(feature = "file")]
            Some(Home::File(file, page)) => self.hide(p, file, page, (held, seen), even_used, owed),
            // About to be a page: then it arrives.
            None if p.record(frame).slot().is_none() => None,
            home => self.to_slot(p, home.as_ref(), (held, seen), even_used, owed),
        }
    }

    /// Lets all entries that show a private page say its slot instead, or nothing if what is in it is not wanted.
    fn to_slot<'p>(
        &'p self,
        p: &'p P,
        home: Option<&Home<P>>,
        (held, seen): (Frame<'p, P>, Seen),
        even_used: bool,
        owed: &mut Owed<P>,
    ) -> Option<Leaving<'p, P>> {
        let (frame, record) = (held.id(), p.record(held.id()));
        let Seen { entries, accessed, dirty, kept } = seen;
        let claim = record.slot().and_then(|slot| self.area.claim_again(slot, frame));
        let is_being_moved = claim.is_none() && record.slot().is_some_and(|slot| self.area.still_has(slot, frame));
        // Its own hold, and its slot's if it is in one already. Whoever else has one is about to show it, or uses it.
        let known = entries + 1 + usize::from(claim.is_some());
        let is_alone = frame::meta(p, frame).refs() as usize <= known || seeded!("forget-what-is-held");
        let is_known = (entries > 0 || claim.is_some()) && is_alone;
        let may_leave = is_known && (even_used || !accessed) && !kept && !is_being_moved;
        if may_leave && claim.is_none() && entries == 1 && !dirty {
            let dropped = self.empty(p, home, |tables, at| tables.drop_clean(p, at, frame, owed));
            if dropped > 0 {
                return Some(Leaving { to: To::Nowhere, held, entries: dropped });
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
            return is_being_moved.then_some(Leaving { to: To::Elsewhere, held, entries: 0 });
        };
        record.is_of(claim.slot());
        let entries = self.empty(p, home, |tables, at| tables.send_away(p, at, frame, claim.slot(), owed));
        Some(Leaving { to: To::Slot(claim), held, entries })
    }

    /// Calls `each` for all entries that may show a page. How often it did what it is for.
    fn empty(&self, p: &P, home: Option<&Home<P>>, mut each: impl FnMut(&Arc<PageTable<P>>, u64) -> bool) -> usize {
        let mut entries = 0;
        if let Some(home) = home {
            self.visit(p, home, |tables, at| entries += usize::from(each(tables, at)));
        }
        entries
    }

    /// Looks at the entries that show the page of `frame`.
    fn look(&self, p: &P, home: &Home<P>, frame: FrameId) -> Seen {
        let mut seen = Seen::default();
        self.visit(p, home, |tables, at| {
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
pub(super) struct Seen {
    pub(super) entries: usize,
    /// Through any of them, since this was asked last.
    pub(super) accessed: bool,
    dirty: bool,
    /// By any of them.
    pub(super) kept: bool,
}
