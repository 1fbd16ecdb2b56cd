//! Pages that are in slots, because there is nowhere else to have them: those of shared memory that were written.
//!
//! **Guarantee.** Such a page is in its frame or in one slot, whatever fails, until it is lost. Nobody writes a frame that a slot has, or a store reads. What lay beyond an end
//! that the file had reads as zeros.
//!
//! **Mechanism.** The file's entry says the slot, and is the one entry that counts there.
//!
//! *Out.* An evictor that has a slot for the page, and has hidden it wherever it was shown, takes all holds on the frame at once, if nobody else has one: so no fault is
//! about to show it that found it before. Then the entry says the slot, and those who look for the page there find it in its frame.
//!
//! *In.* Who finds the contents in a frame claims the slot: so nobody writes them or gives them up, and the frame has what belongs to that slot. While he has the claim
//! he puts the frame into the entry, if that says the slot still: so they are this page's. It does not matter how often it has come and gone since he looked. From
//! then on it is a page as any, and in no slot. Whoever finds somebody else at the slot waits until that is over.
//!
//! *Ends.* A page that is away cannot be filled with zeros. Its entry says from where on there are to be some; who brings it in sees to that.

use super::cut::zero_from;
use super::{AWAY, DIRTY, FRAME_SHIFT, File, Found, HELD_BY_US, HERE, LEAVING, encode_frame};
use crate::addr::{PAGE, Slot};
use crate::backing::InSlot;
use crate::frame::{self, Frame};
use crate::platform::Platform;
use crate::reclaim::sealed::Reclaim;
use spile_sync::seeded;

/// Where zeros begin in a page, if not behind it: then this is 0. Above the number of the slot.
const ZEROS_SHIFT: u32 = FRAME_SHIFT + 32;

const _: () = assert!(PAGE.ilog2() + ZEROS_SHIFT <= 64, "every offset in a page has room");

/// Whether an entry says a slot. Never, where there are none.
#[inline(always)]
pub(super) fn is_away<P: Platform>(raw: u64) -> bool {
    P::Reclaim::KEEPS && raw & AWAY != 0
}

/// Which.
pub(super) fn slot_of(raw: u64) -> Slot {
    Slot((raw >> FRAME_SHIFT) as u32)
}

/// The entry of a page that is in `slot`, and nowhere else.
fn in_slot(slot: Slot) -> u64 {
    u64::from(slot.0) << FRAME_SHIFT | AWAY | DIRTY
}

/// `raw`, of a page that is away, if that is zeros from `offset` on, too.
pub(super) fn with_zeros(raw: u64, offset: usize) -> u64 {
    let first = zeros_of(raw).map_or(offset, |before| before.min(offset)) as u64;
    raw & ((1 << ZEROS_SHIFT) - 1) | first << ZEROS_SHIFT
}

fn zeros_of(raw: u64) -> Option<usize> {
    let first = (raw >> ZEROS_SHIFT) as usize;
    (first > 0).then_some(first)
}

impl<P: Platform> File<P> {
    /// `page` is in `slot`, which has a hold on its frame, and in the file no more, if it is in `held`, was written, and nobody has a hold but these three: the file, the
    /// slot, and the caller, who has hidden it, and has a claim on the slot. Whether it is. Never sleeps.
    pub(crate) fn send_away(&self, p: &P, page: u64, held: &Frame<'_, P>, slot: Slot) -> bool {
        // Who wants a hold meanwhile spins.
        let _pin = p.pin();
        let is_frozen = self.freeze(p, page, encode_frame(held.id()) | HERE | DIRTY, HELD_BY_US + 1);
        if !is_frozen && !seeded!("send-away-what-is-held") {
            return false;
        }
        if !seeded!("away-uncounted") {
            // Before anybody finds it there.
            P::Reclaim::share(p, slot);
        }
        self.change(page, |_| Some(in_slot(slot)));
        // After that: else a fault would find the frame in the file, and show it where nobody looks any more. The file's own is gone.
        if is_frozen {
            frame::meta(p, held.id()).thaw(HELD_BY_US)
        } else {
            frame::put(p, held.id())
        }
        true
    }

    /// `page`, whose entry was `raw`, and away: brought in if it is in memory, else its read begun. None: it may be elsewhere by now. Never sleeps.
    #[cold]
    pub(super) fn fetch<'m>(&self, p: &'m P, page: u64, raw: u64) -> Option<Found<'m, P>> {
        if raw & LEAVING != 0 {
            return None;
        }
        let slot = slot_of(raw);
        match P::Reclaim::find(p, slot) {
            InSlot::Here(frame) => match P::Reclaim::take(p, slot, frame.id(), || self.has_come(p, page, raw, &frame)) {
                Ok(taken) => taken.then_some(Found::Here(frame)),
                Err(token) => self.says(page, raw).then(|| Found::Reading(token.holding(frame))),
            },
            InSlot::Reading(token) => self.says(page, raw).then_some(Found::Reading(token)),
            InSlot::Unreadable => self.tell_unreadable(p, page, raw).then_some(Found::Unreadable),
            InSlot::NoMemory => Some(Found::NoMemory),
            InSlot::Gone => None,
        }
    }

    /// Whether the entry of `page` is `raw` still. If not, what was found in its slot since is another page, and not to be waited for.
    fn says(&self, page: u64, raw: u64) -> bool {
        self.state(page) == raw
    }

    /// Puts `frame`, which has what the slot of `raw` has, into the entry of `page`, if that is `raw` still. The caller has a claim on the slot. Whether it did.
    fn has_come(&self, p: &P, page: u64, raw: u64, frame: &Frame<'_, P>) -> bool {
        // With the claim, and before the frame is touched: an entry that says the slot now has its page there. If it is lost from here on, the page is nobody's.
        if !self.says(page, raw) && !seeded!("zeros-before-whose") {
            return false;
        }
        if let Some(first) = zeros_of(raw) {
            zero_from(p, frame, first);
        }
        P::Reclaim::of_file(p, frame.id(), self.id(), page);
        // Before the entry says so.
        let files = Frame::share(p, frame.id());
        let here = encode_frame(frame.id()) | HERE | DIRTY;
        let has_come = self.change(page, |now| (now == raw || seeded!("come-in-unasked")).then_some(here)).is_some();
        if has_come {
            files.give();
        }
        has_come
    }

    /// Somebody is told that `page`, whose entry was `raw`, could not be read. Whether nobody was told before, and it is there still.
    fn tell_unreadable(&self, p: &P, page: u64, raw: u64) -> bool {
        // Who wants the page meanwhile spins. As long as the entry is marked it says the slot: so what could not be read is this page.
        let _pin = p.pin();
        if self.change(page, |now| (now == raw).then_some(raw | LEAVING)).is_none() {
            return false;
        }
        let is_first = seeded!("told-to-all") || P::Reclaim::tell_unreadable(p, slot_of(raw));
        if is_first {
            self.note_told(page);
        }
        self.change(page, |now| Some(now & !LEAVING));
        is_first
    }
}
