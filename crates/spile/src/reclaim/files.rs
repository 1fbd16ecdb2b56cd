//! Files: their pages leave, are written back, and are lost when a file becomes shorter.
//!
//! **Guarantee.** When a flush returns, what was written before it began is durable, or it says that it is not. When a file was cut, no CPU uses a page beyond the end, and
//! none ever will, but for those that private mappings have copied. Writes are noted until they are in the store (`dirty`).
//!
//! **Mechanism.** All by [`Links`](super::links): a page is hidden, write-protected or cut in every entry that shows it, then flushed, a batch at a time, and then written
//! or given up.

use super::evict::{Leaving, Seen, To};
use super::lru::{BATCH, Policy as _};
use super::rmap::Home;
use super::{Pressed, Reclaimer};
use crate::addr::{FrameId, PAGE};
use crate::backing::{Claim, File, Left, Started, Unwritten, Writes};
use crate::frame::{self, Frame};
use crate::paging::{Hidden, Owed};
use crate::platform::{Store, Transfer};
use crate::wait;
use core::ops::Range;
use spile_sync::atomic::Ordering;
use spile_sync::seeded;

impl<P: Pressed> Reclaimer<P> {
    /// Hides `page` of `file`, which is in `held`, in every entry that shows it; to be written back first, if it was written. None: it stays, as it is or until it is
    /// written. What was written and comes from nowhere goes to a slot.
    pub(super) fn hide<'p>(
        &'p self,
        p: &'p P,
        file: File<P>,
        page: u64,
        (held, seen): (Frame<'p, P>, Seen),
        even_used: bool,
        owed: &mut Owed<P>,
    ) -> Option<Leaving<'p, P>> {
        let frame = held.id();
        if file.is_writing(page) {
            // When it is written it arrives.
            return Some(Leaving { to: To::Elsewhere, held, entries: 0 });
        }
        // The file has a hold, and the caller.
        let is_alone = frame::meta(p, frame).refs() as usize <= seen.entries + 2;
        let may_leave = is_alone && (even_used || !seen.accessed) && !seen.kept;
        let (is_dirty, takes_writes) = (file.is_dirty(page), file.takes_writes());
        if may_leave && is_dirty && takes_writes {
            let write = file.begin_write(p, page)?;
            let entries = hide_or_clean(p, &file, page, frame, owed);
            return Some(Leaving { to: To::Store(write), held, entries });
        }
        let claim = match is_dirty && may_leave && file.store().is_none() {
            true => self.area.claim(&held, p),
            false => None,
        };
        if !may_leave || is_dirty && claim.is_none() {
            // Also what somebody has, or cannot be written: among the inactive many such would keep those that are used from being looked at again.
            self.policy.stays(p, frame, true);
            return None;
        }
        let mut entries = 0;
        file.links().visit(p, page, |tables, at| entries += usize::from(tables.hide(p, at, frame, owed)));
        let to = match claim {
            Some(claim) => {
                p.record(frame).is_of(claim.slot());
                To::Away(claim)
            }
            None => To::File(file, page),
        };
        Some(Leaving { to, held, entries })
    }

    /// Lets `page` of `file` leave, which the store has, if nobody has found it since it was hidden.
    pub(super) fn evict_held(&self, p: &P, file: &File<P>, page: u64, held: Frame<'_, P>) -> Left {
        if file.evict_held(p, page, held) { Left::Gone } else { Left::Kept }
    }

    /// The same of one whose write was started. If that is over it has arrived.
    pub(super) fn written(started: &Started<P>) -> Left {
        match started.how {
            Transfer::Started => Left::Writing,
            Transfer::Done if started.file.evict(started.page) => Left::Gone,
            Transfer::Done | Transfer::Failed => Left::Kept,
        }
    }

    /// Lets the page that is in `held`, a file's, be in the slot, and written there, if nobody has found it since it was hidden.
    pub(super) fn send_away(&self, p: &P, claim: Claim<'_, P::Swap>, held: Frame<'_, P>) -> Left {
        // What it was it is still, or lost: it is held.
        let home = self.home(p, held.id());
        if let Some(Home::File(file, page)) = home
            && file.send_away(p, page, &held, claim.slot())
        {
            return claim.finish(p, held);
        }
        claim.cancel(p);
        Left::Kept
    }
}

impl<P: Pressed> Reclaimer<P> {
    /// A transfer of a file's page is over; `frame` has the page, if it is in memory.
    pub(super) fn has_moved(&self, p: &P, frame: Option<FrameId>) {
        if let Some(frame) = frame.filter(|_| !self.is_idle()) {
            self.policy.arrive(p, frame);
        }
        // Release: see `is_under_way`.
        self.moving.fetch_sub(1, Ordering::Release);
        if !self.is_idle() {
            wait::happened(p, self.thing());
        }
    }
}

/// Lets no CPU write `page`, which is in `frame`, without a fault, when `owed` is flushed, nor read it where it can be hidden. How many entries showed it. What somebody besides programs may
/// write is dirty again at once.
fn hide_or_clean<P: Pressed>(p: &P, file: &File<P>, page: u64, frame: FrameId, owed: &mut Owed<P>) -> usize {
    let mut entries = 0;
    if !seeded!("write-what-is-written") {
        file.links().visit(p, page, |tables, at| match tables.hide_or_clean(p, at, frame, owed) {
            Hidden::Wholly => entries += 1,
            Hidden::InUse if seeded!("written-for-good") => {}
            Hidden::InUse => file.set_dirty(page),
            Hidden::Not => {}
        });
    }
    entries
}

/// Lets no CPU write `page`, which is in `frame`, without a fault, when `owed` is flushed. What somebody writes who may not fault is dirty again at once.
fn clean<P: Pressed>(p: &P, file: &File<P>, page: u64, frame: FrameId, owed: &mut Owed<P>) {
    if !seeded!("write-what-is-written") {
        file.links().visit(p, page, |tables, at| {
            if tables.clean(p, at, frame, owed) == Hidden::InUse && !seeded!("flushed-for-good") {
                file.set_dirty(page);
            }
        });
    }
}

impl<P: Pressed> File<P> {
    /// Writes back what was written to `pages` before this began, and waits until the store says that it is durable. May sleep.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]: some of it is not; or a page elsewhere in the file could not be written meanwhile. What is missing is in memory still.
    pub fn flush(&self, pages: Range<u64>) -> Result<(), Unwritten> {
        let p = self.platform();
        // What comes from nowhere has nowhere to go.
        let Some(store) = self.store() else { return Ok(()) };
        if !self.takes_writes() {
            return if self.next_dirty(pages).is_some() { Err(Unwritten) } else { Ok(()) };
        }
        let failed = self.failed_writes();
        let mut rest = pages.clone();
        while !rest.is_empty() {
            rest.start = self.write_some(p, rest.clone());
        }
        self.await_writes(pages);
        let is_durable = seeded!("flush-without-sync") || store.sync(self);
        if self.failed_writes() == failed && is_durable { Ok(()) } else { Err(Unwritten) }
    }

    /// Starts to write the first dirty pages of `pages`, as many as are flushed at once. Where to go on. May sleep: what is being written, and was changed since, is
    /// waited for.
    fn write_some(&self, p: &P, pages: Range<u64>) -> u64 {
        let mut owed = Owed::new();
        let mut writes = Writes::<P, BATCH>::new();
        let mut next = pages.start;
        while writes.count() < BATCH {
            let Some(page) = self.next_dirty(next..pages.end) else {
                next = pages.end;
                break;
            };
            if let Some(write) = self.begin_write(p, page) {
                clean(p, self, page, write.frame(), &mut owed);
                writes.add(write);
            } else if writes.count() > 0 {
                // Nobody is waited for with writes that have begun.
                break;
            } else {
                self.await_write(p, page);
                continue;
            }
            next = page + 1;
        }
        owed.flush(p);
        // What failed is counted.
        writes.start(|_| ());
        next
    }

    /// Lets `pages` leave memory, used or not, which nobody has but the file, entries that show them and a slot; what was written is written first. What could not be stays; whose write takes time
    /// leaves when it is its turn. Never sleeps, but for what the store does.
    pub fn send_out(&self, pages: Range<u64>) {
        let p = self.platform();
        let reclaimer = p.reclaimer();
        reclaimer.evicting(p, |done| {
            let (mut batch, mut found) = ([None; BATCH], 0);
            self.each_frame(pages, |frame| {
                batch[found] = Some(frame);
                found = (found + 1) % BATCH;
                if found == 0 {
                    reclaimer.batch(p, core::mem::take(&mut batch), true, done);
                }
            });
            reclaimer.batch(p, batch, true, done);
        });
    }

    /// Lets the file be `len` bytes long. If that is shorter, when it returns no CPU uses what lies beyond, faults there are refused, nothing of it, nor of the last page, is being written to the store,
    /// and what is read of it goes nowhere; what private mappings have copied stays theirs. It is for the host to tell the store afterwards. One at a time per file. May
    /// sleep.
    pub fn truncate(&self, len: u64) {
        if len >= self.len() {
            return self.extend(len);
        }
        self.set_len(len);
        self.cut(len.div_ceil(PAGE)..u64::MAX);
        self.zero_tail(self.platform(), len);
        // It may have the old bytes beyond the end: those come before whatever the host tells the store next.
        self.await_write(self.platform(), len / PAGE);
    }

    /// Lets no CPU use `pages` as they are in memory: what is used next is read anew. For contents that have changed where they come from. What was written and is not in the
    /// store is lost. May sleep.
    pub fn invalidate(&self, pages: Range<u64>) {
        self.cut(pages);
    }

    /// Loses all of `pages`, in memory and where they are shown, and waits until none of them is being written.
    fn cut(&self, pages: Range<u64>) {
        self.lose_all(pages.clone());
        self.await_writes(pages);
    }

    /// Waits until what is being written of `pages` is over, page after page. With nothing held; may sleep.
    fn await_writes(&self, mut pages: Range<u64>) {
        while let Some(page) = self.next_writing(pages.clone()) {
            self.await_write(self.platform(), page);
            pages.start = page + 1;
        }
    }

    fn lose_all(&self, pages: Range<u64>) {
        let p = self.platform();
        let mut rest = pages;
        loop {
            let (mut owed, mut lost, mut some) = (Owed::new(), [const { None }; BATCH], 0);
            let mut next = None;
            self.each_while(rest.clone(), |page, _| {
                if some == BATCH {
                    next = Some(page);
                    return false;
                }
                if let Some(held) = self.lose(p, page) {
                    let mut entries = 0;
                    self.links().visit(p, page, |tables, at| entries += usize::from(tables.cut(p, at, held.id(), &mut owed)));
                    lost[some] = Some((held, entries));
                    some += 1;
                }
                true
            });
            owed.flush(p);
            for (held, entries) in lost.into_iter().flatten() {
                (0..entries).for_each(|_| frame::put(p, held.id()));
            }
            match next {
                Some(page) => rest.start = page,
                None => return,
            }
        }
    }
}
